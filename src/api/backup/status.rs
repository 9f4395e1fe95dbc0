//! What a StatefulSetBackup reports: phase, journal, newest runs, conditions.
//!
//! Role: wire shape only. Every field is absent until it is known.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::condition::Reason;
use crate::api::shared::{Consistency, Outcome, RunStatus, Trigger};
use crate::api::word::words;

words! {
    /// Where a StatefulSetBackup stands.
    pub enum BackupPhase: Pending {
        /// No run has begun.
        Pending,
        /// A run is under way.
        InProgress,
        /// The newest run succeeded.
        Ready,
        /// The newest run failed.
        Failed,
    }
}

/// What happened, and what happens next.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetBackupStatus {
    /// Pending until the first run begins, InProgress while one runs, then as the newest run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// One sentence for a human.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the newest successful run was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup_time: Option<Time>,
    /// The newest slot for which a Job was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// The next slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// When the newest run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt_time: Option<Time>,
    /// The last value of the annotation `backup.sts-backup.io/requested-at` that was handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_request: Option<String>,
    /// The journal of the open run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunStatus>,
    /// The newest run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// The newest ten runs, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,
    /// Ready, Reconciling, Stalled; Waiting while a due run has no Job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// `NAMESPACE/DEPLOYMENT` of the watcher that serves this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// A run in full.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct LastRun {
    /// Run id, `YYYYMMDD-HHMMSS` (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The slot that the run served: RFC 3339, or the value of the annotation that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Which attempt of the slot, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// Name of the Job, in the watcher's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// schedule, first, catchup, manual or command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// From the first pre hook to the end of the last post hook, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_seconds: Option<f64>,
    /// From the first cut to the last, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew_seconds: Option<f64>,
    /// Frozen, CrashPerVolume or Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// The snapshots of the run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub snapshots: Vec<SnapshotStatus>,
    /// Succeeded, Failed or Superseded; absent while the run is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it ended so, one CamelCase word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<Reason>,
}

/// One VolumeSnapshot of a run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotStatus {
    /// Name of the VolumeSnapshot.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Name of the claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc_name: Option<String>,
    /// Ordinal of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<i32>,
    /// Name of the volumeClaimTemplate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_template: Option<String>,
    /// Whether a volume can be made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// Least size of a volume made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<Quantity>,
    /// When it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
}

/// A run in short.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct HistoryEntry {
    /// Run id, `YYYYMMDD-HHMMSS` (UTC).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Succeeded, Failed or Superseded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it ended so, one CamelCase word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<Reason>,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_time: Option<Time>,
    /// From the first pre hook to the end of the last post hook, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_seconds: Option<f64>,
    /// How many snapshots the run has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<i32>,
}
