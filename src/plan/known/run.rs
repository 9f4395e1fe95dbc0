//! The runs of a `StatefulSet` as their snapshots and the Lease's record tell them. Whether a run is whole is judged here
//! and nowhere else: for lists, restores, retention and the process that takes a run up.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::snapshot::{Maker, Snapshot};
use crate::api::condition::Reason;
use crate::api::shared::Consistency;
use crate::plan::member;
use crate::plan::name::{ClaimKey, RunId};
use crate::plan::noun::{Refusal, Want};
use crate::plan::retention;
use crate::plan::roll::{self, Roll};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be restored.
    Complete,
    /// All of it is there and proved, and it may become ready yet.
    Uploading,
    /// All of it is there, and some of it says that the cut was proved: the rest will, if its process goes on.
    Sealing,
    /// It can never become complete: snapshots are missing or of two freezes, or its cut was never proved.
    Broken,
    /// It contradicts itself, or what is on record is not what is there, or one of its snapshots cannot be read: neither
    /// counted nor touched.
    Unknown,
}

/// What the Lease's record says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Nothing.
    None,
    /// Other snapshots than those that are there.
    Other,
    /// These very snapshots; who made them is not known.
    Imported,
    /// These very snapshots, sealed by a run.
    Own,
}

/// The snapshots of one id and one maker that make a run up; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    pub id: RunId,
    pub maker: &'a Maker,
    pub record: Record,
    pub state: State,
    /// Why it is not complete.
    pub why: Option<Refusal>,
    pub snapshots: Vec<(&'a String, &'a Snapshot)>,
}

/// One snapshot of a run, as far as it counts for the whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub name: &'a str,
    pub claim: &'a ClaimKey,
    pub epoch: i64,
    pub size: usize,
    pub sealed: bool,
    pub ready: bool,
    pub leaving: bool,
}

/// The runs, oldest id first. What is a member of none is left out, and so is what came on top of a run.
pub fn runs<'a>(all: impl IntoIterator<Item = (&'a String, &'a Snapshot)>, roll: Option<&Roll>) -> Vec<Run<'a>> {
    let mut runs: BTreeMap<(RunId, &Maker), Vec<(&String, &Snapshot)>> = BTreeMap::new();
    for (name, snapshot) in all {
        if let Some(run) = snapshot.run {
            runs.entry((run, &snapshot.maker)).or_default().push((name, snapshot));
        }
    }
    runs.into_iter().map(|((id, maker), all)| run(id, maker, all, roll)).collect()
}

fn run<'a>(id: RunId, maker: &'a Maker, all: Vec<(&'a String, &'a Snapshot)>, roll: Option<&Roll>) -> Run<'a> {
    let entry = roll.and_then(|roll| roll.entry(&maker.uid, id));
    let size = all.iter().filter_map(|(_, one)| Some((one.created, one.size?))).min();
    let see = |(_, one): &(&String, &Snapshot)| (one.claim.clone(), one.created);
    let snapshots = member::of_run(all, size.map(|(_, size)| size), entry, see);
    let digest = roll::digest(snapshots.iter().map(|(_, one)| one.uid.as_str()));
    let record = match entry {
        None => Record::None,
        Some(entry) if entry.digest != digest => Record::Other,
        Some(entry) if entry.imported => Record::Imported,
        Some(_) => Record::Own,
    };
    let parts = snapshots.iter().map(|(name, one)| one.part(name)).collect::<Result<Vec<_>, _>>();
    let (state, why) = match parts {
        Err(refusal) => (State::Unknown, Some(refusal)),
        Ok(parts) => judge(&parts, record),
    };
    // As many as are on record, and not those: whose are they?
    let replaced = record == Record::Other && entry.is_some_and(|entry| snapshots.len() >= entry.len());
    let state = if replaced && state == State::Broken { State::Unknown } else { state };
    Run { id, maker, record, state, why, snapshots }
}

/// Whether a run is whole: `/run-size` snapshots of different claims, of one `/transitions`, each with `/cut`, staying,
/// ready. Of what is on record by its uids no annotation says better whether it is whole and proved.
fn judge(parts: &[Part], record: Record) -> (State, Option<Refusal>) {
    let no = |state, why: String| (state, Some(Refusal::new(Reason::RunNotFound, why)));
    if !matches!(record, Record::Own | Record::Imported)
        && let Some((state, why)) = unproved(parts)
    {
        return no(state, why);
    }
    if let Some(part) = parts.iter().find(|part| part.leaving) {
        return no(State::Broken, format!("VolumeSnapshot {} is being deleted", part.name));
    }
    if let Some(part) = parts.iter().find(|part| !part.ready) {
        return no(State::Uploading, format!("VolumeSnapshot {} is not ready", part.name));
    }
    (State::Complete, None)
}

/// What they say themselves against it that they make up a run, and were cut in one freeze.
fn unproved(parts: &[Part]) -> Option<(State, String)> {
    let Some(first) = parts.first() else { return Some((State::Unknown, "there are no snapshots of it".to_owned())) };
    if let Some(other) = parts.iter().find(|part| part.size != first.size) {
        let why = "contradict each other: how many snapshots does the run have?";
        return Some((State::Unknown, format!("VolumeSnapshots {} and {} {why}", first.name, other.name)));
    }
    let claims: BTreeSet<_> = parts.iter().map(|part| part.claim).collect();
    if claims.len() != first.size || parts.len() != first.size {
        return Some((State::Broken, format!("{} of {} snapshots are there", claims.len(), first.size)));
    }
    if parts.iter().any(|part| part.epoch != first.epoch) {
        return Some((State::Broken, "its snapshots were not made under one hold of the lock".to_owned()));
    }
    let part = parts.iter().find(|part| !part.sealed)?;
    let staying = parts.iter().all(|part| !part.leaving);
    let proved = parts.iter().any(|part| part.sealed) && staying;
    let state = if proved { State::Sealing } else { State::Broken };
    Some((state, format!("VolumeSnapshot {} is not proved to belong to one freeze (no cut)", part.name)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// This object's, or adopted by it.
    Own,
    /// Of a former object of the same name: listed, and left alone.
    Orphaned,
    Foreign,
}

impl Maker {
    /// Ownership rests on name *and* uid; a former object of the name counts only when it is adopted by its uid.
    pub fn owner(&self, want: &Want) -> Owner {
        let adopted = || want.backup.adopt.as_ref() == Some(&self.uid);
        if (&self.namespace, &self.name) != (&want.namespace, &want.name) {
            Owner::Foreign
        } else if self.uid == want.uid || adopted() {
            Owner::Own
        } else {
            Owner::Orphaned
        }
    }
}

impl Run<'_> {
    /// When it was cut, as retention counts: the earliest creation of its snapshots, by the API server's clock.
    pub fn created(&self) -> Timestamp {
        self.snapshots.iter().map(|(_, one)| one.created).min().unwrap_or_default()
    }

    /// The instant of a run: its latest cut.
    pub fn instant(&self) -> Option<Timestamp> {
        self.snapshots.iter().filter_map(|(_, one)| one.instant()).max()
    }

    /// As those say that are sealed.
    pub fn consistency(&self) -> Consistency {
        let word = self.snapshots.iter().find_map(|(_, one)| one.consistency);
        word.unwrap_or(Consistency::CrashPerVolume)
    }

    /// As the rules of retention see it: only what is on record counts.
    pub fn counted(&self, statefulset: &str) -> retention::Run<RunId> {
        retention::Run {
            id: self.id,
            cut: self.created(),
            complete: self.state == State::Complete && self.record == Record::Own,
            claims: self.claims().into_iter().map(|claim| claim.pvc(statefulset)).collect(),
        }
    }

    pub fn claims(&self) -> BTreeSet<&ClaimKey> {
        self.snapshots.iter().filter_map(|(_, one)| one.claim.as_ref()).collect()
    }

    /// How many of it are there and stay.
    pub fn staying(&self) -> usize {
        self.snapshots.iter().filter(|(_, one)| one.leaving.is_none()).count()
    }

    /// How many of it say that it was proved.
    pub fn sealed(&self) -> usize {
        self.snapshots.iter().filter(|(_, one)| one.sealed.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two snapshots of a whole run, the second one changed.
    fn state_of(record: Record, change: impl FnOnce(&mut Part)) -> State {
        let claims = [0, 1].map(|ordinal| ClaimKey { ordinal, template: "data".into() });
        let part = |at: usize| Part {
            name: ["a", "b"][at],
            claim: &claims[at],
            epoch: 1,
            size: 2,
            sealed: true,
            ready: true,
            leaving: false,
        };
        let mut other = part(1);
        change(&mut other);
        let (state, why) = judge(&[part(0), other], record);
        assert_eq!(why.is_none(), state == State::Complete, "{why:?}");
        state
    }

    #[test]
    fn a_run_is_as_good_as_its_worst_snapshot() {
        let of = |change: fn(&mut Part)| [Record::None, Record::Own].map(|record| state_of(record, change));
        assert_eq!(of(|_| {}), [State::Complete; 2]);
        assert_eq!(of(|part| part.ready = false), [State::Uploading; 2]);
        assert_eq!(of(|part| part.leaving = true), [State::Broken; 2]);
        // The record knows better.
        assert_eq!(of(|part| part.sealed = false), [State::Sealing, State::Complete]);
        assert_eq!(of(|part| part.epoch = 2), [State::Broken, State::Complete]);
        assert_eq!(of(|part| part.size = 3), [State::Unknown, State::Complete]);
    }

    #[test]
    fn what_nothing_proves_is_broken() {
        let claim = ClaimKey { ordinal: 0, template: "data".into() };
        let part =
            |size, sealed| Part { name: "a", claim: &claim, epoch: 1, size, sealed, ready: true, leaving: false };
        let state = |parts: &[Part]| judge(parts, Record::None).0;
        assert_eq!(state(&[part(1, false)]), State::Broken);
        assert_eq!(state(&[part(2, true)]), State::Broken, "the other one is gone");
        assert_eq!(state(&[part(2, true), part(2, true)]), State::Broken, "one claim twice");
        assert_eq!(state(&[]), State::Unknown);
        assert_eq!(judge(&[part(2, false)], Record::Own).0, State::Complete);
    }
}
