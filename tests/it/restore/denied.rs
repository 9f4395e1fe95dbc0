//! What passes although it was said: 401, 403 and 404 of an API server that comes up or of a role that is mended; and what
//! nobody may do any more, since the namespace goes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use jiff::Timestamp;
use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::restore;

use super::sweep::{Report, STAGED, case, command, is_drawn, live, run, runtime, settings, sweep};
use super::world::{Blow, World};

/// An API server that comes up, a role that is missing for a while: nothing is definite that has only been said once.
#[test]
fn a_denial_that_passes_changes_nothing() {
    for (what, setting) in settings().into_iter().take(2) {
        let report = sweep(&format!("denied, {what}"), setting, &[Blow::Denied, Blow::Comes]);
        assert!(report.red.is_empty(), "{what}");
    }
}

/// Nothing is left at 0 for good because of what the API server says for a while: it goes on, or back, or both later.
#[test]
fn a_denial_that_lasts_turns_back_or_is_taken_up_again() {
    for (what, setting) in settings().into_iter().filter(|(what, _)| ["staged", "in place", "broken"].contains(what)) {
        let report = sweep(&format!("barred, {what}"), setting, &[Blow::Barred]);
        assert!(report.red.is_empty(), "{what}");
    }
}

#[test]
fn a_namespace_that_goes_leaves_no_volume_that_a_claim_made_anew_would_take() {
    for (what, setting) in settings().into_iter().filter(|(what, _)| ["staged", "in place", "broken"].contains(what)) {
        let report = sweep(&format!("namespace, {what}"), setting, &[Blow::DeleteNamespace]);
        assert!(report.red.is_empty(), "{what}");
    }
}

#[test]
fn a_read_that_is_never_answered_holds_nothing_up() {
    let (rt, start, mut report) = (runtime(), Instant::now(), Report::default());
    let all = rt.block_on(case(&[], STAGED, restore::next)).reads;
    for k in (0..all).filter(|k| is_drawn(*k)) {
        let mut world = World::new(&[], STAGED);
        (world.fail_read, world.hangs) = (Some(k), true);
        let world = rt.block_on(live(world, &[], restore::next));
        let down = world.status.downtime_seconds.unwrap_or(f64::INFINITY);
        assert!(down < 120.0, "read {k}: {down} s");
        report.note(&[], world);
    }
    report.print("reads that hang", all, start);
    assert!(all > 20 && report.red.is_empty());
}

/// Held at 0 because the new claims may not be made, and neither may the old ones.
async fn held() -> Rc<RefCell<World>> {
    for k in 30..60 {
        let world = Rc::new(RefCell::new(World::new(&[(k, Blow::Barred)], STAGED)));
        run(&world, "restore", restore::next).await;
        let again = world.borrow().status.run.as_ref().is_some_and(|run| run.try_again == Some(true));
        let swaps = world.borrow().barred.is_some_and(|(kind, _)| kind == "Make");
        if again && swaps && world.borrow().target.replicas == 0 {
            world.borrow_mut().barred = Some(("Make", Timestamp::MIN));
            return world;
        }
    }
    panic!("nothing is held");
}

/// What somebody does while it is held, and what the restore says of it.
type Change = (&'static str, fn(&mut World));

const CHANGES: [Change; 4] = [
    ("mark on the lock is gone", |world| world.lease.open = None),
    ("the fence is gone", |world| world.lease.fence = None),
    ("was made or taken over by somebody else", |world| world.target.replicas = 1),
    ("of claim data-web-0 is gone", |world| world.disks.retain(|_, disk| disk.content != "old data-web-0")),
];

#[test]
fn what_is_held_goes_on_only_from_where_the_journal_left_it() {
    for (said, change) in CHANGES {
        runtime().block_on(async {
            let world = held().await;
            change(&mut world.borrow_mut());
            command(&world, "restore", restore::next, 51).await;
            let world = world.borrow();
            let message = world.status.message.clone().unwrap_or_default();
            assert!(message.contains(said) && message.contains("not taken up again"), "{said}: {message}");
            assert_eq!(world.status.phase, Some(RestorePhase::Failed), "{said}");
            assert!(world.claims.values().all(|claim| claim.restored_by.is_none()), "{said}: nothing is made");
            assert_eq!(world.status.run.as_ref().and_then(|run| run.try_again), None, "{said}: it is left for people");
        });
    }
}
