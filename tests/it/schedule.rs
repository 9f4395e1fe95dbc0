//! What a question about a schedule costs, whatever is asked. Here and not beside the code, which must not see a clock.

use std::time::Instant;

use jiff::Timestamp;
use sts_backup::plan::schedule::{Decision, Schedule, due};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn utc(text: &str) -> Schedule {
    Schedule::parse(text, "Etc/UTC").unwrap()
}

/// The quickest of so many: what else the machine does makes some of them slower, and none quicker.
fn seconds(times: u32, question: impl Fn()) -> f64 {
    let one = |_| {
        let begin = Instant::now();
        question();
        begin.elapsed().as_secs_f64()
    };
    (0..times).map(one).fold(f64::INFINITY, f64::min)
}

#[test]
fn the_time_it_takes_is_bounded_whatever_is_asked() {
    let (long_ago, now) = (at("1970-01-01T00:00:00Z"), at("2026-01-01T00:00:30Z"));
    let every_minute = utc("* * * * *");
    // A ratio, so that a slow machine does not matter.
    let usual = seconds(200, || assert!(every_minute.next_after(now).is_some()));
    let texts = [", * * * *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "@every 1s", "* * * * *", "0 0 29 2 *", "30 2 29 3 *"];
    for text in texts {
        for zone in ["Etc/UTC", "Europe/Berlin", "Africa/Casablanca"] {
            let schedule = Schedule::parse(text, zone).unwrap();
            let spent = seconds(10, || {
                std::hint::black_box(due(&schedule, long_ago, now, None));
            });
            println!("{text} in {zone}: {:.2} times a plain question", spent / usual);
            assert!(spent < 200.0 * usual, "{text} in {zone}: {spent} s, a plain question {usual} s");
        }
    }
    assert_eq!(due(&utc("@every 1s"), long_ago, now, None), Decision::Due { slot: now, missed: true });
}
