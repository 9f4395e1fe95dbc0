//! The controllers beside the double in the world of a restore: StatefulSet controller, kubelet, protection, provisioner and
//! reclaimer, and in `binder.rs` the volume binder. Each looks at what is stored and does what the real one would, traps
//! included, with its delay on the virtual clock. (`../world/nature.rs` has the same rules for the world in memory.)

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sts_backup::api::foreign;

use super::super::world::Odd;
use super::before::{self, NODES, claim_key, pod_key, set_key, volume_key};
use super::binder::{bind, is_reserved};
use crate::apiserver::State;
use crate::apiserver::kind::Key;
use crate::apiserver::store::{Preconditions, Store, text, words};
use crate::shop::{DRIVER, NAMESPACE, REPLICAS, SET, TEMPLATES};

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";

/// What they watch.
const WATCHED: [&str; 5] = ["statefulsets", "pods", "persistentvolumeclaims", "persistentvolumes", "volumesnapshots"];

/// What the controllers know, and what is on each volume.
#[derive(Debug, Default)]
pub struct Storage {
    pub odd: Odd,
    /// By the driver's name of the volume.
    pub contents: BTreeMap<String, String>,
    /// Of the StatefulSet that was there before.
    pub set: String,
    /// The undo window is over.
    pub released: bool,
    /// The claim that somebody has replaced.
    pub hit: Option<String>,
    /// By uid what somebody has put under a name, and the request that was under way for what was there.
    pub strangers: BTreeMap<String, String>,
    /// Something else than a claim was replaced; somebody has scaled it.
    pub replaced: bool,
    pub rescaled: bool,
    /// How many pods of others there were.
    pub guests: u32,
    /// When what was seen may be acted on.
    due: BTreeMap<String, Timestamp>,
    asked: BTreeSet<String>,
    count: u64,
    /// All up to this version has been seen.
    seen: u64,
}

impl Storage {
    pub fn next(&self) -> Option<Timestamp> {
        self.due.values().min().copied()
    }

    /// All of them, until none has anything to do any more.
    pub fn settle(mut self, state: &mut State) -> Storage {
        let waits = self.next().is_none_or(|at| at > state.store.clock.now());
        let from = state.store.log.partition_point(|change| change.version <= self.seen);
        self.seen = state.store.version();
        if waits && !state.store.log[from..].iter().any(|change| WATCHED.contains(&change.key.kind.resource)) {
            return self;
        }
        loop {
            let before = state.store.version();
            self.asked.clear();
            self.stateful_set(state);
            self.kubelet(state);
            Storage::owners(&mut state.store);
            self.protection(&mut state.store);
            self.binder(&mut state.store);
            self.provisioner(&mut state.store);
            self.reclaimer(&mut state.store);
            if state.store.version() == before {
                break;
            }
        }
        let Storage { due, asked, .. } = &mut self;
        due.retain(|what, _| asked.contains(what));
        self.seen = state.store.version();
        self
    }

    /// It has been so for that long.
    pub(super) fn is_due(&mut self, store: &Store, what: String, ms: i64) -> bool {
        let now = store.clock.now();
        let at = *self.due.entry(what.clone()).or_insert(now + SignedDuration::from_millis(ms));
        if at <= now {
            self.due.remove(&what);
            return true;
        }
        self.asked.insert(what);
        false
    }

    pub fn content(&self, store: &Store, claim: &Value) -> Option<&String> {
        let volume = store.get(&volume_key(text(claim, "/spec/volumeName")))?;
        self.contents.get(text(volume, "/spec/csi/volumeHandle"))
    }

    /// OrderedReady: up from the bottom, one at a time; down from the top, one at a time, and one that is not Ready only if
    /// it is the first of those: else it is waited for, for ever.
    fn stateful_set(&mut self, state: &mut State) {
        let store = &mut state.store;
        let Some(set) = store.get(&set_key()).cloned() else { return };
        let generation = set["metadata"]["generation"].as_i64();
        if set["status"]["observedGeneration"].as_i64() != generation {
            if !self.is_due(store, format!("see {generation:?}"), 50) {
                return;
            }
            store.change(&set_key(), true, |set| set["status"]["observedGeneration"] = generation.into());
        }
        let wanted = u32::try_from(set["spec"]["replicas"].as_u64().unwrap_or(1)).unwrap();
        let uid = text(&set, "/metadata/uid").to_owned();
        let mine = |pod: &Value| text(pod, "/metadata/ownerReferences/0/uid") == uid;
        let pods: Vec<(u32, Value)> = (0..REPLICAS)
            .filter_map(|ordinal| Some((ordinal, store.get(&pod_key(ordinal))?.clone())))
            .filter(|(_, pod)| mine(pod))
            .collect();
        let top = pods.iter().rev().find(|(ordinal, _)| *ordinal >= wanted);
        let next = (0..wanted.min(REPLICAS)).find(|ordinal| store.get(&pod_key(*ordinal)).is_none());
        if let Some((ordinal, pod)) = top {
            let sick = pods.iter().find(|(_, pod)| !is_ready(pod)).map(|(ordinal, _)| ordinal);
            if !is_leaving(pod) && (is_ready(pod) || sick == Some(ordinal)) {
                store.terminate(&pod_key(*ordinal), &Preconditions::default()).unwrap();
            }
        } else if let Some(ordinal) = next
            && pods.iter().all(|(other, pod)| *other > ordinal || is_ready(pod) && !is_leaving(pod))
        {
            self.start(state, ordinal, &uid);
        }
        let store = &mut state.store;
        let count = (0..REPLICAS).filter_map(|ordinal| store.get(&pod_key(ordinal))).filter(|pod| mine(pod)).count();
        if set["status"]["replicas"].as_u64() != Some(count as u64) && self.is_due(store, format!("tell {count}"), 20) {
            store.change(&set_key(), true, |set| set["status"]["replicas"] = count.into());
        }
    }

    /// It makes a claim that is missing, and waits for one that goes.
    fn start(&mut self, state: &mut State, ordinal: u32, owner: &str) {
        let claims = TEMPLATES.map(|template| format!("{template}-{SET}-{ordinal}"));
        for name in &claims {
            match state.store.get(&claim_key(name)) {
                Some(claim) if is_leaving(claim) => return,
                Some(_) => {}
                None => {
                    // One that somebody puts there later stands behind no fence.
                    if owner == self.set {
                        state.violations.push(format!("the StatefulSet started on an empty claim {name}"));
                    }
                    before::empty_claim(&mut state.store, name);
                }
            }
        }
        let owners = json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": SET, "uid": owner, "controller": true,
        }]);
        before::pod(&mut state.store, &format!("{SET}-{ordinal}"), &claims, &owners);
    }

    /// A pod runs once its volumes are there, and is Ready two seconds after, if what is on them suits it.
    fn kubelet(&mut self, state: &mut State) {
        let store = &mut state.store;
        let pods: Vec<(Key, Value)> = store.all("pods").map(|(key, pod)| (key.clone(), pod.clone())).collect();
        for (key, pod) in pods {
            let uid = text(&pod, "/metadata/uid");
            // A guest stays for ten seconds.
            let stay = if key.name == "guest" { 10_000 } else { 1000 };
            if is_leaving(&pod) || key.name == "guest" {
                if self.is_due(store, format!("stop {uid}"), stay) {
                    store.purge(&key);
                }
                continue;
            }
            let claims: Vec<Value> =
                mounts(&pod).iter().filter_map(|name| store.get(&claim_key(name)).cloned()).collect();
            let up = claims.len() == mounts(&pod).len() && claims.iter().all(is_bound);
            let old = claims.iter().filter_map(|claim| self.content(store, claim)).any(|on| on.starts_with("old"));
            let well = match self.odd {
                Odd::Sick => !old,
                Odd::Broken => old,
                Odd::Half => old || key.name != "web-1",
                _ => true,
            };
            if is_ready(&pod) && !well {
                store.change(&key, true, |pod| pod["status"] = json!({ "phase": "Running" }));
            } else if up && well && !is_ready(&pod) && self.is_due(store, format!("ready {uid}"), 2000) {
                let status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
                store.change(&key, true, |pod| pod["status"] = status);
            }
        }
    }

    /// whenScaled: Delete makes the claims of surplus pods theirs, and takes them along.
    fn owners(store: &mut Store) {
        let set = store.get(&set_key());
        let policy = set.map(|set| text(set, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled").to_owned());
        let wanted = set.and_then(|set| set["spec"]["replicas"].as_u64()).unwrap_or_default();
        for ordinal in 0..REPLICAS {
            let pod = store.get(&pod_key(ordinal)).map(|pod| text(pod, "/metadata/uid").to_owned());
            for name in TEMPLATES.map(|template| format!("{template}-{SET}-{ordinal}")) {
                let Some(claim) = store.get(&claim_key(&name)).cloned() else { continue };
                let owner = text(&claim, "/metadata/ownerReferences/0/uid").to_owned();
                let condemned = policy.as_deref() == Some("Delete") && u64::from(ordinal) >= wanted;
                match &pod {
                    Some(pod) if condemned && owner.is_empty() => store.change(&claim_key(&name), false, |claim| {
                        let of = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "gone", "uid": pod }]);
                        claim["metadata"]["ownerReferences"] = of;
                    }),
                    _ if !condemned && !owner.is_empty() => store.change(&claim_key(&name), false, |claim| {
                        claim["metadata"]["ownerReferences"] = json!([]);
                    }),
                    _ if !owner.is_empty() && store.by_uid(&owner).is_none() && !is_leaving(&claim) => {
                        store.delete(&claim_key(&name), &Preconditions::default(), false).unwrap();
                    }
                    _ => {}
                }
            }
        }
    }

    /// A claim that goes is gone once no pod uses it.
    fn protection(&mut self, store: &mut Store) {
        let used: BTreeSet<String> = store.all("pods").flat_map(|(_, pod)| mounts(pod)).collect();
        let going = |(key, claim): &(&Key, &Value)| {
            is_leaving(claim) && words(claim, "/metadata/finalizers") == [CLAIM_PROTECTION] && !used.contains(&key.name)
        };
        let going: Vec<(Key, String)> = store
            .all("persistentvolumeclaims")
            .filter(going)
            .map(|(key, claim)| (key.clone(), text(claim, "/metadata/uid").to_owned()))
            .collect();
        for (key, uid) in going {
            if self.is_due(store, format!("gone {uid}"), 300) {
                store.purge(&key);
            }
        }
    }

    /// For a claim that waits for its first consumer the node is chosen by the scheduler, or by whoever wrote it down.
    fn provisioner(&mut self, store: &mut Store) {
        let pending = |claim: &Value| text(claim, "/spec/volumeName").is_empty() && !is_leaving(claim);
        let claims: Vec<(Key, Value)> = store
            .all("persistentvolumeclaims")
            .filter(|(_, claim)| pending(claim))
            .map(|(key, claim)| (key.clone(), claim.clone()))
            .collect();
        for (key, claim) in claims {
            let uid = text(&claim, "/metadata/uid").to_owned();
            let node = claim["metadata"]["annotations"][foreign::SELECTED_NODE].as_str();
            let mounted = store.all("pods").any(|(_, pod)| mounts(pod).contains(&key.name));
            let reserved = store.all("persistentvolumes").any(|(_, volume)| is_reserved(volume, &key));
            let class = store.get(&Key::new("storageclasses", "", text(&claim, "/spec/storageClassName")));
            if reserved || class.is_none_or(|class| text(class, "/provisioner") != DRIVER) {
                continue;
            }
            let Some(node) = node.or(mounted.then_some(NODES[0])) else { continue };
            if self.odd == Odd::Far && node == NODES[0] {
                if self.is_due(store, format!("far {uid}"), 500) {
                    // It cannot serve there: the next candidate, please.
                    store.change(&key, false, |claim| {
                        claim["metadata"]["annotations"].as_object_mut().unwrap().remove(foreign::SELECTED_NODE);
                    });
                }
                continue;
            }
            if !self.is_due(store, format!("make {uid}"), 1000) {
                continue;
            }
            let snapshot = text(&claim, "/spec/dataSource/name");
            let content = match store.get(&Key::new("volumesnapshots", NAMESPACE, snapshot)) {
                Some(found) => format!("new {}", text(found, "/spec/source/persistentVolumeClaimName")),
                None if snapshot.is_empty() => format!("empty {}", key.name),
                None => continue,
            };
            self.provision(store, &key, &content);
        }
    }

    /// A volume of its own for the claim.
    pub fn provision(&mut self, store: &mut Store, claim: &Key, content: &str) {
        self.count += 1;
        let (uid, handle) =
            (text(store.get(claim).unwrap(), "/metadata/uid").to_owned(), format!("handle-{}", self.count));
        let asked = &store.get(claim).unwrap()["spec"];
        let (storage, class) = (asked["resources"]["requests"]["storage"].clone(), asked["storageClassName"].clone());
        let key = volume_key(&format!("pvc-{uid}"));
        let spec = json!({
            "csi": { "driver": DRIVER, "volumeHandle": handle },
            "persistentVolumeReclaimPolicy": "Delete",
            "capacity": { "storage": storage },
            "storageClassName": class,
            "claimRef": { "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.namespace,
                "name": claim.name, "uid": uid },
        });
        let meta = json!({ "annotations": { foreign::PROVISIONED_BY: DRIVER } });
        store.create(&key, json!({ "metadata": meta, "spec": spec }), false).unwrap();
        self.contents.insert(handle, content.to_owned());
        bind(store, claim, &uid, &key);
    }

    /// A Released volume whose policy is Delete goes, with all that is on it.
    fn reclaimer(&mut self, store: &mut Store) {
        let free = |volume: &Value| {
            text(volume, "/status/phase") == "Released"
                && text(volume, "/spec/persistentVolumeReclaimPolicy") == "Delete"
        };
        let all = store.all("persistentvolumes").filter(|(_, volume)| free(volume));
        let all: Vec<(Key, Value)> = all.map(|(key, volume)| (key.clone(), volume.clone())).collect();
        for (key, volume) in all {
            if self.is_due(store, format!("reclaim {}", text(&volume, "/metadata/uid")), 700) {
                self.contents.remove(text(&volume, "/spec/csi/volumeHandle"));
                store.purge(&key);
            }
        }
    }
}

pub fn is_leaving(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

pub fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|of| of["type"] == "Ready" && of["status"] == "True")
}

pub fn is_bound(claim: &Value) -> bool {
    claim["status"]["phase"] == "Bound"
}

/// The claims that a pod mounts.
pub fn mounts(pod: &Value) -> Vec<String> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.map(|volume| text(volume, "/persistentVolumeClaim/claimName").to_owned()).collect()
}
