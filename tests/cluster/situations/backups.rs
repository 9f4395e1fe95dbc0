//! Situations of a StatefulSetBackup.

use futures::future::LocalBoxFuture;
use futures::{FutureExt, future::join_all};
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

/// A policy of that spec, and what is seen of it. Each has a StatefulSet of its own where a run takes its lock.
async fn row(
    s: &Scene,
    what: &'static str,
    (name, statefulset): (&str, &str),
    spec: Value,
    (reason, event): (&str, &str),
) -> Row {
    s.policy(name, statefulset, &spec).await;
    seen(s, what, Backup(name), reason, event).await
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
    let failed = |reason| (reason, "BackupFailed");
    let elsewhere = json!({ "statefulSetRef": { "name": "web", "namespace": format!("{}-far", s.namespace) } });
    let unserved = json!({ "statefulSetRef": { "name": "web", "namespace": "default" } });
    let all: Vec<LocalBoxFuture<'_, Row>> = vec![
        row(s, "the newest run has succeeded", ("well", "well"), json!({}), ("BackupCompleted", "BackupCompleted"))
            .boxed_local(),
        row(
            s,
            "`timeZone` is not one",
            ("zone", "well"),
            json!({ "schedule": "0 3 * * *", "timeZone": "Berlin" }),
            ("InvalidSpec", "InvalidSpec"),
        )
        .boxed_local(),
        row(
            s,
            "`schedule` has no date to come",
            ("never", "well"),
            json!({ "schedule": "0 3 30 2 *" }),
            ("NeverDue", ""),
        )
        .boxed_local(),
        row(s, "the StatefulSet does not exist", ("nowhere", "other"), json!({}), failed("StatefulSetNotFound"))
            .boxed_local(),
        row(s, "the StatefulSet has no claims", ("bare", "bare"), json!({}), failed("NoClaims")).boxed_local(),
        row(s, "a claim has no volume yet", ("unbound", "unbound"), json!({}), failed("ClaimNotBound")).boxed_local(),
        row(
            s,
            "the VolumeSnapshotClass does not exist",
            ("classless", "well"),
            json!({ "volumeSnapshotClassName": "gold" }),
            failed("NoSnapshotClass"),
        )
        .boxed_local(),
        row(
            s,
            "the StatefulSet is in another namespace, which does not allow it",
            ("elsewhere", "web"),
            elsewhere,
            failed("NotGranted"),
        )
        .boxed_local(),
        row(
            s,
            "the StatefulSet is in a namespace that the installation does not serve",
            ("unserved", "web"),
            unserved,
            failed("Forbidden"),
        )
        .boxed_local(),
        row(
            s,
            "a pre hook ends with an error",
            ("hooked", "hooked"),
            hooks("echo no such table >&2; exit 3", &json!({})),
            failed("HookFailed"),
        )
        .boxed_local(),
        row(
            s,
            "a pre hook takes longer than its `timeoutSeconds`",
            ("late", "late"),
            hooks("sleep 30", &json!({ "timeoutSeconds": 2 })),
            failed("HookTimeout"),
        )
        .boxed_local(),
        row(
            s,
            "a freeze takes longer than `maxFreezeSeconds`",
            ("long", "long"),
            with(hooks("sleep 4", &json!({})), &json!({ "maxFreezeSeconds": 2 })),
            failed("FreezeTooLong"),
        )
        .boxed_local(),
        row(
            s,
            "the hook's container does not exist",
            ("absent", "absent"),
            hooks("true", &json!({ "containerName": "other" })),
            failed("ContainerNotFound"),
        )
        .boxed_local(),
        row(
            s,
            "a pod that a hook should enter does not run",
            ("down", "down"),
            hooks("true", &json!({})),
            failed("PodNotRunning"),
        )
        .boxed_local(),
        row(
            s,
            "the driver cannot cut",
            ("broken", "broken"),
            json!({ "snapshotReadyTimeoutSeconds": 10, "maxFreezeSeconds": 10 }),
            failed("SnapshotFailed"),
        )
        .boxed_local(),
    ];
    join_all(all).await
}

fn with(mut spec: Value, more: &Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    spec
}
