//! The text of a schedule: five fields, or a descriptor.
//!
//! Role: text in, sets of numbers or a sentence out. What is accepted is what CronJob accepts, oddities included,
//! because a schedule that was moved from a CronJob must mean the same here; `docs/schedule.md` lists them. Must not
//! know calendars or zones.

use super::{Refused, When, every};
use crate::api::rules;

/// A field: what it is called, its numbers, and the names that stand for them from the least one up.
struct Field {
    name: &'static str,
    least: i64,
    most: i64,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The most days that each month has.
const LENGTHS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: MONTHS },
    Field { name: "day of week", least: 0, most: 6, names: WEEKDAYS },
];

/// The numbers of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Set {
    /// Bit N is set when it holds N.
    bits: u64,
    /// It was written with `*` or `?` and no step above 1: no restriction. `0-6` holds as much, but is one.
    pub any: bool,
}

impl Set {
    pub(super) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.bits >> number & 1 == 1)
    }

    pub(super) fn is_empty(self) -> bool {
        self.bits == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub minute: Set,
    pub hour: Set,
    pub day: Set,
    pub month: Set,
    pub weekday: Set,
}

impl Fields {
    /// Whether a date needs only one of day of month and day of week: when both are restricted.
    pub(super) fn either_day(&self) -> bool {
        !self.day.any && !self.weekday.any
    }

    /// Why there is no date that these fields name, if there is none.
    pub(super) fn never(&self) -> Option<String> {
        let names_nothing = |field: &Field| format!("its field {} names no value", field.name);
        let [minute, hour, day, month, weekday] = &FIELDS;
        let needed = [(self.minute, minute), (self.hour, hour), (self.month, month)];
        if let Some((_, field)) = needed.iter().find(|(set, _)| set.is_empty()) {
            return Some(names_nothing(field));
        }
        let longest = self.month.numbers().filter_map(|month| LENGTHS.get(month as usize - 1)).max();
        let has_day = self.day.numbers().next().is_some_and(|first| longest.is_some_and(|longest| first <= *longest));
        let has_weekday = !self.weekday.is_empty();
        match (has_day, has_weekday) {
            (true, true) => None,
            (true, false) | (false, true) if self.either_day() => None,
            (true, false) => Some(names_nothing(weekday)),
            (false, _) if self.day.is_empty() => Some(names_nothing(day)),
            (false, _) => Some("no month that it names has such a day".to_owned()),
        }
    }
}

fn refused<T>(why: &str) -> Result<T, Refused> {
    Err(Refused(format!("schedule {why}")))
}

const EXAMPLE: &str = "write five fields (minute, hour, day of month, month, day of week) such as \"30 2 * * *\", or a \
                       descriptor such as @daily or @every 6h";

pub(super) fn schedule(text: &str) -> Result<When, Refused> {
    if text.contains("TZ") {
        return Err(Refused(rules::SCHEDULE_ZONE.to_owned()));
    }
    if text.trim().is_empty() {
        return refused(&format!("is empty: {EXAMPLE}"));
    }
    if text.starts_with('@') { descriptor(text) } else { fields(text).map(When::Fields) }
}

fn descriptor(text: &str) -> Result<When, Refused> {
    if let Some(interval) = text.strip_prefix("@every ") {
        return match every::seconds(interval) {
            Ok(seconds) => Ok(When::Every(seconds)),
            Err(why) => refused(&format!("{text:?}: {why}; write for example @every 6h or @every 1h30m")),
        };
    }
    let same = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            return refused(&format!(
                "{text:?} is no descriptor: there are @yearly, @annually, @monthly, @weekly, @daily, @midnight, \
                 @hourly and @every INTERVAL, in lower case, with nothing before or after"
            ));
        }
    };
    fields(same).map(When::Fields)
}

fn fields(text: &str) -> Result<Fields, Refused> {
    let parts: Vec<_> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts[..] else {
        let hint = match parts.len() {
            1 if text.trim().starts_with('@') => "; no blank may stand before a descriptor",
            6 | 7 => "; there is none for seconds or years",
            _ => "",
        };
        let number = if parts.len() == 1 { "1 field".to_owned() } else { format!("{} fields", parts.len()) };
        return refused(&format!("has {number}: {EXAMPLE}{hint}"));
    };
    let [minutes, hours, days, months, weekdays] = &FIELDS;
    Ok(Fields {
        minute: set(minutes, minute)?,
        hour: set(hours, hour)?,
        day: set(days, day)?,
        month: set(months, month)?,
        weekday: set(weekdays, weekday)?,
    })
}

/// A list. Items of no characters are passed over, so a list of commas alone is empty.
fn set(field: &Field, text: &str) -> Result<Set, Refused> {
    let items = text.split(',').filter(|item| !item.is_empty());
    items.into_iter().try_fold(Set::default(), |set, item| match range(field, item) {
        Ok(more) => Ok(Set { bits: set.bits | more.bits, any: set.any || more.any }),
        Err(why) => refused(&format!("{item:?} in the field {}: {why}", field.name)),
    })
}

/// An item of a list: `*`, `N`, `N-M`, each with `/STEP` or without; `N/STEP` goes up to the field's most.
fn range(field: &Field, item: &str) -> Result<Set, String> {
    let (span, step) = match item.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err("it has more than one '/'; write FIRST-LAST/STEP".into()),
        Some((span, step)) => (span, Some(step)),
        None => (item, None),
    };
    let (low, high) = span.split_once('-').map_or((span, None), |(low, high)| (low, Some(high)));
    let star = matches!(low, "*" | "?");
    let (first, last) = match high {
        // What follows `*-` is not read.
        _ if star => (field.least, field.most),
        Some(high) if high.contains('-') => return Err("it has more than one '-'; write FIRST-LAST".into()),
        Some(high) => (number(field, low)?, number(field, high)?),
        None if step.is_some() => (number(field, low)?, field.most),
        None => (number(field, low)?, number(field, low)?),
    };
    let step = step.map_or(Ok(1), whole).map_err(|why| format!("{why} as a step; write FIRST-LAST/STEP"))?;
    if let Some(outside) = [first, last].into_iter().find(|number| !(field.least..=field.most).contains(number)) {
        let sunday = if field.names == WEEKDAYS && outside == 7 { "; Sunday is 0" } else { "" };
        return Err(format!("{outside} is not between {} and {}{sunday}", field.least, field.most));
    }
    if first > last {
        return Err("it runs backwards; write two ranges with a comma between them".into());
    }
    if step == 0 {
        return Err("a step of 0 never moves on; write 1 or more".into());
    }
    let stride = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (first..=last).step_by(stride).fold(0, |bits, number| bits | 1 << number);
    Ok(Set { bits, any: star && step == 1 })
}

fn number(field: &Field, text: &str) -> Result<i64, String> {
    // U+0130 is an i here as well, by CronJob's way to lower case.
    let lower: String = text.chars().map(|c| if c == 'İ' { 'i' } else { c.to_ascii_lowercase() }).collect();
    if let Some(place) = field.names.iter().position(|name| *name == lower) {
        return Ok(field.least + i64::try_from(place).unwrap_or_default());
    }
    whole(text).map_err(|why| {
        if let (Some(first), Some(last)) = (field.names.first(), field.names.last()) {
            let [first, last] = [first, last].map(|name| name.to_uppercase());
            return format!("{why}, nor a name of three letters from {first} to {last}; L, W and # are not known");
        }
        let other = if field.most == 31 { "; L and W are not known" } else { "" };
        format!("{why}; write {} to {}, *, a range or a list{other}", field.least, field.most)
    })
}

/// Digits, with a `+` before them or without.
fn whole(text: &str) -> Result<i64, String> {
    let number = text.parse::<i64>().ok().filter(|_| !text.starts_with('-'));
    number.ok_or_else(|| if text.is_empty() { "a number is missing".into() } else { format!("{text:?} is no number") })
}
