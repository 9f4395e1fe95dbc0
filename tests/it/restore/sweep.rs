//! Every write of a restore, every blow, and pairs of them: the run ends as the undisturbed one does, or on the old
//! volumes, and in every stored state the invariants hold.
//!
//! One case: `SSB_CASE='[(3, DieAfter)]' SSB_SETTING=staged cargo test --test it one_restore -- --nocapture`

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use jiff::SignedDuration;
use sts_backup::api::FINALIZER;
use sts_backup::api::restore::{OnFailure, RestorePhase, Strategy};
use sts_backup::plan::flow::{Exit, Planner};
use sts_backup::plan::noun::{DELETE, Holder, RestoreWant, Want};
use sts_backup::plan::restore::{self, Restore, release, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;
use tokio::runtime::{Builder, Runtime};
use tokio::select;

use crate::red;

use super::process::Process;
use super::world::{Blow, Odd, PODS, Setting, World, keys};

const BLOWS: [Blow; 9] = [
    Blow::DieBefore,
    Blow::DieAfter,
    Blow::LostBefore,
    Blow::LostAfter,
    Blow::Hang,
    Blow::Refuse,
    Blow::Sigterm,
    Blow::Stolen,
    Blow::Straggler,
];

type Blows = [(usize, Blow)];

/// Of the cases of a short sweep one in so many is run. It has no divisor in common with the number of blows, or the
/// same blow would be drawn each time.
const STRIDE: usize = 5;

/// Whether the nth case of a sweep is run.
fn is_drawn(n: usize) -> bool {
    n.is_multiple_of(STRIDE) || std::env::var_os("SSB_SWEEP").is_some()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn want(world: &World, what: &str, process: usize) -> Want {
    let second = SignedDuration::from_secs;
    Want {
        me: Holder(format!("{what}/shop/back/{process}")),
        namespace: "shop".into(),
        name: "back".into(),
        uid: super::world::UID.into(),
        generation: 1,
        statefulset: "web".into(),
        statefulset_namespace: "shop".into(),
        slot: if what == "undo" { "please".into() } else { String::new() },
        attempt: 1,
        lock_by: world.now() + second(600),
        restore: RestoreWant {
            source: "web".into(),
            backup: Some("nightly".into()),
            strategy: world.setting.strategy,
            scale_down: true,
            deletion_timeout: second(60),
            stop_timeout: Some(second(120)),
            stage_timeout: second(120),
            ready_timeout: second(60),
            on_failure: OnFailure::Rollback,
            undo_window: second(86_400),
            hash: "abc".into(),
            ..RestoreWant::default()
        },
        ..Want::default()
    }
}

/// Process after process, until one ends the run.
async fn run(world: &Rc<RefCell<World>>, what: &str, next: Planner<Restore>) -> Option<Exit> {
    for n in 1.. {
        let want = want(&world.borrow(), what, n);
        let process = Process::start(world, want.clone());
        let exit = select! {
            biased;
            () = process.life.died.notified() => None,
            (exit, _) = drive(&process, next, View::new(want.clone())) => Some(exit),
        };
        let mut world = world.borrow_mut();
        world.note(|| format!("       -- {what} {n}: {exit:?}"));
        world.bury(&want.me);
        match exit {
            Some(Exit::Done(_)) => return exit,
            _ if n > 8 => {
                world.violations.push(format!("{what} never ends"));
                return exit;
            }
            _ => {}
        }
    }
    None
}

async fn case(blows: &Blows, setting: Setting, next: Planner<Restore>) -> World {
    let world = Rc::new(RefCell::new(World::new(blows, setting)));
    run(&world, "restore", next).await;
    pause(&world, 8).await;
    verdict(&mut world.borrow_mut(), blows);
    Rc::into_inner(world).unwrap().into_inner()
}

/// Time passes, and what the controllers do meanwhile.
async fn pause(world: &Rc<RefCell<World>>, seconds: u64) {
    for _ in 0..seconds {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        world.borrow_mut().settle();
    }
}

fn verdict(world: &mut World, blows: &Blows) {
    let struck = |kinds: &[Blow]| blows.iter().any(|(_, blow)| kinds.contains(blow));
    let phase = world.status.phase;
    let held = phase == Some(RestorePhase::Failed) && world.status.run.is_some();
    let mut bad = std::mem::take(&mut world.violations);
    let mut check = |wrong: bool, what: &str| {
        if wrong {
            bad.push(what.to_owned());
        }
    };
    let may_fail = struck(&[Blow::Refuse, Blow::Deleted]) || (world.setting.odd == Odd::Broken);
    let contents = world.contents();
    let all = |what: &str| {
        keys().iter().all(|key| contents.get(&key.pvc("web")) == Some(&format!("{what} {}", key.pvc("web"))))
    };
    match phase {
        Some(RestorePhase::Completed) => check(!all("new"), "Completed, and not on the restored volumes"),
        Some(RestorePhase::Failed) => {
            check(!may_fail, "failed without a reason");
            check(!held && !all("old") && !struck(&[Blow::Deleted]), "Failed, and not on the old volumes");
            check(!all("old") && !all("new") && !held, "a mixture");
        }
        _ => check(!struck(&[Blow::Deleted]), "not closed"),
    }
    let twice = blows.iter().filter(|(_, blow)| matches!(blow, Blow::Refuse | Blow::Deleted)).count() > 1;
    check(held && !twice && !struck(&[Blow::Refuse]), "held");
    if held {
        check(world.lease.open.is_none(), "held without open mark");
        world.violations = bad;
        return;
    }
    check(world.lease.open.is_some(), "open mark left");
    check(world.lease.fence.is_some(), "fence left");
    check(world.lease.holder.is_some() && !struck(&[Blow::Refuse]), "Lease still held");
    check(world.target.replicas != PODS, "wrong replicas");
    let ready = world.pods.values().filter(|instance| instance.pod.ready_since.is_some()).count();
    check(ready != PODS as usize && !(world.setting.odd == Odd::Sick), "pods are not ready");
    check(
        (world.setting.odd == Odd::Scaled) != (world.target.retention.scaled == DELETE),
        "retention policy not put back",
    );
    check(world.sources.values().any(|source| !source.pinned.is_empty()), "a snapshot is still pinned");
    let staging = contents.keys().any(|name| name.ends_with("-stage-restore"));
    check(staging && !struck(&[Blow::Straggler]), "staging claim left");
    let finalizer = world.finalizers.iter().any(|name| name == FINALIZER);
    let undoable = world.status.undo_deadline.is_some();
    check(finalizer != undoable && !world.leaving, "finalizer and undo window differ");
    let under: Vec<&String> = world.claims.values().filter_map(|claim| claim.volume.as_ref()).collect();
    let loose = world.disks.keys().filter(|name| !under.contains(name)).count();
    let wanted = if undoable || struck(&[Blow::Deleted]) { keys().len() } else { 0 };
    check(loose > wanted && !struck(&[Blow::Straggler]), "a volume leaked");
    world.violations = bad;
}

#[derive(Debug, Default)]
struct Report {
    all: usize,
    cases: usize,
    red: red::Red<(usize, Blow), String>,
}

fn sweep(what: &str, setting: Setting, next: Planner<Restore>, second: impl Fn(usize, usize) -> bool) -> Report {
    let (rt, mut report, start) = (runtime(), Report::default(), Instant::now());
    let mut go = |blows: &Blows| {
        let world = rt.block_on(case(blows, setting, next));
        if !world.violations.is_empty() {
            report.red.push((blows.into(), world.violations));
        }
        world.writes
    };
    let (mut all, mut cases) = (0, 0);
    for k in 0..go(&[]) {
        for first in BLOWS {
            all += 1;
            if !is_drawn(all) {
                continue;
            }
            cases += 1;
            let writes = go(&[(k, first)]);
            for j in (k + 1..writes).filter(|j| second(k, *j)) {
                for next in BLOWS {
                    (all, cases) = (all + 1, cases + 1);
                    go(&[(k, first), (j, next)]);
                }
            }
        }
    }
    (report.all, report.cases) = (all, cases);
    println!("{what}: {cases} of {all} cases, {} red, {:.1?}", report.red.len(), start.elapsed());
    red::print(&report.red);
    report
}

fn never(_: usize, _: usize) -> bool {
    false
}

const STAGED: Setting = Setting { strategy: Strategy::Staged, odd: Odd::Nothing };

#[test]
fn the_undisturbed_restore_ends_on_the_restored_volumes() {
    let world = runtime().block_on(case(&[], STAGED, restore::next));
    assert!(world.violations.is_empty(), "{}\n{:?}", world.log.join("\n"), world.violations);
    println!("{} writes", world.writes);
}

#[test]
fn a_staged_restore_survives_every_blow() {
    let report = sweep("staged", STAGED, restore::next, never);
    assert!(report.red.is_empty());
}

/// Closed, then undone or released: what is under the claims, and what is left.
async fn afterwards(blows: &Blows, setting: Setting, what: &str) -> World {
    let world = Rc::new(RefCell::new(World::new(&[], setting)));
    run(&world, "restore", restore::next).await;
    pause(&world, 8).await;
    let first = world.borrow().writes;
    world.borrow_mut().blows = blows.iter().map(|(k, blow)| (k + first, *blow)).collect();
    if what == "undo" {
        world.borrow_mut().undo = Some("please".into());
        run(&world, "undo", undo::next).await;
    } else {
        tokio::time::sleep(std::time::Duration::from_hours(25)).await;
        world.borrow_mut().released = true;
        run(&world, "release", release::next).await;
    }
    pause(&world, 8).await;
    let mut world = Rc::into_inner(world).unwrap().into_inner();
    world.writes -= first;
    world
}

fn after(what: &str, setting: Setting, judge: fn(&mut World, &Blows)) {
    let (rt, start, mut red, mut count) = (runtime(), Instant::now(), vec![], 0);
    let mut go = |blows: &Blows| {
        let mut world = rt.block_on(afterwards(blows, setting, what));
        judge(&mut world, blows);
        if !world.violations.is_empty() {
            red.push(format!("{blows:?}: {:?}", world.violations));
        }
        world.writes
    };
    let mut all = 0;
    for k in 0..go(&[]) {
        for blow in BLOWS {
            all += 1;
            if is_drawn(all) {
                count += 1;
                go(&[(k, blow)]);
            }
        }
    }
    println!("{what}: {count} of {all} cases, {} red, {:.1?}\n{}", red.len(), start.elapsed(), red.join("\n"));
    assert!(red.is_empty() && all > 20);
}

#[test]
fn an_undo_puts_the_old_volumes_back_after_every_blow() {
    let judge = |world: &mut World, blows: &Blows| {
        let held = world.status.phase == Some(RestorePhase::Failed) && world.status.run.is_some();
        if held && blows.iter().any(|(_, blow)| *blow == Blow::Refuse) {
            return;
        }
        let contents = world.contents();
        let old = |pvc: &String| contents.get(pvc) == Some(&format!("old {pvc}"));
        let all = keys().iter().all(|key| old(&key.pvc("web")));
        if world.status.phase != Some(RestorePhase::Undone) || !all {
            world.violations.push(format!("not undone: {:?}", world.status.message));
        }
        if world.target.replicas != PODS || world.lease.fence.is_some() || world.lease.open.is_some() {
            world.violations.push("replicas, fence or mark".into());
        }
        if world.disks.len() != 2 * keys().len() {
            world.violations.push("what the undo replaced is not kept".into());
        }
    };
    after("undo", STAGED, judge);
    after("undo", settings()[1].1, judge);
}

#[test]
fn a_release_frees_the_old_volumes_after_every_blow() {
    let judge = |world: &mut World, blows: &Blows| {
        let refused = blows.iter().any(|(_, blow)| *blow == Blow::Refuse);
        let left = world.disks.len();
        if left != keys().len() && !refused {
            world.violations.push(format!("{left} volumes are left"));
        }
        if world.contents().values().any(|content| !content.starts_with("new")) {
            world.violations.push("a volume in use was freed".into());
        }
        if !world.finalizers.is_empty() && !refused {
            world.violations.push("the finalizer is left".into());
        }
    };
    after("release", STAGED, judge);
}

#[test]
fn in_place_and_odd_clusters_survive_every_blow() {
    for (what, setting) in settings().into_iter().skip(1) {
        let report = sweep(what, setting, restore::next, never);
        assert!(report.red.is_empty(), "{what}");
    }
}

#[test]
fn one_restore() {
    let Ok(text) = std::env::var("SSB_CASE") else { return };
    let all: Vec<_> = BLOWS.into_iter().chain([Blow::Deleted]).collect();
    let blows = red::blows(&text, &all);
    let setting = settings().into_iter().find(|(name, _)| std::env::var("SSB_SETTING").as_deref() == Ok(name));
    let world = runtime().block_on(case(&blows, setting.map_or(STAGED, |(_, setting)| setting), restore::next));
    println!("{}\n{:?}", world.log.join("\n"), world.violations);
}

fn settings() -> Vec<(&'static str, Setting)> {
    vec![
        ("staged", STAGED),
        ("in place", Setting { strategy: Strategy::InPlace, ..STAGED }),
        ("sick", Setting { odd: Odd::Sick, ..STAGED }),
        ("broken", Setting { odd: Odd::Broken, ..STAGED }),
        ("rival", Setting { odd: Odd::Rival, ..STAGED }),
        ("scaled", Setting { odd: Odd::Scaled, ..STAGED }),
        ("far", Setting { odd: Odd::Far, ..STAGED }),
    ]
}
