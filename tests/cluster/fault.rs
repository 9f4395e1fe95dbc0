//! A storage that fails: for a while, for good, or by never being ready. What a run leaves behind then.

use serde_json::{Value, json};
use sts_backup::api::backup::{BackupPhase, StatefulSetBackupStatus};
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::Outcome;
use sts_backup::api::{annotation, label};

use crate::harness::driver::TWO;
use crate::harness::make::{App, is_ready, word};
use crate::harness::{Scene, With, scene, until};

const APP: App = App { name: "web", replicas: 2, start: 0, templates: &[("a", TWO.class)] };

async fn on_a_faulty_driver(name: &str, control: Value, test: impl AsyncFnOnce(&Scene)) {
    scene(name, &[With::Faulty(TWO, control)], async |s| {
        s.create(&APP.placeless()).await;
        // A second ordinal does not come by itself when the first one has no place: one claim for each is enough.
        s.create(&serde_json::from_value::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(second()).unwrap()).await;
        until("both volumes", 60, async || {
            let volumes = s.volumes().await.len();
            (volumes == 2).then_some(()).ok_or_else(|| format!("{volumes} volumes"))
        })
        .await;
        test(s).await;
    })
    .await;
}

fn second() -> Value {
    crate::harness::make::claim("a-web-1", TWO.class)
}

async fn status(s: &Scene) -> StatefulSetBackupStatus {
    s.get("nightly").await.status.unwrap()
}

async fn failed(s: &Scene, reason: Reason) {
    let status = status(s).await;
    let last = status.last_run.clone().unwrap();
    assert_eq!((status.phase, last.outcome), (Some(BackupPhase::Failed), Some(Outcome::Failed)));
    assert_eq!(last.reason, Some(reason), "{:?}", status.message);
    assert!(status.run.is_none() && status.last_backup_time.is_none());
    assert_eq!(s.holder("web").await, Some(None), "the lock is free");
    let events = s.events("StatefulSetBackup", "nightly").await;
    assert_eq!(events.last().map(|(reason, _)| reason.as_str()), Some("BackupFailed"), "{events:?}");
}

#[tokio::test]
async fn a_driver_that_heals_costs_no_run() {
    on_a_faulty_driver("heals", json!({ "failCreateSnapshot": 2 }), async |s| {
        s.policy("nightly", "web", &json!({})).await;
        s.backup("nightly", &[]).await.expect(0);
        let snapshots = s.snapshots().await;
        assert_eq!(snapshots.len(), 2);
        assert!(snapshots.iter().all(is_ready));
        let runs: std::collections::BTreeSet<_> = snapshots.iter().map(|snapshot| word(snapshot, label::RUN)).collect();
        assert_eq!(runs.len(), 1, "the sidecar's own retries are waited for: no second run was begun");
    })
    .await;
}

#[tokio::test]
async fn a_driver_that_fails_for_good_fails_the_run_and_leaves_nothing_partial() {
    on_a_faulty_driver("fails", json!({}), async |s| {
        s.drivers()[0].control(&json!({ "failCreateSnapshot": 10_000 }));
        // Without hooks nobody stands still meanwhile: the driver may heal for as long as a snapshot may take.
        s.policy("nightly", "web", &json!({ "maxFreezeSeconds": 6, "snapshotReadyTimeoutSeconds": 20 })).await;
        let ended = s.backup("nightly", &[]).await.expect(10);
        assert!(ended.stderr.contains("control.json asks for it"), "the driver's own words: {}", ended.stderr);
        failed(s, Reason::SnapshotFailed).await;
        s.drivers()[0].control(&json!({}));
        until("the partial snapshots' end", 90, async || match s.snapshots().await {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{} left", left.len())),
        })
        .await;
        s.backup("nightly", &[]).await.expect(0);
        assert_eq!(s.snapshots().await.len(), 2, "the next run is none the worse");
    })
    .await;
}

#[tokio::test]
async fn a_cut_that_takes_too_long_ends_the_freeze() {
    on_a_faulty_driver("slow", json!({ "cutDelay": "12s" }), async |s| {
        s.policy("nightly", "web", &json!({ "maxFreezeSeconds": 3 })).await;
        s.backup("nightly", &[]).await.expect(10);
        failed(s, Reason::FreezeTooLong).await;
        // Deleted in the middle of its cut, a snapshot stays Terminating until the sidecar's next resync.
        assert!(s.snapshots().await.iter().all(|snapshot| snapshot.metadata.deletion_timestamp.is_some()));
    })
    .await;
}

#[tokio::test]
async fn snapshots_that_are_never_ready_fail_the_run_but_are_kept() {
    on_a_faulty_driver("never", json!({ "neverReady": true }), async |s| {
        s.policy("nightly", "web", &json!({ "snapshotReadyTimeoutSeconds": 5 })).await;
        let ended = s.backup("nightly", &[]).await.expect(10);
        assert!(ended.stderr.contains("spec.snapshotReadyTimeoutSeconds (5 s)"), "{}", ended.stderr);
        failed(s, Reason::SnapshotTimeout).await;
        let snapshots = s.snapshots().await;
        assert_eq!(snapshots.len(), 2, "nothing is deleted: an upload may still come to its end");
        for snapshot in &snapshots {
            assert!(snapshot.metadata.deletion_timestamp.is_none() && !is_ready(snapshot));
            assert_ne!(word(snapshot, annotation::CUT), "", "it was cut, and says so");
        }
    })
    .await;
}
