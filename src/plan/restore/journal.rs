//! The journal of a restore: status.run, plan, undoPlan, staged and phase as one value. A phase is entered by one
//! write, so that a fresh process finds itself where the dead one was.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::api::FORMAT;
use crate::api::condition::Reason;
use crate::api::recorded::RecordedClaim;
use crate::api::restore::{ReplacedClaim, RestorePhase, RestorePlan, StagedClaim, StatefulSetRestoreStatus};
use crate::api::shared::{Goal, RunStatus};
use crate::plan::journal::instant;
use crate::plan::name::RunId;
use crate::plan::noun::{Holder, Refusal};

/// Our object as last read or written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// resourceVersion: the precondition of the next write.
    pub version: String,
    pub uid: String,
    pub leaving: bool,
    pub created: Timestamp,
    pub finalizers: Vec<String>,
    /// The annotation `/undo`.
    pub undo: Option<String>,
    pub status: StatefulSetRestoreStatus,
    pub journal: Journal,
}

impl Record {
    /// What is Held stays so; when its object goes, or what was refused may be allowed by now, each process tries it
    /// again, once.
    pub fn rests(&self, me: &Holder) -> bool {
        let by_us = self.status.run.as_ref().is_some_and(|run| run.holder.as_ref() == Some(&me.0));
        by_us || !(self.leaving || self.is_to_be_tried_again())
    }

    pub fn is_to_be_tried_again(&self) -> bool {
        self.status.run.as_ref().is_some_and(|run| run.try_again == Some(true))
    }
}

#[cfg(test)]
impl Record {
    /// Of an object of which nothing is known but its journal.
    pub fn of(journal: Journal) -> Record {
        Record {
            version: "1".into(),
            uid: "uid".into(),
            leaving: false,
            created: Timestamp::UNIX_EPOCH,
            finalizers: vec![],
            undo: None,
            status: StatefulSetRestoreStatus::default(),
            journal,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Journal {
    /// Nothing is planned, nothing is changed.
    Idle,
    /// A plan stands and is carried out.
    Open(Box<Run>),
    /// It failed and is left as it is, mark and plan with it, for people to decide.
    Held(Box<Run>, Refusal),
    /// A terminal phase; with the plan, if there ever was one.
    Ended(End, Option<Box<Deed>>),
    /// Written by a newer version: nothing is done.
    Unread(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Completed,
    Undone,
    Failed(Refusal),
}

/// What was decided once and is never decided again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deed {
    pub plan: Plan,
    /// What the claims were when an undo was begun.
    pub undo: Option<Plan>,
    /// The new volumes by claim name.
    pub staged: BTreeMap<String, Placed>,
    /// The claims that it has made, name by uid.
    pub made: BTreeMap<String, String>,
}

/// Where the run is.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Which volumes are to be under the claims.
    pub goal: Goal,
    pub cause: Cause,
    /// New, ScalingDown, Restoring, ScalingUp.
    pub phase: RestorePhase,
    /// The furthest of these under goal New. From Restoring on a claim's deletion may have been sent.
    pub reached: RestorePhase,
    /// When the phase was entered.
    pub since: Timestamp,
    /// When the pods were first told to stop.
    pub down_since: Option<Timestamp>,
    /// A pod was Ready on restored volumes: they may hold new writes.
    pub served: bool,
    pub deed: Deed,
}

/// Why the run goes where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    Asked,
    /// A failure turned it back.
    Failed(Refusal),
    /// An undo, by the value that asked for it.
    Undo(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub run: Option<RunId>,
    /// The `StatefulSet` as it was; none if there was none.
    pub statefulset: Option<Value>,
    /// To go back to: as it was when the plan was made, and then as it was when it was scaled to 0.
    pub replicas: u32,
    pub items: Vec<Item>,
}

/// One claim of the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    pub pvc: String,
    /// What it was; none if there was none.
    pub old: Option<Placed>,
    /// What it is made from again.
    pub manifest: RecordedClaim,
    /// None: a fresh claim.
    pub snapshot: Option<String>,
    /// None with InPlace and for a fresh claim.
    pub staging: Option<String>,
}

/// A claim and the very volume behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// Uid of the claim: the old one, or of the staging claim.
    pub claim: String,
    pub pv: String,
    pub pv_uid: String,
    pub handle: String,
    /// Its own reclaim policy.
    pub policy: String,
}

impl Item {
    /// The replica that it belongs to.
    pub fn ordinal(&self) -> &str {
        self.pvc.rsplit_once('-').map_or("", |(_, ordinal)| ordinal)
    }
}

impl Run {
    /// A plan has just been made.
    pub fn new(plan: Plan, now: Timestamp) -> Run {
        Run {
            goal: Goal::New,
            cause: Cause::Asked,
            phase: RestorePhase::New,
            reached: RestorePhase::New,
            since: now,
            down_since: None,
            served: false,
            deed: Deed { plan, ..Deed::default() },
        }
    }

    /// The next phase on the same way.
    #[must_use]
    pub fn enter(&self, phase: RestorePhase, now: Timestamp) -> Run {
        let reached = if self.goal == Goal::New { self.reached.max(phase) } else { self.reached };
        Run { phase, reached, since: now, ..self.clone() }
    }

    /// Back to the old volumes. Before a deletion was sent there is nothing to swap.
    #[must_use]
    pub fn turn(&self, cause: Cause, now: Timestamp) -> Run {
        let phase = if self.swapped() { RestorePhase::ScalingDown } else { RestorePhase::ScalingUp };
        Run { goal: Goal::Old, cause, ..self.clone() }.enter(phase, now)
    }

    /// The deletion of a claim may have been sent.
    pub fn swapped(&self) -> bool {
        self.reached >= RestorePhase::Restoring
    }

    /// The volume that the goal wants under the claim; none: no claim, or one that is not known before it is made.
    pub fn wanted(&self, item: &Item) -> Option<&Placed> {
        match self.goal {
            Goal::Old => self.deed.plan.items.iter().find(|old| old.pvc == item.pvc)?.old.as_ref(),
            Goal::New | Goal::Unknown => self.deed.staged.get(&item.pvc),
        }
    }
}

/// Where a run is, to be compared.
pub type Course = (u8, Option<(Goal, RestorePhase)>);

impl Journal {
    /// Where the run is: when it changes, the run has entered another phase, has turned back, or is over.
    pub fn course(&self) -> Course {
        match self {
            Journal::Idle => (0, None),
            Journal::Open(run) => (1, Some((run.goal, run.phase))),
            Journal::Held(..) => (2, None),
            Journal::Ended(..) => (3, None),
            Journal::Unread(_) => (4, None),
        }
    }
}

/// Reads the journal from the status.
pub fn read(status: &StatefulSetRestoreStatus) -> Journal {
    let formats = status.plan.iter().chain(&status.undo_plan).map(|plan| plan.format.as_str());
    if let Some(format) = formats.into_iter().find(|format| *format != FORMAT) {
        return Journal::Unread(format!("status.plan has format {format:?}; this version knows {FORMAT:?}"));
    }
    let phase = status.phase.unwrap_or_default();
    let message = || status.message.clone().unwrap_or_default();
    let refusal = |reason: Reason| Refusal::new(reason, message());
    let run = status.run.as_ref().zip(deed(status)).map(|(run, deed)| Box::new(open(run, phase, deed)));
    match (phase, run) {
        (RestorePhase::Unknown, _) => Journal::Unread("status.phase is a word of a newer version".into()),
        (RestorePhase::Failed, Some(run)) => Journal::Held(run, refusal(Reason::Held)),
        (RestorePhase::Failed, None) => {
            Journal::Ended(End::Failed(refusal(reason(status))), deed(status).map(Box::new))
        }
        (RestorePhase::Completed, _) => Journal::Ended(End::Completed, deed(status).map(Box::new)),
        (RestorePhase::Undone, _) => Journal::Ended(End::Undone, deed(status).map(Box::new)),
        (_, Some(run)) => Journal::Open(run),
        (_, None) => Journal::Idle,
    }
}

fn reason(status: &StatefulSetRestoreStatus) -> Reason {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.and_then(|ready| ready.reason.parse().ok()).unwrap_or(Reason::JobLost)
}

fn deed(status: &StatefulSetRestoreStatus) -> Option<Deed> {
    let staged = status.staged.iter().map(|staged| (staged.pvc.clone(), placed_new(staged))).collect();
    let (undo, made) = (status.undo_plan.as_ref().map(plan), status.made_claims.clone());
    Some(Deed { plan: plan(status.plan.as_ref()?), undo, staged, made })
}

fn open(run: &RunStatus, phase: RestorePhase, deed: Deed) -> Run {
    let at = |time: &Option<Time>| time.as_ref().map(instant);
    let goal = run.goal.unwrap_or_default();
    let reached = run.reached.unwrap_or_default();
    // What is held has lost its phase: it begins again with the stop, which holds where there is nothing to stop.
    let phase = match phase {
        RestorePhase::Failed if goal == Goal::Old && reached >= RestorePhase::Restoring => RestorePhase::ScalingDown,
        RestorePhase::Failed => RestorePhase::ScalingUp,
        phase => phase,
    };
    let cause = match (&run.slot, run.reason) {
        (Some(slot), _) if !slot.is_empty() => Cause::Undo(slot.clone()),
        (_, Some(reason)) => Cause::Failed(Refusal { reason, message: run.message.clone().unwrap_or_default() }),
        _ => Cause::Asked,
    };
    Run {
        goal,
        cause,
        phase,
        reached,
        since: at(&run.since).unwrap_or_default(),
        down_since: at(&run.down_since),
        served: run.served == Some(true),
        deed,
    }
}

fn plan(plan: &RestorePlan) -> Plan {
    Plan {
        run: plan.run_id.as_deref().and_then(|id| id.parse().ok()),
        statefulset: plan.stateful_set.clone(),
        replicas: plan.original_replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or_default(),
        items: plan.claims.iter().map(item).collect(),
    }
}

fn item(claim: &ReplacedClaim) -> Item {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let old = claim.old_pv.as_ref().map(|pv| Placed {
        claim: text(&claim.old_pvc_uid),
        pv: pv.clone(),
        pv_uid: text(&claim.old_pv_uid),
        handle: text(&claim.volume_handle),
        policy: text(&claim.old_reclaim_policy),
    });
    let manifest = claim.claim.clone().and_then(|claim| serde_json::from_value(claim).ok()).unwrap_or_default();
    let (snapshot, staging) = (claim.snapshot.clone(), claim.staging_pvc.clone());
    Item { pvc: claim.pvc.clone(), old, manifest, snapshot, staging }
}

fn placed_new(staged: &StagedClaim) -> Placed {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Placed {
        claim: text(&staged.staging_pvc_uid),
        pv: text(&staged.pv),
        pv_uid: text(&staged.pv_uid),
        handle: text(&staged.volume_handle),
        policy: String::new(),
    }
}

/// Puts the journal of an open run into the status. Plans are written once: what stands is never written over, but for
/// the replicas, which are those of the last stop.
pub fn write(status: &mut StatefulSetRestoreStatus, run: &Run, holder: &Holder, attempt: i64) {
    let (reason, message) = match &run.cause {
        Cause::Failed(refusal) => (Some(refusal.reason), Some(refusal.message.clone())),
        Cause::Asked | Cause::Undo(_) => (None, None),
    };
    let slot = if let Cause::Undo(slot) = &run.cause { slot.clone() } else { String::new() };
    status.phase = Some(run.phase);
    status.run = Some(RunStatus {
        id: run.deed.plan.run.map(|id| id.to_string()),
        slot: Some(slot),
        attempt: i32::try_from(attempt).ok(),
        holder: Some(holder.0.clone()),
        goal: Some(run.goal),
        served: Some(run.served),
        reached: Some(run.reached),
        since: Some(Time(run.since)),
        down_since: run.down_since.map(Time),
        reason,
        message,
        ..RunStatus::default()
    });
    let plan = status.plan.get_or_insert_with(|| stored(&run.deed.plan));
    plan.original_replicas = i32::try_from(run.deed.plan.replicas).ok();
    if let Some(undo) = &run.deed.undo {
        let plan = status.undo_plan.get_or_insert_with(|| stored(undo));
        plan.original_replicas = i32::try_from(undo.replicas).ok();
    }
    status.made_claims.extend(run.deed.made.clone());
    if status.staged.is_empty() {
        status.staged = run.deed.staged.iter().map(|(pvc, placed)| staged(pvc, placed)).collect();
    }
}

pub(super) fn stored(plan: &Plan) -> RestorePlan {
    RestorePlan {
        format: FORMAT.to_owned(),
        run_id: plan.run.map(|run| run.to_string()),
        stateful_set: plan.statefulset.clone(),
        original_replicas: i32::try_from(plan.replicas).ok(),
        claims: plan.items.iter().map(stored_item).collect(),
    }
}

fn stored_item(item: &Item) -> ReplacedClaim {
    let old = |get: fn(&Placed) -> &String| item.old.as_ref().map(|old| get(old).clone());
    ReplacedClaim {
        pvc: item.pvc.clone(),
        old_pvc_uid: old(|old| &old.claim),
        old_pv: old(|old| &old.pv),
        old_pv_uid: old(|old| &old.pv_uid),
        old_reclaim_policy: old(|old| &old.policy),
        volume_handle: old(|old| &old.handle),
        claim: serde_json::to_value(&item.manifest).ok(),
        snapshot: item.snapshot.clone(),
        staging_pvc: item.staging.clone(),
    }
}

pub(super) fn staged(pvc: &str, placed: &Placed) -> StagedClaim {
    StagedClaim {
        pvc: pvc.to_owned(),
        staging_pvc_uid: Some(placed.claim.clone()),
        pv: Some(placed.pv.clone()),
        pv_uid: Some(placed.pv_uid.clone()),
        volume_handle: Some(placed.handle.clone()),
    }
}
