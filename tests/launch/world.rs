//! API server, Jobs and runners for simulated months: objects with versions, feeds that are late, replies that are
//! lost, Jobs that fail, vanish or fall silent. What people do comes at second 45 of a minute, watchers come and go at
//! 15, runs end at 30: so that nothing depends on who is faster by a second.

mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use sts_backup::api::shared::{Outcome, Trigger};
use sts_backup::plan::job::{Kind, Run};
use sts_backup::plan::launch::entry::{Job, Last, Manager, Object, OpenRun, Policy, Stage, State, Subject, Uid};
use sts_backup::plan::launch::pace::Lease;
use sts_backup::plan::launch::plight::Plight;
use sts_backup::plan::launch::{Act, Answer, Context, Feed, Index, Now, What};

use super::chance::Chance;

/// A finished Job goes after a day.
const TTL: i64 = 86_400;

#[derive(Debug, Clone)]
pub enum Event {
    Create(usize),
    Edit(Uid),
    Switch(usize),
    Tick(usize),
    Hear(usize, u32, Heard),
    Answered(usize, u32, Uid, Answer),
    Begin(Key),
    Close(Key),
    Fail(Key),
    Expire(Key),
}

/// A Job: its object's uid and its own.
pub type Key = (Uid, Uid);

#[derive(Debug, Clone)]
pub enum Heard {
    Object(Uid, Box<Object>),
    Gone(Uid),
    Job(Uid, Job),
    JobGone(Uid, Uid),
}

/// What becomes of a Job, decided when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    /// Ends without having written anything.
    FailUnseen,
    /// Begins, and ends without a word.
    FailOpen,
    /// Begins and falls silent in the freeze; Kubernetes believes that it runs.
    Silent,
    /// Deleted by hand before it begins.
    DeletedEarly,
    /// Deleted by hand in the middle of the run.
    DeletedLate,
}

struct Pod {
    name: String,
    job: Job,
    fate: Fate,
    alive: bool,
}

struct Watcher {
    index: Index,
    up: bool,
    /// Raised at each start: what was on its way to a former process is lost.
    life: u32,
    /// Feeds tell things in their order.
    heard: i64,
    ticks: BTreeSet<i64>,
}

pub struct World {
    pub t: i64,
    queue: BTreeMap<(i64, u64), Event>,
    seq: u64,
    version: u64,
    uids: u128,
    pub objects: BTreeMap<Uid, Object>,
    pods: BTreeMap<Key, Pod>,
    names: BTreeMap<String, Key>,
    watchers: Vec<Watcher>,
    pub chance: Chance,
    /// Begun runs, each with how often, and when each was closed.
    pub begun: BTreeMap<(Uid, String), Vec<i64>>,
    pub launched: BTreeSet<(Uid, String)>,
    pub closed: BTreeMap<(Uid, String), Vec<i64>>,
    /// When any watcher was there.
    pub watched: Vec<(i64, i64)>,
    pub launches: usize,
    pub writes: usize,
    misfortunes: BTreeMap<Uid, u32>,
}

pub fn at(t: i64) -> Timestamp {
    Timestamp::from_second(t).unwrap()
}

fn context(t: i64) -> Context {
    Context { places: 1 << 20, restore_places: 1, jitter_seconds: 0, started: at(t), feeds: Feed::of(&[]) }
}

/// The next instant with that second of the minute, not before `t`.
pub fn next(t: i64, second: i64) -> i64 {
    t + (second - t).rem_euclid(60)
}

impl World {
    pub fn new(t: i64, watchers: usize, seed: u64) -> World {
        let watcher =
            || Watcher { index: Index::new(context(t)), up: false, life: 0, heard: t, ticks: BTreeSet::new() };
        World {
            t,
            queue: BTreeMap::new(),
            seq: 0,
            version: 0,
            uids: 0,
            objects: BTreeMap::new(),
            pods: BTreeMap::new(),
            names: BTreeMap::new(),
            watchers: (0..watchers).map(|_| watcher()).collect(),
            chance: Chance(seed),
            begun: BTreeMap::new(),
            launched: BTreeSet::new(),
            closed: BTreeMap::new(),
            watched: vec![],
            launches: 0,
            writes: 0,
            misfortunes: BTreeMap::new(),
        }
    }

    pub fn fresh_uid(&mut self) -> Uid {
        self.uids += 1;
        Uid(self.uids << 64 | u128::from(self.chance.next()))
    }

    pub fn put(&mut self, t: i64, event: Event) {
        self.seq += 1;
        self.queue.insert((t, self.seq), event);
    }

    /// The next event, if it comes before `end`; time moves to it.
    pub fn pop(&mut self, end: i64) -> Option<Event> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 < end)?;
        self.t = entry.key().0;
        Some(entry.remove())
    }

    fn now(&self) -> Now {
        Now { wall: at(self.t), tick: Duration::from_secs(u64::try_from(self.t).unwrap()) }
    }

    // The API server.

    pub fn store(&mut self, uid: Uid, change: impl FnOnce(&mut Object)) {
        let Some(object) = self.objects.get_mut(&uid) else { return };
        change(object);
        self.version += 1;
        object.version = self.version.to_string().into();
        let object = Box::new(object.clone());
        self.publish(&Heard::Object(uid, object));
    }

    pub fn create(&mut self, object: Object) -> Uid {
        let uid = self.fresh_uid();
        self.objects.insert(uid, object);
        self.store(uid, |_| {});
        uid
    }

    pub fn delete(&mut self, uid: Uid) {
        self.objects.remove(&uid);
        self.publish(&Heard::Gone(uid));
    }

    fn publish(&mut self, heard: &Heard) {
        for at in 0..self.watchers.len() {
            let delay = i64::try_from(self.chance.below(3)).unwrap();
            let watcher = &mut self.watchers[at];
            if watcher.up {
                watcher.heard = watcher.heard.max(self.t + delay);
                let (t, life) = (watcher.heard, watcher.life);
                self.put(t, Event::Hear(at, life, heard.clone()));
            }
        }
    }

    // Watchers.

    pub fn switch(&mut self, w: usize) {
        let watcher = &mut self.watchers[w];
        watcher.up = !watcher.up;
        if watcher.up {
            watcher.life += 1;
            watcher.heard = self.t;
            let (index, feeds) = (&mut watcher.index, Feed::of(&[]));
            *index = Index::new(context(self.t));
            for feed in &feeds {
                index.list(feed);
            }
            for (uid, object) in &self.objects {
                index.see(*uid, object.clone());
            }
            for ((owner, _), pod) in &self.pods {
                index.see_job(*owner, pod.job.clone());
            }
            for feed in &feeds {
                index.listed(feed);
            }
        }
        let any = self.watchers.iter().any(|watcher| watcher.up);
        match self.watched.last_mut() {
            Some((_, end)) if *end == i64::MAX && !any => *end = self.t,
            Some((_, i64::MAX)) => {}
            _ if any => self.watched.push((self.t, i64::MAX)),
            _ => {}
        }
        self.plan(w);
    }

    pub fn hear(&mut self, w: usize, life: u32, heard: Heard) {
        let watcher = &mut self.watchers[w];
        if !watcher.up || watcher.life != life {
            return;
        }
        match heard {
            Heard::Object(uid, object) => watcher.index.see(uid, *object),
            Heard::Gone(uid) => watcher.index.forget(uid),
            Heard::Job(owner, job) => watcher.index.see_job(owner, job),
            Heard::JobGone(owner, job) => watcher.index.forget_job(owner, job),
        }
        self.plan(w);
    }

    pub fn answered(&mut self, w: usize, life: u32, uid: Uid, answer: Answer) {
        let now = self.now();
        let watcher = &mut self.watchers[w];
        if watcher.up && watcher.life == life {
            watcher.index.answer(uid, answer, now);
            self.plan(w);
        }
    }

    pub fn plan(&mut self, w: usize) {
        let now = self.now();
        let watcher = &mut self.watchers[w];
        if !watcher.up {
            return;
        }
        watcher.ticks.remove(&self.t);
        for act in watcher.index.plan(now) {
            self.act(w, act);
        }
        let wake = self.watchers[w].index.wake();
        let wall = wake.wall.map(Timestamp::as_second);
        let tick = wake.tick.map(|tick| i64::try_from(tick.as_secs()).unwrap());
        if let Some(t) = wall.into_iter().chain(tick).min() {
            let t = t.max(self.t + 1);
            if self.watchers[w].ticks.insert(t) {
                self.put(t, Event::Tick(w));
            }
        }
    }

    /// One request: late, sometimes refused, sometimes done and its reply lost.
    fn act(&mut self, w: usize, act: Act) {
        if matches!(act.what, What::Tell(_)) {
            return;
        }
        let luck = self.chance.below(40);
        let misfortunes = self.misfortunes.entry(act.uid).or_default();
        *misfortunes = if luck < 2 && *misfortunes < 2 { *misfortunes + 1 } else { 0 };
        let unlucky = *misfortunes > 0;
        let answer = if unlucky && luck == 0 { Answer::Failed } else { self.carry_out(act.uid, act.what) };
        let answer = if unlucky { Answer::Failed } else { answer };
        let (t, life) = (self.t + i64::try_from(self.chance.below(2)).unwrap(), self.watchers[w].life);
        self.put(t, Event::Answered(w, life, act.uid, answer));
    }

    fn carry_out(&mut self, uid: Uid, what: What) -> Answer {
        match what {
            What::Status(owned) => {
                if !self.objects.contains_key(&uid) {
                    return Answer::Status(None);
                }
                self.writes += 1;
                self.store(uid, |object| {
                    object.manager = Manager::Us;
                    policy(object).owned = owned;
                });
                Answer::Status(self.objects.get(&uid).cloned().map(Box::new))
            }
            What::Launch { run, .. } => Answer::Launched(Some(self.launch(uid, &run))),
            What::Look => Answer::Lease(self.lease(uid)),
            What::Prune { name, job } => {
                // Another watcher or the TTL may have been faster.
                assert!(self.names.get(&name).is_none_or(|key| *key == (uid, job)), "a name that is another's");
                self.remove((uid, job));
                Answer::Pruned(job)
            }
            What::Inspect { job, .. } => Answer::Inspected(job, Plight::None),
            What::Judge(_) | What::Sight(_) | What::Remove { .. } => {
                panic!("every spec is sound, and every runner is alone")
            }
            What::Tell(_) => Answer::Failed,
        }
    }

    /// Renewed every ten seconds while a runner of the object lives.
    fn lease(&self, uid: Uid) -> Lease {
        let alive = self.of(uid).any(|pod| pod.alive && pod.job.state == State::Running);
        let object = self.objects.get(&uid);
        let holder = object.map(|object| format!("backup/{}/{}/x", object.namespace, object.name).into());
        let renewed = Some(at(if alive { self.t / 10 * 10 } else { 0 }));
        if alive { Lease { holder, renewed } } else { Lease { holder: None, renewed } }
    }
}

pub fn policy(object: &mut Object) -> &mut Policy {
    let Subject::Backup(policy) = &mut object.subject else { unreachable!("only backups here") };
    policy
}

pub fn policy_of(object: &Object) -> &Policy {
    let Subject::Backup(policy) = &object.subject else { unreachable!("only backups here") };
    policy
}
