//! Situations in which a run is due and does not begin; the installation itself is changed for them.

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::Object::Backup;
use super::{Row, seen};
use crate::harness::install::Release;
use crate::harness::{Scene, until};
use crate::watcher::story::annotated;

pub async fn all(s: &Scene, release: &Release<'_>) -> Vec<Row> {
    let suspended = json!({ "schedule": "0 3 1 1 *", "suspend": true });
    for policy in ["quota", "place", "wait"] {
        s.policy(policy, "well", &suspended).await;
    }
    let mut rows = vec![quota(s, release).await];
    release.set("upgrade", &["runner.nodeSelector.no=where"]).await;
    alone(release).await;
    annotated(s, "place", "now").await;
    rows.push(seen(s, "no node takes the Job's pod", Backup("place"), "JobPending", "JobPending").await);
    release.set("upgrade", &["maxConcurrentRuns=1"]).await;
    alone(release).await;
    let busy =
        json!({ "preBackupHook": { "command": ["sleep", "75"], "timeoutSeconds": 300 }, "maxFreezeSeconds": 300 });
    s.policy("busy", "long", &busy).await;
    until("a run to hold the only place", 120, async || {
        let run = s.get("busy").await.status.and_then(|status| status.run);
        if run.is_some() { Ok(()) } else { Err("none".into()) }
    })
    .await;
    annotated(s, "wait", "now").await;
    rows.push(seen(s, "other runs have all places", Backup("wait"), "NoPlace", "").await);
    until("the end of it", 300, async || {
        let run = s.get("busy").await.status.and_then(|status| status.run);
        if run.is_none() { Ok(()) } else { Err("it is open".into()) }
    })
    .await;
    rows
}

async fn quota(s: &Scene, release: &Release<'_>) -> Row {
    let api = release.api::<ResourceQuota>();
    let full = json!({ "metadata": { "name": "full" }, "spec": { "hard": { "pods": "1" } } });
    api.create(&PostParams::default(), &serde_json::from_value(full).unwrap()).await.unwrap();
    until("the quota to count the watcher", 60, async || {
        let used = json!(api.get("full").await.unwrap().status)["used"]["pods"].clone();
        (used != "0" && !used.is_null()).then_some(()).ok_or_else(|| used.to_string())
    })
    .await;
    annotated(s, "quota", "now").await;
    let row = seen(s, "a quota leaves the Job no pod", Backup("quota"), "JobRejected", "JobRejected").await;
    api.delete("full", &DeleteParams::default()).await.unwrap();
    row
}

/// The former watcher has gone.
async fn alone(release: &Release<'_>) {
    until("the former watcher to go", 60, async || {
        let count = release.watchers().await.len();
        if count == 1 { Ok(()) } else { Err(format!("{count} pods")) }
    })
    .await;
}
