//! What others do at the worst moments: cases that were red once, so many of their neighbours that a write more or less
//! moves none of them out of reach.

use std::ops::Range;

use sts_backup::plan::restore;

use super::sweep::{STAGED, case, runtime};
use super::world::Blow;

/// Pairs that were red: a claim that is gone and whose volume nobody finds; a name that somebody takes for which a volume
/// is reserved; a claim that is replaced between the last look at it and the end, so that its volume is the only copy.
#[test]
fn what_others_did_at_the_worst_moments_harms_nothing() {
    let rt = runtime();
    let near = |first: Range<usize>, one: Blow, second: Range<usize>, other: Blow| {
        first.flat_map(move |k| second.clone().filter(move |j| *j > k).map(move |j| [(k, one), (j, other)]))
    };
    let cases = near(27..29, Blow::DeleteClaim, 29..31, Blow::ForgePlan)
        .chain(near(28..29, Blow::DeleteTarget, 47..49, Blow::DeleteClaim))
        .chain(near(5..6, Blow::Bend, 40..45, Blow::SquatLive))
        .chain(near(15..16, Blow::DeleteTarget, 52..56, Blow::ReplaceClaim))
        .chain(near(48..49, Blow::Deleted, 62..68, Blow::ReplaceClaim));
    let mut hit = 0;
    for blows in cases {
        let world = rt.block_on(case(&blows, STAGED, restore::next));
        assert!(world.violations.is_empty(), "{blows:?}: {:?}", world.violations);
        hit += usize::from(world.hit.is_some());
    }
    assert!(hit > 12, "{hit}");
}

/// Deleted while its pod runs, it goes when the pods stop: a way back before the swap makes it again on its volume.
#[test]
fn no_pod_starts_on_a_claim_that_somebody_has_deleted() {
    let rt = runtime();
    let writes = rt.block_on(case(&[], STAGED, restore::next)).writes;
    for (first, turn) in [(9, Blow::Refuse), (16, Blow::Deleted)] {
        for k in first + 1..writes {
            let world = rt.block_on(case(&[(first, Blow::DeleteClaim), (k, turn)], STAGED, restore::next));
            assert!(world.violations.is_empty(), "{first}, {k}: {:?}", world.violations);
        }
    }
}
