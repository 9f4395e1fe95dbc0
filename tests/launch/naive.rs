//! Which runs there should have been, minute by minute, from what people did and when runs ended: written without the
//! planner's words, and without its parser.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::world::at;

/// What people did to one object.
#[derive(Debug, Clone, Default)]
pub struct Life {
    pub created: i64,
    pub deleted: Option<i64>,
    pub edits: Vec<(i64, Wish)>,
    pub requests: Vec<(i64, String)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    pub rule: Option<Rule>,
    pub zone: &'static str,
    pub deadline: Option<i64>,
    pub suspend: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    pub text: String,
    pub minutes: BTreeSet<i8>,
    pub hours: BTreeSet<i8>,
    pub days: Option<BTreeSet<i8>>,
    pub weekdays: Option<BTreeSet<i8>>,
}

/// What the clocks of some zones show at each minute: month's day, weekday from Sunday, hour, minute.
pub struct Calendar {
    first: i64,
    zones: BTreeMap<&'static str, Vec<[i8; 4]>>,
}

impl Calendar {
    pub fn new(from: i64, to: i64, zones: &[&'static str]) -> Calendar {
        let (first, last) = (from / 60, to / 60);
        let shown = |zone: &TimeZone, minute: i64| {
            let local = at(minute * 60).to_zoned(zone.clone());
            [local.day(), local.weekday().since(Weekday::Sunday), local.hour(), local.minute()]
        };
        let table = |name: &str| {
            let zone = TimeZone::get(name).unwrap();
            (first..=last).map(|minute| shown(&zone, minute)).collect()
        };
        Calendar { first, zones: zones.iter().map(|name| (*name, table(name))).collect() }
    }

    fn fires(&self, wish: &Wish, minute: i64) -> bool {
        let Some(rule) = &wish.rule else { return false };
        let [day, weekday, hour, minute] = self.zones[wish.zone][usize::try_from(minute - self.first).unwrap()];
        let day = rule.days.as_ref().map(|days| days.contains(&day));
        let weekday = rule.weekdays.as_ref().map(|weekdays| weekdays.contains(&weekday));
        let date = match (day, weekday) {
            (Some(day), Some(weekday)) => day || weekday,
            (day, weekday) => day.unwrap_or(true) && weekday.unwrap_or(true),
        };
        date && rule.minutes.contains(&minute) && rule.hours.contains(&hour)
    }
}

/// Slot and instant of each run, in order.
pub fn runs(
    calendar: &Calendar,
    life: &Life,
    closed: &BTreeMap<&str, i64>,
    watched: &[(i64, i64)],
    end: i64,
) -> Vec<(String, i64)> {
    let end = life.deleted.unwrap_or(end).min(end);
    let minutes = (life.created / 60..=end / 60).map(|minute| minute * 60);
    let others = life.edits.iter().map(|(t, _)| *t).chain(life.requests.iter().map(|(t, _)| *t));
    let others = others.chain(closed.values().copied()).chain(watched.iter().map(|(from, _)| *from));
    let instants: BTreeSet<i64> =
        minutes.chain(others).chain([life.created]).filter(|t| (life.created..end).contains(t)).collect();

    let mut wish = Wish::default();
    let (mut served, mut missed) = (None, None);
    let (mut asked, mut answered) = (None, None);
    let (mut busy, mut runs) = (0, vec![]);
    let (mut edits, mut requests) = (life.edits.iter().peekable(), life.requests.iter().peekable());
    for t in instants {
        while let Some((_, new)) = edits.next_if(|(when, _)| *when <= t) {
            let other = (&wish.rule, wish.zone) != (&new.rule, new.zone);
            wish = new.clone();
            if other {
                // What the new schedule would have had since the last run counts as missed.
                let since = served.unwrap_or(life.created) / 60 + 1;
                missed = (since..=t / 60).rev().find(|minute| calendar.fires(&wish, *minute)).map(|minute| minute * 60);
            }
        }
        while let Some((_, value)) = requests.next_if(|(when, _)| *when <= t) {
            asked = Some(value.clone());
        }
        if t % 60 == 0 && t > life.created && calendar.fires(&wish, t / 60) {
            missed = Some(t);
        }
        if t < busy || !watched.iter().any(|(from, to)| (*from..*to).contains(&t)) {
            continue;
        }
        let slot = if asked != answered {
            answered.clone_from(&asked);
            asked.clone()
        } else if wish.suspend {
            None
        } else {
            let in_time = |slot: &i64| wish.deadline.is_none_or(|deadline| t - slot <= deadline);
            let first =
                || Some(life.created).filter(|_| served.is_none()).filter(|slot| in_time(slot) || t - slot <= 10);
            let slot = missed.filter(in_time).or_else(first);
            if slot.is_some() {
                (served, missed) = (slot, None);
            }
            slot.map(|slot| at(slot).to_string())
        };
        if let Some(slot) = slot {
            busy = closed.get(slot.as_str()).copied().unwrap_or(i64::MAX);
            runs.push((slot, t));
        }
    }
    runs
}
