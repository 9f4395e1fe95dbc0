//! Each promise that is broken on purpose turns a sweep red: which one, and how soon.

use std::time::Instant;

use sts_backup::plan::restore;

use super::after::{After, afterwards};
use super::broken::Mutant;
use super::sweep::{BLOWS, Blows, DEEDS, STAGED, live, runtime, settings};
use super::two;
use super::world::{Blow, Setting, World};

/// Red cases that are enough to know that a promise is broken.
const ENOUGH: usize = 3;

/// From one case to the next: a prime that divides no count of cases.
const FAR: usize = 7919;

/// In which cluster, and what comes after the restore.
type Scene = (Setting, Option<After>);

/// Where it must show.
fn scene(mutant: Mutant) -> Scene {
    let odd = |name: &str| settings().into_iter().find(|(known, _)| *known == name).unwrap().1;
    match mutant {
        Mutant::WrongVolume => (odd("broken"), None),
        Mutant::RetentionKept => (odd("scaled"), None),
        Mutant::ServedIgnored => (odd("half"), None),
        Mutant::UndoUnprotected => (STAGED, Some(After::Undo)),
        Mutant::ReleaseUnlooked => (STAGED, Some(After::Rescued)),
        Mutant::ReleaseBeforeUndo => (STAGED, Some(After::Asked)),
        _ => (STAGED, None),
    }
}

/// What is struck with: where one deed alone can show it, with that one.
fn kinds(mutant: Mutant, scene: Scene) -> Vec<Blow> {
    match (mutant, scene.1) {
        (Mutant::NoUid, _) => vec![Blow::ReplaceClaim],
        (Mutant::UserIgnored, _) => vec![Blow::Guest],
        (Mutant::MakerUnlooked, _) => vec![Blow::Squat],
        (Mutant::ClaimRefUnlooked, _) => vec![Blow::ForgePlan],
        (_, None) => DEEDS.into_iter().chain(BLOWS).collect(),
        (_, Some(_)) => BLOWS.into(),
    }
}

fn one(scene: Scene, blows: &Blows, fail_read: Option<usize>, mutant: Option<Mutant>) -> World {
    runtime().block_on(async {
        let mut world = World::new(&[], scene.0);
        (world.mutant, world.fail_read) = (mutant, fail_read);
        if let Some(what) = scene.1 {
            return Box::pin(afterwards(world, blows, what)).await;
        }
        world.blows = blows.to_vec();
        Box::pin(live(world, blows, restore::next)).await
    })
}

/// How many cases show a broken promise, and what one of them says: undisturbed, then with one failing read or one blow
/// at a time. A case that is red with the promise kept proves nothing.
fn red_with(mutant: Mutant) -> (usize, String) {
    let (scene, mut red, mut why) = (scene(mutant), 0, String::new());
    let undisturbed = one(scene, &[], None, None);
    let kinds = kinds(mutant, scene);
    let blows = |k: usize| kinds.iter().map(move |blow| (vec![(k, *blow)], None));
    let single = (0..undisturbed.writes).flat_map(blows);
    let cases: Vec<_> = (0..undisturbed.reads).map(|k| (vec![], Some(k))).chain(single).collect();
    // Every case, in an order that goes to and fro.
    let order = (0..cases.len()).map(|n| &cases[n * FAR % cases.len()]);
    for (blows, read) in std::iter::once(&(vec![], None)).chain(order) {
        let world = one(scene, blows, *read, Some(mutant));
        let Some(first) = world.violations.first() else { continue };
        if one(scene, blows, *read, None).violations.is_empty() {
            red += 1;
            why.clone_from(first);
        }
        if red == ENOUGH {
            break;
        }
    }
    (red, why)
}

/// Which sweep must catch it.
fn red(mutant: Mutant) -> (usize, String) {
    match mutant {
        Mutant::LockIgnored => two::red(mutant),
        _ => red_with(mutant),
    }
}

#[test]
fn every_promise_of_a_restore_that_is_broken_turns_a_sweep_red() {
    use Mutant::*;
    let all = [
        ClaimsBeforeStaged,
        SwapUnwritten,
        NoProtect,
        UndoUnprotected,
        NoUid,
        UserIgnored,
        NoStop,
        NoFence,
        FenceLiftedEarly,
        MarkLiftedEarly,
        WrongVolume,
        ReplicasAgain,
        StagingKept,
        PolicyKept,
        RetentionKept,
        BoundReserved,
        ReleaseUnlooked,
        ReleaseBeforeUndo,
        Unsigned,
        FailedIsAbsent,
        LostIsDone,
        NoPin,
        PinKept,
        ServedIgnored,
        LockIgnored,
        FinalizerKept,
        MakerUnlooked,
        ClaimRefUnlooked,
    ];
    let counts = all.map(|mutant| {
        let start = Instant::now();
        let (red, why) = red(mutant);
        println!("{red:>6} red cases with {mutant:?} ({:.1?}): {why}", start.elapsed());
        (mutant, red)
    });
    let alive: Vec<_> = counts.iter().filter(|(_, red)| *red == 0).map(|(mutant, _)| mutant).collect();
    assert!(alive.is_empty(), "no sweep sees {alive:?}");
}
