//! What is really stored, read by the tests themselves: looked at after every request that was carried out, and whenever
//! the world has moved.

use std::collections::BTreeMap;

use serde_json::Value;
use sts_backup::api::restore::StatefulSetRestoreStatus;
use sts_backup::api::{annotation, label};
use sts_backup::plan::noun::{Claim, ClaimRef, Lease, Marks, Open, Retention, Target, Volume};
use sts_backup::plan::restore::invariant::{self, Breach, Promise, State as Stored};

use super::before::{NAME, OTHERS, claim_key, object, set_key, volume_key};
use super::storage::{is_bound, is_leaving, mounts};
use crate::apiserver::State;
use crate::apiserver::kind::Key;
use crate::apiserver::request::Ask;
use crate::apiserver::store::{Store, text};
use crate::shop::{self, NAMESPACE};

pub fn status(store: &Store) -> Option<StatefulSetRestoreStatus> {
    let object = store.get(&object())?;
    Some(serde_json::from_value(object["status"].clone()).unwrap_or_default())
}

fn own(object: &Value, pointer: &str) -> Option<String> {
    Some(text(object, pointer).to_owned()).filter(|word| !word.is_empty())
}

fn note(object: &Value, part: &str, key: &str) -> Option<String> {
    object["metadata"][part][key].as_str().map(ToOwned::to_owned)
}

fn claim(object: &Value) -> Claim {
    Claim {
        uid: text(object, "/metadata/uid").into(),
        leaving: is_leaving(object),
        volume: own(object, "/spec/volumeName").filter(|_| is_bound(object)),
        ..Claim::default()
    }
}

fn volume(object: &Value) -> Volume {
    let of = |field: &str| own(object, &format!("/spec/claimRef/{field}"));
    let claim =
        of("name").map(|name| ClaimRef { namespace: of("namespace").unwrap_or_default(), name, uid: of("uid") });
    let marks = Marks { restore: note(object, "labels", label::RESTORE), ..Marks::default() };
    Volume {
        uid: text(object, "/metadata/uid").into(),
        handle: text(object, "/spec/csi/volumeHandle").into(),
        policy: text(object, "/spec/persistentVolumeReclaimPolicy").into(),
        phase: text(object, "/status/phase").into(),
        claim,
        marks,
        ..Volume::default()
    }
}

pub fn target(store: &Store) -> Option<Target> {
    let object = store.get(&set_key())?;
    let when = |word: &str| text(object, &format!("/spec/persistentVolumeClaimRetentionPolicy/{word}")).to_owned();
    Some(Target {
        uid: text(object, "/metadata/uid").into(),
        replicas: u32::try_from(object["spec"]["replicas"].as_u64().unwrap_or(1)).unwrap(),
        retention: Retention { scaled: when("whenScaled"), deleted: when("whenDeleted") },
        ..Target::default()
    })
}

pub fn lease(store: &Store) -> Option<Lease> {
    let object = store.get(&shop::lease())?;
    let open = note(object, "annotations", annotation::OPEN);
    let up = object["metadata"]["labels"][label::FENCE] == label::FENCE_VALUE;
    Some(Lease {
        open: open.map(|open| serde_json::from_str::<Open>(&open).unwrap()),
        fence: up.then(|| note(object, "annotations", annotation::FENCE_USER).unwrap_or_default()),
        restored: note(object, "annotations", annotation::RESTORED_BY)
            .map(|text| text.lines().map(ToOwned::to_owned).collect())
            .unwrap_or_default(),
        ..Lease::default()
    })
}

pub fn volumes(store: &Store) -> BTreeMap<String, Volume> {
    store.all("persistentvolumes").map(|(key, object)| (key.name.clone(), volume(object))).collect()
}

/// What is under each claim.
pub fn contents(state: &State) -> BTreeMap<String, String> {
    let storage = state.nature.storage.as_ref().unwrap();
    let on = |claim: &Value| storage.content(&state.store, claim).cloned().unwrap_or_default();
    let all = state.store.all("persistentvolumeclaims");
    all.map(|(key, claim)| (key.name.clone(), on(claim))).collect()
}

/// How the Lease remembers this request, whatever the hash of its spec is.
fn signature(lease: &Lease) -> String {
    let front = format!("{NAMESPACE}/{NAME}@");
    let entry = lease.restored.iter().find(|entry| entry.starts_with(&front));
    entry.and_then(|entry| entry.split(' ').next()).unwrap_or("none").to_owned()
}

/// What one request has done that none may; then whether what is stored now may be.
pub fn check(state: &mut State, ask: &Ask) {
    if ask.is_dry() {
        return;
    }
    let mut bad: Vec<String> = forbidden(state, ask).into_iter().collect();
    bad.extend(broken(state));
    for what in bad {
        violate(state, what);
    }
}

/// Somebody took this claim away and put one of their own under its name: what was on its volume went by their hand.
fn is_excused(state: &State, breach: &Breach) -> bool {
    let hit = state.nature.storage.as_ref().unwrap().hit.as_ref();
    hit == Some(&breach.of) && matches!(breach.promise, Promise::Content | Promise::WayBack)
}

pub fn violate(state: &mut State, what: String) {
    if !state.violations.contains(&what) {
        state.log.push(format!("!!! {what}"));
        state.violations.push(what);
    }
}

pub fn broken(state: &State) -> Vec<String> {
    let store = &state.store;
    let mut all = others(state);
    let (Some(status), Some(lease)) = (status(store), lease(store)) else { return all };
    let uid = text(store.get(&object()).unwrap(), "/metadata/uid").to_owned();
    let namespaced = store.all("persistentvolumeclaims").filter(|(key, _)| key.namespace == NAMESPACE);
    let claims = namespaced.map(|(key, object)| (key.name.clone(), claim(object))).collect();
    let breaches = invariant::broken(&Stored {
        ending: false,
        uid: &uid,
        status: &status,
        claims: &claims,
        volumes: &volumes(store),
        target: target(store).as_ref(),
        lease: Some(&lease),
        released: state.nature.storage.as_ref().unwrap().released,
        signature: &signature(&lease),
    });
    all.extend(breaches.into_iter().filter(|breach| !is_excused(state, breach)).map(|breach| breach.why));
    all
}

/// What is somebody else's is there, and bound as it was.
fn others(state: &State) -> Vec<String> {
    let touched = |name: &&&str| {
        let claim = state.store.get(&claim_key(name)).filter(|claim| !is_leaving(claim));
        let volume = claim.and_then(|claim| state.store.get(&volume_key(text(claim, "/spec/volumeName"))));
        let bound = claim
            .zip(volume)
            .is_some_and(|(claim, volume)| text(volume, "/spec/claimRef/uid") == text(claim, "/metadata/uid"));
        let storage = state.nature.storage.as_ref().unwrap();
        !bound || claim.and_then(|claim| storage.content(&state.store, claim)).is_none_or(|on| on != "theirs")
    };
    let bad = OTHERS.iter().filter(touched);
    bad.map(|name| format!("claim {name} or its volume was touched, and is somebody else's")).collect()
}

/// Of requests that were carried out those that no restore may make.
fn forbidden(state: &State, ask: &Ask) -> Option<String> {
    let (store, key) = (&state.store, ask.key());
    let storage = state.nature.storage.as_ref().unwrap();
    // The answer to a deletion comes when the object may be gone: its last state is in the log.
    let last = store.log.iter().rev().find(|change| change.key == key).map(|change| &change.object)?;
    let uid = text(last, "/metadata/uid");
    if let Some(line) = storage.strangers.get(uid).filter(|_| matches!(ask.verb, "patch" | "delete")) {
        let named = ask.body.pointer("/preconditions/uid").or(ask.body.pointer("/metadata/uid"));
        if named.is_none_or(|named| named != uid) && *line == ask.line() && !ask.body.is_array() {
            return Some(format!("{line} was meant for another, and is somebody else's"));
        }
    }
    match (ask.verb, key.kind.resource) {
        ("delete", "persistentvolumeclaims") => {
            let uses = |pod: &Value| mounts(pod).contains(&key.name);
            let early = |pod: &Value| {
                let born = text(pod, "/metadata/creationTimestamp").parse::<jiff::Timestamp>();
                born.is_ok_and(|born| born + jiff::SignedDuration::from_secs(2) < store.clock.now())
            };
            let held = store.all("pods").any(|(_, pod)| uses(pod) && early(pod));
            held.then(|| format!("claim {} is deleted in use", key.name))
        }
        ("create", "persistentvolumeclaims") => {
            let snapshot = Key::new("volumesnapshots", NAMESPACE, text(last, "/spec/dataSource/name"));
            let found = store.get(&snapshot)?;
            let pinned = note(found, "annotations", annotation::PINNED_BY).is_some_and(|pins| !pins.is_empty());
            (!pinned).then(|| format!("claim {} is made from a snapshot that is not pinned", key.name))
        }
        ("patch", "persistentvolumes") => {
            let now = store.get(&key)?;
            let on = storage.contents.get(text(now, "/spec/csi/volumeHandle")).cloned().unwrap_or_default();
            let deletes = text(now, "/spec/persistentVolumeReclaimPolicy") == "Delete";
            let before = store.log.iter().rev().find(|change| change.key == key)?.before.as_ref()?;
            let kept = text(before, "/spec/persistentVolumeReclaimPolicy") != "Delete";
            let bound = text(now, "/status/phase") == "Bound";
            if deletes && kept && !bound && !on.starts_with("new ") && !storage.released {
                return Some(format!("volume {} with {on} is set to Delete", key.name));
            }
            None
        }
        _ => None,
    }
}
