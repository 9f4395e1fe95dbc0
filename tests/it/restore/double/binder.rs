//! The volume controller beside the double: whose a volume is, and which claim gets it.

use serde_json::{Value, json};

use super::storage::{Storage, is_leaving};
use crate::apiserver::kind::Key;
use crate::apiserver::store::{Store, text};

const BOUND: &str = "pv.kubernetes.io/bind-completed";

/// A volume as the binder sees it.
struct Volume {
    key: Key,
    uid: String,
    phase: String,
    should: &'static str,
    /// Namespace and name of the claim that it is for, and the uid of the one that has it.
    of: Option<(String, String)>,
    claim: String,
    class: String,
}

impl Volume {
    fn of(store: &Store, key: &Key, object: &Value) -> Volume {
        let of = &object["spec"]["claimRef"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Volume {
            key: key.clone(),
            uid: word(&object["metadata"]["uid"]),
            phase: word(&object["status"]["phase"]),
            should: phase(store, object),
            of: of.is_object().then(|| (word(&of["namespace"]), word(&of["name"]))),
            claim: word(&of["uid"]),
            class: word(&object["spec"]["storageClassName"]),
        }
    }

    fn is_for(&self, claim: &Key) -> bool {
        self.of.as_ref().is_some_and(|(namespace, name)| *namespace == claim.namespace && *name == claim.name)
    }
}

/// A claim as the binder sees it.
struct Claim {
    key: Key,
    uid: String,
    named: String,
    class: String,
    bound: bool,
    leaving: bool,
    lost: bool,
}

impl Claim {
    fn of(key: &Key, object: &Value) -> Claim {
        Claim {
            key: key.clone(),
            uid: text(object, "/metadata/uid").to_owned(),
            named: text(object, "/spec/volumeName").to_owned(),
            class: text(object, "/spec/storageClassName").to_owned(),
            bound: object["metadata"]["annotations"][BOUND] == "yes",
            leaving: is_leaving(object),
            lost: object["status"]["phase"] == "Lost",
        }
    }
}

impl Storage {
    pub(super) fn binder(&mut self, store: &mut Store) {
        let volumes: Vec<Volume> =
            store.all("persistentvolumes").map(|(key, volume)| Volume::of(store, key, volume)).collect();
        for volume in &volumes {
            let phase = volume.should;
            // What was Released stays so, unless it is reserved anew.
            if volume.phase != phase && self.is_due(store, format!("{phase} {}", volume.uid), 20) {
                store.change(&volume.key, true, |volume| volume["status"] = json!({ "phase": phase }));
            }
        }
        let claims: Vec<Claim> =
            store.all("persistentvolumeclaims").map(|(key, claim)| Claim::of(key, claim)).collect();
        for claim in claims {
            let reserved = |volume: &Volume| {
                claim.named.is_empty() && !claim.leaving && volume.is_for(&claim.key) && volume.claim.is_empty()
            };
            let volume = volumes.iter().find(|volume| volume.key.name == claim.named || reserved(volume));
            let its = |volume: &Volume| volume.is_for(&claim.key) && volume.claim == claim.uid;
            if claim.bound && !volume.is_some_and(its) && !claim.lost {
                store.change(&claim.key, true, |claim| claim["status"] = json!({ "phase": "Lost" }));
            }
            let free = |volume: &&Volume| {
                volume.of.is_none()
                    || volume.is_for(&claim.key) && (volume.claim.is_empty() || volume.claim == claim.uid)
            };
            // A claim of another class stays Pending.
            let fits = |volume: &&Volume| volume.class == claim.class && !claim.bound && !claim.leaving;
            if let Some(volume) = volume.filter(free).filter(fits)
                && self.is_due(store, format!("bind {}", claim.uid), 30)
            {
                bind(store, &claim.key, &claim.uid, &volume.key);
            }
        }
    }
}

/// For the claim of that name, whichever it is.
pub fn is_reserved(volume: &Value, claim: &Key) -> bool {
    text(volume, "/spec/claimRef/name") == claim.name
        && text(volume, "/spec/claimRef/namespace") == claim.namespace
        && text(volume, "/spec/claimRef/uid").is_empty()
}

fn phase(store: &Store, volume: &Value) -> &'static str {
    let of = |field: &str| text(volume, &format!("/spec/claimRef/{field}"));
    if of("uid").is_empty() {
        return "Available";
    }
    let claim = store.get(&Key::new("persistentvolumeclaims", of("namespace"), of("name")));
    if claim.is_some_and(|claim| text(claim, "/metadata/uid") == of("uid")) { "Bound" } else { "Released" }
}

pub fn bind(store: &mut Store, claim: &Key, uid: &str, volume: &Key) {
    store.change(volume, false, |volume| {
        volume["spec"]["claimRef"] = json!({ "kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "namespace": claim.namespace, "name": claim.name, "uid": uid });
    });
    store.change(volume, true, |volume| volume["status"] = json!({ "phase": "Bound" }));
    let storage = store.get(volume).map(|volume| volume["spec"]["capacity"].clone());
    store.change(claim, false, |claim| {
        claim["spec"]["volumeName"] = volume.name.clone().into();
        claim["metadata"]["annotations"][BOUND] = "yes".into();
    });
    store.change(claim, true, |claim| claim["status"] = json!({ "phase": "Bound", "capacity": storage }));
}
