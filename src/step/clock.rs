//! The clock of one process. The wall clock is read once, at the start, and carried on by the monotonic one: a step
//! of the wall clock neither prolongs a freeze nor cuts a wait short.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The API server's clock, as the Date of its replies tells it, carried on by the monotonic one. Run ids are taken from it,
/// since what creation timestamps are compared with must be of their clock.
#[derive(Debug, Clone)]
pub struct ServerClock {
    from: Instant,
    /// Its second at `from`; 0 until a reply has told.
    second: Arc<AtomicI64>,
}

impl Default for ServerClock {
    fn default() -> ServerClock {
        ServerClock { from: Instant::now(), second: Arc::default() }
    }
}

impl ServerClock {
    /// A reply that has just come bore this Date. What is no date tells nothing.
    pub fn note(&self, date: &str) {
        if let Ok(at) = rfc2822::parse(date) {
            self.second.store(at.timestamp().as_second() - self.elapsed(), Ordering::Relaxed);
        }
    }

    /// How far it is ahead of a clock that says `now`; zero until a reply has told.
    pub fn ahead(&self, now: Timestamp) -> SignedDuration {
        match self.second.load(Ordering::Relaxed) {
            0 => SignedDuration::ZERO,
            second => SignedDuration::from_secs(second + self.elapsed() - now.as_second()),
        }
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.from.elapsed().as_secs()).unwrap_or(i64::MAX / 2)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    monotonic: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock::at(Timestamp::now())
    }

    /// It is `wall` now.
    pub fn at(wall: Timestamp) -> Clock {
        Clock { wall, monotonic: Instant::now() }
    }

    pub fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.monotonic.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.saturating_add(since).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_date_of_a_reply_tells_how_far_the_servers_clock_is_ahead() {
        let clock = ServerClock::default();
        let now: Timestamp = "2026-11-28T01:00:00.9Z".parse().unwrap();
        assert_eq!(clock.ahead(now), SignedDuration::ZERO);
        clock.note("Sat, 28 Nov 2026 03:00:05 GMT");
        assert_eq!(clock.clone().ahead(now), SignedDuration::from_secs(7205));
        for nothing in ["", "yesterday", "2026-11-28T03:00:00Z"] {
            clock.note(nothing);
            assert_eq!(clock.ahead(now), SignedDuration::from_secs(7205), "{nothing}");
        }
        // Time goes by for both; the wall clock may be set meanwhile.
        tokio::time::advance(std::time::Duration::from_mins(1)).await;
        assert_eq!(clock.ahead(now), SignedDuration::from_secs(7265));
        assert_eq!(clock.ahead(now + SignedDuration::from_mins(1)), SignedDuration::from_secs(7205));
        clock.note("Fri, 27 Nov 2026 00:59:59 GMT");
        assert_eq!(clock.ahead(now), SignedDuration::from_secs(-86401));
    }
}
