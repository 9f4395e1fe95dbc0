//! What must hold once a command has ended, disturbed or not: judged by the double's objects.

use serde_json::Value;
use sts_backup::api::restore::{RestorePhase, StatefulSetRestoreStatus};
use sts_backup::api::{FINALIZER, annotation, label};

use super::super::world::Odd;
use super::before::{OTHERS, claim_key, claims, object, pod_key, volume_key};
use super::storage::{Storage, is_leaving, is_ready};
use super::{Blow, Case, What, truth};
use crate::apiserver::State;
use crate::apiserver::fault::Strike;
use crate::apiserver::store::{text, words};
use crate::shop::REPLICAS;

/// What a case may excuse.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Excuse {
    /// Somebody has refused something: what was under way may have failed, or be held.
    refused: bool,
    /// Somebody has put something else in the place of what the restore knows.
    hard: bool,
    deleted: bool,
    /// A request of a dead process came late.
    late: bool,
}

impl Excuse {
    fn of(case: &Case, storage: &Storage) -> Excuse {
        let any = |is: fn(&Blow) -> bool| case.blows.iter().any(is);
        let definite = |blow: &Blow| match blow {
            Blow::Strike(_, _, Strike::Say(no)) | Blow::Spell(_, no, _) => matches!(no.code, 401 | 403 | 404),
            _ => false,
        };
        Excuse {
            refused: any(definite),
            hard: storage.hit.is_some() || storage.replaced || storage.rescaled,
            deleted: any(|blow| matches!(blow, Blow::Hand(_, "Delete", _))),
            late: any(|blow| matches!(blow, Blow::Strike(_, _, Strike::Straggle))),
        }
    }
}

pub fn verdict(state: &State, case: &Case) -> Vec<String> {
    let storage = state.nature.storage.as_ref().unwrap();
    let (excuse, mut bad) = (Excuse::of(case, storage), vec![]);
    let mut check = |wrong: bool, what: &str| {
        if wrong {
            bad.push(what.to_owned());
        }
    };
    let Some(status) = truth::status(&state.store) else {
        check(!excuse.deleted, "our object is gone");
        return bad;
    };
    let contents = truth::contents(state);
    let ours: Vec<String> = claims().into_iter().filter(|pvc| storage.hit.as_ref() != Some(pvc)).collect();
    let all = |what: &str| ours.iter().all(|pvc| contents.get(pvc) == Some(&format!("{what} {pvc}")));
    let (old, new) = (all("old"), all("new"));
    let held = status.phase == Some(RestorePhase::Failed) && status.run.is_some();
    let guest = storage.guests > 0 && status.plan.is_none();
    let may_fail = excuse.refused || excuse.hard || excuse.deleted || guest || case.setting.odd == Odd::Broken;
    match (case.what, status.phase) {
        _ if held => check(!excuse.refused && !excuse.hard, "held"),
        (What::Undo, Some(RestorePhase::Undone)) => check(!old, "Undone, and not on the old volumes"),
        (What::Undo, Some(RestorePhase::Completed)) => {
            check(!may_fail || !new, "the undo was refused, or ended half");
        }
        (What::Undo, _) => check(!excuse.deleted, "not undone"),
        (_, Some(RestorePhase::Completed)) => check(!new, "Completed, and not on the restored volumes"),
        (What::Release, _) => check(true, "a release has changed what was done"),
        (_, Some(RestorePhase::Failed)) => {
            check(!may_fail, "failed without a reason");
            check(!old && !excuse.deleted, "Failed, and not on the old volumes");
        }
        _ => check(!excuse.deleted, "not closed"),
    }
    check(!held && !old && !new, "a mixture");
    if held {
        check(truth::lease(&state.store).is_none_or(|lease| lease.open.is_none()), "held without open mark");
    } else {
        closed(state, case, &excuse, &status, &mut check);
        at_rest(state, &excuse, &mut check);
    }
    if !bad.is_empty() {
        bad.push(format!("{:?}: {}", status.phase, status.message.unwrap_or_default()));
    }
    bad
}

/// Nothing is left of a restore that is over.
fn closed(
    state: &State,
    case: &Case,
    excuse: &Excuse,
    status: &StatefulSetRestoreStatus,
    check: &mut impl FnMut(bool, &str),
) {
    let store = &state.store;
    let lease = truth::lease(store).unwrap_or_default();
    check(lease.open.is_some(), "open mark left");
    check(lease.fence.is_some(), "fence left");
    check(crate::truth::is_renewed(store), "Lease still held");
    let pins = store
        .all("volumesnapshots")
        .filter_map(|(_, one)| one["metadata"]["annotations"][annotation::PINNED_BY].as_str());
    check(pins.filter(|pins| !pins.is_empty()).count() > 0 && !excuse.late, "a snapshot is still pinned");
    let staging = store.all("persistentvolumeclaims").any(|(key, _)| key.name.contains("-stage-"));
    check(staging && !excuse.late && !excuse.hard, "staging claim left");
    let ours = store.get(&object()).unwrap();
    let finalizer = words(ours, "/metadata/finalizers").iter().any(|name| name == FINALIZER);
    check(finalizer != status.undo_deadline.is_some() && !excuse.deleted, "finalizer and undo window differ");
    let volumes = truth::volumes(store);
    let under: Vec<String> =
        store.all("persistentvolumeclaims").map(|(_, claim)| text(claim, "/spec/volumeName").to_owned()).collect();
    let loose = volumes.keys().filter(|name| !under.contains(name)).count();
    let wanted = match case.what {
        What::Release => 0,
        _ if status.undo_deadline.is_some() || excuse.deleted || excuse.hard => claims().len(),
        _ => 0,
    };
    check(loose > wanted && !excuse.late && !excuse.hard, "a volume leaked");
    check(loose < wanted && !excuse.hard && !excuse.deleted, "a volume that was set aside is gone");
    let marks = |claim: &Value| {
        let bears = |part: &str, key: &str| !claim["metadata"][part][key].is_null();
        let managed = claim["metadata"]["labels"][label::MANAGED_BY] == label::MANAGED_BY_VALUE;
        bears("labels", label::RESTORE) || bears("annotations", annotation::RESTORED_BY) || managed
    };
    let marked = store.all("persistentvolumeclaims").any(|(_, claim)| marks(claim));
    let over = status.undo_deadline.is_none() && !excuse.deleted;
    check(over && marked && !excuse.late && !excuse.hard, "a claim bears our marks");
    if case.what == What::Release && !excuse.refused {
        check(status.undo_deadline.is_some(), "not released");
    }
}

/// The application is as it was, and so is what is somebody else's.
fn at_rest(state: &State, excuse: &Excuse, check: &mut impl FnMut(bool, &str)) {
    let store = &state.store;
    let storage = state.nature.storage.as_ref().unwrap();
    if let Some(target) = truth::target(store) {
        check(target.replicas != REPLICAS && !storage.rescaled, "wrong replicas");
        let deletes = target.retention.scaled == "Delete";
        check(deletes != (storage.odd == Odd::Scaled) && !excuse.hard, "retention policy not put back");
    }
    let ready = (0..REPLICAS).filter(|ordinal| store.get(&pod_key(*ordinal)).is_some_and(is_ready)).count();
    check(ready != REPLICAS as usize && !excuse.hard && storage.odd != Odd::Sick, "pods are not ready");
    for name in claims().iter().map(String::as_str).chain(OTHERS) {
        let Some(claim) = store.get(&claim_key(name)).filter(|claim| !is_leaving(claim)) else { continue };
        let Some(volume) = store.get(&volume_key(text(claim, "/spec/volumeName"))) else { continue };
        let policy = text(volume, "/spec/persistentVolumeReclaimPolicy");
        let late = excuse.late || excuse.hard;
        check(policy != "Delete" && !late, &format!("the volume of {name} ends with policy {policy}"));
        let bears = |part: &str, key: &str| !volume["metadata"][part][key].is_null();
        let marked = bears("labels", label::RESTORE) || bears("annotations", annotation::RECLAIM_POLICY);
        check(marked && !late, &format!("the volume of {name} still bears our marks"));
    }
}
