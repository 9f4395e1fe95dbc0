//! What is there before any role of the matrix tries anything, and the shapes that all of it has.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::byway;
use super::timing::{Timed, served};
use crate::harness::Scene;

const V1: &str = "backup.sts-backup.io/v1alpha1";
const SNAPSHOT: &str = "snapshot.storage.k8s.io/v1";
const LEASE: &str = "coordination.k8s.io/v1";

pub fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (word(&object["apiVersion"]), word(&object["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

pub fn backup(s: &Scene, name: &str, spec: Value) -> Value {
    let mut all = json!({ "statefulSetRef": { "name": "web" } });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, spec) {
        all.extend(more);
    }
    json!({ "apiVersion": V1, "kind": "StatefulSetBackup", "metadata": { "name": name, "namespace": s.namespace },
        "spec": all })
}

pub fn restore(s: &Scene, name: &str, namespace: &str) -> Value {
    let to = if namespace == s.namespace {
        json!({ "name": "web" })
    } else {
        json!({ "name": "web", "namespace": namespace })
    };
    json!({ "apiVersion": V1, "kind": "StatefulSetRestore", "metadata": { "name": name, "namespace": s.namespace },
        "spec": { "statefulSetRef": to, "backupName": "full" } })
}

pub fn lease(s: &Scene, name: &str, labels: Value, annotations: Value) -> Value {
    let spec = json!({ "holderIdentity": "runner", "leaseDurationSeconds": 30, "leaseTransitions": 7 });
    let mut object = json!({ "apiVersion": LEASE, "kind": "Lease", "spec": spec,
        "metadata": { "name": name, "namespace": s.namespace } });
    (object["metadata"]["labels"], object["metadata"]["annotations"]) = (labels, annotations);
    object
}

pub fn claim(s: &Scene, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": s.namespace },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } },
            "storageClassName": "none-of-these" } })
}

pub fn snapshot(s: &Scene, name: &str) -> Value {
    json!({ "apiVersion": SNAPSHOT, "kind": "VolumeSnapshot", "metadata": { "name": name, "namespace": s.namespace },
        "spec": { "source": { "volumeSnapshotContentName": "none-of-these" } } })
}

fn statefulset(s: &Scene) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "web", "namespace": s.namespace },
        "spec": { "replicas": 0, "serviceName": "web", "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "a", "image": "a" }] } } } })
}

/// One that is placed nowhere.
pub fn pod(s: &Scene, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": s.namespace },
        "spec": { "containers": [{ "name": "a", "image": "a" }], "nodeSelector": { "no": "where" } } })
}

/// What a restore that is over has in its status, and goes by while it keeps the old volumes.
pub fn restored() -> Value {
    let claim = json!({ "pvc": "a-web-0", "oldPv": "old", "oldPvUid": "u", "oldReclaimPolicy": "Delete" });
    json!({ "phase": "Completed", "originalReplicas": 1, "undoDeadline": "2036-01-01T00:00:00Z",
        "plan": { "format": "1", "originalReplicas": 1, "claims": [claim] },
        "staged": [{ "pvc": "a-web-0", "pv": "new", "pvUid": "v" }], "madeClaims": { "a-web-0": "w" } })
}

/// With more in its metadata.
pub fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(meta), Value::Object(more)) = (&mut object["metadata"], more) {
        meta.extend(more);
    }
    object
}

pub const HOOK: fn(&str) -> Value = |word| json!({ "command": [word] });
const HELD: &str = "backup.sts-backup.io/run";

pub fn mark(kind: &str) -> Value {
    let text = format!(r#"{{"kind":"{kind}","namespace":"shop","name":"x","uid":"u","run":"","pods":[]}}"#);
    json!({ "backup.sts-backup.io/open": text })
}

/// What is there before anybody does anything.
pub struct Stage {
    pub plain: Value,
    pub full: Value,
    /// The same, suspended.
    pub resting: Value,
    /// The same with a schedule.
    pub dozing: Value,
    pub going: Value,
    pub owning: Value,
    pub daily: Value,
    /// Its pods are frozen.
    pub frozen: Value,
    /// A run is asked for.
    pub asked: Value,
    /// Of a StatefulSet in another namespace.
    pub there: Value,
    pub held: Value,
    /// The same of another namespace.
    pub far: Value,
    pub fresh: Value,
    pub fenced: Value,
    pub recorded: Value,
    pub cut: Value,
    pub bare: Value,
    pub claim: Value,
    pub volume: Value,
    pub asleep: Value,
    pub pod: Value,
    pub timed: Timed,
}

impl Stage {
    pub async fn set(s: &Scene, other: &str) -> Stage {
        let hooks = json!({ "preBackupHook": HOOK("a"), "postBackupHook": HOOK("b") });
        let retention = json!({ "retentionPolicy": { "keepLast": 30 } });
        let mut whole = hooks.as_object().unwrap().clone();
        whole.extend(retention.as_object().unwrap().clone());
        let namespace = Api::<Namespace>::all(s.client.clone()).get(&s.namespace).await.unwrap();
        let owner = json!([{ "apiVersion": "v1", "kind": "Namespace", "name": s.namespace, "uid": namespace.uid() }]);
        let volume = json!({ "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": format!("{}-volume", s.namespace), "ownerReferences": owner.clone() },
            "spec": { "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "none-of-these",
                "persistentVolumeReclaimPolicy": "Retain", "csi": { "driver": "none.example", "volumeHandle": "x" },
                "claimRef": { "kind": "PersistentVolumeClaim", "namespace": s.namespace, "name": "none", "uid": "dead" } } });
        let fence = json!({ "backup.sts-backup.io/fence": "scale" });
        let mut restoring = mark("StatefulSetRestore");
        restoring["backup.sts-backup.io/fence-user"] = "runner".into();
        restoring["backup.sts-backup.io/restored-by"] = "a restore".into();
        let mut backing = mark("StatefulSetBackup");
        backing["backup.sts-backup.io/runs"] = "a record".into();
        let labels = json!({ "labels": { "backup.sts-backup.io/run": "20260101-000000" },
            "annotations": { "backup.sts-backup.io/cut": "1" } });
        let mut resting = whole.clone();
        resting.insert("suspend".into(), true.into());
        let mut dozing = resting.clone();
        dozing.insert("schedule".into(), "0 2 * * *".into());
        let kin = json!({ "ownerReferences": owner });
        let undo = json!({ "backup.sts-backup.io/undo": "then" });
        let kept = json!({ "finalizers": [HELD], "ownerReferences": owner, "annotations": undo });
        let request = json!({ "annotations": { "backup.sts-backup.io/requested-at": "then" } });
        let there = json!({ "statefulSetRef": { "name": "web", "namespace": other } });
        let stage = Stage {
            plain: backup(s, "plain", json!({})),
            full: backup(s, "full", Value::Object(whole)),
            resting: backup(s, "resting", Value::Object(resting.clone())),
            dozing: backup(s, "dozing", Value::Object(dozing)),
            asked: with(backup(s, "asked", Value::Object(resting)), request),
            going: with(backup(s, "going", hooks.clone()), json!({ "finalizers": [HELD] })),
            owning: backup(s, "owning", json!({ "deletionPolicy": "Delete" })),
            daily: with(backup(s, "daily", json!({ "retentionPolicy": { "keepDaily": 7 } })), kin.clone()),
            frozen: with(backup(s, "frozen", hooks), json!({ "finalizers": [HELD] })),
            there: backup(s, "there", there),
            held: with(restore(s, "held", &s.namespace), kept),
            far: with(restore(s, "far", other), json!({ "finalizers": [HELD] })),
            fresh: restore(s, "fresh", &s.namespace),
            fenced: lease(s, "sts-backup-web", fence, restoring),
            recorded: with(lease(s, "sts-backup.db", json!({}), backing), kin.clone()),
            cut: with(snapshot(s, "cut"), labels),
            bare: snapshot(s, "bare"),
            claim: claim(s, "data-web-0"),
            volume,
            asleep: with(statefulset(s), kin),
            pod: pod(s, "bare"),
            timed: Timed::new(s),
        };
        stage.make(s).await;
        stage
    }

    async fn make(&self, s: &Scene) {
        for object in self.all().into_iter().chain(self.timed.all()) {
            let made: DynamicObject = serde_json::from_value(object.clone()).unwrap();
            api(&s.client, object).create(&PostParams::default(), &made).await.unwrap();
        }
        api(&s.client, &self.going).delete("going", &DeleteParams::default()).await.unwrap();
        self.tell(s).await;
    }

    /// What runs have written.
    async fn tell(&self, s: &Scene) {
        for (object, status) in [
            (&self.frozen, byway::run("Frozen", byway::frozen())),
            (&self.asked, json!({ "lastRequest": "before" })),
            (&self.timed.nightly, served()),
            (&self.timed.over, served()),
            (&self.held, restored()),
            (&self.far, restored()),
        ] {
            let patch = Patch::Merge(json!({ "status": status }));
            let name = object["metadata"]["name"].as_str().unwrap();
            api(&s.client, object).patch_status(name, &PatchParams::default(), &patch).await.unwrap();
        }
    }

    /// Nothing is kept by a finalizer any more.
    pub async fn clear(&self, s: &Scene) {
        let bare = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        for object in [&self.going, &self.frozen, &self.held, &self.far] {
            let name = object["metadata"]["name"].as_str().unwrap();
            api(&s.client, object).patch(name, &PatchParams::default(), &bare).await.unwrap();
        }
    }

    fn all(&self) -> [&Value; 21] {
        [
            &self.asleep,
            &self.pod,
            &self.daily,
            &self.asked,
            &self.frozen,
            &self.there,
            &self.far,
            &self.plain,
            &self.full,
            &self.resting,
            &self.dozing,
            &self.going,
            &self.owning,
            &self.held,
            &self.fresh,
            &self.fenced,
            &self.recorded,
            &self.cut,
            &self.bare,
            &self.claim,
            &self.volume,
        ]
    }
}
