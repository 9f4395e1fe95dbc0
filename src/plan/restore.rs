//! The story of a restore. Pure: `next` looks at the view and says what comes next.
//!
//! lock → choose the run → preflight → finalizer, plan, open mark → pin → stage and prove → protect → fence → stop →
//! swap → scale up → ready → settle → close; rollback and undo are the same way with goal `Old`.
//!
//! # Phases and stages
//!
//! A phase (`status.phase`) is entered by one write of the journal. Within it every stage of the phase's list must
//! hold, from the first to the last; the first that does not says what would make it hold: a batch of steps that
//! commute, a wait, or a failure. So a fresh process, a lost reply and a straggling request need no code of their own:
//! the stages are looked at again.
//!
//! | goal | phase | stages | and then |
//! |---|---|---|---|
//! | New | New | mark, pin, stage, prove | journal `staged`, phase ScalingDown |
//! | New | ScalingDown | mark, again, unpin, protect, fence, stop, sign | phase Restoring: from here on claims are deleted |
//! | New | Restoring | mark, fence, stop, swap | phase ScalingUp (InPlace: journal `staged`) |
//! | New | ScalingUp | scale, unfence, serve, ready, relax, settle, unpin, unmark | Completed |
//! | Old | ScalingDown | mark, protect, fence, stop | phase Restoring |
//! | Old | Restoring | mark, fence, stop, swap | phase ScalingUp |
//! | Old | ScalingUp | scale, unfence, ready (undo), clean, relax, settle, unpin, unmark | Failed or Undone |
//!
//! A failure before the first deletion may have been sent (`reached` < Restoring) turns to goal Old in phase
//! ScalingUp: nothing is swapped, the staging claims go with their volumes. After it, `spec.onFailure` decides.
//!
//! # Rows
//!
//! Every request names the object by uid or carries the resourceVersion that it was decided on, where the verb can
//! carry one: a 409 and a 404 are answered with [`Fault::Lost`](crate::step::Fault), which makes what it touched
//! Unknown. *Again* says what a second sending does.
//!
//! | row | request | Pre | Post | Again |
//! |---|---|---|---|---|
//! | Lock | as a backup's | the Lease is free, gone or kin | it is ours, `leaseTransitions` + 1 | 409 |
//! | Unlock | as a backup's | held at this epoch | free | 409 |
//! | Write | server-side apply `statefulsetrestores/status`, manager `sts-backup/runner`, metadata.uid and resourceVersion | the Lease is ours, or the journal is not open | status is the value | 409 |
//! | Hold | merge patch `statefulsetrestores` metadata.finalizers, uid and resourceVersion | | the finalizers are these | 409 |
//! | Mark | merge patch of the lock Lease, resourceVersion: annotations `/open`, `/fence-user`, `/restored-by`, label `/fence` | held | the marks are exactly these | the same |
//! | Pin | merge patch `volumesnapshots` annotation `/pinned-by`, uid and resourceVersion | the plan stands | the list is this one | 409 |
//! | Stage | create `persistentvolumeclaims` with `dataSource` = VolumeSnapshot, annotation selected-node, label `/restore` = uid | plan, mark and pins stand | a staging claim is on its way; its uid is written down before anything rests on it | a name that is taken is looked at: [`own`] |
//! | Steer | merge patch `persistentvolumeclaims` annotations selected-node and `/tried-nodes`, uid and resourceVersion | Pending, its node was taken off | provisioned for the next node | 409 |
//! | Make | create `persistentvolumeclaims` under the claim's own name: `volumeName`, or `dataSource` (InPlace), or neither (fresh); label `/restore`, annotation `/restored-by` | stopped; the volume is reserved for it; no claim of that name | | a name that is taken is looked at: [`own`] |
//! | Unlabel | merge patch `persistentvolumeclaims`: label `/restore`, annotations `/restored-by` and `/tried-nodes`, and a managed-by of ours, off; uid and resourceVersion | nothing is kept for an undo any more | nothing of ours is on the claim; where somebody refuses that, it stays | 409 |
//! | DropClaim | delete `persistentvolumeclaims`, preconditions.uid; never a finalizer by force | its volume is Retained (or Discarded); of a claim of the plan: stopped, looked at right before | gone or Terminating | 404 |
//! | Protect | merge patch `persistentvolumes`, uid and resourceVersion: reclaim policy Retain, labels `/restore` `/role` `/claim`, annotations `/reclaim-policy` `/restore` `/undo-deadline` | it is the plan's, staged's, or a live claim's, and its claimRef says so (`volume::find`) | no deletion of a claim can free it | 409 |
//! | Settle | the same request: its own policy back, our marks off | bound to its claim; or released: Released, past the deadline | the provisioner frees a Released one whose policy is Delete | 409 |
//! | Discard | the same request: policy Delete, marks off | made by us, for a claim of ours, and nobody's before (`own::is_disposable`) | it goes with its staging claim | 409 |
//! | Reserve | JSON patch `persistentvolumes`: `test /metadata/resourceVersion`, `test /spec/claimRef/uid` = the old one, `replace /spec/claimRef` (`kind`, `apiVersion`, namespace, name, uid or none) | no claim of its old name lives | Available and reserved; with uid: Released | the test fails: 422 is answered as Lost |
//! | Retain | merge patch `statefulsets` spec.persistentVolumeClaimRetentionPolicy, uid and resourceVersion | | claims outlive pods and StatefulSet; at the end: as before | 409 |
//! | Scale | merge patch `statefulsets/scale` spec.replicas, metadata.uid and resourceVersion | to 0: protected and fenced; up: every claim stands | | 409 |
//! | Evict | delete `pods`, preconditions.uid | the StatefulSet is at 0 and observed; the pod is not Ready | gone or Terminating | 404 |

mod again;
pub(super) mod begin;
mod clean;
mod close;
mod ending;
mod finish;
pub mod invariant;
pub mod journal;
pub mod lift;
pub mod own;
pub mod preview;
mod recorded;
pub mod release;
mod report;
mod retry;
pub mod sight;
mod stage;
mod step;
mod stop;
mod swap;
pub mod undo;
pub(super) mod volume;

use jiff::Timestamp;

use self::begin::acquire;
use self::close::{close, closed, depart, held, leave_lock, let_loose, outcome};
use self::journal::{Cause, End, Journal, Record, Run};
pub use self::report::Write;
pub(super) use self::stage::new_claim;
pub use self::step::{Doomed, Keep, NewClaim, Pin, Reserve, Scale, Signs, Steer, Tend, Unlabel};
use super::backup::{CALL, Hold};
use super::consent::breach;
use super::flow::{Exit, Feed, Next, Plan, act, end, steps, wait};
use super::noun::{Lease, Outcome, Refusal, Stop};
use super::view::{Fact, Read, View};
use crate::api::condition::Reason;
use crate::api::restore::{OnFailure, RestorePhase, Strategy};
use crate::api::shared::Goal;

steps! {
    /// What a restore may do: one write each; the table above is its contract.
    pub enum Restore {
        Lock(Option<Box<Lease>>) => [("coordination.k8s.io", "leases", "create"), ("coordination.k8s.io", "leases", "patch")];
        Unlock(i64) => [("coordination.k8s.io", "leases", "patch")];
        Write(Box<Write>) => [("backup.sts-backup.io", "statefulsetrestores/status", "patch")];
        Hold(Hold) => [("backup.sts-backup.io", "statefulsetrestores", "patch")];
        Mark(Box<Signs>) => [("coordination.k8s.io", "leases", "patch")];
        Pin(Pin) => [("snapshot.storage.k8s.io", "volumesnapshots", "patch")];
        Stage(Box<NewClaim>) => [("", "persistentvolumeclaims", "create")];
        Steer(Steer) => [("", "persistentvolumeclaims", "patch")];
        Make(Box<NewClaim>) => [("", "persistentvolumeclaims", "create")];
        Unlabel(Unlabel) => [("", "persistentvolumeclaims", "patch")];
        DropClaim(Doomed) => [("", "persistentvolumeclaims", "delete")];
        Protect(Box<Tend>) => [("", "persistentvolumes", "patch")];
        Settle(Box<Tend>) => [("", "persistentvolumes", "patch")];
        Discard(Box<Tend>) => [("", "persistentvolumes", "patch")];
        Reserve(Box<Reserve>) => [("", "persistentvolumes", "patch")];
        Retain(Keep) => [("apps", "statefulsets", "patch")];
        Scale(Scale) => [("apps", "statefulsets/scale", "patch")];
        Evict(Doomed) => [("", "pods", "delete")];
    }
    lost(_how, _when) {
        Self::Lock(_) | Self::Unlock(_) | Self::Mark(_) => Fact::Stale(Read::Lease),
        Self::Write(_) | Self::Hold(_) => Fact::Stale(Read::Restore(Look::Record)),
        Self::Pin(_) => Fact::Stale(Read::Restore(Look::Sources)),
        Self::Stage(_) | Self::Steer(_) | Self::Make(_) | Self::Unlabel(_) | Self::DropClaim(_) => {
            Fact::Stale(Read::Claims)
        }
        // It may have changed because its claim is gone.
        Self::Settle(_) => Fact::Stale(Read::Claims),
        Self::Protect(tend) | Self::Discard(tend) => Fact::Stale(Read::Volume(tend.pv.clone())),
        Self::Reserve(reserve) => Fact::Stale(Read::Volume(reserve.pv.clone())),
        Self::Retain(_) | Self::Scale(_) => Fact::Stale(Read::Target),
        Self::Evict(_) => Fact::Stale(Read::Restore(Look::Pods)),
    }
    refused(why) {
        Self::Write(_) | Self::Hold(_) => return Fact::Mute(why.clone()),
        Self::Unlabel(of) => return Fact::Restore(Box::new(Sight::Kept(of.name.clone()))),
    }
}

use sight::{Look, Sight};

/// What would make a stage hold.
#[derive(Debug)]
pub(crate) enum Go {
    Do(Vec<Restore>),
    Wait(Vec<Feed>, Timestamp),
    Fail(Refusal),
    /// The namespace of the claims is being deleted.
    Stop,
}

/// None: it holds.
type Holds = Result<Option<Go>, Read>;
type Stage = fn(&View, &Run, Timestamp) -> Holds;

fn steps(batch: Vec<Restore>) -> Option<Go> {
    (!batch.is_empty()).then_some(Go::Do(batch))
}

fn stages(run: &Run, strategy: Strategy) -> &'static [Stage] {
    use RestorePhase::{Restoring, ScalingDown, ScalingUp};
    let undo = matches!(run.cause, Cause::Undo(_));
    match (run.goal, run.phase) {
        (Goal::Old, ScalingDown) => &[stage::mark, stop::protect, stop::fence, stop::stop],
        (_, Restoring) => &[stage::mark, stop::fence, stop::stop, swap::swap],
        (Goal::Old, _) if undo => UNDONE,
        (Goal::Old, _) => ROLLED_BACK,
        (_, ScalingDown) => STOPPED,
        (_, ScalingUp) => COMPLETED,
        _ if strategy == Strategy::InPlace => &[stage::mark, stage::pin],
        _ => &[stage::mark, stage::pin, stage::stage, stage::prove],
    }
}

const STOPPED: &[Stage] =
    &[stage::mark, again::again, stage::unpin_staged, stop::protect, stop::fence, stop::stop, stop::sign];
const COMPLETED: &[Stage] = &[
    finish::scale,
    finish::unfence,
    finish::serve,
    finish::ready,
    finish::relax,
    finish::settle,
    stage::unpin,
    finish::unmark,
];
const UNDONE: &[Stage] = &[
    finish::scale,
    finish::unfence,
    finish::ready,
    clean::clean,
    finish::relax,
    finish::settle,
    stage::unpin,
    finish::unmark,
];
const ROLLED_BACK: &[Stage] =
    &[finish::scale, finish::unfence, clean::clean, finish::relax, finish::settle, stage::unpin, finish::unmark];
/// The object is deleted, and the restored volumes have served: they stay, and so do the old ones, Retained.
const KEPT: &[Stage] = &[finish::scale, finish::unfence, finish::relax, finish::settle, stage::unpin, finish::unmark];

pub fn next(v: &View, now: Timestamp) -> Plan<Restore> {
    let record = match gate(v, now)? {
        Ok(record) => record,
        Err(next) => return Ok(next),
    };
    if let Some(next) = release::let_go(v, record, now)? {
        return Ok(next);
    }
    match &record.journal {
        Journal::Unread(why) => end(Exit::Refused(Refusal::new(Reason::FormatUnknown, why.clone()))),
        Journal::Ended(ended, _) => closed(v, record, outcome(ended), now),
        Journal::Held(_, refusal) if record.rests(&v.want.me) => leave_lock(v, Outcome::Failed(refusal.clone()), now),
        Journal::Idle if record.leaving => match held(record) {
            Some(hold) => one(Restore::Hold(hold), now),
            None => leave_lock(v, Outcome::Failed(leaving(v)), now),
        },
        Journal::Idle
            if v.refused.is_none()
                && let Some(refusal) = begin::not_granted(v)? =>
        {
            close(v, End::Failed(refusal), now)
        }
        Journal::Idle if let Some(refusal) = breach(&v.want.restore.flaws) => close(v, End::Failed(refusal), now),
        // Who may not even look at the lock ends all the same.
        _ if v.refused.is_some() && v.to_release()?.is_none() || v.mine()?.is_none() => begin::queue(v, record, now),
        Journal::Held(run, refusal) if !record.leaving => retry::take_up(v, run, refusal, now),
        Journal::Idle => begin::begin(v, record, now),
        Journal::Open(run) | Journal::Held(run, _) => proceed(v, record, run, now),
    }
}

/// What ends a process before anything is decided.
fn gate(v: &View, now: Timestamp) -> Result<Result<&Record, Next<Restore>>, Read> {
    if let Some(refusal) = &v.mute {
        return Ok(Err(match v.to_release() {
            // Nobody has to wait until it runs out.
            Ok(Some(epoch)) if v.refused.is_none() => one(Restore::Unlock(epoch), now)?,
            _ => Next::End(Exit::Refused(refusal.clone())),
        }));
    }
    if v.is_deserted(now) {
        return Ok(Err(Next::End(Exit::Again("the API server does not answer".into()))));
    }
    if let Some(stop) = v.stop {
        return Ok(Err(leave(v, stop, now)?));
    }
    let record = v.restore.record()?;
    // Attempts are counted for each request.
    let same = |run: &&crate::api::shared::RunStatus| run.slot.as_deref().unwrap_or_default() == v.want.slot;
    let attempt = record.status.run.as_ref().filter(same).and_then(|run| run.attempt).map(i64::from);
    if attempt.is_some_and(|attempt| attempt > v.want.attempt) {
        return Ok(Err(Next::End(Exit::Superseded("a later attempt of this run has begun".into()))));
    }
    Ok(Ok(record))
}

/// A restore does not turn back on a stop: its retry goes on.
fn leave(v: &View, stop: Stop, now: Timestamp) -> Plan<Restore> {
    if v.refused.is_some() && stop != Stop::LeaseLost {
        return end(Exit::stopped(stop));
    }
    if v.is_usurped()? {
        return end(Exit::usurped());
    }
    match v.to_release()? {
        Some(epoch) => one(Restore::Unlock(epoch), now),
        None => end(Exit::stopped(stop)),
    }
}

/// The kind of our objects, as the open mark has it.
pub const KIND: &str = "StatefulSetRestore";

/// Carries out what the journal says: the first stage that does not hold, or the next step of the journal.
fn proceed(v: &View, record: &Record, run: &Run, now: Timestamp) -> Plan<Restore> {
    let deleted = record.leaving && run.goal == Goal::New && !matches!(run.cause, Cause::Failed(_));
    if deleted && !run.served {
        return write(v, &Journal::Open(Box::new(run.turn(Cause::Failed(leaving(v)), now))), now);
    }
    let over = finish::is_over(v, record, run)?;
    if let Some(refusal) = v.refused.as_ref().filter(|_| !over) {
        return fail(v, run, refusal.clone(), now);
    }
    let list = match deleted {
        _ if over => &[],
        true => KEPT,
        false => stages(run, v.want.restore.strategy),
    };
    for stage in list {
        match stage(v, run, now)? {
            None => {}
            Some(Go::Do(batch)) => return act(batch, now + CALL),
            Some(Go::Wait(on, until)) => return wait(on, until),
            Some(Go::Fail(refusal)) => return fail(v, run, refusal, now),
            Some(Go::Stop) => return ending::stop(v, run, now),
        }
    }
    advance(v, run, deleted, now)
}

fn advance(v: &View, run: &Run, deleted: bool, now: Timestamp) -> Plan<Restore> {
    let journal = match (run.phase, run.goal, &run.cause) {
        _ if deleted => Journal::Ended(End::Failed(leaving(v)), None),
        (RestorePhase::ScalingUp, Goal::Old, Cause::Undo(_)) => Journal::Ended(End::Undone, None),
        (RestorePhase::ScalingUp, Goal::Old, Cause::Failed(refusal)) => {
            Journal::Ended(End::Failed(refusal.clone()), None)
        }
        (RestorePhase::ScalingUp, ..) => Journal::Ended(End::Completed, None),
        (RestorePhase::New, ..) => {
            let mut run = run.enter(RestorePhase::ScalingDown, now);
            run.deed.staged = stage::staged(v, &run)?;
            Journal::Open(Box::new(run))
        }
        (RestorePhase::ScalingDown, ..) => Journal::Open(Box::new(run.enter(RestorePhase::Restoring, now))),
        _ => {
            let mut next = run.enter(RestorePhase::ScalingUp, now);
            if run.goal == Goal::New && run.deed.staged.is_empty() {
                next.deed.staged = swap::made(v, run)?;
            }
            Journal::Open(Box::new(next))
        }
    };
    write(v, &journal, now)
}

/// After a failure: back, or as it is. Under goal Old there is no further back.
fn fail(v: &View, run: &Run, refusal: Refusal, now: Timestamp) -> Plan<Restore> {
    if run.goal == Goal::Old {
        if let Journal::Held(..) = v.restore.record()?.journal {
            return leave_lock(v, Outcome::Failed(refusal), now);
        }
        return write(v, &Journal::Held(Box::new(run.clone()), refusal), now);
    }
    if let Some(Go::Do(batch)) = finish::serve(v, run, now)? {
        return act(batch, now + CALL);
    }
    let hold = match v.want.restore.on_failure {
        _ if !run.swapped() => false,
        OnFailure::Rollback => run.served,
        OnFailure::RollbackAlways => false,
        OnFailure::Hold | OnFailure::Unknown => true,
    };
    let journal = if hold {
        Journal::Held(Box::new(run.clone()), refusal)
    } else {
        Journal::Open(Box::new(run.turn(Cause::Failed(refusal), now)))
    };
    write(v, &journal, now)
}

fn write(v: &View, journal: &Journal, now: Timestamp) -> Plan<Restore> {
    one(Restore::Write(Box::new(report::write(v, journal, now)?)), now)
}

fn one(step: Restore, now: Timestamp) -> Plan<Restore> {
    act([step], now + CALL)
}

fn leaving(v: &View) -> Refusal {
    let message = format!("StatefulSetRestore {}/{} is being deleted", v.want.namespace, v.want.name);
    Refusal::new(Reason::Superseded, message)
}

/// Which request this is: name and spec, so that a re-created object does not turn the data back once more.
pub fn signature(v: &View) -> String {
    format!("{}/{}@{}", v.want.namespace, v.want.name, v.want.restore.hash)
}
