//! When the next attempt at something may be made: after a failure later and later, and never while somebody else is
//! at it. All of it is measured on the monotonic clock and forgotten when the process ends: it spares work and pods,
//! and nothing correct rests on it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::instant::optional;
use crate::plan::job::Kind;

/// How long a silent holder of a Lease is left alone.
const LEASE: Duration = Duration::from_secs(30);
/// A freeze that is younger is not looked at: most are over by then.
const YOUNG: Duration = Duration::from_secs(20);
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);
const FIRST_OF_HELD: Duration = Duration::from_mins(1);
const LONGEST_OF_HELD: Duration = Duration::from_mins(30);
const LONGEST_API: Duration = Duration::from_mins(1);

/// 0 for the first try, then 10 s doubling to 5 min.
pub fn backoff(tries: u32) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(10)).min(LONGEST),
    }
}

/// The same of what is Held because it was denied: 1 min doubling to half an hour.
pub fn backoff_of_held(tries: u32) -> Duration {
    (FIRST_OF_HELD * (1 << tries.min(10))).min(LONGEST_OF_HELD)
}

/// Stands for a run: its kind and slot, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(u64);

impl Mark {
    pub fn of(kind: Kind, slot: &str) -> Mark {
        let mut hasher = DefaultHasher::new();
        (kind, slot).hash(&mut hasher);
        Mark(hasher.finish())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// The run for which Jobs were made last, how many, and when the newest.
    made: Option<(Mark, u32, Duration)>,
    /// Since when a run has been open that nobody is at.
    left: Option<Duration>,
    /// Since when its pods may be frozen.
    frozen: Option<Duration>,
    sight: Option<Box<Sight>>,
    failures: u32,
    not_before: Duration,
    /// Something has happened that makes the next attempt worth no pause.
    hurried: bool,
}

/// What the lock Lease looked like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sight {
    lease: Lease,
    changed: Duration,
    looked: Duration,
}

/// The lock Lease as far as it tells whether a run's holder lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// `KIND/NAMESPACE/NAME/TOKEN`
    pub holder: Option<Box<str>>,
    #[serde(with = "optional")]
    pub renewed: Option<Timestamp>,
}

/// May the run be taken up?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Yes,
    /// Look at the Lease first.
    Look,
    /// Not before then.
    Rest(Duration),
    /// Not before something is heard.
    Hold,
}

/// A run that is open.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub run: Mark,
    /// A Job of it is at work, as far as Kubernetes knows.
    pub active: bool,
    pub frozen: bool,
    /// The number that the next attempt would have.
    pub attempt: u32,
    /// Give it at least so long.
    pub patience: Duration,
    /// How a holder that works for our object begins.
    pub kin: &'a str,
}

impl Pace {
    /// Nothing is open: what was remembered of the last run's holder is of no use.
    pub fn closed(&mut self) {
        (self.left, self.frozen, self.sight) = (None, None, None);
    }

    fn tries(&self, run: Mark) -> u32 {
        self.made.filter(|(made, ..)| *made == run).map_or(0, |(_, tries, _)| tries)
    }

    /// When a first Job may be made for this run: at once, unless one was made just now and is gone already.
    pub fn begin_at(&self, run: Mark) -> Duration {
        let made = self.made.filter(|(made, ..)| *made == run && !self.hurried);
        made.map_or(Duration::ZERO, |(_, tries, at)| at + backoff(tries))
    }

    pub fn take_over(&mut self, q: &Question, tick: Duration) -> Turn {
        if q.active {
            self.left = None;
            if !q.frozen {
                (self.frozen, self.sight) = (None, None);
                return Turn::Hold;
            }
            let since = *self.frozen.get_or_insert(tick);
            if self.sight.is_none() && tick < since + YOUNG {
                return Turn::Rest(since + YOUNG);
            }
            return self.silence(q.kin, since, tick, false);
        }
        let since = *self.left.get_or_insert(tick);
        let pause = backoff(q.attempt - 1).max(backoff(self.tries(q.run))).max(q.patience);
        let due = since + if self.hurried { Duration::ZERO } else { pause };
        match self.silence(q.kin, since, tick, true) {
            Turn::Yes if tick >= due => Turn::Yes,
            Turn::Yes => Turn::Rest(due),
            Turn::Rest(until) => Turn::Rest(until.max(due)),
            other => other,
        }
    }

    /// Whether nobody who works for the object has renewed the Lease for its whole duration. `free`: a Lease that is
    /// not theirs says so at once.
    fn silence(&self, kin: &str, since: Duration, tick: Duration, free: bool) -> Turn {
        let Some(sight) = &self.sight else { return Turn::Look };
        let theirs = sight.lease.holder.as_deref().is_some_and(|holder| holder.starts_with(kin));
        if free && !theirs {
            return if sight.looked >= since { Turn::Yes } else { Turn::Look };
        }
        let gone = if theirs { sight.changed } else { sight.changed.max(since) } + LEASE;
        match () {
            () if sight.looked >= gone => Turn::Yes,
            () if tick >= gone => Turn::Look,
            () => Turn::Rest(gone),
        }
    }

    /// The Lease was looked at.
    pub fn saw(&mut self, lease: Lease, tick: Duration) {
        match &mut self.sight {
            Some(sight) if sight.lease == lease => sight.looked = tick,
            sight => *sight = Some(Box::new(Sight { lease, changed: tick, looked: tick })),
        }
    }

    /// A Job was made, or was there.
    pub fn launched(&mut self, run: Mark, tick: Duration) {
        self.made = Some((run, self.tries(run).saturating_add(1), tick));
        self.hurried = false;
        self.closed();
    }

    /// The next attempt is made as soon as nobody is at it.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    pub fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        (self.failures, self.not_before) = (0, Duration::ZERO);
    }

    /// A request came to nothing: again after 1 s, doubling to a minute.
    pub fn failed(&mut self, tick: Duration) {
        let pause = Duration::from_secs(1 << self.failures.min(6)).min(LONGEST_API);
        self.failures += 1;
        self.not_before = tick + pause;
    }

    /// Requests that came to nothing, one after the other.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn not_before(&self) -> Duration {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIN: &str = "backup/shop/nightly/";

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease(holder: &str, renewed: i64) -> Lease {
        Lease { holder: Some(holder.into()), renewed: Timestamp::from_second(renewed).ok() }
    }

    fn run() -> Mark {
        Mark::of(Kind::Backup, "2026-03-29T01:30:00Z")
    }

    fn question(active: bool, frozen: bool) -> Question<'static> {
        Question { run: run(), active, frozen, attempt: 2, patience: Duration::ZERO, kin: KIN }
    }

    #[test]
    fn delays_double_to_five_minutes() {
        let delays: Vec<_> = (0..9).map(|tries| backoff(tries).as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(backoff(u32::MAX), LONGEST);
        let delays: Vec<_> = (0..7).map(|tries| backoff_of_held(tries).as_secs()).collect();
        assert_eq!(delays, [60, 120, 240, 480, 960, 1800, 1800]);
        assert_eq!(backoff_of_held(u32::MAX), LONGEST_OF_HELD);
    }

    #[test]
    fn a_run_that_is_left_is_taken_up_after_its_delay_once_the_lock_is_free() {
        let mut pace = Pace::default();
        let q = question(false, false);
        assert_eq!(pace.take_over(&q, s(100)), Turn::Look);
        pace.saw(Lease::default(), s(100));
        assert_eq!(pace.take_over(&q, s(101)), Turn::Rest(s(110)));
        assert_eq!(pace.take_over(&q, s(110)), Turn::Yes);
        pace.launched(run(), s(110));
        assert_eq!(pace.take_over(&Question { attempt: 3, ..q }, s(200)), Turn::Look, "each time anew");
        pace.saw(lease("backup/shop/other/x", 7), s(200));
        assert_eq!(pace.take_over(&Question { attempt: 3, ..q }, s(219)), Turn::Rest(s(220)), "the second time later");
        assert_eq!(pace.take_over(&Question { attempt: 3, ..q }, s(220)), Turn::Yes);
    }

    #[test]
    fn a_job_that_vanishes_at_once_is_made_again_ever_more_slowly() {
        let mut pace = Pace::default();
        assert_eq!(pace.begin_at(run()), s(0));
        pace.launched(run(), s(5));
        assert_eq!(pace.begin_at(run()), s(15));
        pace.closed();
        pace.launched(run(), s(15));
        assert_eq!(pace.begin_at(run()), s(35));
        assert_eq!(pace.begin_at(Mark::of(Kind::Backup, "another")), s(0));
    }

    #[test]
    fn nobody_is_disturbed_who_renews_the_lease() {
        let mut pace = Pace::default();
        let q = question(false, false);
        let mut tick = 0;
        pace.saw(lease("backup/shop/nightly/x", 0), s(0));
        for renewal in 1..20 {
            assert!(matches!(pace.take_over(&q, s(tick)), Turn::Rest(_)), "{tick}");
            tick += 30;
            assert_eq!(pace.take_over(&q, s(tick)), Turn::Look);
            pace.saw(lease("backup/shop/nightly/x", renewal * 30), s(tick));
        }
        tick += 30;
        pace.saw(lease("backup/shop/nightly/x", 19 * 30), s(tick));
        assert_eq!(pace.take_over(&q, s(tick)), Turn::Yes);
    }

    #[test]
    fn a_freeze_is_ended_when_its_holder_falls_silent_whatever_the_job_says() {
        let mut pace = Pace::default();
        assert_eq!(pace.take_over(&question(true, false), s(0)), Turn::Hold);
        let q = question(true, true);
        assert_eq!(pace.take_over(&q, s(5)), Turn::Rest(s(25)));
        assert_eq!(pace.take_over(&q, s(25)), Turn::Look);
        pace.saw(lease("backup/shop/nightly/x", 20), s(25));
        assert_eq!(pace.take_over(&q, s(25)), Turn::Rest(s(55)));
        assert_eq!(pace.take_over(&q, s(55)), Turn::Look, "never without a look of that age");
        pace.saw(lease("backup/shop/nightly/x", 20), s(56));
        assert_eq!(pace.take_over(&q, s(56)), Turn::Yes);
    }

    #[test]
    fn a_lease_that_has_just_been_taken_is_no_silence() {
        let mut pace = Pace::default();
        let q = question(true, true);
        assert_eq!(pace.take_over(&q, s(0)), Turn::Rest(s(20)));
        pace.saw(Lease::default(), s(20));
        assert_eq!(pace.take_over(&q, s(20)), Turn::Rest(s(50)), "what was read may be older than the freeze");
    }

    #[test]
    fn a_failing_request_is_repeated_ever_more_slowly() {
        let mut pace = Pace::default();
        let pauses: Vec<_> = (0..9)
            .map(|_| {
                pace.failed(s(0));
                pace.not_before().as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        pace.succeeded();
        assert_eq!(pace.not_before(), Duration::ZERO);
    }
}
