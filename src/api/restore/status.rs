//! What a StatefulSetRestore reports: phase, journal, the write-ahead plans, conditions.
//!
//! Role: wire shape only. Every field is absent until it is known.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::shared::RunStatus;
use crate::api::word::words;

words! {
    /// Where a StatefulSetRestore stands.
    pub enum RestorePhase: New {
        /// Validating and staging: the application runs.
        New,
        /// The pods stop.
        ScalingDown,
        /// The volumes are swapped.
        Restoring,
        /// The pods start.
        ScalingUp,
        /// The pods are ready on the restored volumes.
        Completed,
        /// It did not succeed; the message says what is where.
        Failed,
        /// The old volumes are back, on request.
        Undone,
    }
}

impl RestorePhase {
    /// Nothing more is done.
    pub fn is_end(self) -> bool {
        matches!(self, RestorePhase::Completed | RestorePhase::Failed | RestorePhase::Undone)
    }
}

/// What happened, and what can be undone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetRestoreStatus {
    /// New (validating and staging), ScalingDown, Restoring, ScalingUp, Completed, Failed, Undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// One sentence for a human.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Replicas of the StatefulSet before it was scaled down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_replicas: Option<i32>,
    /// Name of each restored claim and of the VolumeSnapshot that it was made from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub restored_snapshots: BTreeMap<String, String>,
    /// When the restore began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the restore ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What the preflight warned of before the restore began, each reason once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub warnings: Vec<String>,
    /// From the scale to 0 until all pods were ready again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime_seconds: Option<f64>,
    /// Until when the replaced volumes are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo_deadline: Option<Time>,
    /// Name of the newest Job, in the watcher's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// The last value of the annotation `backup.sts-backup.io/undo` that was handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_request: Option<String>,
    /// The journal of the open run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
    /// What the restore replaces, written before the first change and never changed after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<RestorePlan>,
    /// What an undo replaces, written before its first change and never changed after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo_plan: Option<RestorePlan>,
    /// The new volumes, written once when all are proven and before the first delete.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub staged: Vec<StagedClaim>,
    /// The claims that the restore has made, from a snapshot or empty: the name of each by its uid.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub made_claims: BTreeMap<String, String>,
    /// Ready, Reconciling, Stalled, Undoable; Waiting while a due run has no Job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// `NAMESPACE/DEPLOYMENT` of the watcher that serves this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// A write-ahead plan: all that is needed to finish, roll back or undo.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RestorePlan {
    /// Format of the plan, `"1"`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Id of the run that was chosen; absent with snapshotNames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Manifest of the StatefulSet as it was; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "manifest")]
    pub stateful_set: Option<Value>,
    /// Replicas of the StatefulSet as it was when it was scaled to 0; until then as it was when the plan was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_replicas: Option<i32>,
    /// The claims, one entry each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub claims: Vec<ReplacedClaim>,
}

/// A claim of the plan, with all that is needed to put its old volume back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplacedClaim {
    /// Name of the claim.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pvc: String,
    /// Uid of the claim as it was; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_pvc_uid: Option<String>,
    /// Name of the volume that the claim had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_pv: Option<String>,
    /// Uid of that volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_pv_uid: Option<String>,
    /// Reclaim policy of that volume before the restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_reclaim_policy: Option<String>,
    /// The CSI driver's handle of that volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    /// Manifest of the claim to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "manifest")]
    pub claim: Option<Value>,
    /// Name of the VolumeSnapshot; absent for a fresh claim and in an undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Name of the staging claim; absent with InPlace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staging_pvc: Option<String>,
}

/// A new volume, proven and ready to be swapped in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct StagedClaim {
    /// Name of the claim that it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pvc: String,
    /// Uid of the staging claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staging_pvc_uid: Option<String>,
    /// Name of the new volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pv: Option<String>,
    /// Uid of the new volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pv_uid: Option<String>,
    /// The CSI driver's handle of the new volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
}

/// Any object, stored and compared as one value.
fn manifest(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
