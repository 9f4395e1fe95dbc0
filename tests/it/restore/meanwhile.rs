//! What changes while the new volumes are made is judged once more, before anything is stopped.

use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::known::Snapshot;
use sts_backup::plan::restore;

use super::sweep::{STAGED, case, live, runtime};
use super::world::{Blow, PODS, World};

/// The first staging claim: lock, finalizer, plan, mark and the pins come before it.
const STAGING: usize = 8;

/// Refused while the pods run as they did.
fn refused(mut world: World, says: &str) -> World {
    let before: Vec<String> = world.pods.values().map(|instance| instance.pod.uid.clone()).collect();
    world.blows.iter_mut().for_each(|(at, _)| *at = STAGING);
    let (blows, start) = (world.blows.clone(), world.now());
    let world = runtime().block_on(live(world, &blows, restore::next));
    let said = world.status.message.clone().unwrap_or_default();
    assert_eq!(world.status.phase, Some(RestorePhase::Failed), "{said}");
    assert!(said.contains(says) && said.ends_with(". Nothing was stopped or replaced"), "{said}");
    let after: Vec<String> = world.pods.values().map(|instance| instance.pod.uid.clone()).collect();
    assert_eq!(before, after[..before.len()], "nothing was stopped");
    assert!(world.now().duration_since(start).as_secs() < 60, "and nothing was waited for");
    assert!(world.status.run.is_none() && world.lease.open.is_none() && world.lease.fence.is_none());
    assert!(world.violations.is_empty(), "{:?}", world.violations);
    world
}

fn new(blow: Blow) -> World {
    World::new(&[(STAGING, blow)], STAGED)
}

#[test]
fn it_is_scaled_back_to_what_it_was_when_it_was_stopped() {
    let rt = runtime();
    let writes = rt.block_on(case(&[], STAGED, restore::next)).writes;
    let mut completed = 0;
    for at in 3..writes {
        let world = rt.block_on(case(&[(at, Blow::Rescale)], STAGED, restore::next));
        assert!(world.violations.is_empty(), "{at}: {:?}", world.violations);
        if world.meant == 1 {
            assert_eq!(world.target.replicas, 1, "{at}");
            let plan = world.status.plan.unwrap();
            completed +=
                usize::from(world.status.phase == Some(RestorePhase::Completed) && plan.original_replicas == Some(1));
        }
    }
    assert!(completed > 10, "{completed}");
}

/// The run has the claims of replica 0 alone, and nothing else ran when the plan was made.
#[test]
fn a_replica_that_came_meanwhile_and_is_not_in_the_run_is_not_stopped() {
    let mut world = new(Blow::Rescale);
    world.sources.retain(|name, _| name.ends_with("-0"));
    world.sources.values_mut().for_each(|source| source.size = Some(2));
    (world.target.replicas, world.rescale) = (1, PODS);
    world.pods.remove("web-1");
    let world = refused(world, "replica 1 runs now and is not in the run");
    assert_eq!(world.target.replicas, PODS);
}

#[test]
fn a_statefulset_that_was_deleted_meanwhile_is_told_of() {
    refused(new(Blow::Orphan), "StatefulSet shop/web was deleted, and its pods were left running (web-0, web-1)");
}

/// What is said of the pods is what became of them, whichever request is refused.
#[test]
fn a_restore_that_turned_back_before_the_swap_says_whether_it_has_stopped_anything() {
    let rt = runtime();
    let pods = |world: &World| world.pods.values().map(|instance| instance.pod.uid.clone()).collect::<Vec<_>>();
    let (mut untouched, mut stopped) = (0, 0);
    for at in STAGING..rt.block_on(case(&[], STAGED, restore::next)).writes {
        let world = rt.block_on(async { World::new(&[(at, Blow::Refuse)], STAGED) });
        let before = pods(&world);
        let world = rt.block_on(live(world, &[(at, Blow::Refuse)], restore::next));
        let said = world.status.message.clone().unwrap();
        if said.ends_with("Nothing was stopped or replaced") {
            assert_eq!(before, pods(&world), "{at}: {said}");
            untouched += 1;
        } else if said.ends_with("what was stopped is started again") {
            stopped += 1;
        } else {
            assert_ne!(before, pods(&world), "{at}: {said}");
        }
    }
    assert!(untouched > 15 && (1..5).contains(&stopped), "{untouched}, {stopped}");
}

#[test]
fn a_statefulset_that_was_replaced_meanwhile_is_told_of() {
    let world = runtime().block_on(case(&[(STAGING, Blow::ReplaceTarget)], STAGED, restore::next));
    let said = world.status.message.unwrap();
    assert!(said.contains("StatefulSet shop/web was deleted and created again while"), "{said}");
    let world = runtime().block_on(case(&[(STAGING, Blow::DeleteTarget)], STAGED, restore::next));
    let said = world.status.message.unwrap();
    assert!(said.contains("StatefulSet shop/web was deleted while"), "{said}");
}

/// Somebody takes a snapshot of a claim, and its driver does not get on with it.
#[test]
fn a_snapshot_that_came_meanwhile_and_is_not_ready_is_named_before_the_stop() {
    for leaving in [false, true] {
        let mut world = new(Blow::Snapshot);
        let source = Snapshot {
            uid: "late".into(),
            pvc: Some("data-web-0".into()),
            leaving: leaving.then(Default::default),
            ..Snapshot::default()
        };
        world.late = Some(source);
        refused(world, "VolumeSnapshot late of it is not ready");
    }
}
