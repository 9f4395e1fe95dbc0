//! What must hold for every schedule.

use jiff::{SignedDuration, Timestamp, ToSpan};

use super::parse::Fields;
use super::{Decision, Schedule, When, due};

/// Zones of every kind: none, the usual, half an hour of summer time, changes at midnight, a skipped day, Ramadan.
const ZONES: [&str; 9] = [
    "Etc/UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "America/Sao_Paulo",
];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Chance with a seed that is printed: a failure can be run again.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn new(test: &str) -> Chance {
        let chosen = std::env::var("SSB_SEED").ok().and_then(|text| text.parse().ok());
        let seed = chosen.unwrap_or(20_260_329);
        println!("{test}: SSB_SEED={seed}");
        Chance(seed)
    }

    /// From 0 to below `end`; the sequence is splitmix64's.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }

    fn seconds(&mut self, from: &str, to: &str) -> Timestamp {
        let (from, to) = (at(from).as_second(), at(to).as_second());
        let span = u64::try_from(to - from).unwrap();
        let second = from + i64::try_from(self.below(span)).unwrap();
        Timestamp::new(second, if self.below(4) == 0 { 900_000_000 } else { 0 }).unwrap()
    }

    fn field(&mut self, least: u64, most: u64) -> String {
        let width = most - least + 1;
        let low = least + self.below(width);
        let high = low + self.below(most - low + 1);
        match self.below(8) {
            0..=2 => "*".into(),
            3 => format!("*/{}", 1 + self.below(width)),
            4 => format!("{low}/{}", 1 + self.below(width)),
            5 => format!("{low}-{high}"),
            6 => format!("{low},{high}"),
            _ => low.to_string(),
        }
    }

    fn schedule(&mut self) -> (String, Schedule) {
        let text = if self.below(8) == 0 {
            format!("@every {}s", 1 + self.below(100_000))
        } else {
            let fields = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)].map(|(least, most)| self.field(least, most));
            fields.join(" ")
        };
        let zone = ZONES[usize::try_from(self.below(9)).unwrap()];
        let schedule = Schedule::parse(&text, zone).unwrap();
        (format!("{text} in {zone}"), schedule)
    }
}

/// Whether the wall of the zone shows a date of the fields at this instant: a reading without any search.
fn names(fields: &Fields, schedule: &Schedule, instant: Timestamp) -> bool {
    let wall = instant.to_zoned(schedule.zone().clone());
    let weekday = wall.weekday().to_sunday_zero_offset();
    let shows = [wall.minute(), wall.hour(), wall.day(), wall.month(), weekday];
    let sets = [fields.minute, fields.hour, fields.day, fields.month, fields.weekday];
    let holds: Vec<_> = sets
        .iter()
        .zip(shows)
        .map(|(set, shown)| set.numbers().any(|number| i64::from(number) == i64::from(shown)))
        .collect();
    let day = if fields.either_day() { holds[2] || holds[4] } else { holds[2] && holds[4] };
    holds[0] && holds[1] && holds[3] && day && wall.second() == 0
}

#[test]
fn next_and_newest_are_those_that_a_walk_through_the_minutes_meets() {
    let mut chance = Chance::new("walk");
    let (mut met, mut changes) = (0, 0);
    for _ in 0..3_000 {
        let (text, schedule) = chance.schedule();
        let When::Fields(fields) = &schedule.when else { continue };
        // Where clocks change, begin a little before.
        let mut begin = chance.seconds("2009-01-01T00:00:00Z", "2040-01-01T00:00:00Z");
        if let Some(change) = schedule.zone().following(begin).next() {
            begin = change.timestamp() - SignedDuration::from_secs(i64::try_from(chance.below(7_200)).unwrap());
            changes += 1;
        }
        let end = begin + 3.hours();
        let minutes = (begin.as_second() / 60 - 1..=end.as_second() / 60).map(|minute| minute * 60);
        // Offsets of whole minutes only: all zones here have them in these years.
        let fires: Vec<_> = minutes
            .map(|second| Timestamp::from_second(second).unwrap())
            .filter(|slot| *slot > begin && *slot <= end && names(fields, &schedule, *slot))
            .collect();
        met += fires.len();
        let next = schedule.next_after(begin).filter(|slot| *slot <= end);
        assert_eq!(next, fires.first().copied(), "{text} after {begin}");
        assert_eq!(schedule.newest(begin, end), fires.last().copied(), "{text} from {begin} to {end}");
    }
    assert!(met > 3_000 && changes > 1_000, "only {met} slots and {changes} changes met");
}

#[test]
fn due_is_monotone_and_never_twice_for_one_instant() {
    let mut chance = Chance::new("monotone");
    let mut runs = 0;
    for _ in 0..1_000 {
        let (text, schedule) = chance.schedule();
        let mut last = chance.seconds("2024-01-01T00:00:00Z", "2029-01-01T00:00:00Z");
        let mut now = last;
        for _ in 0..8 {
            now += SignedDuration::from_millis(i64::try_from(chance.below(90_000_000)).unwrap());
            let said = format!("{text}: last {last}, now {now}");
            match due(&schedule, last, now, None) {
                Decision::Due { slot, missed } => {
                    assert!(last < slot && slot <= now, "{said}: {slot}");
                    // Nothing between the slot and now was overlooked; `missed` is what a chain of slots says.
                    assert!(schedule.next_after(slot).is_none_or(|next| next > now), "{said}: {slot}");
                    assert_eq!(missed, schedule.next_after(last) != Some(slot), "{said}");
                    assert!(!matches!(due(&schedule, slot, now, None), Decision::Due { .. }), "{said}: twice");
                    (last, runs) = (slot, runs + 1);
                }
                Decision::Wait(until) => {
                    assert!(until > now, "{said}: {until}");
                    let before = due(&schedule, last, until - 1.nanosecond(), None);
                    assert_eq!(before, Decision::Wait(until), "{said}");
                    assert_eq!(
                        due(&schedule, last, until, None),
                        Decision::Due { slot: until, missed: false },
                        "{said}"
                    );
                }
                Decision::Never => assert!(schedule.never(now).is_some(), "{said}"),
                Decision::Late { .. } => panic!("{said}: late without a deadline"),
            }
        }
    }
    assert!(runs > 1_000, "only {runs} runs");
}

#[test]
fn the_ends_of_time_do_no_harm() {
    for text in ["* * * * *", "0 0 29 2 *", "@every 1s", "@every 2562047h"] {
        for zone in ZONES {
            let schedule = Schedule::parse(text, zone).unwrap();
            let _ = due(&schedule, Timestamp::MIN, Timestamp::MAX, None);
            let _ = due(&schedule, Timestamp::MAX, Timestamp::MIN, Some(SignedDuration::MAX));
            let _ = due(&schedule, Timestamp::MIN, Timestamp::MIN, Some(SignedDuration::ZERO));
            assert_eq!(schedule.next_after(Timestamp::MAX), None, "{text} in {zone}");
            assert_eq!(schedule.newest(Timestamp::MAX, Timestamp::MIN), None, "{text} in {zone}");
        }
    }
}
