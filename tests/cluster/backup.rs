//! The main thing: nine claims cut at once, the lock given back at the cut, readiness waited for afterwards, and all
//! of it told: on the snapshots, in status, as events, in the log.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::core::Resource;
use serde_json::{Value, json};
use sts_backup::api::backup::{BackupPhase, LastRun, StatefulSetBackupStatus};
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::{Consistency, IntentPhase, Outcome, Trigger};
use sts_backup::api::snapshot::VolumeSnapshot;
use sts_backup::api::{annotation, label};

use crate::harness::account;
use crate::harness::driver::{Entry, TWO};
use crate::harness::make::{App, is_ready, word};
use crate::harness::product::Ended;
use crate::harness::{Scene, With, scene, until};

const APP: App =
    App { name: "web", replicas: 3, start: 0, templates: &[("a", TWO.class), ("b", TWO.class), ("c", TWO.class)] };

#[tokio::test]
async fn nine_claims_are_cut_at_once_and_the_lock_is_free_long_before_they_are_ready() {
    let slow = With::Faulty(TWO, json!({ "cutDelay": "2s", "readyDelay": "20s" }));
    scene("nine", &[slow], async |s| {
        s.app(&APP).await;
        s.policy("nightly", "web", &json!({})).await;
        let run = s.start_backup("nightly", &[]);
        until("the record of the cut, and a free lock", 120, async || {
            let phase = s.get("nightly").await.status.and_then(|status| status.run?.intent).map(|intent| intent.phase);
            let holder = s.holder("web").await;
            let free = phase == Some(IntentPhase::Cut) && holder == Some(None);
            free.then_some(()).ok_or_else(|| format!("{phase:?}, held by {holder:?}"))
        })
        .await;
        let snapshots = s.snapshots().await;
        assert_eq!(snapshots.len(), 9);
        assert!(!snapshots.iter().any(is_ready), "the lock was held until a snapshot was ready");
        under_way(&s.get("nightly").await.status.unwrap());

        let ended = run.ended().await.expect(0);
        let cuts = TWO.cuts(&s.volumes().await);
        assert_eq!(cuts.len(), 9);
        let (last_begin, first_end) = (cuts.iter().map(|c| c.begin).max(), cuts.iter().map(|c| c.end).min());
        assert!(last_begin < first_end, "the cuts were not all under way at once: {cuts:?}");
        let status = s.get("nightly").await.status.unwrap();
        complete(s, &status, &cuts).await;
        for snapshot in &s.snapshots().await {
            describes_itself(s, snapshot, &cuts).await;
        }
        told(s, &status, &ended).await;
        audited(s, &ended).await;
    })
    .await;
}

fn under_way(status: &StatefulSetBackupStatus) {
    assert_eq!(status.phase, Some(BackupPhase::InProgress));
    assert_eq!(conditions(status), ["Ready Unknown BackupStarted", "Reconciling True BackupStarted", "Stalled False"]);
    assert!(status.last_backup_time.is_none() && status.history.is_empty());
}

/// Type, status, and the reason where it says something.
fn conditions(status: &StatefulSetBackupStatus) -> Vec<String> {
    let text = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        let reason = if c.type_ == "Stalled" && c.status == "False" { "" } else { &c.reason };
        format!("{} {} {reason}", c.type_, c.status).trim().to_owned()
    };
    status.conditions.iter().map(text).collect()
}

async fn complete(s: &Scene, status: &StatefulSetBackupStatus, cuts: &[Entry]) {
    assert_eq!(status.phase, Some(BackupPhase::Ready));
    assert_eq!(
        conditions(status),
        ["Ready True BackupCompleted", "Reconciling False BackupCompleted", "Stalled False"]
    );
    let generation = s.get("nightly").await.metadata.generation;
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == generation));
    assert!(status.run.is_none(), "the journal is closed");
    let newest = cuts.iter().map(|cut| cut.cut).max().unwrap();
    let oldest = cuts.iter().map(|cut| cut.cut).min().unwrap();
    assert_eq!(status.last_backup_time.as_ref().unwrap().0.as_second(), newest / 1_000_000_000);
    let last = status.last_run.as_ref().unwrap();
    let LastRun { attempt, trigger, outcome, reason, consistency, .. } = last;
    assert_eq!((*attempt, *trigger, *outcome), (Some(1), Some(Trigger::Command), Some(Outcome::Succeeded)));
    assert_eq!((*reason, *consistency), (Some(Reason::BackupCompleted), Some(Consistency::CrashPerVolume)));
    assert!(last.start_time < last.completion_time && last.slot.is_some());
    let skew = std::time::Duration::from_nanos((newest - oldest).unsigned_abs()).as_secs_f64();
    assert!((last.skew_seconds.unwrap() - skew).abs() <= 0.000_501, "{:?} is not {skew}", last.skew_seconds);
    let claims: Vec<_> = last.snapshots.iter().map(|snapshot| snapshot.pvc_name.as_deref().unwrap()).collect();
    let expected = ["a-web-0", "b-web-0", "c-web-0", "a-web-1", "b-web-1", "c-web-1", "a-web-2", "b-web-2", "c-web-2"];
    assert_eq!(claims, expected);
    assert!(last.snapshots.iter().all(|snapshot| snapshot.ready_to_use == Some(true)));
    assert_eq!(status.history.len(), 1);
    let entry = &status.history[0];
    assert_eq!((Some(&entry.id), entry.snapshots, entry.outcome), (last.id.as_ref(), Some(9), last.outcome));
}

/// All that a restore needs is on the snapshot itself.
async fn describes_itself(s: &Scene, snapshot: &VolumeSnapshot, cuts: &[Entry]) {
    let policy = s.get("nightly").await;
    let run = policy.status.clone().unwrap().last_run.unwrap().id.unwrap();
    let (template, ordinal) = (word(snapshot, label::CLAIM_TEMPLATE), word(snapshot, label::ORDINAL));
    assert_eq!(snapshot.name_any(), format!("nightly-{template}-{run}-{ordinal}"));
    let claim = format!("{template}-web-{ordinal}");
    assert_eq!(snapshot.spec.source.persistent_volume_claim_name.as_ref(), Some(&claim));
    assert_eq!(snapshot.spec.volume_snapshot_class_name.as_deref(), Some(TWO.class));
    // Our own type reads none of the keys of others.
    let kind = kube::discovery::ApiResource::erase::<VolumeSnapshot>(&());
    let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(s.client.clone(), &s.namespace, &kind);
    let whole = api.get(&snapshot.name_any()).await.unwrap();
    for (key, value) in [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::STATEFULSET, "web"),
        (label::POLICY, "nightly"),
        (label::POLICY_NAMESPACE, &s.namespace),
        (label::POLICY_UID, policy.metadata.uid.as_deref().unwrap()),
        (label::RUN, &run),
    ] {
        assert_eq!(whole.labels().get(key).map(String::as_str), Some(value), "label {key}");
    }
    assert_eq!(whole.labels().len(), 8, "labels of the workload are not copied: {:?}", whole.labels());
    let handle = s.content(snapshot).await.unwrap().status.unwrap().snapshot_handle.unwrap();
    let cut = cuts.iter().find(|cut| cut.snapshot == handle).unwrap();
    let lease = s.api::<Lease>().get("sts-backup-web").await.unwrap();
    let epoch = lease.spec.unwrap().lease_transitions.unwrap();
    for (key, value) in [
        (annotation::RUN_SIZE, "9"),
        (annotation::REPLICAS, "3"),
        (annotation::TRANSITIONS, &epoch.to_string()),
        (annotation::FORMAT, "1"),
        (annotation::CUT, &cut.cut.to_string()),
        (annotation::CONSISTENCY, "CrashPerVolume"),
    ] {
        assert_eq!(word(snapshot, key), value, "annotation {key}");
    }
    assert_ne!(word(snapshot, annotation::TEMPLATE_HASH), "");
    let manifest: Value = serde_json::from_str(word(snapshot, annotation::CLAIM)).unwrap();
    let expected = json!({ "storageClassName": TWO.class, "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem", "storage": "10Mi", "labels": { "app": "web" } });
    assert_eq!(manifest, expected);
    assert!(snapshot.owner_references().is_empty(), "Retain: nobody owns it");
}

/// Events on both objects, and the last line of the log.
async fn told(s: &Scene, status: &StatefulSetBackupStatus, ended: &Ended) {
    for (kind, name) in [("StatefulSetBackup", "nightly"), ("StatefulSet", "web")] {
        let events = s.events(kind, name).await;
        let reasons: Vec<_> = events.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(reasons.first(), Some(&"BackupStarted"), "{kind}: {events:?}");
        assert_eq!(reasons.last(), Some(&"BackupCompleted"), "{kind}: {events:?}");
    }
    assert!(s.api::<StatefulSet>().get("web").await.unwrap().meta().annotations.is_none());
    assert_eq!(ended.summary(), serde_json::to_value(&status.last_run).unwrap());
}

/// Every line but the last is about one request, and every mutating request has its line.
async fn audited(s: &Scene, ended: &Ended) {
    assert_eq!(ended.audit.len() + 1, ended.stdout.len(), "{:#?}", ended.stdout);
    let count = |step: &str| ended.audit.iter().filter(|line| line.step == step).count();
    assert_eq!((count("Lock"), count("Snapshot"), count("Seal"), count("Unlock")), (1, 9, 9, 1));
    assert!(count("Write") >= 3, "intent, cut, end");
    let run = s.get("nightly").await.status.unwrap().last_run.unwrap().id;
    for line in &ended.audit {
        assert!(line.time.parse::<jiff::Timestamp>().is_ok() && line.level == "info", "{line:?}");
        assert!(line.outcome == "ok" && line.code.is_some() && line.object.split('/').count() == 3, "{line:?}");
        assert!(line.step == "Lock" || line.run == run, "{line:?}");
    }
    let Some(mut asked) = account::mutations(s) else { return };
    // Events are told beside the audit log.
    asked.retain(|request| !request.contains(" event/"));
    let mut lines: Vec<_> = ended.audit.iter().map(|line| format!("{} {}", line.verb, line.object)).collect();
    lines.sort();
    asked.sort();
    assert_eq!(lines, asked, "the product's own audit lines, and the API server's");
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 9 * 2 + 3, "{lines:#?}");
}
