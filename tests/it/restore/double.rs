//! Restore, undo and release on the wire: the real effects, reads and watches of a process against the double of the API
//! server, beside which the controllers of a cluster are at work (`double/storage.rs`).

pub mod before;
mod binder;
mod class;
mod leave;
pub mod storage;
mod sweep;
mod truth;
mod verdict;

use std::time::Duration;

use sts_backup::api::annotation;
use sts_backup::api::restore::{RestorePhase, Strategy};
use sts_backup::config::Settings;
use sts_backup::generate::rbac;
use sts_backup::plan::flow::{Exit, Planner, Verb};
use sts_backup::plan::noun::Want;
use sts_backup::plan::restore::sight::Sight;
use sts_backup::plan::restore::{self, Restore, release, undo};
use sts_backup::plan::view::{Fact, View};
use sts_backup::run::restore::{self as run, Flow, Request};
use sts_backup::step::clock::Clock;
use sts_backup::step::cluster::Cluster;
use sts_backup::step::record;
use tokio::time::{sleep, timeout};

use super::world::{Odd, Setting};
use crate::apiserver::answer::No;
use crate::apiserver::fault::{Class, Faults, Hand, Strike};
use crate::apiserver::{ApiServer, State};
use crate::nature::Nature;
use crate::shop;
use crate::wire::{clock, live, runtime};

use before::NAME;

/// No command needs more processes than that.
const PROCESSES: usize = 9;

/// Who takes longer never ends.
const LONG: Duration = Duration::from_hours(2);

/// What befalls a command.
#[derive(Debug, Clone)]
pub enum Blow {
    Strike(Class, usize, Strike),
    /// What somebody does right before a write, by its name.
    Hand(usize, &'static str, Hand),
    /// From a write on all requests are answered so, for that long.
    Spell(usize, No, Duration),
    Sigterm(usize),
}

/// Of which command the requests are struck; what comes before it is undisturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Restore,
    Undo,
    Release,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub setting: Setting,
    pub what: What,
    pub blows: Vec<Blow>,
}

/// What was wrong, and how many requests there were to strike.
pub struct Verdict {
    pub bad: Vec<String>,
    pub log: Vec<String>,
    pub writes: usize,
    pub reads: usize,
    pub watches: usize,
    pub renewals: usize,
}

pub const STAGED: Setting = Setting { strategy: Strategy::Staged, odd: Odd::Nothing };

impl Case {
    pub fn of(setting: Setting, what: What) -> Case {
        Case { setting, what, blows: vec![] }
    }

    pub fn with(&self, blow: Blow) -> Case {
        let mut case = self.clone();
        case.blows.push(blow);
        case
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for blow in self.blows.iter().cloned() {
            match blow {
                Blow::Strike(class, k, strike) => drop(faults.strikes.insert((class, k), strike)),
                Blow::Hand(k, _, hand) => drop(faults.hands.insert(k, hand)),
                Blow::Spell(k, no, long) => faults.spell = Some((k, no, long)),
                Blow::Sigterm(k) => faults.sigterm_at = Some(k),
            }
        }
        faults
    }
}

/// One process from its start to its exit; none: it died.
async fn process(server: &ApiServer, clock: Clock, flow: Flow) -> Option<Exit> {
    process_with(server, clock, flow, rbac::runner_verbs()).await
}

/// The same with other rights.
async fn process_with(server: &ApiServer, clock: Clock, flow: Flow, rights: Vec<Verb>) -> Option<Exit> {
    let (client, life) = server.client(Some(rights));
    let object = server.look().store.get(&before::object()).cloned()?;
    let object = serde_json::from_value(object).unwrap();
    let request = Request { namespace: shop::NAMESPACE.into(), name: NAME.into(), flow, attempt: Some(1) };
    let want = run::want(&object, &Settings::default(), &request, clock.now()).unwrap();
    let want = Want { guarded: true, ..want };
    let cluster = Cluster::new(client, want.clone(), clock);
    let mut view = View::new(want);
    view.fold(Fact::Restore(Box::new(Sight::Record(Box::new(record::restore_record(&object))))));
    let planner: Planner<Restore> = match flow {
        Flow::Restore => restore::next,
        Flow::Undo { .. } => undo::next,
        Flow::Release => release::next,
    };
    Box::pin(live(server, &cluster, &life, planner, view)).await
}

/// Process after process, until one ends the command.
async fn command(server: &ApiServer, clock: Clock, what: What) -> Option<Exit> {
    let flow = match what {
        What::Restore => Flow::Restore,
        What::Undo => Flow::Undo { force: false },
        What::Release => Flow::Release,
    };
    for _ in 0..PROCESSES {
        let Ok(exit) = timeout(LONG, Box::pin(process(server, clock, flow))).await else {
            server.act(|state| state.violations.push("a process never ends".into()));
            return None;
        };
        let status = truth::status(&server.look().store);
        // What was refused is not asked for again.
        let answered = status.as_ref().is_some_and(|status| {
            let refused = matches!(exit, Some(Exit::Refused(_))) && what == What::Undo;
            refused && status.last_request.is_some() && status.phase == Some(RestorePhase::Completed)
        });
        if status.is_none() || answered || matches!(exit, Some(Exit::Done(_) | Exit::Waits(_))) {
            return exit;
        }
        sleep(Duration::from_secs(5)).await;
    }
    server.act(|state| state.violations.push(format!("not done after {PROCESSES} processes")));
    None
}

/// The world in which the restore is asked for.
async fn world(setting: Setting) -> (ApiServer, Clock) {
    let clock = clock();
    let server = ApiServer::start(clock, Nature::of_restore());
    server.act(|state| before::open(state, setting));
    sleep(Duration::from_mins(1)).await;
    server.act(|state| before::run(&mut state.store));
    sleep(before::AGE.try_into().unwrap()).await;
    server.act(|state| {
        before::ask(state, setting);
        state.check = truth::check;
        state.log.clear();
        assert_eq!(state.violations, Vec::<String>::new());
    });
    (server, clock)
}

pub fn judge(case: &Case) -> Verdict {
    runtime().block_on(async {
        let (server, clock) = world(case.setting).await;
        if case.what != What::Restore {
            command(&server, clock, What::Restore).await;
            sleep(Duration::from_secs(10)).await;
            server.act(completed);
        }
        match case.what {
            What::Restore => {}
            What::Undo => server.act(|state| {
                let asked = |object: &mut serde_json::Value| {
                    object["metadata"]["annotations"][annotation::UNDO] = "please".into();
                };
                state.store.change(&before::object(), false, asked);
            }),
            What::Release => {
                sleep(Duration::from_hours(25)).await;
                server.act(|state| state.nature.storage.as_mut().unwrap().released = true);
            }
        }
        server.act(|state| state.faults = case.faults());
        command(&server, clock, case.what).await;
        let (writes, reads) = count(&server, Class::Write, Class::Read);
        let (renewals, watches) = count(&server, Class::Renewal, Class::Watch);
        sleep(Duration::from_mins(1)).await; // what goes is gone
        server.act(|state| {
            for what in truth::broken(state).into_iter().chain(verdict::verdict(state, case)) {
                truth::violate(state, what);
            }
            let (bad, log) = (std::mem::take(&mut state.violations), std::mem::take(&mut state.log));
            Verdict { bad, log, writes, reads, watches, renewals }
        })
    })
}

fn completed(state: &mut State) {
    let phase = truth::status(&state.store).and_then(|status| status.phase);
    assert_eq!(phase, Some(RestorePhase::Completed), "{}", state.log.join("\n"));
}

fn count(server: &ApiServer, one: Class, other: Class) -> (usize, usize) {
    let state = server.look();
    (state.faults.count(one), state.faults.count(other))
}
