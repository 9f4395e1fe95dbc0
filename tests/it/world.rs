//! A cluster in memory on a virtual clock. What it does with a request: `requests.rs`; one process in it, as the driver
//! sees it: `process.rs`.

mod process;
mod requests;

use std::collections::{BTreeMap, VecDeque};

use super::stock::{Old, pieces};
use jiff::{SignedDuration, Timestamp};
use sts_backup::api::FILE_UID;
use sts_backup::api::backup::StatefulSetBackupStatus;
use sts_backup::api::shared::Consistency;
use sts_backup::plan::backup::Backup;
use sts_backup::plan::flow::When;
use sts_backup::plan::hook::{End, Exec, Tried};
use sts_backup::plan::invariant::{self, Stored};
use sts_backup::plan::journal::{self, Record};
use sts_backup::plan::name::{ClaimKey, RunId};
use sts_backup::plan::noun::{Holder, Lease, Open, Snap};
use sts_backup::plan::roll::Roll;
use sts_backup::plan::view::{Fact, Seen};
use sts_backup::step::Fault;
use tokio::time::Instant;

use crate::broken::Mutant;
use crate::life;

pub use process::Process;

/// What befalls one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    DieBefore,
    DieAfter,
    LostBefore,
    LostAfter,
    Hang,
    Refuse,
    Sigterm,
    /// The Lease goes to a stranger who has no business with our object, and who gives it back at once.
    Stolen,
    /// The container of pod 0 restarts: what was frozen in it is not any more.
    Restart,
    /// The process dies; its request lands a second later, when the successor is at work.
    Straggler,
    /// It is done, and done once more.
    Twice,
    /// A restore comes to use a run that retention is about to delete.
    Pinned,
}

/// What a sweep is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Hooks,
    NoHooks,
    /// With runs of before and a retention policy, which may purge what the class retains; then with hooks as well.
    Old {
        purge: bool,
    },
    /// The policy is a file: no object is there.
    File {
        hooks: bool,
    },
}

impl Kind {
    fn has_hooks(self) -> bool {
        matches!(self, Kind::Hooks | Kind::Old { purge: true } | Kind::File { hooks: true })
    }
    pub fn is_file(self) -> bool {
        matches!(self, Kind::File { .. })
    }
    pub fn uid(self) -> &'static str {
        if self.is_file() { FILE_UID } else { "policy" }
    }
}

pub const PODS: u32 = 2;
const TEMPLATES: [&str; 2] = ["data", "wal"];
/// A process that has sent so many requests is in a loop.
const ENDLESS: usize = 400;

pub struct Disk {
    pub snap: Snap,
    cut_at: Timestamp,
    ready_at: Timestamp,
    pub consistency: Option<Consistency>,
    /// At the cut: were all pods frozen, and how many thaws had there been?
    pub evidence: Option<(bool, u32)>,
}

struct Instance {
    id: u32,
    frozen: bool,
}

pub struct World {
    start: Instant,
    pub kind: Kind,
    pub hooks: bool,
    pub status: StatefulSetBackupStatus,
    pub finalizers: Vec<String>,
    version: u64,
    /// Another object of the same StatefulSet, while it is not its turn: status, finalizers, version.
    aside: (StatefulSetBackupStatus, Vec<String>, u64),
    uid: &'static str,
    pub holder: Option<Holder>,
    gone: bool,
    epoch: i64,
    lease_version: u64,
    pub open: Option<Open>,
    pub roll: Option<Roll>,
    pods: Vec<Instance>,
    pub disks: BTreeMap<String, Disk>,
    thaws: u32,
    uids: u64,
    pub writes: usize,
    pub reads_in_freeze: usize,
    pub log: Vec<String>,
    pub violations: Vec<&'static str>,
    /// Which of two processes writes next, as long as it lasts: false is the first.
    pub order: VecDeque<bool>,
    pub reads: usize,
    /// Before this write the author policy is taken away.
    pub unguarded_at: Option<usize>,
    /// This read gets no answer.
    pub fail_read: Option<usize>,
    pub mutant: Option<Mutant>,
    /// Each process is a Job's of an attempt of its own.
    pub attempts: bool,
    /// When a SIGTERM came while a pod was frozen.
    alarm: Option<Timestamp>,
    /// From it to the thaw that it asked for.
    pub answered: Option<SignedDuration>,
    blows: Vec<(usize, Blow)>,
    mail: Vec<(Timestamp, Holder, Backup)>,
    pub old: Option<Old>,
    /// The write with which retention began.
    pub first_pruned: Option<usize>,
}

impl World {
    pub fn new(blows: &[(usize, Blow)], kind: Kind) -> World {
        World {
            start: Instant::now(),
            kind,
            hooks: kind.has_hooks(),
            status: if matches!(kind, Kind::Old { .. }) { Old::status() } else { StatefulSetBackupStatus::default() },
            finalizers: vec![],
            version: 1,
            aside: (StatefulSetBackupStatus::default(), vec![], 1),
            uid: kind.uid(),
            holder: None,
            gone: false,
            epoch: 0,
            lease_version: 1,
            open: None,
            roll: matches!(kind, Kind::Old { .. }).then(Old::roll),
            pods: (0..PODS).map(|id| Instance { id, frozen: false }).collect(),
            disks: BTreeMap::new(),
            thaws: 0,
            uids: 0,
            writes: 0,
            reads_in_freeze: 0,
            log: vec![],
            violations: vec![],
            order: VecDeque::new(),
            reads: 0,
            fail_read: None,
            unguarded_at: None,
            mutant: None,
            attempts: false,
            alarm: None,
            answered: None,
            blows: blows.to_vec(),
            mail: vec![],
            old: if let Kind::Old { purge } = kind { Some(Old::new(purge)) } else { None },
            first_pruned: None,
        }
    }

    pub fn now(&self) -> Timestamp {
        life::now(self.start)
    }

    /// What is due takes place, before anything else happens.
    pub fn settle(&mut self) {
        let now = self.now();
        if let Some(at) = self.mail.iter().position(|(at, ..)| *at <= now) {
            let (_, from, step) = self.mail.remove(at);
            self.log.push("       a straggler lands".into());
            let _ = self.apply(&from, &step);
        }
        let frozen = !self.hooks || self.pods.iter().all(|pod| pod.frozen);
        for disk in self.disks.values_mut() {
            if disk.cut_at <= now {
                disk.evidence.get_or_insert((frozen, self.thaws));
                disk.snap.cut = Some(disk.cut_at);
            }
            disk.snap.ready = disk.ready_at <= now;
        }
    }

    pub fn left_frozen(&self) -> bool {
        self.pods.iter().any(|pod| pod.frozen)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn lease(&self) -> Fact {
        Fact::Lease(Seen::Known(Some(Lease {
            holder: self.holder.clone(),
            gone: self.gone,
            epoch: self.epoch,
            version: self.lease_version.to_string(),
            open: self.open.clone(),
            roll: self.roll.clone(),
            ..Lease::default()
        })))
    }

    /// The record of a run without an object: what its process has written, or what a fresh one recovers.
    fn file_record(&mut self, process: &Process, step: Option<&Backup>) -> Vec<Fact> {
        let want = &process.want;
        let mut memory = process.memory.borrow_mut();
        match step {
            Some(Backup::Write(write)) => {
                if self.left_frozen() {
                    self.violations.push("status written over a frozen pod");
                }
                self.status = write.status.clone();
                *memory = Some((write.status.clone(), memory.take().unwrap_or_default().1));
            }
            Some(Backup::Hold(hold)) => *memory = Some((memory.take().unwrap_or_default().0, hold.finalizers.clone())),
            _ => {}
        }
        let (status, finalizers) = memory.clone().unwrap_or_else(|| {
            let stock = pieces(&self.disks, want.uid.as_str()).collect();
            (
                journal::recover(self.open.as_ref(), &stock, &self.roll.clone().unwrap_or_default(), want, self.now()),
                vec![],
            )
        });
        let open = status.run.as_ref().map(|run| (run.slot.clone().unwrap(), run.attempt.unwrap().into()));
        let record = Record {
            version: String::new(),
            uid: want.uid.clone(),
            leaving: false,
            finalizers,
            journal: journal::read(&status, &want.slot),
            open,
            status,
        };
        vec![Fact::Record(Box::new(Seen::Known(record)))]
    }

    pub fn record(&self) -> Fact {
        let open = self.status.run.as_ref().map(|run| (run.slot.clone().unwrap(), run.attempt.unwrap().into()));
        Fact::Record(Box::new(Seen::Known(Record {
            version: self.version.to_string(),
            uid: self.uid.into(),
            leaving: false,
            finalizers: self.finalizers.clone(),
            journal: journal::read(&self.status, "slot"),
            open,
            status: self.status.clone(),
        })))
    }

    /// As it is for this process: of two objects its own is the one that is there.
    fn as_of<T>(&mut self, me: &Holder, act: impl FnOnce(&mut World) -> T) -> T {
        let other = me.0.contains("/other/");
        let turn = |world: &mut World| {
            std::mem::swap(&mut world.status, &mut world.aside.0);
            std::mem::swap(&mut world.finalizers, &mut world.aside.1);
            std::mem::swap(&mut world.version, &mut world.aside.2);
            world.uid = if world.uid == "policy" { "other" } else { "policy" };
        };
        if other {
            turn(self);
        }
        let result = act(self);
        if other {
            turn(self);
        }
        result
    }

    fn apply(&mut self, me: &Holder, step: &Backup) -> Result<Vec<Fact>, Fault> {
        self.settle();
        self.as_of(me, |world| {
            let mutant = world.mutant;
            if let Some(facts) = mutant.and_then(|mutant| mutant.instead(world, step)) {
                return Ok(facts);
            }
            let step = mutant.map_or_else(|| step.clone(), |mutant| mutant.twist(world, step));
            let reply = world.carry_out(me, &step);
            world.look_for_breaches();
            reply
        })
    }

    /// What is stored now is a state that may be.
    fn look_for_breaches(&mut self) {
        if self.kind.is_file() {
            return; // no record is stored: what the mark and the snapshots say in the end, the verdict judges
        }
        let (Fact::Record(record), Fact::Lease(Seen::Known(lease))) = (self.record(), self.lease()) else { return };
        let Seen::Known(record) = *record else { return };
        let stored = Stored { record: &record, lease: lease.as_ref(), snaps: &self.snaps() };
        for what in invariant::broken(&stored) {
            self.log.push(format!("       broken: {what}"));
            self.violations.push("an invariant is broken");
        }
    }

    /// All of this id is cut.
    pub fn is_cut(&self, run: RunId) -> bool {
        let cut = self.disks.values().filter(|disk| disk.snap.run == run && disk.snap.cut.is_some());
        cut.count() == keys().len()
    }

    /// A hook that ended well, as far as anybody hears.
    pub fn heard(&self, exec: &Exec) -> Vec<Fact> {
        let when = When { begun: self.now(), ended: self.now() };
        vec![Fact::Hook(Box::new(exec.clone()), Tried { when, end: End::Exit(0, String::new()) })]
    }

    /// A new process finds the lock of a dead one run out.
    pub fn bury(&mut self, holder: &Holder) {
        self.gone |= self.holder.as_ref() == Some(holder);
        self.lease_version += 1;
    }

    pub fn runs(&self) -> BTreeMap<RunId, Vec<&Disk>> {
        let mut runs: BTreeMap<RunId, Vec<&Disk>> = BTreeMap::new();
        self.disks.values().for_each(|disk| runs.entry(disk.snap.run).or_default().push(disk));
        runs
    }
}

pub fn keys() -> Vec<ClaimKey> {
    let of = |ordinal| TEMPLATES.map(|template| ClaimKey { ordinal, template: template.into() });
    (0..PODS).flat_map(of).collect()
}
