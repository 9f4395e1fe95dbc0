//! The reference rows of CronJob's own library, examples, and the sentences.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::Deserialize;

use super::{Decision, Refused, Schedule, due, zone};
use crate::api::backup::{StatefulSetBackup, StatefulSetBackupSpec};
use crate::api::shared::StatefulSetRef;

const VECTORS: &str = include_str!("../../../tests/data/cron-vectors.jsonl");
#[derive(Deserialize)]
struct Row {
    expr: String,
    tz: Option<String>,
    after: Option<Timestamp>,
    #[serde(default)]
    next: Vec<Option<Timestamp>>,
    error: Option<String>,
}

fn rows() -> Vec<Row> {
    VECTORS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn utc(text: &str) -> Schedule {
    Schedule::parse(text, "Etc/UTC").unwrap()
}

fn refusal(text: &str) -> String {
    Schedule::parse(text, "Etc/UTC").unwrap_err().to_string()
}

#[test]
fn every_valid_row_fires_as_in_the_reference() {
    let rows: Vec<_> = rows().into_iter().filter(|row| row.error.is_none()).collect();
    assert_eq!(rows.len(), 2000);
    let mut wrong = Vec::new();
    for row in rows {
        let schedule = Schedule::parse(&row.expr, row.tz.as_deref().unwrap()).unwrap();
        assert_eq!(row.next.len(), 4);
        let mut from = row.after;
        for expected in row.next {
            let found = from.and_then(|from| schedule.next_after(from));
            if found != expected {
                wrong.push(format!("{:?} in {:?} after {from:?}: {found:?}, not {expected:?}", row.expr, row.tz));
            }
            from = expected;
        }
    }
    assert!(wrong.is_empty(), "{} differ, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
}

/// 2026-11-27 is a Friday.
#[test]
fn nights_and_weekends_are_the_longest_intervals() {
    for (text, first, hours) in [
        ("0 2 * * 1-5", "2026-11-27T02:00:00Z", 72),
        ("0 2 * * 1-5", "2026-11-30T02:00:00Z", 72),
        ("0 9-17 * * *", "2026-11-27T09:00:00Z", 16),
        ("0 2 * * *", "2026-11-27T02:00:00Z", 24),
        ("@every 6h", "2026-11-27T02:00:00Z", 6),
    ] {
        assert_eq!(utc(text).longest_interval(at(first)), Some(SignedDuration::from_hours(hours)), "{text} {first}");
    }
}

#[test]
fn every_refused_row_is_refused_in_a_sentence() {
    let rows: Vec<_> = rows().into_iter().filter(|row| row.error.is_some()).collect();
    assert_eq!(rows.len(), 300);
    for row in rows {
        let Err(Refused(sentence)) = Schedule::parse(&row.expr, "Etc/UTC") else {
            panic!("{:?} is accepted, though {:?}", row.expr, row.error);
        };
        assert!(sentence.starts_with("schedule ") && sentence.len() > 20, "{sentence}");
    }
}

#[test]
fn tz_anywhere_is_refused_in_favour_of_time_zone() {
    for text in ["TZ=UTC 0 0 * * *", "CRON_TZ=UTC 0 0 * * *", "TZ=UTC", "0 0 * * *-TZ", "@daily TZ", "@every TZ"] {
        assert!(refusal(text).contains("into timeZone"), "{text}: {}", refusal(text));
    }
}

#[test]
fn a_dotted_capital_i_is_an_i() {
    assert_eq!(utc("0 0 * * FR\u{130}").when, utc("0 0 * * 5").when);
}

#[test]
fn zones_are_read_as_they_are_written() {
    for good in ["UTC", "Etc/UTC", "GMT", "US/Eastern", "Europe/Kiev", "America/Argentina/Buenos_Aires", "Etc/GMT+1"] {
        assert!(zone(good).is_ok(), "{good}: {:?}", zone(good));
    }
    let bad =
        ["", "Local", "local", "europe/berlin", "utc", "Mars/Olympus", "Etc/Unknown", "+01:00", "../UTC", "Europe/"];
    for bad in bad {
        let sentence = zone(bad).unwrap_err().to_string();
        assert!(
            sentence.starts_with("timeZone ")
                && sentence.contains(if bad.is_empty() { "leave it out" } else { "write" }),
            "{bad}: {sentence}"
        );
    }
    assert!(zone("europe/berlin").unwrap_err().to_string().contains("write Europe/Berlin"));
}

#[test]
fn what_never_comes_is_accepted_and_said() {
    let now = at("2026-01-01T00:00:00Z");
    let never = ["0 0 30 2 *", "0 0 31 4,6,9,11 *", ", * * * *", "* , * * *", "* * , * *", "* * * , *", "* * * * ,"];
    for text in never {
        let schedule = utc(text);
        assert!(schedule.never(now).unwrap().contains("never fires"), "{text}");
        assert_eq!(due(&schedule, now, now + 800.hours(), None), Decision::Never, "{text}");
    }
    // An empty day of month beside a day of week, and the other way round: either one suffices.
    for text in ["0 0 29 2 *", "* * , * 1", "* * 1 * ,", "0 0 30 2 1", "@every -1h"] {
        assert_eq!(utc(text).never(now), None, "{text}");
    }
    let leap = utc("0 0 29 2 *");
    assert!(leap.never(at("2096-02-29T00:00:00Z")).unwrap().contains("within five years after 2096-02-29T00:00:00Z"));
}

#[test]
fn a_fold_fires_twice_and_a_gap_not_at_all() {
    let berlin = Schedule::parse("30 2 * * *", "Europe/Berlin").unwrap();
    let fires = |from: &str| {
        std::iter::successors(berlin.next_after(at(from)), |slot| berlin.next_after(*slot))
            .take(3)
            .map(|s| s.to_string())
    };
    let autumn = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"];
    assert_eq!(fires("2026-10-24T12:00:00Z").collect::<Vec<_>>(), autumn);
    let spring = ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"];
    assert_eq!(fires("2026-03-27T12:00:00Z").collect::<Vec<_>>(), spring);
}

#[test]
fn decisions() {
    let nightly = utc("0 2 * * *");
    let last = at("2026-03-01T02:00:00Z");
    let decide =
        |now: &str, deadline: Option<i64>| due(&nightly, last, at(now), deadline.map(SignedDuration::from_secs));
    let slot = at("2026-03-02T02:00:00Z");
    assert_eq!(decide("2026-03-02T01:59:59.9Z", None), Decision::Wait(slot));
    assert_eq!(decide("2026-03-02T02:00:00Z", None), Decision::Due { slot, missed: false });
    assert_eq!(decide("2026-03-03T01:59:59Z", None), Decision::Due { slot, missed: false });
    let third = at("2026-03-03T02:00:00Z");
    assert_eq!(decide("2026-03-03T10:00:00Z", None), Decision::Due { slot: third, missed: true });
    let next = Some(at("2026-03-04T02:00:00Z"));
    assert_eq!(decide("2026-03-03T02:01:00Z", Some(60)), Decision::Due { slot: third, missed: true });
    assert_eq!(decide("2026-03-03T02:01:00.1Z", Some(60)), Decision::Late { slot: third, next });
    assert_eq!(decide("2026-03-03T02:00:00Z", Some(0)), Decision::Due { slot: third, missed: true });
    assert_eq!(decide("2026-03-03T02:00:01Z", Some(i64::MAX)), Decision::Due { slot: third, missed: true });
    // However long ago: no date but this one in eight years.
    let (long_ago, now) = (at("2095-01-01T00:00:00Z"), at("2104-02-28T23:59:59Z"));
    let leap_day = Decision::Due { slot: at("2096-02-29T00:00:00Z"), missed: false };
    assert_eq!(due(&utc("0 0 29 2 *"), long_ago, now, None), leap_day);
    // A clock that went back by a week asks for nothing again.
    assert_eq!(decide("2026-02-22T00:00:00Z", None), Decision::Wait(slot));
}

#[test]
fn every_counts_from_the_last_slot() {
    let every = utc("@every 90m");
    let last = at("2026-03-01T00:00:07.9Z");
    let decide = |now: &str| due(&every, last, at(now), None);
    assert_eq!(decide("2026-03-01T01:30:06Z"), Decision::Wait(at("2026-03-01T01:30:07Z")));
    let first = Decision::Due { slot: at("2026-03-01T01:30:07Z"), missed: false };
    assert_eq!(decide("2026-03-01T01:30:07Z"), first);
    let third = at("2026-03-01T04:30:07Z");
    assert_eq!(decide("2026-03-01T05:00:00Z"), Decision::Due { slot: third, missed: true });
    let next = Some(at("2026-03-01T06:00:07Z"));
    let late = due(&every, last, at("2026-03-01T05:00:00Z"), Some(SignedDuration::from_secs(60)));
    assert_eq!(late, Decision::Late { slot: third, next });
    assert_eq!(utc("@every 2562047h").next_after(at("9900-01-01T00:00:00Z")), None);
}

#[test]
fn the_schema_lets_through_what_the_dialect_knows() {
    for row in rows() {
        let target = StatefulSetRef { name: "web".into(), namespace: None };
        let spec = StatefulSetBackupSpec { stateful_set_ref: target, schedule: Some(row.expr), ..Default::default() };
        let problems = StatefulSetBackup::new("nightly", spec.clone()).problems();
        let text = spec.schedule.unwrap_or_default();
        assert!(row.error.is_some() || problems.is_empty(), "{text:?}: {problems:?}");
        // What the schema refuses, the dialect does, too; "" is no schedule to the one, a bad one to the other.
        let too_long = text.chars().count() > 1024;
        assert!(
            problems.is_empty() || too_long || Schedule::parse(&text, "Etc/UTC").is_err(),
            "{text:?}: {problems:?}"
        );
    }
}

#[test]
fn the_sentences() {
    let refused = [
        "",
        " ",
        "0 0 * *",
        "0 0 0 * * *",
        " @daily",
        "@Daily",
        "@reboot",
        "@every",
        "@every ",
        "@every 60",
        "@every 1d",
        "@every 1h 30m",
        "@every 9999999h",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "* * * * FRI-MON",
        "5-1 * * * *",
        "*/0 * * * *",
        "*/2/3 * * * *",
        "1-2-3 * * * *",
        "*/ * * * *",
        "*/-1 * * * *",
        "- * * * *",
        "0 0 L * *",
        "0 0 * * 5#2",
        "0 0 * SEPTEMBER *",
        "0 0 * * MON/FRI",
        "x * * * *",
        "TZ=UTC 0 0 * * *",
    ];
    let mut text = String::new();
    for wrong in refused {
        let _ = writeln!(text, "{wrong:?}\n    {}", refusal(wrong));
    }
    for name in ["", "Local", "europe/berlin", "Mars/Olympus"] {
        let _ = writeln!(text, "timeZone: {name:?}\n    {}", zone(name).unwrap_err());
    }
    for never in ["0 0 30 2 *", ", * * * *", "* * * * ,", "* * , * *"] {
        let _ = writeln!(text, "{never:?}\n    {}", utc(never).never(at("2026-01-01T00:00:00Z")).unwrap());
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("schedule_sentences", text));
}
