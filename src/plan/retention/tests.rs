//! Tables by hand; and many random histories against a second opinion, written the other way round: it asks of one
//! run at a time who wants it, by counting, and never sorts.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn run(id: u32, cut: &str, claims: &[&str]) -> Run<u32> {
    Run { id, cut: at(cut), complete: true, claims: claims.iter().map(ToString::to_string).collect() }
}

/// `id: rules`, or `id: -` for a run that goes; newest first.
fn told(verdicts: &[Verdict<u32>]) -> String {
    let line = |verdict: &Verdict<u32>| {
        let rules: Vec<_> = verdict.rules.iter().map(|rule| rule.name()).collect();
        assert_eq!(verdict.fate == Fate::Prune, rules.is_empty());
        format!("{}: {}", verdict.id, if rules.is_empty() { "-".into() } else { rules.join(" ") })
    };
    verdicts.iter().map(line).collect::<Vec<_>>().join(", ")
}

fn judge(runs: &[Run<u32>], policy: &RetentionPolicy, zone_name: &str) -> String {
    let now = runs.iter().map(|run| run.cut).max().unwrap();
    told(&retain(runs, Some(policy), now, &zone(zone_name)))
}

#[test]
fn without_a_policy_everything_is_kept_and_nothing_is_said() {
    let mut runs = [run(1, "2026-01-01T00:00:00Z", &["a"]), run(2, "2026-01-02T00:00:00Z", &["a"])];
    runs[0].complete = false;
    let verdicts = retain(&runs, None, runs[1].cut, &TimeZone::UTC);
    let keep = |id| Verdict { id, fate: Fate::Keep, rules: vec![] };
    assert_eq!(verdicts, [keep(2), keep(1)]);
}

#[test]
fn the_newest_are_counted_for_each_claim_and_runs_stay_whole() {
    // web-1 was scaled away after run 2: its copies are the newest of their claim for ever.
    let runs = [
        run(1, "2026-01-01T00:00:00Z", &["web-0", "web-1"]),
        run(2, "2026-01-02T00:00:00Z", &["web-0", "web-1"]),
        run(3, "2026-01-03T00:00:00Z", &["web-0"]),
        run(4, "2026-01-04T00:00:00Z", &["web-0"]),
    ];
    let last = |n| RetentionPolicy { keep_last: Some(n), ..RetentionPolicy::default() };
    assert_eq!(judge(&runs, &last(1), "UTC"), "4: keepLast floor, 3: -, 2: keepLast floor, 1: -");
    assert_eq!(judge(&runs, &last(2), "UTC"), "4: keepLast floor, 3: keepLast, 2: keepLast floor, 1: keepLast");
}

#[test]
fn an_age_is_less_than_whole_days_of_24_hours_and_the_future_is_young() {
    let runs = [
        run(1, "2026-03-27T12:00:00Z", &["a"]),
        run(2, "2026-03-28T12:00:00Z", &["a"]),
        run(3, "2026-03-28T12:00:00.001Z", &["a"]),
        run(4, "2026-03-29T12:00:00Z", &["a"]),
        run(5, "2036-01-01T00:00:00Z", &["a"]),
    ];
    let policy = RetentionPolicy { keep_days: Some(1), ..RetentionPolicy::default() };
    // The clocks go forward in Berlin on that night: 24 hours are no calendar day.
    let verdicts = retain(&runs, Some(&policy), at("2026-03-29T12:00:00Z"), &zone("Europe/Berlin"));
    assert_eq!(told(&verdicts), "5: keepDays floor, 4: keepDays, 3: keepDays, 2: -, 1: -");
    let endless = RetentionPolicy { keep_days: Some(i64::MAX), ..RetentionPolicy::default() };
    assert!(!judge(&runs, &endless, "UTC").contains('-'));
}

#[test]
fn what_is_incomplete_is_neither_counted_nor_dropped() {
    let mut runs = [
        run(1, "2026-01-01T00:00:00Z", &["a"]),
        run(2, "2026-01-02T00:00:00Z", &["a"]),
        run(3, "2026-01-03T00:00:00Z", &["a"]),
    ];
    runs[2].complete = false;
    let policy = RetentionPolicy { keep_last: Some(1), ..RetentionPolicy::default() };
    assert_eq!(judge(&runs, &policy, "UTC"), "3: incomplete, 2: keepLast floor, 1: -");
}

#[test]
fn buckets_are_of_the_local_calendar() {
    let policy = RetentionPolicy { keep_daily: Some(2), ..RetentionPolicy::default() };
    // 22:30 and 23:30 UTC are two days in Berlin, and one in UTC.
    let runs = [
        run(1, "2026-05-01T20:30:00Z", &["a"]),
        run(2, "2026-05-01T21:30:00Z", &["a"]),
        run(3, "2026-05-01T22:30:00Z", &["a"]),
    ];
    assert_eq!(judge(&runs, &policy, "Europe/Berlin"), "3: keepDaily floor, 2: keepDaily, 1: -");
    assert_eq!(judge(&runs, &policy, "UTC"), "3: keepDaily floor, 2: -, 1: -");
}

#[test]
fn the_doubled_hour_is_one_bucket() {
    let runs = [
        run(1, "2026-10-24T23:30:00Z", &["a"]), // 01:30 in Berlin
        run(2, "2026-10-25T00:30:00Z", &["a"]), // 02:30, the first time
        run(3, "2026-10-25T01:30:00Z", &["a"]), // 02:30, the second time
        run(4, "2026-10-25T02:30:00Z", &["a"]), // 03:30
    ];
    let policy = RetentionPolicy { keep_hourly: Some(3), ..RetentionPolicy::default() };
    assert_eq!(judge(&runs, &policy, "Europe/Berlin"), "4: keepHourly floor, 3: keepHourly, 2: -, 1: keepHourly");
    assert_eq!(judge(&runs, &policy, "UTC"), "4: keepHourly floor, 3: keepHourly, 2: keepHourly, 1: -");
}

#[test]
fn weeks_are_those_of_iso_8601() {
    let runs = [
        run(1, "2026-12-27T12:00:00Z", &["a"]), // Sunday, 2026-W52
        run(2, "2026-12-28T12:00:00Z", &["a"]), // Monday, 2026-W53
        run(3, "2027-01-03T12:00:00Z", &["a"]), // Sunday of the same week, another year
        run(4, "2027-01-04T12:00:00Z", &["a"]), // Monday, 2027-W01
    ];
    let policy = RetentionPolicy { keep_weekly: Some(2), ..RetentionPolicy::default() };
    assert_eq!(judge(&runs, &policy, "UTC"), "4: keepWeekly floor, 3: keepWeekly, 2: -, 1: -");
    let policy = RetentionPolicy { keep_yearly: Some(5), keep_monthly: Some(1), ..RetentionPolicy::default() };
    assert_eq!(judge(&runs, &policy, "UTC"), "4: keepMonthly keepYearly floor, 3: -, 2: keepYearly, 1: -");
}

#[test]
fn rules_come_in_the_order_of_the_spec_whatever_wants_them() {
    let all = RetentionPolicy {
        keep_last: Some(1),
        keep_days: Some(1),
        keep_hourly: Some(1),
        keep_daily: Some(1),
        keep_weekly: Some(1),
        keep_monthly: Some(1),
        keep_yearly: Some(1),
        purge_retained: None,
        make_room: None,
    };
    let told = judge(&[run(1, "2026-01-01T00:00:00Z", &["a"])], &all, "UTC");
    assert_eq!(told, "1: keepLast keepDays keepHourly keepDaily keepWeekly keepMonthly keepYearly floor");
}

/// Small numbers that look random, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn number(&mut self) -> Option<i64> {
        (self.below(3) == 0).then(|| 1 + i64::try_from(self.below(5)).unwrap())
    }

    fn policy(&mut self) -> RetentionPolicy {
        RetentionPolicy {
            keep_last: self.number(),
            keep_days: self.number(),
            keep_hourly: self.number(),
            keep_daily: self.number(),
            keep_weekly: self.number(),
            keep_monthly: self.number(),
            keep_yearly: self.number(),
            purge_retained: None,
            make_room: None,
        }
    }

    /// Runs around a change of the clocks, close together or far apart, some at the same instant.
    fn history(&mut self) -> Vec<Run<u32>> {
        let grain = [600, 1800, 3600, 7200, 86_400, 7 * 86_400, 40 * 86_400][usize::try_from(self.below(7)).unwrap()];
        let middle = at("2026-10-25T01:00:00Z").as_second();
        let count = self.below(9) + 1;
        let run = |id| {
            let steps = i64::try_from(self.below(14)).unwrap() - 7;
            let claims: BTreeSet<String> =
                ["a", "b", "c"].iter().filter(|_| self.below(2) == 0).map(ToString::to_string).collect();
            let complete = self.below(6) > 0 && !claims.is_empty();
            let cut = Timestamp::from_second(middle + steps * grain).unwrap();
            Run { id: u32::try_from(id).unwrap(), cut, complete, claims }
        };
        (0..count).map(run).collect()
    }
}

/// Is `one` newer than `other`?
fn newer(one: &Run<u32>, other: &Run<u32>) -> bool {
    one.cut > other.cut || one.cut == other.cut && one.id > other.id
}

/// The label of the bucket as a person would write it.
fn written(rule: Rule, cut: Timestamp, zone: &TimeZone) -> String {
    let local = cut.to_zoned(zone.clone());
    let format = match rule {
        Rule::KeepHourly => "%Y-%m-%d %H",
        Rule::KeepDaily => "%Y-%m-%d",
        Rule::KeepWeekly => "%G-W%V",
        Rule::KeepMonthly => "%Y-%m",
        _ => "%Y",
    };
    local.strftime(format).to_string()
}

/// The second opinion about one run.
fn wants(run: &Run<u32>, all: &[Run<u32>], policy: &RetentionPolicy, now: Timestamp, zone: &TimeZone) -> Vec<Rule> {
    if !run.complete {
        return vec![Rule::Incomplete];
    }
    let holds = |claim: &String| {
        let with: Vec<&Run<u32>> = all.iter().filter(|other| other.complete && other.claims.contains(claim)).collect();
        with.into_iter()
    };
    let any = |want: &dyn Fn(&String) -> bool| run.claims.iter().any(want);
    let mut rules = vec![];
    if policy.keep_last.is_some_and(|n| {
        any(&|claim| i64::try_from(holds(claim).filter(|other| newer(other, run)).count()).unwrap() < n)
    }) {
        rules.push(Rule::KeepLast);
    }
    if policy.keep_days.is_some_and(|n| now.as_second() - run.cut.as_second() < n * 86_400) {
        rules.push(Rule::KeepDays);
    }
    let calendar = [
        (Rule::KeepHourly, policy.keep_hourly),
        (Rule::KeepDaily, policy.keep_daily),
        (Rule::KeepWeekly, policy.keep_weekly),
        (Rule::KeepMonthly, policy.keep_monthly),
        (Rule::KeepYearly, policy.keep_yearly),
    ];
    for (rule, n) in calendar {
        let wanted = |claim: &String| {
            let own = written(rule, run.cut, zone);
            let newer: Vec<_> =
                holds(claim).filter(|other| newer(other, run)).map(|other| written(rule, other.cut, zone)).collect();
            let distinct: std::collections::HashSet<_> = newer.iter().collect();
            !newer.contains(&own) && n.is_some_and(|n| i64::try_from(distinct.len()).unwrap() < n)
        };
        if any(&wanted) {
            rules.push(rule);
        }
    }
    if any(&|claim| !holds(claim).any(|other| newer(other, run))) {
        rules.push(Rule::Floor);
    }
    rules
}

/// Every run that one policy keeps, the greater one keeps as well.
fn raised(policy: &RetentionPolicy, chance: &mut Chance) -> RetentionPolicy {
    let mut more = policy.clone();
    let by = i64::try_from(chance.below(3)).unwrap() + 1;
    let field = [
        &mut more.keep_last,
        &mut more.keep_days,
        &mut more.keep_hourly,
        &mut more.keep_daily,
        &mut more.keep_weekly,
        &mut more.keep_monthly,
        &mut more.keep_yearly,
    ]
    .into_iter()
    .nth(usize::try_from(chance.below(7)).unwrap())
    .unwrap();
    *field = Some(field.unwrap_or_default() + by);
    more
}

/// A fresh seed each time, printed; `SSB_SEED` repeats one.
#[test]
fn random_histories_are_judged_as_the_second_opinion_has_it() {
    use std::hash::{BuildHasher, RandomState};
    let given = std::env::var("SSB_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| RandomState::new().hash_one("retention"));
    println!("SSB_SEED={seed}");
    let zones = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"].map(zone);
    let mut chance = Chance(seed);
    let mut dropped = 0;
    for case in 0..100_000 {
        let (mut runs, policy) = (chance.history(), chance.policy());
        let zone = &zones[usize::try_from(chance.below(4)).unwrap()];
        let now = runs[usize::try_from(chance.below(runs.len() as u64)).unwrap()].cut;
        let verdicts = retain(&runs, Some(&policy), now, zone);
        let context = || format!("SSB_SEED={seed}, case {case}: {policy:?} {runs:#?}");
        for verdict in &verdicts {
            let run = runs.iter().find(|run| run.id == verdict.id).unwrap();
            assert_eq!(verdict.rules, wants(run, &runs, &policy, now, zone), "run {}, {}", run.id, context());
            assert_eq!(verdict.fate == Fate::Prune, verdict.rules.is_empty());
            dropped += usize::from(verdict.fate == Fate::Prune);
        }
        let kept = |verdicts: &[Verdict<u32>]| {
            let keep = verdicts.iter().filter(|verdict| verdict.fate == Fate::Keep);
            keep.map(|verdict| verdict.id).collect::<BTreeSet<_>>()
        };
        let more = retain(&runs, Some(&raised(&policy, &mut chance)), now, zone);
        assert!(kept(&more).is_superset(&kept(&verdicts)), "a greater policy drops more: {}", context());
        for claim in ["a", "b", "c"] {
            let newest = runs
                .iter()
                .filter(|run| run.complete && run.claims.contains(claim))
                .max_by_key(|run| (run.cut, run.id));
            assert!(newest.is_none_or(|run| kept(&verdicts).contains(&run.id)), "{}", context());
        }
        runs.reverse();
        let at = usize::try_from(chance.below(runs.len() as u64)).unwrap();
        runs.rotate_left(at);
        assert_eq!(retain(&runs, Some(&policy), now, zone), verdicts, "the order of the input counts");
    }
    assert!(dropped > 50_000, "only {dropped} runs were dropped: the histories are too easy");
}
