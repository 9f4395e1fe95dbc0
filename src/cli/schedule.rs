//! `schedule`: when a schedule fires, asked without a cluster.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::output::{self, Output};
use crate::api::backup::TIME_ZONE;
use crate::error::{Error, Result};
use crate::plan::schedule::Schedule;

/// More than anybody reads, and soon written.
const MOST: u64 = 100_000;

#[derive(Args, Debug)]
pub struct Ask {
    /// The schedule, in the syntax of a CronJob, as one argument in quotes
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    text: String,
    /// What a shell makes of an expression without quotes.
    #[arg(hide = true)]
    rest: Vec<String>,
    /// Time zone of the schedule: a name of the IANA time zone database
    #[arg(long, value_name = "ZONE", default_value = TIME_ZONE)]
    time_zone: String,
    /// The instant after which to look, in RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant, allow_hyphen_values = true)]
    after: Option<Timestamp>,
    /// How many instants to show
    #[arg(long, value_name = "N", default_value = "5", value_parser = count, allow_hyphen_values = true)]
    count: usize,
    /// How to write them: json and yaml are lists of instants in UTC, name is one instant per line
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

fn instant(text: &str) -> std::result::Result<Timestamp, String> {
    // RFC 3339 allows any number of digits behind the point, an instant keeps nine.
    let nine = text.split_once('.').map(|(second, rest)| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        format!("{second}.{}{}", &rest[..end.min(9)], &rest[end..])
    });
    let read = nine.as_deref().unwrap_or(text).parse();
    read.map_err(|_| "expected an instant of RFC 3339 with its offset, such as 2026-03-29T00:30:00Z".to_owned())
}

fn count(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    let wrong = || format!("expected a number from 1 to {MOST}");
    number.and_then(|number| usize::try_from(number).ok()).ok_or_else(wrong)
}

pub fn run(ask: &Ask) -> Result<ExitCode> {
    let answer = answer(ask, Timestamp::now())?;
    output::print(&answer.text)?;
    if let Some(note) = answer.note {
        output::say(&note);
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug)]
struct Answer {
    text: String,
    /// Why there are fewer instants than were asked for.
    note: Option<String>,
}

fn answer(ask: &Ask, now: Timestamp) -> Result<Answer> {
    if !ask.rest.is_empty() {
        let message = "the schedule must be one argument: put it into quotes, such as '30 2 * * *'";
        return Err(Error::Usage(message.into()));
    }
    let schedule = Schedule::parse(&ask.text, &ask.time_zone).map_err(|refused| Error::Usage(refused.to_string()))?;
    let after = ask.after.unwrap_or(now);
    let slots = std::iter::successors(schedule.next_after(after), |slot| schedule.next_after(*slot));
    let slots: Vec<_> = slots.take(ask.count).collect();
    let text = match ask.output {
        Output::Table => table(&slots, schedule.zone(), now),
        Output::Json => output::json(&slots)?,
        Output::Yaml => output::yaml(&slots)?,
        Output::Name => output::lines(&slots),
    };
    let note = match slots.last() {
        None => schedule.never(after),
        Some(last) if slots.len() < ask.count => Some(format!("nothing follows {last} within five years")),
        Some(_) => None,
    };
    Ok(Answer { text, note })
}

fn table(slots: &[Timestamp], zone: &TimeZone, now: Timestamp) -> String {
    if slots.is_empty() {
        return String::new();
    }
    let heading = vec![format!("LOCAL ({})", zone.iana_name().unwrap_or("?")), "UTC".into(), "FROM NOW".into()];
    let row = |slot: &Timestamp| {
        let local = slot.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string();
        vec![local, slot.to_string(), distance(*slot, now)]
    };
    output::table(&std::iter::once(heading).chain(slots.iter().map(row)).collect::<Vec<_>>())
}

/// The two largest units of the time between, as kubectl shows ages: `3d4h`, `5m20s`.
fn distance(slot: Timestamp, now: Timestamp) -> String {
    let seconds = slot.as_second() - now.as_second();
    let units = [("y", 365 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut rest = seconds.abs();
    let parts = units.map(|(unit, size)| {
        let number = rest / size;
        rest %= size;
        (number, unit)
    });
    let shown: Vec<_> = parts
        .iter()
        .skip_while(|(number, _)| *number == 0)
        .take(2)
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    let text = shown.concat();
    match seconds {
        0 => "now".into(),
        1.. => format!("in {text}"),
        _ => format!("{text} ago"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        ask: Ask,
    }

    /// What a person sees: stdout, then what stderr says.
    fn see(args: &[&str]) -> String {
        let now = "2026-03-27T12:00:00Z".parse().unwrap();
        let shown = match Line::try_parse_from([&["schedule"], args].concat()) {
            Ok(line) => match answer(&line.ask, now) {
                Ok(Answer { text, note }) => text + &note.map(|note| format!("! {note}\n")).unwrap_or_default(),
                Err(error) => format!("! error: {error} (exit {})\n", error.exit_code()),
            },
            Err(error) => format!("! {}\n", error.to_string().lines().next().unwrap()),
        };
        format!("$ schedule {}\n{shown}\n", args.join(" "))
    }

    #[test]
    fn what_a_person_sees() {
        let zone = ["--time-zone", "Europe/Berlin"];
        let asked: &[&[&str]] = &[
            &["30 2 * * *"],
            &[&["30 2 * * *", "--count", "3"], &zone[..]].concat(),
            &[&["30 2 * * *", "--count", "3", "--after", "2026-10-24T12:00:00Z"], &zone[..]].concat(),
            &["@every 1h30m", "--after", "2026-03-27T11:58:59.9876543210123Z", "--count", "2"],
            &["0 0 29 2 *", "--after", "2088-01-01T00:00:00Z"],
            &["0 0 30 2 *"],
            &["0 0 30 2 *", "-o", "json"],
            &["*/20 0 * * *", "-o", "json", "--count", "2"],
            &["*/20 0 * * *", "-o", "yaml", "--count", "2"],
            &["*/20 0 * * *", "-o", "name", "--count", "2"],
            &[""],
            &["-5 * * * *"],
            &["0 0 * * 7"],
            &["TZ=Europe/Berlin 0 0 * * *"],
            &["30", "2", "*", "*", "*"],
            &["@daily", "--time-zone", "CEST"],
            &["@daily", "--count", "0"],
            &["@daily", "--count", "-1"],
            &["@daily", "--count", "99999999999999999999"],
            &["@daily", "--after", "yesterday"],
            &["@daily", "--after", "2026-03-29T00:30:00"],
            &["@daily", "-o", "xml"],
        ];
        let seen: String = asked.iter().map(|args| see(args)).collect();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("schedule_answers", seen));
    }

    #[test]
    fn distances_have_two_units() {
        let now: Timestamp = "2026-03-27T12:00:00Z".parse().unwrap();
        let far = |seconds| distance(now + jiff::SignedDuration::from_secs(seconds), now);
        let shown = [0, 1, -59, 60, 3_661, 86_399, -86_401, 90_000, 400 * 86_400].map(far);
        assert_eq!(
            shown,
            ["now", "in 1s", "59s ago", "in 1m", "in 1h1m", "in 23h59m", "1d ago", "in 1d1h", "in 1y35d"]
        );
    }
}
