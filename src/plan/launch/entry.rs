//! What the watcher keeps of each object: text and numbers, never a whole object and nothing parsed from a schedule.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::instant::{optional, required};
use super::verdict::Flip;
use crate::api::condition::Reason;
use crate::api::restore::RestorePhase;
use crate::api::shared::{Outcome, Trigger};
use crate::plan::job::{self, Kind};

/// A uid of the API server, in its 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub u128);

impl FromStr for Uid {
    type Err = ();

    /// Exactly the canonical text: what it stands for must be printed again letter for letter.
    fn from_str(text: &str) -> Result<Uid, ()> {
        let uid = u128::from_str_radix(&text.replace('-', ""), 16).map(Uid).map_err(|_| ())?;
        if uid.to_string() == text { Ok(uid) } else { Err(()) }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of our objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// resourceVersion: the precondition of a status write.
    pub version: Box<str>,
    pub generation: i64,
    #[serde(with = "required")]
    pub created: Timestamp,
    #[serde(with = "optional")]
    pub leaving: Option<Timestamp>,
    /// It bears our finalizer.
    pub held: bool,
    pub statefulset: Box<str>,
    /// None: its own.
    pub statefulset_namespace: Option<Box<str>>,
    pub manager: Manager,
    /// Why it cannot be acted on.
    pub problem: Option<Box<str>>,
    /// Its conditions Ready and Stalled.
    pub standing: Vec<Flip>,
    pub subject: Subject,
}

impl Object {
    pub fn target(&self) -> (&str, &str) {
        (self.statefulset_namespace.as_deref().unwrap_or(&self.namespace), &self.statefulset)
    }

    /// What the name of each holder of a Lease that works for it begins with.
    pub fn kin(&self) -> String {
        let flow = if matches!(self.subject, Subject::Backup(_)) { "backup" } else { "restore" };
        format!("{flow}/{}/{}/", self.namespace, self.name)
    }

    pub fn kind(&self) -> &'static str {
        match self.subject {
            Subject::Backup(_) => "StatefulSetBackup",
            Subject::Restore(_) => "StatefulSetRestore",
        }
    }

    pub fn owned(&self) -> &Owned {
        match &self.subject {
            Subject::Backup(policy) => &policy.owned,
            Subject::Restore(restore) => &restore.owned,
        }
    }

    pub fn run(&self) -> Option<&OpenRun> {
        match &self.subject {
            Subject::Backup(policy) => policy.run.as_ref(),
            Subject::Restore(restore) => restore.run.as_ref(),
        }
    }

    /// Its pods may be frozen.
    pub fn is_frozen(&self) -> bool {
        self.run().is_some_and(|run| run.stage == Stage::Frozen)
    }

    /// Its newest run was of this slot, and is over.
    fn is_over(&self, slot: &str) -> bool {
        let Subject::Backup(policy) = &self.subject else { return false };
        let last = policy.last.as_deref().filter(|last| last.outcome.is_some() && *last.slot == *slot);
        last.is_some() && policy.run.is_none()
    }

    /// What this Job of it is at.
    pub fn work(&self, job: &Job) -> Work {
        match self.run().filter(|run| run.slot == job.slot) {
            _ if !job.is_active() => Work::Nothing,
            Some(run) if run.stage == Stage::Uploading => Work::Upload,
            // Only who holds the lock writes its attempt.
            Some(run) if job.state == State::Running && run.attempt >= job.attempt => Work::Run,
            // Of a run that is over it takes the finalizer off, which anybody may have put there: for that it has its place.
            None if self.is_over(&job.slot) && self.held && job.state == State::Running => Work::Run,
            None if self.is_over(&job.slot) && !self.held => Work::Nothing,
            _ => Work::Wait,
        }
    }
}

/// Which watcher the object says it is served by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    Nobody,
    Us,
    Another(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Subject {
    Backup(Box<Policy>),
    Restore(Box<Restore>),
}

/// The fields of status that the watcher owns; every write sends all of them, and `managedBy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// While it equals `last`, the run of that slot is not known to have begun.
    #[serde(with = "optional")]
    pub next: Option<Timestamp>,
    #[serde(with = "optional")]
    pub last: Option<Timestamp>,
    pub request: Option<Box<str>>,
    /// The condition Waiting; none: it is not there, or False.
    pub waiting: Option<Box<Waiting>>,
}

/// What the condition Waiting says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    #[serde(with = "required")]
    pub since: Timestamp,
    /// Why a run that is due has no Job; none: it waits no longer, which is written once.
    pub why: Option<Reason>,
    pub message: Box<str>,
}

/// A StatefulSetBackup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub schedule: Option<Box<str>>,
    pub time_zone: Option<Box<str>>,
    pub starting_deadline: Option<i64>,
    pub suspend: bool,
    /// What its spec breaks of the schema's rules: no run is begun.
    pub problem: Option<Box<str>>,
    pub keep_succeeded: usize,
    pub keep_failed: usize,
    /// Hook timeouts, freeze and readiness: how long a run may take once it has the lock.
    pub span: i64,
    /// What a thaw may take.
    pub grace: i64,
    /// The annotation that asks for a run.
    pub request: Option<Box<str>>,
    pub owned: Owned,
    pub run: Option<OpenRun>,
    pub last: Option<Box<Last>>,
    /// status.lastBackupTime
    #[serde(with = "optional")]
    pub succeeded: Option<Timestamp>,
    /// From the next slot to the one after it, in seconds: for metrics.
    pub interval: Option<u32>,
}

/// `status.run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    pub slot: Box<str>,
    pub attempt: u32,
    pub stage: Stage,
}

/// How far the open run is, as far as it matters to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Pods may be frozen.
    Frozen,
    /// It only waits for uploads.
    Uploading,
    Other,
}

/// `status.lastRun`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    pub slot: Box<str>,
    pub attempt: u32,
    pub trigger: Trigger,
    pub outcome: Option<Outcome>,
    pub reason: Option<Reason>,
    #[serde(with = "optional")]
    pub started: Option<Timestamp>,
    #[serde(with = "optional")]
    pub ended: Option<Timestamp>,
    pub freeze_seconds: Option<f64>,
    pub snapshots: usize,
}

/// A StatefulSetRestore.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    pub phase: Option<RestorePhase>,
    pub run: Option<OpenRun>,
    /// It is Held for what may be allowed by now.
    pub try_again: bool,
    /// The annotation that asks for an undo.
    pub undo: Option<Box<str>>,
    /// An undo has written its plan.
    pub undoing: bool,
    /// The format of its plan, of a newer version.
    pub unread: Option<Box<str>>,
    #[serde(with = "optional")]
    pub undo_deadline: Option<Timestamp>,
    /// Volumes that are kept for an undo, and the bytes that their claims ask for: for metrics.
    pub aside: (u32, u64),
    /// Why it has failed, if it has: for metrics.
    pub failed: Option<Reason>,
    pub owned: Owned,
}

impl Restore {
    /// It failed and is left as it is, for people to decide.
    pub fn is_held(&self) -> bool {
        self.phase == Some(RestorePhase::Failed) && self.run.is_some()
    }

    pub fn is_over(&self) -> bool {
        self.run.is_none()
            && matches!(self.phase, Some(RestorePhase::Completed | RestorePhase::Failed | RestorePhase::Undone))
    }
}

/// What a Job is at; of several Jobs of an object the last of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Work {
    /// It is over.
    Nothing,
    /// It only waits for uploads.
    Upload,
    /// Its run has not begun, or has no pod, or another one holds its lock.
    Wait,
    Run,
}

/// A Job of ours, in our namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub uid: Uid,
    pub kind: Kind,
    pub slot: Box<str>,
    pub attempt: u32,
    pub trigger: Trigger,
    pub state: State,
    /// When it ended, by the Job controller's clock: the order in which history goes.
    #[serde(with = "optional")]
    pub ended: Option<Timestamp>,
    /// The list in which it was last seen.
    pub(super) epoch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// No pod of it runs yet.
    Pending,
    Running,
    Succeeded,
    /// `refused`: a definite no, by its exit code; else it was used up or ran out of time.
    Failed {
        refused: bool,
    },
}

impl Job {
    pub fn new(
        uid: Uid,
        kind: Kind,
        slot: Box<str>,
        attempt: u32,
        trigger: Trigger,
        state: State,
        ended: Option<Timestamp>,
    ) -> Job {
        Job { uid, kind, slot, attempt, trigger, state, ended, epoch: 0 }
    }

    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Pending | State::Running)
    }

    pub fn name(&self, object: &Object, owner: Uid) -> String {
        job::job_name(self.kind, &object.name, &owner.to_string(), &self.slot, self.attempt)
    }

    pub fn is_for(&self, kind: Kind, slot: &str) -> bool {
        self.kind == kind && *self.slot == *slot
    }
}

/// Slots of the clock are instants; those of a person's request are any text.
pub fn is_clock(trigger: Trigger) -> bool {
    matches!(trigger, Trigger::Schedule | Trigger::First | Trigger::Catchup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_comes_back_letter_for_letter() {
        let text = "0a1f0c9e-2f43-4b8e-9d7e-0c51d3e5a7b1";
        assert_eq!(text.parse::<Uid>().unwrap().to_string(), text);
        for wrong in ["", "x", "0A1F0C9E-2F43-4B8E-9D7E-0C51D3E5A7B1", "0a1f0c9e2f434b8e9d7e0c51d3e5a7b1", "-1"] {
            assert!(wrong.parse::<Uid>().is_err(), "{wrong}");
        }
    }
}
