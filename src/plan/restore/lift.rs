//! `doctor --lift-fence`: ends a restore that is Held as it stands, or takes off the marks of a run whose object is gone.
//! It takes the lock first, so that whoever is alive is waited for and never run over.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::finish::{self, aside, give_back};
use super::journal::{Item, Journal, Run};
use super::release::volumes;
use super::volume::{self, behind, claims, find};
use super::{Go, Holds, Restore, Signs, Stage, acquire, closed, depart, gate, leave, leave_lock, one, outcome};
use super::{own, report, stage, steps, undo};
use crate::api::condition::Reason;
use crate::plan::flow::{Exit, Feed, Plan, act, end, wait};
use crate::plan::name;
use crate::plan::noun::{Outcome, RETAIN, Refusal};
use crate::plan::view::{Read, View};

/// What is kept is settled behind the fence: a claim that a pod's start makes anew must not pass for one that has its volume.
const LIFTED: &[Stage] = &[settle, finish::unfence, finish::relax, stage::unpin, finish::unmark];

/// A restore that is Held: what is under the claims stays there, what is not is kept for the undo window.
pub fn held(v: &View, now: Timestamp) -> Plan<Restore> {
    let record = match gate(v, now)? {
        Ok(record) => record,
        Err(next) => return Ok(next),
    };
    let run = match &record.journal {
        Journal::Held(run, _) if !record.leaving => run,
        Journal::Ended(ended, _) => return closed(v, record, outcome(ended), now),
        _ => return depart(v, Exit::Refused(refusal(v, "it is not Held any more")), now),
    };
    if let Some(refusal) = &v.refused {
        return depart(v, Exit::Refused(refusal.clone()), now);
    }
    if let Some(why) = loose(v, run)? {
        return depart(v, Exit::Refused(refusal(v, &why)), now);
    }
    if v.mine()?.is_none() {
        return acquire(v, record, now);
    }
    for stage in LIFTED {
        match stage(v, run, now)? {
            None => {}
            Some(Go::Do(batch)) => return act(batch, now + super::CALL),
            Some(Go::Wait(on, until)) => return wait(on, until),
            Some(Go::Fail(refusal)) => return depart(v, Exit::Refused(refusal), now),
            // It swaps nothing.
            Some(Go::Stop) => break,
        }
    }
    let stays = spare(v, run, false)?;
    let keeps = !stays.is_empty() || !spare(v, run, true)?.is_empty();
    one(Restore::Write(Box::new(report::lifted(v, keeps, &stays, now)?)), now)
}

fn refusal(v: &View, why: &str) -> Refusal {
    Refusal::new(Reason::Held, format!("restore {}/{} is left as it is: {why}", v.want.namespace, v.want.name))
}

/// A claim without a volume of its own: a pod that starts would find it empty, and a release could free all that it had.
/// Where an old volume is lost nothing can put all of them back, and it is ended all the same.
fn loose(v: &View, run: &Run) -> Result<Option<String>, Read> {
    let (all, place) = (v.claims()?, format!("{}/{}", v.want.namespace, v.want.name));
    let lost = undo::lost(v, &run.deed)?.is_some();
    for item in &run.deed.plan.items {
        let mut remedy = format!("sts-backup undo {place} puts the old volumes back, and so does its deletion");
        if !lost && !stands(v, item)? {
            return Ok(Some(format!("claim {} has no volume now; {remedy}", item.pvc)));
        }
        let staging = item.staging.as_ref().and_then(|name| Some((name, all.get(name)?)));
        if let Some((staging, claim)) = staging
            && own::is_made(v, run, item, claim)?
        {
            if lost {
                let namespace = &v.want.statefulset_namespace;
                remedy =
                    format!("kubectl -n {namespace} delete persistentvolumeclaim {staging}; its volume is Retained");
            }
            return Ok(Some(format!("its staging claim {staging} is still there; {remedy}")));
        }
    }
    Ok(None)
}

/// Its claim has a volume, or never had one.
fn stands(v: &View, item: &Item) -> Result<bool, Read> {
    Ok(match v.claims()?.get(&item.pvc) {
        Some(claim) => !claim.leaving && behind(v, &item.pvc, claim)?.is_some(),
        None => item.old.is_none(),
    })
}

/// The volumes of the journal that are under no claim, by name: of claims that have another one, or of those that have none.
fn spare(v: &View, run: &Run, standing: bool) -> Result<BTreeSet<String>, Read> {
    let mut used = BTreeSet::new();
    for (pvc, claim) in claims(v, run)? {
        used.extend(behind(v, pvc, claim)?.map(|(pv, _)| pv.clone()));
    }
    let mut spare = BTreeSet::new();
    for (item, placed) in volumes(&run.deed) {
        let is_spare = !used.contains(&placed.pv) && stands(v, item)? == standing;
        if is_spare && find(v, &run.deed, item, placed)?.is_some() {
            spare.insert(placed.pv.clone());
        }
    }
    Ok(spare)
}

/// What is under no claim is kept for the undo window. Of a claim without a volume it may be all that there is: that has the
/// policy Retain for its own from now on, so that its release deletes nothing.
fn settle(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (mut batch, spare, stays) = (give_back(v, run)?, spare(v, run, true)?, spare(v, run, false)?);
    let until = now + v.want.restore.undo_window;
    for (item, placed) in volumes(&run.deed) {
        let Some(volume) = find(v, &run.deed, item, placed)? else { continue };
        let stays = stays.contains(&placed.pv);
        let is_done = volume.marks.deadline.is_some() && !(stays && volume.marks.policy.as_deref() != Some(RETAIN));
        if is_done || !stays && !spare.contains(&placed.pv) {
            continue;
        }
        let (role, _) = volume::role(v, run, Some(item), &placed.pv, volume);
        let mut step = aside(v, item, placed, volume, role, until);
        if let (true, Restore::Protect(tend)) = (stays, &mut step) {
            tend.marks.policy = Some(RETAIN.to_owned());
        }
        batch.push(step);
    }
    Ok(steps(batch))
}

/// Of a run whose object is gone: fence and open mark are taken off, and nothing else. `want.uid` is the mark's.
pub fn orphan(v: &View, now: Timestamp) -> Plan<Restore> {
    if let Some(stop) = v.stop {
        return leave(v, stop, now);
    }
    if v.is_deserted(now) {
        return end(Exit::Again("the API server does not answer".into()));
    }
    if let Some(refusal) = &v.refused {
        return end(Exit::Refused(refusal.clone()));
    }
    let Some(lease) = v.lease()?.filter(|lease| lease.open.is_some() || lease.fence.is_some()) else {
        return leave_lock(v, Outcome::Succeeded, now);
    };
    let lock = name::lease(&v.want.statefulset);
    if let Some(open) = lease.open.as_ref().filter(|open| open.uid != v.want.uid) {
        let message =
            format!("{} {}/{} has put its own mark on {lock} meanwhile", open.kind, open.namespace, open.name);
        return depart(v, Exit::Refused(Refusal::new(Reason::LockedByOpenRun, message)), now);
    }
    if v.mine()?.is_some() {
        return one(Restore::Mark(Box::new(Signs { open: None, fence: None, restored: lease.restored.clone() })), now);
    }
    match lease.holder.as_ref().filter(|_| !lease.gone) {
        Some(_) if now < v.want.lock_by => wait([Feed::Lease], v.want.lock_by),
        Some(holder) => {
            let message =
                format!("{holder} holds the lock {lock} and renews it: nothing is taken from a run that lives");
            end(Exit::Refused(Refusal::new(Reason::LockedByOpenRun, message)))
        }
        None => one(Restore::Lock(Some(Box::new(lease.clone()))), now),
    }
}
