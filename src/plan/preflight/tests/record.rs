//! What the record on the Lease says of which runs are restored.

use jiff::Timestamp;

use super::cluster;
use crate::plan::name::ClaimKey;
use crate::plan::restore::sight::Source;
use crate::plan::roll::{Entry, Roll};

#[test]
fn what_somebody_puts_on_top_of_a_run_spoils_it_for_no_restore() {
    let mut cluster = cluster();
    let later = cluster.source().created + jiff::SignedDuration::from_secs(60);
    let claim = Some(ClaimKey { ordinal: 7, template: "data".into() });
    let top = Source { claim, uid: "top".into(), created: later, ..cluster.source().clone() };
    cluster.sources.insert("top".into(), top.clone());
    assert_eq!(cluster.findings().unwrap(), vec![], "the first that were made are the run");
    // It was there before: what is on record says which is which.
    let early = Source { created: Timestamp::MIN, ..top };
    cluster.sources.insert("top".into(), early);
    cluster.sources.values_mut().for_each(|source| source.policy_uid = Some("policy".into()));
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

#[test]
fn the_record_of_a_statefulset_says_nothing_of_the_runs_of_another() {
    let mut cluster = cluster();
    cluster.lease.roll = Some(Roll::default());
    assert!(cluster.findings().unwrap_err().message.contains("is not on record"));
    cluster.want.run_id = Some("20260101-000000".into());
    assert_eq!(cluster.findings().unwrap(), vec![], "what is named is taken as it is");
    cluster.want.run_id = None;
    cluster.want.source = "other".into();
    let source = cluster.source();
    (source.statefulset, source.pvc) = (Some("other".into()), Some("data-other-0".into()));
    assert_eq!(cluster.findings().unwrap(), vec![]);
}
