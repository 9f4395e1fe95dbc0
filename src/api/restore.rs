//! `StatefulSetRestore`: put a run's volumes under the claims of a StatefulSet, once.
//!
//! Role: wire shape and accessors only. An accessor fills in the documented default. Doc comments of fields are the
//! descriptions that `kubectl explain` shows.

mod status;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::status::{ReplacedClaim, RestorePhase, RestorePlan, StagedClaim, StatefulSetRestoreStatus};
use super::rules;
use super::shared::{StatefulSetRef, list, non_empty};
use super::word::words;

/// Default of `spec.pvcDeletionTimeoutSeconds`.
pub const PVC_DELETION_TIMEOUT_SECONDS: i64 = 60;
/// What is added to the pods' terminationGracePeriodSeconds as default of `spec.stopTimeoutSeconds`.
pub const STOP_TIMEOUT_MARGIN_SECONDS: i64 = 120;
/// The largest `spec.stopTimeoutSeconds`.
pub const STOP_TIMEOUT_MOST_SECONDS: i64 = 604_800;
/// Default of `spec.stageTimeoutSeconds`.
pub const STAGE_TIMEOUT_SECONDS: i64 = 3600;
/// Default of `spec.readyTimeoutSeconds`.
pub const READY_TIMEOUT_SECONDS: i64 = 600;
/// Default of `spec.undoWindowSeconds`.
pub const UNDO_WINDOW_SECONDS: i64 = 86_400;

/// What to restore, and how. It cannot be changed: a restore runs once.
// Printer columns share types and priorities.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "backup.sts-backup.io",
    version = "v1alpha1",
    kind = "StatefulSetRestore",
    doc = "StatefulSetRestore puts volumes made from the snapshots of one run under the claims of a StatefulSet, once, \
           and keeps the replaced volumes for an undo.",
    namespaced,
    status = "StatefulSetRestoreStatus",
    shortname = "stsr",
    category = "backup",
    selectable = ".spec.statefulSetRef.name",
    selectable = ".spec.backupName",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.statefulSetRef.name"),
    printcolumn(name = "Run", type_ = "string", json_path = ".status.plan.runId"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Undo Until", type_ = "string", json_path = ".status.undoDeadline"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".spec.backupName", priority = "1"),
    printcolumn(name = "Downtime", type_ = "number", json_path = ".status.downtimeSeconds", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["statefulSetRef"], "x-kubernetes-validations" = rules::restore()))]
pub struct StatefulSetRestoreSpec {
    /// The StatefulSet whose claims get the restored volumes. It may be missing: the claims are then made for it.
    #[serde(skip_serializing_if = "StatefulSetRef::is_empty")]
    pub stateful_set_ref: StatefulSetRef,
    /// Name of the StatefulSetBackup whose runs are searched; it need not exist any more. With neither runId,
    /// pointInTime nor snapshotNames the newest complete run is restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::backup_name()))]
    pub backup_name: Option<String>,
    /// Restore exactly this run of backupName: its id, YYYYMMDD-HHMMSS in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules::run_id()))]
    pub run_id: Option<String>,
    /// Restore the newest complete run of backupName that was cut at or before this instant, RFC 3339. An instant
    /// without a fraction is its whole second, so that the cut time of a run, as tables and status have it, selects that
    /// run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Time",
        extend("maxLength" = 64, "x-kubernetes-validations" = rules::point_in_time())
    )]
    pub point_in_time: Option<Timestamp>,
    /// Restore exactly these VolumeSnapshots of the StatefulSet's namespace, and only their claims: a partial restore.
    /// backupName is not needed.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    #[schemars(
        length(max = 1000),
        inner(length(max = 253)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::snapshot_names())
    )]
    pub snapshot_names: Vec<String>,
    /// Name of the StatefulSet that the snapshots were taken of, to restore them into another one: claims are matched
    /// by volumeClaimTemplate and ordinal. Default: the name in statefulSetRef.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = rules::stateful_set_name("sourceStatefulSet"))
    )]
    pub source_stateful_set: Option<String>,
    /// How the new volumes come under the claims. Staged: all are made and proven while the application runs, then
    /// swapped, so that downtime does not grow with their size. InPlace: the application is stopped, each claim deleted
    /// and made anew, for drivers that cannot clone an attached volume and for quotas too small for both sets. Default:
    /// Staged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Staged"))]
    pub strategy: Option<Strategy>,
    /// Whether the StatefulSet is scaled to 0 for the swap and back after it. false is refused while any pod uses an
    /// affected claim. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub scale_down: Option<bool>,
    /// How long one claim may take to disappear after its deletion, in seconds, 1 to 86400. Then onFailure is done,
    /// which goes on when the claim is gone. Default: 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = PVC_DELETION_TIMEOUT_SECONDS))]
    pub pvc_deletion_timeout_seconds: Option<i64>,
    /// What becomes of ordinals that run now and that the chosen run lacks. Refuse: the restore is refused and says
    /// so. Keep: their claims stay as they are. Fresh: they start on fresh claims, the old volumes are kept. Default:
    /// Refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Refuse"))]
    pub uncovered: Option<Uncovered>,
    /// How long the pods may take to stop after the scale to 0, in seconds, 1 to 604800. Then the StatefulSet is scaled
    /// up again and the restore fails. Default: 120 plus the terminationGracePeriodSeconds of the pods; with
    /// podManagementPolicy OrderedReady, where they stop one after the other, that of each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = STOP_TIMEOUT_MOST_SECONDS))]
    pub stop_timeout_seconds: Option<i64>,
    /// How long the new volumes may take from the first staging claim until all are Bound, in seconds, 1 to 604800.
    /// Default: 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800), extend("default" = STAGE_TIMEOUT_SECONDS))]
    pub stage_timeout_seconds: Option<i64>,
    /// How long the pods may take from the scale up until all are ready, in seconds, 1 to 86400; it starts anew with
    /// each pod that becomes Ready. Default: 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = READY_TIMEOUT_SECONDS))]
    pub ready_timeout_seconds: Option<i64>,
    /// What is done when the restore fails after its plan was written. Rollback: the old volumes come back under the
    /// claims, unless a pod was Ready on the restored ones and may have written to them: then as Hold. RollbackAlways:
    /// they come back in any case. Hold: nothing more is changed, and the message says what is where. Default:
    /// Rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Rollback"))]
    pub on_failure: Option<OnFailure>,
    /// How long the replaced volumes are kept after success, in seconds, 0 to 2592000. Until then the annotation
    /// backup.sts-backup.io/undo swaps them back. Default: 86400.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_592_000), extend("default" = UNDO_WINDOW_SECONDS))]
    pub undo_window_seconds: Option<i64>,
    /// When the replaced volumes are freed after the undo window. AtDeadline: at its end. WhenUnreferenced: not before
    /// no VolumeSnapshotContent has the volume as its source, for drivers that keep snapshots inside the source volume.
    /// Auto: WhenUnreferenced if the snapshot handle contains the volume handle or the VolumeSnapshotClass has the
    /// annotation backup.sts-backup.io/in-volume-snapshots: "true", else AtDeadline. Default: Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Auto"))]
    pub release_old_volumes: Option<ReleaseOldVolumes>,
}

words! {
    /// How the new volumes come under the claims.
    pub enum Strategy: Staged {
        /// All are made and proven while the application runs, then swapped.
        Staged,
        /// Each claim is deleted and made anew while the application is stopped.
        InPlace,
    }
}

words! {
    /// What becomes of ordinals that run now and that the run lacks.
    pub enum Uncovered: Refuse {
        /// The restore is refused.
        Refuse,
        /// Their claims stay as they are.
        Keep,
        /// They start on fresh claims; the old volumes are kept.
        Fresh,
    }
}

words! {
    /// What a failure after the plan leads to.
    pub enum OnFailure: Rollback {
        /// The old volumes come back, unless a pod was Ready on the restored ones: then as Hold.
        Rollback,
        /// The old volumes come back in any case.
        RollbackAlways,
        /// Nothing more is changed.
        Hold,
    }
}

words! {
    /// When the replaced volumes may be freed after the undo window.
    pub enum ReleaseOldVolumes: Auto {
        /// WhenUnreferenced if the driver keeps snapshots inside the source volume, else AtDeadline.
        Auto,
        /// As soon as the window is over.
        AtDeadline,
        /// When no VolumeSnapshotContent has the volume as its source.
        WhenUnreferenced,
    }
}

impl StatefulSetRestore {
    /// Whether nothing more is done for it: Completed, Failed (Held is one) or Undone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.status.as_ref().and_then(|status| status.phase).is_some_and(RestorePhase::is_end)
    }
}

impl StatefulSetRestoreSpec {
    /// `sourceStatefulSet`, or its default: the target's name.
    #[must_use]
    pub fn source_stateful_set(&self) -> &str {
        non_empty(self.source_stateful_set.as_deref()).unwrap_or(&self.stateful_set_ref.name)
    }

    /// `strategy`, or its default.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy.unwrap_or_default()
    }

    /// `scaleDown`, or its default.
    #[must_use]
    pub fn scale_down(&self) -> bool {
        self.scale_down.unwrap_or(true)
    }

    /// `pvcDeletionTimeoutSeconds`, or its default.
    #[must_use]
    pub fn pvc_deletion_timeout_seconds(&self) -> i64 {
        self.pvc_deletion_timeout_seconds.unwrap_or(PVC_DELETION_TIMEOUT_SECONDS)
    }

    /// `uncovered`, or its default.
    #[must_use]
    pub fn uncovered(&self) -> Uncovered {
        self.uncovered.unwrap_or_default()
    }

    /// `stageTimeoutSeconds`, or its default.
    #[must_use]
    pub fn stage_timeout_seconds(&self) -> i64 {
        self.stage_timeout_seconds.unwrap_or(STAGE_TIMEOUT_SECONDS)
    }

    /// `readyTimeoutSeconds`, or its default.
    #[must_use]
    pub fn ready_timeout_seconds(&self) -> i64 {
        self.ready_timeout_seconds.unwrap_or(READY_TIMEOUT_SECONDS)
    }

    /// `onFailure`, or its default.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure.unwrap_or_default()
    }

    /// `undoWindowSeconds`, or its default.
    #[must_use]
    pub fn undo_window_seconds(&self) -> i64 {
        self.undo_window_seconds.unwrap_or(UNDO_WINDOW_SECONDS)
    }

    /// `releaseOldVolumes`, or its default.
    #[must_use]
    pub fn release_old_volumes(&self) -> ReleaseOldVolumes {
        self.release_old_volumes.unwrap_or_default()
    }
}
