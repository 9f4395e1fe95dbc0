//! The watcher on the wire, with its real feeds and requests, before policies of one StatefulSet that are due every few
//! minutes, and with runners that really run: every request of it struck by everything, its watches cut, late, repeated and
//! expired, Jobs that are lost, two watchers at once, a server that is away and clocks that are set. Each slot runs
//! exactly once.
//!
//! One case from its line: `SSB_WATCHER='Write 7 DieAfter' cargo test --test it one_watcher -- --nocapture`

mod beside;
mod sweep;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sts_backup::api::annotation;
use sts_backup::config::Watching;
use sts_backup::generate::rbac;
use sts_backup::plan::job::Template;
use sts_backup::step::clock::Clock;
use sts_backup::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use crate::apiserver::fault::{Class, Strike};
use crate::apiserver::kind::Key;
use crate::apiserver::store::{Store, What, text};
use crate::apiserver::{ApiServer, State};
use crate::jobs::{Fate, Jobs};
use crate::nature::{Deed, Nature, Pace};
use crate::wire::{clock, runtime};
use crate::{order, shop, truth};

const MINUTE: Duration = Duration::from_mins(1);
/// From the start of the watchers to the verdict: three slots of one policy, two of the other, some seconds of rest.
const SHORT: Duration = Duration::from_secs(7 * 60 + 40);
/// Where it takes longer to see what follows.
const LONG: Duration = Duration::from_secs(11 * 60 + 40);
const SCHEDULES: [(&str, &str); 3] = [(shop::POLICY, "*/2 * * * *"), ("other", "1-59/4 * * * *"), ("once", "")];
/// Before a watcher that has died is back.
const PAUSE: Duration = Duration::from_secs(1);
const INSTALL: &str = "shop/sts-backup";
/// The kubelet must not make something else of it.
const ASKED: &str = "please $(SSB_POD_UID) $$";

#[derive(Debug, Clone, Default)]
struct Case {
    /// Beside the first.
    more: usize,
    strikes: Vec<(Class, usize, Strike)>,
    deeds: Vec<(usize, Deed)>,
    fates: BTreeMap<usize, Fate>,
    order: Option<u32>,
    late: Option<(&'static str, u64)>,
    twice: bool,
    unstreamed: bool,
    /// So many objects beside the others that nobody can make sense of.
    bad: usize,
    /// From then on nobody gets an answer, for so many minutes.
    away: Option<(u64, u64)>,
    /// Then the watcher's clock is set ahead or back by so many minutes, and set right again five minutes later.
    set: Option<(u64, i64)>,
}

impl Case {
    /// Slots may be missed.
    fn is_gap(&self) -> bool {
        self.away.is_some() || self.set.is_some()
    }
}

/// How it ended.
struct Seen {
    bad: Vec<String>,
    log: Vec<String>,
    /// The slots that ran, by policy.
    ran: BTreeMap<String, BTreeSet<String>>,
    counts: BTreeMap<Class, usize>,
    jobs: usize,
}

/// The requests of watcher and runners where nothing goes wrong.
pub fn requests() -> Vec<String> {
    judge(&Case::default(), None).log
}

fn settings() -> Watching {
    Watching {
        namespace: shop::NAMESPACE.into(),
        install: INSTALL.into(),
        leader: false,
        pod: "watcher".into(),
        template: Template { namespace: shop::NAMESPACE.into(), ..Template::default() },
        namespaces: vec![],
        max_concurrent_runs: 10,
        max_concurrent_restores: 10,
        jitter_seconds: 0,
        metrics: "off".into(),
        health: "off".into(),
    }
}

/// One process after the other.
async fn watcher(server: ApiServer, wall: watch::Wall, second: bool) {
    let rights = [rbac::watcher_verbs(true), rbac::watcher_verbs(false)].concat();
    loop {
        let (client, life) = server.client(Some(rights.clone()));
        life.second.store(second, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = life.died.notified() => server.act(|state| state.log.push("-- the watcher dies".into())),
            never = watch::turn(client, settings(), wall.clone()) => match never {},
        }
        sleep(PAUSE).await;
    }
}

fn world(case: &Case, clock: Clock) -> ApiServer {
    let pace = Pace { ready: SignedDuration::from_secs(4), ..Pace::default() };
    let server = ApiServer::start(clock, Nature::new(true, pace));
    server.act(|state| {
        shop::open(state, true);
        for (name, schedule) in SCHEDULES {
            if name != shop::POLICY {
                shop::policy(&mut state.store, name, true);
            }
            state.store.change(&shop::object(name), false, |object| object["spec"]["schedule"] = schedule.into());
        }
        (0..case.bad).for_each(|n| nonsense(&mut state.store, n));
        state.faults.crowd = case.bad;
        state.log.clear();
        for (class, k, strike) in &case.strikes {
            state.faults.strikes.insert((*class, *k), strike.clone());
        }
        state.faults.deeds = case.deeds.iter().copied().collect();
        state.faults.order = case.order.map(order::turns).unwrap_or_default();
        state.faults.late = case.late.map(|(resource, seconds)| (resource, Duration::from_secs(seconds)));
        (state.faults.twice, state.faults.unstreamed) = (case.twice, case.unstreamed);
    });
    server
}

/// A restore as no schema would let it in, and as hands and older versions leave it.
fn nonsense(store: &mut Store, n: usize) {
    let spec =
        [json!(7), json!({ "statefulSetRef": "web" }), json!({ "statefulSetRef": { "name": "Web!" } }), Value::Null];
    let key = Key::new("statefulsetrestores", shop::NAMESPACE, &format!("odd-{n}"));
    store.create(&key, json!({ "metadata": {}, "spec": spec[n % spec.len()] }), false).unwrap();
    if n % 2 == 1 {
        store.change(&key, true, |object| object["status"] = json!({ "run": "gone", "phase": ["Completed"] }));
    }
}

/// What people, the network and the clock do meanwhile.
async fn meanwhile(server: ApiServer, case: Case) {
    let at = |minutes: u64, seconds: u64| MINUTE * u32::try_from(minutes).unwrap() + Duration::from_secs(seconds);
    let ask = async {
        sleep(at(3, 30)).await;
        server.act(|state| {
            state.store.change(&shop::object(shop::POLICY), false, |object| {
                object["metadata"]["annotations"][annotation::REQUESTED_AT] = ASKED.into();
            });
        });
    };
    let leave = async {
        let Some((from, minutes)) = case.away else { return };
        sleep(at(from, 10)).await;
        server.act(|state| {
            let until = state.store.clock.now() + SignedDuration::try_from(at(minutes, 0)).unwrap();
            state.faults.away_until = Some(until);
            state.cuts += 1;
            state.log.push(format!("-- nobody gets an answer until {until}"));
        });
    };
    tokio::join!(ask, leave);
}

/// The world as it is at first, with nobody at work yet but its controllers.
fn undisturbed() -> (ApiServer, Clock) {
    let clock = clock();
    (world(&Case::default(), clock), clock)
}

/// From now on its Jobs are run, and one watcher is at work.
fn at_work(server: &ApiServer, clock: Clock) {
    spawn_local(Jobs::new(server.clone(), clock, BTreeMap::new()).control());
    spawn_local(watcher(server.clone(), wall(&Case::default(), clock), false));
}

/// The clock of the watchers: the world's, but for those minutes in which it is set wrong.
fn wall(case: &Case, clock: Clock) -> watch::Wall {
    let (begun, set) = (clock.now(), case.set);
    Rc::new(move || {
        let now = clock.now();
        let Some((from, minutes)) = set else { return now };
        let wrong = i64::try_from(from * 60).unwrap();
        let since = now.duration_since(begun).as_secs();
        if (wrong..wrong + 300).contains(&since) { now + SignedDuration::from_mins(minutes) } else { now }
    })
}

fn judge(case: &Case, base: Option<&Seen>) -> Seen {
    let rt = runtime();
    LocalSet::new().block_on(&rt, async {
        let clock = clock();
        let server = world(case, clock);
        let jobs = Jobs::new(server.clone(), clock, case.fates.clone());
        spawn_local(jobs.clone().control());
        for w in 0..=case.more {
            spawn_local(watcher(server.clone(), wall(case, clock), w > 0));
        }
        spawn_local(meanwhile(server.clone(), case.clone()));
        let away = case.away.map_or(Duration::ZERO, |(_, minutes)| MINUTE * u32::try_from(minutes).unwrap());
        sleep(if case.is_gap() { LONG + away } else { SHORT }).await;
        let made = jobs.made.take();
        server.act(|state| verdict(state, case, base, &made))
    })
}

fn verdict(state: &mut State, case: &Case, base: Option<&Seen>, made: &[String]) -> Seen {
    let mut bad = std::mem::take(&mut state.violations);
    bad.extend(truth::passages(state));
    if truth::frozen(state) > 0 {
        bad.push("left frozen".into());
    }
    let counts =
        [Class::Write, Class::Read, Class::Watch, Class::Event].map(|class| (class, state.faults.count(class)));
    let mut runs: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for change in state.store.log.iter().filter(|change| change.key.kind.resource == "statefulsetbackups") {
        let last = &change.object["status"]["lastRun"];
        if change.what != What::Deleted && last["outcome"] == "Succeeded" {
            let slot = (change.key.name.clone(), text(last, "/slot").to_owned());
            runs.entry(slot).or_default().insert(text(last, "/id").to_owned());
        }
    }
    let mut ran: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((policy, slot), ids) in runs {
        if ids.len() > 1 {
            bad.push(format!("slot {slot} of {policy} ran {} times", ids.len()));
        }
        ran.entry(policy).or_default().insert(slot);
    }
    let names: BTreeSet<&String> = made.iter().collect();
    if names.len() != made.len() && !case.fates.values().any(|fate| *fate != Fate::Fails) {
        bad.push("a Job was made twice".into());
    }
    bad.extend(fields(state, case));
    let seen = Seen { bad, log: std::mem::take(&mut state.log), ran, counts: counts.into(), jobs: made.len() };
    compare(seen, case, base)
}

/// What status tells at rest.
fn fields(state: &State, case: &Case) -> Vec<String> {
    let now = state.store.clock.now();
    let mut bad = vec![];
    for (name, schedule) in SCHEDULES {
        let status = state.store.get(&shop::object(name)).map(|object| &object["status"]).cloned().unwrap_or_default();
        if text(&status, "/managedBy") != INSTALL {
            bad.push(format!("{name} is managed by {}", status["managedBy"]));
        }
        let next: Option<Timestamp> = text(&status, "/nextScheduleTime").parse().ok();
        let soon = next.is_some_and(|next| next > now && next <= now + SignedDuration::from_mins(4));
        if soon == schedule.is_empty() && case.set.is_none() {
            bad.push(format!("{name} has the next slot {next:?}"));
        }
        if name == shop::POLICY && text(&status, "/lastRequest") != ASKED {
            bad.push("the request is not marked as heard".into());
        }
        let open = status.get("run").is_some_and(|run| !run.is_null());
        if open && case.fates.is_empty() {
            bad.push(format!("{name} is left open"));
        }
    }
    bad
}

/// Against what ran where nothing went wrong.
fn compare(mut seen: Seen, case: &Case, base: Option<&Seen>) -> Seen {
    let Some(base) = base else { return seen };
    for (policy, slots) in &base.ran {
        let ours = seen.ran.get(policy).cloned().unwrap_or_default();
        let missing: Vec<_> = slots.difference(&ours).collect();
        let extra: Vec<_> = ours.difference(slots).collect();
        if !missing.is_empty() || !extra.is_empty() {
            seen.bad.push(format!("{policy}: missing {missing:?}, extra {extra:?}"));
        }
    }
    // Whoever hears late writes what others have overtaken, and may send a runner that finds its run ended.
    let (writes, spare) = (base.counts[&Class::Write], if case.late.is_some() { 4 } else { 2 * case.fates.len() });
    let factor = (case.more + 1) * if case.late.is_some() { 3 } else { 1 };
    if seen.jobs > base.jobs + spare {
        seen.bad.push(format!("{} Jobs instead of {}", seen.jobs, base.jobs));
    }
    if seen.counts[&Class::Write] > (writes + 12 + case.bad) * factor {
        seen.bad.push(format!("{} writes instead of {writes}", seen.counts[&Class::Write]));
    }
    seen
}
