//! What a StatefulSetRestore needs next: its run, which ends only by its own end; an undo that was asked for; the
//! release of the old volumes at their time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::entry::{Job, Object, Owned, Restore, State, Uid};
use super::pace::{Mark, Pace, Question, backoff_of_held};
use super::{Choice, Now, Wake, What};
use crate::api::FORMAT;
use crate::api::condition::Reason;
use crate::api::restore::RestorePhase;
use crate::api::shared::Trigger;
use crate::plan::job::{Kind, Run};
use crate::plan::report::Note;

/// A restore does not roll back when it is told to stop: its retry goes on.
const GRACE: i64 = 30;
/// What could not be released is looked at again after a day.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The object, what it says, and its Jobs.
pub(super) struct Case<'a> {
    pub uid: Uid,
    pub o: &'a Object,
    pub r: &'a Restore,
    pub jobs: &'a [Job],
    /// Since when it has waited for a place.
    pub wanting: Option<Timestamp>,
}

pub(super) fn decide(case: &Case, pace: &mut Pace, now: Now) -> Choice {
    let r = case.r;
    if let Some(format) = &r.unread {
        return Choice::Bad(format!(
            "its plan has format {format:?}, and this version reads only {FORMAT:?}: install the version that wrote it, or a \
             newer one"
        ));
    }
    let request = case.handled().or(r.owned.request.as_deref());
    if request != r.owned.request.as_deref() {
        return Choice::Act(What::Status(Owned { request: request.map(Into::into), ..r.owned.clone() }));
    }
    if !r.is_over() {
        if case.o.leaving.is_some() && !case.o.held {
            return Choice::Rest(Wake::default());
        }
        if r.is_held() && case.o.leaving.is_none() {
            if let Some(value) = case.undo().map(ToOwned::to_owned) {
                return case.go_on(pace, Kind::Undo, &value, now);
            }
            if !r.try_again {
                return Choice::Rest(Wake::default());
            }
        }
        let (kind, slot) = case.open();
        return case.go_on(pace, kind, &slot, now);
    }
    if let Some(value) = case.undo() {
        return case.go_on(pace, Kind::Undo, value, now);
    }
    match case.release(now) {
        Some(slot) if slot <= now.wall => {
            let text = slot.to_string();
            let done = |job: &Job| matches!(job.state, State::Succeeded | State::Failed { refused: true });
            if !pace.is_hurried() && case.of(Kind::Release, &text).any(done) {
                return Choice::Rest(Wake { wall: slot.checked_add(DAY).ok(), tick: None });
            }
            case.go_on(pace, Kind::Release, &text, now)
        }
        wall => Choice::Rest(Wake { wall, tick: None }),
    }
}

impl Case<'_> {
    fn of<'a>(&'a self, kind: Kind, slot: &'a str) -> impl Iterator<Item = &'a Job> {
        self.jobs.iter().filter(move |job| job.is_for(kind, slot))
    }

    /// What the open run is: an undo has a slot and a plan of its own.
    fn open(&self) -> (Kind, String) {
        let slot = self.r.run.as_ref().map(|run| run.slot.to_string()).filter(|slot| !slot.is_empty());
        let undo = slot.or_else(|| self.r.undo.as_ref().filter(|_| self.r.undoing).map(ToString::to_string));
        undo.map_or((Kind::Restore, String::new()), |slot| (Kind::Undo, slot))
    }

    /// The request for an undo that has been answered: begun, done, or refused for good. While another is under way, by
    /// hand, the runner says which that is.
    fn handled(&self) -> Option<&str> {
        let under_way = |run: &&super::entry::OpenRun| !run.slot.is_empty() && !self.r.is_held();
        let other = self.r.run.as_ref().filter(under_way).is_some_and(|run| self.r.undo.as_deref() != Some(&*run.slot));
        let value = self.r.undo.as_deref().filter(|_| !other)?;
        let begun = self.r.run.as_ref().is_some_and(|run| *run.slot == *value);
        let ended = |job: &Job| matches!(job.state, State::Succeeded | State::Failed { refused: true });
        let undone = self.r.phase == Some(RestorePhase::Undone);
        (begun || undone || self.of(Kind::Undo, value).any(ended)).then_some(value)
    }

    fn undo(&self) -> Option<&str> {
        let value = self.r.undo.as_deref().filter(|value| self.r.owned.request.as_deref() != Some(value));
        value.filter(|_| self.o.leaving.is_none())
    }

    /// The newest instant at which the old volumes were to be released, or the first.
    fn release(&self, now: Now) -> Option<Timestamp> {
        let first = self.o.leaving.or(self.r.undo_deadline).filter(|_| self.o.held)?;
        let days = now.wall.duration_since(first).as_secs() / DAY.as_secs();
        first.checked_add(DAY.checked_mul(i32::try_from(days.max(0)).ok()?)?).ok()
    }

    /// The next attempt at this run, if nobody is at it.
    fn go_on(&self, pace: &mut Pace, kind: Kind, slot: &str, now: Now) -> Choice {
        let known = self.of(kind, slot).map(|job| job.attempt).max();
        let told = self.r.run.as_ref().filter(|run| *run.slot == *slot).map(|run| run.attempt);
        let highest = known.max(told);
        let attempt = highest.unwrap_or(0).saturating_add(1);
        let active = self.jobs.iter().any(Job::is_active);
        let mark = Mark::of(kind, slot);
        if highest.is_none() && !active {
            let begin = pace.begin_at(mark);
            if begin <= now.tick {
                return self.launch(kind, slot, 1, now);
            }
            return Choice::Rest(Wake { wall: None, tick: Some(begin) });
        }
        let kin = format!("restore/{}/{}/", self.o.namespace, self.o.name);
        // Of what is Held each attempt beyond the one that has left it so was in vain.
        let vain = told.filter(|_| self.r.is_held() && self.o.leaving.is_none());
        let patience = vain.map_or(Duration::ZERO, |told| backoff_of_held(highest.unwrap_or(told) - told));
        let question = Question { run: mark, active, frozen: false, attempt, patience, kin: &kin };
        Choice::turn(pace.take_over(&question, now.tick), || self.launch(kind, slot, attempt, now))
    }

    /// What has begun is gone on with at once: the application may be down. All else needs a place.
    fn launch(&self, kind: Kind, slot: &str, attempt: u32, now: Now) -> Choice {
        let message = format!("{kind} is open and its Job has ended or is gone: attempt {attempt} takes it up");
        let note = (attempt > 1).then_some(Note { warning: true, reason: Reason::JobLost, message });
        let run = Run {
            kind,
            namespace: self.o.namespace.to_string(),
            name: self.o.name.to_string(),
            uid: self.uid.to_string(),
            statefulset: self.o.statefulset.to_string(),
            slot: slot.to_owned(),
            attempt,
            trigger: Trigger::Manual,
            grace_seconds: GRACE,
            deadline_seconds: None,
        };
        let (run, begun) = (Box::new(run), self.r.run.as_ref().is_some_and(|run| *run.slot == *slot));
        if begun {
            return Choice::Act(What::Launch { run, note });
        }
        let order = match kind {
            Kind::Restore => self.o.created,
            _ => self.wanting.or(slot.parse().ok().filter(|_| kind == Kind::Release)).unwrap_or(now.wall),
        };
        Choice::Place { order, run, note }
    }
}
