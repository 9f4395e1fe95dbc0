//! What is swept of the watcher.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Instant;

use futures::StreamExt;
use sts_backup::watch::{self, News};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::{ASKED, Case, MINUTE, Seen, judge, settings, world};
use crate::apiserver::answer::No;
use crate::apiserver::fault::{self, Class, Strike};
use crate::draw::{self, Draw};
use crate::jobs::FATES;
use crate::nature::Deed;
use crate::wire::{clock, runtime};
use crate::{order, shop};

/// A sweep, its red cases told as lines.
struct Sweep {
    base: Seen,
    cases: usize,
    red: Vec<(String, Vec<String>)>,
    begun: Instant,
}

impl Sweep {
    fn new(base: &Case) -> Sweep {
        Sweep { base: judge(base, None), cases: 0, red: vec![], begun: Instant::now() }
    }

    fn run(&mut self, line: impl Debug, case: &Case) {
        self.cases += 1;
        let bad = judge(case, Some(&self.base)).bad;
        if !bad.is_empty() {
            self.red.push((format!("{line:?}"), bad));
        }
    }

    fn end(self, what: &str, least: usize) {
        println!("watcher, {what}: {} cases, {} red, {:.1?}", self.cases, self.red.len(), self.begun.elapsed());
        for (line, bad) in self.red.iter().take(20) {
            println!("  {line}: {bad:?}");
        }
        assert!(self.cases >= least && self.red.is_empty());
    }
}

fn strikes() -> [Strike; 9] {
    [
        Strike::DieBefore,
        Strike::DieAfter,
        Strike::Straggle,
        Strike::LostBefore,
        Strike::LostAfter,
        Strike::Hang,
        Strike::Say(fault::broken()),
        Strike::Say(fault::busy()),
        Strike::SayAfter(fault::late()),
    ]
}

#[test]
fn undisturbed_each_slot_runs_once() {
    for unstreamed in [false, true] {
        let seen = judge(&Case { unstreamed, ..Case::default() }, None);
        println!("{:?}, {} Jobs, {:?}", seen.counts, seen.jobs, seen.ran);
        if !seen.bad.is_empty() || std::env::var_os("SSB_SHOW").is_some() {
            println!("{}", seen.log.join("\n"));
        }
        assert_eq!(seen.bad, Vec::<String>::new());
        let slot = |minute: &u32| format!("2027-01-15T08:{minute:02}:00Z");
        let slots = |minutes: &[u32]| minutes.iter().map(slot).collect::<BTreeSet<_>>();
        // The first run, at once; and what the schedules say.
        assert_eq!(seen.ran["once"], slots(&[0]));
        assert_eq!(seen.ran["other"], slots(&[0, 1, 5]));
        let asked = BTreeSet::from([super::ASKED.to_owned()]);
        assert_eq!(seen.ran[shop::POLICY], &slots(&[0, 2, 4, 6]) | &asked);
    }
}

#[test]
fn every_write_is_struck_by_everything() {
    let mut sweep = Sweep::new(&Case::default());
    let mut draw = Draw::new(13, 1);
    for k in 0..sweep.base.counts[&Class::Write] {
        for strike in strikes().into_iter().filter(|_| draw.take()) {
            let case = Case { strikes: vec![(Class::Write, k, strike.clone())], ..Case::default() };
            sweep.run((Class::Write, k, strike), &case);
        }
    }
    println!("{draw}");
    sweep.end("writes", 5);
}

#[test]
fn every_pair_of_deaths_comes_to_the_same() {
    let mut sweep = Sweep::new(&Case::default());
    let (mut draw, kinds) = (Draw::new(300, 40), [Strike::DieBefore, Strike::DieAfter, Strike::LostAfter]);
    let writes = sweep.base.counts[&Class::Write];
    for (k, j) in (0..writes).flat_map(|k| (k + 1..writes).map(move |j| (k, j))) {
        for (first, second) in kinds.iter().flat_map(|first| kinds.iter().map(move |second| (first, second))) {
            if draw.take() {
                let strikes = vec![(Class::Write, k, first.clone()), (Class::Write, j, second.clone())];
                sweep.run(strikes.clone(), &Case { strikes, ..Case::default() });
            }
        }
    }
    println!("{draw}");
    sweep.end("pairs", 4);
}

#[test]
fn watches_may_be_refused_cut_expired_late_and_repeated() {
    for unstreamed in [false, true] {
        let base = Case { unstreamed, ..Case::default() };
        let mut sweep = Sweep::new(&base);
        let mut draw = Draw::new(5, 1);
        for k in 0..sweep.base.counts[&Class::Watch] {
            let refusals = [fault::broken(), fault::busy(), No::expired("too old resource version")].map(Strike::Say);
            let strikes = refusals.into_iter().chain([Strike::LostBefore, Strike::DieAfter]);
            for strike in strikes.filter(|_| draw.take()) {
                let case = Case { strikes: vec![(Class::Watch, k, strike.clone())], ..base.clone() };
                sweep.run((Class::Watch, k, strike), &case);
            }
        }
        for k in 0..sweep.base.counts[&Class::Write] {
            for deed in [Deed::Cut, Deed::Compact].into_iter().filter(|_| draw.take()) {
                sweep.run((k, deed), &Case { deeds: vec![(k, deed)], ..base.clone() });
            }
        }
        for late in
            ["jobs", "statefulsetbackups"].into_iter().flat_map(|what| [1, 7, 25].map(|seconds| (what, seconds)))
        {
            sweep.run(late, &Case { late: Some(late), ..base.clone() });
        }
        sweep.run("all is told twice", &Case { twice: true, ..base.clone() });
        println!("{draw}");
        sweep.end(if unstreamed { "watches of an older server" } else { "watches" }, 15);
    }
}

#[test]
fn bad_objects_are_told_of_once_each_and_stop_no_good_one() {
    let bad = if draw::is_whole() { 10_000 } else { 1_000 };
    let base = judge(&Case::default(), None);
    let seen = judge(&Case { bad, ..Case::default() }, Some(&base));
    assert_eq!(seen.bad, Vec::<String>::new());
    assert_eq!(seen.counts[&Class::Event], bad);
}

#[test]
fn a_job_that_is_lost_is_followed_by_another() {
    let mut sweep = Sweep::new(&Case::default());
    let (mut alone, mut together) = (Draw::new(2, 1), Draw::new(100, 12));
    for (n, fate) in (0..sweep.base.jobs).flat_map(|n| FATES.map(|fate| (n, fate))) {
        let lost = Case { fates: BTreeMap::from([(n, fate)]), ..Case::default() };
        if alone.take() {
            sweep.run((n, fate), &lost);
        }
        for k in (0..sweep.base.counts[&Class::Write]).filter(|_| together.take()) {
            let strikes = vec![(Class::Write, k, Strike::DieAfter)];
            sweep.run((n, fate, &strikes), &Case { strikes: strikes.clone(), ..lost.clone() });
        }
    }
    println!("{alone}; together with a death of the watcher: {together}");
    sweep.end("lost Jobs", 10);
}

#[test]
fn of_two_watchers_at_once_neither_runs_a_slot_again() {
    let two = Case { more: 1, ..Case::default() };
    let mut sweep = Sweep::new(&Case::default());
    let mut draw = Draw::new(900, 200);
    for order in order::all().filter(|_| draw.take()) {
        sweep.run(format!("{order:016b}"), &Case { order: Some(order), ..two.clone() });
    }
    println!("orders: {draw}");
    let mut draw = Draw::new(16, 3);
    for k in 0..2 * sweep.base.counts[&Class::Write] {
        for strike in [Strike::DieBefore, Strike::DieAfter, Strike::Straggle].into_iter().filter(|_| draw.take()) {
            let case = Case { strikes: vec![(Class::Write, k, strike.clone())], ..two.clone() };
            sweep.run((Class::Write, k, strike), &case);
        }
    }
    println!("deaths: {draw}");
    sweep.end("two at once", 10);
}

/// Of what is missed the newest slot runs, once, and nothing else is made up for.
#[test]
fn a_server_that_is_away_for_an_hour_costs_the_slots_of_that_hour_but_the_last() {
    for more in [0, 1] {
        // Until 09:02:10; and what has failed is tried again within a minute.
        let seen = judge(&Case { more, away: Some((4, 58)), ..Case::default() }, None);
        assert_eq!(seen.bad, Vec::<String>::new(), "{}", seen.log.join("\n"));
        let planned = |name: &str| seen.ran[name].iter().filter(|slot| *slot != ASKED);
        let hour = |name: &str| planned(name).filter_map(|slot| slot.get(11..16)).collect::<Vec<_>>();
        assert_eq!(hour(shop::POLICY), ["08:00", "08:02", "08:04", "09:02", "09:04", "09:06", "09:08"]);
        assert_eq!(hour("other"), ["08:00", "08:01", "09:01", "09:05", "09:09"]);
    }
}

/// What a clock that is ahead has made due is not due again when it is right, and what comes after it waits; a clock that
/// is behind makes up for the newest slot that it has missed.
#[test]
fn a_clock_that_is_set_an_hour_ahead_or_back_runs_no_slot_twice() {
    for (minutes, nightly, other) in [
        (60, "08:00 08:02 09:02 09:04 09:06", "08:00 08:01 09:01 09:05"),
        (5, "08:00 08:02 08:08 08:10 08:12", "08:00 08:01 08:05 08:09"),
        (-5, "08:00 08:02 08:08 08:10", "08:00 08:01 08:05 08:09"),
        (-60, "08:00 08:02 08:08 08:10", "08:00 08:01 08:05 08:09"),
    ] {
        let seen = judge(&Case { set: Some((3, minutes)), ..Case::default() }, None);
        assert_eq!(seen.bad, Vec::<String>::new(), "{}", seen.log.join("\n"));
        let planned = |name: &str| seen.ran[name].iter().filter(|slot| *slot != ASKED);
        let hours = |name: &str| planned(name).filter_map(|slot| slot.get(11..16)).collect::<Vec<_>>().join(" ");
        assert_eq!((&*hours(shop::POLICY), &*hours("other")), (nightly, other), "{minutes} min");
    }
}

#[test]
fn a_watch_that_stands_again_is_known_to_although_nothing_happens() {
    for unstreamed in [false, true] {
        LocalSet::new().block_on(&runtime(), async {
            let server = world(&Case { unstreamed, ..Case::default() }, clock());
            let (client, _) = server.client(None);
            let mut news = watch::news(client, &settings().feeds()[0], &settings());
            while !matches!(news.next().await, Some(News::End(_))) {}
            // At least until its time is over, nothing is to be told.
            assert!(timeout(MINUTE, news.next()).await.is_err());
            server.act(|state| {
                let k = state.faults.count(Class::Watch);
                let no = Strike::Say(fault::forbidden());
                state.faults.strikes = (k..k + 3).map(|k| ((Class::Watch, k), no.clone())).collect();
                state.cuts += 1;
            });
            let mut told = vec![];
            while !matches!(told.last(), Some(News::Alive(_))) {
                let next = timeout(3 * MINUTE, news.next()).await;
                told.push(next.unwrap_or_else(|_| panic!("it keeps silent after {told:?}")).unwrap());
            }
            let troubles = told.iter().filter(|news| matches!(news, News::Trouble(..) | News::Barred(..))).count();
            assert!((3..=4).contains(&troubles) && troubles + 1 == told.len(), "{told:?}");
        });
    }
}

#[test]
fn one_watcher() {
    let Ok(line) = std::env::var("SSB_WATCHER") else { return };
    let words: Vec<&str> = line.split_whitespace().collect();
    let class = [Class::Write, Class::Watch].into_iter().find(|class| format!("{class:?}") == words[0]).unwrap();
    let strike = strikes().into_iter().find(|strike| format!("{strike:?}").starts_with(words[2])).unwrap();
    let base = judge(&Case::default(), None);
    let seen =
        judge(&Case { strikes: vec![(class, words[1].parse().unwrap(), strike)], ..Case::default() }, Some(&base));
    println!("{}\n{:?}\n{:?}", seen.log.join("\n"), seen.ran, seen.bad);
}
