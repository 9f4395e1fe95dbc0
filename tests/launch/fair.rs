//! One tenant with twenty thousand objects, in one namespace or in many, beside a hundred honest policies of others: every
//! slot of theirs runs, in fair order, whatever the runs of the tenant do. The judge goes by what was done and when, and
//! knows nothing of queues.

mod judge;
mod verdict;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sts_backup::api::shared::{Outcome, Trigger};
use sts_backup::plan::job::{Kind, Run};
use sts_backup::plan::launch::entry::{Job, Last, Manager, Object, OpenRun, Owned, Policy, Stage, State, Subject, Uid};
use sts_backup::plan::launch::pace::Lease;
use sts_backup::plan::launch::plight::Plight;
use sts_backup::plan::launch::{Act, Answer, Context, Feed, Index, Now, What};

use self::verdict::judge;
use super::world::{at, policy};

const BEGIN: i64 = 1_772_841_600;
const HOURS: i64 = 2;
const PLACES: usize = 10;
/// Runs of one namespace that have not begun; more where runs do begin.
const WAITING: usize = 3;
/// A run that has not begun for so long holds no place.
const START: i64 = 30;
/// A run that has been at work for so long keeps no place from a namespace that holds none.
const LEND: i64 = 5 * 60;
/// No honest run waits longer beside a tenant with one namespace: all hundred of them, one after the other in the two
/// places that no single namespace can have.
const LATE: i64 = 20 * 60;
const HONEST: usize = 100;
const SPACES: usize = 10;
/// How the names of the tenant's namespaces begin; those of the others lie before and behind.
const TENANT: &str = "tenant";
/// From the Job to the begin of an honest run, and from there to its end.
const STARTS: i64 = 2;
const WORKS: i64 = 20;

/// What becomes of the tenant's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// No pod of theirs ever runs.
    Pends,
    /// They wait at a lock that nobody gives back.
    Waits,
    /// They begin, and their hook never ends.
    Hangs,
    /// They are over at once, and the next is due.
    Hurries,
    /// They never begin, and their Jobs end after five minutes without a word.
    Fails,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Begin,
    End,
    Lost,
}

/// A Job that was made.
#[derive(Debug, Clone)]
struct Grant {
    uid: Uid,
    namespace: String,
    slot: String,
    made: i64,
    begun: Option<i64>,
    ended: Option<i64>,
}

struct World {
    t: i64,
    index: Index,
    manner: Manner,
    /// Namespaces of the tenant's.
    tenants: usize,
    objects: BTreeMap<Uid, Object>,
    events: BTreeMap<(i64, usize), (Event, usize)>,
    grants: Vec<Grant>,
    jobs: BTreeMap<usize, Job>,
    writes: BTreeMap<Uid, usize>,
    seq: usize,
}

fn context(places: usize) -> Context {
    Context { places, restore_places: places, jitter_seconds: 0, started: at(BEGIN - 60), feeds: Feed::of(&[]) }
}

fn object(namespace: &str, name: &str, schedule: &str) -> Object {
    Object {
        namespace: namespace.into(),
        name: name.into(),
        version: "1".into(),
        generation: 1,
        created: at(BEGIN),
        leaving: None,
        held: false,
        statefulset: name.into(),
        statefulset_namespace: None,
        manager: Manager::Us,
        problem: None,
        standing: vec![],
        subject: Subject::Backup(Box::new(Policy {
            schedule: Some(schedule.into()).filter(|_| !schedule.is_empty()),
            keep_succeeded: 3,
            keep_failed: 1,
            ..Policy::default()
        })),
    }
}

fn space(tenant: usize) -> String {
    format!("{TENANT}-{tenant}")
}

fn is_honest(namespace: &str) -> bool {
    !namespace.starts_with(TENANT)
}

impl World {
    fn new(objects: usize, tenants: usize, manner: Manner) -> World {
        let mut all = BTreeMap::new();
        // Uids are random; these are so spread that neither side comes first.
        let uid = |n: usize| Uid(u128::try_from(n).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        for n in 0..HONEST {
            let namespace = format!("{}-{}", ["shop", "zoo"][n % 2], n % SPACES);
            all.insert(uid(n + 1), object(&namespace, &format!("policy-{n}"), "0 * * * *"));
        }
        for n in 0..objects {
            // Most want one run only, and that at once.
            let schedule = if n % 20 == 0 { "* * * * *" } else { "" };
            all.insert(uid(n + 1 + HONEST), object(&space(n % tenants), &format!("forged-{n}"), schedule));
        }
        let mut index = Index::new(context(PLACES));
        let feeds = Feed::of(&[]);
        for feed in &feeds {
            index.list(feed);
        }
        for (uid, object) in &all {
            index.see(*uid, object.clone());
        }
        for feed in &feeds {
            index.listed(feed);
        }
        World {
            t: BEGIN,
            index,
            manner,
            tenants,
            objects: all,
            events: BTreeMap::new(),
            grants: vec![],
            jobs: BTreeMap::new(),
            writes: BTreeMap::new(),
            seq: 0,
        }
    }

    fn now(&self) -> Now {
        Now { wall: at(self.t), tick: Duration::from_secs(u64::try_from(self.t - BEGIN).unwrap()) }
    }

    fn put(&mut self, after: i64, event: Event, grant: usize) {
        self.seq += 1;
        self.events.insert((self.t + after, self.seq), (event, grant));
    }

    fn store(&mut self, uid: Uid, change: impl FnOnce(&mut Object)) -> Object {
        let object = self.objects.get_mut(&uid).unwrap();
        change(object);
        object.version = (object.version.parse::<u64>().unwrap() + 1).to_string().into();
        object.clone()
    }

    fn run(&mut self, until: i64) {
        while self.t < until {
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.t) {
                let (event, grant) = entry.remove();
                self.happen(event, grant);
            }
            for round in 0.. {
                let acts = self.index.plan(self.now());
                if acts.is_empty() {
                    break;
                }
                assert!(round < 50, "no end to what is to be done at {}: {:?}", self.t - BEGIN, acts[0]);
                for act in acts {
                    self.act(act);
                }
            }
            let wake = self.index.wake();
            let tick = wake.tick.map(|tick| BEGIN + i64::try_from(tick.as_secs()).unwrap());
            let wall = wake.wall.map(Timestamp::as_second);
            let event = self.events.first_key_value().map(|((t, _), _)| *t);
            let next = tick.into_iter().chain(wall).chain(event).min().unwrap_or(until);
            self.t = next.max(self.t + 1);
        }
    }

    fn act(&mut self, act: Act) {
        let answer = match act.what {
            What::Status(owned) => {
                *self.writes.entry(act.uid).or_default() += 1;
                // A condition that is False is as good as none.
                let owned = Owned { waiting: owned.waiting.filter(|waiting| waiting.why.is_some()), ..owned };
                let object = self.store(act.uid, |object| policy(object).owned = owned);
                Answer::Status(Some(Box::new(object)))
            }
            What::Launch { run, .. } => Answer::Launched(Some(self.launch(act.uid, &run))),
            What::Look => Answer::Lease(Lease::default()),
            What::Prune { job, .. } => Answer::Pruned(job),
            What::Inspect { job, .. } => Answer::Inspected(job, Plight::None),
            What::Judge(_) | What::Sight(_) | What::Remove { .. } => {
                panic!("every spec is sound, and every runner is alone")
            }
            What::Tell(_) => return,
        };
        self.index.answer(act.uid, answer, self.now());
    }

    fn launch(&mut self, uid: Uid, run: &Run) -> Job {
        let n = self.grants.len();
        let slot = run.slot.clone();
        let job = Job::new(
            Uid(u128::try_from(n + 1).unwrap()),
            Kind::Backup,
            slot.clone().into(),
            run.attempt,
            run.trigger,
            State::Pending,
            None,
        );
        let namespace = run.namespace.clone();
        let honest = is_honest(&namespace);
        self.grants.push(Grant { uid, namespace, slot, made: self.t, begun: None, ended: None });
        self.jobs.insert(n, job.clone());
        if honest || self.manner != Manner::Pends {
            self.put(STARTS, Event::Begin, n);
        }
        if !honest && self.manner == Manner::Fails {
            self.put(300, Event::Lost, n);
        }
        job
    }

    fn set(&mut self, n: usize, state: State) {
        let job = self.jobs.get_mut(&n).unwrap();
        job.state = state;
        self.index.see_job(self.grants[n].uid, job.clone());
    }

    fn happen(&mut self, event: Event, n: usize) {
        let (uid, slot) = (self.grants[n].uid, self.grants[n].slot.clone());
        let honest = is_honest(&self.grants[n].namespace);
        let attempt = self.jobs[&n].attempt;
        match event {
            Event::Begin => {
                self.set(n, State::Running);
                if !honest && matches!(self.manner, Manner::Waits | Manner::Fails) {
                    return;
                }
                self.grants[n].begun = Some(self.t);
                let object = self.store(uid, |object| {
                    let policy = policy(object);
                    policy.run = Some(OpenRun { slot: slot.as_str().into(), attempt, stage: Stage::Other });
                    policy.last = Some(Box::new(last(&slot, attempt, None)));
                });
                self.index.see(uid, object);
                let works = match self.manner {
                    _ if honest => Some(WORKS),
                    Manner::Hurries => Some(1),
                    _ => None,
                };
                if let Some(works) = works {
                    self.put(works, Event::End, n);
                }
            }
            Event::End => {
                self.grants[n].ended = Some(self.t);
                let object = self.store(uid, |object| {
                    let policy = policy(object);
                    policy.run = None;
                    policy.last = Some(Box::new(last(&slot, attempt, Some(Outcome::Succeeded))));
                });
                self.index.see(uid, object);
                self.set(n, State::Succeeded);
            }
            Event::Lost => {
                self.grants[n].ended = Some(self.t);
                self.set(n, State::Failed { refused: false });
            }
        }
    }
}

fn last(slot: &str, attempt: u32, outcome: Option<Outcome>) -> Last {
    Last {
        slot: slot.into(),
        attempt,
        trigger: Trigger::Schedule,
        outcome,
        reason: None,
        started: None,
        ended: None,
        freeze_seconds: None,
        snapshots: 0,
    }
}

fn beside(objects: usize, tenants: usize, manner: Manner) {
    let begun = Instant::now();
    let mut world = World::new(objects, tenants, manner);
    let end = BEGIN + HOURS * 3600;
    // Two seconds short of the next slots.
    world.run(end - 2);
    let jobs = judge(&world, end);
    let took = begun.elapsed();
    println!("{manner:?}: {objects} objects of one tenant in {tenants} namespaces had {jobs} Jobs ({took:.1?})");
    if manner == Manner::Hurries {
        assert!(jobs > 500, "what runs and ends gets its turn again and again: {jobs}");
    }
}

#[test]
fn twenty_thousand_objects_of_one_tenant_take_nothing_from_a_hundred_honest_policies() {
    beside(20_000, 1, Manner::Waits);
}

#[test]
fn nor_do_they_in_forty_namespaces() {
    beside(20_000, 40, Manner::Hangs);
}

/// With three it can hold every place, with forty every turn.
#[test]
fn a_tenant_with_many_namespaces_has_one_share_for_each_and_no_more() {
    for manner in [Manner::Pends, Manner::Waits, Manner::Hangs, Manner::Fails] {
        beside(1_000, 3, manner);
        beside(1_000, 40, manner);
    }
    beside(1_000, 40, Manner::Hurries);
}

#[test]
fn whatever_the_runs_of_a_tenant_do_those_of_others_get_their_turn() {
    for manner in [Manner::Pends, Manner::Hangs, Manner::Hurries, Manner::Fails] {
        beside(1_000, 1, manner);
    }
}

/// Nobody else wants them: then one namespace has nearly all of the places.
#[test]
fn a_namespace_alone_is_not_held_back() {
    let mut world = World::new(0, 1, Manner::Waits);
    world.objects.values_mut().for_each(|object| object.namespace = "shop".into());
    let objects: Vec<_> = world.objects.clone().into_iter().collect();
    for (uid, object) in objects {
        world.index.see(uid, Object { version: "2".into(), ..object });
    }
    world.run(BEGIN + 600);
    let made = world.grants.iter().filter(|grant| grant.ended.is_some()).count();
    assert_eq!(made, HONEST);
    let last = world.grants.iter().map(|grant| grant.made).max().unwrap() - BEGIN;
    assert!(last <= 100 / 8 * (STARTS + WORKS) + 60, "{last} s");
}
