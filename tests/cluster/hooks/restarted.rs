//! What was frozen goes away in the freeze: the run is void, its snapshots are deleted, and it freezes anew.

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;
use sts_backup::api::condition::Reason;

use super::{FREEZE, hooks, hooks_and, one, sh, slow, small};
use crate::harness::driver::TWO;
use crate::harness::run::{runs, whole};
use crate::harness::{Scene, is_long, scene, until};

/// The driver's handles of the policy's snapshots.
pub async fn handles(s: &Scene, policy: &str) -> Vec<String> {
    let mut handles = Vec::new();
    for snapshot in runs(s, policy).await.into_values().flatten() {
        handles.push(s.content(&snapshot).await.unwrap().status.unwrap().snapshot_handle.unwrap());
    }
    handles
}

#[tokio::test]
async fn a_container_or_pod_that_goes_in_the_freeze_makes_it_void_and_another_one_follows() {
    scene("void", &[slow()], async |s| {
        futures::join!(
            Box::pin(void(s, "container", async |pod| s.restart(pod).await)),
            Box::pin(void(s, "pod", async |pod| {
                let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                s.api::<Pod>().delete(pod, &now).await.unwrap();
            })),
        );
    })
    .await;
}

/// Strikes the second of two pods between freeze and cut.
async fn void(s: &Scene, app: &str, strike: impl AsyncFnOnce(&str)) {
    s.app(&small(app, 2, &one(TWO))).await;
    s.policy(app, app, &hooks()).await;
    let run = s.start_backup(app, &[]);
    run.reaches("Snapshot", 2).await;
    strike(&format!("{app}-1")).await;
    let ended = run.ended().await.expect(0);
    let runs: std::collections::BTreeSet<_> = ended.audit.iter().filter_map(|line| line.run.clone()).collect();
    assert_eq!(runs.len(), 2, "{app}: the second freeze has an id of its own: {runs:?}");
    let last = s.get(app).await.status.unwrap().last_run.unwrap();
    assert_eq!(last.id.as_ref(), runs.last(), "{app}: and it is the run");
    let deleted = ended.audit.iter().filter(|line| line.step == "Delete").count();
    assert_eq!(deleted, 2, "{app}: what the first one made is deleted");
    whole(s, app, 1).await;
    s.ready(app).await;
    s.runs_free(app).await;
    let handles = handles(s, app).await;
    let cuts: Vec<_> = TWO.cuts(&s.volumes().await);
    let cuts: Vec<_> = cuts.into_iter().filter(|cut| handles.contains(&cut.snapshot)).collect();
    assert_eq!(cuts.len(), 2);
    for pod in [format!("{app}-0"), format!("{app}-1")] {
        let (pre, post) = (s.instants(&pod, "pre").await, s.instants(&pod, "post").await);
        super::frozen::enclosed(&cuts, &[(*pre.last().unwrap(), *post.last().unwrap())]);
    }
}

#[tokio::test]
async fn a_pod_that_is_deleted_in_each_freeze_fails_the_run_after_three_with_pauses_between_them() {
    if !is_long() {
        return;
    }
    scene("evicted", &[slow()], async |s| {
        s.app(&small("web", 1, &one(TWO))).await;
        s.policy("nightly", "web", &hooks()).await;
        let run = s.start_backup("nightly", &[]);
        let mut cuts = vec![];
        for freeze in 1..=3 {
            run.reaches("Snapshot", freeze).await;
            cuts.push(std::time::Instant::now());
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            s.api::<Pod>().delete("web-0", &now).await.unwrap();
        }
        let ended = run.ended().await.expect(10);
        assert!(ended.stderr.contains("pod web-0 was deleted or replaced in the freeze"), "{}", ended.stderr);
        let last = s.get("nightly").await.status.unwrap().last_run.unwrap();
        assert_eq!(last.reason, Some(Reason::PodNotRunning));
        let pauses: Vec<_> = cuts.windows(2).map(|two| two[1].duration_since(two[0]).as_secs()).collect();
        assert!(pauses[0] >= 10 && pauses[1] >= 20, "{pauses:?}");
        assert_eq!(ended.audit.iter().filter(|line| line.step == "Snapshot").count(), 3);
        s.ready("web").await;
        s.runs_free("web").await;
    })
    .await;
}

#[tokio::test]
async fn a_container_that_outlives_no_freeze_fails_the_run_after_three() {
    if !is_long() {
        return;
    }
    scene("frail", &[slow()], async |s| {
        let mut app = small("web", 1, &one(TWO)).manifest();
        let container = &mut app.spec.template.spec.as_mut().unwrap().containers[0];
        // A probe that does not outlast the freeze, as the README warns.
        container.liveness_probe = Some(
            serde_json::from_value(json!({
                "exec": { "command": ["sh", "-c", "! test -e /run/lock-app/frozen"] },
                "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 1,
            }))
            .unwrap(),
        );
        s.app_of(&app).await;
        s.policy(
            "nightly",
            "web",
            &hooks_and(&json!({ "preBackupHook": sh(&format!("rm -f /run/lock-app/frozen; {FREEZE}")) })),
        )
        .await;
        let ended = s.backup("nightly", &[]).await.expect(10);
        assert!(ended.stderr.contains("does its liveness probe outlast the freeze?"), "{}", ended.stderr);
        let last = s.get("nightly").await.status.unwrap().last_run.unwrap();
        assert_eq!(last.reason, Some(Reason::PodNotRunning));
        until("the container's last restart", 300, async || {
            let pod: Pod = s.api().get("web-0").await.unwrap();
            let containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            // In its back-off there is nothing to look into.
            if !containers.iter().all(|one| one.state.as_ref().is_some_and(|state| state.running.is_some())) {
                return Err("not running".into());
            }
            if s.is_frozen("web-0").await { Err("frozen".into()) } else { Ok(()) }
        })
        .await;
        s.runs_free("web").await;
    })
    .await;
}
