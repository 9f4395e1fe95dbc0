//! How the end of a restore is told: what a release still waits for.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sts_backup::api::restore::ReleaseOldVolumes;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::{Outcome, RETAIN};
use sts_backup::plan::restore::{self, release, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::process::Process;
use super::sweep::{STAGED, case, pause, run, runtime, want};
use super::world::{Odd, PULL, Setting, World, keys};

#[test]
fn a_release_says_which_volumes_wait_for_how_many_snapshots_and_ends_well() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        let release = async || {
            let mut want = want(&world.borrow(), "release", 1);
            want.restore.release = ReleaseOldVolumes::WhenUnreferenced;
            let process = Process::start(&world, want.clone());
            let ended = drive(&process, release::next, View::new(want));
            tokio::time::timeout(Duration::from_hours(1), ended).await.expect("it never ends").0
        };
        tokio::time::sleep(Duration::from_hours(25)).await;
        world.borrow_mut().released = true;
        let held = world.borrow().status.plan.clone().unwrap().claims[0].clone();
        let (pv, handle) = (held.old_pv.unwrap(), held.volume_handle.unwrap());
        world.borrow_mut().handles.insert(handle.clone(), 3);
        let exit = release().await;
        assert_eq!(exit.code(), 0, "the watcher asks again tomorrow");
        let Exit::Waits(why) = exit else { panic!("{exit:?}") };
        for words in
            ["restore shop/back", &pv, &held.pvc, "the source of 3 VolumeSnapshotContents", "releaseOldVolumes"]
        {
            assert!(why.contains(words), "{words} is not in {why}");
        }
        assert!(world.borrow().lease.holder.is_none() && !world.borrow().finalizers.is_empty());
        world.borrow_mut().handles.insert(handle.clone(), 1);
        assert!(matches!(release().await, Exit::Waits(why) if why.ends_with("the source of 1 VolumeSnapshotContent")));
        pause(&world, 8).await;
        assert_eq!(world.borrow().own_disks().count(), keys().len() + 1, "the others are gone");
        world.borrow_mut().handles.clear();
        assert_eq!(release().await, Exit::Done(Outcome::Succeeded));
        pause(&world, 8).await;
        assert_eq!(world.borrow().violations, Vec::<String>::new());
        assert!(world.borrow().own_disks().count() == keys().len() && world.borrow().finalizers.is_empty());
    });
}

/// Each old volume has reclaim policy Retain of its own.
fn retained() -> Rc<RefCell<World>> {
    let mut world = World::new(&[], STAGED);
    let old = world.disks.values_mut().filter(|disk| disk.content.starts_with("old"));
    old.for_each(|disk| disk.volume.policy = RETAIN.into());
    Rc::new(RefCell::new(world))
}

/// The volumes with that content: all are Retained and bear no mark of ours.
fn are_theirs(world: &World, content: &str) -> usize {
    let of = world.disks.values().filter(|disk| disk.content.starts_with(content)).map(|disk| &disk.volume);
    of.filter(|volume| volume.policy == RETAIN && volume.marks.restore.is_none()).count()
}

#[test]
fn volumes_whose_own_policy_is_retain_stay_after_the_release_and_it_says_so() {
    runtime().block_on(async {
        let world = retained();
        run(&world, "restore", restore::next).await;
        assert_eq!(are_theirs(&world.borrow(), "new"), keys().len(), "the new ones have the policy of the old ones");
        tokio::time::sleep(Duration::from_hours(25)).await;
        world.borrow_mut().released = true;
        run(&world, "release", release::next).await;
        pause(&world, 8).await;
        let world = world.borrow();
        assert_eq!(are_theirs(&world, "old"), keys().len());
        let undoable = world.status.conditions.iter().find(|of| of.type_ == "Undoable").unwrap();
        for item in &world.status.plan.as_ref().unwrap().claims {
            let pv = item.old_pv.as_ref().unwrap();
            assert!(undoable.message.contains(pv), "{pv} is not in {}", undoable.message);
        }
        assert!(undoable.message.contains("their own reclaim policy is Retain"), "{}", undoable.message);
        assert_eq!(world.violations, Vec::<String>::new());
    });
}

#[test]
fn volumes_whose_own_policy_is_retain_come_back_with_it() {
    runtime().block_on(async {
        let world = retained();
        run(&world, "restore", restore::next).await;
        world.borrow_mut().undo = Some("please".into());
        run(&world, "undo", undo::next).await;
        pause(&world, 8).await;
        let world = world.borrow();
        assert_eq!(are_theirs(&world, "old"), keys().len());
        assert_eq!(world.own_disks().count(), 2 * keys().len(), "what the undo replaced is kept");
        assert_eq!(world.violations, Vec::<String>::new());
    });
}

#[test]
fn a_pod_that_does_not_start_is_said_to_wait_for_its_image() {
    let setting = Setting { odd: Odd::Broken, ..STAGED };
    let world = runtime().block_on(case(&[], setting, restore::next));
    let said = world.status.message.unwrap();
    let wanted = format!("pod web-0 was not ready within spec.readyTimeoutSeconds (60 s): {PULL}");
    assert!(said.contains(&wanted) && !said.contains("fsGroup"), "{said}");
}
