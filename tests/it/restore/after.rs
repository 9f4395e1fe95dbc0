//! What comes after a restore: its undo and its release, each write of them struck by every blow.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::restore::{self, release, undo};

use super::sweep::{BLOWS, Blows, DEEDS, Report, STAGED, is_drawn, let_go, pause, run, runtime, settings};
use super::verdict::ended;
use super::world::{Blow, PODS, Setting, World, keys};

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
pub async fn afterwards(mut world: World, blows: &Blows, what: After) -> World {
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
    let_go(&world).await;
    pause(&world, 8).await;
    let mut world = Rc::into_inner(world).unwrap().into_inner();
    world.writes -= writes;
    world.reads -= reads;
    match what {
        _ if world.ending => ended(&mut world),
        _ if blows.iter().any(|(_, blow)| DEEDS.contains(blow)) => meddled(&mut world, what),
        After::Undo | After::Asked => undone(&mut world, blows),
        After::Release | After::Rescued => freed(&mut world, blows, what),
    }
    world
}

fn after(what: After, setting: Setting) {
    struck(what, setting, &BLOWS);
}

fn struck(what: After, setting: Setting, kinds: &[Blow]) {
    let (rt, start, mut report) = (runtime(), Instant::now(), Report::default());
    let mut go = |blows: &Blows| {
        let world = rt.block_on(afterwards(World::new(&[], setting), blows, what));
        report.note(blows, world)
    };
    let mut all = 0;
    for k in 0..go(&[]) {
        for &blow in kinds {
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

/// Others have been at work meanwhile: whole, or held for people to decide.
fn meddled(world: &mut World, what: After) {
    let contents = world.contents();
    let claims: Vec<String> =
        keys().iter().map(|key| key.pvc("web")).filter(|pvc| world.hit.as_ref() != Some(pvc)).collect();
    let all = |what: &str| claims.iter().all(|pvc| contents.get(pvc) == Some(&format!("{what} {pvc}")));
    let held = world.status.phase == Some(RestorePhase::Failed) && world.status.run.is_some();
    let (old, new) = (all("old"), all("new"));
    if what == After::Release && !new {
        world.violate("a volume in use was freed".into());
    }
    match world.status.phase {
        _ if held && world.lease.open.is_none() => world.violate("held without open mark".into()),
        _ if held => {}
        Some(RestorePhase::Undone) if !old => world.violate("Undone, and not on the old volumes".into()),
        _ if !old && !new => world.violate("a mixture".into()),
        _ if world.lease.open.is_some() || world.lease.fence.is_some() => world.violate("fence or mark".into()),
        _ => {}
    }
    world.look_at_others(!held);
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
    if world.claims.values().any(|claim| claim.restore.is_some() || claim.restored_by.is_some()) && !refused {
        world.violations.push("a claim bears our marks".into());
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
fn others_may_do_what_they_will_while_it_is_undone_or_released() {
    struck(After::Undo, STAGED, &DEEDS);
    struck(After::Undo, settings()[1].1, &DEEDS);
    struck(After::Release, STAGED, &DEEDS);
}
