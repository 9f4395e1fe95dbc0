//! Runs as their snapshots tell them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use sts_backup::api::snapshot::VolumeSnapshot;
use sts_backup::api::{annotation, label};

use super::make::{is_ready, word};
use super::{Scene, until};

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

/// So many complete runs, nothing partial, no mixture, a lock that may be taken and a closed journal.
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
    until(&format!("{policy}: a lock that may be taken"), 90, async || {
        let lease = s.api::<Lease>().get(&format!("sts-backup-{statefulset}")).await.unwrap().spec.unwrap_or_default();
        let free = lease.holder_identity.as_deref().unwrap_or_default().is_empty();
        // A process that was killed holding it has left it behind: it runs out.
        let (renewed, lasts) = (lease.renew_time.clone().unwrap().0, lease.lease_duration_seconds.unwrap());
        let out = Timestamp::now().duration_since(renewed).as_secs() >= i64::from(lasts);
        (free || out).then_some(()).ok_or_else(|| format!("{lease:?}"))
    })
    .await;
}
