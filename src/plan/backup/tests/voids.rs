//! Freezes that come to nothing: each counts, whatever voided it and whoever counts; between two nothing is frozen.

use super::*;
use crate::api::backup::StatefulSetBackupStatus;
use crate::api::shared::{Intent, IntentPhase, RunStatus};
use crate::plan::flow::Lost;
use crate::plan::journal::{self, Freeze};
use crate::plan::noun::{Container, Stop};
use crate::plan::report::Write;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn place() -> Place {
    let (pod, uid, container, container_id) = ("web-0".into(), "pod".into(), "app".into(), "1".into());
    Place { ordinal: 0, pod, uid, container, container_id, restarts: 0 }
}

/// A freeze of this process, or of a dead one, after so many void ones.
fn frozen(void_before: usize, ours: bool) -> View {
    let holder = Holder(format!("backup/shop/nightly/{}", i32::from(ours)));
    let hooks = Some(Pair { pre: Some(hook()), post: Some(hook()) });
    let (id, pods) = (ID.parse().unwrap(), vec![place()]);
    let freeze = Freeze { id, holder, epoch: 1, since: at(0), size: 1, pods, hooks, void_before };
    let mut v = view(Journal::Frozen(freeze));
    v.want.backup.max_freeze = SignedDuration::from_secs(300);
    if let Seen::Known(record) = &mut v.record {
        record.open = Some((v.want.slot.clone(), v.want.attempt));
    }
    v
}

fn pod_of(uid: &str, id: &str, restarts: i32) -> Pod {
    let container = Container { name: "app".into(), id: Some(id.into()), restarts };
    Pod { uid: uid.into(), running: true, owner: Some("sts".into()), containers: vec![container], ..Pod::default() }
}

/// What the freeze comes to, once this happened to its pod and both hooks ended so.
fn comes_to(v: &mut View, pre: End, pod: Option<Pod>) -> Write {
    let when = When { begun: at(1), ended: at(1) };
    let ok = || End::Exit(0, String::new());
    // Of one whose end was not heard at first it is heard later.
    let heard = matches!(pre, End::Lost(_)).then(|| (Which::Pre, ok()));
    for (which, end) in [(Which::Pre, pre)].into_iter().chain(heard).chain([(Which::Post, ok())]) {
        let (place, until) = (place(), at(5));
        let exec = Exec { run: ID.parse().unwrap(), place, which, argv: vec!["freeze".into()], until };
        v.fold(Fact::Hook(Box::new(exec), Tried { when, end }));
    }
    v.fold(Fact::Pod("web-0".into(), pod.clone()));
    v.fold(Fact::Proof("web-0".into(), pod));
    v.fold(Fact::Lease(Seen::Known(Some(Lease { holder: Some(v.want.me.clone()), epoch: 1, ..Lease::default() }))));
    v.fold(Fact::Record(Box::new(v.record.clone())));
    let Next::Do { batch, .. } = next(v, at(20)).unwrap() else { panic!("it waits") };
    let [Backup::Write(write)] = &batch[..] else { panic!("{batch:?}") };
    (**write).clone()
}

/// By what a freeze may be voided, the reason with which the run ends if it is the last, and a word of its sentence.
fn causes() -> Vec<(&'static str, End, Option<Pod>, bool, Reason)> {
    let ok = || End::Exit(0, String::new());
    let same = || Some(pod_of("pod", "1", 0));
    vec![
        ("pod web-0 was deleted", ok(), None, true, Reason::PodNotRunning),
        ("pod web-0 was deleted", ok(), Some(pod_of("other", "2", 0)), true, Reason::PodNotRunning),
        ("container app of pod web-0 was restarted", ok(), Some(pod_of("pod", "2", 1)), true, Reason::PodNotRunning),
        ("could not be learnt", End::Lost(Lost::Stopped), same(), true, Reason::HookFailed),
        ("restarted or replaced before its pre hook", End::Gone, same(), true, Reason::PodNotRunning),
        ("the process that ran it ended", ok(), same(), false, Reason::JobLost),
    ]
}

#[test]
fn whatever_voids_a_freeze_it_counts_and_the_third_is_the_last() {
    for (says, pre, pod, ours, reason) in causes() {
        for before in [0, 1, 2, 7] {
            let write = comes_to(&mut frozen(before, ours), pre.clone(), pod.clone());
            let Journal::Void(void) = journal::read(&write.status, "slot") else { panic!("it is not void") };
            assert_eq!(void.count, before + 1, "{says}");
            match &void.why {
                Void::Interrupted(why) => assert!(before < 2 && why.contains(says), "{before}: {why}"),
                Void::Failed(refusal) => {
                    assert!(before >= 2 && refusal.reason == reason, "{before}: {refusal:?}");
                    let said = &refusal.message;
                    assert!(said.contains(says) && said.contains("the third try of this run"), "{said}");
                }
            }
        }
    }
}

#[test]
fn after_a_void_freeze_there_is_a_pause_that_doubles() {
    for (count, pause) in [(1, 10), (2, 20)] {
        let v = view(void(count, 1, at(100)));
        for now in [100, 100 + pause - 1] {
            assert_eq!(waits(&v, now), (vec![], 100 + pause), "{count} at {now}");
        }
        let mut v = view(void(count, 1, at(100)));
        v.fold(Fact::Pod("web-0".into(), Some(pod_of("pod", "1", 0))));
        let after = next(&v, at(100 + pause));
        assert!(!matches!(after, Ok(Next::Wait { .. })), "{after:?}");
        // A clock that is wrong makes nobody wait for ever; one that is a little ahead does no harm.
        assert_eq!(waits(&v, 95), (vec![], 100 + pause));
        for now in [100 - pause - 1, -1_000_000] {
            assert!(!matches!(next(&v, at(now)), Ok(Next::Wait { .. })), "{now}");
        }
    }
    let far = view(void(1, 1, Timestamp::MAX));
    assert!(!matches!(next(&far, at(0)), Ok(Next::Wait { .. })), "nor one that nobody can have");
}

#[test]
fn a_pause_ends_with_a_stop_and_with_the_object() {
    let mut v = view(void(1, 1, at(100)));
    v.fold(Fact::Stop(Stop::Sigterm));
    let Ok(Next::Do { batch, .. }) = next(&v, at(101)) else { panic!("it waits") };
    assert!(matches!(batch[..], [Backup::Unlock(1)]), "{batch:?}");
    let mut v = view(void(1, 1, at(100)));
    if let Seen::Known(record) = &mut v.record {
        record.leaving = true;
    }
    assert_eq!(closed(&v, "1970-01-01T00:01:41Z").0, Some(Reason::Superseded));
}

#[test]
fn what_was_written_of_void_freezes_is_read_back() {
    let read = |intent: Intent| {
        let (id, holder) = (Some(ID.to_owned()), Some("backup/shop/nightly/0".to_owned()));
        let run = Some(RunStatus { id, holder, intent: Some(intent), ..RunStatus::default() });
        journal::read(&StatefulSetBackupStatus { run, ..StatefulSetBackupStatus::default() }, "slot")
    };
    let since = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100)));
    let intent =
        |phase, void_freezes| Intent { phase, since: since.clone(), size: 1, void_freezes, ..Intent::default() };
    // Of an earlier version, and by a hand that writes what cannot be.
    for (written, count) in [(0, 1), (-7, 1), (1, 1), (2, 2), (i32::MAX, 2_147_483_647)] {
        let Journal::Void(void) = read(intent(IntentPhase::Void, written)) else { panic!("it is void") };
        assert_eq!((void.count, void.since), (count, at(100)));
        let mut v = view(Journal::Void(void));
        v.fold(Fact::Pod("web-0".into(), Some(pod_of("pod", "1", 0))));
        let _ = next(&v, at(100));
    }
    let Journal::Frozen(freeze) = read(intent(IntentPhase::Frozen, 2)) else { panic!("it is frozen") };
    assert_eq!(freeze.void_before, 2);
    for journal in [Journal::Frozen(freeze), void(2, 1, at(100))] {
        let run = journal::write(&journal, "slot", 1, &Holder("backup/shop/nightly/0".into()));
        let status = StatefulSetBackupStatus { run, ..StatefulSetBackupStatus::default() };
        assert_eq!(journal::read(&status, "slot"), journal);
    }
}

#[test]
fn in_the_pause_status_says_why_and_until_when() {
    let write = comes_to(&mut frozen(1, true), End::Exit(0, String::new()), None);
    let message = write.status.message.clone().unwrap();
    assert_eq!(
        message,
        "Run 20260101-000000 is void: pod web-0 was deleted or replaced in the freeze (by a rollout, or an \
         eviction?). Nothing is frozen now; its snapshots are deleted, and at 1970-01-01T00:00:40Z, after a pause of 20 s, \
         the run begins again (try 3 of 3)"
    );
}

/// The whole time that a hook has is asked for it, second after second; nothing is thawed for it, and then it has failed.
#[test]
fn a_refused_pre_hook_is_asked_for_until_its_time_is_over() {
    let mut v = frozen(0, true);
    v.fold(Fact::Pod("web-0".into(), Some(pod_of("pod", "1", 0))));
    v.fold(Fact::Lease(Seen::Known(Some(Lease {
        holder: Some(v.want.me.clone()),
        epoch: 1,
        open: Some(crate::plan::inherit::mark(&v, freeze_of(&v))),
        ..Lease::default()
    }))));
    let (mut now, mut asked) = (0, 0);
    loop {
        match next(&v, at(now)) {
            Ok(Next::Do { batch, .. }) => match &batch[..] {
                [Backup::Pre(exec)] => {
                    asked += 1;
                    let when = When { begun: at(now), ended: at(now) };
                    v.fold(Fact::Hook(exec.clone(), Tried { when, end: End::Refused("503".into()) }));
                    v.fold(Fact::Lease(Seen::Known(Some(Lease {
                        holder: Some(v.want.me.clone()),
                        epoch: 1,
                        open: Some(crate::plan::inherit::mark(&v, freeze_of(&v))),
                        ..Lease::default()
                    }))));
                }
                [Backup::Mark(None)] => break,
                other => panic!("{other:?}"),
            },
            Ok(Next::Wait { until, .. }) => now = until.as_second(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((now, asked), (5, 5));
}

fn freeze_of(v: &View) -> &Freeze {
    let Ok(Record { journal: Journal::Frozen(f), .. }) = v.record() else { panic!("it is not frozen") };
    f
}
