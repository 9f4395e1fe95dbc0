//! What was in stock before the run: runs of all kinds, and what must have become of each of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sts_backup::api::backup::{BackupPhase, HistoryEntry, LastRun, StatefulSetBackupStatus};
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::Outcome;
use sts_backup::plan::backup::Backup;
use sts_backup::plan::known::{Content, Maker, Snapshot, Snapshots};
use sts_backup::plan::name::{ClaimKey, RunId};
use sts_backup::plan::prune::{self, Purge};
use sts_backup::plan::roll::{Entry, Roll};
use sts_backup::plan::view::{Fact, Read, Seen};
use sts_backup::step::Fault;

use super::world::Disk;

/// What a restore that has not ended is called.
const OPEN_RESTORE: &str = "open-restore";

/// The run that a restore may come to use at any time.
const WANTED: &str = "adopted";

pub struct Old {
    pub pieces: Snapshots,
    contents: BTreeMap<String, Content>,
    purge: bool,
    refused: bool,
    pub violations: Vec<&'static str>,
}

/// Name, day of January, what is special about it. Each has two snapshots, of ordinals 0 and 1.
const RUNS: [(&str, &str); 9] = [
    ("half", "01"),     // one of its two snapshots is gone: to be removed
    (WANTED, "02"),     // of a former object of the name, adopted: no rule wants it
    ("scaled", "03"),   // of ordinals 1 and 2, which was scaled away: the newest of that claim
    ("retained", "04"), // contents with deletionPolicy Retain
    ("pinned", "05"),   // in use by a restore
    ("unpinned", "06"), // by one that has ended
    ("uploading", "07"),
    ("unknown", "08"), // something cannot be read in it
    ("kept", "10"),    // the newest but one
];
const STRANGERS: [(&str, &str); 2] = [("foreign", "11"), ("orphaned", "12")];

fn id(day: &str) -> RunId {
    format!("202701{day}-000000").parse().unwrap()
}

fn policy(kind: &str) -> Maker {
    let name = if kind == "foreign" { "other" } else { "nightly" };
    let uid = match kind {
        WANTED => "former",
        "orphaned" => "forgotten",
        _ => "policy",
    };
    Maker { namespace: "shop".into(), name: name.into(), uid: uid.into() }
}

fn piece(kind: &str, day: &str, ordinal: u32) -> Snapshot {
    let uid = format!("{kind}-{ordinal}");
    let created: Timestamp = format!("2027-01-{day}T00:00:00Z").parse().unwrap();
    let pins: BTreeSet<String> = match kind {
        "pinned" => BTreeSet::from([OPEN_RESTORE.into(), "gone".into()]),
        "unpinned" => BTreeSet::from(["gone".into()]),
        _ => BTreeSet::new(),
    };
    Snapshot {
        version: "1".into(),
        maker: policy(kind),
        run: Some(id(day)),
        claim: Some(ClaimKey { ordinal, template: "data".into() }),
        created,
        touched: created,
        epoch: Some(1),
        size: Some(2).filter(|_| (kind, ordinal) != ("unknown", 0)),
        sealed: Some(created),
        cut: Some(created),
        ready: kind != "uploading",
        content: Some(uid.clone()),
        class: Some("class".into()),
        pins,
        uid,
        ..Snapshot::default()
    }
}

/// What the world has made, as retention sees it.
pub fn pieces(new: &BTreeMap<String, Disk>, uid: &str) -> impl Iterator<Item = (String, Snapshot)> {
    new.iter().map(move |(name, Disk { snap, consistency, .. })| {
        let piece = Snapshot {
            uid: snap.uid.clone(),
            version: "1".into(),
            maker: Maker { uid: uid.into(), ..policy("") },
            run: Some(snap.run),
            claim: Some(snap.claim.clone()),
            created: snap.created,
            touched: snap.created,
            leaving: snap.leaving.then_some(snap.created),
            epoch: Some(snap.epoch),
            size: Some(snap.size),
            sealed: snap.sealed.then_some(snap.created),
            consistency: *consistency,
            cut: snap.cut,
            ready: snap.ready,
            ..Snapshot::default()
        };
        (name.clone(), piece)
    })
}

impl Old {
    pub fn new(purge: bool) -> Old {
        let mut pieces = Snapshots::new();
        for (kind, day) in RUNS.into_iter().chain(STRANGERS) {
            let ordinals: &[u32] = match kind {
                "half" => &[0],
                "scaled" => &[1, 2],
                _ => &[0, 1],
            };
            pieces.extend(ordinals.iter().map(|n| (format!("{kind}-{n}"), piece(kind, day, *n))));
        }
        let legacy = Snapshot { run: None, claim: None, ..piece("legacy", "09", 0) };
        pieces.insert("legacy-0".into(), legacy);
        let content = |(name, piece): (&String, &Snapshot)| {
            let retains = name.starts_with("retained");
            let content = Content {
                uid: name.clone(),
                version: "1".into(),
                snapshot: Some(piece.uid.clone()),
                retains,
                ..Content::default()
            };
            (piece.uid.clone(), content)
        };
        let contents = pieces.iter().map(content).collect();
        Old { pieces, contents, purge, refused: false, violations: vec![] }
    }

    /// What the Lease remembers of them: all were sealed, of the half one both snapshots.
    pub fn roll() -> Roll {
        let mut roll = Roll::default();
        for (kind, day) in RUNS.into_iter().chain(STRANGERS) {
            let ordinals = if kind == "scaled" { [1, 2] } else { [0, 1] };
            let pieces = ordinals.map(|ordinal| piece(kind, day, ordinal));
            let (claims, uids) = (pieces.iter().filter_map(|piece| piece.claim.as_ref()), pieces.iter());
            roll.put(&policy(kind).uid, id(day), Entry::new(claims, uids.map(|piece| piece.uid.as_str())));
        }
        roll
    }

    /// What the object tells of the runs of before: the newest of them failed.
    pub fn status() -> StatefulSetBackupStatus {
        let last_run = LastRun {
            id: Some(id("12").to_string()),
            slot: Some("before".into()),
            outcome: Some(Outcome::Failed),
            reason: Some(Reason::SnapshotFailed),
            ..LastRun::default()
        };
        let history = vec![HistoryEntry { id: id("12").to_string(), ..HistoryEntry::default() }];
        let phase = Some(BackupPhase::Failed);
        StatefulSetBackupStatus { phase, last_run: Some(last_run), history, ..StatefulSetBackupStatus::default() }
    }

    /// A restore comes to use a run that is to go.
    pub fn pin(&mut self) {
        for (_, piece) in self.pieces.iter_mut().filter(|(name, _)| name.starts_with(WANTED)) {
            piece.pins.insert(OPEN_RESTORE.into());
            piece.version = "2".into();
        }
    }

    fn is_pinned(&self) -> bool {
        self.pieces.iter().any(|(name, piece)| name.starts_with(WANTED) && !piece.pins.is_empty())
    }

    pub fn refuse(&mut self) {
        self.refused = true;
    }

    pub fn answer(&self, read: &Read, new: &BTreeMap<String, Disk>) -> Fact {
        Fact::Prune(match read {
            Read::Content(name) => prune::Fact::Content(name.clone(), Ok(self.contents.get(name).cloned())),
            Read::Restores => prune::Fact::Restores(Ok(BTreeSet::from([OPEN_RESTORE.into()]))),
            _ => {
                let all = self.pieces.clone().into_iter().chain(pieces(new, "policy"));
                prune::Fact::Stock(Seen::Known(Ok(all.collect())))
            }
        })
    }

    /// A deletion of retention's lands.
    pub fn apply(&mut self, step: &Backup, new_is_complete: bool) -> Result<Vec<Fact>, Fault> {
        let stuck = self.refused || self.is_pinned();
        let mut check = |wrong: bool, what| {
            if wrong {
                self.violations.push(what);
            }
        };
        check(!new_is_complete, "pruned before the run was complete");
        match step {
            Backup::Purge(Purge { content, uid, version, .. }) => {
                check(!self.purge, "purged without purgeRetained");
                let found = self.contents.get_mut(content).filter(|found| found.uid == *uid);
                let found = found.filter(|found| found.version == *version).ok_or(Fault::Lost)?;
                (found.retains, found.version) = (false, "2".into());
                Ok(vec![Fact::Prune(prune::Fact::Content(content.clone(), Ok(Some(found.clone()))))])
            }
            Backup::Prune(prune) => {
                if let Some(piece) = self.pieces.get(&prune.name).filter(|piece| piece.uid == prune.uid) {
                    if piece.version != prune.version {
                        return Err(Fault::Lost);
                    }
                    check(piece.pins.contains(OPEN_RESTORE), "deleted what a restore uses");
                    let retains = piece.content.as_ref().is_some_and(|name| self.contents[name].retains);
                    check(retains, "left the storage's snapshot behind");
                    let half = |kind: &str| {
                        let there = self.pieces.keys().filter(|name| name.starts_with(kind)).count();
                        there == 1 && !prune.name.starts_with(kind) && !["half", "legacy"].contains(&kind)
                    };
                    check(!stuck && RUNS.iter().any(|(kind, _)| half(kind)), "more than one run is half gone");
                    self.pieces.remove(&prune.name);
                }
                let gone = prune::Fact::Dropped(prune.name.clone(), prune.run, None);
                Ok(vec![Fact::Prune(gone)])
            }
            _ => Err(Fault::Lost),
        }
    }

    /// What must be there, whatever happened; and what must be gone, once a run has succeeded.
    pub fn verdict(&self, succeeded: bool) -> Vec<&'static str> {
        let count = |kind: &str| self.pieces.keys().filter(|name| name.starts_with(kind)).count();
        let whole = ["scaled", "pinned", "uploading", "unknown", "kept", "foreign", "orphaned"];
        let mut bad = vec![];
        if whole.iter().any(|kind| count(kind) != 2) || count("legacy") != 1 {
            bad.push("lost what was to stay");
        }
        if !self.purge && count("retained") != 2 {
            bad.push("lost what was to be retained");
        }
        let gone = [("half", true), (WANTED, !self.is_pinned()), ("retained", self.purge), ("unpinned", true)];
        if succeeded && !self.refused && gone.iter().any(|(kind, goes)| *goes && count(kind) > 0) {
            bad.push("kept what was to go");
        }
        bad.iter().chain(&self.violations).copied().collect()
    }
}
