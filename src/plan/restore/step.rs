//! What the steps of a restore carry: each owns all that its request needs, the uid or resourceVersion that it was
//! decided on among it.

use std::collections::BTreeSet;

use crate::api::recorded::RecordedClaim;
use crate::plan::noun::{Marks, Open, Retention};

/// All that the lock Lease is to say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signs {
    pub open: Option<Open>,
    /// The fence, and who may pass it.
    pub fence: Option<String>,
    pub restored: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub name: String,
    pub uid: String,
    pub version: String,
    pub pinned: BTreeSet<String>,
}

/// A claim to be made, of this restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewClaim {
    pub name: String,
    pub manifest: RecordedClaim,
    /// spec.volumeName: the volume that is reserved for it.
    pub volume: Option<String>,
    /// spec.dataSource: the `VolumeSnapshot`.
    pub snapshot: Option<String>,
    /// The annotation selected-node.
    pub node: Option<String>,
    pub tried: Vec<String>,
    /// The annotation `/restored-by`; none on a staging claim.
    pub restored_by: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steer {
    pub name: String,
    pub uid: String,
    pub version: String,
    pub node: String,
    pub tried: Vec<String>,
}

/// A claim that is not the restore's any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlabel {
    pub name: String,
    pub uid: String,
    pub version: String,
    /// Its label managed-by says us.
    pub managed: bool,
}

/// A claim or a pod, by uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    pub name: String,
    pub uid: String,
    /// What let it go, for the audit log.
    pub why: &'static str,
}

/// A volume's reclaim policy and our marks on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tend {
    pub pv: String,
    pub uid: String,
    pub version: String,
    pub policy: String,
    pub marks: Marks,
}

/// A volume for another claim. Tested: resourceVersion and the old claim's uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    pub pv: String,
    pub version: String,
    pub from: Option<String>,
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    pub uid: String,
    pub version: String,
    pub retention: Retention,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    pub uid: String,
    pub version: String,
    pub replicas: u32,
}
