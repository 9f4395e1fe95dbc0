//! What both kinds share: the reference to the StatefulSet and the journal of the open run.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::Reason;
use super::restore::RestorePhase;
use super::rules;
use super::word::words;

/// A reference to the StatefulSet that is meant.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct StatefulSetRef {
    /// Name of the StatefulSet.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = rules::stateful_set_name("statefulSetRef.name"))
    )]
    pub name: String,
    /// Namespace of the StatefulSet. Default: the namespace of this object; "" means the same. Another namespace must
    /// allow it by its annotation backup.sts-backup.io/allow-from, a comma-separated list of namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules::namespace()))]
    pub namespace: Option<String>,
}

impl StatefulSetRef {
    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name.is_empty() && self.namespace.is_none()
    }

    /// Namespace of the StatefulSet, given the namespace of the object that refers to it.
    #[must_use]
    pub fn namespace_or<'a>(&'a self, own: &'a str) -> &'a str {
        non_empty(self.namespace.as_deref()).unwrap_or(own)
    }
}

/// Reads a list of which a manifest may also say that it is null.
pub(super) fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `""` counts as absent.
pub(super) fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

words! {
    /// How much the snapshots of one run agree with each other.
    pub enum Consistency: Unknown {
        /// Hooks held every pod from before the first cut until after the last.
        Frozen,
        /// No hooks: each volume for itself is as after a power failure.
        CrashPerVolume,
        /// Reserved for group snapshots.
        Group,
    }
}

words! {
    /// How a run ended.
    pub enum Outcome: Unknown {
        /// All that was asked for is done.
        Succeeded,
        /// Not done, and this run will not do it any more.
        Failed,
        /// Another run took its place.
        Superseded,
    }
}

words! {
    /// What started a run.
    pub enum Trigger: Unknown {
        /// A slot of the schedule.
        Schedule = "schedule",
        /// The first run after the object was created.
        First = "first",
        /// A slot missed while no watcher ran.
        Catchup = "catchup",
        /// The annotation `backup.sts-backup.io/requested-at`.
        Manual = "manual",
        /// `run-once` by hand or from a pipeline.
        Command = "command",
    }
}

words! {
    /// Which volumes are to be under the claims when a restore ends.
    pub enum Goal: New {
        /// The restored ones.
        New,
        /// The ones that were there before: rollback and undo.
        Old,
    }
}

words! {
    /// How far the freeze of a backup is.
    pub enum IntentPhase: Unknown {
        /// The pre hooks of the listed pods were started or may have been, no proof of a cut yet.
        Frozen,
        /// Every snapshot is cut and every pod thawed: the run may go on under its id.
        Cut,
        /// The freeze is worth nothing: thaw, delete the snapshots, take a new id.
        Void,
    }
}

/// The journal of the open run. It is written before each phase that cannot be observed again.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RunStatus {
    /// Run id, `YYYYMMDD-HHMMSS` (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The slot that the run serves: RFC 3339, or the value of the annotation that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Which attempt holds the run, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// Identity of the runner that holds the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Of restores: New (the restored volumes) or Old (rollback and undo).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// Of backups: the freeze.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// Of restores: a pod on restored volumes was Ready, so they may hold new writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// Of restores: the furthest phase on the way to the restored volumes. From Restoring on, claims may have been
    /// deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<RestorePhase>,
    /// Of restores: when the phase began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Of restores: when the pods were told to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_since: Option<Time>,
    /// Of restores: why the old volumes are put back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<Reason>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of restores that are Held: what was refused may be allowed later, and the watcher tries again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub try_again: Option<bool>,
}

/// The freeze of a backup: what must be thawed, and by whom it was frozen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Intent {
    /// Frozen, Cut or Void.
    pub phase: IntentPhase,
    /// leaseTransitions of the lock under which the freeze began.
    pub epoch: i64,
    /// When the freeze began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why the freeze is void.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<Reason>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Frozen (with hooks) or CrashPerVolume (without).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// Once cut: of which claims, and a digest of the snapshots' uids, as on the lock Lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// The pods that are frozen or may be, in ordinal order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub pods: Vec<FrozenPod>,
    /// The command that freezes them, as it was when the freeze began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_hook: Option<RecordedHook>,
    /// The command that thaws them: this one, whatever the spec says by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_hook: Option<RecordedHook>,
    /// How many snapshots make the run complete.
    pub size: i32,
    /// How many freezes of this run came to nothing so far; after the third it is given up.
    #[serde(skip_serializing_if = "is_zero")]
    pub void_freezes: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// A hook as it was when the freeze began; in which container it runs stands with the pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordedHook {
    /// The argument vector.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// How long it may take in each pod, in seconds.
    pub timeout_seconds: i64,
}

/// A pod that is frozen or may be, and exactly which container was entered.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct FrozenPod {
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod.
    pub uid: String,
    /// Ordinal of the pod.
    pub ordinal: i32,
    /// Name of the container.
    pub container: String,
    /// Container id as in the pod's status. Another id is another process: nothing is frozen there.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Restart count of the container.
    pub restart_count: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::backup::StatefulSetBackup;
    use crate::api::restore::{RestorePhase, StatefulSetRestore};

    #[test]
    fn another_namespace_only_if_named() {
        let mut target = StatefulSetRef { name: "web".into(), namespace: None };
        assert_eq!(target.namespace_or("own"), "own");
        target.namespace = Some(String::new());
        assert_eq!(target.namespace_or("own"), "own");
        target.namespace = Some("prod".into());
        assert_eq!(target.namespace_or("own"), "prod");
    }

    #[test]
    fn what_is_not_set_is_not_written() {
        assert_eq!(serde_json::to_string(&StatefulSetBackup::default().spec).unwrap(), "{}");
        assert_eq!(serde_json::to_string(&StatefulSetRestore::default().spec).unwrap(), "{}");
        assert_eq!(serde_json::to_string(&RunStatus::default()).unwrap(), "{}");
    }

    #[test]
    fn what_a_newer_version_wrote_is_read() {
        let object = serde_json::json!({
            "metadata": { "name": "a" }, "spec": { "statefulSetRef": {}, "newer": 1 },
            "status": { "phase": "Pausing", "run": { "goal": "Older", "intent": { "phase": "Thawing" } } },
        });
        let status = serde_json::from_value::<StatefulSetRestore>(object).unwrap().status.unwrap();
        let run = status.run.unwrap();
        assert_eq!((status.phase, run.goal), (Some(RestorePhase::Unknown), Some(Goal::Unknown)));
        assert_eq!(run.intent.unwrap().phase, IntentPhase::Unknown);
    }
}
