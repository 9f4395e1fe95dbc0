//! What was fair, by what was done and when.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{BEGIN, Grant, PLACES, START, WAITING, World, is_honest};

/// By second since the begin: how much of it there was at most.
pub struct Line(pub Vec<usize>);

impl Line {
    fn of(spans: impl Iterator<Item = (i64, i64)>, end: i64) -> Line {
        let mut line = vec![0; usize::try_from(end - BEGIN + 1).unwrap()];
        for (from, to) in spans {
            for t in from..=to.min(end) {
                line[usize::try_from(t - BEGIN).unwrap()] += 1;
            }
        }
        Line(line)
    }

    fn at(&self, t: i64) -> usize {
        self.0[usize::try_from(t - BEGIN).unwrap()]
    }
}

pub struct Judge<'a> {
    grants: &'a [Grant],
    /// By namespace: runs that have not begun, and places.
    pub waiting: BTreeMap<&'a str, Line>,
    taken: BTreeMap<&'a str, Line>,
    /// Honest slots that have no Job yet: from when to when.
    due: BTreeMap<&'a str, Vec<(i64, i64)>>,
}

impl<'a> Judge<'a> {
    pub fn new(world: &'a World, end: i64) -> Judge<'a> {
        let grants = &world.grants;
        let spaces: BTreeSet<&str> = grants.iter().map(|grant| grant.namespace.as_str()).collect();
        let of = |space: &'a str| grants.iter().filter(move |grant| grant.namespace == space);
        let waits = |grant: &Grant| (grant.made, grant.begun.or(grant.ended).unwrap_or(end));
        let holds = |grant: &Grant| {
            let idle = grant.begun.or(grant.ended).unwrap_or(end).min(grant.made + START);
            (grant.made, if grant.begun.is_some() { grant.ended.unwrap_or(end) } else { idle })
        };
        let due = |space: &'a str| {
            of(space).map(|grant| (grant.slot.parse::<Timestamp>().unwrap().as_second(), grant.made)).collect()
        };
        Judge {
            grants,
            waiting: spaces.iter().map(|space| (*space, Line::of(of(space).map(waits), end))).collect(),
            taken: spaces.iter().map(|space| (*space, Line::of(of(space).map(holds), end))).collect(),
            due: spaces.iter().map(|space| (*space, due(space))).collect(),
        }
    }

    /// It had a slot without a Job from `from` to `to`, and nothing stood against one.
    fn might_have(&self, space: &str, from: i64, to: i64) -> bool {
        // The same slot all the time, to be sure.
        let had = self.due[space].iter().any(|(since, until)| *since <= from && *until > to);
        let free = |t: i64| {
            let taken: usize = self.taken.values().map(|line| line.at(t)).sum();
            self.taken[space].at(t) == 0 || taken + PLACES / 4 < PLACES
        };
        had && (from..=to).all(|t| self.waiting[space].at(t) < WAITING && free(t))
    }

    /// Nobody gets a second Job while somebody who might have one gets none.
    pub fn turns(&self) {
        for (n, first) in self.grants.iter().enumerate() {
            let after = self.grants[n + 1..].iter();
            let Some(gap) = after.clone().position(|next| next.namespace == first.namespace) else { continue };
            let between = &self.grants[n + 1..=n + gap];
            let second = &self.grants[n + 1 + gap];
            for space in self.due.keys().filter(|space| **space != first.namespace) {
                let had = between.iter().any(|grant| grant.namespace == *space);
                assert!(
                    had || !self.might_have(space, first.made, second.made),
                    "{space} was passed over: {first:?} {second:?}"
                );
            }
        }
    }

    /// Within a namespace the oldest slot goes first. (Of the tenant's nobody can tell: its runs stand for slots that were
    /// missed while they waited.)
    pub fn order(&self) {
        for (n, grant) in self.grants.iter().enumerate().filter(|(_, grant)| is_honest(&grant.namespace)) {
            let slot: Timestamp = grant.slot.parse().unwrap();
            for later in self.grants[n + 1..].iter().filter(|later| later.namespace == grant.namespace) {
                let other: Timestamp = later.slot.parse().unwrap();
                assert!(other >= slot || later.uid == grant.uid, "{later:?} was older than {grant:?}");
            }
        }
    }
}
