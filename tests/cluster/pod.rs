//! The product as it is shipped: its image in a Job, an account with just the declared rights, the log of the pod as
//! the audit trail.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use serde_json::{Value, json};
use sts_backup::api::shared::Trigger;

use crate::harness::account::RUNNER;
use crate::harness::driver::SIM;
use crate::harness::make::App;
use crate::harness::product::Audit;
use crate::harness::{Scene, With, scene, skipped, until};

const IMAGE: &str = "localhost/sts-backup:dev";

#[tokio::test]
async fn a_job_with_the_image_makes_a_backup_and_logs_json() {
    scene("job", &[With::Healthy(SIM)], async |s| {
        s.app(&App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("nightly", "web", &json!({})).await;
        s.create(&job(s)).await;
        if !ends(s).await {
            skipped(&format!("the image {IMAGE} is not in the cluster (just image)"));
            return;
        }
        let last = s.get("nightly").await.status.unwrap().last_run.unwrap();
        assert_eq!((last.job_name.as_deref(), last.trigger), (Some("backup-nightly"), Some(Trigger::Manual)));
        assert_eq!((last.slot.as_deref(), last.snapshots.len()), (Some("now"), 2));

        let log = s.api::<Pod>().logs(&pod(s).await.unwrap().name_any(), &LogParams::default()).await.unwrap();
        let (summary, lines) = log.lines().collect::<Vec<_>>().split_last().map(|(a, b)| (*a, b.to_vec())).unwrap();
        for line in &lines {
            let audit: Audit = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(audit.outcome, "ok", "{line}");
        }
        let summary: Value = serde_json::from_str(summary).unwrap();
        assert_eq!(summary["summary"], serde_json::to_value(&last).unwrap());
    })
    .await;
}

/// As restricted as Pod Security can ask for.
fn job(s: &Scene) -> Job {
    let arguments = ["run-once", "backup", &format!("{}/nightly", s.namespace), "--slot", "now", "--trigger", "manual"];
    let own_name = json!({ "fieldRef": { "fieldPath": "metadata.name" } });
    let container = json!({
        "name": "runner", "image": IMAGE, "imagePullPolicy": "Never", "args": arguments,
        "env": [{ "name": "SSB_JOB_NAME", "value": "backup-nightly" }, { "name": "SSB_POD_NAME", "valueFrom": own_name }],
        "securityContext": { "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] } },
    });
    let pod = json!({
        "serviceAccountName": RUNNER, "restartPolicy": "Never", "enableServiceLinks": false,
        "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [container],
    });
    let spec = json!({ "backoffLimit": 0, "template": { "spec": pod } });
    serde_json::from_value(json!({ "metadata": { "name": "backup-nightly" }, "spec": spec })).unwrap()
}

async fn pod(s: &Scene) -> Option<Pod> {
    let of = ListParams::default().labels("job-name=backup-nightly");
    s.api::<Pod>().list(&of).await.unwrap().items.pop()
}

/// Whether it could begin at all; it must succeed then.
async fn ends(s: &Scene) -> bool {
    until("the end of the Job", 180, async || {
        let job = s.api::<Job>().get("backup-nightly").await.unwrap().status.unwrap_or_default();
        assert_eq!(job.failed.unwrap_or_default(), 0, "the Job failed");
        if job.succeeded == Some(1) {
            return Ok(true);
        }
        let statuses = pod(s).await.and_then(|pod| pod.status?.container_statuses).unwrap_or_default();
        let waits = statuses.first().and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
        if waits.as_deref() == Some("ErrImageNeverPull") { Ok(false) } else { Err(format!("{statuses:?}")) }
    })
    .await
}
