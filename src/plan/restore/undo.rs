//! Undo: a run of its own that puts the replaced volumes back under the claims, by the same stages with goal `Old`.
//! The volumes that are there now are kept for another window. It writes its own plan before anything is changed.

use std::ops::Range;

use jiff::Timestamp;

use super::begin::queue_after;
use super::journal::{Cause, Deed, End, Item, Journal, Record, Run};
use super::sight::Peer;
use super::volume::{behind, find};
use super::{Restore, closed, gate, one, outcome, own, release, report};
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
        return queue_after(v, record, report::QUEUED[0], now);
    }
    if let Some(refusal) = &v.refused {
        return end(Exit::Refused(refusal.clone()));
    }
    if let Some(Refusal { reason, message }) = guard::refusal(v, RESTORE_POLICY)? {
        return refuse(v, record, &format!("{reason}: {message}"), now);
    }
    let half = if let Journal::Held(run, _) = &record.journal { Some(run.as_ref()) } else { None };
    match plan(v, deed, half)? {
        Ok(undo) => {
            let deed = Deed { undo: Some(undo), ..deed.clone() };
            let run = Run {
                goal: Goal::Old,
                cause: Cause::Undo(v.want.slot.clone()),
                phase: RestorePhase::ScalingDown,
                reached: RestorePhase::ScalingUp,
                since: now,
                down_since: None,
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
            "it was Held and has been ended as it stood: what was under the claims then stays there"
        }
        End::Failed(_) => "it failed, and what was under the claims before it is there",
        End::Completed => "it has no plan (status.plan)",
    }
}

/// Status says so, or this process has seen it under way: a watcher may have answered another request since.
fn handled(v: &View, record: &Record) -> bool {
    [&record.status.last_request, &v.restore.undoing].contains(&&Some(v.want.slot.clone()))
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
        return queue_after(v, record, report::QUEUED[0], now);
    }
    let message = format!("restore {}/{} cannot be undone: {why}", v.want.namespace, v.want.name);
    one(Restore::Write(Box::new(report::undo_refused(v, message, now)?)), now)
}

/// The old volume of a claim that cannot be put back any more, and why: claim, volume, words.
pub(super) fn lost<'a>(v: &View, deed: &'a Deed) -> Result<Option<(&'a str, &'a str, &'static str)>, Read> {
    for item in &deed.plan.items {
        let Some(old) = &item.old else { continue };
        let why = match find(v, deed, item, old)? {
            None => "is gone, or it is another claim's now",
            Some(volume) if is_given_up(volume) => "was given up",
            Some(_) => continue,
        };
        return Ok(Some((&item.pvc, &old.pv, why)));
    }
    Ok(None)
}

/// What is under the claims now; or why it must stay there. `half`: a run that is Held.
fn plan(v: &View, deed: &Deed, half: Option<&Run>) -> Result<Result<super::journal::Plan, String>, Read> {
    let mut items = vec![];
    if let Some((pvc, pv, why)) = lost(v, deed)? {
        return Ok(Err(format!("the old volume {pv} of claim {pvc} {why}")));
    }
    for item in &deed.plan.items {
        let Some(claim) = v.claims()?.get(&item.pvc) else { continue };
        let Some((pv, volume)) = behind(v, &item.pvc, claim)? else {
            let ours = match half {
                Some(run) => own::is_ours(v, run, item, claim)?,
                None => false,
            };
            if ours {
                // Half made: nothing is on it.
                items.push(Item { old: None, snapshot: None, staging: None, ..item.clone() });
                continue;
            }
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
    if let Some(why) = running(v, deed)? {
        return Ok(Err(why));
    }
    let target = v.target()?;
    if let Some(why) = newcomer(v, deed)? {
        return Ok(Err(why));
    }
    let replicas = target.map_or(deed.plan.replicas, |target| target.replicas);
    let replicas = if replicas == 0 { deed.plan.replicas } else { replicas };
    let statefulset = target.map(|target| target.manifest.clone());
    Ok(Ok(super::journal::Plan { run: deed.plan.run, statefulset, replicas, items }))
}

/// A replica that has come since the restore: its claims would stay as they are.
fn newcomer(v: &View, deed: &Deed) -> Result<Option<String>, Read> {
    let Some(target) = v.target()?.filter(|_| !v.want.restore.force) else { return Ok(None) };
    let mut ordinals = target.start..target.start.saturating_add(target.replicas);
    let before = replicas(&deed.plan);
    let planned = |ordinal: &u32| deed.plan.items.iter().any(|item| item.ordinal() == ordinal.to_string());
    let come = ordinals.find(|ordinal| !planned(ordinal) && !before.contains(ordinal));
    let (namespace, name) = (&v.want.namespace, &v.want.name);
    Ok(come.map(|ordinal| {
        format!(
            "replica {ordinal} has come since the restore, and its claims would stay as they are: \
             sts-backup undo {namespace}/{name} --force undoes nevertheless"
        )
    }))
}

/// With scaleDown: false nobody stops the pods, and the claims cannot go before they are stopped.
fn running(v: &View, deed: &Deed) -> Result<Option<String>, Read> {
    if v.want.restore.scale_down {
        return Ok(None);
    }
    let uses = |claims: &[String]| deed.plan.items.iter().any(|item| claims.contains(&item.pvc));
    let pod = v.roster()?.iter().find(|(_, pod)| !pod.finished && uses(&pod.claims)).map(|(name, _)| name);
    let (namespace, name) = (&v.want.statefulset_namespace, &v.want.statefulset);
    let replicas = v.target()?.map_or(0, |target| target.replicas);
    let what = match pod {
        Some(pod) => format!("pod {pod} uses a claim"),
        None if replicas > 0 => format!("StatefulSet {name} has {replicas} replicas"),
        None => return Ok(None),
    };
    let remedy = format!("kubectl -n {namespace} scale statefulset {name} --replicas 0");
    Ok(Some(format!("spec.scaleDown is false and {what}: {remedy}, and ask again")))
}

/// The replicas that there were before the restore.
fn replicas(plan: &super::journal::Plan) -> Range<u32> {
    let start = plan.statefulset.as_ref().and_then(|manifest| manifest.pointer("/spec/ordinals/start")?.as_u64());
    let start = start.and_then(|start| u32::try_from(start).ok()).unwrap_or_default();
    start..start.saturating_add(plan.replicas)
}

/// Released, and its provisioner is about to delete it: it is still seen, and will not be there when it is needed.
fn is_given_up(volume: &Volume) -> bool {
    volume.leaving || volume.phase == "Released" && volume.policy == DELETE
}

/// A restore of the same StatefulSet that has swapped after this one, and whose volumes may be there. The Lease remembers
/// restores in the order in which they swapped; of what it does not name the order is that in which they had the lock.
fn later(v: &View) -> Result<Option<String>, Read> {
    let (peers, lease) = (v.restore.peers()?, v.lease()?);
    let own = peers.iter().find(|peer| peer.uid == v.want.uid).and_then(|own| own.began);
    let at = |is_it: &dyn Fn(&str) -> bool| {
        lease?.restored.iter().rposition(|entry| entry.split(' ').next().is_some_and(is_it))
    };
    let signature = super::signature(v);
    let ours = at(&|entry| entry == signature);
    let after = |peer: &&Peer| {
        let path = format!("{}/{}", peer.namespace, peer.name);
        match (ours, at(&|entry| entry.rsplit_once('@').is_some_and(|(front, _)| front == path))) {
            (Some(ours), Some(theirs)) => theirs > ours,
            _ => peer.began.is_some_and(|began| own.is_none_or(|own| began > own)),
        }
    };
    let later = peers.iter().filter(|peer| peer.uid != v.want.uid && peer.planned && peer.stands).find(after);
    Ok(later.map(|peer| format!("{}/{}", peer.namespace, peer.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::restore::StatefulSetRestoreStatus;
    use crate::plan::flow::Next;
    use crate::plan::noun::{Outcome, Want};
    use crate::plan::restore::sight::Sight;
    use crate::plan::view::{Fact, Seen};

    /// By hand, while a watcher answers the request before it once all is done.
    #[test]
    fn an_undo_that_was_done_is_done_whichever_request_status_names_last() {
        let (namespace, name, slot) = ("shop".to_owned(), "back".to_owned(), "by hand".to_owned());
        let mut v =
            View::new(Want { namespace, name, slot: slot.clone(), statefulset: "pg".into(), ..Want::default() });
        let mut tell = |journal: Journal, last: &str| {
            let status =
                StatefulSetRestoreStatus { last_request: Some(last.into()), ..StatefulSetRestoreStatus::default() };
            v.fold(Fact::Restore(Box::new(Sight::Record(Box::new(Record {
                undo: Some("refused".into()),
                status,
                ..Record::of(journal)
            })))));
            v.fold(Fact::Lease(Seen::Known(None)));
            next(&v, Timestamp::UNIX_EPOCH).unwrap()
        };
        let open =
            Run { cause: Cause::Undo(slot), ..Run::new(super::super::journal::Plan::default(), Timestamp::UNIX_EPOCH) };
        tell(Journal::Open(Box::new(open)), "by hand");
        let ended = tell(Journal::Ended(End::Undone, Some(Box::default())), "refused");
        assert_eq!(ended, Next::End(Exit::Done(Outcome::Succeeded)));
    }
}
