//! Situations of a StatefulSetBackup.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::Object::Backup;
use super::{Row, seen};
use crate::harness::Scene;
use crate::harness::driver::{SIM, TWO};
use crate::harness::make::App;

const A: &[(&str, &str)] = &[("a", SIM.class)];

fn one(name: &'static str) -> App<'static> {
    App { name, replicas: 1, start: 0, templates: A }
}

fn hooks(script: &str, more: &Value) -> Value {
    let mut hook = json!({ "command": ["sh", "-c", script] });
    hook.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({ "preBackupHook": hook, "postBackupHook": { "command": ["true"] } })
}

/// A policy of that spec, and the reason that is waited for. Each has a StatefulSet of its own where a run takes its lock.
struct Case {
    what: &'static str,
    name: &'static str,
    statefulset: &'static str,
    spec: Value,
    reason: &'static str,
    event: &'static str,
}

/// Its run fails.
fn case(what: &'static str, name: &'static str, statefulset: &'static str, reason: &'static str, spec: Value) -> Case {
    Case { what, name, statefulset, spec, reason, event: "BackupFailed" }
}

/// Nothing is begun, or nothing is wrong.
fn specs(far: &str) -> Vec<Case> {
    let none = || json!({});
    let berlin = json!({ "schedule": "0 3 * * *", "timeZone": "Berlin" });
    let never = json!({ "schedule": "0 3 30 2 *" });
    let gold = json!({ "volumeSnapshotClassName": "gold" });
    let elsewhere = json!({ "statefulSetRef": { "name": "web", "namespace": far } });
    let unserved = json!({ "statefulSetRef": { "name": "web", "namespace": "default" } });
    let granted = "the StatefulSet is in another namespace, which does not allow it";
    let served = "the StatefulSet is in a namespace that the installation does not serve";
    vec![
        Case {
            event: "BackupCompleted",
            ..case("the newest run has succeeded", "well", "well", "BackupCompleted", none())
        },
        Case { event: "InvalidSpec", ..case("`timeZone` is not one", "zone", "well", "InvalidSpec", berlin) },
        Case { event: "", ..case("`schedule` has no date to come", "never", "well", "NeverDue", never) },
        case("the StatefulSet does not exist", "nowhere", "other", "StatefulSetNotFound", none()),
        case("the StatefulSet has no claims", "bare", "bare", "NoClaims", none()),
        case("a claim has no volume yet", "unbound", "unbound", "ClaimNotBound", none()),
        case("the VolumeSnapshotClass does not exist", "classless", "well", "NoSnapshotClass", gold),
        case(granted, "elsewhere", "web", "NotGranted", elsewhere),
        case(served, "unserved", "web", "Forbidden", unserved),
    ]
}

/// A freeze, or the cut, does not come about.
fn freezes() -> Vec<Case> {
    let fails = hooks("echo no such table >&2; exit 3", &json!({}));
    let late = hooks("sleep 30", &json!({ "timeoutSeconds": 2 }));
    let long = with(hooks("sleep 30", &json!({})), &json!({ "maxFreezeSeconds": 10 }));
    let absent = hooks("true", &json!({ "containerName": "other" }));
    let down = hooks("true", &json!({}));
    let broken = json!({ "snapshotReadyTimeoutSeconds": 10, "maxFreezeSeconds": 10 });
    vec![
        case("a pre hook ends with an error", "hooked", "hooked", "HookFailed", fails),
        case("a pre hook takes longer than its `timeoutSeconds`", "late", "late", "HookTimeout", late),
        case("a freeze takes longer than `maxFreezeSeconds`", "long", "long", "FreezeTooLong", long),
        case("the hook's container does not exist", "absent", "absent", "ContainerNotFound", absent),
        case("a pod that a hook should enter does not run", "down", "down", "PodNotRunning", down),
        case("the driver cannot cut", "broken", "broken", "SnapshotFailed", broken),
    ]
}

pub async fn all(s: &Scene) -> Vec<Row> {
    for app in ["well", "hooked", "absent", "late", "long"] {
        s.app(&one(app)).await;
    }
    s.create(&one("down").placeless()).await;
    s.create(&App { templates: &[("a", TWO.class)], ..one("broken") }.placeless()).await;
    s.create(&App { templates: &[("a", "csi-wffc")], ..one("unbound") }.placeless()).await;
    let mut bare: StatefulSet = App { templates: &[], ..one("bare") }.manifest();
    bare.spec.volume_claim_templates = None;
    s.create(&bare).await;
    s.bound("a-broken-0").await;
    let cases = specs(&format!("{}-far", s.namespace)).into_iter().chain(freezes());
    join_all(cases.map(async |case| {
        s.policy(case.name, case.statefulset, &case.spec).await;
        seen(s, case.what, Backup(case.name), case.reason, case.event).await
    }))
    .await
}

fn with(mut spec: Value, more: &Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    spec
}
