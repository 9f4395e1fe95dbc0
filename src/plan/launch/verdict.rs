//! What the watcher says of a spec where no run can: that it cannot be acted on, that its schedule never fires, and that
//! it can be acted on again. Whoever waits for a condition, and every GitOps controller, looks there and not at Events.
//!
//! It is a write of its own, under a field manager of its own: the runner's next status takes these fields over, and
//! nothing has to be taken back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{Last, Object, Subject};
use super::instant::required;
use crate::api::backup::BackupPhase;
use crate::api::condition::{ConditionType, Reason};
use crate::api::shared::Outcome;

/// A condition as it stands in status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    pub kind: Standing,
    pub on: bool,
    #[serde(with = "required")]
    pub since: Timestamp,
}

/// The conditions that a verdict may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Ready,
    /// For this reason, judged for this generation; others are the runner's.
    Stalled(Option<(Reason, i64)>),
}

/// A condition as it is to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub kind: ConditionType,
    /// None: Unknown.
    pub on: Option<bool>,
    pub reason: Reason,
    pub message: String,
    pub since: Timestamp,
}

/// One write of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Of a backup only: a restore's phase says how far its run has come.
    pub phase: Option<BackupPhase>,
    pub message: String,
    pub conditions: Vec<Set>,
}

/// What the watcher has said of the spec, and for which generation.
pub fn said(object: &Object) -> Option<(Reason, i64)> {
    object.standing.iter().find_map(|flip| match flip.kind {
        Standing::Stalled(Some(said)) if flip.on => Some(said),
        _ => None,
    })
}

/// The spec cannot be acted on.
pub fn invalid(object: &Object, problem: &str, now: Timestamp) -> Verdict {
    let message = format!("not acted on: {problem}");
    let set = |kind, on| set(object, kind, Some(on), Reason::InvalidSpec, &message, now);
    let conditions = vec![set(ConditionType::Ready, false), set(ConditionType::Stalled, true)];
    let phase = matches!(object.subject, Subject::Backup(_)).then_some(BackupPhase::Failed);
    Verdict { phase, message, conditions }
}

/// No slot of it will ever come. Each verdict sets the same fields: what its manager no longer sends would go.
pub fn never(object: &Object, last: Option<&Last>, why: &str, now: Timestamp) -> Verdict {
    let Newest { phase, on, reason, how } = newest(last);
    let conditions = vec![
        set(object, ConditionType::Ready, on, reason, how, now),
        set(object, ConditionType::Stalled, Some(true), Reason::NeverDue, why, now),
    ];
    Verdict { phase: Some(phase), message: why.to_owned(), conditions }
}

/// It can be acted on again: phase and Ready are as the newest run left them.
pub fn accepted(object: &Object, last: Option<&Last>, now: Timestamp) -> Verdict {
    let Newest { phase, on, reason, how } = newest(last);
    let message = format!("the spec is accepted again; {how}");
    let conditions = vec![
        set(object, ConditionType::Ready, on, reason, &message, now),
        set(object, ConditionType::Stalled, Some(on == Some(false)), reason, &message, now),
    ];
    Verdict { phase: Some(phase), message, conditions }
}

/// What the newest run that came to an end says of the state of the backups.
struct Newest {
    phase: BackupPhase,
    /// Ready.
    on: Option<bool>,
    reason: Reason,
    how: &'static str,
}

fn newest(last: Option<&Last>) -> Newest {
    let phase = phase(last);
    let (on, how) = match phase {
        BackupPhase::Ready => (Some(true), "its newest run succeeded"),
        BackupPhase::Failed => (Some(false), "its newest run failed"),
        _ => (None, "no run has succeeded or failed yet"),
    };
    let reason = match last.and_then(|last| last.reason) {
        Some(reason) if on.is_some() => reason,
        _ => Reason::SpecAccepted,
    };
    Newest { phase, on, reason, how }
}

fn phase(last: Option<&Last>) -> BackupPhase {
    match last.and_then(|last| last.outcome) {
        Some(Outcome::Succeeded) => BackupPhase::Ready,
        Some(Outcome::Failed) => BackupPhase::Failed,
        // A run that was never begun says nothing of the state of the backups.
        _ => BackupPhase::Pending,
    }
}

/// Only a flip moves the time of the transition.
fn set(object: &Object, kind: ConditionType, on: Option<bool>, reason: Reason, message: &str, now: Timestamp) -> Set {
    let is = |flip: &&Flip| match flip.kind {
        Standing::Ready => kind == ConditionType::Ready,
        Standing::Stalled(_) => kind == ConditionType::Stalled,
    };
    let same = object.standing.iter().find(is).filter(|flip| Some(flip.on) == on);
    Set { kind, on, reason, message: message.to_owned(), since: same.map_or(now, |flip| flip.since) }
}
