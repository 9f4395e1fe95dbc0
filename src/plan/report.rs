//! What people and machines read of a run: the status that goes with each step of the journal, and the Events.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::journal::{self, Cut, FREEZES, Journal, Void, Voided};
use super::name::RunId;
use super::noun::{Outcome, Snap};
use super::prune;
use super::view::{Read, View};
use crate::api::backup::{BackupPhase, HistoryEntry, LastRun, SnapshotStatus, StatefulSetBackupStatus};
use crate::api::condition::{self, ConditionType, Reason};
use crate::api::shared;

/// How many runs `status.history` holds.
const HISTORY: usize = 10;

/// One write of the journal: the whole status as the runner owns it, and what is told beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The resourceVersion that it was decided on.
    pub version: String,
    pub run: Option<RunId>,
    pub status: StatefulSetBackupStatus,
    pub notes: Vec<Note>,
}

/// An Event on the object and on the `StatefulSet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub warning: bool,
    pub reason: Reason,
    pub message: String,
}

/// The same journal; what its run waits for.
pub fn complains(v: &View, message: String, now: Timestamp) -> Result<Write, Read> {
    let record = v.record()?;
    let mut status = own(&record.status);
    let mut scribe = Scribe { v, status: &mut status, slot: v.want.slot.clone(), attempt: v.want.attempt, now };
    scribe.under_way(message);
    let run = status.run.as_ref().and_then(|run| run.id.as_ref()?.parse().ok());
    Ok(Write { version: record.version.clone(), run, status, notes: vec![] })
}

/// Without what is the watcher's: what we do not send we do not own.
fn own(status: &StatefulSetBackupStatus) -> StatefulSetBackupStatus {
    let mut status = StatefulSetBackupStatus {
        managed_by: None,
        next_schedule_time: None,
        last_schedule_time: None,
        last_request: None,
        ..status.clone()
    };
    condition::leave_out_waiting(&mut status.conditions);
    status
}

pub fn write(v: &View, journal: &Journal, now: Timestamp) -> Result<Write, Read> {
    let record = v.record()?;
    let mut status = own(&record.status);
    let (slot, attempt) = match &record.open {
        Some((slot, attempt)) if !matches!(journal, Journal::Frozen(_)) => (slot.clone(), *attempt),
        _ => (v.want.slot.clone(), v.want.attempt),
    };
    let mut scribe = Scribe { v, status: &mut status, slot: slot.clone(), attempt, now };
    let notes = match journal {
        Journal::Idle => vec![],
        Journal::Frozen(f) => vec![scribe.begun(f.id, f.size)],
        Journal::Cut(cut) => scribe.cut(cut)?.into_iter().collect(),
        Journal::Void(void) => {
            scribe.void(void);
            vec![]
        }
        Journal::Closed(outcome) => scribe.closed(outcome)?,
    };
    status.run = journal::write(journal, &slot, attempt, &v.want.me);
    let run = status.last_run.as_ref().and_then(|last| last.id.as_ref()?.parse().ok());
    Ok(Write { version: record.version.clone(), run, status, notes })
}

/// For status: to the millisecond.
pub fn seconds(span: SignedDuration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}

struct Scribe<'a> {
    v: &'a View,
    status: &'a mut StatefulSetBackupStatus,
    slot: String,
    attempt: i64,
    now: Timestamp,
}

impl Scribe<'_> {
    /// The entry of our run; a new one unless it has been begun already.
    fn last_run(&mut self) -> &mut LastRun {
        let same = |last: &LastRun| last.slot.as_deref() == Some(&self.slot) && last.outcome.is_none();
        if !self.status.last_run.as_ref().is_some_and(same) {
            self.status.last_run = Some(LastRun {
                slot: Some(self.slot.clone()),
                trigger: Some(self.v.want.backup.trigger),
                start_time: Some(Time(self.now)),
                ..LastRun::default()
            });
            self.status.last_attempt_time = Some(Time(self.now));
        }
        let (attempt, job) = (i32::try_from(self.attempt).ok(), self.v.want.job.clone());
        let last = self.status.last_run.get_or_insert_default();
        last.attempt = attempt;
        last.job_name = job;
        last
    }

    fn set(&mut self, kind: ConditionType, status: impl Into<Option<bool>>, reason: Reason, message: &str) {
        let generation = Some(self.v.want.generation);
        condition::set(&mut self.status.conditions, kind, status, reason, message, generation, self.now);
    }

    /// A run is under way; whether the newest finished one was good, `Ready` goes on saying.
    fn under_way(&mut self, message: String) {
        self.status.phase = Some(BackupPhase::InProgress);
        if condition::get(&self.status.conditions, ConditionType::Ready).is_none() {
            self.set(ConditionType::Ready, None, Reason::BackupStarted, "no run has ended yet");
        }
        self.set(ConditionType::Reconciling, true, Reason::BackupStarted, &message);
        self.set(ConditionType::Stalled, false, Reason::BackupStarted, "");
        self.status.message = Some(message);
    }

    fn begun(&mut self, id: RunId, size: usize) -> Note {
        let again = self.last_run().id.replace(id.to_string()).is_some();
        let what = if again { "Backing up once more" } else { "Backing up" };
        let (volumes, of) = (count(size, "volume"), target(self.v));
        let message = format!("{what}: run {id}, {volumes} of StatefulSet {of}{}", self.left_out());
        self.under_way(message.clone());
        Note { warning: false, reason: Reason::BackupStarted, message }
    }

    fn cut(&mut self, cut: &Cut) -> Result<Option<Note>, Read> {
        let id = cut.id;
        let run: Vec<_> = self.v.run(id)?.collect();
        let cuts: Vec<Timestamp> = run.iter().filter_map(|(_, snap)| self.v.cut(snap)).collect();
        let skew = cuts.iter().min().zip(cuts.iter().max()).map(|(first, last)| last.duration_since(*first));
        let snapshots = snapshots(self.v, &run);
        let frozen = self.v.hooks.frozen(id);
        let last = self.last_run();
        last.skew_seconds = skew.map(seconds);
        last.consistency = Some(cut.consistency);
        last.freeze_seconds = frozen.map(seconds);
        last.snapshots = snapshots;
        let size = count(run.len(), "volume");
        self.under_way(format!("Run {id}: {size} cut, waiting until the snapshots are ready"));
        Ok(frozen.map(|frozen| Note {
            warning: false,
            reason: Reason::Thawed,
            message: format!("Run {id}: {size} cut and every pod thawed after {:.1} s", frozen.as_secs_f64()),
        }))
    }

    fn void(&mut self, void: &Voided) {
        let id = void.id;
        let message = match (&void.why, void.within(void.pause(), self.now)) {
            (Void::Interrupted(why), Some(until)) => {
                let pause = void.pause().as_secs();
                let next = void.count.saturating_add(1);
                format!(
                    "Run {id} is void: {why}. Nothing is frozen now; its snapshots are deleted, and at {until:.0}, after a \
                     pause of {pause} s, the run begins again (try {next} of {FREEZES})"
                )
            }
            (Void::Interrupted(why), None) => format!("Run {id} is void ({why}): deleting its snapshots"),
            (Void::Failed(refusal), _) => format!("Run {id} is void ({}): deleting its snapshots", refusal.message),
        };
        self.last_run();
        self.under_way(message);
    }

    fn closed(&mut self, outcome: &Outcome) -> Result<Vec<Note>, Read> {
        let id: Option<RunId> = self.last_run().id.as_ref().and_then(|id| id.parse().ok());
        let run: Vec<_> = match id {
            Some(id) => self.v.run(id)?.filter(|(_, snap)| !snap.leaving).collect(),
            None => vec![],
        };
        let cut = run.iter().filter_map(|(_, snap)| self.v.cut(snap)).max();
        let told = match (outcome, id) {
            (Outcome::Succeeded, Some(id)) => Some(prune::told(self.v, id)?),
            _ => None,
        };
        // What had to make room for it.
        let room = prune::dropped(self.v).filter(|_| matches!(outcome, Outcome::Failed(_)));
        let (now, snapshots) = (self.now, snapshots(self.v, &run));
        let last = self.last_run();
        last.completion_time = Some(Time(now));
        last.snapshots = snapshots;
        let mut notes = vec![];
        let (reason, message) = match outcome {
            Outcome::Succeeded => {
                last.outcome = Some(shared::Outcome::Succeeded);
                let of = id.map(|id| format!("Run {id}: ")).unwrap_or_default();
                let mut message = format!("{of}{} ready", count(run.len(), "snapshot"));
                if let Some(told) = &told {
                    notes.extend(pruning(told, &of));
                    let all = told.dropped.iter().chain(&told.skipped).chain(&told.remarks);
                    all.for_each(|more| message.extend(["; ", more]));
                }
                (Reason::BackupCompleted, message)
            }
            Outcome::Failed(refusal) => {
                last.outcome = Some(shared::Outcome::Failed);
                let tail = room.as_ref().map(|room| format!("; {room} to make room for it")).unwrap_or_default();
                notes.extend(room.map(|message| Note { warning: false, reason: Reason::RunsPruned, message }));
                (refusal.reason, refusal.message.clone() + &tail)
            }
            Outcome::Superseded(refusal) => {
                last.outcome = Some(shared::Outcome::Superseded);
                (refusal.reason, refusal.message.clone())
            }
        };
        last.reason = Some(reason);
        let good = *outcome == Outcome::Succeeded;
        self.remember(cut);
        if matches!(outcome, Outcome::Superseded(_)) {
            // A run that was never begun says nothing of the state of the backups.
            self.status.message = Some(message.clone());
            return Ok(vec![Note { warning: true, reason, message }]);
        }
        let message = if good { message + &self.left_out() } else { message };
        if good {
            self.status.last_backup_time = cut.map(Time);
        }
        self.status.phase = Some(if good { BackupPhase::Ready } else { BackupPhase::Failed });
        self.status.message = Some(message.clone());
        self.set(ConditionType::Ready, good, reason, &message);
        self.set(ConditionType::Reconciling, false, reason, "");
        self.set(ConditionType::Stalled, !good, reason, if good { "" } else { &message });
        let event = if good { Reason::BackupCompleted } else { Reason::BackupFailed };
        let message = if good { message } else { format!("{reason}: {message}") };
        notes.push(Note { warning: !good, reason: event, message });
        Ok(notes)
    }

    /// A warning: what the pods mount and no backup of the StatefulSet has in it.
    fn left_out(&self) -> String {
        let outside = self.v.target().ok().flatten().map_or(&[][..], |target| &target.outside);
        if outside.is_empty() {
            return String::new();
        }
        let (these, are) = if outside.len() == 1 { ("claim", "is") } else { ("claims", "are") };
        let names = outside.join(", ");
        format!(" (warning: {these} {names}, which the pods mount outside volumeClaimTemplates, {are} not part of it)")
    }

    /// Puts the run that has ended in front of the history.
    fn remember(&mut self, cut: Option<Timestamp>) {
        let Some(last) = &self.status.last_run else { return };
        let entry = HistoryEntry {
            id: last.id.clone().unwrap_or_default(),
            outcome: last.outcome,
            reason: last.reason,
            start_time: last.start_time.clone(),
            cut_time: cut.map(Time),
            freeze_seconds: last.freeze_seconds,
            snapshots: i32::try_from(last.snapshots.len()).ok(),
        };
        self.status.history.insert(0, entry);
        self.status.history.truncate(HISTORY);
    }
}

/// What retention did, or why it did nothing.
fn pruning(told: &prune::Told, of: &str) -> Vec<Note> {
    let dropped = |message: &String| Note { warning: false, reason: Reason::RunsPruned, message: message.clone() };
    let skipped =
        |why: &String| Note { warning: true, reason: Reason::RetentionSkipped, message: format!("{of}{why}") };
    told.dropped.iter().map(dropped).chain(told.skipped.iter().map(skipped)).collect()
}

fn snapshots(v: &View, run: &[(&String, &Snap)]) -> Vec<SnapshotStatus> {
    let mut run = run.to_vec();
    run.sort_by(|(_, a), (_, b)| a.claim.cmp(&b.claim));
    let status = |(name, snap): (&String, &Snap)| SnapshotStatus {
        name: name.clone(),
        pvc_name: Some(snap.claim.pvc(&v.want.statefulset)),
        ordinal: i32::try_from(snap.claim.ordinal).ok(),
        claim_template: Some(snap.claim.template.clone()),
        ready_to_use: Some(snap.ready),
        restore_size: snap.restore_size.clone().map(Quantity),
        creation_time: v.cut(snap).map(Time),
    };
    run.into_iter().map(status).collect()
}

fn target(v: &View) -> String {
    format!("{}/{}", v.want.statefulset_namespace, v.want.statefulset)
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
