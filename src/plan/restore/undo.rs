//! Undo: a run of its own that puts the replaced volumes back under the claims, by the same stages with goal `Old`.
//! The volumes that are there now are kept for another window. It writes its own plan before anything is changed.

use jiff::Timestamp;

use super::journal::{Cause, Deed, End, Item, Journal, Record, Run};
use super::volume::{behind, find};
use super::{Restore, acquire, closed, gate, one, outcome, release, report};
use crate::api::RESTORE_POLICY;
use crate::api::condition::{self, ConditionType, Reason};
use crate::api::restore::RestorePhase;
use crate::api::shared::Goal;
use crate::plan::flow::{Exit, Plan, act, end};
use crate::plan::guard;
use crate::plan::noun::{DELETE, Refusal, Volume};
use crate::plan::view::{Read, View};

/// The value that asks for it is the slot.
pub fn next(v: &View, now: Timestamp) -> Plan<Restore> {
    let record = match gate(v, now)? {
        Ok(record) => record,
        Err(next) => return Ok(next),
    };
    if let Some(next) = release::let_go(v, record, now)? {
        return Ok(next);
    }
    let (deed, served) = match &record.journal {
        Journal::Ended(..) | Journal::Held(..) if let Some(refusal) = refused(v, record) => {
            return leave_refused(v, refusal, now);
        }
        Journal::Ended(ended, _) if handled(v, record) => return closed(v, record, outcome(ended), now),
        Journal::Ended(End::Completed, Some(deed)) => (deed.as_ref(), true),
        Journal::Held(run, _) if !handled(v, record) => (&run.deed, run.served),
        Journal::Ended(ended, _) => return refuse(v, record, nothing(ended), now),
        _ => return super::next(v, now),
    };
    if v.mine()?.is_none() {
        return acquire(v, record, now);
    }
    if let Some(refusal) = &v.refused {
        return end(Exit::Refused(refusal.clone()));
    }
    if let Some(Refusal { reason, message }) = guard::refusal(v, RESTORE_POLICY)? {
        return refuse(v, record, &format!("{reason}: {message}"), now);
    }
    match plan(v, deed)? {
        Ok(undo) => {
            let deed = Deed { undo: Some(undo), ..deed.clone() };
            let run = Run {
                goal: Goal::Old,
                cause: Cause::Undo(v.want.slot.clone()),
                phase: RestorePhase::ScalingDown,
                reached: RestorePhase::ScalingUp,
                since: now,
                down_since: Some(now),
                served,
                deed,
            };
            let write = report::write(v, &Journal::Open(Box::new(run)), now)?;
            act([Restore::Write(Box::new(write))], now + super::CALL)
        }
        Err(why) => refuse(v, record, &why, now),
    }
}

/// Why there is nothing to put back.
pub fn nothing(ended: &End) -> &'static str {
    match ended {
        End::Undone => "it has been undone already",
        End::Failed(refusal) if refusal.reason == Reason::Held => {
            "it was Held and has been ended as it stood, with the restored volumes under the claims"
        }
        End::Failed(_) => "it failed, and what was under the claims before it is there",
        End::Completed => "it has no plan (status.plan)",
    }
}

fn handled(v: &View, record: &Record) -> bool {
    record.status.last_request.as_ref() == Some(&v.want.slot)
}

/// This very request was refused, and status says so.
fn refused(v: &View, record: &Record) -> Option<Refusal> {
    let undoable = condition::get(&record.status.conditions, ConditionType::Undoable)?;
    let refused = handled(v, record) && undoable.reason == Reason::UndoRefused.as_str();
    refused.then(|| Refusal::new(Reason::UndoRefused, undoable.message.clone()))
}

fn leave_refused(v: &View, refusal: Refusal, now: Timestamp) -> Plan<Restore> {
    match v.to_release()? {
        Some(epoch) => one(Restore::Unlock(epoch), now),
        None => end(Exit::Refused(refusal)),
    }
}

/// No volume is touched, and the restore stays what it was.
fn refuse(v: &View, record: &Record, why: &str, now: Timestamp) -> Plan<Restore> {
    if v.mine()?.is_none() {
        return acquire(v, record, now);
    }
    let message = format!("restore {}/{} cannot be undone: {why}", v.want.namespace, v.want.name);
    one(Restore::Write(Box::new(report::undo_refused(v, message, now)?)), now)
}

/// What is under the claims now; or why it must stay there.
fn plan(v: &View, deed: &Deed) -> Result<Result<super::journal::Plan, String>, Read> {
    let mut items = vec![];
    for item in &deed.plan.items {
        if let Some(old) = &item.old {
            match find(v, deed, item, old)? {
                None => {
                    return Ok(Err(format!(
                        "the old volume {} of claim {} is gone, or it is another claim's now",
                        old.pv, item.pvc
                    )));
                }
                Some(volume) if is_given_up(volume) => {
                    return Ok(Err(format!("the old volume {} of claim {} was given up", old.pv, item.pvc)));
                }
                Some(_) => {}
            }
        }
        let Some(claim) = v.claims()?.get(&item.pvc) else { continue };
        let Some((pv, volume)) = behind(v, &item.pvc, claim)? else {
            return Ok(Err(format!("claim {} is not Bound", item.pvc)));
        };
        let placed = deed.staged.get(&item.pvc).into_iter().chain(&item.old);
        let known = placed.into_iter().any(|placed| placed.pv == *pv && placed.pv_uid == volume.uid);
        if !known && item.snapshot.is_some() {
            return Ok(Err(format!("claim {} is not on the volume that this restore put there", item.pvc)));
        }
        let old = Some(super::stage::placed(claim, volume));
        items.push(Item { old, snapshot: None, staging: None, ..item.clone() });
    }
    if let Some(peer) = later(v)? {
        return Ok(Err(format!("restore {peer} of the same StatefulSet came after it: undo that one first")));
    }
    let target = v.target()?;
    if let (Some(target), false) = (target, v.want.restore.force) {
        let ordinals = target.start..target.start.saturating_add(target.replicas);
        let planned = |ordinal: &u32| deed.plan.items.iter().any(|item| item.ordinal() == ordinal.to_string());
        if let Some(ordinal) = ordinals.clone().find(|ordinal| !planned(ordinal)) {
            return Ok(Err(format!("replica {ordinal} runs and is not in the plan (--force undoes nevertheless)")));
        }
    }
    let replicas = target.map_or(deed.plan.replicas, |target| target.replicas);
    let replicas = if replicas == 0 { deed.plan.replicas } else { replicas };
    let statefulset = target.map(|target| target.manifest.clone());
    Ok(Ok(super::journal::Plan { run: deed.plan.run, statefulset, replicas, items }))
}

/// Released, and its provisioner is about to delete it: it is still seen, and will not be there when it is needed.
fn is_given_up(volume: &Volume) -> bool {
    volume.leaving || volume.phase == "Released" && volume.policy == DELETE
}

/// A restore of the same StatefulSet that was planned after this one.
fn later(v: &View) -> Result<Option<String>, Read> {
    let peers = v.restore.peers()?;
    let own = peers.iter().find(|peer| peer.uid == v.want.uid).map(|own| own.created);
    let later =
        peers.iter().find(|peer| peer.uid != v.want.uid && peer.planned && own.is_some_and(|own| peer.created > own));
    Ok(later.map(|peer| format!("{}/{}", peer.namespace, peer.name)))
}
