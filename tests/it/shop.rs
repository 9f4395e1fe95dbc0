//! What is there before a run begins: a StatefulSet with its pods, claims and volumes, a class, an object of ours; and
//! what people and the cluster may do to them meanwhile.

use serde_json::{Value, json};
use sts_backup::api::{BACKUP_POLICY, LOCK_POLICY, MARKS_POLICY, POLICY_FORMAT, annotation, label};

use crate::apiserver::State;
use crate::apiserver::kind::Key;
use crate::apiserver::store::{Change, Preconditions, Store, What, text};

pub const NAMESPACE: &str = "shop";
pub const SET: &str = "web";
pub const POLICY: &str = "nightly";
pub const DRIVER: &str = "sim.example.org";
pub const REPLICAS: u32 = 2;
pub const TEMPLATES: [&str; 2] = ["data", "wal"];

/// What befalls the objects of a run from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Our object is deleted, as a person does it.
    DeleteObject,
    /// The same, and while its finalizer keeps it somebody writes commands of his own into its hooks.
    Usurp,
    /// It is gone at once, and another has its name.
    ReplaceObject,
    /// Somebody labels it: its resourceVersion moves.
    LabelObject,
    DeletePod,
    RestartContainer,
    DeleteClaim,
    ReplaceClaim,
    DeleteSet,
    ReplaceSet,
    /// A stranger takes the Lease from us.
    StealLease,
    /// Every watch loses its connection.
    Cut,
    /// Every watch loses its connection, and what they knew is too old to go on from.
    Compact,
    /// Somebody deletes a snapshot of ours and makes another of its name.
    ReplaceSnapshot,
    /// Somebody applies the manifest of a snapshot of ours once more, under a name of their own.
    CopySnapshot,
    /// Somebody makes one on top of our run, with all its marks and a right name, of a claim that is not there.
    AddSnapshot,
}

/// What a usurper writes into hooks.
pub const ALIEN: &str = "alien";

pub const DEEDS: [Deed; 15] = [
    Deed::DeleteObject,
    Deed::Usurp,
    Deed::ReplaceObject,
    Deed::LabelObject,
    Deed::DeletePod,
    Deed::RestartContainer,
    Deed::DeleteClaim,
    Deed::ReplaceClaim,
    Deed::DeleteSet,
    Deed::ReplaceSet,
    Deed::StealLease,
    Deed::Compact,
    Deed::ReplaceSnapshot,
    Deed::CopySnapshot,
    Deed::AddSnapshot,
];

pub fn object(name: &str) -> Key {
    Key::new("statefulsetbackups", NAMESPACE, name)
}

pub fn lease() -> Key {
    Key::new("leases", NAMESPACE, &format!("sts-backup-{SET}"))
}

fn key(resource: &str, name: &str) -> Key {
    Key::new(resource, NAMESPACE, name)
}

pub fn open(state: &mut State, hooks: bool) {
    let store = &mut state.store;
    store.create(&Key::new("namespaces", "", NAMESPACE), json!({ "metadata": {} }), false).unwrap();
    let class = json!({
        "metadata": { "annotations": { "snapshot.storage.kubernetes.io/is-default-class": "true" } },
        "driver": DRIVER, "deletionPolicy": "Delete",
    });
    store.create(&Key::new("volumesnapshotclasses", "", "class"), class, false).unwrap();
    guard(store, &["Deny"]);
    set(store);
    (0..REPLICAS).for_each(|ordinal| pod(state, ordinal));
    policy(&mut state.store, POLICY, hooks);
}

/// The policies that a backup looks at.
const GUARDS: [&str; 3] = [BACKUP_POLICY, LOCK_POLICY, MARKS_POLICY];

/// These policies, as far as a run looks at them, with these validationActions of their bindings.
pub fn guard(store: &mut Store, actions: &[&str]) {
    for name in GUARDS {
        guard_by(store, name, actions);
    }
}

/// One of them alone.
pub fn guard_by(store: &mut Store, name: &str, actions: &[&str]) {
    let policy = Key::new("validatingadmissionpolicies", "", name);
    let meta = json!({ "annotations": { annotation::FORMAT: POLICY_FORMAT } });
    store.create(&policy, json!({ "metadata": meta, "spec": { "failurePolicy": "Fail" } }), false).unwrap();
    let binding = Key::new("validatingadmissionpolicybindings", "", name);
    let spec = json!({ "policyName": name, "validationActions": actions });
    store.create(&binding, json!({ "metadata": {}, "spec": spec }), false).unwrap();
}

/// Nothing stands guard any more.
pub fn unguard(store: &mut Store) {
    for resource in ["validatingadmissionpolicies", "validatingadmissionpolicybindings"] {
        for name in GUARDS {
            store.purge(&Key::new(resource, "", name));
        }
    }
}

pub fn policy(store: &mut Store, name: &str, hooks: bool) {
    let mut spec = json!({ "statefulSetRef": { "name": SET } });
    if hooks {
        spec["preBackupHook"] = json!({ "command": ["freeze"], "timeoutSeconds": 5 });
        spec["postBackupHook"] = json!({ "command": ["thaw"], "timeoutSeconds": 5 });
    }
    store.create(&object(name), json!({ "metadata": {}, "spec": spec }), false).unwrap();
}

fn set(store: &mut Store) {
    let templates = TEMPLATES.map(|name| json!({ "metadata": { "name": name } }));
    let spec = json!({ "replicas": REPLICAS, "volumeClaimTemplates": templates, "template": { "spec": {} } });
    store.create(&key("statefulsets", SET), json!({ "metadata": {}, "spec": spec }), false).unwrap();
}

pub fn claim(store: &mut Store, name: &str) {
    let volume = Key::new("persistentvolumes", "", &format!("pv-{name}"));
    if store.get(&volume).is_none() {
        let csi = json!({ "driver": DRIVER, "volumeHandle": format!("volume-{name}") });
        store.create(&volume, json!({ "metadata": {}, "spec": { "csi": csi } }), false).unwrap();
    }
    let spec = json!({
        "volumeName": volume.name, "storageClassName": "csi", "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Gi" } },
    });
    let key = key("persistentvolumeclaims", name);
    store.create(&key, json!({ "metadata": {}, "spec": spec }), false).unwrap();
    store.change(&key, true, |object| object["status"] = json!({ "phase": "Bound" }));
}

/// What the StatefulSet controller and the kubelet make: a pod with a container that runs, and missing claims.
pub fn pod(state: &mut State, ordinal: u32) {
    let (store, name) = (&mut state.store, format!("{SET}-{ordinal}"));
    let Some(owner) = store.get(&key("statefulsets", SET)).map(|set| text(set, "/metadata/uid").to_owned()) else {
        return;
    };
    for template in TEMPLATES {
        let claim_name = format!("{template}-{SET}-{ordinal}");
        if store.get(&key("persistentvolumeclaims", &claim_name)).is_none() {
            claim(store, &claim_name);
        }
    }
    let owners =
        json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": SET, "uid": owner, "controller": true }]);
    let body = json!({
        "metadata": { "ownerReferences": owners, "labels": { "app": SET } },
        "spec": { "containers": [{ "name": "app" }] },
    });
    let key = key("pods", &name);
    if store.create(&key, body, false).is_err() {
        return; // it is there already
    }
    let id = format!("sim://{}", store.version());
    store.change(&key, true, |object| object["status"] = status(&id, 0));
}

fn status(id: &str, restarts: u32) -> Value {
    json!({ "phase": "Running", "containerStatuses": [
        { "name": "app", "containerID": id, "restartCount": restarts, "state": { "running": {} } },
    ] })
}

/// Of the containers that run.
pub fn containers(store: &Store) -> Vec<String> {
    let id = |object: &Value| text(object, "/status/containerStatuses/0/containerID").to_owned();
    store.all("pods").map(|(_, object)| id(object)).collect()
}

/// Somebody makes a snapshot under a name of the run of this id, with all its marks, of the epoch that comes first.
pub fn squat(store: &mut Store, id: &str) {
    let uid = store.get(&object(POLICY)).map(|object| text(object, "/metadata/uid").to_owned());
    let labels = json!({ label::STATEFULSET: SET, label::POLICY: POLICY, label::POLICY_NAMESPACE: NAMESPACE,
        label::POLICY_UID: uid, label::RUN: id, label::CLAIM_TEMPLATE: "data", label::ORDINAL: "0" });
    let notes = json!({ annotation::FORMAT: "1", annotation::RUN_SIZE: "4", annotation::TRANSITIONS: "1" });
    let spec = json!({ "volumeSnapshotClassName": "class", "source": { "persistentVolumeClaimName": "data-web-0" } });
    let object = json!({ "metadata": { "labels": labels, "annotations": notes }, "spec": spec });
    let _ = store.create(&key("volumesnapshots", &format!("{POLICY}-data-{id}-0")), object, false);
}

impl Deed {
    pub fn take_place(self, state: &mut State) {
        let store = &mut state.store;
        let asked = Preconditions::default();
        match self {
            Deed::DeleteObject => drop(store.delete(&object(POLICY), &asked, false)),
            Deed::Usurp => {
                let _ = store.delete(&object(POLICY), &asked, false);
                store.change(&object(POLICY), false, |object| {
                    for hook in ["preBackupHook", "postBackupHook"] {
                        object["spec"][hook] = json!({ "command": [ALIEN] });
                    }
                });
            }
            Deed::ReplaceObject => {
                store.purge(&object(POLICY));
                policy(store, POLICY, state.nature.hooks);
            }
            Deed::LabelObject => store.change(&object(POLICY), false, |object| {
                object["metadata"]["labels"]["team"] = "shop".into();
            }),
            Deed::DeletePod => store.purge(&key("pods", "web-0")),
            Deed::RestartContainer => {
                let key = key("pods", "web-0");
                let old = store.get(&key).map(|pod| text(pod, "/status/containerStatuses/0/containerID").to_owned());
                let id = format!("sim://{}", store.version() + 1);
                store.change(&key, true, |object| object["status"] = status(&id, 1));
                state.nature.unlock(&old.unwrap_or_default());
            }
            Deed::DeleteClaim => drop(store.delete(&key("persistentvolumeclaims", "data-web-0"), &asked, false)),
            Deed::ReplaceClaim => {
                store.purge(&key("persistentvolumeclaims", "data-web-0"));
                claim(store, "data-web-0");
            }
            Deed::DeleteSet => store.purge(&key("statefulsets", SET)),
            Deed::ReplaceSet => {
                store.purge(&key("statefulsets", SET));
                set(store);
            }
            Deed::StealLease => store.change(&lease(), false, |object| {
                let epoch = object["spec"]["leaseTransitions"].as_i64().unwrap_or_default();
                object["spec"]["leaseTransitions"] = (epoch + 1).into();
                object["spec"]["holderIdentity"].take();
            }),
            Deed::Cut => state.cuts += 1,
            Deed::Compact => {
                store.forget();
                state.cuts += 1;
            }
            Deed::ReplaceSnapshot => replace_snapshot(store),
            Deed::CopySnapshot => copy_snapshot(store, false),
            Deed::AddSnapshot => copy_snapshot(store, true),
        }
    }
}

fn is_namesake(object: &Value) -> bool {
    object["metadata"]["annotations"][annotation::FORMAT] == "none"
}

/// Somebody deleted what is none of ours.
pub fn namesakes_lost(store: &Store) -> bool {
    let lost = |change: &&Change| change.what != What::Added && is_namesake(&change.object);
    let gone = |change: &Change| change.object["metadata"]["deletionTimestamp"].is_string();
    store.log.iter().filter(lost).any(gone)
}

/// The newest of ours, with all its labels and annotations.
fn copy_snapshot(store: &mut Store, add: bool) {
    let Some((key, object)) = store.all("volumesnapshots").last().map(|(key, object)| (key.clone(), object.clone()))
    else {
        return;
    };
    let meta = &object["metadata"];
    let mut copy = json!({
        "metadata": { "labels": meta["labels"], "annotations": meta["annotations"] }, "spec": object["spec"],
    });
    let mut name = format!("copy-of-{}", key.name);
    if add {
        name = format!("{}-7", key.name.rsplit_once('-').map_or("", |(front, _)| front));
        let template = text(&object, "/metadata/labels/backup.sts-backup.io~1claim-template");
        copy["spec"]["source"]["persistentVolumeClaimName"] = format!("{template}-{SET}-7").into();
        copy["metadata"]["labels"][label::ORDINAL] = "7".into();
    }
    let _ = store.create(&self::key("volumesnapshots", &name), copy, false);
}

/// The namesake is somebody else's: it has no label of ours.
fn replace_snapshot(store: &mut Store) {
    let Some((key, _)) = store.all("volumesnapshots").next() else { return };
    let key = key.clone();
    let spec = store.get(&key).map(|object| object["spec"].clone());
    store.purge(&key);
    let notes = json!({ annotation::FORMAT: "none" });
    store.create(&key, json!({ "metadata": { "annotations": notes }, "spec": spec }), false).unwrap();
}
