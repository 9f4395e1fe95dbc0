//! The journal: what cannot be observed again, kept in `status.run` while a run is open. A flow's phase is a
//! journal's variant and is entered by one write, so a fresh process finds itself where the dead one was.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::hook::{HookSpec, Pair, Place};
use super::known::{self, Owner, Snapshots, State};
use super::name::RunId;
use super::noun::{Holder, Open, Outcome, Refusal, Want};
use super::roll::{Entry, Roll};
use crate::api::backup::{LastRun, StatefulSetBackupStatus};
use crate::api::condition::Reason;
use crate::api::shared::{self, Consistency, FrozenPod, Intent, IntentPhase, RecordedHook, RunStatus};

/// A hook has no longer, in seconds.
const TIMEOUT_MAX: i64 = 86_400;

/// Freezes of a run that may come to nothing, whatever they came to nothing by, before it is given up: each one costs the
/// application a pause, and the storage its snapshots.
pub const FREEZES: usize = 3;

/// After the first of them.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// Of what earlier versions did not say.
const INTERRUPTED: &str = "it was interrupted before all of it was cut";

/// Our object as last read or written: the journal, and the status that every write sends as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// resourceVersion: the precondition of the next write.
    pub version: String,
    pub uid: String,
    pub leaving: bool,
    pub finalizers: Vec<String>,
    pub status: StatefulSetBackupStatus,
    /// The open run, if any: the slot and attempt that it was begun for.
    pub open: Option<(String, i64)>,
    pub journal: Journal,
}

/// Where a backup is. Each variant holds what its phase needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Journal {
    /// Nothing is at stake.
    Idle,
    /// Since before the first snapshot: this id may name snapshots.
    Frozen(Freeze),
    /// All of this id was cut under one epoch of the Lease.
    Cut(Cut),
    /// All of its id that was made under its epoch is partial and goes.
    Void(Voided),
    /// The slot that we were asked for has its outcome.
    Closed(Outcome),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Freeze {
    pub id: RunId,
    pub holder: Holder,
    pub epoch: i64,
    pub since: Timestamp,
    /// How many snapshots make it complete.
    pub size: usize,
    /// What is frozen or may be, in the order of the ordinals; none without hooks.
    pub pods: Vec<Place>,
    /// As they were when it began; none: not recorded.
    pub hooks: Option<Pair>,
    /// Freezes of this run before it that came to nothing.
    pub void_before: usize,
}

impl Freeze {
    /// It came to nothing.
    pub fn void(&self, why: Void, now: Timestamp) -> Journal {
        let count = self.void_before.saturating_add(1);
        Journal::Void(Voided { id: self.id, epoch: self.epoch, since: now, count, why })
    }
}

/// A freeze that came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Voided {
    pub id: RunId,
    /// 0 in what older versions wrote.
    pub epoch: i64,
    /// When this was written.
    pub since: Timestamp,
    /// Freezes of this run that came to nothing, this one among them.
    pub count: usize,
    pub why: Void,
}

impl Voided {
    /// The pause before the next freeze: it doubles.
    pub fn pause(&self) -> SignedDuration {
        PAUSE * (1 << self.count.saturating_sub(1).min(FREEZES))
    }

    /// When so much time will have passed since; none: it has. An instant that lies further ahead than it can was written
    /// by a wrong clock.
    pub fn within(&self, span: SignedDuration, now: Timestamp) -> Option<Timestamp> {
        let until = self.since.saturating_add(span).ok()?;
        (now < until && until.duration_since(now) <= span * 2).then_some(until)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    pub id: RunId,
    pub epoch: i64,
    /// When this was written: the wait for readiness counts from here, by the runner's clock.
    pub since: Timestamp,
    pub size: usize,
    pub consistency: Consistency,
    /// Which claims, and which snapshots of them; none in what older versions wrote.
    pub entry: Option<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Void {
    /// Nobody's fault: begin again under a later id. What happened, as a sentence.
    Interrupted(String),
    Failed(Refusal),
}

/// Years of room for what is added to an instant, on both sides.
const ROOM: SignedDuration = SignedDuration::from_hours(1000 * 366 * 24);

/// A time that anybody may have written, so far from the ends of the calendar that what is added to it does not leave it.
pub fn instant(time: &Time) -> Timestamp {
    time.0.clamp(Timestamp::MIN + ROOM, Timestamp::MAX - ROOM)
}

/// Reads the journal from the status. A run that lacks what its phase needs (a hand-edited status) counts as
/// interrupted before anything was recorded: whatever bears its id goes, and no id is reused.
pub fn read(status: &StatefulSetBackupStatus, slot: &str) -> Journal {
    match status.run.as_ref().map(open) {
        Some(Some(journal)) => journal,
        _ => closed(status, slot).map_or(Journal::Idle, Journal::Closed),
    }
}

fn open(run: &RunStatus) -> Option<Journal> {
    let id: RunId = run.id.as_deref()?.parse().ok()?;
    let intent = run.intent.as_ref()?;
    let since = instant(intent.since.as_ref()?);
    let size = usize::try_from(intent.size).ok()?;
    let count = usize::try_from(intent.void_freezes).unwrap_or_default();
    let (epoch, holder) = (intent.epoch, Holder(run.holder.clone()?));
    Some(match intent.phase {
        IntentPhase::Frozen => {
            let pods = intent.pods.iter().map(place).collect();
            Journal::Frozen(Freeze { id, holder, epoch, since, size, pods, hooks: hooks(intent), void_before: count })
        }
        IntentPhase::Cut => {
            let consistency = intent.consistency.unwrap_or(Consistency::CrashPerVolume);
            let entry = intent.record.as_deref().and_then(Entry::read);
            Journal::Cut(Cut { id, epoch, since, size, consistency, entry })
        }
        IntentPhase::Void | IntentPhase::Unknown => {
            let why = match (intent.reason, intent.message.clone()) {
                (Some(reason), message) => Void::Failed(Refusal { reason, message: message.unwrap_or_default() }),
                (None, message) => Void::Interrupted(message.unwrap_or_else(|| INTERRUPTED.to_owned())),
            };
            Journal::Void(Voided { id, epoch, since, count: count.max(1), why })
        }
    })
}

/// The status of a run without an object, as the Lease and the snapshots tell it: a freeze stands in the open mark;
/// a run that was proved says so on its snapshots, and goes on if some of them lack the word; one that was not is void.
/// A mark may have been written by others: it tells of a freeze and of nothing else, and never with what to thaw it.
pub fn recover(
    open: Option<&Open>,
    snapshots: &Snapshots,
    roll: &Roll,
    want: &Want,
    now: Timestamp,
) -> StatefulSetBackupStatus {
    let marked = open.filter(|open| open.is_of(want)).and_then(|open| frozen_run(open.journal.as_deref()?));
    let run = marked.or_else(|| {
        let ours = |run: &known::Run| run.maker.owner(want) == Owner::Own && run.maker.uid == want.uid;
        let newest = known::runs(snapshots, Some(roll)).into_iter().rfind(ours)?;
        let (_, first) = newest.snapshots.first()?;
        let (id, epoch, size) = (newest.id, first.epoch?, first.size?);
        let journal = match (newest.state, newest.record) {
            // It was proved, and died before it said so on all of its snapshots.
            (State::Complete | State::Uploading, known::Record::Own) | (State::Sealing, known::Record::None)
                if newest.sealed() < newest.snapshots.len() =>
            {
                let entry = roll.entry(&want.uid, id).cloned();
                let consistency = match &entry {
                    Some(entry) if entry.frozen => Consistency::Frozen,
                    Some(_) => Consistency::CrashPerVolume,
                    None => newest.consistency(),
                };
                Journal::Cut(Cut { id, epoch, since: now, size, consistency, entry })
            }
            (State::Broken, known::Record::None) if newest.sealed() == 0 => {
                let since = newest.snapshots.iter().map(|(_, one)| one.created).max().unwrap_or(now);
                Journal::Void(Voided { id, epoch, since, count: 1, why: Void::Interrupted(INTERRUPTED.to_owned()) })
            }
            _ => return None,
        };
        write(&journal, &want.slot, want.attempt, &want.me)
    });
    let last_run = run.as_ref().map(|run| LastRun {
        id: run.id.clone(),
        slot: run.slot.clone(),
        attempt: run.attempt,
        trigger: Some(want.backup.trigger),
        consistency: run.intent.as_ref().and_then(|intent| intent.consistency),
        ..LastRun::default()
    });
    StatefulSetBackupStatus { run, last_run, ..StatefulSetBackupStatus::default() }
}

fn frozen_run(run: &RunStatus) -> Option<RunStatus> {
    let intent = run.intent.as_ref().filter(|intent| intent.phase == IntentPhase::Frozen)?;
    let intent = Some(Intent { pre_hook: None, post_hook: None, ..intent.clone() });
    Some(RunStatus { intent, ..run.clone() })
}

fn closed(status: &StatefulSetBackupStatus, slot: &str) -> Option<Outcome> {
    let last = status.last_run.as_ref().filter(|last| last.slot.as_deref() == Some(slot))?;
    let refusal = || Refusal {
        reason: last.reason.unwrap_or(Reason::JobLost),
        message: status.message.clone().unwrap_or_default(),
    };
    Some(match last.outcome? {
        shared::Outcome::Succeeded => Outcome::Succeeded,
        shared::Outcome::Superseded => Outcome::Superseded(refusal()),
        _ => Outcome::Failed(refusal()),
    })
}

/// The journal of an open run as `status.run` holds it; `Idle` and `Closed` hold nothing open.
pub fn write(journal: &Journal, slot: &str, attempt: i64, holder: &Holder) -> Option<RunStatus> {
    let (id, intent) = match journal {
        Journal::Idle | Journal::Closed(_) => return None,
        Journal::Frozen(f) => {
            let pods = f.pods.iter().map(frozen).collect();
            let hooks = f.hooks.clone().unwrap_or_default();
            let (pre_hook, post_hook) = (hooks.pre.as_ref().map(recorded), hooks.post.as_ref().map(recorded));
            let begun = intent(IntentPhase::Frozen, f.epoch, f.since, f.size);
            (f.id, Intent { pods, pre_hook, post_hook, void_freezes: number(f.void_before), ..begun })
        }
        Journal::Cut(cut) => {
            let consistency = Some(cut.consistency);
            let record = cut.entry.as_ref().map(Entry::text);
            (cut.id, Intent { consistency, record, ..intent(IntentPhase::Cut, cut.epoch, cut.since, cut.size) })
        }
        Journal::Void(void) => {
            let mut intent = intent(IntentPhase::Void, void.epoch, void.since, 0);
            intent.void_freezes = number(void.count);
            let (reason, message) = match &void.why {
                Void::Failed(refusal) => (Some(refusal.reason), &refusal.message),
                Void::Interrupted(why) => (None, why),
            };
            (intent.reason, intent.message) = (reason, Some(message.clone()));
            (void.id, intent)
        }
    };
    Some(RunStatus {
        id: Some(id.to_string()),
        slot: Some(slot.to_owned()),
        attempt: i32::try_from(attempt).ok(),
        holder: Some(holder.0.clone()),
        intent: Some(intent),
        ..RunStatus::default()
    })
}

fn intent(phase: IntentPhase, epoch: i64, since: Timestamp, size: usize) -> Intent {
    Intent { phase, epoch, since: Some(Time(since)), size: number(size), ..Intent::default() }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A freeze of pods has at least one hook: a record without any was written by a version that did not record them.
fn hooks(intent: &Intent) -> Option<Pair> {
    let pair = Pair { pre: intent.pre_hook.as_ref().map(hook), post: intent.post_hook.as_ref().map(hook) };
    (!pair.is_empty()).then_some(pair)
}

fn hook(hook: &RecordedHook) -> HookSpec {
    let timeout = SignedDuration::from_secs(hook.timeout_seconds.clamp(1, TIMEOUT_MAX));
    HookSpec { argv: hook.command.clone(), container: None, timeout }
}

fn recorded(hook: &HookSpec) -> RecordedHook {
    RecordedHook { command: hook.argv.clone(), timeout_seconds: hook.timeout.as_secs() }
}

fn place(pod: &FrozenPod) -> Place {
    Place {
        ordinal: u32::try_from(pod.ordinal).unwrap_or_default(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        container: pod.container.clone(),
        container_id: pod.container_id.clone(),
        restarts: pod.restart_count,
    }
}

fn frozen(place: &Place) -> FrozenPod {
    FrozenPod {
        ordinal: i32::try_from(place.ordinal).unwrap_or(i32::MAX),
        name: place.pod.clone(),
        uid: place.uid.clone(),
        container: place.container.clone(),
        container_id: place.container_id.clone(),
        restart_count: place.restarts,
    }
}
