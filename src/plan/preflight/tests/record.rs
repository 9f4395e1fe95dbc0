//! What the record on the Lease says of which runs are restored.

use jiff::{SignedDuration, Timestamp};

use super::{Cluster, Severity, cluster};
use crate::api::condition::Reason;
use crate::plan::known::Snapshot;
use crate::plan::member::Odd;
use crate::plan::name::ClaimKey;
use crate::plan::roll::{Entry, Roll};

/// What is warned of; nothing is refused.
fn warnings(cluster: &Cluster) -> Vec<String> {
    let findings = cluster.findings().unwrap();
    assert!(findings.iter().all(|finding| finding.severity == Severity::Warn), "{findings:?}");
    findings.into_iter().map(|finding| finding.message).collect()
}

/// Its snapshot was deleted, and its dump applied again a day later.
fn made_again() -> Cluster {
    let mut cluster = cluster();
    let odd = Odd::Cut(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24));
    let source = cluster.source();
    (source.run, source.claim) = (None, None);
    source.stranger = Some(("20260101-000000".into(), odd));
    cluster
}

#[test]
fn what_somebody_puts_on_top_of_a_run_spoils_it_for_no_restore() {
    let mut cluster = cluster();
    let later = cluster.source().created + jiff::SignedDuration::from_secs(60);
    let claim = Some(ClaimKey { ordinal: 7, template: "data".into() });
    let top = Snapshot { claim, uid: "top".into(), created: later, ..cluster.source().clone() };
    cluster.sources.insert("top".into(), top.clone());
    assert_eq!(cluster.findings().unwrap(), vec![], "the first that were made are the run");
    // It was there before: what is on record says which is which.
    let early = Snapshot { created: Timestamp::MIN, ..top };
    cluster.sources.insert("top".into(), early);
    cluster.sources.values_mut().for_each(|source| source.maker.uid = "policy".into());
    assert!(
        cluster.findings().is_ok_and(|findings| !findings.is_empty()),
        "without a record they cannot be told apart"
    );
    let mut roll = Roll::default();
    let key = ClaimKey { ordinal: 0, template: "data".into() };
    roll.put("policy", "20260101-000000".parse().unwrap(), Entry::new(&[key], ["snap"]));
    cluster.lease.roll = Some(roll);
    assert_eq!(cluster.findings().unwrap(), vec![]);
}

/// Its uids are the proof: whatever somebody has taken off the snapshots since, it is restored.
#[test]
fn of_what_is_on_record_no_annotation_says_better_whether_it_is_whole() {
    let mut cluster = cluster();
    cluster.source().maker.uid = "policy".into();
    (cluster.source().size, cluster.source().sealed) = (Some(2), None);
    cluster.want.run_id = Some("20260101-000000".into());
    assert!(cluster.findings().unwrap_err().message.contains("1 of 2 snapshots are there"));
    let (mut roll, key) = (Roll::default(), ClaimKey { ordinal: 0, template: "data".into() });
    roll.put("policy", "20260101-000000".parse().unwrap(), Entry::new(&[key], ["snap"]));
    cluster.lease.roll = Some(roll);
    assert_eq!(cluster.findings().unwrap(), vec![]);
    cluster.source().uid = "another".into();
    assert!(cluster.findings().is_err(), "these are not the ones");
}

#[test]
fn the_record_of_a_statefulset_says_nothing_of_the_runs_of_another() {
    let mut cluster = cluster();
    cluster.lease.roll = Some(Roll::default());
    assert!(cluster.findings().unwrap_err().message.contains("is not on record"));
    cluster.want.run_id = Some("20260101-000000".into());
    assert_eq!(
        warnings(&cluster),
        ["run 20260101-000000 is not on record: nobody vouches for who made its snapshots, and when"]
    );
    cluster.lease.roll = None;
    assert_eq!(warnings(&cluster).len(), 1, "the record was lost");
    let mut roll = Roll::default();
    let key = ClaimKey { ordinal: 0, template: "data".into() };
    cluster.source().maker.uid = "policy".into();
    roll.put("policy", "20260101-000000".parse().unwrap(), Entry::new(std::slice::from_ref(&key), ["snap"]));
    cluster.lease.roll = Some(roll.clone());
    assert_eq!(cluster.findings().unwrap(), vec![]);
    roll.put("policy", "20260101-000000".parse().unwrap(), Entry::new(&[key], ["another of its name"]));
    cluster.lease.roll = Some(roll);
    assert_eq!(warnings(&cluster).len(), 1, "other snapshots under its name");
    cluster.want.run_id = None;
    cluster.want.source = "other".into();
    let source = cluster.source();
    (source.statefulset, source.pvc) = (Some("other".into()), Some("data-other-0".into()));
    assert_eq!(cluster.findings().unwrap(), vec![]);
}

#[test]
fn a_run_whose_dump_was_applied_again_is_refused_with_what_became_of_it() {
    for named in [None, Some("20260101-000000"), Some("20260102-000000")] {
        let mut cluster = made_again();
        cluster.want.run_id = named.map(Into::into);
        let refusal = cluster.findings().unwrap_err();
        assert_eq!(refusal.reason, Reason::RunNotFound);
        let told =
            refusal.message.contains("VolumeSnapshot snap was cut at 1970-01-02T00:00:00Z and not at 1970-01-01");
        assert_eq!(told, named != Some("20260102-000000"), "{}", refusal.message);
    }
}

#[test]
fn what_was_made_again_and_is_named_is_restored_with_a_warning() {
    let mut cluster = made_again();
    cluster.want.snapshot_names = vec!["snap".into()];
    let said = warnings(&cluster);
    assert!(
        said.iter().any(|said| said.starts_with("was cut at 1970-01-02T00:00:00Z and not at 1970-01-01")),
        "{said:?}"
    );
}

#[test]
fn a_plan_that_fits_into_no_status_is_refused_before_anything() {
    for (bytes, fits) in [(400_000, true), (600_000, false)] {
        let mut cluster = cluster();
        cluster.claim().manifest.annotations.insert("example.com/note".into(), "x".repeat(bytes));
        let found = cluster.findings().unwrap();
        let refused = found.iter().find(|finding| finding.reason == Reason::InvalidSpec);
        assert_eq!(refused.is_none(), fits, "{bytes}: {found:?}");
        assert!(
            refused.is_none_or(|refused| refused.message.contains("with the plan for 1 claims, would take 120")),
            "{refused:?}"
        );
    }
}
