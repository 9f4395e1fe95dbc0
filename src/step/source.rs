//! Snapshots as a restore sees them: what can be made of them, and what they say of themselves.

use kube::ResourceExt;

use super::observe::complaint;
use crate::api::recorded::RecordedClaim;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use crate::api::{annotation, label};
use crate::plan::member::{self, Standing};
use crate::plan::restore::sight::{Content, SnapshotClass, Source};
use crate::plan::text::head;

const UID_MAX: usize = 64;
const PINS_MAX: usize = 100;
/// No format that is known has more characters.
const FORMAT_MAX: usize = 16;

/// A `VolumeSnapshot`, ours or not: what it does not say is absent.
pub fn source(object: &VolumeSnapshot) -> Source {
    let label = |key: &str| object.labels().get(key).cloned();
    let note = |key: &str| object.annotations().get(key).cloned();
    let status = object.status.clone().unwrap_or_default();
    let standing = member::standing(object);
    let cut = note(annotation::CUT).and_then(|nanoseconds| nanoseconds.parse().ok());
    Source {
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        statefulset: label(label::STATEFULSET),
        policy: label(label::POLICY),
        policy_namespace: label(label::POLICY_NAMESPACE),
        policy_uid: label(label::POLICY_UID),
        run: standing.run(),
        claim: standing.claim(),
        stranger: if let Standing::Stranger(odd) = standing { label(label::RUN).map(|run| (run, odd)) } else { None },
        created: object.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
        epoch: note(annotation::TRANSITIONS).and_then(|epoch| epoch.parse().ok()),
        size: note(annotation::RUN_SIZE).and_then(|size| size.parse().ok()),
        cut: cut.and_then(|nanoseconds| jiff::Timestamp::from_nanosecond(nanoseconds).ok()),
        format: note(annotation::FORMAT).map(|format| head(&format, FORMAT_MAX).into_owned()),
        ready: status.ready_to_use == Some(true),
        leaving: object.metadata.deletion_timestamp.is_some(),
        error: complaint(status.error),
        restore_size: status.restore_size.map(|size| size.0),
        pvc: object.spec.source.persistent_volume_claim_name.clone(),
        content: status.bound_volume_snapshot_content_name,
        class: object.spec.volume_snapshot_class_name.clone(),
        pinned: pins(object),
    }
}

/// The claim as it was when it was cut.
pub fn recorded(object: &VolumeSnapshot) -> Option<RecordedClaim> {
    object.annotations().get(annotation::CLAIM).and_then(|claim| serde_json::from_str(claim).ok())
}

/// The restores that use it, by uid. More than there can be somebody else has made up.
pub fn pins(object: &VolumeSnapshot) -> Vec<String> {
    let all = object.annotations().get(annotation::PINNED_BY).map_or("", String::as_str).split(',').map(str::trim);
    all.filter(|uid| !uid.is_empty() && uid.len() <= UID_MAX).take(PINS_MAX).map(ToOwned::to_owned).collect()
}

pub fn content(object: &VolumeSnapshotContent) -> Content {
    let spec = &object.spec;
    let status = object.status.clone().unwrap_or_default();
    Content {
        driver: spec.driver.clone(),
        snapshot_uid: spec.volume_snapshot_ref.uid.clone(),
        handle: status.snapshot_handle.or_else(|| spec.source.snapshot_handle.clone()),
        volume: spec.source.volume_handle.clone(),
        mode: spec.source_volume_mode.clone(),
        leaving: object.metadata.deletion_timestamp.is_some(),
    }
}

pub fn snapshot_class(object: &VolumeSnapshotClass) -> SnapshotClass {
    let inside = object.annotations().get(annotation::IN_VOLUME_SNAPSHOTS);
    SnapshotClass { name: object.name_any(), in_volume: inside.is_some_and(|value| value == "true") }
}
