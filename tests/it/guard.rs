//! The author policies: hooks, restores and undos begin only under them, and what has begun is finished without.

use std::cell::RefCell;
use std::rc::Rc;

use sts_backup::api::condition::Reason;
use sts_backup::api::restore::RestorePhase;
use sts_backup::api::{BACKUP_POLICY, LOCK_POLICY, RESTORE_POLICY};
use sts_backup::plan::backup;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::restore::{self, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::restore::process::Process;
use super::restore::{sweep as restore_sweep, world as restore_world};
use super::{shop, sweep, truth, wire, world};

#[test]
fn hooks_are_refused_unless_the_author_policy_is_bound_and_denies() {
    let said = |actions: Option<&[&str]>, hooks| {
        wire::runtime().block_on(async {
            let (server, clock) = wire::world(&wire::Case::of(hooks));
            server.act(|state| {
                shop::unguard(&mut state.store);
                if let Some(actions) = actions {
                    shop::guard(&mut state.store, actions);
                }
            });
            Box::pin(wire::process(&server, clock, shop::POLICY, "one")).await.unwrap();
            let state = server.look();
            assert_eq!(state.violations, Vec::<String>::new());
            let asked = state.log.iter().filter(|line| line.contains("validatingadmission")).count();
            let last = truth::record(&state.store, shop::POLICY).unwrap().status;
            (last.last_run.unwrap().reason, last.message.unwrap_or_default(), asked)
        })
    };
    for (actions, words) in [
        (None, "ValidatingAdmissionPolicy backup-author.backup.sts-backup.io is not installed"),
        (Some(&["Audit", "Warn"][..]), "denies nothing (validationActions: Audit, Warn)"),
    ] {
        let (reason, message, asked) = said(actions, true);
        assert_eq!((reason, asked), (Some(Reason::PolicyMissing), 2), "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(said(actions, false).0, Some(Reason::BackupCompleted), "without hooks it is not needed");
        assert_eq!(said(actions, false).2, 0);
    }
    assert_eq!(said(Some(&["Deny"]), true).0, Some(Reason::BackupCompleted));
}

/// Who may freeze is one question, who may write the lock that says so is another.
#[test]
fn hooks_are_refused_unless_the_lock_is_guarded_too() {
    wire::runtime().block_on(async {
        let (server, clock) = wire::world(&wire::Case::of(true));
        server.act(|state| {
            shop::unguard(&mut state.store);
            shop::guard_by(&mut state.store, BACKUP_POLICY, &["Deny"]);
            shop::guard_by(&mut state.store, LOCK_POLICY, &["Warn"]);
        });
        Box::pin(wire::process(&server, clock, shop::POLICY, "one")).await.unwrap();
        let state = server.look();
        assert_eq!(state.violations, Vec::<String>::new());
        let last = truth::record(&state.store, shop::POLICY).unwrap().status;
        let message = last.message.unwrap_or_default();
        assert_eq!(last.last_run.unwrap().reason, Some(Reason::PolicyMissing), "{message}");
        assert!(message.contains(LOCK_POLICY) && message.contains("denies nothing"), "{message}");
        assert!(!state.log.iter().any(|line| line.contains("exec")), "{:?}", state.log);
    });
}

/// The policy goes before write k, and its process dies there: what was begun is closed, and no hook runs unguarded.
#[test]
fn a_run_that_has_begun_is_closed_although_the_policy_has_gone() {
    let rt = sweep::runtime();
    let gone = |k: usize, blows: &sweep::Blows| {
        let mut world = world::World::new(blows, world::Kind::Hooks);
        world.unguarded_at = Some(k);
        rt.block_on(sweep::live(world, blows, backup::next))
    };
    let reason = |world: &world::World| world.status.last_run.as_ref().and_then(|last| last.reason);
    let begun = gone(0, &[]);
    assert_eq!(reason(&begun), Some(Reason::PolicyMissing), "{}", begun.log.join("\n"));
    assert!(begun.status.message.unwrap().contains("generate policies"));
    assert!(!begun.log.iter().any(|line| line.contains("Pre")), "{}", begun.log.join("\n"));
    let writes = rt.block_on(sweep::case(&[], world::Kind::Hooks, backup::next)).writes;
    let mut closed = 0;
    for k in 0..writes {
        for blow in [world::Blow::DieBefore, world::Blow::DieAfter] {
            let world = gone(k, &[(k, blow)]);
            let missing = reason(&world) == Some(Reason::PolicyMissing);
            assert!(world.violations.is_empty(), "{k} {blow:?}: {:?}\n{}", world.violations, world.log.join("\n"));
            closed += usize::from(missing);
        }
    }
    assert!(closed > 4 && closed < 2 * writes, "{closed} of {writes}");
}

/// The policy goes before write k, and the process dies there: what has a plan is finished, nothing else is begun.
#[test]
fn a_restore_that_is_planned_is_finished_although_the_policy_has_gone() {
    let rt = restore_sweep::runtime();
    let gone = |k: usize, blows: &restore_sweep::Blows| {
        let world = Rc::new(RefCell::new(restore_world::World::new(blows, restore_sweep::STAGED)));
        world.borrow_mut().unguarded_at = Some(k);
        rt.block_on(restore_sweep::run(&world, "restore", restore::next));
        Rc::into_inner(world).unwrap().into_inner()
    };
    let writes = rt.block_on(restore_sweep::case(&[], restore_sweep::STAGED, restore::next)).writes;
    let (mut refused, mut finished) = (0, 0);
    for k in 0..writes {
        let world = gone(k, &[(k, restore_world::Blow::DieAfter)]);
        if world.status.plan.is_some() {
            assert_eq!(world.status.phase, Some(RestorePhase::Completed), "{k}: {:?}", world.status.message);
            finished += 1;
        } else {
            let message = world.status.message.clone().unwrap_or_default();
            assert!(message.contains("is not installed") && message.contains(RESTORE_POLICY), "{k}: {message}");
            assert!(world.own_contents().values().all(|content| content.starts_with("old")));
            refused += 1;
        }
        assert_eq!(world.violations, Vec::<String>::new(), "{k}");
    }
    assert!(refused > 0 && finished > 20, "{refused} and {finished}");
}

#[test]
fn an_undo_is_not_begun_without_the_policy_and_says_so() {
    restore_sweep::runtime().block_on(async {
        let world = Rc::new(RefCell::new(restore_world::World::new(&[], restore_sweep::STAGED)));
        restore_sweep::run(&world, "restore", restore::next).await;
        world.borrow_mut().undo = Some("please".into());
        world.borrow_mut().unguarded_at = Some(0);
        let want = restore_sweep::want(&world.borrow(), "undo", 1);
        let process = Process::start(&world, want.clone());
        let (exit, _) = drive(&process, undo::next, View::new(want)).await;
        let Exit::Refused(refusal) = exit else { panic!("{exit:?}") };
        assert_eq!(refusal.reason, Reason::UndoRefused);
        assert!(refusal.message.contains("PolicyMissing") && refusal.message.contains(RESTORE_POLICY), "{refusal:?}");
        let world = world.borrow();
        assert_eq!(world.status.phase, Some(RestorePhase::Completed));
        assert!(world.own_contents().values().all(|content| content.starts_with("new")));
        assert!(world.lease.holder.is_none());
    });
}
