//! What a dry run says of the same clusters.

use jiff::Timestamp;

use super::{Case, REFUSED, cluster, said};
use crate::api::restore::{Strategy, Uncovered};
use crate::plan::noun::{Holder, Open};
use crate::plan::preflight::Severity;
use crate::plan::restore::sight::Fence;

#[test]
fn a_preview_of_a_sound_restore_tells_claims_and_steps() {
    let mut cluster = cluster();
    cluster.source().restore_size = Some("2Gi".into());
    let seen = cluster.preview();
    assert!(!seen.refuses());
    assert_eq!((seen.run.as_deref(), seen.cut), (Some("20260101-000000"), Some(Timestamp::UNIX_EPOCH)));
    let claim = serde_json::json!({ "pvc": "data-web-0", "snapshot": "snap", "oldPv": "pv", "size": "2Gi" });
    assert_eq!(serde_json::to_value(&seen.claims).unwrap(), serde_json::json!([claim]));
    let at = |words: &str| seen.steps.iter().position(|step| step.contains(words)).unwrap_or_else(|| panic!("{words}"));
    let order =
        ["take the lock", "make 1 new volumes", "to Retain", "fence", "from 1 to 0", "under the claims", "scale to 1"];
    assert!(order.map(at).is_sorted(), "{:?}", seen.steps);
    cluster.want.strategy = Strategy::InPlace;
    assert!(cluster.preview().steps.iter().all(|step| !step.contains("new volumes from")));
}

/// What refuses a restore refuses its preview, with one exception: who asks need not be who carries it out.
#[test]
fn a_preview_refuses_what_a_restore_refuses() {
    for (wanted, spoil) in REFUSED {
        let mut cluster = cluster();
        spoil(&mut cluster);
        let seen = cluster.preview();
        let severity = if wanted.contains("lacks the right") { Severity::Warn } else { Severity::Refuse };
        let wanted = if severity == Severity::Warn { "it may not delete" } else { wanted };
        let said = said(&seen.findings, severity);
        assert!(said.iter().any(|said| said.contains(wanted)), "{wanted}: {said:?}");
        assert_eq!(seen.refuses(), severity == Severity::Refuse, "{wanted}");
    }
}

#[test]
fn a_preview_tells_of_locks_of_repetition_and_of_no_run() {
    let cases: &[(bool, Case)] = &[
        (
            true,
            ("has left run", |c| c.lease.open = Some(Open { kind: "StatefulSetRestore".into(), ..Open::default() })),
        ),
        (
            false,
            ("has left run", |c| c.lease.open = Some(Open { kind: "StatefulSetBackup".into(), ..Open::default() })),
        ),
        (false, ("holds the lock", |c| c.lease.holder = Some(Holder("somebody".into())))),
        (true, ("has been carried out before", |c| c.lease.restored = vec!["shop/back@ 2026-01-01T00:00:00Z".into()])),
        (false, ("is not installed", |c| c.fence = Fence::Missing)),
        (true, ("there is no run of StatefulSet web", |c| c.sources.clear())),
    ];
    for (refuses, (wanted, spoil)) in cases {
        let mut cluster = cluster();
        spoil(&mut cluster);
        let seen = cluster.preview();
        assert!(seen.findings.iter().any(|one| one.message.contains(wanted)), "{wanted}: {:?}", seen.findings);
        assert_eq!(seen.refuses(), *refuses, "{wanted}");
    }
}

/// Pods that stop in turn have their grace period each; those that stop at once all have the same.
#[test]
fn how_long_pods_may_take_to_stop_follows_their_order() {
    for (order, expected) in [("OrderedReady", "6m"), ("Parallel", "3m")] {
        let mut cluster = cluster();
        cluster.target.manifest = serde_json::json!({ "spec": { "podManagementPolicy": order,
            "template": { "spec": { "terminationGracePeriodSeconds": 60 } } } });
        (cluster.target.replicas, cluster.want.uncovered) = (4, Uncovered::Keep);
        let steps = cluster.preview().steps;
        let wanted = format!("wait until nothing uses the claims, {expected} at most");
        assert!(steps.iter().any(|step| step.contains(&wanted)), "{order}: {steps:?}");
    }
}
