//! Freezes that come to nothing, each counted and none without end; and what is certain about a hook that was not
//! started: on the wire.

mod apart;
mod start;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::IntentPhase;
use sts_backup::plan::flow::Exit;
use sts_backup::step::clock::Clock;

use crate::apiserver::store::{Change, What, text};
use crate::apiserver::{ApiServer, State};
use crate::shop::{Deed, POLICY};
use crate::truth;
use crate::wire::{Case, Command, process, runtime, to_the_end, world};

/// How a run ended, and the world after it.
struct Seen {
    reason: Option<Reason>,
    message: String,
    good: bool,
    state: Aftermath,
}

#[derive(Debug)]
struct Aftermath {
    frozen: usize,
    thaws: u32,
    /// Snapshots that were ever made.
    made: usize,
    freezes: Vec<Stage>,
    log: Vec<String>,
    violations: Vec<String>,
    took: SignedDuration,
}

impl Aftermath {
    fn execs(&self, word: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with("exec") && line.contains(word)).count()
    }

    /// From the end of each void freeze to the beginning of the next.
    fn pauses(&self) -> Vec<i64> {
        let void = |stage: &&Stage| stage.phase == IntentPhase::Void;
        let after = |void: &Stage| {
            let next = self.freezes.iter().find(|next| next.phase == IntentPhase::Frozen && next.id > void.id)?;
            Some(next.since.duration_since(void.since).as_secs())
        };
        self.freezes.iter().filter(void).filter_map(after).collect()
    }

    fn ids(&self) -> BTreeSet<&String> {
        self.freezes.iter().map(|stage| &stage.id).collect()
    }
}

/// An entry of the journal, as it was stored, with what status said of it.
#[derive(Debug, Clone)]
struct Stage {
    phase: IntentPhase,
    id: String,
    since: Timestamp,
    message: String,
}

fn stages(state: &State) -> Vec<Stage> {
    let ours = state.store.log.iter().filter(|change| change.key.kind.resource == "statefulsetbackups");
    let mut all: Vec<Stage> = vec![];
    for change in ours {
        let status = &change.object["status"];
        let intent = &status["run"]["intent"];
        let Ok(phase) = serde_json::from_value(intent["phase"].clone()) else { continue };
        let since = text(intent, "/since").parse().unwrap();
        let (id, message) = (text(status, "/run/id").to_owned(), text(status, "/message").to_owned());
        if !all.iter().any(|stage| (stage.phase, &stage.id) == (phase, &id)) {
            all.push(Stage { phase, id, since, message });
        }
    }
    all
}

fn aftermath(state: &mut State, took: SignedDuration) -> Aftermath {
    let added = |change: &&Change| change.key.kind.resource == "volumesnapshots" && change.what == What::Added;
    let mut violations = std::mem::take(&mut state.violations);
    violations.extend(truth::passages(state));
    Aftermath {
        frozen: truth::frozen(state),
        thaws: state.nature.thaws,
        made: state.store.log.iter().filter(added).count(),
        freezes: stages(state),
        log: std::mem::take(&mut state.log),
        violations,
        took,
    }
}

fn seen(server: &ApiServer, clock: Clock, begun: Timestamp) -> Seen {
    server.act(|state| {
        let status = truth::record(&state.store, POLICY).unwrap().status;
        let last = status.last_run.unwrap_or_default();
        let good = last.outcome == Some(sts_backup::api::shared::Outcome::Succeeded);
        let state = aftermath(state, clock.now().duration_since(begun));
        Seen { reason: last.reason, message: status.message.unwrap_or_default(), good, state }
    })
}

/// One run with hooks, in one process, in the world as `change` leaves it.
fn run(change: impl FnOnce(&mut State)) -> Seen {
    runtime().block_on(async {
        let (server, clock) = world(&Case::of(true));
        server.act(change);
        let begun = clock.now();
        let exit = Box::pin(process(&server, clock, POLICY, "one")).await;
        let seen = seen(&server, clock, begun);
        assert!(matches!(exit, Some(Exit::Done(_))), "{exit:?} after {} freezes", seen.state.ids().len());
        seen
    })
}

fn in_seconds(state: &State, seconds: i64) -> Timestamp {
    state.store.clock.now() + SignedDuration::from_secs(seconds)
}

/// Two freezes may be void, with a pause after each; the third is the last.
fn costs_three(seen: &Seen) {
    let all = &seen.state;
    assert_eq!(all.ids().len(), 3, "{:?}", all.freezes);
    assert_eq!((all.frozen, &all.violations), (0, &vec![]));
    assert!(all.made <= 3 * 4, "{} snapshots", all.made);
    let pauses = all.pauses();
    assert!(matches!(pauses[..], [10..15, 20..25]), "{pauses:?}");
    let void: Vec<_> = all.freezes.iter().filter(|stage| stage.phase == IntentPhase::Void).collect();
    for (stage, pause) in void.iter().zip(["10 s", "20 s"]) {
        let said = &stage.message;
        assert!(
            said.contains(&format!("after a pause of {pause}")) && said.contains("Nothing is frozen now"),
            "{said}"
        );
    }
    assert!(seen.message.contains("the third try of this run that came to nothing"), "{}", seen.message);
}

#[test]
fn a_pod_that_is_deleted_in_each_freeze_costs_three_freezes_with_pauses_that_grow() {
    let seen = run(|state| state.nature.strike = Some(|state| Deed::DeletePod.take_place(state)));
    costs_three(&seen);
    assert_eq!(seen.reason, Some(Reason::PodNotRunning), "{}", seen.message);
    assert!(seen.message.starts_with("pod web-0 was deleted or replaced in the freeze"), "{}", seen.message);
}

#[test]
fn a_container_that_restarts_in_each_freeze_costs_three() {
    let seen = run(|state| state.nature.strike = Some(|state| Deed::RestartContainer.take_place(state)));
    costs_three(&seen);
    assert_eq!(seen.reason, Some(Reason::PodNotRunning), "{}", seen.message);
    assert!(seen.message.contains("does its liveness probe outlast the freeze?"), "{}", seen.message);
}

const ONLY: Command = Command { name: POLICY, slot: "one", second: false };

/// Process after process of one run, each of which dies in its freeze.
#[test]
fn a_run_that_is_killed_in_each_freeze_is_not_begun_without_end() {
    for (kills, good) in [(2, true), (5, false)] {
        let seen = runtime().block_on(async {
            let (server, clock) = world(&Case::of(true));
            server.act(|state| state.faults.deadly = kills);
            let begun = clock.now();
            Box::pin(to_the_end(&server, clock, ONLY)).await;
            seen(&server, clock, begun)
        });
        assert_eq!((seen.good, seen.state.frozen), (good, 0), "{kills} kills: {}", seen.message);
        assert_eq!(seen.state.ids().len(), 3, "{kills} kills: {:?}", seen.state.freezes);
        let pauses = seen.state.pauses();
        assert!(matches!(pauses[..], [first, second] if first >= 10 && second >= 20), "{pauses:?}");
        if !good {
            assert_eq!(seen.reason, Some(Reason::JobLost), "{}", seen.message);
            assert!(seen.message.contains("the third try of this run"), "{}", seen.message);
        }
    }
}

/// A run without hooks freezes nothing, and yet makes snapshots.
#[test]
fn tries_without_hooks_are_counted_as_well() {
    let seen = runtime().block_on(async {
        let (server, clock) = world(&Case::of(false));
        server.act(|state| state.faults.deadly = 9);
        let begun = clock.now();
        Box::pin(to_the_end(&server, clock, ONLY)).await;
        seen(&server, clock, begun)
    });
    assert_eq!((seen.good, seen.state.ids().len()), (false, 3), "{}", seen.message);
}
