//! Which runs a retention policy keeps, and by which of its rules.
//!
//! What is counted is counted for each claim, so that the claim of a replica that was scaled away keeps its copies;
//! what is kept or dropped is a whole run. The rules are a union: none takes away what another one wants, so a rule
//! more, or a greater number, never drops more.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::api::backup::RetentionPolicy;

/// What retention goes by.
#[derive(Debug, Clone)]
pub struct Keep {
    pub policy: RetentionPolicy,
    pub zone_name: String,
    /// None: the time zone database does not have it.
    pub zone: Option<TimeZone>,
}

/// A run as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<I> {
    pub id: I,
    /// When it was cut, by the API server's clock; of two that were cut at once the greater id is the newer one.
    pub cut: Timestamp,
    /// Only a complete run counts, and only a complete run is ever dropped.
    pub complete: bool,
    /// Names of the claims that it holds.
    pub claims: BTreeSet<String>,
}

/// Why a run is kept: the field names of the policy, in its order, then what no policy can take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    KeepLast,
    KeepDays,
    KeepHourly,
    KeepDaily,
    KeepWeekly,
    KeepMonthly,
    KeepYearly,
    /// The newest complete run of one of its claims.
    Floor,
    /// Neither counted nor dropped: it may become complete yet, or is somebody else's to remove.
    Incomplete,
}

impl Rule {
    pub fn name(self) -> &'static str {
        match self {
            Rule::KeepLast => "keepLast",
            Rule::KeepDays => "keepDays",
            Rule::KeepHourly => "keepHourly",
            Rule::KeepDaily => "keepDaily",
            Rule::KeepWeekly => "keepWeekly",
            Rule::KeepMonthly => "keepMonthly",
            Rule::KeepYearly => "keepYearly",
            Rule::Floor => "floor",
            Rule::Incomplete => "incomplete",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    Prune,
}

/// What becomes of a run, and every rule that wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<I> {
    pub id: I,
    pub fate: Fate,
    pub rules: Vec<Rule>,
}

/// The verdicts, newest run first. `now` is the new run's cut: only the difference to it is an age. Without a policy
/// everything is kept.
pub fn retain<I: Ord + Clone>(
    runs: &[Run<I>],
    policy: Option<&RetentionPolicy>,
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<Verdict<I>> {
    let mut runs: Vec<&Run<I>> = runs.iter().collect();
    runs.sort_by(|a, b| (b.cut, &b.id).cmp(&(a.cut, &a.id)));
    let Some(policy) = policy else {
        return runs.iter().map(|run| Verdict { id: run.id.clone(), fate: Fate::Keep, rules: vec![] }).collect();
    };
    let mut wanted: Vec<BTreeSet<Rule>> = vec![BTreeSet::new(); runs.len()];
    let mut of_claim: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        if !run.complete {
            wanted[at].insert(Rule::Incomplete);
            continue;
        }
        run.claims.iter().for_each(|claim| of_claim.entry(claim).or_default().push(at));
    }
    for newest_first in of_claim.values() {
        let cuts: Vec<Timestamp> = newest_first.iter().map(|at| runs[*at].cut).collect();
        for (at, rules) in newest_first.iter().zip(of_one_claim(&cuts, policy, now, zone)) {
            wanted[*at].extend(rules);
        }
    }
    let verdict = |(run, rules): (&&Run<I>, BTreeSet<Rule>)| Verdict {
        id: run.id.clone(),
        fate: if rules.is_empty() { Fate::Prune } else { Fate::Keep },
        rules: rules.into_iter().collect(),
    };
    runs.iter().zip(wanted).map(verdict).collect()
}

/// Which rules want each of the runs of one claim; newest first.
fn of_one_claim(cuts: &[Timestamp], policy: &RetentionPolicy, now: Timestamp, zone: &TimeZone) -> Vec<Vec<Rule>> {
    let mut rules = vec![vec![]; cuts.len()];
    let last = usize::try_from(policy.keep_last.unwrap_or_default()).unwrap_or(usize::MAX);
    rules.iter_mut().take(last).for_each(|rules| rules.push(Rule::KeepLast));
    if let Some(days) = policy.keep_days {
        let span = SignedDuration::from_secs(days.saturating_mul(86_400));
        let young = cuts.iter().zip(&mut rules).filter(|(cut, _)| now.duration_since(**cut) < span);
        young.for_each(|(_, rules)| rules.push(Rule::KeepDays));
    }
    for (rule, number, bucket) in buckets(policy) {
        let mut seen: BTreeSet<[i32; 4]> = BTreeSet::new();
        for (cut, rules) in cuts.iter().zip(&mut rules) {
            if i64::try_from(seen.len()).is_ok_and(|seen| seen >= number) {
                break;
            }
            if seen.insert(bucket(*cut, zone)) {
                rules.push(rule);
            }
        }
    }
    if let Some(newest) = rules.first_mut() {
        newest.push(Rule::Floor);
    }
    rules
}

type Bucket = fn(Timestamp, &TimeZone) -> [i32; 4];

/// The calendar rules that the policy has, each with its number and with what makes two instants one of its buckets.
/// Only the fields of the local calendar count, so the doubled hour of a fold is one hour.
fn buckets(policy: &RetentionPolicy) -> impl Iterator<Item = (Rule, i64, Bucket)> {
    let all: [(Rule, Option<i64>, Bucket); 5] = [
        (Rule::KeepHourly, policy.keep_hourly, |at, zone| fields(at, zone, 4)),
        (Rule::KeepDaily, policy.keep_daily, |at, zone| fields(at, zone, 3)),
        (Rule::KeepWeekly, policy.keep_weekly, |at, zone| {
            let week = at.to_zoned(zone.clone()).date().iso_week_date();
            [week.year().into(), week.week().into(), 0, 0]
        }),
        (Rule::KeepMonthly, policy.keep_monthly, |at, zone| fields(at, zone, 2)),
        (Rule::KeepYearly, policy.keep_yearly, |at, zone| fields(at, zone, 1)),
    ];
    all.into_iter().filter_map(|(rule, number, bucket)| Some((rule, number?, bucket)))
}

/// Year, month, day and hour there, the first so many of them.
fn fields(at: Timestamp, zone: &TimeZone, count: usize) -> [i32; 4] {
    let local = at.to_zoned(zone.clone()).datetime();
    let mut fields = [local.year().into(), local.month().into(), local.day().into(), local.hour().into()];
    fields[count..].fill(0);
    fields
}
