//! The clock of one process. The wall clock is read once, at the start, and carried on by the monotonic one: a step
//! of the wall clock neither prolongs a freeze nor cuts a wait short.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

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
