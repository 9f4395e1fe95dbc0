//! A cluster in memory on a virtual clock, and one process in it as the driver sees it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;

use super::stock::{Old, pieces};
use jiff::{SignedDuration, Timestamp};
use sts_backup::api::FILE_UID;
use sts_backup::api::backup::StatefulSetBackupStatus;
use sts_backup::api::recorded::RecordedClaim;
use sts_backup::api::shared::Consistency;
use sts_backup::plan::backup::{Backup, NewSnapshot};
use sts_backup::plan::flow::{Feed, Lost, Step, When};
use sts_backup::plan::hook::{End, Exec, Tried, Which};
use sts_backup::plan::invariant::{self, Stored};
use sts_backup::plan::journal::{self, Record};
use sts_backup::plan::name::{ClaimKey, RunId};
use sts_backup::plan::noun::{
    Claim, Class, Container, Holder, Lease, Open, Pod, Refusal, Snap, Snaps, Stop, Target, Volume, Want,
};
use sts_backup::plan::view::{Fact, Read, Seen};
use sts_backup::step::{Effect, Fault, Io};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::broken::Mutant;

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
    /// This read gets no answer.
    pub fail_read: Option<usize>,
    pub mutant: Option<Mutant>,
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
            mutant: None,
            alarm: None,
            answered: None,
            blows: blows.to_vec(),
            mail: vec![],
            old: if let Kind::Old { purge } = kind { Some(Old::new(purge)) } else { None },
            first_pruned: None,
        }
    }

    pub fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.start.elapsed()).unwrap();
        Timestamp::from_second(1_800_000_000).unwrap() + since
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
            (journal::recover(self.open.as_ref(), &stock, want, self.now()), vec![])
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

    fn carry_out(&mut self, me: &Holder, step: &Backup) -> Result<Vec<Fact>, Fault> {
        let at = self.now().as_millisecond() % 1_000_000;
        self.log.push(format!("{at:>6} {} {step:?}", step.row().name));
        Ok(vec![match step {
            Backup::Lock(_) | Backup::Unlock(_) | Backup::Mark(_) => return self.lease_step(me, step),
            Backup::Hold(hold) if hold.version == self.version.to_string() => {
                self.finalizers.clone_from(&hold.finalizers);
                self.version += 1;
                self.record()
            }
            Backup::Write(write) if write.version == self.version.to_string() => {
                if self.left_frozen() {
                    self.violations.push("status written over a frozen pod");
                }
                self.status = write.status.clone();
                self.version += 1;
                self.record()
            }
            Backup::Hold(_) | Backup::Write(_) => return Err(Fault::Lost),
            Backup::Pre(exec) | Backup::Post(exec) => self.exec(exec),
            Backup::Snapshot(new) => self.cut(new),
            Backup::Seal(seal) => match self.disks.values_mut().find(|disk| disk.snap.uid == seal.uid) {
                Some(disk) => {
                    disk.snap.sealed = true;
                    disk.consistency = Some(seal.consistency);
                    Fact::Sealed(seal.uid.clone())
                }
                None => return Err(Fault::Lost),
            },
            Backup::Purge(_) | Backup::Prune(_) => {
                let size = keys().len();
                let runs = self.runs();
                let complete = |disks: &Vec<&Disk>| {
                    disks.len() == size && disks.iter().all(|disk| disk.snap.ready && disk.snap.sealed)
                };
                let complete = runs.values().any(complete);
                return self.old.as_mut().unwrap().apply(step, complete);
            }
            Backup::Delete(doomed) => {
                self.disks.retain(|_, disk| disk.snap.uid != doomed.uid);
                Fact::Snap(doomed.name.clone(), None)
            }
        }])
    }

    fn lease_step(&mut self, me: &Holder, step: &Backup) -> Result<Vec<Fact>, Fault> {
        let mine = self.holder.as_ref() == Some(me);
        match step {
            Backup::Lock(seen) if seen.as_ref().is_some_and(|seen| seen.version == self.lease_version.to_string()) => {
                self.holder = Some(me.clone());
                self.gone = false;
                self.epoch += 1;
            }
            Backup::Unlock(epoch) if mine && *epoch == self.epoch => self.holder = None,
            Backup::Mark(open) if mine => {
                if open.is_none() && self.left_frozen() {
                    self.violations.push("mark taken off over a frozen pod");
                }
                self.open = open.as_deref().cloned();
            }
            _ => return Err(Fault::Lost),
        }
        self.lease_version += 1;
        Ok(vec![self.lease()])
    }

    fn cut(&mut self, new: &NewSnapshot) -> Fact {
        if let Some(disk) = self.disks.get(&new.name) {
            return Fact::Snap(new.name.clone(), Some(disk.snap.clone()));
        }
        let now = self.now();
        let cut_at = now + SignedDuration::from_millis(300 + 50 * i64::from(new.claim.ordinal));
        self.uids += 1;
        let snap = Snap {
            uid: format!("snap-{}", self.uids),
            policy_uid: self.uid.into(),
            run: new.run,
            claim: new.claim.clone(),
            epoch: new.epoch,
            size: new.size,
            sealed: false,
            created: now,
            cut: None,
            ready: false,
            restore_size: None,
            leaving: false,
            error: None,
        };
        let ready_at = cut_at + SignedDuration::from_secs(60);
        self.disks
            .insert(new.name.clone(), Disk { snap: snap.clone(), cut_at, ready_at, consistency: None, evidence: None });
        Fact::Snap(new.name.clone(), Some(snap))
    }

    fn answer(&self, read: &Read) -> Fact {
        let claim = |key: &ClaimKey| {
            let name = key.pvc("web");
            let manifest = RecordedClaim::default();
            (
                name.clone(),
                Claim { uid: name.clone(), leaving: false, volume: Some(name), manifest, ..Claim::default() },
            )
        };
        match read {
            Read::Record => self.record(),
            Read::Lease => self.lease(),
            Read::Target => Fact::Target(Some(Target {
                uid: "sts".into(),
                replicas: PODS,
                start: 0,
                templates: TEMPLATES.map(String::from).into(),
                ..Target::default()
            })),
            Read::Grant => Fact::Grant(vec![]),
            Read::Pod(name) => Fact::Pod(name.clone(), self.pod(name)),
            Read::Proof(name) => Fact::Proof(name.clone(), self.pod(name)),
            Read::Claims => Fact::Claims(keys().iter().map(claim).collect()),
            Read::Volume(name) => {
                Fact::Volume(name.clone(), Some(Volume { driver: Some("csi".into()), ..Volume::default() }))
            }
            Read::Classes => {
                let (name, driver) = ("class".into(), "csi".into());
                Fact::Classes(vec![Class { name, driver, is_default: true, thaw_at_ready: false, retains: false }])
            }
            Read::Snaps => Fact::Snaps(Seen::Known(self.snaps())),
            Read::Restore(look) => unreachable!("no backup asks for {look:?}"),
            Read::Stock | Read::Content(_) | Read::Restores => self.old.as_ref().unwrap().answer(read, &self.disks),
        }
    }

    fn exec(&mut self, exec: &Exec) -> Fact {
        let when = When { begun: self.now(), ended: self.now() };
        let pod = &mut self.pods[exec.place.ordinal as usize];
        if exec.place.container_id != pod.id.to_string() {
            return Fact::Hook(Box::new(exec.clone()), Tried { when, end: End::Gone });
        }
        match (pod.frozen, exec.which) {
            (true, Which::Pre) => self.violations.push("pre hook on a frozen pod"),
            (false, Which::Pre) if self.open.is_none() => self.violations.push("frozen, and the Lease does not say so"),
            (true, Which::Post) => self.thaws += 1,
            _ => {}
        }
        pod.frozen = exec.which == Which::Pre;
        if let Some(alarm) = self.alarm.take_if(|_| exec.which == Which::Post) {
            self.answered = Some(self.now().duration_since(alarm));
        }
        Fact::Hook(Box::new(exec.clone()), Tried { when, end: End::Exit(0, String::new()) })
    }

    fn pod(&self, name: &str) -> Option<Pod> {
        let ordinal: usize = name.rsplit_once('-')?.1.parse().ok()?;
        let id = self.pods.get(ordinal)?.id;
        let container = Container { name: "app".into(), id: Some(id.to_string()), restarts: 0 };
        Some(Pod { uid: name.into(), running: true, containers: vec![container], ..Pod::default() })
    }

    fn snaps(&self) -> Snaps {
        let old = self.old.iter().flat_map(|old| &old.pieces);
        let old = old.filter_map(|(name, piece)| Some((name.clone(), piece.snap.clone()?)));
        self.disks.iter().map(|(name, disk)| (name.clone(), disk.snap.clone())).chain(old).collect()
    }
}

pub fn keys() -> Vec<ClaimKey> {
    let of = |ordinal| TEMPLATES.map(|template| ClaimKey { ordinal, template: template.into() });
    (0..PODS).flat_map(of).collect()
}

pub struct Process {
    world: Rc<RefCell<World>>,
    pub want: Want,
    stop: watch::Sender<Option<Stop>>,
    pub died: Notify,
    dead: Cell<bool>,
    told: RefCell<Snaps>,
    /// Of a run without an object: status and finalizers, once it has written.
    memory: RefCell<Option<(StatefulSetBackupStatus, Vec<String>)>>,
    mutant: Option<Mutant>,
}

impl Process {
    pub fn start(world: &Rc<RefCell<World>>, want: Want) -> Process {
        let stop = watch::Sender::new(None);
        let (died, dead, told) = (Notify::new(), Cell::new(false), RefCell::default());
        let (mutant, memory) = (world.borrow().mutant, RefCell::default());
        Process { world: world.clone(), want, stop, died, dead, told, memory, mutant }
    }

    /// Waits for our turn; who is not seen to come loses it.
    async fn turn(&self) {
        let second = self.want.me.0.rsplit_once('/').is_some_and(|(_, n)| n.len() > 2);
        for _ in 0..6 {
            {
                let mut world = self.world.borrow_mut();
                match world.order.front() {
                    None => return,
                    Some(next) if *next == second => {
                        world.order.pop_front();
                        return;
                    }
                    Some(_) => {}
                }
            }
            self.sleep(self.now() + SignedDuration::from_millis(10)).await;
        }
    }

    async fn die<T>(&self) -> T {
        self.dead.set(true);
        self.died.notify_one();
        pending().await
    }

    fn befall(&self, blow: Option<Blow>) {
        let mut world = self.world.borrow_mut();
        world.settle();
        match blow {
            Some(Blow::Sigterm) => {
                world.alarm = world.left_frozen().then(|| world.now());
                self.stop.send_replace(Some(Stop::Sigterm));
            }
            Some(Blow::Stolen) if world.holder.as_ref() == Some(&self.want.me) => {
                world.holder = None;
                world.epoch += 1;
                world.lease_version += 1;
                self.stop.send_replace(Some(Stop::LeaseLost));
            }
            Some(Blow::Restart) => {
                let thawed = world.pods[0].frozen;
                world.pods[0] = Instance { id: world.pods[0].id + 100, frozen: false };
                world.thaws += u32::from(thawed);
            }
            Some(Blow::Pinned) => world.old.iter_mut().for_each(Old::pin),
            Some(Blow::Refuse) => world.old.iter_mut().for_each(Old::refuse),
            _ => {}
        }
    }
}

impl Io for Process {
    fn now(&self) -> Timestamp {
        self.world.borrow().now()
    }
    async fn sleep(&self, until: Timestamp) {
        let left = until.duration_since(self.now());
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    }
    fn stop(&self) -> Option<Stop> {
        let stop = *self.stop.borrow();
        self.mutant.map_or(stop, |mutant| mutant.stop(stop))
    }
    async fn stopped(&self) {
        if self.mutant == Some(Mutant::DeafToSigterm) {
            return pending().await;
        }
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }
    async fn renew(&self) -> Infallible {
        pending().await
    }
    async fn read(&self, read: &Read) -> Result<Vec<Fact>, Fault> {
        self.sleep(self.now() + SignedDuration::from_millis(5)).await;
        let mut world = self.world.borrow_mut();
        world.settle();
        world.reads_in_freeze += usize::from(world.pods.iter().all(|pod| pod.frozen));
        world.log.push(format!("       read {read:?}"));
        let fails = world.fail_read == Some(world.reads);
        world.reads += 1;
        let reply = match read {
            _ if fails => Err(Fault::Lost),
            Read::Record if world.kind.is_file() => Ok(world.file_record(self, None)),
            _ => Ok(vec![world.as_of(&self.want.me, |world| world.answer(read))]),
        };
        match self.mutant {
            Some(mutant) => mutant.read(read, reply),
            None => reply,
        }
    }
    async fn feed(&self, on: &[Feed]) -> Vec<Fact> {
        if on.contains(&Feed::Lease) {
            self.sleep(self.now() + SignedDuration::from_millis(500)).await;
            return vec![Fact::Lease(Seen::Unknown)];
        }
        loop {
            let (snaps, now, due) = {
                let mut world = self.world.borrow_mut();
                world.settle();
                let due: Vec<_> = world.disks.values().flat_map(|disk| [disk.cut_at, disk.ready_at]).collect();
                (world.snaps(), world.now(), due)
            };
            let told = self.told.replace(snaps.clone());
            let new = snaps.iter().filter(|(name, snap)| told.get(*name) != Some(snap));
            let mut facts: Vec<Fact> = vec![];
            for (name, snap) in new {
                if on.contains(&Feed::Cut(snap.uid.clone()))
                    && let Some(at) = snap.cut
                {
                    facts.push(Fact::Cut(snap.uid.clone(), at));
                }
                if on.contains(&Feed::Snaps) {
                    facts.push(Fact::Snap(name.clone(), Some(snap.clone())));
                }
            }
            if on.contains(&Feed::Snaps) {
                let gone = told.keys().filter(|name| !snaps.contains_key(*name));
                facts.extend(gone.map(|name| Fact::Snap(name.clone(), None)));
            }
            let pods = on.contains(&Feed::Pods) && self.mutant != Some(Mutant::NoProof);
            if pods {
                let world = self.world.borrow();
                let all =
                    (0..PODS).map(|n| format!("web-{n}")).filter_map(|name| Some((name.clone(), world.pod(&name)?)));
                facts.push(Fact::Pods(all.collect()));
            }
            if facts.len() > usize::from(pods) {
                return facts;
            }
            match due.into_iter().filter(|at| *at > now).min() {
                Some(at) => self.sleep(at + SignedDuration::from_millis(1)).await,
                None => pending().await,
            }
        }
    }
}

impl Effect<Backup> for Process {
    async fn effect(&self, step: &Backup) -> Result<Vec<Fact>, Fault> {
        self.turn().await;
        self.sleep(self.now() + SignedDuration::from_millis(20)).await;
        if self.dead.get() {
            return pending().await;
        }
        let (blow, endless) = {
            let mut world = self.world.borrow_mut();
            let k = world.writes;
            let blow = world.blows.iter().find(|(at, _)| *at == k).map(|(_, blow)| *blow);
            if matches!(step, Backup::Purge(_) | Backup::Prune(_)) {
                world.first_pruned.get_or_insert(k);
            }
            world.writes += 1;
            (blow, k > ENDLESS)
        };
        if endless {
            self.world.borrow_mut().violations.push("never ends");
            return self.die().await;
        }
        self.befall(blow);
        // A straggling write of status or Lease meets a newer version; a straggling hook nothing can prevent.
        if blow == Some(Blow::Straggler) && matches!(step, Backup::Snapshot(_) | Backup::Delete(_) | Backup::Prune(_)) {
            let at = self.now() + SignedDuration::from_secs(1);
            self.world.borrow_mut().mail.push((at, self.want.me.clone(), step.clone()));
        }
        let reply = match blow {
            Some(Blow::DieBefore | Blow::Straggler) => return self.die().await,
            Some(Blow::LostBefore) => Err(Fault::Lost),
            Some(Blow::Refuse) => {
                let reason = sts_backup::api::condition::Reason::Forbidden;
                Err(Fault::Refused(Refusal::new(reason, "the world said no")))
            }
            _ if self.world.borrow().kind.is_file() && matches!(step, Backup::Write(_) | Backup::Hold(_)) => {
                Ok(self.world.borrow_mut().file_record(self, Some(step)))
            }
            Some(Blow::Twice) if !matches!(step, Backup::Pre(_)) => {
                let _ = self.world.borrow_mut().apply(&self.want.me, step);
                self.world.borrow_mut().apply(&self.want.me, step)
            }
            _ => self.world.borrow_mut().apply(&self.want.me, step),
        };
        let reply = match blow {
            Some(Blow::DieAfter) => self.die().await,
            Some(Blow::Hang) => pending().await,
            Some(Blow::LostAfter) => match step {
                // Its connection is cut: the run goes on, and nobody knows whether it ran.
                Backup::Pre(exec) | Backup::Post(exec) => {
                    let when = When { begun: self.now(), ended: self.now() };
                    Ok(vec![Fact::Hook(exec.clone(), Tried { when, end: End::Lost(Lost::Reply) })])
                }
                _ => Err(Fault::Lost),
            },
            _ => reply,
        };
        match self.mutant {
            Some(mutant) => mutant.heard(reply),
            None => reply,
        }
    }
}

impl World {
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
