//! Jobs and pods that go at the worst moment: no pod stays frozen, no StatefulSet stays at 0, and no slot runs twice.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use sts_backup::api::annotation;
use sts_backup::api::restore::RestorePhase;

use super::story::{annotated, done, phase};
use crate::harness::driver::TWO;
use crate::harness::install::Release;
use crate::harness::make::App;
use crate::harness::run::{runs, whole};
use crate::harness::{Scene, With, scene, until};

const WEB: App = App { name: "web", replicas: 2, start: 0, templates: &[("a", TWO.class)] };

/// An application that is frozen while its volumes are cut, and an installation that looks after it.
async fn stage(name: &str, faults: &serde_json::Value, test: impl AsyncFnOnce(&Scene, &Release<'_>)) {
    scene(name, &[With::Faulty(TWO, faults.clone())], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        s.app(&WEB).await;
        test(s, &release).await;
        release.uninstall().await;
    })
    .await;
}

pub async fn frozen(s: &Scene) {
    until("a frozen pod", 120, async || {
        for pod in s.pods("web").await {
            if s.is_frozen(&pod.name_any()).await {
                return Ok(());
            }
        }
        Err("none".into())
    })
    .await;
}

/// With a cut that leaves time to break something in the freeze.
async fn freezing(s: &Scene) {
    let hooks = json!({
        "preBackupHook": { "command": ["/bin/freeze"] }, "postBackupHook": { "command": ["/bin/thaw"] },
    });
    s.policy("nightly", "web", &hooks).await;
    frozen(s).await;
}

/// The one Job of the kind that there is by now.
async fn job(release: &Release<'_>, kind: &str, name: &str) -> String {
    let jobs = release.jobs(kind, name).await;
    assert_eq!(jobs.len(), 1, "{kind} {name}");
    jobs[0].name_any()
}

#[tokio::test]
async fn a_pod_that_is_lost_in_the_freeze_is_followed_by_one_that_thaws() {
    stage("podlost", &json!({ "cutDelay": "4s" }), async |s, release| {
        freezing(s).await;
        let job = job(release, "backup", "nightly").await;
        // Deleted with a grace of 0 it is still told to stop a moment before; whether it thaws by itself or its
        // successor does it, depends.
        let log = release.log(&job).await;
        assert!(log.iter().all(|line| line["step"] != "Post"), "still in the freeze");
        for pod in release.pods(&job).await {
            release.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
        }
        done(s, "nightly", 1).await;
        s.runs_free("web").await;
        whole(s, "nightly", 1).await;
        assert_eq!(release.jobs("backup", "nightly").await.len(), 1, "the Job's own retry did it");
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_deleted_in_the_freeze_is_followed_by_an_attempt_that_thaws() {
    stage("joblost", &json!({ "cutDelay": "4s" }), async |s, release| {
        freezing(s).await;
        let first = job(release, "backup", "nightly").await;
        release.api::<Job>().delete(&first, &DeleteParams::background().grace_period(0)).await.unwrap();
        until("the run to be closed", 180, async || {
            let status = s.get("nightly").await.status.unwrap_or_default();
            let last = json!(status.last_run);
            let closed = status.run.is_none() && last["outcome"] == "Failed" && last["reason"] == "JobLost";
            closed.then_some(()).ok_or_else(|| format!("{:?} {last}", status.message))
        })
        .await;
        s.runs_free("web").await;
        assert_eq!(runs(s, "nightly").await.len(), 0, "what is partial is gone");
        let second = &release.jobs("backup", "nightly").await[0];
        assert_eq!(second.annotations()[annotation::ATTEMPT], "2");
        // The policy is as good as before.
        annotated(s, "nightly", "again").await;
        until("the next run", 120, async || {
            let last = json!(s.get("nightly").await.status.unwrap_or_default().last_run);
            (last["outcome"] == "Succeeded").then_some(()).ok_or(last.to_string())
        })
        .await;
        s.runs_free("web").await;
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_used_up_in_a_restore_is_followed_by_one_that_finishes() {
    stage("usedup", &json!({}), async |s, release| {
        s.paint("web", "one").await;
        s.policy("nightly", "web", &json!({})).await;
        done(s, "nightly", 1).await;
        s.paint("web", "two").await;
        s.request("back", "web", &json!({})).await;
        until("the application to be stopped", 120, async || {
            let phase = s.restored("back").await.phase.unwrap_or_default();
            let under_way = matches!(phase, RestorePhase::ScalingDown | RestorePhase::Restoring);
            under_way.then_some(()).ok_or_else(|| phase.to_string())
        })
        .await;
        let first = job(release, "restore", "back").await;
        let over = Patch::Merge(json!({ "spec": { "activeDeadlineSeconds": 1 } }));
        release.api::<Job>().patch(&first, &PatchParams::default(), &over).await.unwrap();
        phase(s, "back", RestorePhase::Completed).await;
        s.all_say("web", "one").await;
        s.tidy("web").await;
        let jobs = release.jobs("restore", "back").await;
        let attempts: Vec<_> = jobs.iter().map(|job| job.annotations()[annotation::ATTEMPT].as_str()).collect();
        assert_eq!(attempts, ["1", "2"], "the second has finished it");
        let replicas = s.api::<StatefulSet>().get("web").await.unwrap().spec.replicas;
        assert_eq!(replicas, Some(2), "read before it was stopped");
    })
    .await;
}
