//! The things that are known of: values without behaviour, shared by all flows.

mod volume;

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::volume::{Claim, ClaimRef, Marks, Volume};
use super::hook::Pair;
use super::name::{ClaimKey, RunId};
pub use super::retention::Keep;
use super::roll::Roll;
use crate::api::condition::Reason;
use crate::api::restore::{OnFailure, ReleaseOldVolumes, Strategy, Uncovered};
use crate::api::shared::{RunStatus, Trigger};

/// One process. Every start is a new one, so a holder never meets itself again.
/// `backup/NAMESPACE/NAME/TOKEN`: what it works for, readable in `kubectl get leases`, and which process it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder(pub String);

impl Holder {
    /// Both work for the same object.
    pub fn is_kin(&self, other: &Holder) -> bool {
        let object = |holder: &Holder| holder.0.rsplit_once('/').map(|(object, _)| object.to_owned());
        object(self) == object(other)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lease {
    pub holder: Option<Holder>,
    /// Its renewTime stood still for the Lease's whole duration, by our own monotonic clock.
    pub gone: bool,
    /// leaseTransitions: the fencing token, and the precondition of a takeover.
    pub epoch: i64,
    /// resourceVersion
    pub version: String,
    /// The run whose freeze or fence is open: until it is closed only its object may take the lock.
    pub open: Option<Open>,
    /// The one user who may scale up; while it stands the `StatefulSet` stays at 0.
    pub fence: Option<String>,
    /// The restores that were done: `NAMESPACE/NAME@HASH TIME`, the newest last.
    pub restored: Vec<String>,
    /// The runs that were sealed; none: no run has been put on record yet.
    pub roll: Option<Roll>,
}

/// The annotation `/open` of the Lease, JSON: who has frozen what, for others to respect and for people to thaw.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(default)]
pub struct Open {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub run: String,
    pub pods: Vec<String>,
    /// Stands for the commands and times of both hooks. What a status says of them counts only if it agrees: whoever may
    /// write there is not for that reason let into pods. None: no hooks, or written by an earlier version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<String>,
    /// Of a run without an object only: its journal, since there is no status to hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<Box<RunStatus>>,
}

impl Open {
    /// A run of the object that this process works for. The uid of those without an object is the same for all.
    pub fn is_of(&self, want: &Want) -> bool {
        (&self.uid, &self.name, &self.namespace) == (&want.uid, &want.name, &want.namespace)
    }
}

/// A pod of the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub uid: String,
    /// Since when this process has seen it ready.
    pub ready_since: Option<Timestamp>,
    /// Its phase is Running; whether it is being deleted is another matter.
    pub running: bool,
    /// The annotation `kubectl.kubernetes.io/default-container`.
    pub default: Option<String>,
    /// In the order of the spec.
    pub containers: Vec<Container>,
    /// It has a deletionTimestamp.
    pub leaving: bool,
    /// Succeeded or Failed: it uses no volume any more.
    pub finished: bool,
    /// Names of the claims that it mounts.
    pub claims: Vec<String>,
    /// Uid of its controller.
    pub owner: Option<String>,
    pub node: Option<String>,
    /// They keep it there after it has ended.
    pub finalizers: Vec<String>,
    /// Why it is not started, as the end of a sentence: its container's waiting reason, or why no node takes it.
    pub waits: Option<String>,
}

impl Pod {
    /// An older sight of the same pod knows better since when.
    pub fn keep(&mut self, before: Option<&Pod>) {
        if let Some(before) = before.filter(|before| before.uid == self.uid && self.ready_since.is_some()) {
            self.ready_since = before.ready_since.or(self.ready_since);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// None while it does not run.
    pub id: Option<String>,
    pub restarts: i32,
}

/// The `StatefulSet`, as far as it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub uid: String,
    pub replicas: u32,
    /// spec.ordinals.start
    pub start: u32,
    /// Names of its volumeClaimTemplates.
    pub templates: Vec<String>,
    /// Claims that its pod template mounts and no volumeClaimTemplate makes.
    pub outside: Vec<String>,
    /// Hash of the pod template, to be recorded.
    pub hash: String,
    /// resourceVersion
    pub version: String,
    /// Its controller has seen the spec as it is: observedGeneration is current.
    pub observed: bool,
    /// status.replicas: the pods that there are.
    pub pods: u32,
    pub retention: Retention,
    pub node_selector: BTreeMap<String, String>,
    /// Its pods run revision .0, or some of them; once they are at 0 all start with .1.
    pub pending: Option<(String, String)>,
    /// Who else may write its replicas: a parent operator, a GitOps tool; as a word for people.
    pub governor: Option<String>,
    /// The whole object as it is to be recorded.
    pub manifest: serde_json::Value,
}

impl Target {
    /// What the volumeClaimTemplate of that claim asks for, a Quantity.
    pub fn request(&self, pvc: &str, statefulset: &str) -> Option<String> {
        Some(self.template(pvc, statefulset)?.pointer("/spec/resources/requests/storage")?.as_str()?.to_owned())
    }

    /// The `StorageClass` that the volumeClaimTemplate of that claim names.
    pub fn class(&self, pvc: &str, statefulset: &str) -> Option<&str> {
        self.template(pvc, statefulset)?.pointer("/spec/storageClassName")?.as_str()
    }

    fn template(&self, pvc: &str, statefulset: &str) -> Option<&Value> {
        let key = ClaimKey::of(pvc, statefulset, &self.templates)?;
        let all = self.manifest.pointer("/spec/volumeClaimTemplates")?.as_array()?;
        all.iter().find(|of| of.pointer("/metadata/name").and_then(Value::as_str) == Some(&key.template))
    }
}

/// persistentVolumeClaimRetentionPolicy: whether claims outlive a scale down, and the `StatefulSet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub scaled: String,
    pub deleted: String,
}

impl Default for Retention {
    /// As where the field is absent: claims stay.
    fn default() -> Retention {
        Retention { scaled: RETAIN.into(), deleted: RETAIN.into() }
    }
}

/// A reclaim policy, and a claim retention policy: nothing is deleted.
pub const RETAIN: &str = "Retain";
/// The volume goes with its claim.
pub const DELETE: &str = "Delete";

/// A `VolumeSnapshot` that carries our labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snap {
    pub uid: String,
    pub policy_uid: String,
    pub run: RunId,
    pub claim: ClaimKey,
    /// The Lease's transitions when it was made: one run, one epoch.
    pub epoch: i64,
    /// How many make its run complete.
    pub size: usize,
    /// Which process made it: a word that nobody could know before it was there.
    pub token: Option<String>,
    /// Proved to belong to one freeze (`/cut` stands).
    pub sealed: bool,
    pub created: Timestamp,
    pub cut: Option<Timestamp>,
    pub ready: bool,
    /// A Quantity.
    pub restore_size: Option<String>,
    pub leaving: bool,
    /// The driver's complaint, and since when this process has seen one.
    pub error: Option<(String, Timestamp)>,
}

/// The snapshots of the `StatefulSet` by object name.
pub type Snaps = BTreeMap<String, Snap>;

/// A definite no: the reason for machines, the sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into() }
    }
}

/// A no that may pass: 401, 403, a 404 of the path, a quota. How often it must be heard before it counts is the view's to
/// say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub refusal: Refusal,
    /// It was understood and judged (a quota, an admission policy): as long as nothing is deleted it counts at once.
    pub judged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed(Refusal),
    /// Another run had its place, so that it was never begun.
    Superseded(Refusal),
}

/// Ordered: a lost Lease outweighs a SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    Sigterm,
    /// No renewal has come through for as long as others leave the Lease alone: whether one of them has it, a look tells.
    CutOff,
    /// The Lease was seen to be another's.
    LeaseLost,
}

/// Who we are and what the run was asked to do; it never changes. What only one flow needs stands in its part.
#[derive(Debug, Clone, Default)]
pub struct Want {
    pub me: Holder,
    /// Known to this process alone: what bears a [`name::token`] made with it was made by this process.
    ///
    /// [`name::token`]: super::name::token
    pub secret: String,
    /// Namespace, name and uid of the object.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub statefulset: String,
    pub statefulset_namespace: String,
    pub slot: String,
    pub attempt: i64,
    pub job: Option<String>,
    pub lock_by: Timestamp,
    /// The rights are a pod's, not those of who asks: hooks and restores begin only under the author policies.
    pub guarded: bool,
    pub backup: BackupWant,
    pub restore: RestoreWant,
}

/// What a backup was asked to do; default in every other run.
#[derive(Debug, Clone, Default)]
pub struct BackupWant {
    pub trigger: Trigger,
    /// spec.claimTemplates; empty: all.
    pub templates: Vec<String>,
    pub class: Option<String>,
    /// spec.deletionPolicy is Delete: snapshots are owned by the object.
    pub owned: bool,
    pub hooks: Pair,
    /// What hooks have said stands in the log alone.
    pub quiet: bool,
    /// The rules that the object breaks.
    pub flaws: Vec<String>,
    /// From the first pre hook to the last post hook; without hooks it bounds the wait for the cut.
    pub max_freeze: SignedDuration,
    pub ready_timeout: SignedDuration,
    /// spec.retentionPolicy; none: nothing is ever deleted.
    pub keep: Option<Keep>,
    /// The uid of a former object of this name whose runs count as our own.
    pub adopt: Option<String>,
}

/// What a restore was asked to do; default in every other run.
#[derive(Debug, Clone, Default)]
pub struct RestoreWant {
    /// The rules that the object breaks.
    pub flaws: Vec<String>,
    /// Whose snapshots: the target's name, unless spec.sourceStatefulSet says otherwise.
    pub source: String,
    pub backup: Option<String>,
    pub run_id: Option<String>,
    pub point_in_time: Option<Timestamp>,
    pub snapshot_names: Vec<String>,
    pub strategy: Strategy,
    pub scale_down: bool,
    pub deletion_timeout: SignedDuration,
    pub uncovered: Uncovered,
    /// Absent: from the pods' own terminationGracePeriodSeconds.
    pub stop_timeout: Option<SignedDuration>,
    pub stage_timeout: SignedDuration,
    pub ready_timeout: SignedDuration,
    pub on_failure: OnFailure,
    pub undo_window: SignedDuration,
    pub release: ReleaseOldVolumes,
    /// Of the spec: with namespace and name it says which request this is.
    pub hash: String,
    /// Undo although ordinals outside the plan run.
    pub force: bool,
}
