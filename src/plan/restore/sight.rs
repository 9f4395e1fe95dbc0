//! What only a restore looks at, how it is asked for and how it becomes known: a part of the one `View`. What both
//! flows look at (Lease, StatefulSet, pods, claims, volumes) stands in the `View` itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::NewClaim;
use super::journal::{Cause, Course, Journal, Record};
use crate::api::recorded::RecordedClaim;
use crate::plan::known::{Content, Snapshot, Snapshots};
use crate::plan::noun::Refusal;
use crate::plan::topology::Node;
use crate::plan::view::{Read, Seen};

/// One request each, none of which changes anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Our own `StatefulSetRestore`.
    Record,
    /// All pods of the namespace: whoever mounts a claim.
    Pods,
    /// The `VolumeSnapshot`s of the source, those that are named, and all that were cut of the `StatefulSet`'s claims,
    /// ours or not: what can be restored, and what still hangs on a volume.
    Sources,
    /// The claim that one of them records.
    Recorded(String),
    /// One `VolumeSnapshotContent`.
    Content(String),
    /// Which of these volumes, by their handles, still serve as source (drivers that snapshot inside the volume).
    Handles(BTreeSet<String>),
    StorageClasses,
    /// Nodes with the drivers on them (two lists).
    Nodes,
    /// The ResourceQuotas of the namespace.
    Quotas,
    /// What we may not do of all that the steps need: a SelfSubjectAccessReview each.
    Rights,
    /// The claim as it is to be made, sent as a dry run.
    Trial(Box<NewClaim>),
    /// The other restores of the `StatefulSet`.
    Peers,
    /// The volumes that a VolumeAttachment names.
    Attached,
    /// The HorizontalPodAutoscalers that scale the `StatefulSet`, by name.
    Scalers,
    /// Whether the fence holds: our own scale-up, sent as a dry run, must be refused.
    Fence,
    /// Who we are to the API server: a SelfSubjectReview.
    User,
    /// Whether the namespace of our object is being deleted.
    Ending,
    /// Whether the namespace of the claims is being deleted, looked at right before one is made or reserved for.
    Closing,
    /// What the provisioner last complained of about a claim, by its Events.
    Trouble(String),
    /// The volumes that bear our label or whose claimRef names one of our staging claims, by name.
    Kin,
}

/// What a look tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    Record(Box<Record>),
    Sources(Snapshots),
    /// One entry of them.
    Source(String, Box<Option<Snapshot>>),
    Recorded(String, Option<RecordedClaim>),
    Content(String, Option<Content>),
    /// How many contents name the volume as their source, of those that were asked for.
    Handles(BTreeMap<String, usize>),
    StorageClasses(Vec<StorageClass>),
    Nodes(Vec<Node>),
    Quotas(Vec<Quota>),
    Rights(Vec<String>),
    Trial(String, Option<Refusal>),
    Peers(Vec<Peer>),
    Attached(BTreeSet<String>),
    Scalers(Vec<String>),
    Fence(Fence, Timestamp),
    User(String),
    Trouble(String, Option<String>),
    Ending(bool),
    Closing(bool),
    Kin(BTreeSet<String>),
    /// Somebody refuses that our marks are taken off the claim of that name.
    Kept(String),
    /// Our own create was answered, of a claim from a snapshot or of an empty one: its uid.
    Made(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageClass {
    pub name: String,
    pub provisioner: String,
    pub is_default: bool,
    /// volumeBindingMode WaitForFirstConsumer: a claim without a pod needs the annotation selected-node.
    pub waits: bool,
    pub parameters: BTreeMap<String, String>,
}

/// What a ResourceQuota leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    pub name: String,
    /// By resource (`requests.storage`, `persistentvolumeclaims`, `CLASS.storageclass....`): hard and used.
    pub left: BTreeMap<String, (String, String)>,
}

/// Another restore of the same `StatefulSet`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub created: Timestamp,
    /// When it began, under the lock.
    pub began: Option<Timestamp>,
    /// It has a plan.
    pub planned: bool,
    pub ended: bool,
    /// What it has put under the claims may be there: it is Completed, Held or under way.
    pub stands: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// A scale-up is refused.
    Up,
    /// The policy is there and does not refuse yet.
    Rising,
    /// The policy is not installed: replicas are looked at before each destructive step instead.
    Missing,
}

/// All that is known of it. Of what is Unknown nothing is decided.
#[derive(Debug, Clone, Default)]
pub struct Sights {
    pub record: Seen<Record>,
    sources: Seen<Snapshots>,
    recorded: BTreeMap<String, Option<RecordedClaim>>,
    contents: BTreeMap<String, Option<Content>>,
    handles: Seen<BTreeMap<String, usize>>,
    storage: Seen<Vec<StorageClass>>,
    nodes: Seen<Vec<Node>>,
    quotas: Seen<Vec<Quota>>,
    rights: Seen<Vec<String>>,
    trials: BTreeMap<String, Option<Refusal>>,
    peers: Seen<Vec<Peer>>,
    attached: Seen<BTreeSet<String>>,
    scalers: Seen<Vec<String>>,
    fence: Seen<(Fence, Timestamp)>,
    user: Seen<String>,
    troubles: BTreeMap<String, Option<String>>,
    ending: Seen<bool>,
    closing: Seen<bool>,
    kin: Seen<BTreeSet<String>>,
    /// The uids of the claims that this process has made.
    pub made: BTreeSet<String>,
    /// Claims that keep our marks.
    pub kept: BTreeSet<String>,
    /// Where the journal was when it was last known.
    pub course: Option<Course>,
    /// The undo that was last seen under way, by the value that asked for it.
    pub undoing: Option<String>,
}

fn at(look: Look) -> Read {
    Read::Restore(look)
}

impl Sights {
    pub fn fold(&mut self, sight: Sight) {
        match sight {
            Sight::Record(record) => {
                if let Journal::Open(run) = &record.journal
                    && let Cause::Undo(slot) = &run.cause
                {
                    self.undoing = Some(slot.clone());
                }
                self.record = Seen::Known(*record);
            }
            Sight::Sources(all) => self.sources = Seen::Known(all),
            Sight::Source(name, source) => {
                if let Seen::Known(all) = &mut self.sources {
                    match *source {
                        Some(source) => drop(all.insert(name, source)),
                        None => drop(all.remove(&name)),
                    }
                }
            }
            Sight::Recorded(name, claim) => drop(self.recorded.insert(name, claim)),
            Sight::Content(name, content) => drop(self.contents.insert(name, content)),
            Sight::Handles(handles) => self.handles = Seen::Known(handles),
            Sight::StorageClasses(all) => self.storage = Seen::Known(all),
            Sight::Nodes(all) => self.nodes = Seen::Known(all),
            Sight::Quotas(all) => self.quotas = Seen::Known(all),
            Sight::Rights(missing) => self.rights = Seen::Known(missing),
            Sight::Trial(name, refusal) => drop(self.trials.insert(name, refusal)),
            Sight::Peers(all) => self.peers = Seen::Known(all),
            Sight::Attached(all) => self.attached = Seen::Known(all),
            Sight::Scalers(all) => self.scalers = Seen::Known(all),
            Sight::Fence(fence, at) => self.fence = Seen::Known((fence, at)),
            Sight::User(name) => self.user = Seen::Known(name),
            Sight::Trouble(claim, said) => drop(self.troubles.insert(claim, said)),
            Sight::Ending(ending) => self.ending = Seen::Known(ending),
            Sight::Closing(closing) => self.closing = Seen::Known(closing),
            Sight::Kin(names) => self.kin = Seen::Known(names),
            Sight::Kept(claim) => drop(self.kept.insert(claim)),
            Sight::Made(uid) => drop(self.made.insert(uid)),
        }
    }

    /// What was seen before the lock was ours is hearsay; who we are and what we have made is not.
    pub fn forget(&mut self) {
        let (user, made, course) = (std::mem::take(&mut self.user), std::mem::take(&mut self.made), self.course);
        let undoing = self.undoing.take();
        *self = Sights { user, made, course, undoing, ..Sights::default() };
    }

    /// That is to be looked at again.
    pub fn stale(&mut self, look: &Look) {
        match look {
            Look::Record => self.record = Seen::Unknown,
            Look::Sources => self.sources = Seen::Unknown,
            Look::Recorded(name) => drop(self.recorded.remove(name)),
            Look::Content(name) => drop(self.contents.remove(name)),
            Look::Handles(_) => self.handles = Seen::Unknown,
            Look::StorageClasses => self.storage = Seen::Unknown,
            Look::Nodes => self.nodes = Seen::Unknown,
            Look::Quotas => self.quotas = Seen::Unknown,
            Look::Rights => self.rights = Seen::Unknown,
            Look::Trial(claim) => drop(self.trials.remove(&claim.name)),
            Look::Peers => self.peers = Seen::Unknown,
            Look::Attached => self.attached = Seen::Unknown,
            Look::Scalers => self.scalers = Seen::Unknown,
            Look::Fence => self.fence = Seen::Unknown,
            Look::User => self.user = Seen::Unknown,
            Look::Trouble(claim) => drop(self.troubles.remove(claim)),
            Look::Ending => self.ending = Seen::Unknown,
            Look::Closing => self.closing = Seen::Unknown,
            Look::Kin => self.kin = Seen::Unknown,
            Look::Pods => {}
        }
    }

    pub fn record(&self) -> Result<&Record, Read> {
        self.record.get(at(Look::Record))
    }
    pub fn sources(&self) -> Result<&Snapshots, Read> {
        self.sources.get(at(Look::Sources))
    }
    pub fn recorded(&self, name: &str) -> Result<Option<&RecordedClaim>, Read> {
        self.recorded.get(name).map(Option::as_ref).ok_or_else(|| at(Look::Recorded(name.to_owned())))
    }
    pub fn content(&self, name: &str) -> Result<Option<&Content>, Read> {
        self.contents.get(name).map(Option::as_ref).ok_or_else(|| at(Look::Content(name.to_owned())))
    }
    /// Of the snapshot of that name; none: neither is there, or has one.
    pub fn content_of(&self, snapshot: &str) -> Result<Option<&Content>, Read> {
        match self.sources()?.get(snapshot).and_then(|source| source.content.as_ref()) {
            Some(content) => self.content(content),
            None => Ok(None),
        }
    }
    /// Of all that will be asked for.
    pub fn handles(&self, asked: impl FnOnce() -> BTreeSet<String>) -> Result<&BTreeMap<String, usize>, Read> {
        match &self.handles {
            Seen::Known(handles) => Ok(handles),
            Seen::Unknown => Err(at(Look::Handles(asked()))),
        }
    }
    pub fn storage(&self) -> Result<&[StorageClass], Read> {
        self.storage.get(at(Look::StorageClasses)).map(Vec::as_slice)
    }
    pub fn nodes(&self) -> Result<&[Node], Read> {
        self.nodes.get(at(Look::Nodes)).map(Vec::as_slice)
    }
    pub fn quotas(&self) -> Result<&[Quota], Read> {
        self.quotas.get(at(Look::Quotas)).map(Vec::as_slice)
    }
    pub fn rights(&self) -> Result<&[String], Read> {
        self.rights.get(at(Look::Rights)).map(Vec::as_slice)
    }
    pub fn trial(&self, claim: &NewClaim) -> Result<Option<&Refusal>, Read> {
        self.trials.get(&claim.name).map(Option::as_ref).ok_or_else(|| at(Look::Trial(Box::new(claim.clone()))))
    }
    pub fn peers(&self) -> Result<&[Peer], Read> {
        self.peers.get(at(Look::Peers)).map(Vec::as_slice)
    }
    pub fn attached(&self) -> Result<&BTreeSet<String>, Read> {
        self.attached.get(at(Look::Attached))
    }
    pub fn scalers(&self) -> Result<&[String], Read> {
        self.scalers.get(at(Look::Scalers)).map(Vec::as_slice)
    }
    pub fn fence(&self) -> Result<(Fence, Timestamp), Read> {
        self.fence.get(at(Look::Fence)).copied()
    }
    pub fn user(&self) -> Result<&str, Read> {
        self.user.get(at(Look::User)).map(String::as_str)
    }
    /// As the end of a sentence: `: what it said`, or nothing.
    pub fn trouble(&self, claim: &str) -> Result<String, Read> {
        let said = self.troubles.get(claim).ok_or_else(|| at(Look::Trouble(claim.to_owned())))?;
        Ok(said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())
    }
    pub fn ending(&self) -> Result<bool, Read> {
        self.ending.get(at(Look::Ending)).copied()
    }
    pub fn closing(&self) -> Result<bool, Read> {
        self.closing.get(at(Look::Closing)).copied()
    }
    pub fn kin(&self) -> Result<&BTreeSet<String>, Read> {
        self.kin.get(at(Look::Kin))
    }
    /// The storage class of that name, or the default one.
    pub fn storage_class(&self, name: Option<&str>) -> Result<Option<&StorageClass>, Read> {
        let wanted = |class: &&StorageClass| name.map_or(class.is_default, |name| class.name == name);
        Ok(self.storage()?.iter().find(wanted))
    }
}
