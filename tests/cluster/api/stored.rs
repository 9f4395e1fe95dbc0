//! Objects that are stored: specs of restores stay fixed, statuses come back whole, tables are narrow, and objects
//! from before the rules stay writable.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Request, ValidationDirective};
use serde_json::{Value, json};
use sts_backup::api::GROUP;
use sts_backup::api::backup::StatefulSetBackupStatus;
use sts_backup::api::restore::StatefulSetRestoreStatus;
use sts_backup::api::snapshot::{
    VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, VolumeSnapshotSource, VolumeSnapshotSpec,
};
use sts_backup::generate;

use super::{
    BACKUPS, RESTORES, assert_snapshot, backup, cluster, collection, create, delete, force, install, plural_of,
    restore, send, text, there_and_back,
};

#[tokio::test]
async fn the_spec_of_a_restore_is_fixed() {
    let Some(client) = cluster().await else { return };
    let object = restore("api-fixed", &json!({ "statefulSetRef": { "name": "no-such" }, "backupName": "no-such" }));
    create(&client, GROUP, &object).await;
    let mut answers = Vec::new();
    for (case, change) in [
        ("another backupName", json!({ "backupName": "other" })),
        ("a runId added", json!({ "runId": "20260329-003000" })),
        ("backupName taken away", json!({ "backupName": null, "snapshotNames": ["a"] })),
        ("onFailure", json!({ "onFailure": "Hold" })),
        ("a longer undo window", json!({ "undoWindowSeconds": 90_000 })),
    ] {
        let change = Patch::Merge(json!({ "spec": change }));
        let request = collection(GROUP, RESTORES).patch("api-fixed", &PatchParams::default(), &change).unwrap();
        answers.push(format!("{case}\n    {}", send(&client, request).await.refusal()));
    }
    // The same manifest once more, and marks in the metadata, are no change.
    let same = collection(GROUP, RESTORES).patch("api-fixed", &force(), &Patch::Apply(&object)).unwrap();
    assert_eq!(send(&client, same).await.refusal(), "accepted");
    delete(&client, GROUP, &object).await;
    assert_snapshot("fixed_restore", &answers.join("\n"));
}

/// Snapshots that were made under Delete go with the object: nobody may believe that they are kept.
#[tokio::test]
async fn what_takes_its_snapshots_along_cannot_be_made_to_look_as_if_it_kept_them() {
    let Some(client) = cluster().await else { return };
    let object = backup("api-owning", &json!({ "statefulSetRef": { "name": "no-such" }, "suspend": true }));
    create(&client, GROUP, &object).await;
    let answer = async |policy: Value| {
        let change = Patch::Merge(json!({ "spec": { "deletionPolicy": policy } }));
        let request = collection(GROUP, BACKUPS).patch("api-owning", &PatchParams::default(), &change).unwrap();
        send(&client, request).await.refusal()
    };
    assert_eq!(answer(json!("Delete")).await, "accepted");
    for kept in [json!("Retain"), Value::Null] {
        let said = answer(kept).await;
        assert!(said.contains("--cascade=orphan") && said.contains("backup.sts-backup.io/adopt"), "{said}");
    }
    delete(&client, GROUP, &object).await;
}

fn full_backup_status() -> Value {
    json!({
        "phase": "InProgress", "message": "a run is under way",
        "lastBackupTime": "2026-03-28T01:30:07Z", "lastScheduleTime": "2026-03-29T00:30:00Z",
        "nextScheduleTime": "2026-03-30T00:30:00Z", "lastAttemptTime": "2026-03-29T00:30:01Z", "lastRequest": "one",
        "run": { "id": "20260329-003003", "slot": "2026-03-29T00:30:00Z", "attempt": 2, "holder": "pod/uid",
            "intent": { "phase": "Void", "epoch": 7, "since": "2026-03-29T00:30:03Z", "reason": "HookTimeout",
                "consistency": "Frozen", "size": 3, "pods": [{ "name": "web-0", "uid": "u", "ordinal": 0,
                    "container": "db", "containerID": "containerd://a", "restartCount": 1 }] } },
        "lastRun": { "id": "20260328-013003", "slot": "2026-03-28T01:30:00Z", "attempt": 1, "jobName": "backup-x-0",
            "trigger": "catchup", "startTime": "2026-03-28T01:30:01Z", "completionTime": "2026-03-28T01:31:00Z",
            "freezeSeconds": 1.25, "skewSeconds": 0.167, "consistency": "CrashPerVolume", "outcome": "Succeeded",
            "reason": "BackupCompleted", "snapshots": [{ "name": "n-data-20260328-013003-0", "pvcName": "data-web-0",
                "ordinal": 0, "claimTemplate": "data", "readyToUse": true, "restoreSize": "1Gi",
                "creationTime": "2026-03-28T01:30:07Z" }] },
        "history": [{ "id": "20260328-013003", "outcome": "Superseded", "reason": "Skipped",
            "startTime": "2026-03-28T01:30:01Z", "cutTime": "2026-03-28T01:30:07Z", "freezeSeconds": 1.25,
            "snapshots": 1 }],
        "conditions": [{ "type": "Ready", "status": "False", "reason": "HookTimeout", "message": "pod web-0",
            "lastTransitionTime": "2026-03-28T01:31:00Z", "observedGeneration": 1 }],
        "managedBy": "api-tests/nobody",
    })
}

fn full_restore_status() -> Value {
    let claim = json!({ "pvc": "data-web-0", "oldPvcUid": "u1", "oldPv": "pv-1", "oldPvUid": "u2",
        "oldReclaimPolicy": "Delete", "volumeHandle": "vol-1", "snapshot": "s-0", "stagingPvc": "stage-0",
        "claim": { "spec": { "accessModes": ["ReadWriteOnce"], "anything": { "else": null } } } });
    let plan = json!({ "format": "1", "runId": "20260328-013003", "originalReplicas": 3, "claims": [claim],
        "statefulSet": { "apiVersion": "apps/v1", "kind": "StatefulSet", "spec": { "replicas": 3 } } });
    json!({
        "phase": "Completed", "message": "3 claims restored", "originalReplicas": 3,
        "restoredSnapshots": { "data-web-0": "s-0", "data-web-1": "s-1" }, "startTime": "2026-03-28T01:30:01Z",
        "completionTime": "2026-03-28T01:31:00Z", "downtimeSeconds": 7.8, "undoDeadline": "2026-03-29T01:31:00Z",
        "jobName": "restore-x-0", "lastRequest": "two",
        "run": { "id": "20260328-013003", "attempt": 1, "holder": "pod/uid", "goal": "Old", "served": true },
        "plan": plan, "undoPlan": plan,
        "staged": [{ "pvc": "data-web-0", "stagingPvcUid": "u3", "pv": "pv-2", "pvUid": "u4", "volumeHandle": "v-2" }],
        "conditions": [{ "type": "Undoable", "status": "True", "reason": "RestoreCompleted", "message": "",
            "lastTransitionTime": "2026-03-28T01:31:00Z", "observedGeneration": 1 }],
        "managedBy": "api-tests/nobody",
    })
}

/// Creates the object and gives it the status by server-side apply, as the runner does: nothing is lost or warned of.
async fn create_with_status(client: &kube::Client, object: &Value, status: &Value) {
    create(client, GROUP, object).await;
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("spec");
    object["status"] = status.clone();
    let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..force() };
    let all = collection(GROUP, plural_of(&object));
    let request = all.patch_subresource("status", text(&object["metadata"]["name"]), &strict, &Patch::Apply(&object));
    let answer = send(client, request.unwrap()).await;
    assert_eq!((answer.refusal().as_str(), &answer.body["status"]), ("accepted", status));
    assert_eq!(answer.warnings, Vec::<String>::new());
    assert_eq!(there_and_back(&answer.body), answer.body);
}

/// What `kubectl get` prints; no line may be wider than 120 columns.
async fn table(of: &[&str]) -> String {
    let kubeconfig = std::env::var("SSB_TEST_KUBECONFIG").unwrap();
    let mut get = tokio::process::Command::new("kubectl");
    let get = get.args(["--kubeconfig", &kubeconfig, "-n", "default", "get"]).args(of);
    let table = String::from_utf8(get.output().await.unwrap().stdout).unwrap();
    println!("{table}");
    table.lines().for_each(|line| assert!(line.trim_end().chars().count() <= 120, "{line}"));
    table
}

/// Every status field of our types is in the schema, and what the API server stores comes back whole.
#[tokio::test]
async fn a_full_status_comes_back_whole_and_the_tables_fit() {
    let Some(client) = cluster().await else { return };
    let (of_backup, of_restore) = (full_backup_status(), full_restore_status());
    let typed: StatefulSetBackupStatus = serde_json::from_value(of_backup.clone()).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), of_backup);
    let typed: StatefulSetRestoreStatus = serde_json::from_value(of_restore.clone()).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), of_restore);

    let target = json!({ "name": "orders" });
    let every = json!({ "statefulSetRef": target, "schedule": "*/15 2-6 * * 1-5", "suspend": true });
    let newest = json!({ "statefulSetRef": target, "backupName": "orders" });
    let nightly = json!({ "statefulSetRef": target, "schedule": "30 2 * * *", "suspend": true });
    let backups = [backup("orders", &nightly), backup("orders-postgres-nightly-berlin", &every)];
    let restores = [restore("orders", &newest), restore("orders-postgres-before-upgrade", &newest)];
    for object in &backups {
        create_with_status(&client, object, &of_backup).await;
    }
    for object in &restores {
        create_with_status(&client, object, &of_restore).await;
    }
    let lines = table(&["stsb", "orders-postgres-nightly-berlin"]).await;
    assert!(
        lines.contains("InProgress") && lines.contains("2026-03-30T00:30:00Z") && lines.contains("1.25"),
        "{lines}"
    );
    let lines = table(&["stsr", "orders-postgres-before-upgrade"]).await;
    assert!(lines.contains("Completed") && lines.contains("2026-03-29T01:31:00Z"), "{lines}");
    // With both kinds kubectl writes kind and group before each name.
    let lines = table(&["stsb/orders", "stsr/orders"]).await;
    assert!(lines.contains("statefulsetrestore.backup.sts-backup.io/orders"), "{lines}");
    for object in backups.iter().chain(&restores) {
        delete(&client, GROUP, object).await;
    }
}

/// Objects stored before the rules existed: readable, decodable, and their status and finalizers can still be written.
/// Done in a group of its own, so that nobody else's objects lose their schema meanwhile.
#[tokio::test]
async fn objects_stored_before_the_rules_stay_writable() {
    let Some(client) = crate::harness::client().await else { return };
    let group = "before.sts-backup.io";
    let ours = generate::definitions().map(|crd| serde_json::from_str::<Value>(&crd.to_string().replace(GROUP, group)));
    let mut ours = ours.map(Result::unwrap);
    for crd in &mut ours {
        // `kubectl get stsb` is to mean our own group meanwhile.
        let names = crd["spec"]["names"].as_object_mut().unwrap();
        names.retain(|key, _| key != "shortNames" && key != "categories");
    }
    for crd in &ours {
        let mut loose = crd.clone();
        let version = &mut loose["spec"]["versions"][0];
        version["schema"]["openAPIV3Schema"] =
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        version.as_object_mut().unwrap().remove("selectableFields");
        install(&client, &loose).await;
    }
    let long = "a".repeat(60);
    let bad = [
        backup(&long, &json!({ "statefulSetRef": { "name": "web" } })),
        backup(
            "many",
            &json!({ "statefulSetRef": { "name": "web" }, "schedule": "TZ=UTC 0 3 * * *", "retentionPolicy":
            { "keepLast": 0 }, "preBackupHook": { "command": [], "timeoutSeconds": -1 }, "deletionPolicy": "Other" }),
        ),
        restore(
            "many",
            &json!({ "statefulSetRef": { "name": "web" }, "backupName": "", "pvcDeletionTimeoutSeconds": 0 }),
        ),
    ];
    let mut stored = BTreeMap::new();
    for object in &bad {
        let object: Value = serde_json::from_str(&object.to_string().replace(GROUP, group)).unwrap();
        create(&client, group, &object).await;
        stored.insert(format!("{}/{}", plural_of(&object), text(&object["metadata"]["name"])), object);
    }
    for crd in &ours {
        install(&client, crd).await;
    }
    for (name, object) in &stored {
        let all = collection(group, plural_of(object));
        let id = text(&object["metadata"]["name"]);
        let read = send(&client, all.get(id, &GetParams::default()).unwrap()).await;
        assert_eq!(read.code, 200, "{name}");
        there_and_back(&read.body);
        let status = Patch::Merge(json!({ "status": { "message": "spec is not valid" } }));
        let patched = all.patch_subresource("status", id, &PatchParams::default(), &status).unwrap();
        assert_eq!(send(&client, patched).await.refusal(), "accepted", "{name}");
        let mark = Patch::Merge(json!({ "metadata": { "annotations": { "a": "b" } } }));
        let patched = all.patch(id, &PatchParams::default(), &mark).unwrap();
        assert_eq!(send(&client, patched).await.refusal(), "accepted", "{name}");
        delete(&client, group, object).await;
    }
    let crds = Request::new("/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
    for crd in &ours {
        send(&client, crds.delete(text(&crd["metadata"]["name"]), &DeleteParams::default()).unwrap()).await;
    }
}

/// The snapshot kinds are read and written with our own lean types.
#[tokio::test]
async fn the_snapshot_kinds_decode() {
    let Some(client) = crate::harness::client().await else { return };
    let classes = Api::<VolumeSnapshotClass>::all(client.clone());
    match classes.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            println!("skipped: this cluster has no VolumeSnapshots");
            return;
        }
        listed => listed.unwrap().iter().for_each(|class| assert_ne!(class.driver, "")),
    }
    for content in Api::<VolumeSnapshotContent>::all(client.clone()).list(&ListParams::default()).await.unwrap() {
        assert_ne!((content.spec.driver.as_str(), content.spec.volume_snapshot_ref.name.as_deref()), ("", None));
    }
    let source = VolumeSnapshotSource { persistent_volume_claim_name: Some("no-such".into()), ..Default::default() };
    let spec = VolumeSnapshotSpec { volume_snapshot_class_name: Some("any".into()), source };
    let metadata = ObjectMeta { name: Some("api-lean".into()), ..ObjectMeta::default() };
    let snapshot = VolumeSnapshot { metadata, spec, ..VolumeSnapshot::default() };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = Api::<VolumeSnapshot>::namespaced(client, "default").create(&dry, &snapshot).await.unwrap();
    assert_eq!((made.spec, made.status), (snapshot.spec, None));
}
