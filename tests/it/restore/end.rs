//! How the end of a restore is told: what a release still waits for.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sts_backup::api::restore::ReleaseOldVolumes;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::Outcome;
use sts_backup::plan::restore::{self, release};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::process::Process;
use super::sweep::{STAGED, pause, run, runtime, want};
use super::world::{World, keys};

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
