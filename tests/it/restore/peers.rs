//! Several restores of one StatefulSet: which of them can be undone goes by the order in which they swapped, whichever
//! object was made first; and what is undone is no bar.

use std::cell::RefCell;
use std::rc::Rc;

use jiff::SignedDuration;
use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::restore::sight::Peer;
use sts_backup::plan::restore::{self, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::process::Process;
use super::sweep::{STAGED, run, runtime, want};
use super::world::{SIGNATURE, UID, World};

/// What the Lease remembers beside ours.
#[derive(Clone, Copy)]
enum Lease {
    Before,
    After,
    /// It was made anew, and remembers nothing.
    Lost,
}

/// How the undo of a restore ends beside another one; `created` and `began` in seconds after ours, `stands`: the other
/// one's volumes may be there.
fn undone(lease: Lease, created: i64, began: i64, stands: bool) -> (Option<RestorePhase>, String) {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        {
            let mut world = world.borrow_mut();
            let at = |seconds: i64| world.born + SignedDuration::from_secs(seconds);
            let peer = |name: &str, uid: &str, seconds: (i64, i64), stands| Peer {
                namespace: "shop".into(),
                name: name.into(),
                uid: uid.into(),
                created: at(seconds.0),
                began: Some(at(seconds.1)),
                planned: true,
                ended: true,
                stands,
            };
            world.peers = vec![peer("back", UID, (0, 0), true), peer("other", "another", (created, began), stands)];
            assert!(world.lease.restored[0].starts_with(SIGNATURE));
            let entry = "shop/other@123 2026-01-01T00:00:00Z".to_owned();
            match lease {
                Lease::Before => world.lease.restored.insert(0, entry),
                Lease::After => world.lease.restored.push(entry),
                Lease::Lost => world.lease.restored.clear(),
            }
        }
        run(&world, "undo", undo::next).await;
        assert_eq!(world.borrow().violations, Vec::<String>::new());
        let status = &world.borrow().status;
        (status.phase, status.message.clone().unwrap_or_default())
    })
}

#[test]
fn the_one_that_swapped_last_is_undone_whichever_was_made_first() {
    for (lease, created, began) in
        [(Lease::Before, 60, -60), (Lease::Before, 60, 60), (Lease::Lost, 60, -60), (Lease::Before, -60, -60)]
    {
        let (phase, message) = undone(lease, created, began, true);
        assert_eq!(phase, Some(RestorePhase::Undone), "{message}");
    }
}

#[test]
fn one_that_swapped_before_is_refused_and_told_which_comes_first() {
    for (lease, created, began) in [(Lease::After, -60, 60), (Lease::After, -60, -60), (Lease::Lost, -60, 60)] {
        let (phase, message) = undone(lease, created, began, true);
        assert_eq!(phase, Some(RestorePhase::Completed), "{message}");
        assert!(message.contains("restore shop/other of the same StatefulSet came after it"), "{message}");
    }
}

#[test]
fn one_that_has_been_undone_itself_is_no_bar() {
    let (phase, message) = undone(Lease::After, 60, 60, false);
    assert_eq!(phase, Some(RestorePhase::Undone), "{message}");
}

/// With scaleDown: false nobody would stop the pods.
#[test]
fn an_undo_that_may_not_scale_down_is_refused_over_running_pods() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        let mut want = want(&world.borrow(), "undo", 1);
        want.restore.scale_down = false;
        let process = Process::start(&world, want.clone());
        let (exit, _) = drive(&process, undo::next, View::new(want)).await;
        let Exit::Refused(refusal) = exit else { panic!("{exit:?}") };
        let scale = "kubectl -n shop scale statefulset web --replicas 0";
        assert!(refusal.message.contains("pod web-0 uses a claim") && refusal.message.contains(scale), "{refusal:?}");
        let world = world.borrow();
        assert_eq!(world.status.phase, Some(RestorePhase::Completed));
        assert!(world.lease.fence.is_none() && world.lease.open.is_none() && world.lease.holder.is_none());
        assert_eq!(world.violations, Vec::<String>::new());
    });
}
