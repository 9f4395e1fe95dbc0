//! The clock of one process. The wall clock is read once, at the start, and carried on by the monotonic one: a step
//! of the wall clock neither prolongs a freeze nor cuts a wait short.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The API server's clock, as the Date of its replies tells it: how many seconds it is ahead of ours. Run ids are taken
/// from it, since what creation timestamps are compared with must be of their clock.
#[derive(Debug, Clone, Default)]
pub struct ServerClock(Arc<AtomicI64>);

impl ServerClock {
    /// A reply bore this Date, and came at `now`. What is no date tells nothing.
    pub fn note(&self, date: &str, now: Timestamp) {
        if let Ok(at) = rfc2822::parse(date) {
            self.0.store(at.timestamp().as_second() - now.as_second(), Ordering::Relaxed);
        }
    }

    /// Zero until a reply has told.
    pub fn ahead(&self) -> SignedDuration {
        SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
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

    #[test]
    fn the_date_of_a_reply_tells_how_far_the_servers_clock_is_ahead() {
        let clock = ServerClock::default();
        let now: Timestamp = "2026-11-28T01:00:00.9Z".parse().unwrap();
        assert_eq!(clock.ahead(), SignedDuration::ZERO);
        clock.note("Sat, 28 Nov 2026 03:00:05 GMT", now);
        assert_eq!(clock.clone().ahead(), SignedDuration::from_secs(7205));
        for nothing in ["", "yesterday", "2026-11-28T03:00:00Z"] {
            clock.note(nothing, now);
            assert_eq!(clock.ahead(), SignedDuration::from_secs(7205), "{nothing}");
        }
        clock.note("Fri, 27 Nov 2026 00:59:59 GMT", now);
        assert_eq!(clock.ahead(), SignedDuration::from_secs(-86401));
    }
}
