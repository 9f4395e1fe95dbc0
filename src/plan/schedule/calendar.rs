//! Which times on the wall the fields of a schedule name: the crate `cron`, behind a face that speaks seconds.
//!
//! Role: [`Fields`] as one or two schedules of that crate, asked in a calendar without a zone. The crate has another
//! dialect (seconds, Sunday is 1, day of month AND day of week), reads zones otherwise than CronJob, and knows only
//! the years 1970 to 2100: none of this is seen outside. Must not know zones.

use std::fmt::Write;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc, Weekday};

use super::parse::{Fields, Set};

/// Seconds since 1970 by the clock on a wall, counted as if it showed UTC.
pub(super) type Wall = i64;

/// One schedule, or two of which either suffices.
pub(super) struct Calendar(Vec<cron::Schedule>);

impl Calendar {
    /// None if there is no date that the fields name: nobody has to look for one.
    pub(super) fn of(fields: &Fields) -> Option<Calendar> {
        if fields.never().is_some() {
            return None;
        }
        let (day, weekday) = (list(fields.day, 0), list(fields.weekday, 1));
        let days = if fields.either_day() {
            vec![(day, "*".to_owned()), ("*".to_owned(), weekday)]
        } else {
            vec![(day, weekday)]
        };
        let [minute, hour, month] = [fields.minute, fields.hour, fields.month].map(|set| list(set, 0));
        // An empty day of month is no date, the day of week beside it may be one.
        let some = days.into_iter().filter(|(day, weekday)| !day.is_empty() && !weekday.is_empty());
        let texts = some.map(|(day, weekday)| format!("0 {minute} {hour} {day} {month} {weekday}"));
        Some(Calendar(texts.filter_map(|text| text.parse().ok()).collect()))
    }

    /// The earliest time from `from` to `to`, both included.
    pub(super) fn first(&self, from: Wall, to: Wall) -> Option<Wall> {
        let years = year_of(from)?..=year_of(to)?;
        years
            .filter_map(Year::of)
            .find_map(|year| {
                let before = clock(from.max(year.begin) - 1 + year.shift)?;
                let found = self.0.iter().filter_map(|schedule| schedule.after(&before).next()).min()?;
                Some(found.timestamp() - year.shift).filter(|at| *at < year.end)
            })
            .filter(|at| *at <= to)
    }

    /// The latest time from `from` to `to`, both included.
    pub(super) fn last(&self, from: Wall, to: Wall) -> Option<Wall> {
        let years = year_of(from)?..=year_of(to)?;
        years
            .rev()
            .filter_map(Year::of)
            .find_map(|year| {
                let after = clock(to.min(year.end - 1) + 1 + year.shift)?;
                let found = self.0.iter().filter_map(|schedule| schedule.after(&after).next_back()).max()?;
                Some(found.timestamp() - year.shift).filter(|at| *at >= year.begin)
            })
            .filter(|at| *at >= from)
    }
}

/// Numbers as the crate reads them; nothing for none.
fn list(set: Set, shift: u32) -> String {
    if set.any {
        return "*".into();
    }
    set.numbers().fold(String::new(), |mut text, number| {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}", number + shift);
        text
    })
}

/// A year, and how far from it lies one with the same calendar that the crate knows.
struct Year {
    begin: Wall,
    /// The next year's begin.
    end: Wall,
    shift: i64,
}

impl Year {
    fn of(year: i32) -> Option<Year> {
        let begin = new_year(year)?;
        // 28 years in a row without an exception have every calendar there is; the last of them, so that a search in
        // vain soon meets the crate's last year.
        let model = (2072..2100).find(|model| kind(*model) == kind(year))?;
        Some(Year { begin, end: new_year(year + 1)?, shift: new_year(model)? - begin })
    }
}

/// Years of one kind have the same calendar: the weekdays of their first day and of their last one agree.
fn kind(year: i32) -> Option<(Weekday, Weekday)> {
    Some((NaiveDate::from_ymd_opt(year, 1, 1)?.weekday(), NaiveDate::from_ymd_opt(year, 12, 31)?.weekday()))
}

fn new_year(year: i32) -> Option<Wall> {
    Some(NaiveDate::from_ymd_opt(year, 1, 1)?.and_time(NaiveTime::MIN).and_utc().timestamp())
}

fn clock(wall: Wall) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(wall, 0)
}

pub(super) fn year_of(wall: Wall) -> Option<i32> {
    Some(clock(wall)?.year())
}

/// The last second of the year that lies this many years after that of `wall`.
pub(super) fn end_of_year(wall: Wall, years: i32) -> Option<Wall> {
    Some(new_year(year_of(wall)? + years + 1)? - 1)
}
