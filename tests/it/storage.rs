//! What the storage says no to for a while, and what a quota leaves no room for: on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::Trigger;
use sts_backup::generate::rbac;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::name::RunId;
use sts_backup::plan::noun::Outcome;
use sts_backup::run::Request;
use sts_backup::step::clock::Clock;

use super::apiserver::fault::{Class, Strike};
use super::apiserver::kind::Key;
use super::apiserver::{ApiServer, State};
use super::nature::SICK;
use super::wire::{Case, Command, carry_out, process, runtime, to_the_end, world};
use super::{shop, truth};

/// snapshotReadyTimeoutSeconds, longer than maxFreezeSeconds.
const READY: u64 = 900;

/// As a ResourceQuota counts them.
const COUNT: &str = "count/volumesnapshots.snapshot.storage.k8s.io";

fn said(server: &ApiServer) -> String {
    truth::record(&server.look().store, shop::POLICY).unwrap().status.message.unwrap_or_default()
}

fn reason(server: &ApiServer) -> Option<Reason> {
    truth::record(&server.look().store, shop::POLICY).unwrap().status.last_run.unwrap().reason
}

/// How often requests were sent that begin so.
fn sent(state: &State, begins: &str) -> usize {
    state.log.iter().filter(|line| line.starts_with(begins)).count()
}

/// One run while the driver complains for so long: how it ended, and what status said 35 s after its beginning.
fn sick(hooks: bool, seconds: i64) -> (ApiServer, Option<Exit>, String, Duration) {
    runtime().block_on(async {
        let (server, clock) = world(&Case::of(hooks));
        let until = clock.now() + SignedDuration::from_secs(seconds);
        server.act(|state| {
            state.nature.sick_until = Some(until);
            let object = shop::object(shop::POLICY);
            state.store.change(&object, false, |object| object["spec"]["snapshotReadyTimeoutSeconds"] = READY.into());
        });
        let begun = tokio::time::Instant::now();
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(35)).await;
            said(&server)
        };
        let run = async { (Box::pin(process(&server, clock, shop::POLICY, "one")).await, begun.elapsed()) };
        let ((exit, took), said) = tokio::join!(run, meanwhile);
        (server.clone(), exit, said, took)
    })
}

#[test]
fn without_hooks_a_driver_may_heal_and_status_says_what_it_complains_of() {
    let (server, exit, meanwhile, _) = sick(false, 37);
    assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "{meanwhile}\n{}", server.look().log.join("\n"));
    assert!(meanwhile.contains("is not cut") && meanwhile.contains(SICK), "{meanwhile}");
    assert!(said(&server).contains("4 snapshots ready"), "{}", said(&server));
    let state = server.look();
    assert_eq!((sent(&state, "create volumesnapshots"), sent(&state, "delete volumesnapshots")), (4, 0));
    assert_eq!(sent(&state, "patch (Apply) statefulsetbackups/status"), 4, "intent, complaint, cut, end");
}

#[test]
fn without_hooks_a_driver_that_does_not_heal_fails_the_run_when_its_snapshots_should_be_ready() {
    let (server, exit, _, took) = sick(false, 86_400);
    assert_eq!(exit.map(|exit| exit.code()), Some(10));
    assert_eq!(reason(&server), Some(Reason::SnapshotFailed), "{}", said(&server));
    assert!(said(&server).contains(SICK), "{}", said(&server));
    assert!((READY..READY + 30).contains(&took.as_secs()), "{took:?}");
    assert!(truth::snaps(&server.look().store).values().all(|snap| snap.leaving), "nothing partial is left");
}

#[test]
fn with_hooks_nobody_stands_still_for_a_driver() {
    let (server, exit, _, took) = sick(true, 37);
    assert_eq!(exit.map(|exit| exit.code()), Some(10));
    assert_eq!(reason(&server), Some(Reason::SnapshotFailed), "{}", said(&server));
    assert!(took < Duration::from_secs(36) && truth::frozen(&server.look()) == 0, "{took:?}");
}

fn quota(server: &ApiServer, hard: u32, used: u32) {
    let key = Key::new("resourcequotas", shop::NAMESPACE, "small");
    server.act(|state| {
        let status = json!({ "hard": { COUNT: hard.to_string() }, "used": { COUNT: used.to_string() } });
        let _ = state.store.create(&key, json!({ "metadata": {}, "spec": { "hard": status["hard"] } }), false);
        state.store.change(&key, true, |object| object["status"] = status.clone());
    });
}

#[test]
fn a_quota_without_room_fails_the_run_before_any_hook_and_says_what_it_takes() {
    runtime().block_on(async {
        let (server, clock) = world(&Case::of(true));
        server.act(|state| {
            state.store.change(&shop::object(shop::POLICY), false, |object| {
                object["spec"]["retentionPolicy"] = json!({ "keepLast": 2 });
            });
        });
        quota(&server, 10, 0);
        for slot in ["one", "two"] {
            let exit = Box::pin(process(&server, clock, shop::POLICY, slot)).await;
            assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "{}", said(&server));
        }
        let first = truth::snaps(&server.look().store).values().map(|snap| snap.run).min().unwrap();
        let execs = sent(&server.look(), "exec");
        quota(&server, 10, 8);
        let exit = Box::pin(process(&server, clock, shop::POLICY, "three")).await;
        let message = said(&server);
        assert_eq!(
            (exit.map(|exit| exit.code()), reason(&server)),
            (Some(10), Some(Reason::QuotaTooSmall)),
            "{message}"
        );
        for word in
            ["ResourceQuota shop/small", COUNT, "8 of 10", "4 more", "at least 12", "makeRoom", &first.to_string()]
        {
            assert!(message.contains(word), "{word}: {message}");
        }
        let state = server.look();
        assert_eq!((sent(&state, "exec"), sent(&state, "create volumesnapshots")), (execs, 8), "nothing was begun");
        assert!(truth::lease(&state.store).unwrap().holder.is_none());
    });
}

#[test]
fn what_is_being_deleted_may_leave_a_quota_yet_and_who_may_not_read_it_goes_on() {
    runtime().block_on(async {
        let (server, clock) = world(&Case::of(true));
        quota(&server, 6, 3);
        let later = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            quota(&server, 6, 2);
        };
        let (exit, ()) = tokio::join!(Box::pin(process(&server, clock, shop::POLICY, "one")), later);
        assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "{}", said(&server));

        quota(&server, 6, 6);
        let rights =
            rbac::runner_verbs().into_iter().filter(|(_, resource, _)| *resource != "resourcequotas").collect();
        let request = Request {
            namespace: shop::NAMESPACE.into(),
            name: shop::POLICY.into(),
            slot: Some("two".into()),
            trigger: Trigger::Command,
            attempt: None,
        };
        let client = server.client(Some(rights));
        let exit = Box::pin(carry_out(&server, clock, &request, client)).await;
        assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "{}", said(&server));
    });
}

/// As the quota controller does it, every few seconds.
async fn counted(server: &ApiServer, hard: u32) {
    loop {
        let used = truth::snaps(&server.look().store).len();
        quota(server, hard, u32::try_from(used).unwrap());
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
}

/// Runs for these slots, one after the other, under a quota of so many snapshots and with `keepLast`.
async fn with_room(server: &ApiServer, clock: Clock, slots: &[&'static str]) -> Option<Exit> {
    let mut exit = None;
    for slot in slots {
        exit = Box::pin(to_the_end(server, clock, Command { name: shop::POLICY, slot, second: false }))
            .await
            .pop()
            .flatten();
    }
    exit
}

fn keep(server: &ApiServer, last: u32) {
    server.act(|state| {
        state.store.change(&shop::object(shop::POLICY), false, |object| {
            object["spec"]["retentionPolicy"] = json!({ "keepLast": last, "makeRoom": true });
        });
    });
}

fn runs(server: &ApiServer) -> BTreeSet<RunId> {
    truth::snaps(&server.look().store).values().filter(|snap| !snap.leaving).map(|snap| snap.run).collect()
}

/// Each of four snapshots: the quota has room for two runs and a half.
#[test]
fn room_is_made_before_the_freeze_of_whole_runs_that_would_go_after_it() {
    let mut writes = None;
    for k in std::iter::once(None).chain((0..60).map(Some)) {
        if k.is_some() && k >= writes {
            break;
        }
        runtime().block_on(async {
            let (server, clock) = world(&Case::of(true));
            keep(&server, 2);
            let story = async {
                assert_eq!(with_room(&server, clock, &["one", "two"]).await, Some(Exit::Done(Outcome::Succeeded)));
                let (before, begun) = (runs(&server), server.look().log.len());
                let at = server.look().faults.count(Class::Write);
                if let Some(k) = k {
                    server.act(|state| drop(state.faults.strikes.insert((Class::Write, at + k), Strike::DieAfter)));
                }
                let exit = with_room(&server, clock, &["three"]).await;
                writes.get_or_insert(server.look().faults.count(Class::Write) - at);
                // It may have died after its last write.
                assert!(
                    matches!(exit, Some(Exit::Done(Outcome::Succeeded) | Exit::Superseded(_))),
                    "write {k:?}: {exit:?} {}",
                    said(&server)
                );
                let (after, log) = (runs(&server), server.look().log[begun..].to_vec());
                let first = before.first().unwrap();
                assert!(!after.contains(first) && after.contains(before.last().unwrap()), "write {k:?}: {after:?}");
                let is = |begins: &'static str| move |line: &String| line.starts_with(begins);
                let (gone, frozen) =
                    (log.iter().position(is("delete volumesnapshots")), log.iter().position(is("exec")));
                assert!(gone.is_some() && gone < frozen, "write {k:?}: {log:?}");
                assert_eq!(after.len(), 2, "write {k:?}: {after:?} {}", said(&server));
                if k.is_none() {
                    assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "{}", said(&server));
                    assert!(said(&server).contains(&format!("run {first} pruned")), "{}", said(&server));
                }
                assert_eq!(truth::frozen(&server.look()), 0, "write {k:?}");
            };
            tokio::select! {
                () = story => {}
                () = counted(&server, 10) => {}
            }
        });
    }
    assert!(writes > Some(15), "{writes:?}");
}

/// The only run that there is; and, beside one that is enough, one that is not.
#[test]
fn what_must_stay_or_is_not_enough_makes_no_room() {
    for (last, hard, slots) in [(1, 4, &["one"][..]), (2, 8, &["one", "two"]), (2, 3, &["one", "two"])] {
        runtime().block_on(async {
            let (server, clock) = world(&Case::of(true));
            keep(&server, last);
            assert_eq!(
                with_room(&server, clock, slots).await,
                Some(Exit::Done(Outcome::Succeeded)),
                "{}",
                said(&server)
            );
            let before = runs(&server);
            let story = async {
                let exit = with_room(&server, clock, &["more"]).await;
                let room = hard == 8;
                assert_eq!(exit.map(|exit| exit.code()), Some(if room { 0 } else { 10 }), "{hard}: {}", said(&server));
                if !room {
                    assert_eq!(reason(&server), Some(Reason::QuotaTooSmall), "{}", said(&server));
                    assert_eq!(runs(&server), before, "nothing went");
                    assert!(!said(&server).contains("makeRoom"), "it is set: {}", said(&server));
                }
            };
            tokio::select! {
                () = story => {}
                () = counted(&server, hard) => {}
            }
        });
    }
}
