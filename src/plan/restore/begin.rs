//! Before anything is changed: may it be done, has it been done, what is restored, what speaks against it, and the
//! plan. The plan is written before the first change and never changed after.

use jiff::Timestamp;

use super::journal::{End, Item, Journal, Placed, Plan as Deeds, Record, Run, staged, stored};
use super::sight::StorageClass;
use super::{Hold, KIND, Restore, close, one, report, signature, volume};
use crate::api::condition::Reason;
use crate::api::recorded::RecordedClaim;
use crate::api::restore::{Strategy, Uncovered};
use crate::api::{FINALIZER, annotation};
use crate::plan::choose::{Chosen, choose};
use crate::plan::flow::{Exit, Feed, Next, Plan, end, wait};
use crate::plan::name::{self, ClaimKey};
use crate::plan::noun::{Open, Refusal};
use crate::plan::preflight::{self, Finding, Severity, preflight};
use crate::plan::text::said;
use crate::plan::view::{Read, View};

pub fn begin(v: &View, record: &Record, now: Timestamp) -> Plan<Restore> {
    let refuse = |refusal| close(v, End::Failed(refusal), now);
    if let Some(refusal) = &v.refused {
        return refuse(refusal.clone());
    }
    if let Some(refusal) = forgotten(v)? {
        return refuse(refusal);
    }
    if let Some(finding) = not_allowed(v)? {
        return refuse(refusal(&finding));
    }
    let chosen = match choose(v)? {
        Ok(chosen) => chosen,
        Err(refusal) => return refuse(refusal),
    };
    let plan = plan(v, &chosen)?;
    let findings = preflight(v, &chosen, &plan)?;
    if let Some(refusal) = preflight::verdict(&findings) {
        return refuse(refusal);
    }
    if !record.finalizers.iter().any(|name| name == FINALIZER) {
        let finalizers = record.finalizers.iter().cloned().chain([FINALIZER.to_owned()]).collect();
        return one(Restore::Hold(Hold { version: record.version.clone(), finalizers }), now);
    }
    one(Restore::Write(Box::new(report::begun(v, Run::new(plan, now), &findings, now)?)), now)
}

/// The mark on the Lease says that this very object has begun, and its status knows nothing of it: somebody has wiped that.
fn forgotten(v: &View) -> Result<Option<Refusal>, Read> {
    if v.lease()?.is_none_or(|lease| lease.open.as_ref().is_none_or(|open| open.uid != v.want.uid)) {
        return Ok(None);
    }
    let (namespace, name) = (&v.want.statefulset_namespace, &v.want.statefulset);
    let message = format!(
        "its status was wiped in the midst of its run, and nobody knows how far that had come: nothing is changed. What it has          set aside is Retained, with labels that name claim and role. When the claims of StatefulSet {namespace}/{name} are as          they should be: sts-backup doctor --lift-fence {namespace}/{name}"
    );
    Ok(Some(Refusal::new(Reason::LockedByOpenRun, message)))
}

fn refusal(finding: &Finding) -> Refusal {
    Refusal::new(finding.reason, format!("{}: {}", finding.message, finding.remedy))
}

fn finding(reason: Reason, object: String, message: String, remedy: String) -> Finding {
    Finding { severity: Severity::Refuse, reason, object, message, remedy }
}

/// Another namespace must consent: before anything is written there, its lock included.
pub fn not_granted(v: &View) -> Result<Option<Refusal>, Read> {
    Ok(grant(v)?.as_ref().map(refusal))
}

fn grant(v: &View) -> Result<Option<Finding>, Read> {
    let (theirs, ours) = (&v.want.statefulset_namespace, &v.want.namespace);
    if theirs == ours || v.grant()?.contains(ours) {
        return Ok(None);
    }
    let message = format!("namespace {theirs} does not let {ours} restore its StatefulSets");
    let remedy = format!("annotate namespace {theirs} with {}: {ours:?}", annotation::ALLOW_FROM);
    Ok(Some(finding(Reason::NotGranted, format!("Namespace {theirs}"), message, remedy)))
}

/// Another namespace must consent, and a request that was carried out is not carried out again.
pub fn not_allowed(v: &View) -> Result<Option<Finding>, Read> {
    if let Some(finding) = grant(v)? {
        return Ok(Some(finding));
    }
    let signature = signature(v);
    let is_it = |entry: &String| entry.split(' ').next() == Some(signature.as_str());
    let on_lease = v.lease()?.is_some_and(|lease| lease.restored.iter().any(is_it));
    let on_claim = v.claims()?.values().any(|claim| claim.restored_by.as_ref().is_some_and(is_it));
    if !on_lease && !on_claim {
        return Ok(None);
    }
    let message = format!(
        "restore {}/{} with this spec has been carried out before, and an object that is created anew does not turn \
         the data back once more",
        v.want.namespace, v.want.name
    );
    let object = format!("StatefulSetRestore {}/{}", v.want.namespace, v.want.name);
    Ok(Some(finding(Reason::AlreadyRestored, object, message, "give the request another name".to_owned())))
}

/// Each claim as it is, and what it is made from.
pub fn plan(v: &View, chosen: &Chosen) -> Result<Deeds, Read> {
    let target = v.target()?;
    let mut items = vec![];
    for (key, snapshot) in &chosen.claims {
        items.push(item(v, key, Some(snapshot))?);
    }
    if v.want.restore.uncovered == Uncovered::Fresh {
        for key in uncovered(v, chosen)? {
            items.push(item(v, &key, None)?);
        }
    }
    Ok(Deeds {
        run: chosen.run,
        statefulset: target.map(|target| target.manifest.clone()),
        replicas: target.map_or(0, |target| target.replicas),
        items,
    })
}

fn item(v: &View, key: &ClaimKey, snapshot: Option<&String>) -> Result<Item, Read> {
    let pvc = key.pvc(&v.want.statefulset);
    let claim = v.claims()?.get(&pvc);
    let old = match claim {
        Some(claim) => volume::behind(v, &pvc, claim)?.map(|(pv, volume)| Placed {
            claim: claim.uid.clone(),
            pv: pv.clone(),
            pv_uid: volume.uid.clone(),
            handle: volume.handle.clone(),
            policy: volume.policy.clone(),
        }),
        None => None,
    };
    let staged = snapshot.is_some() && v.want.restore.strategy != Strategy::InPlace;
    let staging = staged.then(|| staging(&v.want.uid, &pvc));
    let manifest = recorded(v, &pvc, snapshot)?.cloned().unwrap_or_default();
    let manifest = match snapshot {
        Some(name) => readable(v, &pvc, name, manifest)?,
        None => manifest,
    };
    Ok(Item { staging, manifest, snapshot: snapshot.cloned(), old, pvc })
}

/// In a class that can read the snapshot: of the driver that its content names. Where the claim's own is gone, or is of
/// another driver by now, the first that can of those that the StatefulSet's template names, the default, and the others
/// by name. Where none can the claim's own stays, and the preflight says so.
fn readable(v: &View, pvc: &str, snapshot: &str, manifest: RecordedClaim) -> Result<RecordedClaim, Read> {
    let Some(content) = v.restore.content_of(snapshot)? else { return Ok(manifest) };
    let reads = |class: &&StorageClass| class.provisioner == content.driver;
    if v.restore.storage_class(manifest.storage_class_name.as_deref())?.is_some_and(|class| reads(&class)) {
        return Ok(manifest);
    }
    let template = v.target()?.and_then(|target| target.class(pvc, &v.want.statefulset));
    let rank = |class: &&StorageClass| (template != Some(class.name.as_str()), !class.is_default, class.name.clone());
    let class = v.restore.storage()?.iter().filter(reads).min_by_key(rank).map(|class| class.name.clone());
    Ok(RecordedClaim { storage_class_name: class.or(manifest.storage_class_name), ..manifest })
}

/// The claim as it is, else as its snapshot records it.
pub fn recorded<'a>(v: &'a View, pvc: &str, snapshot: Option<&String>) -> Result<Option<&'a RecordedClaim>, Read> {
    match (v.claims()?.get(pvc), snapshot) {
        (Some(claim), _) => Ok(Some(&claim.manifest)),
        (None, Some(name)) => v.restore.recorded(name),
        (None, None) => Ok(None),
    }
}

/// The bytes that status comes to at most: the plan, an undo's, which is no larger, and the volumes between them.
pub fn size(plan: &Deeds) -> usize {
    let volumes = plan.items.iter().filter_map(|item| Some(staged(&item.pvc, item.old.as_ref()?)));
    let text = serde_json::to_string(&(stored(plan), stored(plan), volumes.collect::<Vec<_>>()));
    text.map_or(usize::MAX, |text| text.len())
}

/// Deterministic, and another for each restore. A claim's name has at most 127 characters (a template's 63 and a
/// StatefulSet's 52, by the labels of its pods), so there is room.
pub fn staging(uid: &str, pvc: &str) -> String {
    format!("{pvc}-stage-{uid}")
}

/// Claims of ordinals that run now and that the run lacks.
pub fn uncovered(v: &View, chosen: &Chosen) -> Result<Vec<ClaimKey>, Read> {
    let Some(target) = v.target()?.filter(|_| !chosen.partial) else { return Ok(vec![]) };
    let templates: std::collections::BTreeSet<&String> = chosen.claims.keys().map(|key| &key.template).collect();
    let ordinals = target.start..target.start.saturating_add(target.replicas);
    let keys = ordinals.flat_map(|ordinal| {
        let of = move |template: &&String| ClaimKey { ordinal, template: (*template).clone() };
        templates.iter().map(of).collect::<Vec<_>>()
    });
    Ok(keys.filter(|key| !chosen.claims.contains_key(key)).collect())
}

/// The same as [`acquire`]; and what has not begun says in its status whom it waits for.
pub fn queue(v: &View, record: &Record, now: Timestamp) -> Plan<Restore> {
    let next = acquire(v, record, now)?;
    let (Journal::Idle, Next::Wait { .. }) = (&record.journal, &next) else { return Ok(next) };
    let Some(why) = waits_for(v)?.map(|who| format!("Waiting for {who}")) else { return Ok(next) };
    if record.status.message.as_ref() == Some(&why) {
        return Ok(next);
    }
    one(Restore::Write(Box::new(report::waits(v, why, now)?)), now)
}

/// The same of an undo or a release of what is over: `queued` is one of [`report::QUEUED`].
pub fn queue_after(v: &View, record: &Record, queued: &str, now: Timestamp) -> Plan<Restore> {
    let next = acquire(v, record, now)?;
    let (Journal::Ended(..) | Journal::Held(..), Next::Wait { .. }) = (&record.journal, &next) else { return Ok(next) };
    let Some(waits) = waits_for(v)?.map(|who| format!("{queued}{who}")) else { return Ok(next) };
    if record.status.message.as_ref().is_some_and(|message| message.ends_with(&waits)) {
        return Ok(next);
    }
    one(Restore::Write(Box::new(report::queued(v, &waits, now)?)), now)
}

/// Who has the lock, or has left its mark on it. None: nobody, or another process of this very restore.
fn waits_for(v: &View) -> Result<Option<String>, Read> {
    let Some(lease) = v.lease()? else { return Ok(None) };
    let of = format!("StatefulSet {}/{}", v.want.statefulset_namespace, v.want.statefulset);
    let why = if let Some(Open { kind, namespace, name, run, .. }) =
        lease.open.as_ref().filter(|open| open.uid != v.want.uid)
    {
        format!("{kind} {namespace}/{name}: its run {run} on {of} has not ended")
    } else if let Some(holder) = lease.holder.as_ref().filter(|holder| !holder.is_kin(&v.want.me)) {
        format!("the lock of {of} (Lease {}), which {holder} holds", name::lease(&v.want.statefulset))
    } else {
        return Ok(None);
    };
    Ok(Some(said(&why)))
}

/// The lock is taken as soon as it is free and nobody's run is open.
pub fn acquire(v: &View, record: &Record, now: Timestamp) -> Plan<Restore> {
    if let Some(refusal) = &v.refused {
        return match record.journal {
            Journal::Idle => close(v, End::Failed(refusal.clone()), now),
            _ => end(Exit::Again(format!("{}: {}", refusal.reason, refusal.message))),
        };
    }
    let lease = v.lease()?;
    if let Some(open) = lease.and_then(|lease| lease.open.as_ref()).filter(|open| open.uid != v.want.uid) {
        let barred = barred(v, open);
        return match record.journal {
            Journal::Idle if open.kind == KIND => close(v, End::Failed(barred), now),
            // That run comes to its end, whichever, and what is asked for here is not answered before.
            _ if now < v.want.lock_by => wait([Feed::Lease, Feed::Object], v.want.lock_by),
            _ => end(Exit::Again(barred.message)),
        };
    }
    match lease.and_then(|lease| Some((lease.holder.as_ref()?, lease))) {
        Some((_, lease)) if !lease.gone && now < v.want.lock_by => wait([Feed::Lease, Feed::Object], v.want.lock_by),
        Some((holder, lease)) if !lease.gone => {
            end(Exit::Again(format!("{holder} holds the lock {}", name::lease(&v.want.statefulset))))
        }
        _ => one(Restore::Lock(lease.cloned().map(Box::new)), now),
    }
}

/// Another's run is open on the StatefulSet.
pub fn barred(v: &View, open: &Open) -> Refusal {
    let Open { kind, namespace, name, run, .. } = open;
    Refusal::new(
        Reason::LockedByOpenRun,
        format!(
            "{kind} {namespace}/{name} has left run {run} open on StatefulSet {}/{}: only its own run may take the lock. \
             Let it finish, undo or delete it; if it is gone, sts-backup doctor --lift-fence {}/{} clears it; if the installation \
             that manages it is gone, sts-backup doctor --take-over {namespace}/{name} lets another carry it on",
            v.want.statefulset_namespace, v.want.statefulset, v.want.statefulset_namespace, v.want.statefulset
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::next;
    use super::*;
    use crate::plan::flow::Next;
    use crate::plan::noun::{Outcome, Want};
    use crate::plan::restore::sight::Sight;
    use crate::plan::view::Fact;

    /// Of a restore whose account has no right in the namespace of the StatefulSet: the lock cannot be looked at either.
    fn barred(journal: Journal) -> Plan<Restore> {
        let want = Want { namespace: "ops".into(), statefulset_namespace: "shop".into(), ..Want::default() };
        let mut v = View::new(want);
        v.fold(Fact::Restore(Box::new(Sight::Record(Box::new(Record::of(journal))))));
        v.fold(Fact::Refused(Refusal::new(Reason::Forbidden, "no")));
        next(&v, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_may_not_begin_says_so_without_a_look_at_the_lock() {
        let Ok(Next::Do { batch, .. }) = barred(Journal::Idle) else { panic!("{:?}", barred(Journal::Idle)) };
        let [Restore::Write(write)] = &batch[..] else { panic!("{batch:?}") };
        assert_eq!(write.status.message.as_deref(), Some("no"));
        let ended = End::Failed(Refusal::new(Reason::Forbidden, "no"));
        let over = barred(Journal::Ended(ended, None));
        assert!(matches!(over, Ok(Next::End(Exit::Done(Outcome::Failed(_))))), "{over:?}");
    }

    #[test]
    fn what_has_begun_is_tried_again_by_another_process() {
        let run = Run::new(Deeds::default(), Timestamp::UNIX_EPOCH);
        let next = barred(Journal::Open(Box::new(run)));
        assert!(matches!(next, Ok(Next::End(Exit::Again(_)))), "{next:?}");
    }
}
