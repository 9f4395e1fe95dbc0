//! Our kinds and Jobs as the watcher decodes them: the few fields that decide, and no others. One odd object must never
//! stop a list: each part that may be odd decodes to [`Leaf::Bad`] and is told of.
//!
//! Role: wire shape only. Metadata is cut down while it is read, since managedFields outweigh all the rest.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::backup::{RetentionPolicy, StatefulSetBackup};
use super::meta::{Few, Keys};
use super::restore::StatefulSetRestore;
use super::{annotation, label};

/// A value, or something else in its place.
#[derive(Deserialize, Clone, Debug)]
#[serde(untagged)]
pub enum Leaf<T> {
    Good(T),
    Bad(IgnoredAny),
}

impl<T> Leaf<T> {
    pub fn good(self) -> Option<T> {
        match self {
            Leaf::Good(value) => Some(value),
            Leaf::Bad(_) => None,
        }
    }
}

/// `StatefulSetBackup`.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = "StatefulSetBackup")]
pub struct SlimBackup {
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Option<Leaf<BackupSpec>>,
    #[serde(default)]
    pub status: Option<Leaf<BackupStatus>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupSpec {
    pub stateful_set_ref: Target,
    pub schedule: Option<Box<str>>,
    pub time_zone: Option<Box<str>>,
    pub starting_deadline_seconds: Option<i64>,
    pub suspend: Option<bool>,
    pub successful_jobs_history_limit: Option<i64>,
    pub failed_jobs_history_limit: Option<i64>,
    pub pre_backup_hook: Option<Hook>,
    pub post_backup_hook: Option<Hook>,
    pub snapshot_ready_timeout_seconds: Option<i64>,
    pub max_freeze_seconds: Option<i64>,
    pub retention_policy: Option<RetentionPolicy>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Target {
    pub name: Box<str>,
    pub namespace: Option<Box<str>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    pub timeout_seconds: Option<i64>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStatus {
    pub last_backup_time: Option<Timestamp>,
    pub last_schedule_time: Option<Timestamp>,
    pub next_schedule_time: Option<Timestamp>,
    pub last_request: Option<Box<str>>,
    pub managed_by: Option<Box<str>>,
    pub run: Option<Run>,
    pub last_run: Option<LastRun>,
    pub conditions: Vec<Condition>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Run {
    pub slot: Option<Box<str>>,
    pub attempt: Option<u32>,
    pub intent: Option<Intent>,
    pub try_again: Option<bool>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Intent {
    pub phase: super::shared::IntentPhase,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct LastRun {
    pub slot: Option<Box<str>>,
    pub attempt: Option<u32>,
    pub trigger: Option<super::shared::Trigger>,
    pub outcome: Option<super::shared::Outcome>,
    pub reason: Option<super::condition::Reason>,
    pub start_time: Option<Timestamp>,
    pub completion_time: Option<Timestamp>,
    pub freeze_seconds: Option<f64>,
    pub snapshots: Vec<IgnoredAny>,
}

/// `StatefulSetRestore`.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = "StatefulSetRestore")]
pub struct SlimRestore {
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Option<Leaf<RestoreSpec>>,
    #[serde(default)]
    pub status: Option<Leaf<RestoreStatus>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreSpec {
    pub stateful_set_ref: Target,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatus {
    pub phase: Option<super::restore::RestorePhase>,
    pub run: Option<Run>,
    pub plan: Option<Planned>,
    pub undo_plan: Option<Planned>,
    pub undo_deadline: Option<Timestamp>,
    pub last_request: Option<Box<str>>,
    pub managed_by: Option<Box<str>>,
    pub conditions: Vec<Condition>,
}

/// Of a plan only how it is written, which volumes it replaces, and how large they are.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Planned {
    pub format: Option<Box<str>>,
    pub claims: Vec<Replaced>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Replaced {
    pub old_pv: Option<IgnoredAny>,
    pub claim: Option<Sized>,
}

/// Of a claim's manifest only its request. The API server lets pass whatever stands there.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Sized {
    pub storage: Option<Size>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(untagged)]
pub enum Size {
    Quantity(Box<str>),
    Nonsense(IgnoredAny),
}

/// batch/v1 `Job`.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = "batch::Job")]
pub struct SlimJob {
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: JobSpec,
    #[serde(default)]
    pub status: JobStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct JobSpec {
    pub template: PodTemplate,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct PodTemplate {
    pub spec: PodSpec,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct PodSpec {
    pub containers: Vec<Container>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Container {
    pub args: Vec<Box<str>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// Pods of it that are Ready: those that run, since the runner has no readiness probe.
    pub ready: Option<i32>,
    pub conditions: Vec<Condition>,
    pub completion_time: Option<Timestamp>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    pub r#type: Box<str>,
    pub status: Box<str>,
    pub reason: Option<Box<str>>,
    pub message: Option<Box<str>>,
    pub last_transition_time: Option<Timestamp>,
    pub observed_generation: Option<i64>,
}

/// The lock Lease.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = "k8s_openapi::api::coordination::v1::Lease")]
pub struct SlimLease {
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: LeaseSpec,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub holder_identity: Option<Box<str>>,
    pub renew_time: Option<Timestamp>,
}

/// The labels and annotations that the watcher reads; nobody else's are kept.
const KEPT: [&str; 8] = [
    label::KIND,
    label::NAME,
    label::NAMESPACE,
    label::UID,
    annotation::SLOT,
    annotation::ATTEMPT,
    annotation::REQUESTED_AT,
    annotation::UNDO,
];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    labels: Option<Ours>,
    annotations: Option<Ours>,
}

type Ours = Few<Watched>;

struct Watched;

impl Keys for Watched {
    fn keeps(key: &str) -> bool {
        KEPT.contains(&key)
    }
}

fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let meta = Meta::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        generation: meta.generation,
        creation_timestamp: meta.creation_timestamp,
        deletion_timestamp: meta.deletion_timestamp,
        finalizers: meta.finalizers,
        labels: meta.labels.map(|ours| ours.0),
        annotations: meta.annotations.map(|ours| ours.0),
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_odd_object_is_read_as_odd() {
        let odd = json!({
            "metadata": { "name": "a", "uid": "u", "managedFields": [{ "manager": "x", "fieldsV1": {} }],
                "annotations": { "x": "y", annotation::REQUESTED_AT: "now" } },
            "spec": { "schedule": 5 }, "status": { "phase": "Newer", "lastScheduleTime": "2026-03-29T01:30:00Z" },
        });
        let odd: SlimBackup = serde_json::from_value(odd).unwrap();
        assert!(matches!(odd.spec, Some(Leaf::Bad(_))));
        assert!(odd.status.unwrap().good().unwrap().last_schedule_time.is_some());
        assert_eq!(odd.metadata.annotations.unwrap().len(), 1);
        assert!(odd.metadata.managed_fields.is_none());
    }
}
