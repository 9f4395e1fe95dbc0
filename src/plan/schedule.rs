//! When a run is due: the text of a schedule, and the instants that it means.
//!
//! Role: the dialect of CronJob's `spec.schedule`, exactly, as pure functions. A [`Schedule`] is made from text for a
//! question and dropped after the answer: who watches thousands of objects keeps their texts, never what was parsed
//! from them. Must not know what a run is, nor remember one: the last slot is an argument.

mod calendar;
mod due;
mod every;
mod instant;
mod parse;
#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

pub use self::due::{Decision, due};
use self::instant::whole_second;
use self::parse::Fields;
use crate::api::rules;

/// Why a schedule or a time zone is refused: a sentence that begins with the field and says the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A schedule in its time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    zone: TimeZone,
    when: When,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    /// Five fields of a calendar.
    Fields(Fields),
    /// Seconds from one slot to the next.
    Every(i64),
}

impl Schedule {
    /// Reads `spec.schedule` and `spec.timeZone`.
    ///
    /// # Errors
    /// Whatever CronJob refuses, too.
    pub fn parse(text: &str, time_zone: &str) -> Result<Schedule, Refused> {
        // Before the zone: who writes TZ into the schedule needs to hear of timeZone first.
        let when = parse::schedule(text)?;
        Ok(Schedule { zone: zone(time_zone)?, when })
    }

    /// The first slot after an instant, or none within five years.
    ///
    /// Fields: what the clocks of the zone skip does not fire, what they show twice fires twice. `@every`: an interval
    /// after the instant's whole second, so ask from the last slot to stay in step.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Fields(fields) => instant::next(fields, &self.zone, after),
            When::Every(seconds) => Timestamp::from_second(whole_second(after).checked_add(*seconds)?).ok(),
        }
    }

    /// The longest interval between two of the dozen slots from this one on: a night or a weekend is among them, also of a
    /// schedule that fires each day, or some hours of it.
    pub fn longest_interval(&self, first: Timestamp) -> Option<SignedDuration> {
        let slots = std::iter::successors(Some(first), |slot| self.next_after(*slot)).take(12);
        let slots: Vec<_> = slots.collect();
        slots.windows(2).map(|two| two[1].duration_since(two[0])).max()
    }

    /// The newest slot after `after` and not after `until`; in bounded time, however far they are apart. The slots of
    /// `@every` are counted from `after`.
    pub fn newest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Fields(fields) => instant::newest(fields, &self.zone, after, until),
            When::Every(seconds) => {
                let begin = whole_second(after);
                let slots = (whole_second(until) - begin) / seconds;
                (slots > 0).then(|| Timestamp::from_second(begin + slots * seconds).ok()).flatten()
            }
        }
    }

    /// The first slot after both `last`, a slot, and `now`.
    pub fn upcoming(&self, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self.when {
            When::Fields(_) => self.next_after(last.max(now)),
            When::Every(_) => self.next_after(self.newest(last, now).unwrap_or(last)),
        }
    }

    /// If no slot follows `after`: the sentence for status and people that says so, and why.
    pub fn never(&self, after: Timestamp) -> Option<String> {
        if self.next_after(after).is_some() {
            return None;
        }
        let why = match &self.when {
            When::Fields(fields) => fields.never(),
            When::Every(_) => None,
        };
        let why = why.unwrap_or_else(|| format!("no date within five years after {after} matches it"));
        Some(format!("the schedule never fires: {why}; correct it, or leave schedule out for a single run"))
    }

    /// The zone in which the fields are read.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

/// The time zone of a name of the IANA database, from the copy in the program: what is installed on a machine plays
/// no part.
///
/// # Errors
/// Whatever CronJob refuses as `spec.timeZone`, too.
pub fn zone(name: &str) -> Result<TimeZone, Refused> {
    let refused = |sentence: &str| Err(Refused(sentence.to_owned()));
    if name.is_empty() {
        return refused(rules::ZONE_EMPTY);
    }
    if name.eq_ignore_ascii_case("local") {
        return refused(rules::ZONE_LOCAL);
    }
    match TimeZoneDatabase::bundled().get(name) {
        Ok(zone) if zone.is_unknown() => {}
        Ok(zone) => match zone.iana_name() {
            // CronJob reads names as they are written, the database does not care about case.
            Some(known) if known != name => {
                return Err(Refused(format!("timeZone {name:?} is not known: case matters, write {known}")));
            }
            _ => return Ok(zone),
        },
        Err(_) => {}
    }
    Err(Refused(format!(
        "timeZone {name:?} is not known; write a name of the IANA time zone database, such as Europe/Berlin or Etc/UTC"
    )))
}
