//! From times on the wall to instants.
//!
//! A zone is a row of spans, in each of which its offset is constant and the wall runs with time. Every span is
//! searched for itself: times that the clocks skip lie in no span, times that they show twice lie in two. So a fold
//! fires twice and a gap does not, and neither is a case of its own.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::calendar::{Calendar, Wall, end_of_year};
use super::parse::Fields;

/// After this many years without a date CronJob gives up.
const HORIZON: i32 = 5;
/// No schedule pauses longer: 29 February comes after eight years at the latest.
const LONGEST_PAUSE: i64 = 9 * 366 * 86_400;

pub(super) fn whole_second(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

fn instant(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

fn offset(zone: &TimeZone, second: i64) -> Option<i64> {
    Some(zone.to_offset(instant(second)?).seconds().into())
}

/// The first date after `after`, up to the end of the fifth year after it.
pub(super) fn next(fields: &Fields, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let calendar = Calendar::of(fields)?;
    let mut begin = whole_second(after) + 1;
    let horizon: Wall = end_of_year(begin + offset(zone, begin)?, HORIZON)?;
    loop {
        let offset = offset(zone, begin)?;
        if begin + offset > horizon {
            return None;
        }
        let end = zone.following(instant(begin)?).next().map(|change| change.timestamp().as_second());
        let last = end.map_or(horizon, |end| horizon.min(end - 1 + offset));
        if let Some(wall) = calendar.first(begin + offset, last) {
            return instant(wall - offset);
        }
        begin = end?;
    }
}

/// The last date after `after` and not after `until`.
pub(super) fn newest(fields: &Fields, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let calendar = Calendar::of(fields)?;
    let mut end = whole_second(until);
    let first = (whole_second(after) + 1).max(end - LONGEST_PAUSE);
    while first <= end {
        let offset = offset(zone, end)?;
        let change = zone.preceding(instant(end + 1)?).next().map(|change| change.timestamp().as_second());
        let begin = change.map_or(first, |change| change.max(first));
        if let Some(wall) = calendar.last(begin + offset, end + offset) {
            return instant(wall - offset);
        }
        end = begin - 1;
    }
    None
}
