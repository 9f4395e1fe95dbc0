//! What a StatefulSetBackup needs next: its open run taken up, a run for a slot or a request begun, its status told,
//! an old Job pruned.
//!
//! A slot is remembered by status alone: `lastScheduleTime` says that its Job was made, and while `nextScheduleTime`
//! stays at it, too, nobody has seen the run begin. So no slot runs twice and none is forgotten, whichever Jobs and
//! whichever watchers come and go.

use std::cell::OnceCell;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::doubt::doubt;
use super::entry::{Job, Last, Object, Owned, Policy, Stage, State, Uid, is_clock};
use super::pace::{Mark, Pace, Question};
use super::verdict::{self, Verdict};
use super::{Choice, Context, Now, Wake, What};
use crate::api::backup::TIME_ZONE;
use crate::api::condition::Reason;
use crate::api::shared::{Outcome, Trigger};
use crate::plan::job::{Kind, Run};
use crate::plan::report::Note;
use crate::plan::schedule::{self, Decision, Schedule};

/// How long a run waits for the lock where neither startingDeadlineSeconds nor a schedule says it.
const PATIENCE: i64 = 3600;
/// What a run may take beside all that has a limit of its own.
const SLACK: i64 = 600;
/// A first slot is not late before that: clocks differ, and watches take their time.
const FIRST_GRACE: i64 = 10;

/// The object, what it says, and its Jobs.
struct Case<'a> {
    c: &'a Context,
    uid: Uid,
    o: &'a Object,
    p: &'a Policy,
    jobs: &'a [Job],
    wall: Timestamp,
    schedule: Option<Schedule>,
    /// What the schedule says, once it was asked.
    decision: OnceCell<Option<Decision>>,
}

/// What a decision is made on.
pub(super) struct Given<'a> {
    pub c: &'a Context,
    pub uid: Uid,
    pub o: &'a Object,
    pub p: &'a Policy,
    pub jobs: &'a [Job],
    /// Since when it has waited for a place, if it does because somebody asked.
    pub wanting: Option<Timestamp>,
}

/// A run without an outcome.
struct Open {
    slot: String,
    /// The highest attempt that is known of.
    attempt: u32,
    trigger: Trigger,
    stage: Stage,
    /// Whoever takes it up may have to thaw: that waits for no place.
    begun: bool,
}

pub(super) fn decide(g: &Given, pace: &mut Pace, now: Now) -> Choice {
    let (schedule, problem) = match g.p.schedule.as_deref() {
        None => (None, None),
        Some(text) => match Schedule::parse(text, g.p.time_zone.as_deref().unwrap_or(TIME_ZONE)) {
            Ok(schedule) => (Some(schedule), None),
            Err(why) => (None, Some(why.to_string())),
        },
    };
    let problem = g.p.problem.as_deref().map(ToOwned::to_owned).or(problem);
    let case =
        Case { c: g.c, uid: g.uid, o: g.o, p: g.p, jobs: g.jobs, wall: now.wall, schedule, decision: OnceCell::new() };
    let open = case.open();
    let owned = case.owned(now);
    let frozen = open.as_ref().is_some_and(|open| open.stage == Stage::Frozen);
    // A write of ours in a freeze would make the runner's next one a conflict.
    if owned != g.p.owned && !frozen {
        return Choice::Act(What::Status(owned));
    }
    if let Some(open) = open {
        let kin = case.o.kin();
        let question = case.question(&open, &kin);
        return Choice::turn(pace.take_over(&question, now.tick), || case.take_over(&open, g.wanting, now));
    }
    pace.closed();
    if case.is_active() {
        return Choice::Rest(Wake::default());
    }
    if let Some(job) = case.surplus() {
        let name = job.name(case.o, g.uid);
        return Choice::Act(What::Prune { name, job: job.uid });
    }
    if let Some(problem) = problem {
        return Choice::Bad(problem);
    }
    if let Some(verdict) = case.verdict(now) {
        return Choice::Act(What::Judge(Box::new(verdict)));
    }
    case.begin(g.wanting, pace, now)
}

impl Case<'_> {
    fn is_active(&self) -> bool {
        self.jobs.iter().any(Job::is_active)
    }

    fn of<'a>(&'a self, slot: &'a str) -> impl Iterator<Item = &'a Job> {
        self.jobs.iter().filter(move |job| job.is_for(Kind::Backup, slot))
    }

    fn attempt(&self, slot: &str, known: u32) -> u32 {
        self.of(slot).map(|job| job.attempt).max().unwrap_or(1).max(known)
    }

    fn last(&self) -> Option<&Last> {
        self.p.last.as_deref()
    }

    /// The slot of the newest run, if the clock asked for it.
    fn last_clock(&self) -> Option<Timestamp> {
        let slot = self.last().filter(|last| is_clock(last.trigger))?.slot.parse().ok();
        slot.filter(|slot| doubt(self.o, *slot, self.wall).is_none())
    }

    /// status.lastScheduleTime, if it can be true.
    fn told(&self) -> Option<Timestamp> {
        self.p.owned.last.filter(|last| doubt(self.o, *last, self.wall).is_none())
    }

    /// The newest slot of the clock that has its Job or its run, by all that shows it.
    fn served(&self) -> Option<Timestamp> {
        let made = self.jobs.iter().filter(|job| job.kind == Kind::Backup && is_clock(job.trigger));
        let made = made.filter_map(|job| job.slot.parse().ok()).max();
        self.told().max(self.last_clock()).max(made)
    }

    /// The slot whose Job was made and whose run nobody has seen begin.
    fn pending(&self) -> Option<Timestamp> {
        let slot = self.served()?;
        let seen = self.told().is_some_and(|last| last >= slot) && self.p.owned.next != Some(slot);
        let begun = self.last_clock().is_some_and(|last| last >= slot);
        let done = self.of(&slot.to_string()).any(|job| job.state == State::Succeeded);
        (!seen && !begun && !done).then_some(slot)
    }

    /// The request that is not handled yet.
    fn request(&self) -> Option<&str> {
        let value = self.p.request.as_deref()?;
        let handled = self.p.owned.request.as_deref() == Some(value)
            || self.last().is_some_and(|last| *last.slot == *value)
            || self.of(value).any(|job| job.state == State::Succeeded);
        (!handled).then_some(value)
    }

    fn open(&self) -> Option<Open> {
        let last = self.last();
        let same = |slot: &str| last.filter(|last| *last.slot == *slot);
        if let Some(run) = &self.p.run {
            let trigger = same(&run.slot).map_or(Trigger::Command, |last| last.trigger);
            let attempt = self.attempt(&run.slot, run.attempt);
            return Some(Open { slot: run.slot.to_string(), attempt, trigger, stage: run.stage, begun: true });
        }
        let open = |slot: String, known, trigger, begun| {
            let attempt = self.attempt(&slot, known);
            Some(Open { slot, attempt, trigger, stage: Stage::Other, begun })
        };
        // Without an outcome, or closed and still bearing the finalizer of a freeze: nothing is frozen any more, and whoever
        // may change the object can have put it there.
        if let Some(last) = last.filter(|last| last.outcome.is_none() || self.o.held) {
            return open(last.slot.to_string(), last.attempt, last.trigger, last.outcome.is_none());
        }
        if let Some(slot) = self.pending() {
            let first = slot == self.o.created;
            return open(slot.to_string(), 1, if first { Trigger::First } else { Trigger::Schedule }, false);
        }
        let asked = self.request().filter(|value| self.of(value).next().is_some())?;
        open(asked.to_owned(), 1, Trigger::Manual, false)
    }

    fn question<'k>(&self, open: &Open, kin: &'k str) -> Question<'k> {
        // Whoever began it by hand may still be waiting for the uploads, without lock and without Job.
        let by_hand = open.trigger == Trigger::Command && open.stage == Stage::Uploading;
        let by_hand = by_hand && self.of(&open.slot).next().is_none();
        let patience = if by_hand { u64::try_from(self.p.span).unwrap_or_default() } else { 0 };
        Question {
            run: Mark::of(Kind::Backup, &open.slot),
            active: self.is_active(),
            frozen: open.stage == Stage::Frozen,
            attempt: open.attempt.saturating_add(1),
            patience: Duration::from_secs(patience),
            kin,
        }
    }

    fn take_over(&self, open: &Open, wanting: Option<Timestamp>, now: Now) -> Choice {
        let attempt = open.attempt.saturating_add(1);
        let lost = self.of(&open.slot).max_by_key(|job| job.attempt);
        let job = match lost {
            Some(job) => {
                let name = job.name(self.o, self.uid);
                let how = if job.is_active() { "keeps silent in a freeze" } else { "has ended" };
                format!("Job {name} {how}")
            }
            None => "its Job is gone".to_owned(),
        };
        let message = format!("run of slot {} is open and {job}: attempt {attempt} takes it up", open.slot);
        let note = Some(Note { warning: true, reason: Reason::JobLost, message });
        let run = Box::new(self.run(&open.slot, open.trigger, attempt));
        if open.begun {
            return Choice::Act(What::Launch { run, note });
        }
        let slot = open.slot.parse().ok().filter(|_| is_clock(open.trigger));
        Choice::Place { order: slot.or(wanting).unwrap_or(now.wall), run, note }
    }

    fn run(&self, slot: &str, trigger: Trigger, attempt: u32) -> Run {
        let wait = self.p.starting_deadline.or_else(|| self.interval(slot)).unwrap_or(PATIENCE);
        let deadline = wait.saturating_add(self.p.span).saturating_add(SLACK).clamp(1, i64::from(i32::MAX));
        Run {
            kind: Kind::Backup,
            namespace: self.o.namespace.to_string(),
            name: self.o.name.to_string(),
            uid: self.uid.to_string(),
            statefulset: self.o.statefulset.to_string(),
            slot: slot.to_owned(),
            attempt,
            trigger,
            grace_seconds: self.p.grace,
            deadline_seconds: Some(deadline),
        }
    }

    /// At least the schedule's interval at this slot, which is how long the runner waits for the lock.
    fn interval(&self, slot: &str) -> Option<i64> {
        let schedule = self.schedule.as_ref()?;
        let from = slot.parse().ok().or(self.served()).unwrap_or(self.o.created);
        let second = schedule.next_after(schedule.next_after(from)?)?;
        Some(second.duration_since(from).as_secs())
    }

    /// What the watcher's fields of status are to be.
    fn owned(&self, now: Now) -> Owned {
        let last = self.served();
        let next = if let Some(pending) = self.pending() { Some(pending) } else { self.upcoming(last, now) };
        let handled = self.p.request.as_ref().filter(|_| self.request().is_none());
        let request = handled.or(self.p.owned.request.as_ref()).cloned();
        Owned { next, last, request, ..self.p.owned.clone() }
    }

    /// What status is to say of the spec where it does not: that no slot of it will ever come, or that it is sound again.
    fn verdict(&self, now: Now) -> Option<Verdict> {
        let said = verdict::said(self.o);
        let asks = !self.p.suspend && self.o.leaving.is_none() && self.served().is_some();
        let never = self.decision(now).filter(|decision| asks && *decision == Decision::Never);
        if never.is_some() {
            let why = self.schedule.as_ref()?.never(now.wall)?;
            let known = said == Some((Reason::NeverDue, self.o.generation));
            return (!known).then(|| verdict::never(self.o, self.last(), &why, now.wall));
        }
        // That a run has ended so is the runner's to say, until another one ends.
        let ended = self
            .last()
            .is_some_and(|last| last.reason.is_some_and(|reason| said.is_some_and(|(why, _)| why == reason)));
        (said.is_some() && !ended).then(|| verdict::accepted(self.o, self.last(), now.wall))
    }

    /// The slot that comes next; one that has come and waits for its turn stays the next.
    fn upcoming(&self, served: Option<Timestamp>, now: Now) -> Option<Timestamp> {
        let (last, schedule) = (served?, self.schedule.as_ref()?);
        if self.p.suspend || self.o.leaving.is_some() {
            return None;
        }
        match self.decision(now)? {
            Decision::Due { .. } => schedule.next_after(last),
            Decision::Wait(next) => Some(next),
            Decision::Late { next, .. } => next,
            Decision::Never => None,
        }
    }

    fn decision(&self, now: Now) -> Option<Decision> {
        let ask = |schedule: &Schedule| {
            let last = self.served().unwrap_or(self.o.created);
            schedule::due(schedule, last, self.lagged(now), self.deadline())
        };
        *self.decision.get_or_init(|| self.schedule.as_ref().map(ask))
    }

    fn deadline(&self) -> Option<SignedDuration> {
        self.p.starting_deadline.map(SignedDuration::from_secs)
    }

    /// How long after its slot a run of this object begins.
    fn lag(&self) -> SignedDuration {
        let all = u128::from(self.c.jitter_seconds) * 1000;
        let part = (self.uid.0 >> 64).checked_rem(all).unwrap_or_default();
        SignedDuration::from_millis(i64::try_from(part).unwrap_or_default())
    }

    /// The clock by which this object's slots are judged.
    fn lagged(&self, now: Now) -> Timestamp {
        now.wall.checked_sub(self.lag()).unwrap_or(now.wall)
    }

    /// A new run, if one is due and the place for it is free.
    fn begin(&self, wanting: Option<Timestamp>, pace: &Pace, now: Now) -> Choice {
        if self.o.leaving.is_some() {
            return Choice::Rest(Wake::default());
        }
        let (order, slot, trigger) = match (self.request(), self.due(now)) {
            (Some(value), _) => (wanting.unwrap_or(now.wall), value.to_owned(), Trigger::Manual),
            (None, Some((slot, trigger))) if trigger == Trigger::First || slot <= self.lagged(now) => {
                (slot, slot.to_string(), trigger)
            }
            (None, Some((slot, _))) => {
                let wall = slot.checked_add(self.lag()).unwrap_or(slot);
                return Choice::Rest(Wake { wall: Some(wall), tick: None });
            }
            (None, None) => return Choice::Rest(Wake::default()),
        };
        let begin = pace.begin_at(Mark::of(Kind::Backup, &slot));
        if begin > now.tick {
            return Choice::Rest(Wake { wall: None, tick: Some(begin) });
        }
        Choice::Place { order, run: Box::new(self.run(&slot, trigger, 1)), note: None }
    }

    /// The slot to run now, or the one to wait for.
    fn due(&self, now: Now) -> Option<(Timestamp, Trigger)> {
        if self.p.suspend {
            return None;
        }
        let served = self.served();
        let due = self.decision(now);
        if let Some(Decision::Due { slot, .. }) = due {
            let trigger = if slot < self.c.started { Trigger::Catchup } else { Trigger::Schedule };
            return Some((slot, trigger));
        }
        let age = now.wall.duration_since(self.o.created).as_secs();
        let in_time = self.p.starting_deadline.is_none_or(|deadline| age <= deadline.max(FIRST_GRACE));
        match due {
            _ if served.is_none() && in_time => Some((self.o.created, Trigger::First)),
            Some(Decision::Wait(next)) => Some((next, Trigger::Schedule)),
            Some(Decision::Late { next, .. }) => Some((next?, Trigger::Schedule)),
            _ => None,
        }
    }

    /// The oldest Job beyond the history limits whose slot status shows.
    fn surplus(&self) -> Option<&Job> {
        let over = |succeeded: bool, limit: usize| {
            let of = |job: &&Job| match job.state {
                State::Succeeded => succeeded,
                State::Failed { .. } => !succeeded,
                State::Pending | State::Running => false,
            };
            let mut jobs: Vec<_> = self.jobs.iter().filter(of).filter(|job| self.is_shown(job)).collect();
            jobs.sort_by_key(|job| (job.ended, job.uid));
            let more = jobs.len().saturating_sub(limit);
            jobs.into_iter().take(more).next()
        };
        over(true, self.p.keep_succeeded).or_else(|| over(false, self.p.keep_failed))
    }

    fn is_shown(&self, job: &Job) -> bool {
        let closed = self.last().is_some_and(|last| *last.slot == *job.slot && last.outcome.is_some());
        let passed = if is_clock(job.trigger) {
            job.slot.parse().is_ok_and(|slot: Timestamp| self.told().is_some_and(|last| slot <= last))
        } else {
            self.p.request.as_deref() != Some(&job.slot) || self.p.owned.request.as_deref() == Some(&job.slot)
        };
        closed || passed
    }
}

/// How the newest run ended, for metrics.
pub(super) fn failure(p: &Policy) -> Option<(&str, u32, Reason)> {
    let last = p.last.as_deref().filter(|last| last.outcome == Some(Outcome::Failed))?;
    Some((&last.slot, last.attempt, last.reason.unwrap_or(Reason::Unknown)))
}
