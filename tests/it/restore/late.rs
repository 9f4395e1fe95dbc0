//! A request of a process that is dead arrives when its restore is over.

use sts_backup::plan::noun::RETAIN;
use sts_backup::plan::restore;

use super::sweep::{STAGED, case, runtime};
use super::world::Blow;

/// The first process is dead, the second turns back, and only when the pods run again does a deletion of the first one
/// arrive: the claim goes when its pod ends, and with the reclaim policy that it had before its content would go with it.
#[test]
fn a_deletion_that_comes_when_the_pods_run_again_loses_no_content() {
    let blows = [(36, Blow::Straggler), (38, Blow::Refuse), (39, Blow::Refuse)];
    let world = runtime().block_on(case(&blows, STAGED, restore::next));
    assert!(world.violations.is_empty(), "{:?}", world.violations);
    let (claim, going) = world.claims.iter().find(|(_, claim)| claim.leaving).expect("a claim goes");
    let volume = going.volume.clone().unwrap();
    assert_eq!(world.disks[&volume].volume.policy, RETAIN);
    let said = world.status.message.unwrap();
    assert!(said.contains(&format!("claim {claim} is being deleted: its volume {volume} stays")), "{said}");
}
