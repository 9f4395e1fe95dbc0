//! Promise: retention never loses the last good run of a claim, and touches nothing that is not its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use sts_backup::api::{annotation, label};

use crate::harness::driver::SIM;
use crate::harness::make::{App, word};
use crate::harness::product::Ended;
use crate::harness::run::runs;
use crate::harness::{Scene, With, scene, skipped, until};

const APP: App = App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class)] };
const ONE: App = App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] };

/// A run of the policy, done; its id.
async fn run(s: &Scene, policy: &str) -> (String, Ended) {
    let ended = s.backup(policy, &[]).await.expect(0);
    (ended.summary()["id"].as_str().unwrap().to_owned(), ended)
}

async fn ids(s: &Scene, policy: &str) -> Vec<String> {
    // What bears the policy's label but no run is nobody's.
    runs(s, policy).await.into_keys().filter(|id| !id.is_empty()).collect()
}

/// What was deleted, and why. A snapshot that its controller has touched meanwhile is tried once more.
fn pruned(ended: &Ended) -> Vec<&str> {
    let lines = ended.audit.iter().filter(|line| line.step == "Prune" && line.outcome == "ok");
    lines.map(|line| line.message.as_deref().unwrap_or_default()).collect()
}

async fn patch(s: &Scene, policy: &str, change: &Value) {
    s.api::<StatefulSetBackup>().patch(policy, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

/// A snapshot that somebody made by hand, with these labels.
async fn by_hand(s: &Scene, name: &str, labels: &Value) {
    let object = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": { "name": name, "labels": labels },
        "spec": { "source": { "persistentVolumeClaimName": "a-web-0" } },
    });
    s.create(&serde_json::from_value::<VolumeSnapshot>(object).unwrap()).await;
}

async fn scale(s: &Scene, replicas: u32) {
    let change = json!({ "spec": { "replicas": replicas } });
    s.api::<StatefulSet>().patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    s.ready("web").await;
}

#[tokio::test]
async fn of_twelve_runs_those_go_that_no_rule_wants_and_nothing_else() {
    scene("twelve", &[With::Healthy(SIM)], async |s| {
        s.app(&APP).await;
        s.policy("nightly", "web", &json!({ "retentionPolicy": { "keepLast": 2 } })).await;
        s.policy("weekly", "web", &json!({ "retentionPolicy": { "keepDays": 7 } })).await;
        by_hand(s, "by-hand", &json!({})).await;
        // As an older program labels them: no run.
        by_hand(s, "legacy", &json!({ label::STATEFULSET: "web", label::POLICY: "nightly" })).await;
        let (mut nightly, mut weekly) = (vec![], vec![]);
        for (policy, into) in [("nightly", 3), ("weekly", 2), ("scale", 0), ("nightly", 4), ("weekly", 3)] {
            if policy == "scale" {
                // The claim of the replica stays, and these are the last copies of it.
                scale(s, 1).await;
            }
            for _ in 0..into {
                let list = if policy == "nightly" { &mut nightly } else { &mut weekly };
                list.push(run(s, policy).await);
            }
        }
        assert_eq!(nightly.len() + weekly.len(), 12);
        let id = |n: usize| nightly[n].0.clone();
        // The second and third are the newest two of the claim of web-1.
        assert_eq!(ids(s, "nightly").await, [id(1), id(2), id(5), id(6)]);
        assert_eq!(ids(s, "weekly").await, weekly.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
        let why = |n: usize| format!("run {}: no rule keeps it (keepLast: 2)", id(n));
        assert_eq!(pruned(&nightly[2].1), [why(0), why(0)]);
        assert_eq!(pruned(&nightly[5].1), [why(3)]);
        assert!(weekly.iter().all(|(_, ended)| pruned(ended).is_empty()));
        let message = s.get("nightly").await.status.unwrap().message.unwrap();
        assert_eq!(message, format!("Run {}: 1 snapshot ready; run {} pruned", id(6), id(4)));
        for (kind, name) in [("StatefulSetBackup", "nightly"), ("StatefulSet", "web")] {
            let events = s.events(kind, name).await;
            let told = events.iter().filter(|(reason, _)| reason == "RunsPruned").count();
            assert_eq!(told, 3, "{kind}: {events:?}");
        }
        strangers_stay(s).await;
        recreated(s, &nightly.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()).await;
        strangers_stay(s).await;
    })
    .await;
}

async fn strangers_stay(s: &Scene) {
    for name in ["by-hand", "legacy"] {
        let found = s.api::<VolumeSnapshot>().get(name).await.unwrap();
        assert!(found.metadata.deletion_timestamp.is_none(), "{name}");
    }
}

/// The runs of a former object of the name are left alone until they are adopted.
async fn recreated(s: &Scene, old: &[String]) {
    let former = s.get("nightly").await.uid().unwrap();
    s.api::<StatefulSetBackup>().delete("nightly", &DeleteParams::default()).await.unwrap();
    s.policy("nightly", "web", &json!({ "retentionPolicy": { "keepLast": 1 } })).await;
    let before = ids(s, "nightly").await;
    let (first, ended) = run(s, "nightly").await;
    assert!(pruned(&ended).is_empty(), "orphaned runs are not ours: {:?}", pruned(&ended));
    assert_eq!(ids(s, "nightly").await, [before, vec![first.clone()]].concat());
    patch(s, "nightly", &json!({ "metadata": { "annotations": { annotation::ADOPT: former } } })).await;
    let (second, _) = run(s, "nightly").await;
    assert_eq!(
        ids(s, "nightly").await,
        [old[2].clone(), second],
        "of the adopted ones, the last copy of web-1's claim"
    );
}

#[tokio::test]
async fn what_the_class_retains_and_what_others_hold_is_said_and_not_waited_for() {
    scene("retains", &[With::Healthy(SIM)], async |s| {
        s.create(&ONE.placeless()).await;
        bound(s).await;
        let class = class_that_retains(s).await;
        let spec = json!({ "volumeSnapshotClassName": class, "retentionPolicy": { "keepLast": 1 } });
        s.policy("nightly", "web", &spec).await;
        let (first, _) = run(s, "nightly").await;
        let (second, ended) = run(s, "nightly").await;
        assert!(pruned(&ended).is_empty());
        assert_eq!(ids(s, "nightly").await, [first.clone(), second.clone()]);
        let message = s.get("nightly").await.status.unwrap().message.unwrap();
        assert!(message.contains(&format!("run {first} not pruned")) && message.contains("purgeRetained"), "{message}");

        // Somebody holds the second run: it is let go, and stays Terminating as long as he likes.
        let held = format!("nightly-a-{second}-0");
        hold(s, &held, Some("tests.sts-backup.io/hold")).await;
        patch(s, "nightly", &json!({ "spec": { "retentionPolicy": { "purgeRetained": true } } })).await;
        let contents = contents(s).await;
        let (third, ended) = run(s, "nightly").await;
        let steps = |step: &str| ended.audit.iter().filter(|line| line.step == step && line.outcome == "ok").count();
        assert_eq!((steps("Purge"), steps("Prune")), (2, 2), "{:#?}", ended.audit);
        assert_eq!(ids(s, "nightly").await, *std::slice::from_ref(&third));
        let left = s.api::<VolumeSnapshot>().get(&held).await.unwrap();
        assert!(left.metadata.deletion_timestamp.is_some());
        // A Terminating one is not deleted again, and counts for nothing.
        let (fourth, ended) = run(s, "nightly").await;
        assert_eq!(pruned(&ended), [format!("run {third}: no rule keeps it (keepLast: 1)")]);
        hold(s, &held, None).await;
        until("the contents of pruned runs are gone with them", 120, async || {
            let left: Vec<_> = self::contents(s).await.into_iter().filter(|name| contents.contains(name)).collect();
            left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
        })
        .await;
        assert_eq!(ids(s, "nightly").await, [fourth]);
        forget(s, &class).await;
    })
    .await;
}

async fn bound(s: &Scene) {
    until("the volume", 60, async || {
        let volumes = s.volumes().await.len();
        (volumes == 1).then_some(()).ok_or_else(|| format!("{volumes} volumes"))
    })
    .await;
    let claims = s.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(claims.len(), 1);
}

async fn class_that_retains(s: &Scene) -> String {
    let object = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": { "name": s.namespace }, "driver": SIM.name, "deletionPolicy": "Retain",
    });
    let api: Api<VolumeSnapshotClass> = Api::all(s.client.clone());
    let params = PatchParams::apply("sts-backup/tests").force();
    api.patch(&s.namespace, &params, &Patch::Apply(object)).await.unwrap();
    s.namespace.clone()
}

/// Puts a finalizer on the snapshot in place of the others' that are not ours to know, or takes it off.
async fn hold(s: &Scene, name: &str, finalizer: Option<&str>) {
    let api = s.api::<VolumeSnapshot>();
    let mut finalizers = api.get(name).await.unwrap().metadata.finalizers.unwrap_or_default();
    finalizers.retain(|one| !one.starts_with("tests."));
    finalizers.extend(finalizer.map(ToOwned::to_owned));
    let change = json!({ "metadata": { "finalizers": finalizers } });
    api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
}

/// Names of the contents of our namespace.
async fn contents(s: &Scene) -> Vec<String> {
    let api: Api<VolumeSnapshotContent> = Api::all(s.client.clone());
    let ours = |one: &VolumeSnapshotContent| one.spec.volume_snapshot_ref.namespace.as_ref() == Some(&s.namespace);
    api.list(&ListParams::default()).await.unwrap().into_iter().filter(ours).map(|one| one.name_any()).collect()
}

/// What a class that retains would leave behind in the cluster.
async fn forget(s: &Scene, class: &str) {
    let api: Api<VolumeSnapshotContent> = Api::all(s.client.clone());
    for name in contents(s).await {
        let change = json!({ "spec": { "deletionPolicy": "Delete" } });
        api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }
    let api: Api<VolumeSnapshotClass> = Api::all(s.client.clone());
    api.delete(class, &DeleteParams::default()).await.unwrap();
}

/// The library that lies to a program about the time.
fn faketime() -> Option<PathBuf> {
    let folder = PathBuf::from(format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH));
    folder.is_file().then_some(folder)
}

#[tokio::test]
async fn a_clock_that_is_ten_years_wrong_deletes_nothing() {
    let Some(library) = faketime() else { return skipped("there is no libfaketime") };
    scene("clock", &[With::Healthy(SIM)], async |s| {
        s.create(&ONE.placeless()).await;
        bound(s).await;
        s.policy("nightly", "web", &json!({ "retentionPolicy": { "keepDays": 1 } })).await;
        // To a clock that is so wrong no certificate is valid.
        let trusting = s.kubeconfig.with_extension("trusting");
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&s.kubeconfig).unwrap()).unwrap();
        let cluster = config["clusters"][0]["cluster"].as_object_mut().unwrap();
        cluster.remove("certificate-authority-data");
        cluster.remove("certificate-authority");
        cluster.insert("insecure-skip-tls-verify".into(), true.into());
        std::fs::write(&trusting, config.to_string()).unwrap();
        let mut made = vec![run(s, "nightly").await.0];
        for (offset, year) in [("+3650d", "203"), ("-3650d", "201")] {
            let library = library.to_str().unwrap();
            let environment = [("LD_PRELOAD", library), ("FAKETIME", offset), ("DONT_FAKE_MONOTONIC", "1")];
            let target = format!("{}/nightly", s.namespace);
            let run = s.start_with(&trusting, &environment, &["run-once", "backup", &target]);
            let ended = run.ended().await.expect(0);
            assert!(ended.audit.iter().all(|line| line.time.starts_with(year)), "the clock was not wrong: {ended:?}");
            assert!(pruned(&ended).is_empty(), "{offset}: {:?}", pruned(&ended));
            made.push(ended.summary()["id"].as_str().unwrap().to_owned());
        }
        made.push(run(s, "nightly").await.0);
        assert_eq!(ids(s, "nightly").await, made, "each has a later id than the one before, and all of them stay");
        let _ = std::fs::remove_file(&trusting);
    })
    .await;
}

/// A policy in a file; its pre hook takes so many seconds.
fn file(s: &Scene, seconds: u32) -> PathBuf {
    let manifest = json!({
        "apiVersion": sts_backup::api::API_VERSION, "kind": "StatefulSetBackup",
        "metadata": { "name": "ci", "namespace": s.namespace },
        "spec": {
            "statefulSetRef": { "name": "web" }, "schedule": "@daily", "deletionPolicy": "Delete",
            "retentionPolicy": { "keepLast": 1 },
            "preBackupHook": { "command": ["sh", "-c", format!("sleep {seconds}; touch /tmp/frozen")], "timeoutSeconds": 5 },
            "postBackupHook": { "command": ["rm", "-f", "/tmp/frozen"], "timeoutSeconds": 5 },
        },
    });
    let path = s.kubeconfig.with_extension(format!("{seconds}.yaml"));
    std::fs::write(&path, manifest.to_string()).unwrap();
    path
}

#[tokio::test]
async fn a_policy_in_a_file_needs_no_object_and_its_killed_run_is_taken_up() {
    scene("file", &[With::Healthy(SIM)], async |s| {
        s.app(&APP).await;
        let (fast, slow) = (file(s, 0), file(s, 3));
        let command =
            |path: &PathBuf| ["run-once".to_owned(), "backup".into(), "-f".into(), path.display().to_string()];
        let start = |path: &PathBuf| s.start(&command(path).each_ref().map(String::as_str));
        let ended = start(&fast).ended().await.expect(0);
        for field in ["spec.deletionPolicy", "spec.schedule"] {
            assert!(ended.stderr.contains(&format!("warning: {field}")), "{}", ended.stderr);
        }
        let first = ended.summary();
        assert_eq!((&first["outcome"], &first["consistency"]), (&json!("Succeeded"), &json!("Frozen")));
        assert_eq!(first["snapshots"].as_array().unwrap().len(), 2);
        for snapshot in s.snapshots().await {
            assert_eq!(word(&snapshot, label::POLICY_UID), "file");
            assert!(snapshot.owner_references().is_empty(), "deletionPolicy is ignored");
        }
        assert!(s.api::<StatefulSetBackup>().list(&ListParams::default()).await.unwrap().items.is_empty());

        let run = start(&slow);
        let mark =
            async || s.api::<Lease>().get("sts-backup-web").await.unwrap().annotations().get(annotation::OPEN).cloned();
        until("the open mark", 60, async || mark().await.map(drop).ok_or_else(|| "none".to_owned())).await;
        run.signal("KILL").await;
        run.ended().await;
        assert!(mark().await.unwrap().contains("\"uid\":\"file\""), "its journal");
        let again = start(&slow).ended().await.expect(0);
        let lines = again.stdout.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let steps: Vec<_> = lines.filter_map(|line| line["step"].as_str().map(ToOwned::to_owned)).collect();
        assert_eq!(steps[..3], ["Lock", "Post", "Post"], "a thaw is the first thing: {steps:?}");
        assert_eq!(mark().await, None);
        assert_eq!(s.exec("web-0", "ls /tmp").await.trim(), "", "nothing is left frozen");
        let runs: BTreeMap<_, _> = runs(s, "ci").await;
        assert_eq!(runs.keys().collect::<Vec<_>>(), [again.summary()["id"].as_str().unwrap()], "keepLast: 1");
    })
    .await;
}
