//! Whose a claim is, and whose a volume. Labels, annotations, names and even our status can be written by others. So a
//! claim is ours by the uid that our own create was answered with, which is written down before anything rests on it;
//! where that answer was lost, by being exactly what we have sent. And only what the provisioner made for such a claim,
//! after this restore was asked for, is ever set to Delete.

use jiff::{SignedDuration, Timestamp};

use super::journal::{self, Deed, Item, Journal, Run};
use super::{Go, Holds, Restore, begin, new_claim, report};
use crate::api::recorded::RecordedClaim;
use crate::api::restore::StatefulSetRestoreStatus;
use crate::plan::noun::{Claim, Volume};
use crate::plan::quantity::bytes;
use crate::plan::view::{Read, View};

/// How far the clocks of two API servers may be apart.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// What the item's claim was before the restore: behind it may be the only copy of the old data.
pub fn was(item: &Item, claim: &Claim) -> bool {
    item.old.as_ref().is_some_and(|old| old.claim == claim.uid)
}

/// Made by this restore, from the item's snapshot or empty.
pub fn is_made(v: &View, run: &Run, item: &Item, claim: &Claim) -> Result<bool, Read> {
    if was(item, claim) || !is_young(v, claim.created)? {
        return Ok(false);
    }
    Ok(is_recorded(&run.deed, item, &claim.uid) || v.restore.made.contains(&claim.uid) || is_as_sent(v, item, claim)?)
}

/// Made by this restore: from the item's snapshot, empty, or for a volume that the journal names.
pub fn is_ours(v: &View, run: &Run, item: &Item, claim: &Claim) -> Result<bool, Read> {
    let undo = run.deed.undo.iter().flat_map(|undo| &undo.items).find(|undo| undo.pvc == item.pvc);
    let placed = run.deed.staged.get(&item.pvc).into_iter().chain(&item.old);
    let on_its = || placed.into_iter().any(|placed| claim.asked.as_ref() == Some(&placed.pv));
    let replaced = undo.is_some_and(|undo| was(undo, claim));
    Ok(replaced || is_labelled(v, claim) && on_its() || is_made(v, run, item, claim)?)
}

/// The journal says that this restore has made the claim of that uid.
fn is_recorded(deed: &Deed, item: &Item, uid: &String) -> bool {
    deed.made.contains_key(uid) || deed.staged.get(&item.pvc).is_some_and(|staged| staged.claim == *uid)
}

/// It proves nothing; without it a claim is not one that we have sent.
fn is_labelled(v: &View, claim: &Claim) -> bool {
    claim.restore.as_ref() == Some(&v.want.uid)
}

/// No older than the restore object.
fn is_young(v: &View, created: Timestamp) -> Result<bool, Read> {
    Ok(is_since(v.restore.record()?.created, created))
}

/// Made no earlier than that.
fn is_since(at: Timestamp, made: Timestamp) -> bool {
    at.duration_since(made) <= SKEW
}

/// All that cannot be changed afterwards is as we would have sent it; and what it is bound to was made for it.
fn is_as_sent(v: &View, item: &Item, claim: &Claim) -> Result<bool, Read> {
    if !is_labelled(v, claim) || claim.snapshot != item.snapshot || claim.filled {
        return Ok(false);
    }
    let (sent, there) = (new_claim(v, item, item.snapshot.as_ref())?.manifest, &claim.manifest);
    let default = match &sent.storage_class_name {
        None => v.restore.storage_class(None)?.map(|class| &class.name),
        Some(_) => None,
    };
    let class = there.storage_class_name == sent.storage_class_name || there.storage_class_name.as_ref() == default;
    let mode = |of: &RecordedClaim| of.volume_mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let modes = |of: &RecordedClaim| of.access_modes.iter().cloned().collect::<std::collections::BTreeSet<_>>();
    let size =
        there.storage == sent.storage || bytes(&there.storage).is_some_and(|size| bytes(&sent.storage) == Some(size));
    let same = class && size && mode(there) == mode(&sent) && modes(there) == modes(&sent);
    Ok(same && (claim.asked.is_none() || is_proven(v, claim)?))
}

/// The volume that the claim names was made for this very claim, by the provisioner of its class, and is not older.
pub fn is_proven(v: &View, claim: &Claim) -> Result<bool, Read> {
    let Some(name) = &claim.asked else { return Ok(false) };
    let class = claim.manifest.storage_class_name.as_deref();
    let Some(volume) = v.volume(name)? else { return Ok(false) };
    let of = volume.claim.as_ref().filter(|of| of.namespace == v.want.statefulset_namespace);
    let bound = of.is_some_and(|of| of.uid.as_ref() == Some(&claim.uid));
    Ok(bound && is_since(claim.created, volume.created) && is_provisioned(v, class, volume)?)
}

fn is_provisioned(v: &View, class: Option<&str>, volume: &Volume) -> Result<bool, Read> {
    let class = v.restore.storage_class(class)?;
    Ok(class.is_some_and(|class| volume.provisioner.as_ref() == Some(&class.provisioner)))
}

/// An empty claim of its class is Bound only when a pod uses it.
pub fn waits(v: &View, item: &Item) -> Result<bool, Read> {
    Ok(v.restore.storage_class(item.manifest.storage_class_name.as_deref())?.is_none_or(|class| class.waits))
}

/// Some claim had it before the restore, by name, uid or handle.
fn is_old(run: &Run, pv: &str, volume: &Volume) -> bool {
    let olds = run.deed.plan.items.iter().filter_map(|item| item.old.as_ref());
    let same = |one: &str, other: &str| !one.is_empty() && one == other;
    let mut olds = olds.map(|old| old.pv == pv || same(&old.pv_uid, &volume.uid) || same(&old.handle, &volume.handle));
    olds.any(|old| old)
}

/// The claim may go, and what is behind it with it: this restore made both, and nobody had it before.
pub fn is_disposable(v: &View, run: &Run, item: &Item, claim: &Claim) -> Result<bool, Read> {
    if !is_made(v, run, item, claim)? {
        return Ok(false);
    }
    let Some(pv) = &claim.asked else { return Ok(true) };
    let old = v.volume(pv)?.is_none_or(|volume| is_old(run, pv, volume));
    Ok(!old && is_proven(v, claim)?)
}

/// A volume that came of a staging claim of ours which is gone.
pub fn is_left(v: &View, run: &Run, pv: &str, volume: &Volume) -> Result<bool, Read> {
    let Some(of) = volume.claim.as_ref().filter(|of| of.namespace == v.want.statefulset_namespace) else {
        return Ok(false);
    };
    let Some(item) = run.deed.plan.items.iter().find(|item| item.staging.as_ref() == Some(&of.name)) else {
        return Ok(false);
    };
    let ours = of.uid.as_ref().is_some_and(|uid| is_recorded(&run.deed, item, uid));
    let class = item.manifest.storage_class_name.as_deref();
    Ok(ours && !is_old(run, pv, volume) && is_young(v, volume.created)? && is_provisioned(v, class, volume)?)
}

/// Claims that this restore has made are in the journal, by uid.
pub(super) fn record(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (mut made, all) = (run.deed.made.clone(), v.claims()?);
    for item in &run.deed.plan.items {
        let name = item.staging.as_ref().unwrap_or(&item.pvc);
        let Some(claim) = all.get(name).filter(|claim| !made.contains_key(&claim.uid)) else { continue };
        if is_made(v, run, item, claim)? {
            made.insert(claim.uid.clone(), name.clone());
        }
    }
    if made.len() == run.deed.made.len() {
        return Ok(None);
    }
    let deed = Deed { made, ..run.deed.clone() };
    let journal = Journal::Open(Box::new(Run { deed, ..run.clone() }));
    Ok(Some(Go::Do(vec![Restore::Write(Box::new(report::write(v, &journal, now)?))])))
}

/// The journal of a status that names no claims but those of its `StatefulSet`.
pub fn read(status: &StatefulSetRestoreStatus, statefulset: &str, uid: &str) -> Journal {
    let all = status.plan.iter().chain(&status.undo_plan).flat_map(|plan| &plan.claims);
    let is_its = |pvc: &str| {
        let front = pvc.rsplit_once('-').filter(|(_, ordinal)| ordinal.parse::<u32>().is_ok());
        let template = front.and_then(|(front, _)| front.strip_suffix(statefulset)?.strip_suffix('-'));
        template.is_some_and(|template| !template.is_empty())
    };
    for claim in all {
        let staging = begin::staging(uid, &claim.pvc);
        if !is_its(&claim.pvc) || claim.staging_pvc.as_ref().is_some_and(|name| *name != staging) {
            let name = claim.staging_pvc.as_ref().filter(|_| is_its(&claim.pvc)).unwrap_or(&claim.pvc);
            return Journal::Unread(format!(
                "status.plan names claim {name}, which is none of StatefulSet {statefulset}: somebody else has written it"
            ));
        }
    }
    journal::read(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FORMAT;
    use crate::api::restore::{ReplacedClaim, RestorePlan};

    fn reads(pvc: &str, staging: Option<&str>) -> Journal {
        let claim = ReplacedClaim { pvc: pvc.into(), staging_pvc: staging.map(Into::into), ..ReplacedClaim::default() };
        let plan = RestorePlan { format: FORMAT.into(), claims: vec![claim], ..RestorePlan::default() };
        let status = StatefulSetRestoreStatus { plan: Some(plan), ..StatefulSetRestoreStatus::default() };
        read(&status, "web", "uid")
    }

    #[test]
    fn a_plan_names_only_claims_of_its_statefulset() {
        for (pvc, staging) in [("data-web-0", None), ("a-b-web-12", Some("a-b-web-12-stage-uid"))] {
            assert_eq!(reads(pvc, staging), Journal::Idle, "{pvc}");
        }
        for (pvc, staging) in [
            ("data-db-0", None),
            ("data-web-x", None),
            ("web-0", None),
            ("-web-0", None),
            ("dataweb-0", None),
            ("data-web-0", Some("data-db-0")),
            ("data-web-0", Some("data-web-0-stage-other")),
        ] {
            let Journal::Unread(why) = reads(pvc, staging) else { panic!("{pvc} {staging:?} is taken") };
            assert!(why.contains(staging.unwrap_or(pvc)) && why.contains("StatefulSet web"), "{why}");
        }
    }
}
