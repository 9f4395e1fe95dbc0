//! What people and machines read of a restore: the status that goes with each entry of the journal, and the Events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::journal::{self, Cause, End, Journal, Run};
use super::{finish, retry, undo};
use crate::api::condition::{self, ConditionType, Reason};
use crate::api::restore::{RestorePhase, StatefulSetRestoreStatus};
use crate::api::shared::Goal;
use crate::plan::name::RunId;
use crate::plan::noun::{RETAIN, Refusal};
use crate::plan::preflight::{Finding, Severity};
use crate::plan::report::{Note, seconds};
use crate::plan::text::head;
use crate::plan::view::{Read, View};

/// One write of the journal: the whole status as the runner owns it, and what is told beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The resourceVersion that it was decided on.
    pub version: String,
    pub run: Option<RunId>,
    pub status: StatefulSetRestoreStatus,
    pub notes: Vec<Note>,
}

struct Scribe<'a> {
    v: &'a View,
    /// The object is being deleted.
    leaving: bool,
    status: StatefulSetRestoreStatus,
    now: Timestamp,
}

pub fn write(v: &View, journal: &Journal, now: Timestamp) -> Result<Write, Read> {
    let record = v.restore.record()?;
    let mut scribe = Scribe::new(v, now)?;
    let note = match journal {
        Journal::Idle | Journal::Unread(_) => None,
        Journal::Open(run) => scribe.open(run, &record.journal),
        Journal::Held(run, refusal) => Some(scribe.held(run, refusal)?),
        Journal::Ended(end, _) => Some(scribe.ended(end, &record.journal)?),
    };
    scribe.finish(note)
}

/// The plan, and what the preflight warned of before it: each reason once.
pub fn begun(v: &View, run: Run, findings: &[Finding], now: Timestamp) -> Result<Write, Read> {
    let mut write = write(v, &Journal::Open(Box::new(run)), now)?;
    let mut warnings: BTreeMap<Reason, Vec<&Finding>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Warn) {
        warnings.entry(finding.reason).or_default().push(finding);
    }
    for (reason, all) in warnings {
        let Finding { object, message, remedy, .. } = all[0];
        let more = if all.len() > 1 { format!("; the same of {} more", all.len() - 1) } else { String::new() };
        let message = format!("{object}: {message} ({remedy}){more}");
        write.status.warnings.push(format!("{reason}: {message}"));
        write.notes.push(Note { warning: true, reason, message });
    }
    Ok(write)
}

/// Nothing has begun: another run has the lock.
pub fn waits(v: &View, message: String, now: Timestamp) -> Result<Write, Read> {
    let mut scribe = Scribe::new(v, now)?;
    scribe.set(ConditionType::Ready, false, Reason::LockHeld, &message);
    scribe.set(ConditionType::Reconciling, true, Reason::LockHeld, &message);
    scribe.status.message = Some(message);
    scribe.finish(None)
}

/// It is over, and so much is said behind that of what was asked for since and waits for the lock; nothing: it waits no
/// longer.
pub fn queued(v: &View, waits: &str, now: Timestamp) -> Result<Write, Read> {
    let mut scribe = Scribe::new(v, now)?;
    scribe.status.message = Some(head(&scribe.told(), TOLD).into_owned() + waits);
    scribe.finish(None)
}

/// Its object is being deleted: what it has set aside is about to be released.
pub fn going(v: &View, now: Timestamp) -> Result<Write, Read> {
    let mut scribe = Scribe::new(v, now)?;
    let message = "it is being deleted: the volumes that it has set aside are released";
    scribe.status.undo_deadline = None;
    scribe.status.message = Some(message.to_owned());
    scribe.set(ConditionType::Undoable, false, Reason::OldVolumesReleased, message);
    scribe.finish(None)
}

/// After the undo window: nothing is kept any more. `left`: what has not gone although it was given up; `stay`: what
/// nobody frees.
pub fn released(v: &View, left: &[String], stay: &[&str], now: Timestamp) -> Result<Write, Read> {
    let mut scribe = Scribe::new(v, now)?;
    let mut message = "the replaced volumes were given up: there is nothing to undo any more".to_owned();
    if !left.is_empty() {
        let _ = write!(message, "{STILL_THERE}{}", left.join("; "));
    }
    if !stay.is_empty() {
        let _ = write!(
            message,
            "; these stay until they are deleted by hand, because their reclaim policy is Retain: {}",
            stay.join(", ")
        );
    }
    scribe.status.undo_deadline = None;
    // The sentence of its end told until when they are kept, and how it is undone.
    let told = scribe.told();
    let told = told.split(KEPT).next().unwrap_or_default().split(UNDO_REFUSED).next().unwrap_or_default();
    scribe.status.message = Some(format!("{told}; {message}"));
    scribe.set(ConditionType::Undoable, false, Reason::OldVolumesReleased, &message);
    let note = Note { warning: !left.is_empty(), reason: Reason::OldVolumesReleased, message };
    scribe.finish(Some(note))
}

/// A restore that was Held is ended by hand, as it stands.
/// `stays`: volumes of claims that have none now.
pub fn lifted(v: &View, keeps: bool, stays: &BTreeSet<String>, now: Timestamp) -> Result<Write, Read> {
    let mut scribe = Scribe::new(v, now)?;
    let until = keeps.then_some(now + v.want.restore.undo_window);
    let mut kept = until.map(|until| format!("{KEPT}{until:.0}")).unwrap_or_default();
    if !stays.is_empty() {
        let names = stays.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let _ = write!(
            kept,
            "; those of claims that have none now stay after it as well, with reclaim policy {RETAIN}: {names}"
        );
    }
    let message = format!(
        "it was Held, and sts-backup doctor --lift-fence {}/{} ended it as it stood: what is under the claims stays{kept}",
        v.want.statefulset_namespace, v.want.statefulset
    );
    scribe.status.run = None;
    scribe.status.undo_deadline = until.map(Time);
    scribe.close(false, Reason::Held, &message);
    scribe.set(ConditionType::Undoable, false, Reason::Held, "");
    let note = Note { warning: true, reason: Reason::RestoreFailed, message: format!("{}: {message}", Reason::Held) };
    scribe.finish(Some(note))
}

/// Before what a request for an undo came to.
const UNDO_REFUSED: &str = ". An undo was refused: ";
/// Before whom an undo or a release waits for.
pub const QUEUED: [&str; 2] = [". The undo waits for ", ". The release waits for "];
/// Bytes of what was told before, so that what follows it is not cut off.
const TOLD: usize = 3072;
/// Before what was given up and has not gone.
pub const STILL_THERE: &str = "; still there: ";
/// Before what is kept, and until when.
const KEPT: &str = "; the old ones are kept until ";

/// The request is answered, and nothing else is changed.
pub fn undo_refused(v: &View, message: String, now: Timestamp) -> Result<Write, Read> {
    let mut scribe = Scribe::new(v, now)?;
    scribe.status.last_request = Some(v.want.slot.clone());
    let told = scribe.told();
    let told = told.split(UNDO_REFUSED).next().unwrap_or_default();
    scribe.status.message = Some(format!("{told}{UNDO_REFUSED}{message}"));
    scribe.set(ConditionType::Undoable, false, Reason::UndoRefused, &message);
    let note = Note { warning: true, reason: Reason::UndoRefused, message };
    scribe.finish(Some(note))
}

impl<'a> Scribe<'a> {
    fn new(v: &'a View, now: Timestamp) -> Result<Scribe<'a>, Read> {
        let record = v.restore.record()?;
        // The watcher's own: what we do not send we do not own.
        let mut status = StatefulSetRestoreStatus { managed_by: None, ..record.status.clone() };
        condition::leave_out_waiting(&mut status.conditions);
        status.job_name = v.want.job.clone().or(status.job_name);
        Ok(Scribe { v, leaving: record.leaving, status, now })
    }

    fn finish(self, note: impl IntoIterator<Item = Note>) -> Result<Write, Read> {
        let version = self.v.restore.record()?.version.clone();
        let run = self.status.plan.as_ref().and_then(|plan| plan.run_id.as_ref()?.parse().ok());
        Ok(Write { version, run, status: self.status, notes: note.into_iter().collect() })
    }

    /// The message so far, without what was waited for.
    fn told(&mut self) -> String {
        let told = self.status.message.take().unwrap_or_default();
        let end = QUEUED.iter().filter_map(|queued| told.find(queued)).min();
        told[..end.unwrap_or(told.len())].to_owned()
    }

    fn set(&mut self, kind: ConditionType, status: impl Into<Option<bool>>, reason: Reason, message: &str) {
        let generation = Some(self.v.want.generation);
        condition::set(&mut self.status.conditions, kind, status, reason, message, generation, self.now);
    }

    fn open(&mut self, run: &Run, before: &Journal) -> Option<Note> {
        let plan = &run.deed.plan;
        journal::write(&mut self.status, run, &self.v.want.me, self.v.want.attempt);
        self.status.start_time.get_or_insert(Time(self.now));
        self.status.completion_time = None;
        self.status.original_replicas = i32::try_from(plan.replicas).ok();
        let restored = plan.items.iter().filter_map(|item| Some((item.pvc.clone(), item.snapshot.clone()?)));
        self.status.restored_snapshots = restored.collect();
        let (reason, message) = Self::under_way(run);
        if let Cause::Undo(slot) = &run.cause {
            self.status.last_request = Some(slot.clone());
        }
        self.set(ConditionType::Ready, false, reason, &message);
        self.set(ConditionType::Reconciling, true, reason, &message);
        self.set(ConditionType::Stalled, false, reason, "");
        self.set(ConditionType::Undoable, false, reason, "");
        self.status.message = Some(message.clone());
        let same = matches!(before, Journal::Open(before) if before.cause == run.cause);
        (!same).then_some(Note { warning: reason == Reason::RollingBack, reason, message })
    }

    fn under_way(run: &Run) -> (Reason, String) {
        let count = run.deed.plan.items.len();
        let what = match run.phase {
            RestorePhase::New => format!("making {count} new volumes while the application runs"),
            RestorePhase::ScalingDown => "stopping the pods".to_owned(),
            RestorePhase::Restoring => format!("putting {count} volumes under their claims"),
            _ if run.served && run.goal == Goal::New => "the first pod is Ready, waiting for the others".to_owned(),
            _ => "starting the pods".to_owned(),
        };
        match &run.cause {
            Cause::Asked => {
                let run = run.deed.plan.run.map_or_else(|| "chosen snapshots".to_owned(), |run| format!("run {run}"));
                (Reason::RestoreStarted, format!("Restoring {run}: {what}"))
            }
            Cause::Failed(refusal) => {
                (Reason::RollingBack, format!("Rolling back ({}: {}): {what}", refusal.reason, refusal.message))
            }
            Cause::Undo(_) => (Reason::UndoRequested, format!("Undoing: {what}")),
        }
    }

    /// Nothing more is changed; the journal stays, so that an undo knows all.
    fn held(&mut self, run: &Run, refusal: &Refusal) -> Result<Note, Read> {
        journal::write(&mut self.status, run, &self.v.want.me, self.v.want.attempt);
        let again = retry::may_pass(self.v, refusal);
        if let Some(run) = &mut self.status.run {
            run.try_again = again.then_some(true);
        }
        let (namespace, name) = (&self.v.want.namespace, &self.v.want.name);
        let (what, how) = match (&run.cause, run.goal) {
            (Cause::Undo(_), _) => ("The undo failed: ", "To try it again"),
            (_, Goal::Old) => ("The way back failed: ", "To try it again"),
            _ => ("", "To put the old volumes back"),
        };
        let rest = if again {
            "It is tried again by itself, at most half an hour apart. Until then nothing more is changed"
        } else {
            "Nothing more is changed"
        };
        // What is forbidden may not be looked at either.
        let blind = self.v.refused.as_ref().is_some_and(|refusal| refusal.reason == Reason::Forbidden);
        let lost = if blind { None } else { undo::lost(self.v, &run.deed)? };
        let how = match lost {
            Some((pvc, _, _)) => self.end_it(pvc),
            None if self.leaving => {
                "It is being deleted: the next process tries once more to put the old volumes back".to_owned()
            }
            None => format!("{how}: sts-backup undo {namespace}/{name}"),
        };
        let message = format!(
            "{what}{}: {}. {rest}: sts-backup describe {namespace}/{name} tells which volume is whose. {how}",
            refusal.reason, refusal.message
        );
        self.status.phase = Some(RestorePhase::Failed);
        self.status.completion_time = Some(Time(self.now));
        self.close(false, Reason::Held, &message);
        self.set(ConditionType::Undoable, run.swapped() && lost.is_none() && !self.leaving, Reason::Held, "");
        Ok(Note { warning: true, reason: Reason::RestoreFailed, message: format!("{}: {message}", Reason::Held) })
    }

    /// The old volume of that claim is lost: nothing puts all of them back, neither an undo nor the deletion.
    fn end_it(&self, pvc: &str) -> String {
        let (namespace, name) = (&self.v.want.namespace, &self.v.want.name);
        let place = format!("{}/{}", self.v.want.statefulset_namespace, self.v.want.statefulset);
        let first = if self.leaving {
            format!(
                "To let it go: kubectl -n {namespace} patch statefulsetrestore {name} --type merge -p \
                 '{{\"metadata\":{{\"finalizers\":null}}}}'. The volumes stay, Retained. Then, before another restore"
            )
        } else {
            "To end it as it stands, and then to restore once more".to_owned()
        };
        format!("What claim {pvc} had before cannot be put back. {first}: sts-backup doctor --lift-fence {place}")
    }

    fn close(&mut self, good: bool, reason: Reason, message: &str) {
        self.status.message = Some(message.to_owned());
        self.set(ConditionType::Ready, good, reason, message);
        self.set(ConditionType::Reconciling, false, reason, "");
        self.set(ConditionType::Stalled, !good, reason, if good { "" } else { message });
    }

    fn ended(&mut self, end: &End, before: &Journal) -> Result<Note, Read> {
        let run = match before {
            Journal::Open(run) | Journal::Held(run, _) => Some(run.as_ref()),
            _ => None,
        };
        let keeps = match run {
            // Its object goes: what is kept is kept for people, there will be no release.
            Some(run) if self.leaving && run.goal == Goal::New => false,
            Some(run) => finish::keeps(self.v, run)?,
            None => false,
        };
        let until = keeps.then_some(self.now + self.v.want.restore.undo_window);
        let down = match run.and_then(|run| Some((run, run.down_since?))) {
            Some((run, since)) => Some(finish::up(self.v, run, self.now)?.max(since).duration_since(since)),
            None => None,
        };
        self.status.run = None;
        self.status.completion_time = Some(Time(self.now));
        self.status.start_time.get_or_insert(Time(self.now));
        self.status.undo_deadline = until.map(Time);
        self.status.downtime_seconds = down.map(seconds);
        let (phase, reason, mut message) = self.words(end, run)?;
        if let Some(until) = until {
            let (namespace, name) = (&self.v.want.namespace, &self.v.want.name);
            let kept = match end {
                End::Completed => {
                    format!("{KEPT}{until:.0}: sts-backup undo {namespace}/{name}")
                }
                End::Undone | End::Failed(_) => format!("; the restored ones are kept until {until:.0}"),
            };
            message.push_str(&kept);
        }
        if let Some(run) = run {
            message.push_str(&finish::going(self.v, run)?);
        }
        self.status.phase = Some(phase);
        let good = !matches!(end, End::Failed(_));
        self.close(good, reason, &message);
        self.set(ConditionType::Undoable, keeps && *end == End::Completed, reason, "");
        let event = match (end, run) {
            (End::Failed(_), Some(run)) if run.swapped() && run.goal == Goal::Old => Reason::RolledBack,
            (End::Failed(_), _) => Reason::RestoreFailed,
            _ => reason,
        };
        let message = if good { message } else { format!("{reason}: {message}") };
        Ok(Note { warning: !good, reason: event, message })
    }

    /// What a failed restore has left.
    fn aftermath(run: &Run) -> &'static str {
        match (run.goal, run.reached) {
            (Goal::New, _) => "; the restored volumes stay under the claims, the old ones stay Retained",
            (_, RestorePhase::New | RestorePhase::ScalingDown) if run.down_since.is_none() => {
                ". Nothing was stopped or replaced"
            }
            (_, RestorePhase::New | RestorePhase::ScalingDown) => {
                ". No volume was replaced; what was stopped is started again"
            }
            _ => ". Rolled back: the old volumes are under the claims",
        }
    }

    fn words(&self, end: &End, run: Option<&Run>) -> Result<(RestorePhase, Reason, String), Read> {
        Ok(match end {
            End::Completed => {
                let count = run.map_or(0, |run| run.deed.plan.items.len());
                let of = run.and_then(|run| run.deed.plan.run).map(|id| format!(" of run {id}")).unwrap_or_default();
                let what = if count == 1 { "claim stands" } else { "claims stand" };
                let mut message = format!("{count} {what} on volumes made from the snapshots{of}");
                if self.v.target()?.is_none() {
                    message += "; the StatefulSet does not exist, its claims are made for it";
                }
                (RestorePhase::Completed, Reason::RestoreCompleted, message)
            }
            End::Undone => (RestorePhase::Undone, Reason::Undone, "the old volumes are back under the claims".into()),
            End::Failed(refusal) => {
                let message = format!("{}{}", refusal.message, run.map_or("", Self::aftermath));
                (RestorePhase::Failed, refusal.reason, message)
            }
        })
    }
}
