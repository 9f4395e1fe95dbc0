//! `VolumeSnapshot`, `VolumeSnapshotContent` and `VolumeSnapshotClass` (`snapshot.storage.k8s.io/v1`).
//!
//! Role: only the fields that we read or write; unknown ones are ignored. Their CRDs are not ours.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{CustomResource, Resource};
use serde::{Deserialize, Serialize};

use super::meta::thin;

/// Names the kind below, whose metadata is read as far as we use it.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshot",
    root = "SnapshotKind",
    namespaced,
    schema = "disabled"
)]
pub struct SnapshotKindSpec {}

/// A snapshot of a claim.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[resource(inherit = "SnapshotKind")]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshot {
    pub api_version: String,
    pub kind: String,
    #[serde(deserialize_with = "thin")]
    pub metadata: ObjectMeta,
    pub spec: VolumeSnapshotSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<VolumeSnapshotStatus>,
}

impl Default for VolumeSnapshot {
    fn default() -> VolumeSnapshot {
        VolumeSnapshot {
            api_version: VolumeSnapshot::api_version(&()).into_owned(),
            kind: VolumeSnapshot::kind(&()).into_owned(),
            metadata: ObjectMeta::default(),
            spec: VolumeSnapshotSpec::default(),
            status: None,
        }
    }
}

/// What to snapshot.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSpec {
    /// Name of the VolumeSnapshotClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
    /// Claim or pre-made content, exactly one.
    pub source: VolumeSnapshotSource,
}

/// Where a snapshot comes from: exactly one of the two.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSource {
    /// Name of the claim in the same namespace: cut it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,
    /// Name of a content that exists already: import it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_content_name: Option<String>,
}

/// What became of it. Trust the content of that name only if it points back.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotStatus {
    /// Name of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_volume_snapshot_content_name: Option<String>,
    /// When it was cut, by the driver's clock; copied from the content up to a second later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
    /// Whether a volume can be made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// Least size of a volume made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<Quantity>,
    /// The last error; it may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<VolumeSnapshotError>,
}

/// The last error of a snapshot or content.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct VolumeSnapshotError {
    /// What the driver or the controller said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// A snapshot as the driver knows it.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshotContent",
    schema = "disabled",
    status = "VolumeSnapshotContentStatus",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotContentSpec {
    /// Name of the CSI driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// `Delete` or `Retain`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deletion_policy: String,
    /// The VolumeSnapshot that it belongs to, with uid once bound.
    pub volume_snapshot_ref: ObjectReference,
    /// What it was made from.
    pub source: VolumeSnapshotContentSource,
    /// `Filesystem` or `Block`: the mode of the volume that was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volume_mode: Option<String>,
    /// Name of the VolumeSnapshotClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
}

/// What a content was made from: exactly one of the two.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotContentSource {
    /// Handle of the volume that was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    /// Handle of a snapshot that existed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
}

/// What the driver reports.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotContentStatus {
    /// The driver's handle of the snapshot: there once it is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// When it was cut, nanoseconds since 1970, by the driver's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<i64>,
    /// Whether a volume can be made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// Least size of a volume made from it, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<i64>,
    /// The last error; it may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<VolumeSnapshotError>,
}

/// Names the kind below, which has no spec: on the wire its fields are at the root.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "snapshot.storage.k8s.io",
    version = "v1",
    kind = "VolumeSnapshotClass",
    root = "ClassKind",
    schema = "disabled"
)]
pub struct ClassKindSpec {}

/// A class of snapshots.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[resource(inherit = "ClassKind")]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotClass {
    pub metadata: ObjectMeta,
    /// Name of the CSI driver.
    pub driver: String,
    /// `Delete` or `Retain`: what deleting a VolumeSnapshot does to the driver's snapshot.
    pub deletion_policy: String,
}

impl VolumeSnapshotClass {
    /// Whether it is marked as the default class of its driver.
    #[must_use]
    pub fn is_default(&self) -> bool {
        let marks = self.metadata.annotations.as_ref();
        marks.and_then(|all| all.get(super::foreign::DEFAULT_SNAPSHOT_CLASS)).is_some_and(|value| value == "true")
    }
}
