//! `StatefulSetBackup`: which StatefulSet to back up, when, and what to keep.
//!
//! Role: wire shape and accessors only. An accessor fills in the documented default, so that a manifest read from a
//! file means the same as one that the API server has defaulted. Doc comments of fields are the descriptions that
//! `kubectl explain` shows.

mod status;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::status::{BackupPhase, HistoryEntry, LastRun, SnapshotStatus, StatefulSetBackupStatus};
use super::rules;
use super::shared::{StatefulSetRef, list, non_empty};
use super::word::words;

/// Default of `spec.timeZone`.
pub const TIME_ZONE: &str = "Etc/UTC";
/// Default of a hook's `timeoutSeconds`.
pub const HOOK_TIMEOUT_SECONDS: i64 = 60;
/// Default of `spec.snapshotReadyTimeoutSeconds`: a first upload to a cloud store takes hours.
pub const SNAPSHOT_READY_TIMEOUT_SECONDS: i64 = 86_400;
/// Default of `spec.maxFreezeSeconds`.
pub const MAX_FREEZE_SECONDS: i64 = 300;
/// Default of `spec.successfulJobsHistoryLimit`, as CronJob's.
pub const SUCCESSFUL_JOBS_HISTORY_LIMIT: i32 = 3;
/// Default of `spec.failedJobsHistoryLimit`, as CronJob's.
pub const FAILED_JOBS_HISTORY_LIMIT: i32 = 1;

/// What to back up, when, and what to keep.
// Printer columns share types and priorities.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "backup.sts-backup.io",
    version = "v1alpha1",
    kind = "StatefulSetBackup",
    doc = "StatefulSetBackup takes CSI snapshots of all volumes of a StatefulSet, on a schedule or on request, with \
           hooks around the cut, and prunes old runs.",
    namespaced,
    status = "StatefulSetBackupStatus",
    shortname = "stsb",
    category = "backup",
    selectable = ".spec.statefulSetRef.name",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastBackupTime"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Freeze", type_ = "number", json_path = ".status.lastRun.freezeSeconds"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "StatefulSet", type_ = "string", json_path = ".spec.statefulSetRef.name", priority = "1"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["statefulSetRef"]))]
pub struct StatefulSetBackupSpec {
    /// The StatefulSet to back up.
    #[serde(skip_serializing_if = "StatefulSetRef::is_empty")]
    pub stateful_set_ref: StatefulSetRef,
    /// When to run, in the syntax of a CronJob's schedule: five fields or a descriptor such as @daily. Default: none,
    /// that is one run when this object is created; "" means none as well. The first run of a schedule, too, is when
    /// the object is created. A run can be asked for at any time by a new value of the annotation
    /// backup.sts-backup.io/requested-at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), extend("x-kubernetes-validations" = rules::schedule()))]
    pub schedule: Option<String>,
    /// Time zone of the schedule and of the calendar in retentionPolicy: a name of the IANA time zone database, as in
    /// a CronJob. Default: Etc/UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 100),
        extend("default" = TIME_ZONE, "x-kubernetes-validations" = rules::time_zone())
    )]
    pub time_zone: Option<String>,
    /// How late after its slot a run may still start, in seconds, as in a CronJob; a later one is skipped. Default: no
    /// limit for a slot missed while no watcher ran; a run that waits for another one of the same StatefulSet gives up
    /// after the schedule's interval, without schedule after 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub starting_deadline_seconds: Option<i64>,
    /// Whether scheduled runs are held back, as in a CronJob; a run asked for by annotation still starts. Default:
    /// false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub suspend: Option<bool>,
    /// Which runs to keep. Default: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<RetentionPolicy>,
    /// Name of the VolumeSnapshotClass for all claims. Default: for each claim the default class of its own CSI
    /// driver; "" means the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = rules::snapshot_class()))]
    pub volume_snapshot_class_name: Option<String>,
    /// Command that quiesces the application before the cut, run in each pod in ordinal order. Default: none, each
    /// volume is then as after a power failure. Needs the right to create pods/exec in the namespace of the
    /// StatefulSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_backup_hook: Option<Hook>,
    /// Command that lets the application go on after the cut, run in each pod whose preBackupHook was started, also
    /// after a failure. It may run more than once and must tolerate it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_backup_hook: Option<Hook>,
    /// What is told of hooks. Default: all that the fields of it say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HookOptions>,
    /// How long the snapshots may take from the cut to readyToUse, in seconds; a first upload to a cloud store takes
    /// hours. The application is not frozen during this time. Default: 86400.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000), extend("default" = SNAPSHOT_READY_TIMEOUT_SECONDS))]
    pub snapshot_ready_timeout_seconds: Option<i64>,
    /// Upper bound from the start of the first preBackupHook to the end of the last postBackupHook, in seconds. When it
    /// is reached, the pods are thawed and the run fails. Default: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000), extend("default" = MAX_FREEZE_SECONDS))]
    pub max_freeze_seconds: Option<i64>,
    /// Names of the volumeClaimTemplates whose claims are snapshotted. Default: all of the StatefulSet's; an empty list
    /// means the same.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    #[schemars(
        length(max = 100),
        inner(length(max = 63)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::claim_templates())
    )]
    pub claim_templates: Vec<String>,
    /// What deleting this object does to its snapshots: Retain keeps them, Delete takes them along by owner reference.
    /// It cannot be changed back from Delete to Retain; to keep the snapshots, delete the object with --cascade=orphan.
    /// Delete is refused by the admission policy and by the runner if statefulSetRef names another namespace, because
    /// an owner in another namespace would make the garbage collector delete the snapshots at once. Default: Retain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Retain", "x-kubernetes-validations" = rules::deletion_policy()))]
    pub deletion_policy: Option<DeletionPolicy>,
    /// How many Jobs of succeeded runs are kept, as in a CronJob. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = SUCCESSFUL_JOBS_HISTORY_LIMIT))]
    pub successful_jobs_history_limit: Option<i32>,
    /// How many Jobs of failed runs are kept, as in a CronJob. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = FAILED_JOBS_HISTORY_LIMIT))]
    pub failed_jobs_history_limit: Option<i32>,
}

words! {
    /// What deleting a StatefulSetBackup does to its snapshots.
    pub enum DeletionPolicy: Retain {
        /// They stay.
        Retain,
        /// They go with it, by owner reference.
        Delete,
    }
}

/// Which runs to keep. A run is kept as a whole if any rule wants it for any of its claims; the newest complete run of
/// each claim is always kept. Only complete and ready runs count.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::retention()))]
pub struct RetentionPolicy {
    /// Keep the newest N runs of each claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_last: Option<i64>,
    /// Keep the runs that are younger than N times 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_days: Option<i64>,
    /// Keep the newest run of each of the N newest hours (of timeZone) that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_hourly: Option<i64>,
    /// Keep the newest run of each of the N newest days (of timeZone) that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_daily: Option<i64>,
    /// Keep the newest run of each of the N newest ISO weeks (of timeZone) that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_weekly: Option<i64>,
    /// Keep the newest run of each of the N newest months (of timeZone) that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_monthly: Option<i64>,
    /// Keep the newest run of each of the N newest years (of timeZone) that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_yearly: Option<i64>,
    /// What retention does where the VolumeSnapshotClass has deletionPolicy Retain, so that deleting a VolumeSnapshot
    /// would leave the driver's snapshot behind: false leaves such runs and says so, true sets the
    /// VolumeSnapshotContent to Delete first. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub purge_retained: Option<bool>,
    /// What happens where a ResourceQuota has no room for a run's VolumeSnapshots: false fails the run before any hook,
    /// reason QuotaTooSmall; true first deletes whole old runs that no rule keeps once the new run is complete, the oldest
    /// first, as many as it takes, but never the newest complete run of a claim. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub make_room: Option<bool>,
}

/// A command that is run in a container of each pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["command"]))]
pub struct Hook {
    /// The argument vector, run as given: no shell, no standard input. For shell syntax let it begin with sh and -c. At
    /// most 32768 characters in all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    #[schemars(
        length(min = 1, max = 1024),
        inner(length(max = 32_768)),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = rules::command())
    )]
    pub command: Vec<String>,
    /// Name of the container. Default: the one that the pod's annotation kubectl.kubernetes.io/default-container names,
    /// else the first; "" means the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules::container()))]
    pub container_name: Option<String>,
    /// How long the command may take in each pod, in seconds, 1 to 86400. Default: 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = HOOK_TIMEOUT_SECONDS))]
    pub timeout_seconds: Option<i64>,
}

/// What is told of hooks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct HookOptions {
    /// Whether the end of a failed hook's standard error, 512 bytes at most, stands in status and Events, where whoever
    /// may read these reads it. The log has it in any case. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub output_in_status: Option<bool>,
}

impl Hook {
    /// `containerName`; `""` means none.
    #[must_use]
    pub fn container_name(&self) -> Option<&str> {
        non_empty(self.container_name.as_deref())
    }

    /// `timeoutSeconds`, or its default.
    #[must_use]
    pub fn timeout_seconds(&self) -> i64 {
        self.timeout_seconds.unwrap_or(HOOK_TIMEOUT_SECONDS)
    }
}

impl RetentionPolicy {
    /// Each rule's field name and number, in the order of the API.
    #[must_use]
    pub fn numbers(&self) -> [(&'static str, Option<i64>); 7] {
        [
            ("keepLast", self.keep_last),
            ("keepDays", self.keep_days),
            ("keepHourly", self.keep_hourly),
            ("keepDaily", self.keep_daily),
            ("keepWeekly", self.keep_weekly),
            ("keepMonthly", self.keep_monthly),
            ("keepYearly", self.keep_yearly),
        ]
    }
}

impl StatefulSetBackupSpec {
    /// The crontab text; `""` means none.
    #[must_use]
    pub fn schedule(&self) -> Option<&str> {
        non_empty(self.schedule.as_deref())
    }

    /// `volumeSnapshotClassName`; `""` means none.
    #[must_use]
    pub fn volume_snapshot_class_name(&self) -> Option<&str> {
        non_empty(self.volume_snapshot_class_name.as_deref())
    }

    /// `timeZone`, or its default.
    #[must_use]
    pub fn time_zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or(TIME_ZONE)
    }

    /// `suspend`, or its default.
    #[must_use]
    pub fn suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
    }

    /// `snapshotReadyTimeoutSeconds`, or its default.
    #[must_use]
    pub fn snapshot_ready_timeout_seconds(&self) -> i64 {
        self.snapshot_ready_timeout_seconds.unwrap_or(SNAPSHOT_READY_TIMEOUT_SECONDS)
    }

    /// `maxFreezeSeconds`, or its default.
    #[must_use]
    pub fn max_freeze_seconds(&self) -> i64 {
        self.max_freeze_seconds.unwrap_or(MAX_FREEZE_SECONDS)
    }

    /// `hooks.outputInStatus`, or its default.
    #[must_use]
    pub fn output_in_status(&self) -> bool {
        self.hooks.as_ref().and_then(|hooks| hooks.output_in_status).unwrap_or(true)
    }

    /// `deletionPolicy`, or its default.
    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or_default()
    }

    /// `successfulJobsHistoryLimit`, or its default.
    #[must_use]
    pub fn successful_jobs_history_limit(&self) -> i32 {
        self.successful_jobs_history_limit.unwrap_or(SUCCESSFUL_JOBS_HISTORY_LIMIT)
    }

    /// `failedJobsHistoryLimit`, or its default.
    #[must_use]
    pub fn failed_jobs_history_limit(&self) -> i32 {
        self.failed_jobs_history_limit.unwrap_or(FAILED_JOBS_HISTORY_LIMIT)
    }
}
