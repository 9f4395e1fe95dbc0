//! Whether a run is due.

use jiff::{SignedDuration, Timestamp};

use super::Schedule;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A run for this slot. `missed`: older slots went by without one, and this run stands for them as well.
    Due { slot: Timestamp, missed: bool },
    /// The newest slot is older than startingDeadlineSeconds allows: no run for it, and none before `next`.
    Late { slot: Timestamp, next: Option<Timestamp> },
    /// Nothing before this instant, and at it a run is due.
    Wait(Timestamp),
    /// Nothing at all: no further slot within five years.
    Never,
}

/// Decides from the last slot that had its run, or the creation of the object if none had.
///
/// Of several missed slots the newest counts. A slot at `now` is due; so it is at its deadline to the second. A clock
/// that went back asks for no slot a second time. The cost does not grow with the time since `last`.
pub fn due(schedule: &Schedule, last: Timestamp, now: Timestamp, deadline: Option<SignedDuration>) -> Decision {
    let next = || schedule.upcoming(last, now);
    let Some(slot) = schedule.newest(last, now) else {
        return next().map_or(Decision::Never, Decision::Wait);
    };
    if deadline.is_some_and(|deadline| now.duration_since(slot) > deadline) {
        return Decision::Late { slot, next: next() };
    }
    let before = slot.checked_sub(SignedDuration::from_secs(1)).unwrap_or(last);
    Decision::Due { slot, missed: schedule.newest(last, before).is_some() }
}
