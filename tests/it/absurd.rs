//! Objects that the API server stored before its rules were there, and statuses in which somebody has written what no run
//! writes: reported, never acted on, and no number of theirs ends a process.

use serde_json::{Value, json};
use sts_backup::api::condition::Reason;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::Outcome;

use super::apiserver::ApiServer;
use super::wire::{Case, process, runtime, world};
use super::{shop, truth};

const LEAST: i64 = i64::MIN;
const MOST: i64 = i64::MAX;

/// One run of the object as changed, after a good one: how it ended, and the world after it.
fn run(change: impl FnOnce(&mut Value)) -> (ApiServer, Option<Exit>) {
    runtime().block_on(async {
        let (server, clock) = world(&Case::of(true));
        let good = Box::pin(process(&server, clock, shop::POLICY, "good")).await;
        assert_eq!(good, Some(Exit::Done(Outcome::Succeeded)));
        server.act(|state| state.store.change(&shop::object(shop::POLICY), false, change));
        let exit = Box::pin(process(&server, clock, shop::POLICY, "one")).await;
        (server, exit)
    })
}

#[test]
fn what_breaks_the_rules_is_reported_and_never_acted_on() {
    let hook = |seconds: i64| json!({ "command": ["freeze"], "timeoutSeconds": seconds });
    for (field, value) in [
        ("startingDeadlineSeconds", json!(LEAST)),
        ("startingDeadlineSeconds", json!(-1)),
        ("snapshotReadyTimeoutSeconds", json!(LEAST)),
        ("snapshotReadyTimeoutSeconds", json!(MOST)),
        ("maxFreezeSeconds", json!(0)),
        ("maxFreezeSeconds", json!(MOST)),
        ("preBackupHook", hook(LEAST)),
        ("postBackupHook", hook(MOST)),
        ("retentionPolicy", json!({ "keepLast": 0 })),
        ("retentionPolicy", json!({ "keepLast": LEAST })),
        ("retentionPolicy", json!({ "keepDays": LEAST })),
        ("retentionPolicy", json!({ "keepHourly": -1, "keepLast": MOST })),
        ("successfulJobsHistoryLimit", json!(i32::MIN)),
    ] {
        let (server, exit) = run(|object| object["spec"][field] = value.clone());
        let state = server.look();
        let status = truth::record(&state.store, shop::POLICY).unwrap().status;
        let message = status.message.unwrap_or_default();
        assert_eq!(status.last_run.unwrap().reason, Some(Reason::InvalidSpec), "{field} {value}: {exit:?} {message}");
        assert!(message.contains(field), "{field}: {message}");
        assert_eq!(truth::snaps(&state.store).len(), 4, "{field} {value}: nothing is made, nothing goes");
    }
}

#[test]
fn the_greatest_numbers_that_the_rules_allow_are_nothing_special() {
    for (field, value) in [
        ("startingDeadlineSeconds", json!(MOST)),
        ("retentionPolicy", json!({ "keepLast": MOST, "keepDays": MOST, "keepYearly": MOST })),
        ("failedJobsHistoryLimit", json!(i32::MAX)),
    ] {
        let (_, exit) = run(|object| object["spec"][field] = value.clone());
        assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "{field} {value}");
    }
}

#[test]
fn an_empty_namespace_means_that_of_the_object() {
    let (_, exit) = run(|object| object["spec"]["statefulSetRef"]["namespace"] = "".into());
    assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)));
}

/// The journal of the run of this id, which is said to be open, with one odd value in it.
fn journal(id: &Value, phase: &str, field: &str, value: &Value) -> Value {
    let mut run = json!({ "id": id, "slot": "odd", "attempt": 1, "holder": "backup/shop/nightly/x",
        "intent": { "phase": phase, "epoch": 1, "since": "2027-01-01T00:00:00Z", "size": 4, "consistency": "CrashPerVolume" } });
    match field.strip_prefix("run.") {
        Some(field) => run[field] = value.clone(),
        None => run["intent"][field] = value.clone(),
    }
    run
}

#[test]
fn a_status_that_no_run_writes_ends_no_process() {
    for phase in ["Frozen", "Cut", "Void", "Odd"] {
        for (field, value) in [
            ("since", json!("9999-12-30T22:00:00Z")),
            ("since", json!("0000-01-01T00:00:00Z")),
            ("epoch", json!(LEAST)),
            ("epoch", json!(MOST)),
            ("size", json!(i32::MIN)),
            ("size", json!(i32::MAX)),
            ("run.attempt", json!(i32::MIN)),
            ("run.id", json!("99991231-235959")),
            ("run.id", json!("00000101-000000")),
            ("postHook", json!({ "command": ["thaw"], "timeoutSeconds": MOST })),
        ] {
            let (server, exit) = run(|object| {
                let id = object["status"]["lastRun"]["id"].clone();
                object["status"]["run"] = journal(&id, phase, field, &value);
            });
            assert!(exit.is_some(), "{phase} {field} {value}: {}", server.look().log.join("\n"));
            let snaps = truth::snaps(&server.look().store);
            assert!(snaps.len() >= 4, "{phase} {field} {value}: the good run stays");
        }
    }
}
