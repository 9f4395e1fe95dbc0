//! What is closed: our marks go from the claims, our finalizer from the object, and the lock is given back.

use jiff::Timestamp;

use super::journal::{End, Journal, Record};
use super::{Hold, Restore, Unlabel, one, report};
use crate::api::{FINALIZER, label};
use crate::plan::flow::{Exit, Plan, act, end};
use crate::plan::noun::{Claim, Outcome};
use crate::plan::view::{Read, View};

/// Closed: what is not needed any more is given back.
pub fn closed(v: &View, record: &Record, outcome: Outcome, now: Timestamp) -> Plan<Restore> {
    match held(record) {
        // Nothing was set aside, or nothing ever began: there is nothing to release.
        Some(hold) if record.status.undo_deadline.is_none() => let_loose(v, record, hold, now),
        _ => leave_lock(v, outcome, now),
    }
}

/// Nothing is kept any more: its claims are as any others, and so is its object.
pub fn let_loose(v: &View, record: &Record, hold: Hold, now: Timestamp) -> Plan<Restore> {
    let batch = unlabel(v, record)?;
    if batch.is_empty() { one(Restore::Hold(hold), now) } else { act(batch, now + super::CALL) }
}

/// Our label and annotations, taken off the claims of the plan. They serve while it is under way, where the answer to a
/// create was lost, and as a second record that the request was carried out, beside the Lease's; an undo knows claims by
/// uid and volume.
fn unlabel(v: &View, record: &Record) -> Result<Vec<Restore>, Read> {
    let Journal::Ended(_, Some(deed)) = &record.journal else { return Ok(vec![]) };
    let all = v.claims()?;
    let bears = |claim: &&Claim| claim.restore.as_ref() == Some(&v.want.uid) && !claim.leaving;
    let names = deed.plan.items.iter().map(|item| &item.pvc).filter(|pvc| !v.restore.kept.contains(*pvc));
    let claims = names.filter_map(|name| Some((name, all.get(name).filter(bears)?)));
    Ok(claims.map(|(name, claim)| Restore::Unlabel(off(name, claim))).collect())
}

fn off(name: &str, claim: &Claim) -> Unlabel {
    let managed = claim.manifest.labels.get(label::MANAGED_BY).is_some_and(|by| by == label::MANAGED_BY_VALUE);
    Unlabel { name: name.to_owned(), uid: claim.uid.clone(), version: claim.version.clone(), managed }
}

pub fn leave_lock(v: &View, outcome: Outcome, now: Timestamp) -> Plan<Restore> {
    depart(v, Exit::Done(outcome), now)
}

/// Gives the lock back where it is held, and ends.
pub fn depart(v: &View, exit: Exit, now: Timestamp) -> Plan<Restore> {
    if v.refused.is_some() {
        return end(exit);
    }
    if let Some(epoch) = v.to_release()? {
        return one(Restore::Unlock(epoch), now);
    }
    match v.left_behind()? {
        // So that nobody has to wait until it runs out.
        Some(lease) => one(Restore::Lock(Some(Box::new(lease.clone()))), now),
        None => end(exit),
    }
}

pub fn outcome(ended: &End) -> Outcome {
    match ended {
        End::Completed | End::Undone => Outcome::Succeeded,
        End::Failed(refusal) => Outcome::Failed(refusal.clone()),
    }
}

pub fn close(v: &View, ended: End, now: Timestamp) -> Plan<Restore> {
    one(Restore::Write(Box::new(report::write(v, &Journal::Ended(ended, None), now)?)), now)
}

/// Our finalizer, taken off.
pub fn held(record: &Record) -> Option<Hold> {
    let rest: Vec<_> = record.finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
    (rest.len() < record.finalizers.len()).then(|| Hold { version: record.version.clone(), finalizers: rest })
}
