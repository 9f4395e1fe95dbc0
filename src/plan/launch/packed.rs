//! What is known of one object, and how all of it is kept: as bytes, unpacked for an object's turn. Nearly all objects
//! have nothing to do nearly always, and as a struct each would be a KiB.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Wake;
use super::entry::{Job, Object, Uid, Work};
use super::instant::optional;
use super::pace::{Mark, Pace};
use super::plight::Care;
use super::share::{Hold, LEND, START};
use super::waits::Lock;
use crate::plan::job::Kind;

/// What was said of an object that another installation manages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// By an Event: whether that installation is gone.
    pub told: Option<bool>,
    /// Its status has said so.
    pub said: bool,
}

/// An object, its Jobs, and what this process knows beside.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub object: Object,
    pub jobs: Vec<Job>,
    pub(super) pace: Pace,
    /// A request for it is under way.
    pub(super) busy: bool,
    /// That request makes this run's Job.
    pub(super) making: Option<(Kind, Mark)>,
    /// What its run holds of the places.
    pub(super) hold: Hold,
    /// What its Job is at, and since when: to wait, or to work.
    pub(super) since: Option<(Work, Duration)>,
    /// Since when it has been due and had no place.
    pub(super) hungry: Option<Duration>,
    /// Its Job that comes to nothing.
    pub(super) care: Care,
    /// The lock that its Job waits for.
    pub(super) lock: Lock,
    /// Since when it has waited for a place because somebody asked.
    #[serde(with = "optional")]
    pub(super) wanting: Option<Timestamp>,
    pub(super) wake: Wake,
    /// The place in the queue.
    #[serde(with = "optional")]
    pub(super) queued: Option<Timestamp>,
    /// What was said of it while another installation manages it.
    pub(super) passed: Passed,
    /// The generation whose problem was told.
    pub(super) told: Option<i64>,
    /// The generation of which status says so.
    pub(super) judged: Option<i64>,
    pub(super) epoch: u32,
}

impl Entry {
    pub(super) fn new(object: Object, jobs: Vec<Job>, epoch: u32) -> Entry {
        Entry {
            object,
            jobs,
            pace: Pace::default(),
            busy: false,
            making: None,
            hold: Hold::Nothing,
            since: None,
            hungry: None,
            care: Care::default(),
            lock: Lock::default(),
            wanting: None,
            wake: Wake::default(),
            queued: None,
            passed: Passed::default(),
            told: None,
            judged: None,
            epoch,
        }
    }

    /// It says what cannot be done: nothing is begun for it.
    pub fn is_invalid(&self) -> bool {
        self.object.problem.is_some() || self.told == Some(self.object.generation)
    }

    /// What its run holds now, and when that changes by itself.
    pub(super) fn holds(&mut self, tick: Duration) -> (Hold, Option<Duration>) {
        let work = self.jobs.iter().map(|job| self.object.work(job)).max().unwrap_or(Work::Nothing);
        let work = if work == Work::Nothing && self.making.is_some() { Work::Wait } else { work };
        let since = self.since.filter(|(known, _)| *known == work).map_or(tick, |(_, since)| since);
        self.since = matches!(work, Work::Wait | Work::Run).then_some((work, since));
        let turns = |first: Hold, then: Hold, after: Duration| {
            if tick < since + after { (first, Some(since + after)) } else { (then, None) }
        };
        match work {
            Work::Nothing => (Hold::Nothing, None),
            Work::Upload => (Hold::Uploads, None),
            Work::Wait => turns(Hold::Starts, Hold::Waits, START),
            Work::Run => turns(Hold::Works, Hold::Lasts, LEND),
        }
    }
}

/// Entries by uid.
#[derive(Debug, Default)]
pub struct Entries(BTreeMap<Uid, Box<[u8]>>);

impl Entries {
    pub fn get(&self, uid: Uid) -> Option<Entry> {
        self.0.get(&uid).map(|bytes| unpack(bytes))
    }

    pub fn insert(&mut self, uid: Uid, entry: &Entry) {
        self.0.insert(uid, pack(entry));
    }

    pub fn remove(&mut self, uid: Uid) -> Option<Entry> {
        self.0.remove(&uid).map(|bytes| unpack(&bytes))
    }

    /// Changes an entry, if there is one.
    pub fn change<T>(&mut self, uid: Uid, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let bytes = self.0.get_mut(&uid)?;
        let mut entry = unpack(bytes);
        let told = change(&mut entry);
        *bytes = pack(&entry);
        Some(told)
    }

    pub fn keys(&self) -> impl Iterator<Item = Uid> {
        self.0.keys().copied()
    }

    /// In a fixed order.
    pub fn after(&self, uid: Option<Uid>) -> impl Iterator<Item = (Uid, Entry)> {
        let from = uid.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range((from, Bound::Unbounded)).map(|(uid, bytes)| (*uid, unpack(bytes)))
    }
}

#[expect(clippy::expect_used, reason = "only a type that cannot be written fails, and the tests write every field")]
fn pack(entry: &Entry) -> Box<[u8]> {
    postcard::to_allocvec(entry).expect("an entry can be packed").into_boxed_slice()
}

#[expect(clippy::expect_used, reason = "the bytes never leave this process")]
fn unpack(bytes: &[u8]) -> Entry {
    postcard::from_bytes(bytes).expect("what was packed can be unpacked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::Reason;
    use crate::api::restore::RestorePhase;
    use crate::api::shared::{Outcome, Trigger};
    use crate::plan::launch::entry::{Last, Manager, OpenRun, Owned, Policy, Restore, Stage, State, Subject, Waiting};
    use crate::plan::launch::pace::Lease;
    use crate::plan::launch::plight::Plight;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(seconds, 123_456_789).unwrap()
    }

    fn object(subject: Subject) -> Object {
        Object {
            namespace: "shop".into(),
            name: "nightly".into(),
            version: "4711".into(),
            generation: 3,
            created: at(1_772_841_600),
            leaving: Some(at(-1)),
            held: true,
            statefulset: "db".into(),
            statefulset_namespace: Some("other".into()),
            manager: Manager::Another("a/b".into()),
            problem: Some("no".into()),
            standing: vec![],
            subject,
        }
    }

    fn job() -> Job {
        let state = State::Failed { refused: true };
        Job::new(Uid(1 << 127), Kind::Undo, "x".into(), 3, Trigger::Manual, state, Some(at(9)))
    }

    /// All fields other than those of an object that is new.
    fn entry(subject: Subject) -> Entry {
        let mut pace = Pace::default();
        let mark = Mark::of(Kind::Backup, "x");
        let mut care = Care::default();
        care.next(&[Job { state: State::Pending, ..job() }], Duration::from_secs(2));
        care.refused("no".into());
        care.saw(Uid(9), Plight::Ended(3), Duration::from_secs(3));
        pace.launched(mark, Duration::from_millis(7));
        pace.saw(Lease { holder: Some("backup/shop/nightly/x".into()), renewed: Some(at(5)) }, Duration::from_secs(8));
        pace.failed(Duration::from_secs(9));
        Entry {
            pace,
            busy: true,
            making: Some((Kind::Restore, mark)),
            hold: Hold::Waits,
            since: Some((Work::Run, Duration::from_nanos(1_000_000_007))),
            hungry: Some(Duration::from_secs(3)),
            care,
            lock: Lock { holder: Some("backup/shop/other/x".into()), looked: Some(Duration::from_secs(4)) },
            wanting: Some(Timestamp::MIN),
            wake: Wake { wall: Some(Timestamp::MAX), tick: Some(Duration::MAX) },
            queued: Some(at(1)),
            passed: Passed { told: Some(true), said: true },
            told: Some(-3),
            judged: Some(4),
            ..Entry::new(object(subject), vec![job(), job()], 7)
        }
    }

    fn owned() -> Owned {
        let waiting = Waiting { since: at(8), why: Some(Reason::NoPlace), message: "full".into() };
        let waiting = Some(Box::new(waiting));
        Owned { next: Some(at(2)), last: Some(at(1)), request: Some("then".into()), waiting }
    }

    fn policy() -> Policy {
        Policy {
            schedule: Some("0 2 * * *".into()),
            time_zone: Some("Europe/Berlin".into()),
            starting_deadline: Some(-1),
            suspend: true,
            keep_succeeded: 3,
            keep_failed: 1,
            span: 660,
            grace: 90,
            request: Some("now".into()),
            problem: Some("no".into()),
            owned: owned(),
            run: Some(OpenRun { slot: "y".into(), attempt: 2, stage: Stage::Uploading }),
            last: Some(Box::new(Last {
                slot: "x".into(),
                attempt: 1,
                trigger: Trigger::Schedule,
                outcome: Some(Outcome::Failed),
                reason: Some(Reason::JobLost),
                started: Some(at(3)),
                ended: Some(at(4)),
                freeze_seconds: Some(0.25),
                snapshots: 9,
            })),
            succeeded: Some(at(4)),
            interval: Some(86_400),
        }
    }

    #[test]
    fn what_was_packed_comes_back_whole() {
        let restore = Restore {
            phase: Some(RestorePhase::Completed),
            try_again: true,
            run: None,
            undo: Some("u".into()),
            undoing: true,
            unread: Some("2".into()),
            undo_deadline: Some(at(6)),
            aside: (9, 10 << 40),
            failed: Some(Reason::Forbidden),
            owned: owned(),
        };
        for subject in [Subject::Backup(Box::new(policy())), Subject::Restore(Box::new(restore))] {
            let mut entries = Entries::default();
            entries.insert(Uid(u128::MAX), &entry(subject.clone()));
            assert_eq!(entries.get(Uid(u128::MAX)), Some(entry(subject)));
        }
    }

    /// What a policy at rest costs beside its key: the memory of ten thousand hangs on it.
    #[test]
    fn a_policy_at_rest_is_small() {
        let owned = Owned { waiting: None, ..owned() };
        let policy = Policy { run: None, request: None, problem: None, owned, ..policy() };
        let object =
            Object { leaving: None, problem: None, manager: Manager::Us, ..object(Subject::Backup(Box::new(policy))) };
        let bytes = pack(&Entry::new(object, vec![], 1)).len();
        assert!(bytes <= 256, "{bytes}");
    }
}
