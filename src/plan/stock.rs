//! What is in stock: every run of a `StatefulSet`, as its snapshots tell it. Whose is it, is it complete, may it be
//! dropped? What cannot be read is unknown, and an unknown run is neither counted nor touched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::member::{self, Odd};
use super::name::{ClaimKey, RunId};
use super::noun::{Snap, Want};
use super::retention::Run;
use super::roll::{self, Roll};
use crate::api::shared::Consistency;

/// How long a deleted snapshot may stay Terminating before it is worth a word.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

/// A `VolumeSnapshot` that bears the `StatefulSet`'s label: its marks, and what they say where they can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub uid: String,
    /// resourceVersion: whatever is decided about it holds for this version only.
    pub version: String,
    pub policy: Policy,
    /// The run that it is a member of, and the claim that it was cut of; none: a snapshot of an older program, made by
    /// hand, or a stranger.
    pub run: Option<RunId>,
    pub claim: Option<ClaimKey>,
    /// Why it is no member of the run whose label it bears.
    pub stranger: Option<Odd>,
    /// When it was created, by the API server's clock.
    pub created: Timestamp,
    /// None: something is missing in it, or it was written in a newer format.
    pub snap: Option<Snap>,
    /// The uids of the restores that use it.
    pub pins: BTreeSet<String>,
    /// Since when it is being deleted, by the API server's clock.
    pub leaving: Option<Timestamp>,
    /// The newest instant that the API server has written on it.
    pub touched: Timestamp,
    /// The content that it is bound to, and the class that it was made with.
    pub content: Option<String>,
    pub class: Option<String>,
    /// The annotation `/consistency`.
    pub consistency: Option<Consistency>,
}

/// Whose a snapshot is, by its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// All of them by object name.
pub type Stock = BTreeMap<String, Piece>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// This object's, or adopted by it.
    Own,
    /// Of a former object of the same name: listed, and left alone.
    Orphaned,
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Complete,
    /// All of it is there and cut, and it may become ready yet.
    Uploading,
    /// All of it is there, and some of it says that the cut was proved: the rest will, if its process goes on.
    Sealing,
    /// It can never become complete: snapshots are missing or of two freezes, or its cut was never proved.
    Broken,
    /// One of its snapshots cannot be read.
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

/// The snapshots of one id and one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stocked<'a> {
    pub id: RunId,
    pub policy: &'a Policy,
    pub owner: Owner,
    pub state: State,
    pub record: Record,
    pub pieces: Vec<(&'a String, &'a Piece)>,
}

impl Policy {
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

impl Stocked<'_> {
    /// When it was cut, as retention counts: the earliest creation of its snapshots, by the API server's clock.
    pub fn cut(&self) -> Timestamp {
        self.snaps().map(|snap| snap.created).min().unwrap_or_default()
    }

    pub fn snaps(&self) -> impl Iterator<Item = &Snap> {
        self.pieces.iter().filter_map(|(_, piece)| piece.snap.as_ref())
    }

    /// As those say that are sealed.
    pub fn consistency(&self) -> Consistency {
        let word = self.pieces.iter().find_map(|(_, piece)| piece.consistency);
        word.unwrap_or(Consistency::CrashPerVolume)
    }

    pub fn claims(&self) -> BTreeSet<&ClaimKey> {
        self.snaps().map(|snap| &snap.claim).collect()
    }

    /// As the rules see it: only what is on record counts.
    pub fn run(&self, statefulset: &str) -> Run<RunId> {
        Run {
            id: self.id,
            cut: self.cut(),
            complete: self.state == State::Complete && self.record == Record::Own,
            claims: self.claims().into_iter().map(|claim| claim.pvc(statefulset)).collect(),
        }
    }
}

/// The runs, oldest id first. Snapshots without a run belong to none, and what came on top of a run is none of it.
pub fn runs<'a>(stock: &'a Stock, roll: &Roll, want: &Want) -> Vec<Stocked<'a>> {
    let mut runs: BTreeMap<(RunId, &Policy), Vec<(&String, &Piece)>> = BTreeMap::new();
    for (name, piece) in stock {
        if let Some(run) = piece.run {
            runs.entry((run, &piece.policy)).or_default().push((name, piece));
        }
    }
    runs.into_iter().map(|((id, policy), all)| stocked(id, policy, all, roll, want)).collect()
}

fn stocked<'a>(
    id: RunId,
    policy: &'a Policy,
    all: Vec<(&'a String, &'a Piece)>,
    roll: &Roll,
    want: &Want,
) -> Stocked<'a> {
    let entry = roll.entry(&policy.uid, id);
    let size = all.iter().filter_map(|(_, piece)| Some((piece.created, piece.snap.as_ref()?.size))).min();
    let see = |(_, piece): &(&String, &Piece)| (piece.claim.clone(), piece.created);
    let pieces = member::of_run(all, size.map(|(_, size)| size), entry, see);
    let digest = roll::digest(pieces.iter().map(|(_, piece)| piece.uid.as_str()));
    let (record, state) = match entry {
        None => (Record::None, state(&pieces)),
        Some(entry) if entry.digest == digest => {
            (if entry.imported { Record::Imported } else { Record::Own }, known(&pieces))
        }
        // Some of it was replaced: by whom?
        Some(entry) if pieces.len() >= entry.len() => (Record::Other, State::Unknown),
        Some(_) => (Record::Other, state(&pieces)),
    };
    Stocked { id, policy, owner: policy.owner(want), state, record, pieces }
}

/// Of what is on record by its uids no annotation says better whether it is whole.
fn known(pieces: &[(&String, &Piece)]) -> State {
    let snaps: Option<Vec<&Snap>> = pieces.iter().map(|(_, piece)| piece.snap.as_ref()).collect();
    match snaps {
        None => State::Unknown,
        Some(snaps) if snaps.iter().any(|snap| snap.leaving) => State::Broken,
        Some(snaps) if snaps.iter().all(|snap| snap.ready) => State::Complete,
        Some(_) => State::Uploading,
    }
}

/// What bears the label of a run and is no member of it.
pub fn strangers(stock: &Stock) -> impl Iterator<Item = (&String, Odd)> {
    stock.iter().filter_map(|(name, piece)| Some((name, piece.stranger?)))
}

fn state(pieces: &[(&String, &Piece)]) -> State {
    let snaps: Option<Vec<&Snap>> = pieces.iter().map(|(_, piece)| piece.snap.as_ref()).collect();
    let Some(snaps) = snaps else { return State::Unknown };
    let Some(first) = snaps.first() else { return State::Unknown };
    if snaps.iter().any(|snap| snap.size != first.size) {
        return State::Unknown; // which of them is right?
    }
    let there: Vec<_> = snaps.iter().filter(|snap| !snap.leaving).collect();
    let claims: BTreeSet<_> = there.iter().map(|snap| &snap.claim).collect();
    let whole = claims.len() == first.size && there.len() == first.size;
    let one_freeze = there.iter().all(|snap| snap.epoch == first.epoch);
    let sealed = there.iter().filter(|snap| snap.sealed).count();
    if !whole || !one_freeze || sealed == 0 {
        State::Broken
    } else if sealed < first.size {
        State::Sealing
    } else if there.iter().all(|snap| snap.ready) {
        State::Complete
    } else {
        State::Uploading
    }
}

/// The newest instant of the API server that is known from what it has written.
pub fn newest(stock: &Stock) -> Option<Timestamp> {
    stock.values().map(|piece| piece.touched).max()
}

/// What has been Terminating for so long that somebody should look.
pub fn overdue(stock: &Stock) -> impl Iterator<Item = (&String, &Piece)> {
    let newest = newest(stock);
    stock.iter().filter(move |(_, piece)| {
        piece.leaving.zip(newest).is_some_and(|(since, newest)| newest.duration_since(since) >= OVERDUE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn piece(ordinal: u32, change: impl FnOnce(&mut Piece, &mut Snap)) -> (String, Piece) {
        let run = "20270115-080000".parse().unwrap();
        let mut snap = Snap {
            uid: ordinal.to_string(),
            policy_uid: "u".into(),
            run,
            claim: ClaimKey { ordinal, template: "data".into() },
            epoch: 1,
            size: 2,
            token: None,
            sealed: true,
            created: at(ordinal.into()),
            cut: None,
            ready: true,
            restore_size: None,
            leaving: false,
            error: None,
        };
        let mut piece = Piece {
            uid: snap.uid.clone(),
            version: "1".into(),
            policy: Policy { namespace: "shop".into(), name: "nightly".into(), uid: "u".into() },
            run: Some(run),
            claim: None,
            stranger: None,
            created: at(ordinal.into()),
            snap: None,
            pins: BTreeSet::new(),
            leaving: None,
            touched: at(0),
            content: None,
            class: None,
            consistency: None,
        };
        change(&mut piece, &mut snap);
        piece.claim = Some(snap.claim.clone());
        piece.snap = (piece.version != "unreadable").then_some(snap);
        (format!("snap-{ordinal}"), piece)
    }

    fn state_of(change: impl FnOnce(&mut Piece, &mut Snap)) -> State {
        let (one, two) = (piece(0, |_, _| {}), piece(1, change));
        state(&[(&one.0, &one.1), (&two.0, &two.1)])
    }

    #[test]
    fn a_run_is_as_good_as_its_worst_snapshot() {
        assert_eq!(state_of(|_, _| {}), State::Complete);
        assert_eq!(state_of(|_, snap| snap.ready = false), State::Uploading);
        assert_eq!(state_of(|_, snap| snap.sealed = false), State::Sealing);
        assert_eq!(state_of(|_, snap| snap.epoch = 2), State::Broken);
        assert_eq!(state_of(|_, snap| snap.leaving = true), State::Broken);
        assert_eq!(state_of(|_, snap| snap.claim.ordinal = 0), State::Broken, "one claim twice");
        assert_eq!(state_of(|_, snap| snap.size = 3), State::Unknown, "they contradict each other");
        assert_eq!(state_of(|piece, _| piece.version = "unreadable".into()), State::Unknown);
        let (name, alone) = piece(0, |_, _| {});
        assert_eq!(state(&[(&name, &alone)]), State::Broken);
    }

    #[test]
    fn what_goes_is_overdue_after_ten_minutes_of_the_api_servers_time() {
        let stock = |touched: i64| -> Stock {
            let leaving = piece(0, |piece, _| piece.leaving = Some(at(100)));
            [leaving, piece(1, |piece, _| piece.touched = at(touched))].into()
        };
        assert_eq!(overdue(&stock(100 + 599)).count(), 0);
        assert_eq!(overdue(&stock(100 + 600)).map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["snap-0"]);
    }
}
