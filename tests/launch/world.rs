//! API server, Jobs and runners for simulated months: objects with versions, feeds that are late, replies that are
//! lost, Jobs that fail, vanish or fall silent. What people do comes at second 45 of a minute, watchers come and go at
//! 15, runs end at 30: so that nothing depends on who is faster by a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use sts_backup::api::shared::{Outcome, Trigger};
use sts_backup::plan::job::{Kind, Run};
use sts_backup::plan::launch::entry::{Job, Last, Manager, Object, OpenRun, Policy, Stage, State, Subject, Uid};
use sts_backup::plan::launch::pace::Lease;
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
    Context { places: 1 << 20, jitter_seconds: 0, started: at(t), feeds: Feed::of(&[]) }
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

    // Jobs and runners.

    fn of(&self, owner: Uid) -> impl Iterator<Item = &Pod> {
        self.pods.range((owner, Uid(0))..=(owner, Uid(u128::MAX))).map(|(_, pod)| pod)
    }

    fn launch(&mut self, owner: Uid, run: &Run) -> Job {
        let name = run.job_name();
        if let Some(key) = self.names.get(&name) {
            return self.pods[key].job.clone();
        }
        self.launches += 1;
        self.launched.insert((owner, run.slot.clone()));
        let fate = match self.chance.below(30) {
            0 if run.trigger != Trigger::Manual => Fate::FailUnseen,
            1 if run.trigger != Trigger::Manual => Fate::DeletedEarly,
            2 => Fate::Silent,
            3 => Fate::FailOpen,
            4 => Fate::DeletedLate,
            _ => Fate::Well,
        };
        let uid = self.fresh_uid();
        let (slot, since) = (run.slot.clone().into(), self.now().tick);
        let job = Job::new(uid, Kind::Backup, slot, run.attempt, run.trigger, State::Pending, None, since);
        self.names.insert(name.clone(), (owner, uid));
        self.pods.insert((owner, uid), Pod { name, job: job.clone(), fate, alive: true });
        self.publish(&Heard::Job(owner, job.clone()));
        self.put(self.t + 1, Event::Begin((owner, uid)));
        job
    }

    fn set(&mut self, key: Key, state: State) {
        let t = self.t;
        let Some(pod) = self.pods.get_mut(&key) else { return };
        pod.job.state = state;
        let ended = !pod.job.is_active();
        if ended {
            pod.alive = false;
            pod.job.ended = Some(at(t));
        }
        let job = pod.job.clone();
        self.publish(&Heard::Job(key.0, job));
        if ended {
            self.put(t + TTL, Event::Expire(key));
        }
    }

    pub fn remove(&mut self, key: Key) {
        if let Some(pod) = self.pods.remove(&key) {
            self.names.remove(&pod.name);
            self.publish(&Heard::JobGone(key.0, key.1));
        }
    }

    /// The runner's first moments: it looks whether it is the one, and says that the run has begun.
    pub fn begin(&mut self, key: Key) {
        let Some(pod) = self.pods.get(&key) else { return };
        let (owner, run, fate) = (key.0, pod.job.clone(), pod.fate);
        self.set(key, State::Running);
        let Some(object) = self.objects.get(&owner) else {
            return self.set(key, State::Failed { refused: true });
        };
        let policy = policy_of(object);
        let closed = policy.last.as_ref().is_some_and(|last| last.slot == run.slot && last.outcome.is_some());
        let later = policy.run.as_ref().is_some_and(|open| open.slot == run.slot && open.attempt > run.attempt);
        if closed || later {
            return self.set(key, State::Failed { refused: true });
        }
        match fate {
            Fate::FailUnseen => return self.set(key, State::Failed { refused: false }),
            Fate::DeletedEarly => return self.remove(key),
            _ => {}
        }
        let resumed = policy.run.as_ref().is_some_and(|open| open.slot == run.slot);
        assert!(policy.run.is_none() || resumed, "two runs of one object at once");
        if !resumed {
            self.begun.entry((owner, run.slot.to_string())).or_default().push(self.t);
        }
        // Whoever was at it before finds out by his next renewal or write.
        let earlier = |pod: &&Pod| pod.alive && pod.job.is_active() && pod.job.slot == run.slot && pod.job.uid != key.1;
        let earlier: Vec<_> = self.of(owner).filter(earlier).map(|pod| (owner, pod.job.uid)).collect();
        for earlier in earlier {
            self.put(next(self.t + 1, 30), Event::Close(earlier));
        }
        let (slot, attempt, trigger, started) = (run.slot, run.attempt, run.trigger, at(self.t));
        self.store(owner, |object| {
            let policy = self::policy(object);
            policy.run = Some(OpenRun { slot: slot.clone(), attempt, stage: Stage::Frozen });
            policy.last = Some(Box::new(begun(slot, attempt, trigger, started)));
        });
        let longest = self.chance.pick(&[5, 5, 5, 5, 5, 5, 5, 200]);
        let minutes = i64::try_from(1 + self.chance.below(longest)).unwrap();
        let end = next(self.t + 1 + 60 * (minutes - 1), 30);
        match fate {
            Fate::Silent => self.pods.get_mut(&key).unwrap().alive = false,
            Fate::FailOpen | Fate::DeletedLate => self.put(end - 15, Event::Fail(key)),
            _ => self.put(end, Event::Close(key)),
        }
    }

    /// The process ends without a word.
    pub fn fail(&mut self, key: Key) {
        match self.pods.get(&key).map(|pod| pod.fate) {
            Some(Fate::DeletedLate) => self.remove(key),
            Some(_) => self.set(key, State::Failed { refused: false }),
            None => {}
        }
    }

    pub fn close(&mut self, key: Key) {
        let Some(pod) = self.pods.get(&key).filter(|pod| pod.job.is_active()) else { return };
        let (owner, run) = (key.0, pod.job.clone());
        let open = self.objects.get(&owner).and_then(|object| policy_of(object).run.clone());
        if open.is_none_or(|open| open.slot != run.slot || open.attempt != run.attempt) {
            return self.set(key, State::Failed { refused: true });
        }
        self.closed.entry((owner, run.slot.to_string())).or_default().push(self.t);
        let good = self.chance.below(4) > 0;
        self.store(owner, |object| {
            let policy = self::policy(object);
            policy.run = None;
            let last = policy.last.as_mut().unwrap();
            last.outcome = Some(if good { Outcome::Succeeded } else { Outcome::Failed });
        });
        // A Job that fell silent is found dead once another has done its work.
        let silent = |pod: &&Pod| pod.fate == Fate::Silent && pod.job.is_active();
        let silent: Vec<_> = self.of(owner).filter(silent).map(|pod| (owner, pod.job.uid)).collect();
        for silent in silent.into_iter().filter(|silent| *silent != key) {
            self.set(silent, State::Failed { refused: false });
        }
        self.set(key, if good { State::Succeeded } else { State::Failed { refused: true } });
    }
}

fn begun(slot: Box<str>, attempt: u32, trigger: Trigger, started: Timestamp) -> Last {
    let started = Some(started);
    Last {
        slot,
        attempt,
        trigger,
        outcome: None,
        reason: None,
        started,
        ended: None,
        freeze_seconds: None,
        snapshots: 0,
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
