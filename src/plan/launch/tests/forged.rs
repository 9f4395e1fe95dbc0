//! What others have written into status of when a run was last due.

use super::*;
use crate::api::condition::Reason;

/// The first run was by the clock; then somebody has written this.
fn forged(last: &str) -> Index {
    backup(Policy { owned: owned("2026-03-03T02:00:00Z", last), ..settled() })
}

/// Does what the planner asks for once: the status that it writes, the Events, and the slot of the Job.
fn done(index: &mut Index, time: &str) -> (Option<Owned>, Vec<String>, Option<String>) {
    let (mut status, mut told, mut slot) = (None, vec![], None);
    for _ in 0..10 {
        for Act { uid, what } in index.plan(now(time)) {
            match what {
                What::Status(owned) => {
                    let mut object = index.get(uid).unwrap().object;
                    object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
                    let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
                    policy.owned = owned.clone();
                    status = status.or(Some(owned));
                    index.answer(uid, Answer::Status(Some(Box::new(object))), now(time));
                }
                What::Launch { run, .. } => {
                    slot = slot.or(Some(run.slot.clone()));
                    let state = State::Pending;
                    let job = Job::new(Uid(1), run.kind, run.slot.into(), run.attempt, run.trigger, state, None);
                    index.answer(uid, Answer::Launched(Some(job)), now(time));
                }
                What::Tell(note) if note.reason == Reason::ScheduleTimeDoubted => told.push(note.message),
                What::Tell(_) => {}
                What::Look => index.answer(uid, Answer::Lease(Lease::default()), now(time)),
                other => panic!("{other:?}"),
            }
        }
    }
    (status, told, slot)
}

#[test]
fn a_last_time_in_the_future_skips_no_slot() {
    for far in ["2099-01-01T00:00:00Z", "2026-03-03T02:30:01Z", "9999-12-30T22:00:00Z"] {
        let mut index = forged(far);
        let (status, told, slot) = done(&mut index, "2026-03-03T01:30:00Z");
        assert_eq!(status.unwrap(), owned("2026-03-03T02:00:00Z", "2026-03-02T12:00:00Z"), "what its newest run tells");
        let [told] = &told[..] else { panic!("once: {told:?}") };
        assert!(told.starts_with(&format!("status.lastScheduleTime {far} lies in the future, so it is not")), "{told}");
        assert_eq!(slot, None);
        let (_, told, slot) = done(&mut index, "2026-03-03T02:00:00Z");
        assert_eq!((told.len(), slot.as_deref()), (0, Some("2026-03-03T02:00:00Z")));
    }
}

#[test]
fn a_last_time_before_the_object_runs_no_slot_again() {
    let mut index = forged("1970-01-01T00:00:00Z");
    let (status, told, slot) = done(&mut index, "2026-03-02T13:00:00Z");
    assert_eq!(status.unwrap().last, Some(at("2026-03-02T12:00:00Z")));
    assert!(told.len() == 1 && told[0].contains("is older than the object"), "{told:?}");
    assert_eq!(slot, None, "its first run is over");
    // A dump of an older object, made again: both times say of that one.
    let dump = "2026-02-20T02:00:00Z";
    let owned = owned(dump, dump);
    let last = Some(Box::new(last(dump, Trigger::Schedule, Some(Outcome::Succeeded))));
    let mut index = backup(Policy { owned, last, ..daily() });
    let (_, told, slot) = done(&mut index, "2026-03-02T12:00:01Z");
    assert_eq!((told.len(), slot.as_deref()), (1, Some("2026-03-02T12:00:00Z")), "its first run, as of any new object");
}

#[test]
fn the_slot_of_a_newest_run_is_doubted_as_well() {
    let run = |slot: &str| Some(Box::new(last(slot, Trigger::Schedule, Some(Outcome::Succeeded))));
    let mut index = backup(Policy { last: run("2099-01-01T02:00:00Z"), ..settled() });
    assert_eq!(done(&mut index, "2026-03-03T02:00:00Z").2.as_deref(), Some("2026-03-03T02:00:00Z"));
}

#[test]
fn clocks_may_differ_by_an_hour_and_jobs_are_believed() {
    let ahead = "2026-03-03T02:30:00Z";
    let mut index = forged(ahead);
    let (status, told, slot) = done(&mut index, "2026-03-03T01:30:00Z");
    assert_eq!((status, told.len(), slot), (Some(owned("2026-03-04T02:00:00Z", ahead)), 0, None));
    // The clock was a week ahead, and the run of that time has been made.
    let week = "2026-03-09T02:00:00Z";
    let mut index = forged(week);
    index.see_job(UID, job(1, Kind::Backup, week, Trigger::Schedule, State::Succeeded));
    assert_eq!(done(&mut index, "2026-03-03T02:00:00Z").2, None);
}
