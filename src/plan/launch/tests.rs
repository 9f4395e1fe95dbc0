//! Tables of what is decided; what many decisions come to is simulated in `tests/launch`.

mod denied;
mod forged;
mod held;
mod lists;
mod passed;
mod places;
mod told;
mod unread;

use std::time::Duration;

use jiff::Timestamp;

use super::entry::{Job, Last, Manager, Object, OpenRun, Owned, Policy, Restore, Stage, State, Subject, Uid, Waiting};
use super::pace::Lease;
use super::{Act, Answer, Context, Feed, Index, List, Now, What};
use crate::api::condition::Reason;
use crate::api::restore::RestorePhase;
use crate::api::shared::{Outcome, Trigger};
use crate::plan::job::{Kind, Run};

const UID: Uid = Uid(7 << 64);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now(text: &str) -> Now {
    let wall = at(text);
    Now { wall, tick: Duration::from_secs(wall.as_second().try_into().unwrap()) }
}

fn object(subject: Subject) -> Object {
    Object {
        namespace: "shop".into(),
        name: "nightly".into(),
        version: "1".into(),
        generation: 1,
        created: at("2026-03-02T12:00:00Z"),
        leaving: None,
        held: false,
        statefulset: "pg".into(),
        statefulset_namespace: None,
        manager: Manager::Us,
        problem: None,
        standing: vec![],
        subject,
    }
}

fn daily() -> Policy {
    Policy { schedule: Some("0 2 * * *".into()), keep_succeeded: 3, keep_failed: 1, ..Policy::default() }
}

fn owned(next: &str, last: &str) -> Owned {
    Owned { next: Some(at(next)), last: Some(at(last)), ..Owned::default() }
}

/// The first run is over.
fn settled() -> Policy {
    Policy {
        owned: owned("2026-03-03T02:00:00Z", "2026-03-02T12:00:00Z"),
        last: Some(Box::new(last("2026-03-02T12:00:00Z", Trigger::First, Some(Outcome::Succeeded)))),
        ..daily()
    }
}

fn last(slot: &str, trigger: Trigger, outcome: Option<Outcome>) -> Last {
    let (slot, attempt) = (slot.into(), 1);
    Last {
        slot,
        attempt,
        trigger,
        outcome,
        reason: None,
        started: None,
        ended: None,
        freeze_seconds: None,
        snapshots: 0,
    }
}

fn job(n: u128, kind: Kind, slot: &str, trigger: Trigger, state: State) -> Job {
    Job::new(Uid(n), kind, slot.into(), 1, trigger, state, None)
}

fn index(places: usize) -> Index {
    let feeds = Feed::of(&[]);
    let started = at("2026-03-01T00:00:00Z");
    let mut index =
        Index::new(Context { places, restore_places: places, jitter_seconds: 0, started, feeds: feeds.clone() });
    for feed in &feeds {
        index.list(feed);
        index.listed(feed);
    }
    index
}

fn with(object: Object) -> Index {
    let mut index = index(10);
    index.see(UID, object);
    index
}

fn backup(policy: Policy) -> Index {
    with(object(Subject::Backup(Box::new(policy))))
}

fn restore(restore: Restore) -> Object {
    object(Subject::Restore(Box::new(restore)))
}

/// Everything but Events, which no test here is about.
fn plan(index: &mut Index, time: &str) -> Vec<What> {
    let told = |act: &Act| matches!(act.what, What::Tell(_));
    index.plan(now(time)).into_iter().filter(|act| !told(act)).map(|act| act.what).collect()
}

fn launched(what: &[What]) -> Option<&Run> {
    match what {
        [What::Launch { run, .. }] => Some(run),
        _ => None,
    }
}

/// Kind, slot, attempt and trigger of the one Job that is made.
fn made(index: &mut Index, time: &str) -> Option<(Kind, String, u32, Trigger)> {
    let what = plan(index, time);
    launched(&what).map(|run| (run.kind, run.slot.clone(), run.attempt, run.trigger))
}

#[test]
fn an_object_is_claimed_before_anything_is_done_for_it() {
    let unclaimed = Object { manager: Manager::Nobody, ..object(Subject::Backup(Box::new(daily()))) };
    let mut index = with(unclaimed);
    assert_eq!(plan(&mut index, "2026-03-02T12:00:01Z"), [What::Status(Owned::default())]);
    assert_eq!(plan(&mut index, "2026-03-02T12:00:02Z"), [], "one request at a time");
    let claimed = Object { version: "2".into(), ..object(Subject::Backup(Box::new(daily()))) };
    index.answer(UID, Answer::Status(Some(Box::new(claimed))), now("2026-03-02T12:00:02Z"));
    let first = (Kind::Backup, "2026-03-02T12:00:00Z".to_owned(), 1, Trigger::First);
    assert_eq!(made(&mut index, "2026-03-02T12:00:02Z"), Some(first));
}

#[test]
fn anothers_object_and_a_bad_one_are_left_alone() {
    let another = Manager::Another("other/sts-backup".into());
    let mut index = with(Object { manager: another, ..object(Subject::Backup(Box::new(daily()))) });
    assert_eq!(plan(&mut index, "2026-03-05T12:00:01Z"), [What::Sight("other/sts-backup".into())]);
    let mut index = backup(Policy { schedule: Some("61 * * * *".into()), ..daily() });
    let told = index.plan(now("2026-03-05T12:00:01Z"));
    assert!(matches!(&told[..], [Act { what: What::Judge(_), .. }, Act { what: What::Tell(_), .. }]), "{told:?}");
    let bad = object(Subject::Backup(Box::new(Policy { schedule: Some("61 * * * *".into()), ..daily() })));
    index.answer(UID, Answer::Judged(Some(Box::new(bad.clone()))), now("2026-03-05T12:00:02Z"));
    index.see(UID, bad);
    assert_eq!(index.plan(now("2026-03-05T12:00:02Z")), [], "told once");
}

#[test]
fn a_slot_is_due_at_its_instant_and_the_next_is_told() {
    let mut index = backup(settled());
    assert_eq!(plan(&mut index, "2026-03-03T01:59:59Z"), []);
    assert_eq!(index.wake().wall, Some(at("2026-03-03T02:00:00Z")));
    let slot = "2026-03-03T02:00:00Z";
    assert_eq!(made(&mut index, slot), Some((Kind::Backup, slot.to_owned(), 1, Trigger::Schedule)));
    let made = job(9, Kind::Backup, slot, Trigger::Schedule, State::Pending);
    index.answer(UID, Answer::Launched(Some(made)), now(slot));
    let pending = owned(slot, slot);
    assert_eq!(plan(&mut index, slot), [What::Status(pending)]);
}

#[test]
fn of_missed_slots_the_newest_runs_unless_it_is_too_late() {
    let newest = (Kind::Backup, "2026-03-09T02:00:00Z".to_owned(), 1, Trigger::Schedule);
    assert_eq!(made(&mut backup(settled()), "2026-03-09T12:00:00Z"), Some(newest));
    let mut index = backup(Policy { starting_deadline: Some(3600), ..settled() });
    let next = Owned { next: Some(at("2026-03-10T02:00:00Z")), ..settled().owned };
    assert_eq!(plan(&mut index, "2026-03-09T12:00:00Z"), [What::Status(next)]);
    let mut index = backup(Policy { suspend: true, ..settled() });
    let what = plan(&mut index, "2026-03-09T12:00:00Z");
    assert!(matches!(&what[..], [What::Status(Owned { next: None, .. })]), "{what:?}");
}

#[test]
fn a_clock_that_goes_back_asks_for_no_slot_twice() {
    let done = Policy {
        owned: owned("2026-03-04T02:00:00Z", "2026-03-03T02:00:00Z"),
        last: Some(Box::new(last("2026-03-03T02:00:00Z", Trigger::Schedule, Some(Outcome::Succeeded)))),
        ..daily()
    };
    for time in ["2026-03-03T01:30:00Z", "2026-03-03T02:00:00Z", "2026-03-03T03:00:00Z"] {
        assert_eq!(plan(&mut backup(done.clone()), time), [], "{time}");
    }
}

#[test]
fn a_request_runs_once_even_when_suspended() {
    let asked = Policy { request: Some("now".into()), suspend: true, schedule: None, ..settled() };
    let since = at("2026-03-02T12:00:00Z");
    let waiting = Some(Box::new(Waiting { since, why: Some(Reason::Suspended), message: "told".into() }));
    let asked = Policy { owned: Owned { next: None, waiting, ..asked.owned.clone() }, ..asked };
    let run = Some((Kind::Backup, "now".to_owned(), 1, Trigger::Manual));
    assert_eq!(made(&mut backup(asked.clone()), "2026-03-02T13:00:00Z"), run);
    // Begun, it is handled.
    let begun = Policy { last: Some(Box::new(last("now", Trigger::Manual, Some(Outcome::Failed)))), ..asked.clone() };
    let handled = Owned { request: Some("now".into()), ..asked.owned.clone() };
    assert_eq!(plan(&mut backup(begun.clone()), "2026-03-02T13:00:00Z"), [What::Status(handled.clone())]);
    assert_eq!(plan(&mut backup(Policy { owned: handled, ..begun }), "2026-03-02T13:00:00Z"), []);
}

#[test]
fn what_runs_by_hand_counts_as_no_slot() {
    let by_hand = last("2026-03-09T02:00:00Z", Trigger::Manual, Some(Outcome::Succeeded));
    let mut index = backup(Policy { last: Some(Box::new(by_hand)), ..settled() });
    let slot = "2026-03-09T02:00:00Z".to_owned();
    assert_eq!(made(&mut index, "2026-03-09T02:00:01Z"), Some((Kind::Backup, slot, 1, Trigger::Schedule)));
}

#[test]
fn a_run_left_open_is_taken_up_by_the_next_attempt() {
    let slot = "2026-03-03T02:00:00Z";
    let open = Policy {
        owned: owned("2026-03-04T02:00:00Z", slot),
        run: Some(OpenRun { slot: slot.into(), attempt: 1, stage: Stage::Other }),
        last: Some(Box::new(last(slot, Trigger::Schedule, None))),
        ..daily()
    };
    let mut index = backup(open.clone());
    index.see_job(UID, job(9, Kind::Backup, slot, Trigger::Schedule, State::Failed { refused: false }));
    assert_eq!(plan(&mut index, "2026-03-03T02:10:00Z"), [What::Look]);
    index.answer(UID, Answer::Lease(Lease::default()), now("2026-03-03T02:10:00Z"));
    assert_eq!(plan(&mut index, "2026-03-03T02:10:09Z"), []);
    assert_eq!(made(&mut index, "2026-03-03T02:10:10Z"), Some((Kind::Backup, slot.into(), 2, Trigger::Schedule)));
}

#[test]
fn a_job_that_vanished_before_its_run_began_is_not_forgotten() {
    let slot = "2026-03-03T02:00:00Z";
    let pending = Policy { owned: owned(slot, slot), ..settled() };
    let mut index = backup(pending);
    assert_eq!(plan(&mut index, "2026-03-03T02:10:00Z"), [What::Look]);
    index.answer(UID, Answer::Lease(Lease::default()), now("2026-03-03T02:10:00Z"));
    assert_eq!(plan(&mut index, "2026-03-03T02:10:05Z"), []);
    assert_eq!(made(&mut index, "2026-03-03T02:10:10Z"), Some((Kind::Backup, slot.into(), 2, Trigger::Schedule)));
}

#[test]
fn places_go_to_the_oldest_slots_and_uploads_take_none() {
    let mut index = index(1);
    let policy = |hour: i64| {
        let next = Some(at(&format!("2026-03-03T0{hour}:00:00Z")));
        let schedule = Some(format!("0 {hour} * * *").into());
        Policy { schedule, owned: Owned { next, ..settled().owned }, ..settled() }
    };
    for (n, hour) in [(1, 4), (2, 3), (3, 5)] {
        index.see(Uid(n), object(Subject::Backup(Box::new(policy(hour)))));
    }
    let time = "2026-03-03T06:00:00Z";
    let acts = index.plan(now(time));
    assert!(matches!(&acts[..], [Act { uid: Uid(2), what: What::Launch { .. } }]), "03:00 is the oldest: {acts:?}");
    assert_eq!(index.places(), [(1, 2), (0, 0)]);
    let slot = "2026-03-03T03:00:00Z";
    index.answer(
        Uid(2),
        Answer::Launched(Some(job(9, Kind::Backup, slot, Trigger::Schedule, State::Running))),
        now(time),
    );
    let uploading = Policy {
        run: Some(OpenRun { slot: slot.into(), attempt: 1, stage: Stage::Uploading }),
        last: Some(Box::new(last(slot, Trigger::Schedule, None))),
        ..policy(3)
    };
    let others = index.plan(now(time));
    assert!(others.iter().all(|act| matches!(act.what, What::Status(_))), "no place is free: {others:?}");
    index.answer(Uid(2), Answer::Status(None), now(time));
    index.see(Uid(2), Object { version: "2".into(), ..object(Subject::Backup(Box::new(uploading))) });
    let next = index.plan(now(time)).into_iter().find(|act| matches!(act.what, What::Launch { .. }));
    assert_eq!(next.map(|act| act.uid), Some(Uid(1)));
}

#[test]
fn a_backup_waits_for_the_restore_of_its_statefulset() {
    let mut index = backup(settled());
    let other = Uid(8 << 64);
    index.see(other, restore(Restore { phase: Some(RestorePhase::Restoring), ..Restore::default() }));
    let running = job(9, Kind::Restore, "", Trigger::Manual, State::Running);
    index.see_job(other, running);
    assert_eq!(plan(&mut index, "2026-03-03T02:00:00Z"), []);
    let over = restore(Restore { phase: Some(RestorePhase::Completed), ..Restore::default() });
    index.see(other, Object { version: "2".into(), ..over });
    index.see_job(other, job(9, Kind::Restore, "", Trigger::Manual, State::Succeeded));
    let slot = "2026-03-03T02:00:00Z".to_owned();
    assert_eq!(made(&mut index, "2026-03-03T02:20:00Z"), Some((Kind::Backup, slot, 1, Trigger::Schedule)));
}

#[test]
fn old_jobs_go_when_status_shows_their_slots() {
    let mut index = backup(Policy { keep_succeeded: 1, keep_failed: 0, ..settled() });
    let first = "2026-03-02T12:00:00Z";
    index.see_job(UID, job(1, Kind::Backup, first, Trigger::First, State::Succeeded));
    assert_eq!(plan(&mut index, "2026-03-02T13:00:00Z"), []);
    index.see_job(UID, job(2, Kind::Backup, "asked", Trigger::Manual, State::Failed { refused: true }));
    let gone = plan(&mut index, "2026-03-02T13:00:00Z");
    assert!(matches!(&gone[..], [What::Prune { job, .. }] if *job == Uid(2)), "{gone:?}");
}

#[test]
fn a_restore_runs_once_and_its_old_volumes_are_released_in_time() {
    let mut index = with(restore(Restore::default()));
    let run = Some((Kind::Restore, String::new(), 1, Trigger::Manual));
    assert_eq!(made(&mut index, "2026-03-02T12:00:01Z"), run);
    let deadline = Some(at("2026-03-03T12:00:00Z"));
    let phase = Some(RestorePhase::Completed);
    let over = Restore { phase, undo_deadline: deadline, ..Restore::default() };
    let held = Object { held: true, ..restore(over.clone()) };
    let mut index = with(held.clone());
    assert_eq!(plan(&mut index, "2026-03-03T11:59:59Z"), []);
    let release = |slot: &str| Some((Kind::Release, slot.to_owned(), 1, Trigger::Manual));
    assert_eq!(made(&mut index, "2026-03-03T12:00:00Z"), release("2026-03-03T12:00:00Z"));
    assert_eq!(made(&mut with(held.clone()), "2026-03-05T13:00:00Z"), release("2026-03-05T12:00:00Z"), "each day anew");
    let leaving = Object { leaving: Some(at("2026-03-02T18:00:00Z")), ..held.clone() };
    assert_eq!(made(&mut with(leaving), "2026-03-02T18:00:01Z"), release("2026-03-02T18:00:00Z"));
    assert_eq!(plan(&mut with(restore(over.clone())), "2026-03-05T13:00:00Z"), [], "nothing is kept any more");
    // An undo goes before a release.
    let asked = Object { held: true, ..restore(Restore { undo: Some("please".into()), ..over }) };
    let undo = Some((Kind::Undo, "please".to_owned(), 1, Trigger::Manual));
    assert_eq!(made(&mut with(asked), "2026-03-05T13:00:00Z"), undo);
}

#[test]
fn an_undo_that_was_refused_is_handled() {
    let phase = Some(RestorePhase::Completed);
    let asked = Restore { phase, undo: Some("please".into()), ..Restore::default() };
    let mut index = with(restore(asked));
    index.see_job(UID, job(9, Kind::Undo, "please", Trigger::Manual, State::Failed { refused: true }));
    let handled = Owned { request: Some("please".into()), ..Owned::default() };
    assert_eq!(plan(&mut index, "2026-03-05T13:00:00Z"), [What::Status(handled)]);
}

#[test]
fn jobs_that_a_list_names_no_more_are_gone() {
    let mut index = backup(settled());
    let (late, jobs) = (Uid(9 << 64), Feed { list: List::Jobs, namespace: None });
    let running = |n| job(n, Kind::Backup, "2026-03-03T02:00:00Z", Trigger::Schedule, State::Running);
    for (owner, n) in [(UID, 1), (UID, 2), (late, 3), (late, 4)] {
        index.see_job(owner, running(n));
    }
    plan(&mut index, "2026-03-02T13:00:00Z");
    index.list(&jobs);
    index.see_job(UID, running(2));
    index.see_job(late, running(4));
    index.listed(&jobs);
    // One whose object is seen only afterwards.
    index.see(late, object(Subject::Backup(Box::new(settled()))));
    let left = |uid| index.get(uid).unwrap().jobs.iter().map(|job| job.uid).collect::<Vec<_>>();
    assert_eq!((left(UID), left(late)), (vec![Uid(2)], vec![Uid(4)]));
}
