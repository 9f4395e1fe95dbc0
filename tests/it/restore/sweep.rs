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

use super::broken::Mutant;
use super::process::Process;
use super::world::{Blow, Odd, PODS, Setting, World, keys};

const BLOWS: [Blow; 10] = [
    Blow::DieBefore,
    Blow::DieAfter,
    Blow::LostBefore,
    Blow::LostAfter,
    Blow::Hang,
    Blow::Refuse,
    Blow::Sigterm,
    Blow::Stolen,
    Blow::Straggler,
    Blow::Twice,
];

/// What others do right before a write.
const DEEDS: [Blow; 9] = [
    Blow::Deleted,
    Blow::AskUndo,
    Blow::DeletePod,
    Blow::Guest,
    Blow::Rescale,
    Blow::DeleteTarget,
    Blow::ReplaceTarget,
    Blow::DeleteClaim,
    Blow::ReplaceClaim,
];

type Blows = [(usize, Blow)];

/// Of the cases of a short sweep one in so many is run. It has no divisor in common with the number of blows, or the
/// same blow would be drawn each time.
const STRIDE: usize = 7;

/// Whether the nth case of a sweep is run.
fn is_drawn(n: usize) -> bool {
    n.is_multiple_of(STRIDE) || std::env::var_os("SSB_SWEEP").is_some()
}

pub fn runtime() -> Runtime {
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

/// How long a command may take, by the clock of the world.
const LONG: SignedDuration = SignedDuration::from_hours(1);

/// The first process of a command, where no other is at work.
const FIRST: usize = 1;

/// Process after process, until one ends the run.
async fn run(world: &Rc<RefCell<World>>, what: &str, next: Planner<Restore>) -> Option<Exit> {
    command(world, what, next, FIRST).await
}

pub async fn command(world: &Rc<RefCell<World>>, what: &str, next: Planner<Restore>, from: usize) -> Option<Exit> {
    let horizon = world.borrow().now() + LONG;
    world.borrow_mut().horizon = horizon;
    let mutant = world.borrow().mutant;
    let next = mutant.map_or(next, |mutant| mutant.planner(next));
    for n in from.. {
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
            // Not before its day, or before what was asked for is answered.
            Some(Exit::Again(_)) if what == "release" && process.life.stop().is_none() => return exit,
            _ if n > from + 7 => {
                world.violate(format!("{what} never ends"));
                return exit;
            }
            _ => {}
        }
    }
    None
}

async fn case(blows: &Blows, setting: Setting, next: Planner<Restore>) -> World {
    live(World::new(blows, setting), blows, next).await
}

async fn live(world: World, blows: &Blows, next: Planner<Restore>) -> World {
    let world = Rc::new(RefCell::new(world));
    run(&world, "restore", next).await;
    pause(&world, 8).await;
    verdict(&mut world.borrow_mut(), blows);
    Rc::into_inner(world).unwrap().into_inner()
}

/// Time passes, and what the controllers do meanwhile.
pub async fn pause(world: &Rc<RefCell<World>>, seconds: u64) {
    for _ in 0..seconds {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        world.borrow_mut().settle();
    }
}

/// Deeds after which a restore may fail, or be held for people to decide.
const HARD: [Blow; 5] = [Blow::Rescale, Blow::DeleteTarget, Blow::ReplaceTarget, Blow::DeleteClaim, Blow::ReplaceClaim];

pub fn verdict(world: &mut World, blows: &Blows) {
    let struck = |kinds: &[Blow]| blows.iter().any(|(_, blow)| kinds.contains(blow));
    let phase = world.status.phase;
    let held = phase == Some(RestorePhase::Failed) && world.status.run.is_some();
    let (hard, odd) = (struck(&HARD), world.setting.odd);
    let mut bad = vec![];
    let mut check = |wrong: bool, what: &str| {
        if wrong {
            bad.push(what.to_owned());
        }
    };
    // A pod that uses a claim when the restore begins is a reason to refuse.
    let refused = struck(&[Blow::Guest]) && world.status.plan.is_none();
    let may_fail = hard || refused || struck(&[Blow::Refuse, Blow::Deleted]) || matches!(odd, Odd::Broken | Odd::Half);
    let contents = world.contents();
    // What somebody has put under a name, or taken from it, is not the restore's.
    let claims: Vec<String> =
        keys().iter().map(|key| key.pvc("web")).filter(|pvc| world.hit.as_ref() != Some(pvc)).collect();
    let all = |what: &str| claims.iter().all(|pvc| contents.get(pvc) == Some(&format!("{what} {pvc}")));
    match phase {
        Some(RestorePhase::Completed) => check(!all("new"), "Completed, and not on the restored volumes"),
        Some(RestorePhase::Failed) => {
            check(!may_fail, "failed without a reason");
            check(!held && !all("old") && !struck(&[Blow::Deleted]), "Failed, and not on the old volumes");
            check(!all("old") && !all("new") && !held, "a mixture");
        }
        _ => check(!struck(&[Blow::Deleted]), "not closed"),
    }
    let served = odd == Odd::Half && !struck(&[Blow::Refuse, Blow::Deleted]) && !hard;
    check(served && !(held && all("new")), "turned back over pods that have served");
    let twice = blows.iter().filter(|(_, blow)| matches!(blow, Blow::Refuse | Blow::Deleted)).count() > 1;
    check(held && !twice && !struck(&[Blow::Refuse]) && !hard && odd != Odd::Half, "held");
    if held {
        check(world.lease.open.is_none(), "held without open mark");
    } else {
        closed(world, blows, &mut check);
    }
    bad.into_iter().for_each(|what| world.violate(what));
    world.look_at_others(!held);
}

/// Nothing is left of a restore that is over.
fn closed(world: &World, blows: &Blows, check: &mut impl FnMut(bool, &str)) {
    let struck = |kinds: &[Blow]| blows.iter().any(|(_, blow)| kinds.contains(blow));
    let (hard, odd) = (struck(&HARD), world.setting.odd);
    check(world.lease.open.is_some(), "open mark left");
    check(world.lease.fence.is_some(), "fence left");
    check(world.lease.holder.is_some() && !struck(&[Blow::Refuse]), "Lease still held");
    let same = !world.no_target && world.target.uid == "sts";
    let scaled = struck(&[Blow::Rescale]) && world.target.replicas == 1;
    check(same && !scaled && world.target.replicas != PODS, "wrong replicas");
    let ready = world.pods.values().filter(|instance| instance.pod.ready_since.is_some()).count();
    check(ready != PODS as usize && odd != Odd::Sick && !hard, "pods are not ready");
    check(same && (odd != Odd::Scaled) == (world.target.retention.scaled == DELETE), "retention policy not put back");
    check(world.sources.values().any(|source| !source.pinned.is_empty()), "a snapshot is still pinned");
    let staging = world.claims.keys().any(|name| name.ends_with("-stage-restore"));
    check(staging && !struck(&[Blow::Straggler]), "staging claim left");
    let finalizer = world.finalizers.iter().any(|name| name == FINALIZER);
    let undoable = world.status.undo_deadline.is_some();
    check(finalizer != undoable && !world.leaving, "finalizer and undo window differ");
    let under: Vec<&String> = world.claims.values().filter_map(|claim| claim.volume.as_ref()).collect();
    let loose = world.ours().filter(|(name, _)| !under.contains(name)).count();
    let wanted = if undoable || struck(&[Blow::Deleted]) || hard { keys().len() } else { 0 };
    check(loose > wanted && !struck(&[Blow::Straggler]), "a volume leaked");
}

#[derive(Debug, Default)]
struct Report {
    cases: usize,
    red: red::Red<(usize, Blow), String>,
}

impl Report {
    /// How many requests the case has sent.
    fn note(&mut self, blows: &Blows, world: World) -> usize {
        self.cases += 1;
        if !world.violations.is_empty() {
            self.red.push((blows.into(), world.violations));
        }
        world.writes
    }

    fn print(&self, what: &str, all: usize, start: Instant) {
        println!("{what}: {} of {all} cases, {} red, {:.1?}", self.cases, self.red.len(), start.elapsed());
        red::print(&self.red);
    }
}

fn sweep(what: &str, setting: Setting, kinds: &[Blow]) -> Report {
    let (rt, mut report, start) = (runtime(), Report::default(), Instant::now());
    let mut go = |blows: &Blows| report.note(blows, rt.block_on(case(blows, setting, restore::next)));
    let mut all = 0;
    for k in 0..go(&[]) {
        for blow in kinds {
            all += 1;
            if is_drawn(all) {
                go(&[(k, *blow)]);
            }
        }
    }
    report.print(what, all, start);
    report
}

pub const STAGED: Setting = Setting { strategy: Strategy::Staged, odd: Odd::Nothing };

#[test]
fn the_undisturbed_restore_ends_on_the_restored_volumes() {
    let world = runtime().block_on(case(&[], STAGED, restore::next));
    assert!(world.violations.is_empty(), "{}\n{:?}", world.log.join("\n"), world.violations);
    println!("{} writes", world.writes);
}

#[test]
fn a_staged_restore_survives_every_blow() {
    let report = sweep("staged", STAGED, &BLOWS);
    assert!(report.red.is_empty());
}

/// What comes after a restore that is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Undo,
    Release,
    /// Somebody has reserved an old volume meanwhile.
    Rescued,
    /// An undo is asked for when the release comes.
    Asked,
}

/// Closed, then undone or released: what is under the claims, and what is left.
async fn afterwards(mut world: World, blows: &Blows, what: After) -> World {
    let fail_read = world.fail_read.take();
    let world = Rc::new(RefCell::new(world));
    run(&world, "restore", restore::next).await;
    pause(&world, 8).await;
    let (writes, reads) = (world.borrow().writes, world.borrow().reads);
    world.borrow_mut().blows = blows.iter().map(|(k, blow)| (k + writes, *blow)).collect();
    world.borrow_mut().fail_read = fail_read.map(|k| k + reads);
    if matches!(what, After::Undo | After::Asked) {
        world.borrow_mut().undo = Some("please".into());
    }
    if what != After::Undo {
        tokio::time::sleep(std::time::Duration::from_hours(25)).await;
    }
    if what == After::Rescued {
        world.borrow_mut().rescue();
    }
    if what != After::Undo {
        world.borrow_mut().released = what != After::Asked;
        run(&world, "release", release::next).await;
    }
    if matches!(what, After::Undo | After::Asked) {
        run(&world, "undo", undo::next).await;
    }
    pause(&world, 8).await;
    let mut world = Rc::into_inner(world).unwrap().into_inner();
    world.writes -= writes;
    world.reads -= reads;
    match what {
        After::Undo | After::Asked => undone(&mut world, blows),
        After::Release | After::Rescued => freed(&mut world, blows, what),
    }
    world
}

fn after(what: After, setting: Setting) {
    let (rt, start, mut report) = (runtime(), Instant::now(), Report::default());
    let mut go = |blows: &Blows| {
        let world = rt.block_on(afterwards(World::new(&[], setting), blows, what));
        report.note(blows, world)
    };
    let mut all = 0;
    for k in 0..go(&[]) {
        for blow in BLOWS {
            all += 1;
            if is_drawn(all) {
                go(&[(k, blow)]);
            }
        }
    }
    report.print(&format!("{what:?}"), all, start);
    assert!(report.red.is_empty() && all > 20);
}

/// The old volumes are under the claims again, and what was there is kept.
fn undone(world: &mut World, blows: &Blows) {
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
    if world.ours().count() != 2 * keys().len() {
        world.violations.push("what the undo replaced is not kept".into());
    }
    world.look_at_others(true);
}

fn freed(world: &mut World, blows: &Blows, what: After) {
    let refused = blows.iter().any(|(_, blow)| *blow == Blow::Refuse);
    let left = world.ours().count();
    if left != keys().len() + usize::from(what == After::Rescued) && !refused {
        world.violations.push(format!("{left} volumes are left"));
    }
    if keys().iter().any(|key| !world.contents()[&key.pvc("web")].starts_with("new")) {
        world.violations.push("a volume in use was freed".into());
    }
    if !world.finalizers.is_empty() && !refused {
        world.violations.push("the finalizer is left".into());
    }
    world.look_at_others(true);
}

#[test]
fn an_undo_puts_the_old_volumes_back_after_every_blow() {
    after(After::Undo, STAGED);
    after(After::Undo, settings()[1].1);
}

#[test]
fn a_release_frees_the_old_volumes_after_every_blow() {
    after(After::Release, STAGED);
    after(After::Rescued, STAGED);
}

#[test]
fn an_undo_that_is_asked_for_comes_before_the_release() {
    after(After::Asked, STAGED);
}

#[test]
fn in_place_and_odd_clusters_survive_every_blow() {
    for (what, setting) in settings().into_iter().skip(1) {
        let report = sweep(what, setting, &BLOWS);
        assert!(report.red.is_empty(), "{what}");
    }
}

#[test]
fn one_restore() {
    let Ok(text) = std::env::var("SSB_CASE") else { return };
    let all: Vec<_> = BLOWS.into_iter().chain(DEEDS).collect();
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
        ("half", Setting { odd: Odd::Half, ..STAGED }),
    ]
}

/// Red cases that are enough to know that a promise is broken.
const ENOUGH: usize = 3;

/// How many cases show a broken promise, and what one of them says: undisturbed everywhere, then one blow or one failing
/// read at a time.
pub fn red_with(mutant: Mutant) -> (usize, String) {
    let (rt, mut red, mut why) = (runtime(), 0, String::new());
    let one = |scene: &Scene, blows: &Blows, fail_read: Option<usize>, mutant: Option<Mutant>| {
        let mut world = World::new(&[], scene.0);
        (world.mutant, world.fail_read) = (mutant, fail_read);
        rt.block_on(async {
            if let Some(what) = scene.1 {
                return afterwards(world, blows, what).await;
            }
            world.blows = blows.to_vec();
            live(world, blows, restore::next).await
        })
    };
    let mut go = |scene: &Scene, blows: &Blows, fail_read: Option<usize>| {
        let world = one(scene, blows, fail_read, Some(mutant));
        // Red for another reason proves nothing.
        if let Some(first) = world.violations.first() {
            let sound = one(scene, blows, fail_read, None);
            if sound.violations.is_empty() {
                red += 1;
                why.clone_from(first);
            } else {
                println!("ALSO {scene:?} {blows:?} {:?}", sound.violations);
            }
        }
        (red >= ENOUGH, world.writes, world.reads)
    };
    let scenes: Vec<Scene> = settings()
        .into_iter()
        .map(|(_, setting)| (setting, None))
        .chain([After::Undo, After::Release, After::Rescued, After::Asked].map(|what| (STAGED, Some(what))))
        .collect();
    let sizes: Vec<_> = scenes.iter().map(|scene| go(scene, &[], None)).collect();
    let mut n = 0;
    for (scene, (_, writes, reads)) in scenes.iter().zip(sizes) {
        let deeds = if *scene == (STAGED, None) { &DEEDS[..] } else { &[] };
        let kinds: Vec<Blow> = deeds.iter().copied().chain(BLOWS).collect();
        let blows = (0..writes).flat_map(|k| kinds.iter().map(move |blow| (vec![(k, *blow)], None)));
        for (blows, read) in (0..reads).map(|k| (vec![], Some(k))).chain(blows) {
            n += 1;
            if n % SOME == 0 && go(scene, &blows, read).0 {
                return (red, why);
            }
        }
    }
    (red, why)
}

/// Of the cases that may show a broken promise one in so many is looked at.
const SOME: usize = 3;

type Scene = (Setting, Option<After>);

#[test]
fn others_may_do_what_they_will() {
    for (what, setting) in settings().into_iter().take(2) {
        let report = sweep(&format!("deeds, {what}"), setting, &DEEDS);
        assert!(report.red.is_empty(), "{what}");
    }
}

#[test]
fn a_read_that_fails_once_changes_nothing() {
    let (rt, start, mut report) = (runtime(), Instant::now(), Report::default());
    for (_, setting) in settings() {
        let reads = rt.block_on(case(&[], setting, restore::next)).reads;
        for k in 0..reads {
            let mut world = World::new(&[], setting);
            world.fail_read = Some(k);
            let world = rt.block_on(live(world, &[], restore::next));
            report.note(&[], world);
        }
    }
    report.print("reads failed once", report.cases, start);
    assert!(report.cases > 200 && report.red.is_empty());
}
