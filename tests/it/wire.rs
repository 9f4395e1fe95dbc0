//! The flow on the wire: the real effects, reads, watches and hooks of a process, against the double.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use sts_backup::api::condition::Reason;
use sts_backup::api::shared::{Outcome, Trigger};
use sts_backup::config::Settings;
use sts_backup::generate::rbac;
use sts_backup::plan::backup;
use sts_backup::plan::flow::{Exit, Planner, Step};
use sts_backup::plan::journal::Journal;
use sts_backup::plan::noun::{self, Refusal, Snap, Stop};
use sts_backup::plan::view::{Fact, Seen, View};
use sts_backup::run::{self, Request};
use sts_backup::step::clock::Clock;
use sts_backup::step::cluster::Cluster;
use sts_backup::step::{Effect, drive, record};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use crate::apiserver::ApiServer;
use crate::apiserver::answer::No;
use crate::apiserver::fault::{Class, Life, Strike};
use crate::apiserver::store::Store;
use crate::nature::{Act, Deed, Nature, Pace};
use crate::{shop, truth};

pub use verdict::{Verdict, judge};

/// No run needs more processes than that.
const PROCESSES: usize = 10;

/// After a thaw, at the latest, that a SIGTERM asks for.
const PROMPT: SignedDuration = SignedDuration::from_secs(2);

/// The one command of a world in which there is no other.
const ONLY: Command = Command { name: shop::POLICY, slot: "slot", second: false };

/// What is to go wrong in one case; printed, it is the line that reproduces it.
#[derive(Debug, Clone, Default)]
pub struct Case {
    pub hooks: bool,
    pub slow: bool,
    pub strikes: Vec<(Class, usize, Strike)>,
    pub deeds: Vec<(usize, Deed)>,
    pub sigterm: Option<usize>,
    /// From that write on everybody hears this, for so long.
    pub spell: Option<(usize, No, Duration)>,
    /// Broken on purpose: deletions without their preconditions.
    pub blind: bool,
    pub standing: Standing,
}

/// What guards a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// It runs in a pod, and the policies stand.
    #[default]
    Guarded,
    /// It runs in a pod, and there are no policies.
    Unguarded,
    /// Somebody runs it with rights of their own, and there are no policies.
    ByHand,
}

impl Case {
    pub fn of(hooks: bool) -> Case {
        Case { hooks, ..Case::default() }
    }

    pub fn strike(&self, class: Class, k: usize, strike: &Strike) -> Case {
        let mut case = self.clone();
        case.strikes.push((class, k, strike.clone()));
        case
    }

    pub fn deed(&self, k: usize, deed: Deed) -> Case {
        let mut case = self.clone();
        case.deeds.push((k, deed));
        case
    }

    pub fn sigterm(&self, k: usize) -> Case {
        Case { sigterm: Some(k), ..self.clone() }
    }

    pub fn spell(&self, k: usize, no: &No, long: Duration) -> Case {
        Case { spell: Some((k, no.clone(), long)), ..self.clone() }
    }

    fn has(&self, deeds: &[Deed]) -> bool {
        self.deeds.iter().any(|(_, deed)| deeds.contains(deed))
    }

    fn refuses(&self) -> bool {
        self.strikes.iter().any(|(_, _, strike)| matches!(strike, Strike::Say(no) if no.code == 403))
    }

    /// It takes the way of some reply, or holds up the proof, so that nobody knows how a hook ended.
    fn hides(&self) -> bool {
        self.spell.is_some()
            || self.strikes.iter().any(|(class, _, strike)| {
                let proof = *class == Class::Read && matches!(strike, Strike::Hang | Strike::Mute);
                proof
                    || *class == Class::Write
                        && matches!(
                            strike,
                            Strike::LostBefore
                                | Strike::LostAfter
                                | Strike::Hang
                                | Strike::Say(_)
                                | Strike::SayAfter(_)
                        )
            })
    }
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// When every world on the wire begins.
pub fn clock() -> Clock {
    Clock::at(Timestamp::from_second(1_800_000_000).unwrap())
}

pub fn world(case: &Case) -> (ApiServer, Clock) {
    let clock = clock();
    let pace = if case.slow {
        let seconds = SignedDuration::from_secs(25);
        Pace { cut: seconds, ready: SignedDuration::from_secs(60), hook: std::time::Duration::from_secs(4) }
    } else {
        Pace::default()
    };
    let server = ApiServer::start(clock, Nature::new(case.hooks, pace));
    server.act(|state| shop::open(state, case.hooks));
    server.act(|state| {
        state.log.clear();
        for (class, k, strike) in &case.strikes {
            state.faults.strikes.insert((*class, *k), strike.clone());
        }
        state.faults.deeds = case.deeds.iter().copied().collect();
        state.faults.sigterm_at = case.sigterm;
        state.faults.spell.clone_from(&case.spell);
        state.faults.blind = case.blind;
        if case.standing != Standing::Guarded {
            shop::unguard(&mut state.store);
        }
        state.nature.by_hand = case.standing == Standing::ByHand;
    });
    (server, clock)
}

/// What processes are started for.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub name: &'static str,
    pub slot: &'static str,
    /// Of two at once.
    pub second: bool,
}

/// One process from its start to its exit; none: it died.
pub async fn process(server: &ApiServer, clock: Clock, name: &'static str, slot: &'static str) -> Option<Exit> {
    Box::pin(start(server, clock, Command { name, slot, second: false })).await
}

async fn start(server: &ApiServer, clock: Clock, command: Command) -> Option<Exit> {
    let (client, life) = server.client(Some(rbac::runner_verbs()));
    life.second.store(command.second, Ordering::Relaxed);
    let request = Request {
        namespace: shop::NAMESPACE.into(),
        name: command.name.into(),
        slot: Some(command.slot.into()),
        trigger: Trigger::Command,
        attempt: None,
    };
    Box::pin(carry_out(server, clock, &request, (client, life))).await
}

/// The process of that client, from its start to its exit; none: it died.
pub async fn carry_out(
    server: &ApiServer,
    clock: Clock,
    request: &Request,
    (client, life): (Client, Arc<Life>),
) -> Option<Exit> {
    let found = server.look().store.get(&shop::object(&request.name)).cloned();
    let Some(found) = found else {
        return Some(Exit::Refused(Refusal::new(Reason::Superseded, "there is no such object")));
    };
    let object = serde_json::from_value(found).unwrap();
    let slot = request.slot.as_deref().unwrap_or_default();
    let want = run::want(&object, &Settings::default(), request, clock.now()).unwrap();
    let want = noun::Want { guarded: !server.look().nature.by_hand, ..want };
    let cluster = Cluster::new(client, want.clone(), clock);
    let mut view = View::new(want);
    view.fold(Fact::Record(Box::new(Seen::Known(record::record(&object, slot)))));
    Box::pin(live(server, &cluster, &life, backup::next, view)).await
}

/// Of either flow, until it exits or dies.
pub async fn live<S: Step>(
    server: &ApiServer,
    cluster: &Cluster,
    life: &Life,
    planner: Planner<S>,
    view: View,
) -> Option<Exit>
where
    Cluster: Effect<S>,
{
    let exit = tokio::select! {
        biased;
        () = life.died.notified() => None,
        (exit, _) = drive(cluster, planner, view) => Some(exit),
        () = async {
            life.terminate.notified().await;
            cluster.ask_to_stop(Stop::Sigterm);
            std::future::pending::<()>().await;
        } => None,
    };
    server.act(|state| state.log.push(format!("-- the process ends: {exit:?}")));
    exit
}

/// Process after process, until one ends the run.
pub async fn to_the_end(server: &ApiServer, clock: Clock, command: Command) -> Vec<Option<Exit>> {
    let (name, mut exits) = (command.name, vec![]);
    for _ in 0..PROCESSES {
        let exit = Box::pin(start(server, clock, command)).await;
        let over = match exit {
            Some(Exit::Done(_) | Exit::Refused(_)) => true,
            Some(Exit::Superseded(_)) => is_over(&server.look().store, name),
            _ => false,
        };
        exits.push(exit);
        if over {
            return exits;
        }
        sleep(std::time::Duration::from_secs(5)).await;
    }
    server.act(|state| state.violations.push(format!("not done after {PROCESSES} processes")));
    exits
}

/// The run was found ended, with nothing left to do.
fn is_over(store: &Store, name: &str) -> bool {
    let open = truth::lease(store).is_some_and(|lease| lease.open.is_some());
    let ended = truth::record(store, name).is_some_and(|record| {
        record.finalizers.is_empty() && record.status.last_run.is_some_and(|last| last.outcome.is_some())
    });
    ended && !open
}

#[test]
fn a_run_on_the_wire_is_undisturbed() {
    for hooks in [true, false] {
        let seen = judge(&Case::of(hooks));
        println!("{} writes, {} reads, {} watches", seen.writes, seen.reads, seen.watches);
        if !seen.bad.is_empty() || std::env::var_os("SSB_SHOW").is_some() {
            println!("{}", seen.log.join("\n"));
        }
        assert_eq!(seen.bad, Vec::<String>::new());
    }
}

#[test]
fn an_id_names_one_freeze_however_soon_the_next_one_is() {
    let case = Case::of(true);
    runtime().block_on(async {
        let (server, clock) = world(&case);
        let sick = Act::failing(1, "no");
        server.act(|state| state.nature.scripts.insert(("web-0".into(), "freeze".into()), sick));
        let first = Box::pin(process(&server, clock, shop::POLICY, "one")).await;
        assert!(matches!(first, Some(Exit::Done(outcome)) if outcome != noun::Outcome::Succeeded));
        server.act(|state| state.nature.scripts.clear());
        let second = Box::pin(process(&server, clock, shop::POLICY, "two")).await;
        assert_eq!(second, Some(Exit::Done(noun::Outcome::Succeeded)));
        let state = server.look();
        assert_eq!(state.violations, Vec::<String>::new());
        let history = truth::record(&state.store, shop::POLICY).unwrap().status.history;
        assert!(history[0].id > history[1].id, "{history:?}");
    });
}
