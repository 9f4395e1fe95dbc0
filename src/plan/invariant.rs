//! What holds in every reachable state: after each stored write, whoever made it and whoever died.
//!
//! Role: sentences about what is stored, and about what one process knows. Must not mend anything.

use std::collections::{BTreeMap, BTreeSet};

use super::hook::End;
use super::journal::{FREEZES, Journal, Record};
use super::member;
use super::name::RunId;
use super::noun::{Lease, Snap, Snaps};
use super::view::View;
use crate::api::FINALIZER;
use crate::api::backup::BackupPhase;

/// One object and what belongs to its runs, as stored at one instant.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    pub record: &'a Record,
    pub lease: Option<&'a Lease>,
    /// All that carry the `StatefulSet`'s label, whoever's.
    pub snaps: &'a Snaps,
}

/// What does not hold, as sentences.
pub fn broken(stored: &Stored) -> Vec<String> {
    let rules = [freeze_is_held, mark_names_the_freeze, freeze_has_a_lock, ids_are_known, ids_rise, one_outcome];
    let one = rules.iter().filter_map(|rule| rule(stored));
    one.chain(seals(stored)).collect()
}

/// Whether one write may lead from the one entry of the journal to the other.
pub fn is_passage(from: &Journal, to: &Journal) -> bool {
    let at_rest = |journal: &Journal| matches!(journal, Journal::Idle | Journal::Closed(_));
    match (from, to) {
        _ if from == to => true,
        (Journal::Frozen(f), Journal::Cut(cut)) => f.id == cut.id && f.epoch == cut.epoch && f.size == cut.size,
        (Journal::Frozen(f), Journal::Void(void)) => {
            f.id == void.id && f.epoch == void.epoch && f.void_before + 1 == void.count
        }
        (Journal::Void(void), Journal::Frozen(f)) => {
            void.id < f.id && f.void_before == void.count && void.count < FREEZES
        }
        (Journal::Void(_) | Journal::Cut(_), to) => at_rest(to),
        (from, Journal::Frozen(f)) => at_rest(from) && f.void_before == 0,
        (from, Journal::Closed(_)) => at_rest(from),
        _ => false,
    }
}

/// A process that froze a pod has thawed it before it freezes anything anew.
pub fn of_view(v: &View) -> Option<&'static str> {
    v.want.backup.hooks.post.as_ref()?; // without a post hook nothing that lasts is expected of the pre hook
    let newest = v.hooks.begun().map(|(run, ..)| run).max()?;
    let mut frozen = v.hooks.begun().filter(|(run, _, tried)| {
        *run < newest && tried.first().is_some_and(|tried| !matches!(tried.end, End::NotStarted(_) | End::Gone))
    });
    let left = |(run, ordinal, _): (RunId, u32, _)| v.hooks.of(run, ordinal, super::hook::Which::Post).is_empty();
    frozen.any(left).then_some("a pod was left frozen for a new freeze")
}

fn freeze_is_held(s: &Stored) -> Option<String> {
    let Journal::Frozen(f) = &s.record.journal else { return None };
    let held = f.pods.is_empty() || s.record.finalizers.iter().any(|name| name == FINALIZER);
    (!held).then(|| format!("freeze {} is open, and a deletion would take its journal along", f.id))
}

fn mark_names_the_freeze(s: &Stored) -> Option<String> {
    let open = s.lease?.open.as_ref().filter(|open| open.uid == s.record.uid)?;
    let named = matches!(&s.record.journal, Journal::Frozen(f) if f.id.to_string() == open.run);
    (!named).then(|| format!("the Lease says that freeze {} is open, the journal does not", open.run))
}

fn freeze_has_a_lock(s: &Stored) -> Option<String> {
    let Journal::Frozen(f) = &s.record.journal else { return None };
    let epoch = s.lease.map_or(0, |lease| lease.epoch);
    (epoch < f.epoch).then(|| format!("freeze {} has epoch {}, the Lease only {epoch}", f.id, f.epoch))
}

fn ours<'a>(s: &'a Stored) -> impl Iterator<Item = (&'a String, &'a Snap)> {
    s.snaps.iter().filter(|(_, snap)| snap.policy_uid == s.record.uid)
}

/// The ids that the status names, newest first.
fn told(s: &Stored) -> Vec<RunId> {
    let status = &s.record.status;
    let open = status.run.as_ref().and_then(|run| run.id.clone());
    let last = status.last_run.as_ref().and_then(|last| last.id.clone());
    let history = status.history.iter().map(|entry| entry.id.clone());
    let mut ids: Vec<RunId> = open.into_iter().chain(last).filter_map(|id| id.parse().ok()).collect();
    ids.extend(history.filter_map(|id| id.parse::<RunId>().ok()));
    ids
}

/// The intent comes before the first object that bears its id.
fn ids_are_known(s: &Stored) -> Option<String> {
    let newest = told(s).into_iter().max();
    let (name, snap) = ours(s).find(|(_, snap)| Some(snap.run) > newest)?;
    Some(format!("VolumeSnapshot {name} is of run {}, of which status has never told", snap.run))
}

fn ids_rise(s: &Stored) -> Option<String> {
    let history: Vec<RunId> = s.record.status.history.iter().filter_map(|entry| entry.id.parse().ok()).collect();
    let (newer, older) = history.iter().zip(history.iter().skip(1)).find(|(newer, older)| newer <= older)?;
    Some(format!("run {newer} was begun after run {older}"))
}

/// A run is open or has its outcome, never both, never neither.
fn one_outcome(s: &Stored) -> Option<String> {
    let status = &s.record.status;
    let ended = status.last_run.as_ref()?.outcome.is_some();
    let under_way = status.phase == Some(BackupPhase::InProgress);
    let said = format!("open: {}, outcome: {ended}, phase: {:?}", status.run.is_some(), status.phase);
    (status.run.is_some() == ended || under_way == ended).then_some(said)
}

/// What may count as part of a backup was cut under one epoch, once for each claim, and after that was written down.
fn seals(s: &Stored) -> Vec<String> {
    let mut runs: BTreeMap<RunId, Vec<&Snap>> = BTreeMap::new();
    ours(s).filter(|(_, snap)| snap.sealed).for_each(|(_, snap)| runs.entry(snap.run).or_default().push(snap));
    let open = match &s.record.journal {
        Journal::Frozen(f) => Some(f.id),
        Journal::Void(void) => Some(void.id),
        Journal::Idle | Journal::Cut(_) | Journal::Closed(_) => None,
    };
    let mut bad = vec![];
    for (id, snaps) in runs {
        // What somebody has put on top makes no mixture of it.
        let size = snaps.iter().min_by_key(|snap| snap.created).map(|snap| snap.size);
        let snaps = member::of_run(snaps, size, None, |snap| (Some(snap.claim.clone()), snap.created));
        let epochs: BTreeSet<_> = snaps.iter().map(|snap| (snap.epoch, snap.size)).collect();
        let claims: BTreeSet<_> = snaps.iter().map(|snap| &snap.claim).collect();
        if epochs.len() != 1 {
            bad.push(format!("run {id} is sealed, and a mixture of two freezes"));
        }
        if claims.len() != snaps.len() || snaps.iter().any(|snap| snap.size < snaps.len()) {
            bad.push(format!("run {id} is sealed, and has more than one snapshot of a claim"));
        }
        if open == Some(id) {
            bad.push(format!("run {id} is sealed before its cut is recorded"));
        }
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::journal::{Cut, Freeze, Void, Voided};
    use crate::plan::noun::{Holder, Outcome};
    use jiff::Timestamp;

    fn id(text: &str) -> RunId {
        text.parse().unwrap()
    }

    fn journals() -> [Journal; 6] {
        let first = id("20270115-080000");
        let freeze = |id, epoch, void_before| {
            let (holder, since) = (Holder("backup/shop/nightly/1".into()), Timestamp::UNIX_EPOCH);
            Journal::Frozen(Freeze { id, holder, epoch, since, size: 2, pods: vec![], hooks: None, void_before })
        };
        let consistency = crate::api::shared::Consistency::CrashPerVolume;
        let void = |count| {
            let (since, why) = (Timestamp::UNIX_EPOCH, Void::Interrupted("it was".into()));
            Journal::Void(Voided { id: first, epoch: 1, since, count, why })
        };
        let cut = Cut { id: first, epoch: 1, since: Timestamp::UNIX_EPOCH, size: 2, consistency, entry: None };
        [
            Journal::Idle,
            freeze(first, 1, 0),
            Journal::Cut(cut),
            void(1),
            freeze(id("20270115-080001"), 2, 1),
            Journal::Closed(Outcome::Succeeded),
        ]
    }

    #[test]
    fn a_journal_goes_from_entry_to_entry_as_a_run_does() {
        let all = journals();
        let [idle, frozen, cut, void, later, closed] = &all;
        let passages = [
            (idle, frozen),
            (frozen, cut),
            (frozen, void),
            (void, later),
            (void, closed),
            (cut, closed),
            (idle, closed),
        ];
        for from in &all {
            for to in &all {
                let known = passages.contains(&(from, to)) || from == to;
                let rest = [from, to].iter().all(|journal| matches!(journal, Journal::Idle | Journal::Closed(_)));
                let begins = matches!(from, Journal::Idle | Journal::Closed(_)) && matches!(to, Journal::Frozen(_));
                let ends = matches!(from, Journal::Void(..) | Journal::Cut(_)) && *to == Journal::Idle;
                if !(rest || begins || ends) {
                    assert_eq!(is_passage(from, to), known, "{from:?} -> {to:?}");
                }
            }
        }
        assert!(is_passage(closed, frozen) && !is_passage(closed, later), "a run begins with no void freeze");
    }
}
