//! Claims and volumes, as far as they are used.

use jiff::Timestamp;

use crate::api::recorded::RecordedClaim;
use crate::plan::topology::Term;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Claim {
    pub uid: String,
    pub leaving: bool,
    /// spec.volumeName, once it is Bound.
    pub volume: Option<String>,
    /// What a restore would make it from again.
    pub manifest: RecordedClaim,
    /// resourceVersion
    pub version: String,
    /// spec.volumeName, bound or not.
    pub asked: Option<String>,
    /// Its volume is gone: phase Lost.
    pub lost: bool,
    /// Since when this process has seen it go.
    pub leaving_since: Option<Timestamp>,
    /// Uid of the restore that made it (our label).
    pub restore: Option<String>,
    /// The annotation `/restored-by`.
    pub restored_by: Option<String>,
    /// The `VolumeSnapshot` that it is made from: its dataSource, and nothing beside it.
    pub snapshot: Option<String>,
    /// It is made from something else: another dataSource or dataSourceRef.
    pub filled: bool,
    /// creationTimestamp
    pub created: Timestamp,
    /// The annotation selected-node: where it is to be provisioned.
    pub node: Option<String>,
    /// The nodes that it was to be provisioned for so far.
    pub tried: Vec<String>,
    /// Goes with a pod or the `StatefulSet`: an ownerReference.
    pub owned: bool,
    /// Finalizers beside Kubernetes' own protection.
    pub finalizers: Vec<String>,
    pub resizing: bool,
    /// status.capacity, a Quantity.
    pub capacity: Option<String>,
}

impl Claim {
    /// Seen before the other: resourceVersions of a kind are numbers that grow (KEP-5504). What cannot be compared is
    /// taken as it comes.
    pub fn is_before(&self, other: &Claim) -> bool {
        let number = |claim: &Claim| claim.version.parse::<u64>().ok();
        number(self).zip(number(other)).is_some_and(|(this, other)| this < other)
    }

    /// An older sight of the same claim knows better since when it goes.
    pub fn keep(&mut self, before: Option<&Claim>) {
        if let Some(before) = before.filter(|before| before.uid == self.uid && self.leaving_since.is_some()) {
            self.leaving_since = before.leaving_since.or(self.leaving_since);
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// The CSI driver; none for a volume of another kind.
    pub driver: Option<String>,
    pub uid: String,
    /// resourceVersion
    pub version: String,
    /// The driver's name for it.
    pub handle: String,
    /// persistentVolumeReclaimPolicy
    pub policy: String,
    /// Available, Bound, Released, Failed, Pending.
    pub phase: String,
    pub claim: Option<ClaimRef>,
    pub marks: Marks,
    pub leaving: bool,
    /// Finalizers beside Kubernetes' own protection and the provisioner's.
    pub finalizers: Vec<String>,
    /// The nodes that can use it; none: all.
    pub affinity: Vec<Term>,
    /// A Quantity.
    pub capacity: String,
    /// storageClassName; empty: of no class. None: not known.
    pub class: Option<String>,
    /// The provisioner that made it, by its annotation; none: made by hand.
    pub provisioner: Option<String>,
    /// creationTimestamp
    pub created: Timestamp,
}

/// Whose claim a volume is: with uid bound, without one reserved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimRef {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

/// Our labels and annotations on a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Uid of the restore that guards it, what it is to it (old, new, other), and the claim's name.
    pub restore: Option<String>,
    pub role: Option<String>,
    pub claim: Option<String>,
    /// Its own reclaim policy, to be put back.
    pub policy: Option<String>,
    /// `NAMESPACE/NAME` of the restore.
    pub of: Option<String>,
    pub deadline: Option<Timestamp>,
}
