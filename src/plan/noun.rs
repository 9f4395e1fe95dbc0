//! The things that are known of: values without behaviour, shared by all flows.

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::hook::HookSpec;
use super::name::{ClaimKey, RunId};
use crate::api::backup::RetentionPolicy;
use crate::api::condition::Reason;
use crate::api::recorded::RecordedClaim;
use crate::api::shared::{RunStatus, Trigger};

/// One process. Every start is a new one, so a holder never meets itself again.
///
/// `backup/NAMESPACE/NAME/TOKEN`: what it works for, readable in `kubectl get leases`, and which process it is.
#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    pub holder: Option<Holder>,
    /// Its renewTime stood still for the Lease's whole duration, by our own monotonic clock.
    pub gone: bool,
    /// leaseTransitions: the fencing token, and the precondition of a takeover.
    pub epoch: i64,
    /// resourceVersion
    pub version: String,
    /// The run whose freeze is open: until it is thawed only its object may take the lock.
    pub open: Option<Open>,
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

/// A pod of the `StatefulSet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub uid: String,
    /// Its phase is Running; whether it is being deleted is another matter.
    pub running: bool,
    /// The annotation `kubectl.kubernetes.io/default-container`.
    pub default: Option<String>,
    /// In the order of the spec.
    pub containers: Vec<Container>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// None while it does not run.
    pub id: Option<String>,
    pub restarts: i32,
}

/// The `StatefulSet`, as far as a backup needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub uid: String,
    pub leaving: bool,
    /// spec.volumeName, once it is Bound.
    pub volume: Option<String>,
    /// What a restore would make it from again.
    pub manifest: RecordedClaim,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The CSI driver; none for a volume of another kind.
    pub driver: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub name: String,
    pub driver: String,
    pub is_default: bool,
    /// The driver reports before it cuts: thaw only when the snapshot is ready.
    pub thaw_at_ready: bool,
    /// Contents made with it have deletionPolicy Retain.
    pub retains: bool,
}

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
    LeaseLost,
}

/// What the run was asked to do, and who we are; it never changes.
#[derive(Debug, Clone)]
pub struct Want {
    pub me: Holder,
    /// Namespace, name and uid of the object.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub statefulset: String,
    pub statefulset_namespace: String,
    pub slot: String,
    pub trigger: Trigger,
    pub attempt: i64,
    pub job: Option<String>,
    /// spec.claimTemplates; empty: all.
    pub templates: Vec<String>,
    pub class: Option<String>,
    /// spec.deletionPolicy is Delete: snapshots are owned by the object.
    pub owned: bool,
    pub pre: Option<HookSpec>,
    pub post: Option<HookSpec>,
    pub lock_by: Timestamp,
    /// From the first pre hook to the last post hook; without hooks it bounds the wait for the cut.
    pub max_freeze: SignedDuration,
    pub ready_timeout: SignedDuration,
    /// spec.retentionPolicy; none: nothing is ever deleted.
    pub keep: Option<Keep>,
    /// The uid of a former object of this name whose runs count as our own.
    pub adopt: Option<String>,
}

/// What retention goes by.
#[derive(Debug, Clone)]
pub struct Keep {
    pub policy: RetentionPolicy,
    pub zone_name: String,
    /// None: the time zone database does not have it.
    pub zone: Option<TimeZone>,
}
