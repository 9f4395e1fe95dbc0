//! What others may have written beforehand: the record of a claim on a snapshot, where nothing is left but the snapshots.
//! And claims that start empty, which are known by nothing but their uid.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;
use sts_backup::api::restore::{RestorePhase, Strategy, Uncovered};
use sts_backup::plan::flow::Planner;
use sts_backup::plan::noun::RETAIN;
use sts_backup::plan::restore::{self, Restore, undo};
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use super::process::Process;
use super::sweep::{STAGED, case, is_drawn, pause, run, runtime, settings, sweep, want};
use super::world::{Blow, Odd, Setting, World, keys};

/// Nobody is there any more, and the snapshots record claims that would never bind, of a size that nobody has.
fn bare(setting: Setting) -> World {
    let mut world = World::new(&[], setting);
    world.no_target = true;
    world.pods.clear();
    for pvc in keys().iter().map(|key| key.pvc("web")) {
        let volume = world.claims.remove(&pvc).unwrap().volume.unwrap();
        world.disks.remove(&volume);
        let record = json!({
            "storage": "9000Ti",
            "volumeName": "theirs",
            "finalizers": ["example.com/for-ever"],
            "labels": { "app": "web" },
            "annotations": { "pv.kubernetes.io/bind-completed": "yes", "example.com/team": "db" },
        });
        let name = format!("snap-{pvc}");
        world.recorded.insert(name.clone(), serde_json::from_value(record).unwrap());
        world.sources.get_mut(&name).unwrap().restore_size = Some("1Gi".into());
    }
    world
}

#[test]
fn what_a_snapshot_records_of_its_claim_steers_no_binding_and_asks_for_no_more_than_it_holds() {
    for setting in [STAGED, settings()[1].1] {
        runtime().block_on(async {
            let world = Rc::new(RefCell::new(bare(setting)));
            run(&world, "restore", restore::next).await;
            pause(&world, 8).await;
            let world = world.borrow();
            assert_eq!(world.status.phase, Some(RestorePhase::Completed), "{:?}", world.status.message);
            assert_eq!(world.violations, Vec::<String>::new());
            for pvc in keys().iter().map(|key| key.pvc("web")) {
                assert_eq!(world.contents()[&pvc], format!("new {pvc}"));
                let made = &world.claims[&pvc].manifest;
                assert_eq!(made.storage, "1Gi");
                assert_eq!(made.labels, [("app".to_owned(), "web".to_owned())].into());
                assert_eq!(made.annotations, [("example.com/team".to_owned(), "db".to_owned())].into());
            }
        });
    }
}

/// One process, with claims that the run lacks started empty.
async fn fresh(world: &Rc<RefCell<World>>, what: &str, next: Planner<Restore>) {
    let mut want = want(&world.borrow(), what, 1);
    want.restore.uncovered = Uncovered::Fresh;
    let process = Process::start(world, want.clone());
    drive(&process, next, View::new(want)).await;
    pause(world, 8).await;
}

#[test]
fn the_undo_of_a_claim_that_started_empty_keeps_what_was_written_to_it() {
    runtime().block_on(async {
        let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
        world.borrow_mut().sources.retain(|name, _| name.ends_with("-0"));
        world.borrow_mut().sources.values_mut().for_each(|source| source.size = Some(2));
        // By its label it might be one that the restore has made.
        world.borrow_mut().claims.get_mut("data-web-1").unwrap().restore = Some("restore".into());
        fresh(&world, "restore", restore::next).await;
        assert_eq!(world.borrow().status.phase, Some(RestorePhase::Completed), "{:?}", world.borrow().status.message);
        assert_eq!(world.borrow().contents()["data-web-1"], "empty data-web-1");
        world.borrow_mut().undo = Some("please".into());
        fresh(&world, "undo", undo::next).await;
        let world = world.borrow();
        assert_eq!(world.status.phase, Some(RestorePhase::Undone), "{:?}", world.status.message);
        assert_eq!(world.violations, Vec::<String>::new());
        for pvc in keys().iter().map(|key| key.pvc("web")) {
            assert_eq!(world.contents()[&pvc], format!("old {pvc}"));
        }
        let kept: Vec<_> = world.disks.values().filter(|disk| disk.content.starts_with("empty ")).collect();
        assert!(kept.len() == 2 && kept.iter().all(|disk| disk.volume.policy == RETAIN));
        assert!(kept.iter().all(|disk| disk.volume.marks.deadline.is_some()), "there is a day for its release");
    });
}

/// By hand no policy is looked at, and here there is none: what is ours is known by its uid all the same.
#[test]
fn what_others_forge_does_no_harm_where_no_policy_stands() {
    const FORGED: [Blow; 6] =
        [Blow::LabelClaim, Blow::Squat, Blow::SquatLive, Blow::Bend, Blow::ForgePlan, Blow::ForgeStaged];
    for strategy in [Strategy::Staged, Strategy::InPlace] {
        let report = sweep(&format!("{strategy:?}, by hand"), Setting { strategy, odd: Odd::ByHand }, &FORGED);
        assert!(report.red.is_empty() && report.cases > 20, "{strategy:?}: {}", report.cases);
    }
}

/// Nothing keeps pods from starting: who scales up while a claim is being replaced starts its pod on an empty one, and
/// that is all that he does.
#[test]
fn whoever_scales_up_where_no_policy_stands_loses_no_content() {
    let mut all = 0;
    for strategy in [Strategy::Staged, Strategy::InPlace] {
        let (rt, setting) = (runtime(), Setting { strategy, odd: Odd::ByHand });
        let writes = rt.block_on(case(&[], setting, restore::next)).writes;
        for k in 0..writes {
            all += 1;
            if !is_drawn(all) {
                continue;
            }
            let mut world = rt.block_on(case(&[(k, Blow::Rescale)], setting, restore::next));
            world.violations.retain(|what| !what.starts_with("the StatefulSet started on an empty claim"));
            assert!(world.violations.is_empty(), "{strategy:?} {k}: {:?}\n{}", world.violations, world.log.join("\n"));
        }
    }
    assert!(all > 80, "{all} cases are too few");
}
