//! What passes although it was said: 401, 403 and 404 of an API server that comes up or of a role that is mended; and what
//! nobody may do any more, since the namespace goes.

use std::time::Instant;

use sts_backup::plan::restore;

use super::sweep::{Report, STAGED, case, is_drawn, live, runtime, settings, sweep};
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
