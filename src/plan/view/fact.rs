//! What is asked of the cluster, and how what it says becomes known.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Denied, Seen};
use crate::plan::guard::Guard;
use crate::plan::hook::{Exec, Place, Tried};
use crate::plan::journal::Record;
use crate::plan::known::SnapshotClass;
use crate::plan::name::RunId;
use crate::plan::noun::{Claim, Lease, Pod, Refusal, Snap, Snaps, Stop, Target, Volume};
use crate::plan::prune;
use crate::plan::restore::sight::{Look, Quota, Sight};

/// One request (a GET or a LIST) each; `step::observe` carries them out and declares their verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Our own object: the journal and the status around it.
    Record,
    Lease,
    /// The `StatefulSet`.
    Target,
    /// Who may reach into the target's namespace: its `allow-from` annotation.
    Grant,
    /// The admission policy of that name, and its binding (two requests).
    Guard(&'static str),
    /// One pod.
    Pod(String),
    /// The same pod once more, to prove that it is still the one that was frozen.
    Proof(String),
    /// The `PersistentVolumeClaim`s of the namespace.
    Claims,
    /// One `PersistentVolume`.
    Volume(String),
    /// The `VolumeSnapshotClass`es.
    Classes,
    /// Every `VolumeSnapshot` that carries the `StatefulSet`'s label.
    Snaps,
    /// What only a restore asks for.
    Restore(Look),
    /// The same as retention sees them: with whose they are, and what cannot be read among them.
    Stock,
    /// One `VolumeSnapshotContent`.
    Content(String),
    /// Which restores have not ended.
    Restores,
    /// The ResourceQuotas of the namespace, as a backup looks at them: who may not goes on without.
    Quotas,
    /// What a freeze needs and we may not do: a SelfSubjectAccessReview each.
    Rights,
}

impl Read {
    /// What a definite no to it means: for retention less to go by, of our own object that all that is left is to leave, for
    /// all else the end of the run.
    pub fn refused(&self, refusal: Refusal) -> Fact {
        match self {
            Read::Record | Read::Restore(Look::Record) => Fact::Mute(refusal),
            Read::Guard(policy) => Fact::Guard(policy, Guard::unread(refusal.message)),
            Read::Stock => Fact::Prune(prune::Fact::Stock(Seen::Known(Err(refusal)))),
            Read::Content(name) => Fact::Prune(prune::Fact::Content(name.clone(), Err(refusal))),
            Read::Restores => Fact::Prune(prune::Fact::Restores(Err(refusal))),
            _ => Fact::Refused(refusal),
        }
    }
}

/// How knowledge changes. Effects, reads and feeds return these; [`View::fold`](super::View::fold) is their one meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Record(Box<Seen<Record>>),
    Lease(Seen<Option<Lease>>),
    Target(Option<Target>),
    Grant(Vec<String>),
    /// The admission policy of that name, as it stands.
    Guard(&'static str, Guard),
    Pod(String, Option<Pod>),
    Proof(String, Option<Pod>),
    /// All pods of a watch; of those that are not in it we know that they are gone.
    Pods(BTreeMap<String, Pod>),
    Hook(Box<Exec>, Tried),
    /// The container was replaced in the instant in which a pre hook entered it: it is this one that may be frozen.
    Strayed(RunId, Place),
    Claims(BTreeMap<String, Claim>),
    Volume(String, Option<Volume>),
    Classes(Vec<SnapshotClass>),
    Snaps(Seen<Snaps>),
    /// One entry of `Snaps`: made, changed, gone.
    Snap(String, Option<Snap>),
    /// The storage has cut the snapshot of this uid, at this instant of its own clock.
    Cut(String, Timestamp),
    /// The snapshot of this uid is proved to belong to one freeze, and says so.
    Sealed(String),
    /// One of the claims; none: gone.
    Claim(String, Option<Claim>),
    /// The claim of that name and uid is gone.
    ClaimEnd(String, String),
    /// What only a restore asks for.
    Restore(Box<Sight>),
    /// This was changed, or may have been: it is read when next asked for.
    Stale(Read),
    /// What only retention wants to know.
    Prune(prune::Fact),
    /// The ResourceQuotas at this instant.
    Quotas(Timestamp, Vec<Quota>),
    /// What a freeze needs and we may not do, at this instant.
    Rights(Timestamp, Vec<String>),
    /// A name of this run is taken by an object that is not ours.
    Foreign(RunId, String),
    /// A definite no; the first one counts.
    Refused(Refusal),
    /// A no that may pass.
    Denied(Box<Denied>),
    /// What was asked for was done: of a batch of writes, all of it.
    Allowed {
        write: bool,
    },
    /// Status cannot be written, or there is no object any more: all that is left is to leave.
    Mute(Refusal),
    Stop(Stop),
    /// Nothing has been heard from the API server since then; `None`: it has answered.
    Silence(Option<Timestamp>),
    /// So far the API server's clock is ahead of the runner's.
    Ahead(SignedDuration),
    /// This process has sent a write.
    Acted,
}
