//! Who waits for the lock, and for how long: the end of another restore, or that of the object itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join;
use jiff::SignedDuration;
use sts_backup::plan::flow::{Exit, Planner};
use sts_backup::plan::noun::{Holder, Open, Outcome};
use sts_backup::plan::restore::{self, KIND, Restore, release, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::process::Process;
use super::sweep::{STAGED, run, runtime, want};
use super::world::{Blow, World};

async fn one(world: &Rc<RefCell<World>>, what: &str, next: Planner<Restore>) -> (Exit, SignedDuration) {
    let (want, begun) = (want(&world.borrow(), what, 1), world.borrow().now());
    world.borrow_mut().horizon = begun + SignedDuration::from_hours(1);
    let process = Process::start(world, want.clone());
    let ended = tokio::time::timeout(Duration::from_hours(1), drive(&process, next, View::new(want))).await;
    let taken = world.borrow().now().duration_since(begun);
    world.borrow_mut().bury(&process.want.me);
    (ended.unwrap().0, taken)
}

fn mark(world: &Rc<RefCell<World>>, open: Option<&str>) {
    let mut world = world.borrow_mut();
    world.lease.open = open.map(|name| Open {
        kind: KIND.into(),
        namespace: "shop".into(),
        name: name.into(),
        uid: name.into(),
        run: "20260101-000000".into(),
        pods: vec![],
        hooks: None,
        journal: None,
    });
    world.lease.version = world.uid("v");
}

async fn later(seconds: u64, what: impl FnOnce()) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    what();
}

#[test]
fn a_release_that_meets_an_open_restore_waits_for_its_end_and_is_never_refused_for_it() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        tokio::time::sleep(Duration::from_hours(25)).await;
        world.borrow_mut().released = true;
        mark(&world, Some("other"));
        let (exit, taken) = one(&world, "release", release::next).await;
        let Exit::Again(why) = &exit else { panic!("{exit:?}") };
        assert!(exit.code() == 20 && why.contains("shop/other"), "{why}");
        assert!(taken >= SignedDuration::from_secs(590), "{taken}");
        let ((exit, taken), ()) = join(one(&world, "release", release::next), later(60, || mark(&world, None))).await;
        assert_eq!(exit, Exit::Done(Outcome::Succeeded));
        assert!(taken < SignedDuration::from_secs(70), "{taken}");
        assert_eq!(world.borrow().violations, Vec::<String>::new());
    });
}

#[test]
fn a_restore_that_waits_for_the_lock_ends_when_its_object_goes() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        world.borrow_mut().lease.holder = Some(Holder("restore/shop/other/1".into()));
        let gone = later(20, || {
            let said = world.borrow().status.message.clone().unwrap_or_default();
            assert!(said.starts_with("Waiting for the lock") && said.contains("restore/shop/other/1 holds"), "{said}");
            world.borrow_mut().deed(Blow::ReplaceObject);
        });
        let ((exit, taken), ()) = join(one(&world, "restore", restore::next), gone).await;
        assert!(matches!(exit, Exit::Refused(_)), "{exit:?}");
        assert!(taken < SignedDuration::from_secs(25), "{taken}");
        assert_eq!(world.borrow().writes, 1, "whom it waits for, once");
    });
}

/// A backup died in its freeze: only its own next attempt may take the lock, and that may take minutes.
#[test]
fn a_restore_that_meets_an_open_freeze_says_whose_it_is() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        mark(&world, Some("nightly"));
        world.borrow_mut().lease.open.as_mut().unwrap().kind = "StatefulSetBackup".into();
        let thawed = later(100, || {
            let said = world.borrow().status.message.clone().unwrap_or_default();
            assert!(said.contains("Waiting for StatefulSetBackup shop/nightly: its run 20260101-000000"), "{said}");
            assert_eq!(world.borrow().writes, 1, "once");
            mark(&world, None);
        });
        let ((exit, taken), ()) = join(one(&world, "restore", restore::next), thawed).await;
        assert_eq!(exit, Exit::Done(Outcome::Succeeded));
        assert!(taken > SignedDuration::from_secs(100), "{taken}");
        let said = world.borrow().status.message.clone().unwrap_or_default();
        assert!(!said.contains("Waiting"), "{said}");
    });
}

#[test]
fn who_finds_its_object_gone_gives_the_lock_back() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[(0, Blow::ReplaceObject)], STAGED)));
        let (exit, _) = one(&world, "restore", restore::next).await;
        assert!(matches!(exit, Exit::Refused(_)), "{exit:?}");
        assert_eq!(world.borrow().lease.holder, None, "nobody waits until it runs out");
    });
}

/// The namespace of an object that waits goes: it waits no longer, and takes the finalizer off.
#[test]
fn a_release_that_waits_lets_go_when_the_namespace_goes() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        world.borrow_mut().deed(Blow::Deleted);
        mark(&world, Some("other"));
        let gone = later(30, || world.borrow_mut().deed(Blow::DeleteNamespace));
        let ((exit, taken), ()) = join(one(&world, "release", release::next), gone).await;
        assert!(taken < SignedDuration::from_secs(35), "{exit:?} {taken}");
        assert_eq!(world.borrow().finalizers, Vec::<String>::new());
    });
}

/// Of a restore that is over: asked for an undo, or due for its release, while others have the lock.
#[test]
fn an_undo_and_a_release_that_wait_for_the_lock_say_who_holds_it_until_they_have_it() {
    runtime().block_on(async {
        let all: [(&str, Planner<Restore>); 2] = [("undo", undo::next), ("release", release::next)];
        for (what, next) in all {
            let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
            run(&world, "restore", restore::next).await;
            if what == "undo" {
                world.borrow_mut().deed(Blow::AskUndo);
            } else {
                tokio::time::sleep(Duration::from_hours(25)).await;
                world.borrow_mut().released = true;
            }
            let before = world.borrow().status.message.clone().unwrap();
            mark(&world, Some("other"));
            let writes = world.borrow().writes;
            let thawed = later(29, || {
                let said = world.borrow().status.message.clone().unwrap_or_default();
                let waits =
                    format!("{before}. The {what} waits for StatefulSetRestore shop/other: its run 20260101-000000");
                assert!(said.starts_with(&waits), "{said}");
                assert_eq!(world.borrow().writes, writes + 1, "once");
                mark(&world, None);
            });
            let ((exit, _), ()) = join(one(&world, what, next), thawed).await;
            assert_eq!(exit, Exit::Done(Outcome::Succeeded), "{what}");
            let said = world.borrow().status.message.clone().unwrap_or_default();
            assert!(!said.contains(" waits for "), "{said}");
            assert_eq!(world.borrow().violations, Vec::<String>::new());
        }
    });
}

/// It waited and said so, and what it then finds is refused: nothing of the lock is left in status.
#[test]
fn an_undo_that_is_refused_once_it_has_the_lock_does_not_say_that_it_waits_for_it() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        run(&world, "restore", restore::next).await;
        world.borrow_mut().deed(Blow::AskUndo);
        world.borrow_mut().deed(Blow::LoseVolume);
        mark(&world, Some("other"));
        let told = || world.borrow().status.message.clone().unwrap_or_default();
        let thawed = later(60, || {
            assert!(told().contains("The undo waits for"), "{}", told());
            mark(&world, None);
        });
        let ((exit, _), ()) = join(one(&world, "undo", undo::next), thawed).await;
        assert!(!matches!(exit, Exit::Done(Outcome::Succeeded)), "{exit:?}");
        assert!(told().contains("An undo was refused") && !told().contains(" waits for "), "{}", told());
    });
}
