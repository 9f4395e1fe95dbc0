//! Templates of the run against those of the StatefulSet: a claim that nobody mounts is no restore.

use super::{Cluster, cluster, said};
use crate::api::condition::Reason;
use crate::plan::known::Snapshot;
use crate::plan::name::ClaimKey;
use crate::plan::preflight::{Severity, verdict};

/// The run has a second template, of which the StatefulSet has no claim.
fn with_wal() -> Cluster {
    let mut cluster = cluster();
    cluster.source().size = Some(2);
    let wal = Snapshot {
        uid: "snap".into(),
        claim: Some(ClaimKey { ordinal: 0, template: "wal".into() }),
        pvc: Some("wal-web-0".into()),
        ..cluster.source().clone()
    };
    cluster.sources.insert("snap-wal".into(), wal);
    cluster
}

/// All that is said with that severity, remedies included.
fn all(cluster: &Cluster, severity: Severity) -> String {
    let findings = cluster.findings().unwrap();
    let of = findings.iter().filter(|finding| finding.severity == severity);
    of.map(|finding| format!("{}: {} ({})", finding.object, finding.message, finding.remedy))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_template_that_the_statefulset_lacks_is_refused_and_what_fits_is_named() {
    let mut cluster = with_wal();
    let refused = all(&cluster, Severity::Refuse);
    assert!(refused.contains("StatefulSet shop/web: has no volumeClaimTemplate wal, which the run has"), "{refused}");
    assert!(refused.contains("--snapshots snap)"), "{refused}");
    assert!(cluster.preview().refuses());
    // And what is printed works.
    cluster.want.snapshot_names = vec!["snap".into()];
    assert_eq!(verdict(&cluster.findings().unwrap()), None);
}

#[test]
fn a_statefulset_of_which_the_run_has_no_template_is_refused() {
    let mut cluster = cluster();
    cluster.target.templates = vec!["disk".into()];
    let refused = all(&cluster, Severity::Refuse);
    assert!(refused.contains("has no volumeClaimTemplate data, which the run has"), "{refused}");
    assert!(refused.contains("none of its own (disk) is in the run"), "{refused}");
    assert!(!refused.contains("--snapshots"), "nothing of the run fits: {refused}");
    cluster.target.templates = vec![];
    assert!(all(&cluster, Severity::Refuse).contains("has no volumeClaimTemplate data, which the run has"));
    // Also where the snapshots are named one by one.
    cluster.want.snapshot_names = vec!["snap".into()];
    let refused = all(&cluster, Severity::Refuse);
    assert!(refused.contains("has no volumeClaimTemplate data, which spec.snapshotNames names"), "{refused}");
}

#[test]
fn a_claim_that_the_pods_mount_themselves_needs_no_template() {
    let mut cluster = cluster();
    cluster.target.templates = vec![];
    cluster.target.outside = vec!["data-web-0".into()];
    assert_eq!(all(&cluster, Severity::Refuse), "");
}

#[test]
fn what_is_restored_by_name_says_what_it_leaves() {
    let mut cluster = with_wal();
    cluster.want.snapshot_names = vec!["snap".into()];
    (cluster.target.replicas, cluster.target.templates) = (3, vec!["data".into(), "logs".into()]);
    let warned = all(&cluster, Severity::Warn);
    for left in ["logs-web-0", "data-web-1", "logs-web-1", "data-web-2", "logs-web-2"] {
        assert!(warned.contains(left), "{left}: {warned}");
    }
    assert!(warned.contains("stay as they are") && !warned.contains("data-web-0,"), "{warned}");
    assert_eq!(all(&cluster, Severity::Refuse), "");
    // Whole: nothing is left, and nothing is said.
    (cluster.target.replicas, cluster.target.templates) = (1, vec!["data".into()]);
    assert_eq!(said(&cluster.findings().unwrap(), Severity::Warn), Vec::<String>::new());
}

#[test]
fn without_a_statefulset_its_own_runs_are_restored_and_no_others() {
    let mut cluster = cluster();
    cluster.absent = true;
    cluster.pods.clear();
    assert_eq!(all(&cluster, Severity::Refuse), "", "its claims are made for it");
    cluster.want.source = "wbe".into();
    let source = cluster.source();
    (source.statefulset, source.pvc) = (Some("wbe".into()), Some("data-wbe-0".into()));
    let findings = cluster.findings().unwrap();
    let refusal = verdict(&findings).expect("a name that was mistyped makes no claims");
    assert_eq!(refusal.reason, Reason::StatefulSetNotFound);
    assert!(refusal.message.contains("StatefulSet shop/web: does not exist"), "{}", refusal.message);
}
