//! What our sentences advise, done as they say it while a watcher runs: the watcher's planner decides from the object and
//! from its Jobs which Job comes next, and each Job's process carries out what it was made for.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::SignedDuration;
use sts_backup::api::restore::{OnFailure, RestorePhase, Strategy};
use sts_backup::api::shared::Trigger;
use sts_backup::plan::flow::{Exit, Planner};
use sts_backup::plan::job::{Kind, Run};
use sts_backup::plan::launch::entry::{Job, Manager, Object, OpenRun, Owned, Restore, Stage, State, Subject, Uid};
use sts_backup::plan::launch::pace::Lease;
use sts_backup::plan::launch::plight::Plight;
use sts_backup::plan::launch::{Answer, Context, Feed, Index, Now, What};
use sts_backup::plan::noun::Want;
use sts_backup::plan::restore::{self, lift, release, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::process::Process;
use super::sweep::{STAGED, pause, runtime, want};
use super::world::{Blow, NAMESAKE, Odd, PODS, SIGNATURE, Setting, World, keys};

const OBJECT: Uid = Uid(1);
/// What a Job's pods are tried again for.
const AGAIN: [u8; 1] = [20];

/// A world with a watcher, whose Jobs end before it looks again.
struct Watched {
    world: Rc<RefCell<World>>,
    index: Index,
    on_failure: OnFailure,
    /// The Jobs that were made: kind, slot, attempt and exit code.
    jobs: Vec<(Kind, String, u32, u8)>,
}

impl Watched {
    fn new(setting: Setting, on_failure: OnFailure) -> Watched {
        let (world, feeds) = (World::new(&[], setting), Feed::of(&[]));
        let (places, started) = (10, world.born);
        let mut index =
            Index::new(Context { places, restore_places: places, jitter_seconds: 0, started, feeds: feeds.clone() });
        for feed in &feeds {
            index.list(feed);
            index.listed(feed);
        }
        Watched { world: Rc::new(RefCell::new(world)), index, on_failure, jobs: vec![] }
    }

    fn object(&self) -> Object {
        let world = self.world.borrow();
        let (status, born) = (world.status.clone(), world.born);
        let run = status.run.clone().map(|run| OpenRun {
            slot: run.slot.unwrap_or_default().into(),
            attempt: run.attempt.and_then(|attempt| attempt.try_into().ok()).unwrap_or(1),
            stage: Stage::Other,
        });
        let restore = Restore {
            phase: status.phase,
            try_again: status.run.as_ref().is_some_and(|run| run.try_again == Some(true)),
            run,
            undo: world.undo.clone().map(Into::into),
            undoing: status.undo_plan.is_some(),
            unread: None,
            undo_deadline: status.undo_deadline.map(|at| at.0),
            aside: (0, 0),
            failed: None,
            owned: Owned { request: status.last_request.map(Into::into), ..Owned::default() },
        };
        Object {
            namespace: "shop".into(),
            name: "back".into(),
            version: world.version.to_string().into(),
            generation: 1,
            created: born,
            leaving: world.leaving.then_some(born),
            held: !world.finalizers.is_empty(),
            statefulset: "web".into(),
            statefulset_namespace: None,
            manager: Manager::Us,
            problem: None,
            standing: vec![],
            subject: Subject::Restore(Box::new(restore)),
        }
    }

    fn now(&self) -> Now {
        let world = self.world.borrow();
        let tick = world.now().duration_since(world.born);
        Now { wall: world.now(), tick: tick.try_into().unwrap() }
    }

    /// What a process of a Job wants, or one that is typed.
    fn want(&self, what: &str, slot: &str, n: u32) -> Want {
        let mut want = want(&self.world.borrow(), what, n.try_into().unwrap());
        want.restore.on_failure = self.on_failure;
        want.restore.force = slot.ends_with("--force");
        Want { slot: slot.into(), attempt: n.into(), ..want }
    }

    async fn process(&self, next: Planner<sts_backup::plan::restore::Restore>, want: Want) -> Exit {
        let horizon = self.world.borrow().now() + SignedDuration::from_hours(1);
        self.world.borrow_mut().horizon = horizon;
        let process = Process::start(&self.world, want.clone());
        drive(&process, next, View::new(want)).await.0
    }

    async fn job(&mut self, run: &Run) -> Job {
        let (what, next): (&str, Planner<sts_backup::plan::restore::Restore>) = match run.kind {
            Kind::Restore => ("restore", restore::next),
            Kind::Undo => ("undo", undo::next),
            Kind::Release => ("release", release::next),
            Kind::Backup => unreachable!("there is no backup"),
        };
        let code = self.process(next, self.want(what, &run.slot, run.attempt)).await.code();
        let state = if code == 0 { State::Succeeded } else { State::Failed { refused: !AGAIN.contains(&code) } };
        let (slot, n) = (run.slot.as_str(), self.jobs.len() as u128 + 2);
        self.jobs.push((run.kind, run.slot.clone(), run.attempt, code));
        Job::new(Uid(n), run.kind, slot.into(), run.attempt, Trigger::Manual, state, None)
    }

    /// The watcher at work for so long, or until it has made so many Jobs more.
    async fn watch(&mut self, minutes: u64, most: usize) {
        let (until, most) = (self.now().tick + Duration::from_secs(60 * minutes), self.jobs.len() + most);
        while self.now().tick < until && self.jobs.len() < most {
            self.index.see(OBJECT, self.object());
            let acts = self.index.plan(self.now());
            if acts.is_empty() {
                pause(&self.world, 1).await;
            }
            for act in acts {
                let answer = match act.what {
                    What::Launch { run, .. } => Answer::Launched(Some(self.job(&run).await)),
                    What::Status(owned) => {
                        let mut world = self.world.borrow_mut();
                        world.status.last_request = owned.request.map(Into::into);
                        world.version += 1;
                        Answer::Status(None)
                    }
                    What::Look => {
                        let holder = self.world.borrow().lease.holder.as_ref().map(|holder| holder.0.as_str().into());
                        Answer::Lease(Lease { holder, renewed: None })
                    }
                    What::Prune { job, .. } => Answer::Pruned(job),
                    What::Inspect { job, .. } => Answer::Inspected(job, Plight::None),
                    What::Judge(_) | What::Sight(_) | What::Remove { .. } => {
                        panic!("its spec is sound, and its runner alone")
                    }
                    What::Tell(_) => Answer::Told,
                };
                self.index.answer(act.uid, answer, self.now());
            }
        }
    }

    fn phase(&self) -> Option<RestorePhase> {
        self.world.borrow().status.phase
    }

    fn message(&self) -> String {
        self.world.borrow().status.message.clone().unwrap_or_default()
    }

    fn made(&self, kind: Kind) -> usize {
        self.jobs.iter().filter(|(of, ..)| *of == kind).count()
    }

    /// `sts-backup undo shop/back` writes the annotation.
    fn ask(&self, value: &str) {
        let mut world = self.world.borrow_mut();
        world.undo = Some(value.into());
        world.version += 1;
    }

    /// Another restore, of another name; the first one is over, and what it has set aside stays.
    fn asks_anew(&self) {
        let mut world = self.world.borrow_mut();
        world.deed(Blow::ReplaceObject);
        (world.ghost, world.blows) = (None, vec![]);
        world.setting.odd = Odd::Nothing;
        // The world asks after the request of this name.
        if world.lease.restored.is_empty() {
            world.lease.restored.push(format!("{SIGNATURE} 2027-01-15T08:00:00Z"));
        }
    }

    fn stands_on(&self, what: &str) -> bool {
        let contents = self.world.borrow().contents();
        keys().iter().map(|key| key.pvc("web")).all(|pvc| contents.get(&pvc) == Some(&format!("{what} {pvc}")))
    }

    fn whole(&self) {
        let world = self.world.borrow();
        assert_eq!(world.violations, Vec::<String>::new());
        assert!(world.lease.open.is_none() && world.lease.fence.is_none() && world.lease.holder.is_none());
        assert!(world.target.replicas >= PODS, "{}", world.target.replicas);
    }
}

const BROKEN: Setting = Setting { odd: Odd::Broken, ..STAGED };

#[test]
fn the_undo_of_a_restore_that_is_held_is_begun_and_done() {
    for setting in [BROKEN, Setting { strategy: Strategy::InPlace, ..BROKEN }, Setting { odd: Odd::Half, ..STAGED }] {
        runtime().block_on(async {
            let mut watched = Watched::new(setting, OnFailure::Hold);
            watched.watch(60, 9).await;
            assert_eq!(watched.phase(), Some(RestorePhase::Failed), "{}", watched.message());
            assert!(watched.message().contains("To put the old volumes back: sts-backup undo shop/back"));
            assert_eq!(watched.jobs.len(), 1, "nobody asked for more: {:?}", watched.jobs);
            watched.ask("please");
            watched.watch(10, 9).await;
            assert_eq!(
                watched.phase(),
                Some(RestorePhase::Undone),
                "{setting:?} {:?} {}",
                watched.jobs,
                watched.message()
            );
            assert_eq!(watched.jobs[1..], [(Kind::Undo, "please".to_owned(), 1, 0)]);
            assert!(watched.stands_on("old"));
            watched.whole();
        });
    }
}

/// In place, held before its claims are Bound: nothing is on them yet.
#[test]
fn the_undo_of_a_restore_whose_claims_were_never_bound_is_done() {
    runtime().block_on(async {
        let setting = Setting { strategy: Strategy::InPlace, ..STAGED };
        let mut watched = Watched::new(setting, OnFailure::Hold);
        watched.world.borrow_mut().idle = true;
        watched.watch(60, 9).await;
        assert!(watched.message().contains("was not Bound within"), "{}", watched.message());
        watched.ask("please");
        watched.watch(10, 9).await;
        assert_eq!(watched.phase(), Some(RestorePhase::Undone), "{:?} {}", watched.jobs, watched.message());
        assert!(watched.stands_on("old"));
        watched.whole();
    });
}

#[test]
fn the_deletion_of_a_restore_that_is_held_puts_the_old_volumes_back() {
    runtime().block_on(async {
        let mut watched = Watched::new(BROKEN, OnFailure::Hold);
        watched.watch(60, 9).await;
        watched.world.borrow_mut().leaving = true;
        watched.world.borrow_mut().version += 1;
        watched.world.borrow_mut().released = true;
        watched.watch(10, 9).await;
        assert!(watched.stands_on("old") && watched.world.borrow().finalizers.is_empty(), "{:?}", watched.jobs);
        watched.whole();
    });
}

#[test]
fn replicas_that_came_since_are_undone_over_as_the_refusal_says() {
    runtime().block_on(async {
        let mut watched = Watched::new(STAGED, OnFailure::Rollback);
        watched.watch(10, 1).await;
        watched.world.borrow_mut().target.replicas = PODS + 1;
        watched.world.borrow_mut().touch_target();
        pause(&watched.world, 8).await;
        watched.ask("please");
        watched.watch(10, 9).await;
        assert_eq!((watched.phase(), watched.made(Kind::Undo)), (Some(RestorePhase::Completed), 1));
        let said = watched.message();
        assert!(said.contains("sts-backup undo shop/back --force"), "{said}");
        watched.ask("once more --force");
        watched.watch(10, 9).await;
        assert_eq!(
            (watched.phase(), watched.made(Kind::Undo)),
            (Some(RestorePhase::Undone), 2),
            "{}",
            watched.message()
        );
        assert!(watched.stands_on("old") && watched.world.borrow().target.replicas == PODS + 1);
        watched.whole();
    });
}

/// Rolling back onto a volume that somebody has deleted: no undo and no deletion can put it back. It is ended as it stands,
/// and another restore brings back what is lost.
#[test]
fn a_restore_that_is_held_for_a_lost_volume_is_ended_and_asked_for_anew_as_it_says() {
    let (mut held, mut stays) = (0, 0);
    for k in (30..90).step_by(4) {
        runtime().block_on(async {
            let mut watched = Watched::new(BROKEN, OnFailure::Rollback);
            watched.world.borrow_mut().blows = vec![(k, Blow::LoseVolume)];
            watched.watch(30, 1).await;
            let said = watched.message();
            if watched.world.borrow().status.run.is_none() {
                return;
            }
            held += 1;
            assert!(said.contains("of claim data-web-0 is gone"), "{k}: {said}");
            assert!(said.contains("sts-backup doctor --lift-fence shop/web") && !said.contains("undo"), "{k}: {said}");
            let exit = watched.process(lift::held, watched.want("restore", "", 9)).await;
            assert!(matches!(exit, Exit::Done(_)), "{k}: {exit:?}");
            assert_eq!(watched.phase(), Some(RestorePhase::Failed), "{}", watched.message());
            // What may hold all that there is of a claim stays until somebody has looked at it.
            let only = alone(&watched.world.borrow());
            stays += only.len();
            assert!(only.iter().all(|pv| watched.message().contains(pv.as_str())), "{k}: {}", watched.message());
            watched.world.borrow_mut().violations.clear();
            // Its preflight asks for that: "is Lost: its volume is gone (delete it; …)".
            watched.world.borrow_mut().claims.retain(|_, claim| !claim.lost);
            watched.asks_anew();
            let want = Want { name: "anew".into(), ..want(&watched.world.borrow(), NAMESAKE, 1) };
            let exit = watched.process(restore::next, want).await;
            assert_eq!(watched.phase(), Some(RestorePhase::Completed), "{k}: {exit:?} {}", watched.message());
            assert!(watched.stands_on("new"));
            let own = |pv: &String| watched.world.borrow().disks[pv].volume.marks.policy.clone();
            assert!(only.iter().all(|pv| own(pv).as_deref() == Some("Retain")), "{k}: released, it would be deleted");
        });
    }
    assert!(held > 3 && stays > 0, "{held} held, {stays} volumes stay");
}

/// The volumes of claims that have none.
fn alone(world: &World) -> Vec<String> {
    let bare = |pvc: &str| world.claims.get(pvc).is_none_or(|claim| claim.volume.is_none());
    let of = |disk: &super::world::Disk| disk.volume.claim.as_ref().is_some_and(|claim| bare(&claim.name));
    world.disks.iter().filter(|(_, disk)| of(disk)).map(|(pv, _)| pv.clone()).collect()
}

/// Where its object is being deleted, it goes without its finalizer, and then its marks can be taken off.
#[test]
fn a_lost_volume_does_not_hold_an_object_that_is_deleted_for_ever() {
    runtime().block_on(async {
        let mut watched = Watched::new(BROKEN, OnFailure::Hold);
        watched.watch(30, 1).await;
        watched.world.borrow_mut().deed(Blow::LoseVolume);
        watched.world.borrow_mut().deed(Blow::Deleted);
        watched.watch(30, 1).await;
        let said = watched.message();
        assert!(watched.made(Kind::Restore) > 1 && !watched.world.borrow().finalizers.is_empty(), "{said}");
        let let_go =
            r#"kubectl -n shop patch statefulsetrestore back --type merge -p '{"metadata":{"finalizers":null}}'"#;
        let clears = "sts-backup doctor --lift-fence shop/web";
        assert!(said.contains(let_go) && said.contains(clears) && !said.contains("undo"), "{said}");
        watched.asks_anew();
        let exit = watched.process(lift::orphan, watched.want("restore", "", 9)).await;
        assert!(matches!(exit, Exit::Done(_)), "{exit:?}");
        let lease = watched.world.borrow().lease.clone();
        assert!(lease.open.is_none() && lease.fence.is_none() && lease.holder.is_none(), "{lease:?}");
    });
}
