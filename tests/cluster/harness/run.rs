//! Runs as their snapshots tell them.

use std::collections::BTreeMap;

use sts_backup::api::snapshot::VolumeSnapshot;
use sts_backup::api::{annotation, label};

use super::Scene;
use super::make::{is_ready, word};

/// Its snapshots by run, without those that were deleted: deleted in the middle of its cut, a snapshot stays
/// Terminating until the sidecar's next resync, which may be a quarter of an hour later.
pub async fn runs(s: &Scene, policy: &str) -> BTreeMap<String, Vec<VolumeSnapshot>> {
    let mut runs: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let ours = |one: &VolumeSnapshot| word(one, label::POLICY) == policy && one.metadata.deletion_timestamp.is_none();
    for snapshot in s.snapshots().await.into_iter().filter(ours) {
        runs.entry(word(&snapshot, label::RUN).to_owned()).or_default().push(snapshot);
    }
    runs
}

/// So many complete runs, nothing partial, no mixture, a free lock and a closed journal.
pub async fn whole(s: &Scene, policy: &str, count: usize) {
    let runs = runs(s, policy).await;
    assert_eq!(runs.len(), count, "{policy}: one complete run for each slot: {:?}", runs.keys());
    for (run, snapshots) in &runs {
        let size = word(&snapshots[0], annotation::RUN_SIZE);
        assert_eq!(snapshots.len().to_string(), size, "{policy} {run} is partial");
        let epoch = word(&snapshots[0], annotation::TRANSITIONS);
        for snapshot in snapshots {
            assert!(is_ready(snapshot) && !word(snapshot, annotation::CUT).is_empty(), "{policy} {run}");
            assert_eq!(word(snapshot, annotation::TRANSITIONS), epoch, "{policy} {run} is a mixture");
        }
    }
    let status = s.get(policy).await.status.unwrap();
    assert!(status.run.is_none(), "{policy}: the journal is closed");
    assert_eq!(status.history.len(), count.min(10), "{policy}: each slot counts once");
    let statefulset = s.get(policy).await.spec.stateful_set_ref.name;
    assert_eq!(s.holder(&statefulset).await, Some(None), "{policy}: the lock is free");
}
