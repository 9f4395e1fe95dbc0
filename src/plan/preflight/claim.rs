//! The claims as they are, their volumes, and the pods on them.

use super::Findings;
use crate::api::condition::Reason;
use crate::api::restore::Uncovered;
use crate::plan::choose::Chosen;
use crate::plan::noun::{Claim, RETAIN};
use crate::plan::restore::begin::uncovered;
use crate::plan::restore::journal::{Item, Plan};
use crate::plan::restore::volume::behind;
use crate::plan::view::{Read, View};

pub fn check(v: &View, chosen: &Chosen, plan: &Plan, found: &mut Findings) -> Result<(), Read> {
    for item in &plan.items {
        one(v, item, found)?;
        pods(v, item, found)?;
    }
    finalizers(v, found)?;
    lacking(v, chosen, plan, found)
}

/// What may have come while the new volumes were made. Pods of others the stop waits for.
pub fn again(v: &View, chosen: &Chosen, plan: &Plan, found: &mut Findings) -> Result<(), Read> {
    for item in &plan.items {
        one(v, item, found)?;
    }
    lacking(v, chosen, plan, found)
}

fn object(v: &View, pvc: &str) -> String {
    format!("PersistentVolumeClaim {}/{pvc}", v.want.statefulset_namespace)
}

fn one(v: &View, item: &Item, found: &mut Findings) -> Result<(), Read> {
    let object = object(v, &item.pvc);
    if let Some(claim) = v.claims()?.get(&item.pvc) {
        state(claim, &object, found);
        volume(v, &item.pvc, claim, &object, found)?;
    }
    snapshots(v, item, &object, found)
}

fn state(claim: &Claim, object: &str, found: &mut Findings) {
    if claim.leaving {
        found.refuse(object, "is being deleted", "wait until it is gone, then restore");
    }
    if claim.lost {
        found.refuse(object, "is Lost: its volume is gone", "delete it; it is then made anew from the snapshot");
    } else if claim.volume.is_none() {
        found.refuse(object, "is not Bound", "delete it, or let it become Bound");
    }
    if claim.resizing {
        found.refuse(object, "is being resized", "wait until the resize is done");
    }
    if !claim.finalizers.is_empty() {
        let message = format!("has finalizers of others: {}", claim.finalizers.join(", "));
        found.refuse(object, message, "they would block its deletion: take them off");
    }
}

fn volume(v: &View, pvc: &str, claim: &Claim, object: &str, found: &mut Findings) -> Result<(), Read> {
    if claim.volume.is_none() {
        return Ok(());
    }
    let Some((pv, volume)) = behind(v, pvc, claim)? else {
        found.refuse(object, "its PersistentVolume is gone or bound to another claim", "look at spec.volumeName");
        return Ok(());
    };
    let of = format!("PersistentVolume {pv}");
    if volume.leaving {
        found.refuse(&of, "is being deleted", "wait, and take the finalizer off that holds it only if it may go");
    }
    if !volume.finalizers.is_empty() {
        let message = format!("has finalizers of others: {}", volume.finalizers.join(", "));
        found.refuse(&of, message, "take them off");
    }
    // One that a restore guards has its own policy written on it.
    if volume.marks.policy.as_ref().unwrap_or(&volume.policy) == RETAIN {
        let message = "its own reclaim policy is Retain: it is kept for ever after the restore";
        found.warn(Reason::VolumeKept, &of, message, "delete it by hand when it is not needed any more");
    }
    Ok(())
}

/// Any snapshot of the claim that is not ready protects it from deletion, also one that is being deleted itself.
fn snapshots(v: &View, item: &Item, object: &str, found: &mut Findings) -> Result<(), Read> {
    for (name, source) in v.restore.sources()? {
        let hangs = source.pvc.as_ref() == Some(&item.pvc) && !source.ready;
        if hangs && item.snapshot.as_ref() != Some(name) {
            let (goes, remedy) = if source.leaving.is_some() {
                (" and is being deleted", "it has to go first: look at its VolumeSnapshotContent and its driver")
            } else {
                ("", "wait until it is ready, or delete it")
            };
            let message =
                format!("VolumeSnapshot {name} of it is not ready{goes}: it would block the claim's deletion");
            found.refuse(object, message, remedy);
        }
    }
    Ok(())
}

fn pods(v: &View, item: &Item, found: &mut Findings) -> Result<(), Read> {
    let (target, object) = (v.target()?, &object(v, &item.pvc));
    for (name, pod) in v.roster()? {
        if pod.finished || !pod.claims.contains(&item.pvc) {
            continue;
        }
        if target.is_none_or(|target| pod.owner.as_ref() != Some(&target.uid)) {
            let message = format!("pod {name}, which is not of the StatefulSet, uses it");
            found.refuse(object, message, "stop that pod: it would hold the claim");
        } else if !v.want.restore.scale_down {
            let message = format!("pod {name} uses it, and spec.scaleDown is false");
            found.refuse(object, message, "scale the StatefulSet to 0 first, or leave spec.scaleDown out");
        }
        if let Some(node) = &pod.node
            && v.restore.nodes()?.iter().any(|known| known.name == *node && !known.ready)
        {
            let message = format!("pod {name} is on node {node}, which is not Ready: it cannot be stopped");
            found.refuse(object, message, "bring the node back, or remove it from the cluster");
        }
    }
    Ok(())
}

/// A pod with a finalizer of somebody's is there until that is taken off, however long ago it has ended.
fn finalizers(v: &View, found: &mut Findings) -> Result<(), Read> {
    let Some(target) = v.target()? else { return Ok(()) };
    let its = v.roster()?.iter().filter(|(_, pod)| pod.owner.as_ref() == Some(&target.uid));
    for (name, pod) in its.filter(|(_, pod)| !pod.finalizers.is_empty()) {
        let object = format!("Pod {}/{name}", v.want.statefulset_namespace);
        let message = format!("has finalizers of others: {}", pod.finalizers.join(", "));
        found.warn(
            Reason::PodFinalizers,
            &object,
            message,
            "see that they are taken off when it stops: until then it counts as running",
        );
    }
    Ok(())
}

/// Ordinals that run now and that the run lacks.
fn lacking(v: &View, chosen: &Chosen, plan: &Plan, found: &mut Findings) -> Result<(), Read> {
    for key in uncovered(v, chosen)? {
        let pvc = key.pvc(&v.want.statefulset);
        let object = object(v, &pvc);
        match v.want.restore.uncovered {
            Uncovered::Fresh if !plan.items.iter().any(|item| item.pvc == pvc) => found.refuse(
                &object,
                format!("replica {} runs now and did not when the plan was made", key.ordinal),
                "restore once more, so that it starts empty as well",
            ),
            Uncovered::Refuse | Uncovered::Unknown => found.refuse(
                &object,
                format!("replica {} runs now and is not in the run", key.ordinal),
                "scale down first, or set spec.uncovered to Keep (its claim stays) or Fresh (it starts on an empty one)",
            ),
            Uncovered::Keep => found.warn(Reason::ReplicaUncovered, &object, "is not in the run and stays as it is", "spec.uncovered is Keep"),
            Uncovered::Fresh => found.warn(Reason::ReplicaUncovered, &object, "is not in the run and starts empty", "spec.uncovered is Fresh"),
        }
    }
    Ok(())
}
