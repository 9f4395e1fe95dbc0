//! Which claims a backup covers, and with which class each is snapshotted: from the view alone, and with a
//! sentence for everything that stands in the way. Nothing is created before this has an answer for every claim.

use std::collections::{BTreeMap, BTreeSet};

use super::hook::{HookSpec, Place};
use super::journal::Journal;
use super::known::SnapshotClass;
use super::name::ClaimKey;
use super::noun::{Claim, Pod, Refusal, Target};
use super::view::{Read, View};
use crate::api::condition::Reason;

/// A claim that will be snapshotted.
#[derive(Debug, Clone, PartialEq)]
pub struct Covered<'a> {
    pub key: ClaimKey,
    pub pvc: &'a str,
    pub claim: &'a Claim,
    pub class: &'a SnapshotClass,
}

/// The claims of the run in the order of their ordinals, or why there can be no run.
pub type Resolved<'a> = Result<Vec<Covered<'a>>, Refusal>;

pub fn resolve(v: &View) -> Result<Resolved<'_>, Read> {
    if let Err(refusal) = allowed(v)? {
        return Ok(Err(refusal));
    }
    let Some(target) = v.target()? else { return Ok(Err(absent(v))) };
    let keys = match keys(v, target)? {
        Ok(keys) => keys,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut covered = Vec::with_capacity(keys.len());
    for (pvc, key) in keys {
        match cover(v, &pvc, key)? {
            Ok(claim) => covered.push(claim),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    covered.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Ok(covered))
}

pub fn absent(v: &View) -> Refusal {
    let (namespace, name) = (&v.want.statefulset_namespace, &v.want.statefulset);
    Refusal::new(
        Reason::StatefulSetNotFound,
        format!(
            "there is no StatefulSet {namespace}/{name}: create it, or correct spec.statefulSetRef in a new StatefulSetBackup"
        ),
    )
}

/// Another namespace's StatefulSet needs that namespace's consent, and cannot have snapshots owned from here.
pub fn allowed(v: &View) -> Result<Result<(), Refusal>, Read> {
    let want = &v.want;
    if want.namespace == want.statefulset_namespace {
        return Ok(Ok(()));
    }
    if want.backup.owned {
        let message = "spec.deletionPolicy: Delete needs the StatefulSet in the same namespace, since the garbage \
                       collector deletes what an owner in another namespace owns: set deletionPolicy to Retain";
        return Ok(Err(Refusal::new(Reason::DeletionPolicyCrossNamespace, message)));
    }
    let granted = v.grant()?.contains(&want.namespace);
    Ok(granted.then_some(()).ok_or_else(|| {
        let (theirs, ours) = (&want.statefulset_namespace, &want.namespace);
        Refusal::new(
            Reason::NotGranted,
            format!(
                "namespace {theirs} does not let {ours} back up its StatefulSets: annotate namespace {theirs} with \
                 backup.sts-backup.io/allow-from: {ours:?}"
            ),
        )
    }))
}

/// The claims by name. With replicas every one of them must exist; without, those that exist are taken.
fn keys(v: &View, target: &Target) -> Result<Result<BTreeMap<String, ClaimKey>, Refusal>, Read> {
    let want = &v.want;
    if let Some(stranger) = want.backup.templates.iter().find(|template| !target.templates.contains(template)) {
        let message = format!(
            "spec.claimTemplates names {stranger:?}, which StatefulSet {} does not have; it has: {}",
            want.statefulset,
            target.templates.join(", ")
        );
        return Ok(Err(Refusal::new(Reason::ClaimMissing, message)));
    }
    let is_wanted = |template: &&String| want.backup.templates.is_empty() || want.backup.templates.contains(template);
    let templates: Vec<String> = target.templates.iter().filter(is_wanted).cloned().collect();
    let name = &want.statefulset;
    let keys: BTreeMap<String, ClaimKey> = if target.replicas > 0 {
        let ordinals = target.start..target.start.saturating_add(target.replicas);
        let of = |ordinal| templates.iter().map(move |template| ClaimKey { ordinal, template: template.clone() });
        ordinals.flat_map(of).map(|key| (key.pvc(name), key)).collect()
    } else {
        let of = |pvc: &String| Some((pvc.clone(), ClaimKey::of(pvc, name, &templates)?));
        v.claims()?.keys().filter_map(of).collect()
    };
    if keys.is_empty() {
        let (ns, why) =
            (&want.statefulset_namespace, if templates.is_empty() { "volumeClaimTemplates" } else { "claims" });
        let message = format!("StatefulSet {ns}/{name} has no {why}: there is nothing to snapshot");
        return Ok(Err(Refusal::new(Reason::NoClaims, message)));
    }
    Ok(Ok(keys))
}

fn cover<'a>(v: &'a View, pvc: &str, key: ClaimKey) -> Result<Result<Covered<'a>, Refusal>, Read> {
    let refuse = |reason, message: String| Ok(Err(Refusal::new(reason, message)));
    let namespace = &v.want.statefulset_namespace;
    let Some((pvc, claim)) = v.claims()?.get_key_value(pvc) else {
        let message = format!("PersistentVolumeClaim {namespace}/{pvc} does not exist, though its replica should");
        return refuse(Reason::ClaimMissing, message);
    };
    if claim.leaving {
        let message = format!("PersistentVolumeClaim {namespace}/{pvc} is being deleted");
        return refuse(Reason::ClaimMissing, message);
    }
    let Some(volume) = &claim.volume else {
        let message = format!("PersistentVolumeClaim {namespace}/{pvc} is not Bound: it has no volume to snapshot yet");
        return refuse(Reason::ClaimNotBound, message);
    };
    let Some(found) = v.volume(volume)? else {
        let message = format!("PersistentVolume {volume} of claim {namespace}/{pvc} does not exist");
        return refuse(Reason::ClaimNotBound, message);
    };
    let Some(driver) = found.driver.as_deref() else {
        let message = format!(
            "PersistentVolume {volume} of claim {namespace}/{pvc} has no CSI driver, so it cannot be snapshotted: \
             leave its template out with spec.claimTemplates"
        );
        return refuse(Reason::ClaimNotCSI, message);
    };
    Ok(class(v, v.classes()?, pvc, driver).map(|class| Covered { key, pvc, claim, class }))
}

/// The class that is named, or the default one **of the claim's own driver**.
fn class<'a>(v: &View, classes: &'a [SnapshotClass], pvc: &str, driver: &str) -> Result<&'a SnapshotClass, Refusal> {
    let refuse = |message: String| Err(Refusal::new(Reason::NoSnapshotClass, message));
    if let Some(name) = &v.want.backup.class {
        return match classes.iter().find(|class| class.name == *name) {
            Some(class) if class.driver == driver => Ok(class),
            Some(class) => refuse(format!(
                "VolumeSnapshotClass {name} is of driver {}, but claim {pvc} lies on {driver}: leave \
                 spec.volumeSnapshotClassName out to use each driver's default class",
                class.driver
            )),
            None => {
                refuse(format!("VolumeSnapshotClass {name}, named by spec.volumeSnapshotClassName, does not exist"))
            }
        };
    }
    let mut defaults = classes.iter().filter(|class| class.driver == driver && class.is_default);
    match (defaults.next(), defaults.next()) {
        (Some(class), None) => Ok(class),
        (None, _) => refuse(format!(
            "no default VolumeSnapshotClass for driver {driver} of claim {pvc}: annotate one with \
             snapshot.storage.kubernetes.io/is-default-class: \"true\", or name one in spec.volumeSnapshotClassName"
        )),
        (Some(one), Some(two)) => refuse(format!(
            "driver {driver} of claim {pvc} has more than one default VolumeSnapshotClass ({}, {}): name one in \
             spec.volumeSnapshotClassName",
            one.name, two.name
        )),
    }
}

/// The containers that the hooks enter, in the order of their ordinals, the pre hook's first where the two differ;
/// none without hooks. With replicas every pod must run; without, only what has not stopped yet counts.
pub fn places(v: &View, covered: &[Covered]) -> Result<Result<Vec<Place>, Refusal>, Read> {
    let hooks = &v.want.backup.hooks;
    if hooks.is_empty() {
        return Ok(Ok(vec![]));
    }
    let target = v.target()?;
    let scaled_down = target.is_some_and(|target| target.replicas == 0);
    let ordinals: BTreeSet<u32> = covered.iter().map(|claim| claim.key.ordinal).collect();
    let mut places = vec![];
    for ordinal in ordinals {
        let name = format!("{}-{ordinal}", v.want.statefulset);
        match v.pod(&name)? {
            None if scaled_down => {}
            Some(pod) if scaled_down && !is_member(pod, target) => {}
            Some(pod) if !is_member(pod, target) => return Ok(Err(not_ours(v, &name))),
            found => {
                for hook in [&hooks.pre, &hooks.post].into_iter().flatten() {
                    match place(v, &name, ordinal, hook, found) {
                        Ok(place) if places.contains(&place) => {}
                        Ok(place) => places.push(place),
                        Err(refusal) => return Ok(Err(refusal)),
                    }
                }
            }
        }
    }
    Ok(Ok(places))
}

/// The `StatefulSet` is the controller of the pod: a name alone proves nothing.
pub fn is_member(pod: &Pod, target: Option<&Target>) -> bool {
    target.is_some_and(|target| pod.owner.as_ref() == Some(&target.uid))
}

fn not_ours(v: &View, name: &str) -> Refusal {
    let (namespace, set) = (&v.want.statefulset_namespace, &v.want.statefulset);
    let message = format!(
        "pod {namespace}/{name} bears the name of a replica of StatefulSet {set} and is not controlled by it, so no hook \
         enters it: remove it, or wait until the StatefulSet has adopted it"
    );
    Refusal::new(Reason::PodNotRunning, message)
}

fn place(v: &View, name: &str, ordinal: u32, hook: &HookSpec, pod: Option<&Pod>) -> Result<Place, Refusal> {
    let path = format!("{}/{name}", v.want.statefulset_namespace);
    let idle = |why: &str| {
        let again = v.record().is_ok_and(|record| matches!(record.journal, Journal::Void(_)));
        let left = if again {
            "it went in the freeze before this one: does its liveness probe outlast the freeze?"
        } else {
            "nothing was frozen and nothing snapshotted. Start it, or back up without hooks until it runs: a \
             StatefulSetBackup without preBackupHook and postBackupHook needs no running pod, and cuts its volumes as well"
        };
        let message = format!("pod {path} {why}, so its hook cannot run: {left}");
        Refusal::new(Reason::PodNotRunning, message)
    };
    let pod = pod.ok_or_else(|| idle("does not exist"))?;
    if !pod.running {
        return Err(idle("is not Running"));
    }
    let names = || pod.containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ");
    let container = match hook.container.as_ref().or(pod.default.as_ref()) {
        Some(asked) => pod.containers.iter().find(|container| container.name == *asked).ok_or_else(|| {
            let message =
                format!("pod {path} has no container {asked:?} for the hook (containerName); it has: {}", names());
            Refusal::new(Reason::ContainerNotFound, message)
        })?,
        None => pod.containers.first().ok_or_else(|| idle("has no container"))?,
    };
    let id = container.id.clone().ok_or_else(|| idle(&format!("has container {} not running", container.name)))?;
    Ok(Place {
        ordinal,
        pod: name.to_owned(),
        uid: pod.uid.clone(),
        container: container.name.clone(),
        container_id: id,
        restarts: container.restarts,
    })
}
