//! The instant of a cut is known long before the snapshot is ready, and exactly: the whole freeze rests on it. No
//! product of ours is in this test, only the snapshot controller, the sidecar and the driver.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;
use sts_backup::api::snapshot::VolumeSnapshot;

use crate::harness::driver::TWO;
use crate::harness::make::{claim, is_ready};
use crate::harness::{With, scene, until};

const CLAIMS: usize = 3;

#[tokio::test]
async fn the_instant_of_the_cut_is_known_before_the_snapshot_is_ready() {
    let slow = With::Faulty(TWO, json!({ "cutDelay": "1s", "readyDelay": "20s" }));
    scene("cut", &[slow], async |s| {
        for n in 0..CLAIMS {
            let object = serde_json::from_value(claim(&format!("c{n}"), TWO.class)).unwrap();
            s.create::<PersistentVolumeClaim>(&object).await;
        }
        let volumes = until("volumes", 60, async || {
            let volumes = s.volumes().await;
            (volumes.len() == CLAIMS).then_some(volumes).ok_or_else(|| "not all of them are bound".into())
        });
        let volumes = volumes.await;
        for n in 0..CLAIMS {
            let source = json!({ "persistentVolumeClaimName": format!("c{n}") });
            let spec = json!({ "volumeSnapshotClassName": TWO.class, "source": source });
            let object = json!({ "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                "metadata": { "name": format!("s{n}") }, "spec": spec });
            s.create::<VolumeSnapshot>(&serde_json::from_value(object).unwrap()).await;
        }
        until("creationTime and handle of every content", 60, async || {
            for snapshot in s.snapshots().await {
                let status = s.content(&snapshot).await.and_then(|content| content.status).unwrap_or_default();
                if status.creation_time.is_none() || status.snapshot_handle.is_none() {
                    return Err(format!("{status:?}"));
                }
                assert_ne!(status.ready_to_use, Some(true), "ready before the readyDelay");
            }
            Ok(())
        })
        .await;
        let snapshots = s.snapshots().await;
        assert!(!snapshots.iter().any(is_ready), "a snapshot is ready before all contents tell their cut");
        let cuts = TWO.cuts(&volumes);
        assert_eq!((snapshots.len(), cuts.len()), (CLAIMS, CLAIMS));
        for snapshot in &snapshots {
            let status = s.content(snapshot).await.unwrap().status.unwrap();
            let cut = cuts.iter().find(|cut| status.snapshot_handle.as_ref() == Some(&cut.snapshot)).unwrap();
            assert_eq!(status.creation_time, Some(cut.cut), "the content's creationTime is the driver's cut");
        }
        until("readiness", 90, async || {
            s.snapshots().await.iter().all(is_ready).then_some(()).ok_or_else(|| "not all are ready".into())
        })
        .await;
    })
    .await;
}
