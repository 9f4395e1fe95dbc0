//! How the end of a restore is told: what a release still waits for.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::SignedDuration;
use sts_backup::api::condition::{self, ConditionType};
use sts_backup::api::restore::{ReleaseOldVolumes, RestorePhase};
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::{Outcome, RETAIN};
use sts_backup::plan::restore::{self, release, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::process::Process;
use super::sweep::{STAGED, case, pause, run, runtime, want};
use super::world::{Blow, Odd, PULL, Setting, UID, World, keys};

/// kstatus: what is over is neither under way for ever nor half of everything; and every word of it is true.
#[test]
fn what_is_over_says_so_and_what_was_refused_too() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        let condition = |kind| {
            let all = &world.borrow().status.conditions;
            condition::get(all, kind).map(|one| (one.status.clone(), one.reason.clone())).unwrap()
        };
        let yes = |reason: &str| ("True".to_owned(), reason.to_owned());
        let no = |reason: &str| ("False".to_owned(), reason.to_owned());
        assert_eq!(condition(ConditionType::Undoable), yes("RestoreCompleted"));
        let down = world.borrow().status.downtime_seconds.unwrap();
        // Two pods go one after the other, a second each, and are Ready two seconds after they are made.
        assert!((4.0..8.0).contains(&down), "{down}");

        world.borrow_mut().unguarded_at = Some(0);
        let want = want(&world.borrow(), "undo", 1);
        let process = Process::start(&world, want.clone());
        drive(&process, undo::next, View::new(want)).await;
        assert_eq!(condition(ConditionType::Undoable), no("UndoRefused"));
        let said = world.borrow().status.message.clone().unwrap();
        assert!(said.contains("An undo was refused: ") && said.contains("4 claims stand on volumes"), "{said}");

        world.borrow_mut().unguarded_at = None;
        world.borrow_mut().status.last_request = None;
        run(&world, "undo", undo::next).await;
        assert_eq!(condition(ConditionType::Ready), yes("Undone"));
        assert_eq!(condition(ConditionType::Stalled), no("Undone"));
        assert_eq!(condition(ConditionType::Reconciling), no("Undone"));
        assert_eq!(condition(ConditionType::Undoable), no("Undone"));
        assert_eq!(world.borrow().violations, Vec::<String>::new());
    });
}

#[test]
fn what_is_being_deleted_does_not_advertise_its_undo() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        let told = |world: &World| {
            let undoable = condition::is_true(&world.status.conditions, ConditionType::Undoable);
            (undoable, world.status.message.as_ref().unwrap().contains("sts-backup undo"))
        };
        assert_eq!(told(&world.borrow()), (true, true));
        world.borrow_mut().leaving = true;
        world.borrow_mut().version += 1;
        world.borrow_mut().released = true;
        run(&world, "release", release::next).await;
        assert_eq!(told(&world.borrow()), (false, false));
        assert!(world.borrow().finalizers.is_empty());
    });
}

#[test]
fn a_warning_is_told_in_status_under_its_own_reason() {
    runtime().block_on(async {
        let mut world = World::new(&[], STAGED);
        let pv = world.claims["data-web-0"].volume.clone().unwrap();
        world.disks.get_mut(&pv).unwrap().volume.policy = RETAIN.into();
        let world = Rc::new(RefCell::new(world));
        run(&world, "restore", restore::next).await;
        let warnings = world.borrow().status.warnings.clone();
        assert!(matches!(&warnings[..], [one] if one.starts_with("VolumeKept: ") && one.contains(&pv)), "{warnings:?}");
    });
}

#[test]
fn a_release_that_ends_has_seen_its_volumes_go_or_says_which_have_not() {
    for idle in [false, true] {
        runtime().block_on(async {
            let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
            run(&world, "restore", restore::next).await;
            tokio::time::sleep(Duration::from_hours(25)).await;
            world.borrow_mut().released = true;
            world.borrow_mut().idle = idle;
            assert_eq!(run(&world, "release", release::next).await, Some(Exit::Done(Outcome::Succeeded)));
            let world = world.borrow();
            let said = world.status.message.clone().unwrap();
            let plan = world.status.plan.as_ref().unwrap();
            for old in plan.claims.iter().filter_map(|claim| claim.old_pv.as_ref()) {
                assert_eq!(world.disks.contains_key(old), idle, "{old}: {said}");
                assert_eq!(said.contains(&format!("PersistentVolume {old} of claim")), idle, "{old}: {said}");
            }
            assert!(!said.contains("sts-backup undo") && world.lease.holder.is_none(), "{said}");
            assert_eq!(world.violations, Vec::<String>::new());
        });
    }
}

#[test]
fn a_release_says_which_volumes_wait_for_how_many_snapshots_and_ends_well() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        let release = async || {
            let mut want = want(&world.borrow(), "release", 1);
            want.restore.release = ReleaseOldVolumes::WhenUnreferenced;
            let horizon = world.borrow().now() + SignedDuration::from_hours(1);
            world.borrow_mut().horizon = horizon;
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
        assert!(undoable.message.contains("their reclaim policy is Retain"), "{}", undoable.message);
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

/// A pod of somebody's holds a staging claim: the restore that turns back ends all the same, and names both.
#[test]
fn a_staging_claim_that_somebody_uses_holds_up_no_end() {
    let (staging, mut held) = (format!("data-web-0-stage-{UID}"), 0);
    for write in 4..14 {
        runtime().block_on(async {
            let blows = [(write, Blow::Refuse)];
            let mut world = World::new(&blows, STAGED);
            world.guest(&staging, 86_400);
            let world = Rc::new(RefCell::new(world));
            run(&world, "restore", restore::next).await;
            let world = world.borrow();
            if !world.claims.contains_key(&staging) || world.status.phase == Some(RestorePhase::Completed) {
                return;
            }
            held += 1;
            let said = world.status.message.clone().unwrap();
            assert_eq!(world.status.phase, Some(RestorePhase::Failed), "{write}: {said}");
            let words = format!("staging claim {staging} is deleted and still there, because pods use it: guest");
            assert!(said.contains(&words), "{write}: {said}");
        });
    }
    assert!(held > 0, "none of these turned back over it");
}

/// Somebody's admission refuses that our marks are taken off a claim: that holds up no end.
#[test]
fn a_claim_whose_marks_stay_holds_up_no_end() {
    runtime().block_on(async {
        let mut stayed = 0;
        for at in 0..16 {
            let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
            run(&world, "restore", restore::next).await;
            tokio::time::sleep(Duration::from_hours(25)).await;
            let writes = world.borrow().writes;
            world.borrow_mut().released = true;
            world.borrow_mut().blows = vec![(writes + at, Blow::Refuse)];
            run(&world, "release", release::next).await;
            let world = world.borrow();
            let labelled = world.claims.values().filter(|claim| claim.restore.is_some()).count();
            let held = !world.finalizers.is_empty();
            stayed += usize::from(labelled == 1 && !held);
            assert!(labelled == 0 || labelled == 1 || held, "{at}: {labelled}");
        }
        assert_eq!(stayed, keys().len());
    });
}
