//! What others may have written beforehand: the record of a claim on a snapshot, where nothing is left but the snapshots.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;
use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::restore;

use super::sweep::{STAGED, pause, run, runtime, settings};
use super::world::{Setting, World, keys};

/// Nobody is there any more, and the snapshots record claims that would never bind, of a size that nobody has.
fn bare(setting: Setting) -> World {
    let mut world = World::new(&[], setting);
    world.no_target = true;
    world.pods.clear();
    for pvc in keys().iter().map(|key| key.pvc("web")) {
        let volume = world.claims.remove(&pvc).unwrap().volume.unwrap();
        world.disks.remove(&volume);
        let source = world.sources.get_mut(&format!("snap-{pvc}")).unwrap();
        let record = json!({
            "storage": "9000Ti",
            "volumeName": "theirs",
            "finalizers": ["example.com/for-ever"],
            "labels": { "app": "web" },
            "annotations": { "pv.kubernetes.io/bind-completed": "yes", "example.com/team": "db" },
        });
        source.manifest = serde_json::from_value(record).unwrap();
        source.restore_size = Some("1Gi".into());
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
