//! Situations of a StatefulSetRestore.

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use sts_backup::api::annotation;
use sts_backup::api::restore::StatefulSetRestore;

use super::Object::{Backup, Restore};
use super::{Row, seen};
use crate::harness::Scene;
use crate::harness::driver::SIM;
use crate::harness::make::App;
use crate::watcher::story::{annotated, done};

const A: &[(&str, &str)] = &[("a", SIM.class)];

fn one(name: &'static str) -> App<'static> {
    App { name, replicas: 1, start: 0, templates: A }
}

/// Its pods are Ready as long as the data is not the one that was backed up.
fn picky(name: &'static str) -> StatefulSet {
    let mut manifest = one(name).manifest();
    let container = &mut manifest.spec.template.spec.as_mut().unwrap().containers[0];
    let probe = json!({ "exec": { "command": ["sh", "-c", "! grep -q old /a/word"] }, "periodSeconds": 1 });
    container.readiness_probe = Some(serde_json::from_value(probe).unwrap());
    manifest
}

/// A restore of that name, of the newest run of the policy that bears the StatefulSet's name.
async fn asked(s: &Scene, name: &str, statefulset: &str, more: Value) {
    let mut spec = json!({ "backupName": statefulset });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    s.request(name, statefulset, &spec).await;
}

async fn refused(s: &Scene, what: &'static str, name: &str, statefulset: &str, more: Value, reason: &str) -> Row {
    asked(s, name, statefulset, more).await;
    seen(s, what, Restore(name), reason, "RestoreFailed").await
}

pub async fn all(s: &Scene) -> Vec<Row> {
    for app in ["web", "other", "more", "stuck", "none"] {
        s.app(&one(app)).await;
    }
    s.app(&App { templates: &[("b", SIM.class)], ..one("renamed") }).await;
    for app in ["picky", "held"] {
        s.app_of(&picky(app)).await;
        s.paint(app, "old").await;
    }
    let policies = ["web", "more", "stuck", "picky", "held"];
    for policy in policies {
        s.policy(policy, policy, &json!({})).await;
    }
    join_all(policies.map(async |policy| done(s, policy, 1).await)).await;
    for app in ["picky", "held"] {
        s.paint(app, "new").await;
        s.ready(app).await;
    }
    let elsewhere = json!({ "statefulSetRef": { "name": "web", "namespace": format!("{}-far", s.namespace) } });
    let unserved = json!({ "statefulSetRef": { "name": "web", "namespace": "default" } });
    let of_web = json!({ "backupName": "web", "sourceStatefulSet": "web" });
    let many: Vec<LocalBoxFuture<'_, Vec<Row>>> = vec![
        there_and_back(s).boxed_local(),
        stuck(s).boxed_local(),
        one_row(refused(s, "no run fits", "no-run", "none", json!({}), "RunNotFound")).boxed_local(),
        one_row(refused(
            s,
            "the StatefulSet is in another namespace, which does not allow it",
            "far",
            "web",
            elsewhere,
            "NotGranted",
        ))
        .boxed_local(),
        one_row(refused(
            s,
            "the StatefulSet is in a namespace that the installation does not serve",
            "unserved",
            "web",
            unserved,
            "Forbidden",
        ))
        .boxed_local(),
        one_row(refused(
            s,
            "the run's volumeClaimTemplate is not in the StatefulSet",
            "unfit",
            "renamed",
            of_web,
            "PreflightRefused",
        ))
        .boxed_local(),
        one_row(uncovered(s)).boxed_local(),
        one_row(turned_back(s)).boxed_local(),
        held(s).boxed_local(),
    ];
    let mut rows: Vec<Row> = join_all(many).await.into_iter().flatten().collect();
    rows.push(quota(s).await);
    rows
}

async fn one_row(row: impl Future<Output = Row>) -> Vec<Row> {
    vec![row.await]
}

async fn there_and_back(s: &Scene) -> Vec<Row> {
    asked(s, "back", "web", json!({})).await;
    let completed = seen(s, "restored", Restore("back"), "RestoreCompleted", "RestoreCompleted").await;
    undo(s, "back").await;
    let undone = seen(s, "undone on request", Restore("back"), "Undone", "Undone").await;
    let api = s.api::<StatefulSetRestore>();
    api.delete("back", &DeleteParams::default()).await.unwrap();
    super::until("the object to go", super::LIMIT, async || {
        let left = api.get_opt("back").await.unwrap();
        left.map_or(Ok(()), |left| Err(format!("{:?}", left.metadata.finalizers)))
    })
    .await;
    let again =
        refused(s, "a restore of this name and spec was done before", "back", "web", json!({}), "AlreadyRestored");
    vec![completed, undone, again.await]
}

async fn undo(s: &Scene, name: &str) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { annotation::UNDO: "please" } } }));
    s.api::<StatefulSetRestore>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// A pod that does not go, and what waits for it.
async fn stuck(s: &Scene) -> Vec<Row> {
    let pod = s.pods("stuck").await[0].name_any();
    let hold = |on: Option<&str>| Patch::Merge(json!({ "metadata": { "finalizers": on.map(|one| [one]) } }));
    s.api::<Pod>().patch(&pod, &PatchParams::default(), &hold(Some("tests.sts-backup.io/hold"))).await.unwrap();
    asked(s, "stop", "stuck", json!({ "stopTimeoutSeconds": 60 })).await;
    super::until("the pods to be stopped", super::LIMIT, async || {
        let phase = s.restored("stop").await.phase;
        if phase == Some(sts_backup::api::restore::RestorePhase::ScalingDown) {
            Ok(())
        } else {
            Err(format!("{phase:?}"))
        }
    })
    .await;
    annotated(s, "stuck", "meanwhile").await;
    let waits =
        seen(s, "a backup is due while its StatefulSet is being restored", Backup("stuck"), "RestoreUnderWay", "")
            .await;
    let ends = seen(s, "a pod does not stop", Restore("stop"), "StopTimeout", "RestoreFailed").await;
    s.api::<Pod>().patch(&pod, &PatchParams::default(), &hold(None)).await.unwrap();
    vec![waits, ends]
}

async fn uncovered(s: &Scene) -> Row {
    s.patch_app("more", &json!({ "spec": { "replicas": 2 } })).await;
    s.ready("more").await;
    refused(s, "a replica has come since the run", "grown", "more", json!({}), "PreflightRefused").await
}

async fn turned_back(s: &Scene) -> Row {
    asked(s, "unready", "picky", json!({ "readyTimeoutSeconds": 40 })).await;
    seen(s, "the pods are not ready on the restored volumes", Restore("unready"), "ReadyTimeout", "RolledBack").await
}

async fn held(s: &Scene) -> Vec<Row> {
    asked(s, "hold", "held", json!({ "readyTimeoutSeconds": 40, "onFailure": "Hold" })).await;
    vec![seen(s, "the same with `onFailure: Hold`", Restore("hold"), "Held", "RestoreFailed").await]
}

/// In the end: it is the namespace's.
async fn quota(s: &Scene) -> Row {
    let full = json!({ "metadata": { "name": "full" }, "spec": { "hard": { "requests.storage": "1Mi" } } });
    s.create::<ResourceQuota>(&serde_json::from_value(full).unwrap()).await;
    super::until("the quota to count", 60, async || {
        let used = json!(s.api::<ResourceQuota>().get("full").await.unwrap().status)["used"].clone();
        if used.is_null() { Err("not yet".into()) } else { Ok(()) }
    })
    .await;
    refused(
        s,
        "a quota leaves no room for the new claims",
        "roomless",
        "other",
        json!({ "backupName": "web", "sourceStatefulSet": "web" }),
        "QuotaTooSmall",
    )
    .await
}
