//! The core kinds as far as we use them. What is not listed here is never decoded, and each field that an older
//! or newer server may leave out has a default, so that one odd object cannot fail a whole list.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{thin, whole};
use super::restore::{RestorePhase, StatefulSetRestore};

/// An object of which it only counts that it is there.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(from = "IgnoredAny")]
pub struct Present {}

impl From<IgnoredAny> for Present {
    fn from(_: IgnoredAny) -> Present {
        Present {}
    }
}

/// apps/v1 `StatefulSet`.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "apps::StatefulSet")]
pub struct StatefulSet {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: StatefulSetSpec,
    #[serde(default)]
    pub status: StatefulSetStatus,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    pub observed_generation: i64,
    pub replicas: u32,
    pub updated_replicas: u32,
    pub current_revision: String,
    pub update_revision: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetSpec {
    /// Absent means 1, as the API server would have set it.
    pub replicas: Option<u32>,
    pub ordinals: Ordinals,
    pub volume_claim_templates: Vec<ClaimTemplate>,
    pub persistent_volume_claim_retention_policy: Option<ClaimRetention>,
    /// Kept as it is: it is hashed and recorded; of its fields the nodeSelector is read.
    pub template: Value,
    /// What else there is: it is recorded.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimRetention {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Ordinals {
    pub start: u32,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ClaimTemplate {
    pub metadata: TemplateName,
    /// What else there is: it is recorded.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct TemplateName {
    pub name: String,
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// v1 `Pod`.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "core::Pod")]
pub struct Pod {
    #[serde(default, deserialize_with = "thin")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

impl kube::api::Execute for Pod {}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub containers: Vec<ContainerName>,
    pub init_containers: Vec<ContainerName>,
    pub volumes: Vec<PodVolume>,
    pub node_name: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    /// Present: a claim of its own, named `{pod}-{volume}`.
    pub ephemeral: Option<Present>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    pub claim_name: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerName {
    pub name: String,
    /// Of init containers: `Always` makes it a sidecar.
    pub restart_policy: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Option<String>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub conditions: Vec<PlainCondition>,
}

/// A condition of a core kind, as far as it is read.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct PlainCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub message: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
    pub restart_count: i32,
    pub state: ContainerState,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ContainerState {
    /// Present while it runs.
    pub running: Option<Present>,
    /// Present until it does.
    pub waiting: Option<Waiting>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// v1 `PersistentVolumeClaim`.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "core::PersistentVolumeClaim")]
pub struct PersistentVolumeClaim {
    #[serde(default, deserialize_with = "whole")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: ClaimSpec,
    #[serde(default)]
    pub status: ClaimStatus,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    pub storage_class_name: Option<String>,
    pub access_modes: Vec<String>,
    pub volume_mode: Option<String>,
    pub volume_name: Option<String>,
    pub volume_attributes_class_name: Option<String>,
    pub resources: Resources,
    pub data_source: Option<DataSource>,
    pub data_source_ref: Option<DataSource>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DataSource {
    pub api_group: Option<String>,
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Resources {
    pub requests: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ClaimStatus {
    /// Pending, Bound or Lost.
    pub phase: Option<String>,
    pub capacity: BTreeMap<String, String>,
    pub conditions: Vec<PlainCondition>,
}

/// v1 `PersistentVolume`.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "core::PersistentVolume")]
pub struct PersistentVolume {
    #[serde(default, deserialize_with = "thin")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: VolumeSpec,
    #[serde(default)]
    pub status: VolumeStatus,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    pub csi: Option<CsiSource>,
    pub persistent_volume_reclaim_policy: Option<String>,
    pub storage_class_name: Option<String>,
    pub claim_ref: Option<ClaimReference>,
    pub capacity: BTreeMap<String, String>,
    pub node_affinity: Option<NodeAffinity>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct VolumeStatus {
    pub phase: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ClaimReference {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct NodeAffinity {
    pub required: Option<NodeSelector>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    pub match_expressions: Vec<NodeRequirement>,
    pub match_fields: Vec<NodeRequirement>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct NodeRequirement {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiSource {
    pub driver: String,
    pub volume_handle: String,
}

/// Another's `StatefulSetRestore`: of which `StatefulSet`, and how far it has come.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = "StatefulSetRestore")]
pub struct Restore {
    #[serde(deserialize_with = "thin")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: RestoreSpec,
    #[serde(default)]
    pub status: RestoreStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreSpec {
    pub stateful_set_ref: RestoreTarget,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct RestoreTarget {
    pub name: String,
    pub namespace: Option<String>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatus {
    pub phase: Option<RestorePhase>,
    pub start_time: Option<Timestamp>,
    pub run: Option<Present>,
    pub plan: Option<Present>,
}

/// storage/v1 `VolumeAttachment`.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = "storage::VolumeAttachment")]
pub struct VolumeAttachment {
    #[serde(deserialize_with = "thin")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: AttachmentSpec,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct AttachmentSpec {
    pub source: AttachmentSource,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSource {
    pub persistent_volume_name: Option<String>,
}
