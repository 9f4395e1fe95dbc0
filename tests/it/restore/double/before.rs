//! What is there before a restore: a StatefulSet that runs on its claims, one complete run of their snapshots, and
//! claims that are somebody else's. And what others do to them meanwhile.

use jiff::SignedDuration;
use serde_json::{Value, json};
use sts_backup::api::restore::Strategy;
use sts_backup::api::{FENCE_POLICY, LOCK_POLICY, MARKS_POLICY, RESTORE_POLICY, annotation, label};
use sts_backup::plan::name::{self, ClaimKey};

use super::super::world::{Odd, Setting};
use super::storage::mounts;
use crate::apiserver::State;
use crate::apiserver::kind::Key;
use crate::apiserver::request::Ask;
use crate::apiserver::store::{Store, text};
use crate::shop::{self, DRIVER, NAMESPACE, POLICY, REPLICAS, SET, TEMPLATES};

pub const NAME: &str = "back";
pub const CLASS: &str = "fast";
pub const NODES: [&str; 2] = ["n1", "n2"];
/// Somebody else's: of another StatefulSet, and of this one but of an ordinal that the run does not have.
pub const OTHERS: [&str; 2] = ["data-db-0", "data-web-7"];
/// The claim that somebody has it in for.
pub const VICTIM: &str = "data-web-0";

pub fn claim_key(name: &str) -> Key {
    Key::new("persistentvolumeclaims", NAMESPACE, name)
}
pub fn pod_key(ordinal: u32) -> Key {
    Key::new("pods", NAMESPACE, &format!("{SET}-{ordinal}"))
}
pub fn set_key() -> Key {
    Key::new("statefulsets", NAMESPACE, SET)
}
pub fn volume_key(name: &str) -> Key {
    Key::new("persistentvolumes", "", name)
}
pub fn object() -> Key {
    Key::new("statefulsetrestores", NAMESPACE, NAME)
}

pub fn keys() -> Vec<ClaimKey> {
    let of = |ordinal| TEMPLATES.map(|template| ClaimKey { ordinal, template: template.into() });
    (0..REPLICAS).flat_map(of).collect()
}

/// The names of the claims that the run has.
pub fn claims() -> Vec<String> {
    keys().iter().map(|key| key.pvc(SET)).collect()
}

pub fn open(state: &mut State, setting: Setting) {
    let store = &mut state.store;
    let make = |store: &mut Store, key: Key, body: Value| drop(store.create(&key, body, false).unwrap());
    make(store, Key::new("namespaces", "", NAMESPACE), json!({ "metadata": {} }));
    for policy in [RESTORE_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY] {
        shop::guard_by(store, policy, &["Deny"]);
    }
    let default = json!({ "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } });
    let class = json!({ "metadata": default, "provisioner": DRIVER, "volumeBindingMode": "WaitForFirstConsumer" });
    make(store, Key::new("storageclasses", "", CLASS), class);
    let class = json!({ "metadata": {}, "driver": DRIVER, "deletionPolicy": "Delete" });
    make(store, Key::new("volumesnapshotclasses", "", "class"), class);
    for node in NODES {
        let key = Key::new("nodes", "", node);
        make(store, key.clone(), json!({ "metadata": {}, "spec": {} }));
        let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        store.change(&key, true, |object| object["status"] = ready);
        let drivers = json!({ "drivers": [{ "name": DRIVER, "nodeID": node }] });
        make(store, Key::new("csinodes", "", node), json!({ "metadata": {}, "spec": drivers }));
    }
    set(store, setting.odd == Odd::Scaled);
    let uid = text(store.get(&set_key()).unwrap(), "/metadata/uid").to_owned();
    for pvc in claims() {
        bound(state, &pvc, &format!("old {pvc}"));
    }
    for pvc in OTHERS {
        bound(state, pvc, "theirs");
    }
    state.nature.storage.as_mut().unwrap().set = uid;
}

/// A claim with a volume of its own.
fn bound(state: &mut State, pvc: &str, content: &str) {
    empty_claim(&mut state.store, pvc);
    let mut storage = state.nature.storage.take().unwrap_or_default();
    storage.provision(&mut state.store, &claim_key(pvc), content);
    state.nature.storage = Some(storage);
}

pub fn empty_claim(store: &mut Store, name: &str) {
    let spec = json!({
        "storageClassName": CLASS, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
        "resources": { "requests": { "storage": "1Gi" } },
    });
    let meta = json!({ "labels": { "app": SET } });
    store.create(&claim_key(name), json!({ "metadata": meta, "spec": spec }), false).unwrap();
    store.change(&claim_key(name), true, |claim| claim["status"] = json!({ "phase": "Pending" }));
}

fn set(store: &mut Store, deletes: bool) {
    let templates = TEMPLATES.map(|name| json!({ "metadata": { "name": name } }));
    let when = if deletes { "Delete" } else { "Retain" };
    let spec = json!({
        "replicas": REPLICAS, "volumeClaimTemplates": templates, "template": { "spec": {} },
        "persistentVolumeClaimRetentionPolicy": { "whenScaled": when, "whenDeleted": "Retain" },
    });
    store.create(&set_key(), json!({ "metadata": {}, "spec": spec }), false).unwrap();
}

pub fn pod(store: &mut Store, name: &str, claims: &[String], owners: &Value) {
    let volumes: Vec<Value> =
        claims.iter().map(|claim| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } })).collect();
    let spec = json!({
        "containers": [{ "name": "app" }], "volumes": volumes, "nodeName": NODES[0], "terminationGracePeriodSeconds": 5,
    });
    let key = Key::new("pods", NAMESPACE, name);
    let meta = json!({ "ownerReferences": owners, "labels": { "app": SET } });
    if store.create(&key, json!({ "metadata": meta, "spec": spec }), false).is_ok() {
        store.change(&key, true, |pod| pod["status"] = json!({ "phase": "Pending" }));
    }
}

/// One complete run, as a backup leaves it: each snapshot says what it is.
pub fn run(store: &mut Store) {
    let now = store.clock.now();
    let id = now.strftime("%Y%m%d-%H%M%S").to_string();
    for key in keys() {
        let (pvc, snapshot) = (key.pvc(SET), name::snapshot(POLICY, &key, id.parse().unwrap()));
        let labels = json!({
            label::STATEFULSET: SET, label::POLICY: POLICY, label::POLICY_NAMESPACE: NAMESPACE,
            label::POLICY_UID: "policy", label::RUN: id, label::CLAIM_TEMPLATE: key.template,
            label::ORDINAL: key.ordinal.to_string(),
        });
        let manifest = json!({
            "storageClassName": CLASS, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "storage": "1Gi",
            "labels": { "app": SET },
        });
        let notes = json!({
            annotation::CLAIM: manifest.to_string(), annotation::RUN_SIZE: keys().len().to_string(),
            annotation::TRANSITIONS: "1", annotation::FORMAT: "1", annotation::CONSISTENCY: "Quiesced",
            annotation::CUT: now.as_nanosecond().to_string(),
        });
        let spec = json!({ "volumeSnapshotClassName": "class", "source": { "persistentVolumeClaimName": pvc } });
        let place = Key::new("volumesnapshots", NAMESPACE, &snapshot);
        let body = json!({ "metadata": { "labels": labels, "annotations": notes }, "spec": spec });
        let uid = text(&store.create(&place, body, false).unwrap(), "/metadata/uid").to_owned();
        let content = Key::new("volumesnapshotcontents", "", &format!("snapcontent-{uid}"));
        let of = json!({ "name": snapshot, "namespace": NAMESPACE, "uid": uid });
        let spec = json!({
            "driver": DRIVER, "deletionPolicy": "Delete", "source": { "volumeHandle": format!("volume of {pvc}") },
            "volumeSnapshotRef": of, "volumeSnapshotClassName": "class",
        });
        store.create(&content, json!({ "metadata": {}, "spec": spec }), false).unwrap();
        let told = json!({ "snapshotHandle": format!("handle of {snapshot}"), "readyToUse": true });
        store.change(&content, true, |object| object["status"] = told);
        let status = json!({
            "boundVolumeSnapshotContentName": content.name, "readyToUse": true, "restoreSize": "1Gi",
            "creationTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        store.change(&place, true, |object| object["status"] = status);
    }
}

/// The request, in a cluster that has become what it is.
pub fn ask(state: &mut State, setting: Setting) {
    state.nature.storage.as_mut().unwrap().odd = setting.odd;
    if setting.odd == Odd::Sick {
        // The kubelet looks at its pods again.
        (0..REPLICAS).for_each(|ordinal| probe(&mut state.store, &pod_key(ordinal)));
    }
    let strategy = if setting.strategy == Strategy::InPlace { "InPlace" } else { "Staged" };
    let spec = json!({
        "statefulSetRef": { "name": SET }, "backupName": POLICY, "strategy": strategy, "stopTimeoutSeconds": 120,
        "stageTimeoutSeconds": 120, "readyTimeoutSeconds": 60, "pvcDeletionTimeoutSeconds": 60,
    });
    state.store.create(&object(), json!({ "metadata": {}, "spec": spec }), false).unwrap();
}

fn probe(store: &mut Store, key: &Key) {
    store.change(key, false, |object| object["metadata"]["labels"]["probed"] = "yes".into());
}

/// How long before the restore all that was.
pub const AGE: SignedDuration = SignedDuration::from_hours(1);

/// Somebody puts another object under the name that the request is about: a claim with a volume of its own, a
/// StatefulSet, a pod.
pub fn replace(state: &mut State, ask: &Ask) {
    let key = ask.key();
    let Some(old) = state.store.get(&key).cloned() else { return };
    let used = state.store.all("pods").any(|(_, pod)| mounts(pod).contains(&key.name));
    match key.kind.resource {
        // One that is in use does not go.
        "persistentvolumeclaims" if used || key.name.contains("-stage-") => return,
        "persistentvolumeclaims" => {
            state.store.purge(&key);
            bound(state, &key.name, "theirs");
            state.nature.storage.as_mut().unwrap().hit = Some(key.name.clone());
        }
        "statefulsets" | "pods" => {
            state.store.purge(&key);
            let body = json!({ "metadata": {
                "labels": old["metadata"]["labels"], "annotations": old["metadata"]["annotations"],
                "ownerReferences": old["metadata"]["ownerReferences"],
            }, "spec": old["spec"] });
            state.store.create(&key, body, false).unwrap();
            state.store.change(&key, true, |object| object["status"] = old["status"].clone());
            state.nature.storage.as_mut().unwrap().replaced = true;
        }
        _ => return,
    }
    let uid = text(state.store.get(&key).unwrap(), "/metadata/uid").to_owned();
    state.nature.storage.as_mut().unwrap().strangers.insert(uid, ask.line());
    state.log.push(format!("-- somebody replaces {} {}", key.kind.resource, key.name));
}

/// A stranger takes the Lease from us, and gives it back at once.
pub fn steal(state: &mut State, _: &Ask) {
    shop::Deed::StealLease.take_place(state);
    state.log.push("-- the Lease is stolen".into());
}

/// A pod that is nobody's of the StatefulSet mounts a claim for a while.
pub fn guest(state: &mut State, _: &Ask) {
    pod(&mut state.store, "guest", &[VICTIM.into()], &json!([]));
    state.nature.storage.as_mut().unwrap().guests += 1;
}

/// Somebody scales it to 1.
pub fn rescale(state: &mut State, _: &Ask) {
    state.store.change(&set_key(), false, |set| {
        if set["spec"]["replicas"] != 0 {
            set["spec"]["replicas"] = 1.into();
        }
    });
    state.nature.storage.as_mut().unwrap().rescaled = true;
}

pub fn delete(state: &mut State, _: &Ask) {
    let _ = state.store.delete(&object(), &crate::apiserver::store::Preconditions::default(), false);
    state.log.push("-- our object is deleted".into());
}

pub fn delete_pod(state: &mut State, _: &Ask) {
    let _ = state.store.terminate(&pod_key(0), &crate::apiserver::store::Preconditions::default());
}
