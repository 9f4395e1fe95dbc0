//! Everything that a run refuses before it makes anything: exit 10, its reason wherever one looks, a sentence that
//! names the field and the remedy, and no VolumeSnapshot. All sentences are in `snapshots/refusals.snap`.

use std::cell::RefCell;
use std::fmt::Write;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::backup::{BackupPhase, StatefulSetBackup};
use sts_backup::api::condition::{self, ConditionType};
use sts_backup::api::shared::Outcome;

use crate::api::assert_snapshot;
use crate::harness::account::{account, write_kubeconfig};
use crate::harness::driver::{SIM, TWO};
use crate::harness::make::{App, policy};
use crate::harness::product::Ended;
use crate::harness::{Scene, With, scene, until};

/// What was said, by case.
#[derive(Default)]
struct Sentences(RefCell<String>);

impl Sentences {
    fn add(&self, s: &Scene, case: &str, sentence: &str) {
        let sentence = sentence.replace(&s.namespace, "NS");
        write!(self.0.borrow_mut(), "{case}\n    {}\n", sentence.trim().replace('\n', "\n    ")).unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_backed_up_is_refused_with_a_sentence_and_nothing_is_made() {
    scene("refused", &[With::Healthy(SIM)], async |s| {
        let said = Sentences::default();
        let dead = write_kubeconfig(&format!("{}-dead", s.namespace), |config| {
            config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9".into();
        });
        let target = format!("{}/any", s.namespace);
        let unreachable = s.start_as(&dead, &["run-once", "backup", &target]);
        claims(s, &said).await;
        strange_volumes(s, &said).await;
        classes(s, &said).await;
        namespaces(s, &said).await;
        rights(s, &said).await;
        usage(s, &said).await;
        assert!(s.snapshots().await.is_empty(), "nothing was made");
        let ended = unreachable.ended().await.expect(20);
        said.add(s, "an API server that cannot be reached: exit 20", &ended.stderr);
        assert_snapshot("refusals", &said.0.take());
    })
    .await;
}

/// Runs the policy, finds the reason in all places, and keeps the sentence.
async fn refused(s: &Scene, said: &Sentences, case: &str, reason: &str, policy: &str) {
    let ended = s.backup(policy, &[]).await.expect(10);
    let sentence = ended.stderr.strip_prefix(&format!("{reason}: ")).unwrap_or_else(|| panic!("{case}: {ended:?}"));
    let status = s.get(policy).await.status.unwrap();
    assert_eq!(status.phase, Some(BackupPhase::Failed), "{case}");
    assert_eq!(status.message.as_deref(), Some(sentence), "{case}");
    for kind in [ConditionType::Ready, ConditionType::Stalled] {
        let condition = condition::get(&status.conditions, kind).unwrap();
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), (reason, sentence), "{case}");
        assert_eq!(condition.status, if kind == ConditionType::Ready { "False" } else { "True" }, "{case}");
    }
    let last = status.last_run.unwrap();
    assert_eq!((last.outcome, last.reason.unwrap().as_str()), (Some(Outcome::Failed), reason), "{case}");
    assert!(status.run.is_none() && last.snapshots.is_empty(), "{case}");
    let events = s.events("StatefulSetBackup", policy).await;
    let expected = ("BackupFailed".to_owned(), format!("{reason}: {sentence}"));
    assert_eq!(events.last(), Some(&expected), "{case}");
    assert_eq!(ended.summary()["reason"], reason, "{case}");
    assert!(made(&ended).is_empty(), "{case}: {:?}", made(&ended));
    let lease = s.get(policy).await.spec.stateful_set_ref.name;
    assert!(!matches!(s.holder(&lease).await, Some(Some(_))), "{case}: the lock is held");
    said.add(s, case, &ended.stderr);
}

/// What was created beside the Lease.
fn made(ended: &Ended) -> Vec<&str> {
    let made = ended.audit.iter().filter(|line| line.verb == "create" && !line.object.starts_with("lease/"));
    made.map(|line| line.object.as_str()).collect()
}

async fn claims(s: &Scene, said: &Sentences) {
    s.policy("absent", "absent", &json!({})).await;
    refused(s, said, "no such StatefulSet", "StatefulSetNotFound", "absent").await;
    let lease = s.api::<Lease>().get_opt("sts-backup-absent").await.unwrap();
    assert!(lease.is_none(), "no Lease is left for a StatefulSet that never was");

    s.create(&App { name: "none", replicas: 0, start: 0, templates: &[("a", SIM.class)] }.manifest()).await;
    s.policy("none", "none", &json!({})).await;
    refused(s, said, "no replicas, and no claims left", "NoClaims", "none").await;
    s.create(&App { name: "bare", replicas: 0, start: 0, templates: &[] }.manifest()).await;
    s.policy("bare", "bare", &json!({})).await;
    refused(s, said, "no volumeClaimTemplates", "NoClaims", "bare").await;

    // OrderedReady never comes to the second replica.
    s.create(&App { name: "half", replicas: 2, start: 0, templates: &[("a", SIM.class)] }.placeless()).await;
    bound(s, "a-half-0").await;
    s.policy("half", "half", &json!({})).await;
    refused(s, said, "a replica's claim does not exist", "ClaimMissing", "half").await;
    s.policy("stranger", "half", &json!({ "claimTemplates": ["a", "b"] })).await;
    refused(s, said, "claimTemplates names one that is not there", "ClaimMissing", "stranger").await;

    s.app(&App { name: "leaving", replicas: 1, start: 0, templates: &[("a", SIM.class)] }).await;
    s.api::<PersistentVolumeClaim>().delete("a-leaving-0", &DeleteParams::default()).await.unwrap();
    s.policy("leaving", "leaving", &json!({})).await;
    refused(s, said, "a claim that its pod still holds was deleted", "ClaimMissing", "leaving").await;

    let late = SIM.late();
    for (name, class, case) in [
        ("late", late.as_str(), "a claim that waits for its pod"),
        ("classless", "no-such-class", "a claim of a StorageClass that does not exist"),
    ] {
        s.create(&App { name, replicas: 1, start: 0, templates: &[("a", class)] }.placeless()).await;
        until(name, 60, async || {
            let claim = s.api::<PersistentVolumeClaim>().get_opt(&format!("a-{name}-0")).await.unwrap();
            claim.map(drop).ok_or_else(|| "no claim".into())
        })
        .await;
        s.policy(name, name, &json!({})).await;
        refused(s, said, case, "ClaimNotBound", name).await;
    }
}

async fn bound(s: &Scene, claim: &str) {
    until(claim, 60, async || {
        let object = s.api::<PersistentVolumeClaim>().get_opt(claim).await.unwrap();
        let phase = object.and_then(|object| object.status?.phase);
        (phase.as_deref() == Some("Bound")).then_some(()).ok_or_else(|| format!("{phase:?}"))
    })
    .await;
}

/// Volumes that were made by hand: one without CSI, one of a driver without any class.
async fn strange_volumes(s: &Scene, said: &Sentences) {
    let foreign = json!({ "csi": { "driver": "no-class.example.com", "volumeHandle": "v" } });
    let local = json!({ "hostPath": { "path": "/tmp" } });
    for (name, source, case, reason) in [
        ("local", local, "a volume without CSI", "ClaimNotCSI"),
        ("foreign", foreign, "a driver without a default class", "NoSnapshotClass"),
    ] {
        volume(s, name, &source).await;
        s.create(&App { name, replicas: 1, start: 0, templates: &[("a", "")] }.placeless()).await;
        bound(s, &format!("a-{name}-0")).await;
        s.policy(name, name, &json!({})).await;
        refused(s, said, case, reason, name).await;
    }
}

/// For the claim `a-NAME-0`; it goes with our namespace.
async fn volume(s: &Scene, name: &str, source: &Value) {
    let owner = Api::<Namespace>::all(s.client.clone()).get(&s.namespace).await.unwrap();
    let mut object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": format!("{}-{name}", s.namespace), "ownerReferences": [
            { "apiVersion": "v1", "kind": "Namespace", "name": s.namespace, "uid": owner.uid() },
        ] },
        "spec": {
            "capacity": { "storage": "10Mi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": { "namespace": s.namespace, "name": format!("a-{name}-0") },
        },
    });
    object["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    let api: Api<PersistentVolume> = Api::all(s.client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

async fn classes(s: &Scene, said: &Sentences) {
    s.create(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] }.placeless()).await;
    bound(s, "a-web-0").await;
    s.policy("other-driver", "web", &json!({ "volumeSnapshotClassName": TWO.class })).await;
    refused(s, said, "a class of another driver", "NoSnapshotClass", "other-driver").await;
    s.policy("no-class", "web", &json!({ "volumeSnapshotClassName": "no-such-class" })).await;
    refused(s, said, "a class that does not exist", "NoSnapshotClass", "no-class").await;
}

/// From our namespace into another one: not without its consent, and never owned from here.
async fn namespaces(s: &Scene, said: &Sentences) {
    let theirs = s.another_namespace("shop", &[]).await;
    let app = App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] };
    let sets = Api::namespaced(s.client.clone(), &theirs);
    sets.create(&PostParams::default(), &app.placeless()).await.unwrap();
    let to = json!({ "name": "web", "namespace": theirs });
    s.policy("across", "web", &json!({ "statefulSetRef": to })).await;
    refused(s, said, "another namespace", "NotGranted", "across").await;
    s.annotate_namespace(&theirs, &json!({ "backup.sts-backup.io/allow-from": "a, b" })).await;
    refused(s, said, "another namespace that lets others in", "NotGranted", "across").await;
    // Where the admission policy stands, no such object comes as far as a run.
    let owning = policy("owning", "web", &json!({ "statefulSetRef": to, "deletionPolicy": "Delete" }));
    let denied = s.api::<StatefulSetBackup>().create(&PostParams::default(), &owning).await;
    let Err(kube::Error::Api(denied)) = denied else { panic!("{denied:?}") };
    let sentence = denied.message.split_once("denied request: ").expect("the policy's own sentence").1;
    said.add(s, "owned across namespaces, denied by the admission policy", sentence);

    let claims: Api<PersistentVolumeClaim> = Api::namespaced(s.client.clone(), &theirs);
    until("their claim", 60, async || {
        let volume = claims.get_opt("a-web-0").await.unwrap().and_then(|claim| claim.spec?.volume_name);
        volume.map(drop).ok_or_else(|| "not bound".into())
    })
    .await;
    let snapshots: Api<sts_backup::api::snapshot::VolumeSnapshot> = Api::namespaced(s.client.clone(), &theirs);
    assert!(snapshots.list(&ListParams::default()).await.unwrap().items.is_empty(), "nothing was made there");
    let grant = json!({ "backup.sts-backup.io/allow-from": format!("other,{}", s.namespace) });
    s.annotate_namespace(&theirs, &grant).await;
    s.backup("across", &[]).await.expect(0);
    assert_eq!(snapshots.list(&ListParams::default()).await.unwrap().items.len(), 1, "with consent it works");
}

async fn rights(s: &Scene, said: &Sentences) {
    let ended = s.backup("no-such-policy", &[]).await.expect(10);
    said.add(s, "no such StatefulSetBackup: exit 10", &ended.stderr);
    let nobody = account(&s.client, &s.namespace, "nobody").await;
    let target = format!("{}/absent", s.namespace);
    let ended = s.start_as(&nobody, &["run-once", "backup", &target]).ended().await.expect(10);
    assert!(ended.stderr.contains("get") && ended.stderr.contains("statefulsetbackups"), "{}", ended.stderr);
    said.add(s, "an account without rights: exit 10", &ended.stderr);
    let _ = std::fs::remove_file(nobody);
}

async fn usage(s: &Scene, said: &Sentences) {
    for arguments in [
        &["run-once", "backup"][..],
        &["run-once", "backup", "a/b/c"],
        &["run-once", "backup", "shop/nightly", "--namespace", "other"],
        &["run-once", "backup", "shop/nightly", "--trigger", "sometimes"],
        &["run-once", "backup", "shop/nightly", "--attempt", "0"],
        &["run-once", "everything"],
    ] {
        let ended = s.run(arguments).await.expect(64);
        assert!(ended.stdout.is_empty());
        let first = ended.stderr.split("\n\n").next().unwrap_or_default();
        said.add(s, &format!("sts-backup {}: exit 64", arguments.join(" ")), first);
    }
}
