//! The snapshots, their contents, and the classes that are to make volumes from them.

use super::{Findings, parameter};
use crate::api::condition::Reason;
use crate::plan::choose::{Chosen, unrecorded};
use crate::plan::known::{Content, Snapshot};
use crate::plan::name::{self, ClaimKey};
use crate::plan::quantity;
use crate::plan::restore::begin::recorded;
use crate::plan::restore::journal::{Item, Plan};
use crate::plan::restore::new_claim;
use crate::plan::restore::sight::StorageClass;
use crate::plan::view::{Read, View};

pub fn check(v: &View, chosen: &Chosen, plan: &Plan, found: &mut Findings) -> Result<(), Read> {
    if let Some(run) = unrecorded(v, chosen)? {
        let object = format!("Lease {}/{}", v.want.statefulset_namespace, name::lease(&v.want.statefulset));
        let message = format!("run {run} is not on record: nobody vouches for who made its snapshots, and when");
        found.warn(
            Reason::NotOnRecord,
            &object,
            message,
            "restore it only if you know where they come from: see sts-backup list runs",
        );
    }
    for (key, name) in &chosen.claims {
        let pvc = key.pvc(&v.want.statefulset);
        let Some(item) = plan.items.iter().find(|item| item.pvc == pvc) else { continue };
        let object = format!("VolumeSnapshot {}/{name}", v.want.statefulset_namespace);
        let Some(source) = v.restore.sources()?.get(name) else {
            found.refuse_as(Reason::RunNotFound, &object, "does not exist", "choose another run");
            continue;
        };
        state(source, &object, found);
        origin(v, key, source, &object, found);
        let Some(content) = v.restore.content_of(name)? else {
            found.refuse(&object, "its VolumeSnapshotContent is gone", "choose another run");
            continue;
        };
        of_content(source, content, &object, found);
        size(v, source, item, &object, found)?;
    }
    for item in &plan.items {
        class(v, item, found)?;
    }
    Ok(())
}

fn state(source: &Snapshot, object: &str, found: &mut Findings) {
    if let Some((run, odd)) = &source.stranger {
        found.warn(
            Reason::NotOfItsRun,
            object,
            odd.to_string(),
            &format!("do not take it for a snapshot of run {run}"),
        );
    }
    if source.leaving.is_some() {
        found.refuse(object, "is being deleted", "choose another run");
    }
    match &source.error {
        // Ready is ready: what the driver could not do at first it has done since.
        Some(error) if source.ready => {
            let message = format!("is ready, and its status has an error all the same: {error}");
            found.warn(
                Reason::SnapshotErrorPassed,
                object,
                message,
                "nothing to do: the error is from before it became ready",
            );
        }
        Some(error) => found.refuse(object, format!("is in error: {error}"), "choose another run, or fix the driver"),
        None => {}
    }
    if !source.ready {
        found.refuse(object, "is not ready", "wait until readyToUse is true, or choose another run");
    }
}

/// Cut of the very claim whose place it is to take.
fn origin(v: &View, key: &ClaimKey, source: &Snapshot, object: &str, found: &mut Findings) {
    let wanted = key.pvc(&v.want.restore.source);
    if source.pvc.as_ref() != Some(&wanted) {
        let of = source.pvc.as_deref().unwrap_or("no claim (an imported content)");
        let message = format!("its source is {of}, not claim {wanted}");
        found.refuse(
            object,
            message,
            "restore only snapshots that were taken of these claims; see spec.sourceStatefulSet",
        );
    }
}

fn of_content(source: &Snapshot, content: &Content, object: &str, found: &mut Findings) {
    if content.leaving {
        found.refuse(object, "its VolumeSnapshotContent is being deleted", "choose another run");
    }
    if content.handle.is_none() {
        found.refuse(object, "its VolumeSnapshotContent has no snapshotHandle", "choose another run");
    }
    if content.snapshot.as_ref() != Some(&source.uid) {
        found.refuse(object, "its VolumeSnapshotContent does not point back at it", "choose another run");
    }
}

fn size(v: &View, source: &Snapshot, item: &Item, object: &str, found: &mut Findings) -> Result<(), Read> {
    if let Some(size) = source.restore_size.as_ref().filter(|size| quantity::exceeds(size, &item.manifest.storage)) {
        let message = format!("needs {size}, more than the {} of claim {}", item.manifest.storage, item.pvc);
        found.warn(
            Reason::ClaimResized,
            object,
            message,
            "the new claim asks for the larger size; raise volumeClaimTemplates to match",
        );
    }
    let made = new_claim(v, item, item.snapshot.as_ref())?.manifest.storage;
    if quantity::exceeds(&item.manifest.storage, &made) {
        let message = format!("records {} for claim {}, more than is known of it", item.manifest.storage, item.pvc);
        let remedy = format!("the new claim asks for {made}; enlarge it afterwards");
        found.warn(Reason::ClaimResized, object, message, &remedy);
    }
    Ok(())
}

/// The class is there, of the snapshot's driver, and makes the same volume under another claim name.
fn class(v: &View, item: &Item, found: &mut Findings) -> Result<(), Read> {
    let object = format!("PersistentVolumeClaim {}/{}", v.want.statefulset_namespace, item.pvc);
    let content = match &item.snapshot {
        Some(snapshot) => v.restore.content_of(snapshot)?,
        None => None,
    };
    let name = item.manifest.storage_class_name.as_deref();
    let Some(class) = v.restore.storage_class(name)? else {
        let remedy = match content {
            Some(content) => format!("create a StorageClass of the snapshot's driver, {}, by any name", content.driver),
            None => "create the StorageClass again".to_owned(),
        };
        found.refuse(&object, unclassed(name), &remedy);
        return Ok(());
    };
    another(v, item, class, &object, found)?;
    if let Some(content) = content {
        if content.driver != class.provisioner {
            let message = format!(
                "StorageClass {} is of {}, the snapshot of driver {}",
                class.name, class.provisioner, content.driver
            );
            let remedy = format!("create a StorageClass of driver {}, by any name", content.driver);
            found.refuse(&object, message, &remedy);
        }
        let mode = item.manifest.volume_mode.as_deref().unwrap_or("Filesystem");
        if content.mode.as_ref().is_some_and(|of| of != mode) {
            let of = content.mode.as_deref().unwrap_or_default();
            found.refuse(
                &object,
                format!("is of volumeMode {mode}, the snapshot of {of}"),
                "restore into the same mode",
            );
        }
    }
    if item.staging.is_some() {
        named(class, item, &object, found);
    }
    Ok(())
}

fn unclassed(name: Option<&str>) -> String {
    name.map_or("no StorageClass is the default".to_owned(), |name| format!("StorageClass {name} is gone"))
}

/// The new volume is made in another class than the claim has.
fn another(v: &View, item: &Item, class: &StorageClass, object: &str, found: &mut Findings) -> Result<(), Read> {
    let own = recorded(v, &item.pvc, item.snapshot.as_ref())?.and_then(|claim| claim.storage_class_name.as_deref());
    if item.snapshot.is_none() || own == item.manifest.storage_class_name.as_deref() {
        return Ok(());
    }
    let why = match v.restore.storage_class(own)? {
        Some(own) => format!(
            "StorageClass {} is of driver {}, and the snapshot of {}",
            own.name, own.provisioner, class.provisioner
        ),
        None => unclassed(own),
    };
    let message = format!("{why}: the new volume is made in StorageClass {}", class.name);
    let remedy = "nothing to do if that class will do: it is one of the snapshot's driver";
    found.warn(Reason::ClassReplaced, object, message, remedy);
    Ok(())
}

/// Annotations and labels are carried over to a staging claim, its name cannot be.
fn named(class: &StorageClass, item: &Item, object: &str, found: &mut Findings) {
    for key in parameter::named(class, &item.manifest) {
        let message = format!("parameter {key} of StorageClass {} depends on the claim's name", class.name);
        if parameter::is_tag(key) {
            let message = message + ": the new volume is tagged with the name of its staging claim";
            found.warn(Reason::ClassParameters, object, message, "nothing to do if only people read these tags");
        } else {
            found.refuse(object, message, "use spec.strategy: InPlace");
        }
    }
}
