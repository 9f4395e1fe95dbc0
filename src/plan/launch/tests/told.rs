//! What the watcher says where no run can: of specs, and of Jobs that come to nothing.

use super::*;
use crate::api::backup::BackupPhase;
use crate::api::condition::ConditionType;
use crate::plan::launch::plight::Plight;
use crate::plan::launch::verdict::{Flip, Standing, Verdict};

const NOON: &str = "2026-03-02T12:00:05Z";

fn judged(what: &[What]) -> Option<&Verdict> {
    match what {
        [What::Judge(verdict)] => Some(verdict),
        _ => None,
    }
}

fn conditions(verdict: &Verdict) -> Vec<(ConditionType, Option<bool>, Reason)> {
    verdict.conditions.iter().map(|set| (set.kind, set.on, set.reason)).collect()
}

/// As the API server has stored it.
fn store(index: &mut Index, verdict: &Verdict, time: &str) {
    let mut object = index.get(UID).unwrap().object;
    object.standing = verdict
        .conditions
        .iter()
        .filter_map(|set| {
            let said = matches!(set.reason, Reason::InvalidSpec | Reason::NeverDue).then_some(set.reason);
            let kind = match set.kind {
                ConditionType::Ready => Standing::Ready,
                _ => Standing::Stalled(said.map(|why| (why, object.generation))),
            };
            Some(Flip { kind, on: set.on?, since: set.since })
        })
        .collect();
    object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
    index.answer(UID, Answer::Judged(Some(Box::new(object))), now(time));
}

fn edit(index: &mut Index, change: impl FnOnce(&mut Policy)) {
    let mut object = index.get(UID).unwrap().object;
    object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
    object.generation += 1;
    let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
    change(policy);
    index.see(UID, object);
}

/// What is said of it is said once; an edit that leaves it invalid is judged again.
#[test]
fn an_invalid_spec_shows_in_phase_message_ready_and_stalled_until_it_is_mended() {
    let mut index = backup(Policy { schedule: Some("61 3 * * *".into()), ..settled() });
    // The schedule says nothing of the next slot.
    let what = plan(&mut index, NOON);
    assert!(matches!(what[..], [What::Status(_)]), "{what:?}");
    edit(&mut index, |policy| policy.owned.next = None);
    index.answer(UID, Answer::Status(None), now(NOON));

    let what = plan(&mut index, NOON);
    let verdict = judged(&what).expect("a verdict");
    assert_eq!(verdict.phase, Some(BackupPhase::Failed));
    assert!(verdict.message.contains("61"), "{}", verdict.message);
    let bad = [
        (ConditionType::Ready, Some(false), Reason::InvalidSpec),
        (ConditionType::Stalled, Some(true), Reason::InvalidSpec),
    ];
    assert_eq!(conditions(verdict), bad);
    store(&mut index, verdict, NOON);
    assert_eq!(plan(&mut index, "2026-03-02T12:01:00Z"), []);

    edit(&mut index, |policy| policy.time_zone = Some("Berlin".into()));
    assert!(judged(&plan(&mut index, "2026-03-02T12:02:00Z")).is_some(), "another generation");
    index.answer(UID, Answer::Failed, now("2026-03-02T12:02:00Z"));

    edit(&mut index, |policy| {
        (policy.schedule, policy.time_zone) = (Some("0 2 * * *".into()), None);
        policy.owned.next = Some(at("2026-03-03T02:00:00Z"));
    });
    let what = plan(&mut index, "2026-03-02T12:05:00Z");
    let verdict = judged(&what).expect("it is sound again");
    assert_eq!(verdict.phase, Some(BackupPhase::Ready));
    assert_eq!(verdict.conditions[0].on, Some(true));
    assert_eq!(verdict.conditions[1].on, Some(false));
    store(&mut index, verdict, "2026-03-02T12:05:00Z");
    assert_eq!(plan(&mut index, "2026-03-02T12:06:00Z"), []);
}

/// Each request that fails is one more: not for ever.
#[test]
fn a_verdict_that_is_never_stored_is_given_up() {
    let policy = Policy { owned: Owned { next: None, ..settled().owned }, schedule: Some("x".into()), ..settled() };
    let mut index = backup(policy);
    let mut tries = 0;
    for minute in 0..60 {
        let time = format!("2026-03-02T13:{minute:02}:00Z");
        if judged(&plan(&mut index, &time)).is_some() {
            tries += 1;
            index.answer(UID, Answer::Failed, now(&time));
        }
    }
    assert_eq!(tries, 8);
}

#[test]
fn a_schedule_that_never_fires_says_so_and_leaves_ready_alone() {
    let mut policy = Policy { schedule: Some("0 0 30 2 *".into()), ..settled() };
    policy.owned.next = None;
    let mut index = backup(policy);
    let what = plan(&mut index, NOON);
    let verdict = judged(&what).expect("a verdict");
    assert_eq!(verdict.phase, Some(BackupPhase::Ready));
    let ready = (ConditionType::Ready, Some(true), Reason::SpecAccepted);
    assert_eq!(conditions(verdict), [ready, (ConditionType::Stalled, Some(true), Reason::NeverDue)]);
    assert!(verdict.message.contains("never fires"), "{}", verdict.message);
    store(&mut index, verdict, NOON);
    assert_eq!(plan(&mut index, "2026-03-02T12:01:00Z"), []);
}

#[test]
fn the_runners_own_verdict_stands() {
    let mut policy = settled();
    let mut newest = last("2026-03-02T12:00:00Z", Trigger::First, Some(Outcome::Failed));
    newest.reason = Some(Reason::InvalidSpec);
    policy.last = Some(Box::new(newest));
    let mut object = object(Subject::Backup(Box::new(policy)));
    let stalled = Standing::Stalled(Some((Reason::InvalidSpec, 1)));
    object.standing = vec![Flip { kind: stalled, on: true, since: at(NOON) }];
    assert_eq!(plan(&mut with(object), NOON), []);
}

/// The condition Waiting, as it is written next.
fn waiting(index: &mut Index, time: &str) -> Option<Waiting> {
    match &plan(index, time)[..] {
        [What::Status(owned)] => owned.waiting.as_deref().cloned(),
        _ => None,
    }
}

fn stored(index: &mut Index, waiting: Option<Waiting>, time: &str) {
    let mut object = index.get(UID).unwrap().object;
    object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
    let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
    policy.owned.waiting = waiting.filter(|waiting| waiting.why.is_some()).map(Box::new);
    index.answer(UID, Answer::Status(Some(Box::new(object))), now(time));
}

#[test]
fn a_job_that_the_api_server_refuses_shows_at_once_with_its_sentence() {
    let mut index = backup(daily());
    assert!(launched(&plan(&mut index, NOON)).is_some());
    index.answer(UID, Answer::Rejected("no Job x: admission webhook \"w\" denied it".into()), now(NOON));
    let told = waiting(&mut index, "2026-03-02T12:00:07Z").expect("told");
    assert_eq!(told.why, Some(Reason::JobRejected));
    assert!(told.message.contains("denied it"), "{}", told.message);
    stored(&mut index, Some(told.clone()), "2026-03-02T12:00:07Z");
    // Tried again; when it is made, it waits no longer.
    let what = plan(&mut index, "2026-03-02T12:00:20Z");
    let run = launched(&what).expect("once more");
    let made = Job::new(Uid(5), run.kind, run.slot.as_str().into(), 1, run.trigger, State::Running, None);
    index.answer(UID, Answer::Launched(Some(made)), now("2026-03-02T12:00:20Z"));
    let what = plan(&mut index, "2026-03-02T12:00:21Z");
    let [What::Status(owned)] = &what[..] else { panic!("{what:?}") };
    assert_eq!(owned.waiting.as_ref().map(|waiting| waiting.why), Some(None), "it is said to be over");
}

#[test]
fn a_job_whose_pod_does_not_come_is_looked_at_and_told_and_one_whose_runner_has_ended_goes() {
    let slot = "2026-03-02T12:00:00Z";
    let mut index = backup(Policy { last: None, ..settled() });
    index.see_job(UID, job(5, Kind::Backup, slot, Trigger::First, State::Pending));
    assert_eq!(plan(&mut index, "2026-03-02T12:00:01Z"), []);
    assert_eq!(plan(&mut index, "2026-03-02T12:00:10Z"), [], "most pods have come by then");
    let what = plan(&mut index, "2026-03-02T12:00:16Z");
    let [What::Inspect { job, .. }] = what[..] else { panic!("{what:?}") };
    let plight = Plight::Rejected("Job x gets no pod: exceeded quota".into());
    index.answer(UID, Answer::Inspected(job, plight), now("2026-03-02T12:00:16Z"));
    let told = waiting(&mut index, "2026-03-02T12:00:17Z").expect("told");
    assert_eq!((told.why, &*told.message), (Some(Reason::JobRejected), "Job x gets no pod: exceeded quota"));
    stored(&mut index, Some(told), "2026-03-02T12:00:17Z");
    assert_eq!(plan(&mut index, "2026-03-02T12:00:20Z"), []);

    let what = plan(&mut index, "2026-03-02T12:00:40Z");
    assert!(matches!(what[..], [What::Inspect { .. }]), "{what:?}");
    index.answer(UID, Answer::Inspected(job, Plight::Ended(0)), now("2026-03-02T12:00:40Z"));
    let what = plan(&mut index, "2026-03-02T12:00:41Z");
    assert!(matches!(what[..], [What::Remove { job, .. }] if job == Uid(5)), "{what:?}");
}

#[test]
fn what_is_suspended_says_so_until_it_is_not() {
    let suspended = Policy { suspend: true, owned: Owned { next: None, ..settled().owned }, ..settled() };
    let mut index = backup(suspended);
    let told = waiting(&mut index, NOON).expect("told at once");
    assert_eq!(told.why, Some(Reason::Suspended));
    stored(&mut index, Some(told), NOON);
    assert_eq!(plan(&mut index, "2026-03-05T12:00:00Z"), []);
    edit(&mut index, |policy| policy.suspend = false);
    let over = waiting(&mut index, "2026-03-05T12:00:01Z").expect("a write");
    assert_eq!(over.why, None, "it is said to be over");
}

/// A Job that runs, and whose run has not begun.
#[test]
fn a_job_that_waits_for_the_lock_names_its_holder_within_half_a_minute() {
    let slot = "2026-03-02T12:00:00Z";
    let lease = |holder: &str| Lease { holder: Some(holder.into()), renewed: None };
    let mut index = backup(Policy { last: None, ..settled() });
    index.see_job(UID, job(5, Kind::Backup, slot, Trigger::First, State::Running));
    assert_eq!(plan(&mut index, "2026-03-02T12:00:01Z"), []);
    assert_eq!(plan(&mut index, "2026-03-02T12:00:30Z"), [], "most have begun by then");
    assert_eq!(plan(&mut index, "2026-03-02T12:00:31Z"), [What::Look]);
    index.answer(UID, Answer::Lease(lease("backup/shop/other/pod-1")), now("2026-03-02T12:00:31Z"));
    let told = waiting(&mut index, "2026-03-02T12:00:31Z").expect("told");
    assert_eq!(told.why, Some(Reason::LockHeld));
    assert!(told.message.contains("Lease shop/sts-backup-pg, which backup/shop/other/pod-1 holds"), "{}", told.message);
    stored(&mut index, Some(told), "2026-03-02T12:00:31Z");
    assert_eq!(plan(&mut index, "2026-03-02T12:00:40Z"), []);
    // Another one has it now; and then the run's own process.
    assert_eq!(plan(&mut index, "2026-03-02T12:01:01Z"), [What::Look]);
    index.answer(UID, Answer::Lease(lease("restore/shop/back/x")), now("2026-03-02T12:01:01Z"));
    let told = waiting(&mut index, "2026-03-02T12:01:01Z").expect("told");
    assert!(told.message.contains("restore/shop/back/x"), "{}", told.message);
    stored(&mut index, Some(told), "2026-03-02T12:01:01Z");
    assert_eq!(plan(&mut index, "2026-03-02T12:01:31Z"), [What::Look]);
    index.answer(UID, Answer::Lease(lease("backup/shop/nightly/pod-2")), now("2026-03-02T12:01:31Z"));
    let over = waiting(&mut index, "2026-03-02T12:01:31Z").expect("a write");
    assert_eq!(over.why, None, "it waits no longer");
}
