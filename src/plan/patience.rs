//! How long a backup waits for the lock before its slot counts as skipped.

use jiff::{SignedDuration, Timestamp};

use super::schedule::Schedule;
use crate::api::backup::StatefulSetBackupSpec;

/// Of a backup that has neither a startingDeadlineSeconds nor a schedule.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Nobody waits longer, or less than not at all; such a number would leave the calendar.
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// spec.startingDeadlineSeconds, else the schedule's interval: then the next slot is there.
pub fn lock(spec: &StatefulSetBackupSpec, now: Timestamp) -> SignedDuration {
    let interval = || {
        let schedule = Schedule::parse(spec.schedule()?, spec.time_zone()).ok()?;
        let next = schedule.next_after(now)?;
        Some(schedule.next_after(next)?.duration_since(next))
    };
    let asked = spec.starting_deadline_seconds.map(SignedDuration::from_secs).or_else(interval).unwrap_or(HOUR);
    asked.clamp(SignedDuration::ZERO, YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_comes_first_then_the_interval_then_an_hour() {
        let now = "2026-11-25T02:00:00Z".parse().unwrap();
        let wait = |schedule: Option<&str>, deadline| {
            let schedule = schedule.map(ToOwned::to_owned);
            let spec = StatefulSetBackupSpec {
                schedule,
                starting_deadline_seconds: deadline,
                ..StatefulSetBackupSpec::default()
            };
            lock(&spec, now).as_secs()
        };
        assert_eq!(wait(Some("*/15 * * * *"), Some(20)), 20);
        assert_eq!(wait(Some("*/15 * * * *"), None), 900);
        assert_eq!(wait(Some("0 3 * * *"), None), 86_400);
        assert_eq!(wait(Some("0 0 30 2 *"), None), 3600, "it never fires");
        assert_eq!(wait(None, None), 3600);
        assert_eq!(wait(None, Some(i64::MAX)), 365 * 86_400);
        assert_eq!(wait(None, Some(i64::MIN)), 0, "of an object that breaks the rules");
    }
}
