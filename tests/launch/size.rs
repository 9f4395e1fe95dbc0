//! A decision costs a few look-ups, however many policies there are: what falls due among a hundred thousand is found
//! about as fast as among a thousand.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::{Outcome, Trigger};
use sts_backup::plan::job::Kind;
use sts_backup::plan::launch::entry::{
    Job, Last, Manager, Object, OpenRun, Owned, Policy, Stage, State, Subject, Uid, Waiting,
};
use sts_backup::plan::launch::{Answer, Context, Feed, Index, Now, What};

use super::world::{at, policy};

/// Decisions that are timed at once.
const BATCH: usize = 200;
/// The best of so many counts: a machine that is busy makes some slow.
const TRIES: usize = 5;
/// So many fall due one after the other, in each count.
const DUE: u32 = 60;
/// The first that changes; those before fall due.
const CHANGED: usize = 500;
/// The midnight after which all slots are.
const BEGIN: i64 = 1_772_841_600;

fn now(t: Timestamp) -> Now {
    Now { wall: t, tick: Duration::from_secs(t.as_second().try_into().unwrap()) }
}

fn slot(number: usize) -> Timestamp {
    at(BEGIN + 60 * i64::try_from(number).unwrap())
}

/// Its first run is done, and its yearly slot is a minute of its own: one falls due a minute, however many there are.
fn object(number: usize) -> (Uid, Object) {
    let created = at(BEGIN - 60);
    let schedule = slot(number).strftime("%-M %-H %-d %-m *").to_string();
    let policy = Policy {
        schedule: Some(schedule.into()),
        keep_succeeded: 3,
        keep_failed: 1,
        owned: Owned { next: Some(slot(number)), last: Some(created), ..Owned::default() },
        last: Some(Box::new(Last {
            slot: created.to_string().into(),
            attempt: 1,
            trigger: Trigger::First,
            outcome: Some(Outcome::Succeeded),
            reason: None,
            started: Some(created),
            ended: Some(created),
            freeze_seconds: None,
            snapshots: 1,
        })),
        ..Policy::default()
    };
    let object = Object {
        // None of its runs ever ends: so many of one namespace would be too many.
        namespace: format!("shop-{}", number / 3).into(),
        name: format!("policy-{number}").into(),
        version: "1".into(),
        generation: 1,
        created,
        leaving: None,
        held: false,
        statefulset: format!("app-{number}").into(),
        statefulset_namespace: None,
        manager: Manager::Us,
        problem: None,
        standing: vec![],
        subject: Subject::Backup(Box::new(policy)),
    };
    // Uids are random.
    let uid = u128::try_from(number).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (Uid(uid), object)
}

/// All of them seen, and none due yet.
fn index(policies: usize) -> Index {
    let feeds = Feed::of(&[]);
    let context = Context {
        places: 1 << 20,
        restore_places: 1,
        jitter_seconds: 0,
        started: at(BEGIN - 3600),
        feeds: feeds.clone(),
    };
    let mut index = Index::new(context);
    for feed in &feeds {
        index.list(feed);
    }
    for number in 0..policies {
        let (uid, object) = object(number);
        index.see(uid, object);
    }
    for feed in &feeds {
        index.listed(feed);
    }
    let acts = index.plan(now(at(BEGIN) - SignedDuration::from_secs(30)));
    assert!(acts.is_empty(), "all is told, and nothing is due: {:?}", acts[0]);
    index
}

/// A policy changes and is decided upon: how long that takes.
fn heard(index: &mut Index, t: Timestamp, policies: usize, round: usize) -> Duration {
    let changed: Vec<_> = (0..BATCH)
        .map(|n| {
            let (uid, mut object) = object(CHANGED + (round * BATCH + n) * 7919 % (policies - CHANGED));
            object.version = (2 * round + 2).to_string().into();
            policy(&mut object).suspend = true;
            let mut told = object.clone();
            told.version = (2 * round + 3).to_string().into();
            let why = Some(Reason::Suspended);
            let waiting = Some(Box::new(Waiting { since: t, why, message: "told".into() }));
            let owned = Owned { next: None, waiting, ..policy(&mut told).owned.clone() };
            policy(&mut told).owned = owned;
            (uid, object, Answer::Status(Some(Box::new(told))))
        })
        .collect();
    let begin = Instant::now();
    for (uid, object, told) in changed {
        index.see(uid, object);
        assert_eq!(index.plan(now(t)).len(), 1, "what is suspended has no next slot: status is told");
        index.answer(uid, told, now(t));
        assert_eq!(index.plan(now(t)), [], "and no more");
    }
    begin.elapsed()
}

/// Slots fall due, and each becomes a Job: how long the look at the clock, the decision and the answer take, for each.
fn due(index: &mut Index, minute: &mut i64, jobs: &mut u128) -> Duration {
    let (mut spent, mut count) = (Duration::ZERO, 0_u32);
    while count < DUE {
        let t = now(at(BEGIN + 60 * *minute));
        *minute += 1;
        let begin = Instant::now();
        let acts = index.plan(t);
        spent += begin.elapsed();
        for act in acts {
            let What::Launch { run, .. } = act.what else { panic!("{act:?}") };
            *jobs += 1;
            let slot = run.slot.clone().into();
            let job = Job::new(Uid(*jobs), Kind::Backup, slot, 1, run.trigger, State::Running, None);
            let begin = Instant::now();
            index.answer(act.uid, Answer::Launched(Some(job)), t);
            spent += begin.elapsed();
            count += 1;
        }
        // Each then tells its status, and that is all.
        let begin = Instant::now();
        let told = index.plan(t);
        spent += begin.elapsed();
        for act in told {
            let What::Status(owned) = act.what else { panic!("{act:?}") };
            let mut object = index.get(act.uid).unwrap().object.clone();
            object.version = "2".into();
            // The run begins at once.
            let run = owned.last.map(|slot| OpenRun { slot: slot.to_string().into(), attempt: 1, stage: Stage::Other });
            (policy(&mut object).run, policy(&mut object).owned) = (run, owned);
            index.answer(act.uid, Answer::Status(Some(Box::new(object))), t);
        }
        assert_eq!(index.plan(t), []);
    }
    spent / count
}

/// KiB of memory of its own that this process has.
#[cfg(target_os = "linux")]
fn held() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The best times of the two kinds of decision.
fn measure(policies: usize) -> [Duration; 2] {
    let (mut index, mut minute, mut jobs) = (index(policies), 0, 0);
    let t = at(BEGIN) - SignedDuration::from_secs(20);
    let heard = (0..TRIES).map(|round| heard(&mut index, t, policies, round)).min().unwrap();
    let due = (0..TRIES).map(|_| due(&mut index, &mut minute, &mut jobs)).min().unwrap();
    [heard / u32::try_from(BATCH).unwrap(), due]
}

#[test]
fn a_decision_among_a_hundred_thousand_costs_about_as_much_as_among_a_thousand() {
    let (few, many) = (measure(1_000), measure(100_000));
    for (what, (few, many)) in ["heard", "due"].into_iter().zip(few.into_iter().zip(many)) {
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        println!("{what}: {few:.1?} among 1,000 policies, {many:.1?} among 100,000: {ratio:.2} times");
        // A walk over all would be a hundred times; twice the depth of a tree, and caches that no longer hold it, are not.
        assert!(ratio < 4.0, "{what}: {ratio:.2} times");
    }
}

/// What ten thousand of them take is most of what the watcher takes then.
#[cfg(target_os = "linux")]
#[test]
fn a_policy_is_kept_in_half_a_kilobyte() {
    // In a process of its own: what others here take meanwhile is not counted.
    if std::env::var_os("SSB_ALONE").is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "size::a_policy_is_kept_in_half_a_kilobyte";
        alone.env("SSB_ALONE", "yes").args(["--exact", name, "--nocapture"]);
        assert!(alone.status().unwrap().success());
        return;
    }
    let before = held();
    let index = index(20_000);
    let bytes = (held() - before) * 1024 / 20_000;
    println!("{bytes} bytes for a policy");
    assert_eq!(index.after(None).count(), 20_000);
    assert!(bytes < 512, "{bytes} bytes");
}
