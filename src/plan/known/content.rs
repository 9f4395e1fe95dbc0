//! `VolumeSnapshotContent`s and `VolumeSnapshotClass`es.

use kube::ResourceExt;

use crate::api::annotation;
use crate::api::snapshot::{VolumeSnapshotClass, VolumeSnapshotContent};
use crate::plan::noun::RETAIN;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub uid: String,
    /// resourceVersion
    pub version: String,
    /// The uid of the `VolumeSnapshot` that it says it belongs to.
    pub snapshot: Option<String>,
    pub driver: String,
    /// The driver's name for the snapshot, and for the volume that it was cut of.
    pub handle: Option<String>,
    pub volume: Option<String>,
    /// The volumeMode of that volume.
    pub mode: Option<String>,
    /// deletionPolicy is Retain: what the storage holds would stay behind.
    pub retains: bool,
    pub leaving: bool,
}

impl Content {
    pub fn of(object: &VolumeSnapshotContent) -> Content {
        let spec = &object.spec;
        let told = object.status.as_ref().and_then(|status| status.snapshot_handle.clone());
        Content {
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version().unwrap_or_default(),
            snapshot: spec.volume_snapshot_ref.uid.clone(),
            driver: spec.driver.clone(),
            handle: told.or_else(|| spec.source.snapshot_handle.clone()),
            volume: spec.source.volume_handle.clone(),
            mode: spec.source_volume_mode.clone(),
            retains: spec.deletion_policy == RETAIN,
            leaving: object.metadata.deletion_timestamp.is_some(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct SnapshotClass {
    pub name: String,
    pub driver: String,
    pub is_default: bool,
    /// The driver reports before it cuts: thaw only when the snapshot is ready.
    pub thaw_at_ready: bool,
    /// Contents made with it have deletionPolicy Retain.
    pub retains: bool,
    /// The annotation `/in-volume-snapshots: "true"`: the driver keeps snapshots inside their source volume.
    pub in_volume: bool,
}

impl SnapshotClass {
    pub fn of(object: &VolumeSnapshotClass) -> SnapshotClass {
        let says = |key: &str, value: &str| object.annotations().get(key).is_some_and(|it| it == value);
        SnapshotClass {
            name: object.name_any(),
            driver: object.driver.clone(),
            is_default: object.is_default(),
            thaw_at_ready: says(annotation::THAW_AT, "Ready"),
            retains: object.deletion_policy == RETAIN,
            in_volume: says(annotation::IN_VOLUME_SNAPSHOTS, "true"),
        }
    }
}
