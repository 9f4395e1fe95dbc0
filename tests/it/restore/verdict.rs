//! What must hold once a restore has ended, undisturbed or not.

use sts_backup::api::FINALIZER;
use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::noun::{DELETE, RETAIN, Volume};
use sts_backup::plan::restore::invariant::Promise;

use super::sweep::Blows;
use super::world::{Blow, Odd, PODS, UID, World, Wrong, keys};

/// Deeds after which a restore may fail, or be held for people to decide.
const HARD: [Blow; 9] = [
    Blow::Rescale,
    Blow::DeleteTarget,
    Blow::Orphan,
    Blow::ReplaceTarget,
    Blow::DeleteClaim,
    Blow::ReplaceClaim,
    Blow::SquatLive,
    Blow::ForgePlan,
    Blow::ForgeStaged,
];

/// Deeds after which a restore may fail before anything is stopped.
const SQUATS: [Blow; 3] = [Blow::Squat, Blow::Bend, Blow::Snapshot];

/// A namespace is gone: nothing holds its end up, and no volume of ours waits for a claim of its names.
pub fn ended(world: &mut World) {
    let free: Vec<String> = world
        .ours()
        .filter(|(_, disk)| disk.volume.claim.as_ref().is_none_or(|of| of.uid.is_none()))
        .map(|(name, disk)| format!("volume {name} ({}) would bind to a claim that is made anew", disk.content))
        .collect();
    let held = world.finalizers.iter().any(|name| name == FINALIZER);
    let held = held.then(|| "our finalizer holds the namespace".to_owned());
    free.into_iter().chain(held).for_each(|what| world.violate(what));
}

pub fn verdict(world: &mut World, blows: &Blows) {
    if world.ending {
        return ended(world);
    }
    let struck = |kinds: &[Blow]| blows.iter().any(|(_, blow)| kinds.contains(blow));
    let phase = world.status.phase;
    let held = phase == Some(RestorePhase::Failed) && world.status.run.is_some();
    let (hard, odd) = (struck(&HARD), world.setting.odd);
    let mut bad = vec![];
    let mut check = |wrong: bool, what: &str| {
        if wrong {
            bad.push(what.to_owned());
        }
    };
    // A pod that uses a claim when the restore begins is a reason to refuse.
    let refused = struck(&[Blow::Guest]) && world.status.plan.is_none();
    let may_fail = hard
        || refused
        || struck(&[Blow::Refuse, Blow::Deleted, Blow::Barred])
        || struck(&SQUATS)
        || matches!(odd, Odd::Broken | Odd::Half);
    let contents = world.contents();
    // What somebody has put under a name, or taken from it, is not the restore's.
    let claims: Vec<String> =
        keys().iter().map(|key| key.pvc("web")).filter(|pvc| world.hit.as_ref() != Some(pvc)).collect();
    let all = |what: &str| claims.iter().all(|pvc| contents.get(pvc) == Some(&format!("{what} {pvc}")));
    match phase {
        Some(RestorePhase::Completed) => check(!all("new"), "Completed, and not on the restored volumes"),
        Some(RestorePhase::Failed) => {
            check(!may_fail, "failed without a reason");
            check(!held && !all("old") && !struck(&[Blow::Deleted]), "Failed, and not on the old volumes");
            check(!all("old") && !all("new") && !held, "a mixture");
        }
        _ => check(!struck(&[Blow::Deleted]), "not closed"),
    }
    let served = odd == Odd::Half && !struck(&[Blow::Refuse, Blow::Deleted]) && !hard;
    check(served && !(held && all("new")), "turned back over pods that have served");
    let twice = blows.iter().filter(|(_, blow)| matches!(blow, Blow::Refuse | Blow::Deleted)).count() > 1;
    check(held && !twice && !struck(&[Blow::Refuse]) && !hard && odd != Odd::Half, "held");
    if held {
        check(world.lease.open.is_none(), "held without open mark");
    } else {
        closed(world, blows, &mut check);
    }
    for what in bad {
        world.violate(what);
    }
    world.look_at_others(!held);
}

/// Nothing is left of a restore that is over.
fn closed(world: &World, blows: &Blows, check: &mut impl FnMut(bool, &str)) {
    let struck = |kinds: &[Blow]| blows.iter().any(|(_, blow)| kinds.contains(blow));
    let (hard, odd) = (struck(&HARD), world.setting.odd);
    check(world.lease.open.is_some(), "open mark left");
    check(world.lease.fence.is_some(), "fence left");
    check(world.lease.holder.is_some() && !struck(&[Blow::Refuse, Blow::Barred]), "Lease still held");
    let same = !world.no_target && world.target.uid == "sts";
    let late = |wrong| world.is_excused(wrong, "");
    check(same && world.target.replicas != world.meant && !late(Wrong::Replicas), "wrong replicas");
    let ready = world.pods.values().filter(|instance| instance.pod.ready_since.is_some()).count();
    check(ready != PODS as usize && odd != Odd::Sick && !hard && !late(Wrong::Unready), "pods are not ready");
    check(same && (odd != Odd::Scaled) == (world.target.retention.scaled == DELETE), "retention policy not put back");
    let pinned = world.sources.values().any(|source| !source.pins.is_empty());
    check(pinned && !late(Wrong::Pinned), "a snapshot is still pinned");
    let ours = |name: &&String| name.ends_with("-stage-restore") && !world.others.contains_key(*name);
    let staging = world.claims.keys().any(|name| ours(&name));
    check(staging && !struck(&[Blow::Straggler]), "staging claim left");
    let finalizer = world.finalizers.iter().any(|name| name == FINALIZER);
    let undoable = world.status.undo_deadline.is_some();
    check(finalizer != undoable && !world.leaving, "finalizer and undo window differ");
    let its = keys().iter().filter_map(|key| world.claims.get(&key.pvc("web"))).collect::<Vec<_>>();
    let labelled = its.iter().any(|claim| claim.restore.is_some() || claim.restored_by.is_some());
    check(
        labelled && !undoable && !struck(&[Blow::Refuse, Blow::Straggler, Blow::LabelClaim]),
        "a claim bears our marks",
    );
    let leaked = world.ours().any(|(name, disk)| is_leaked(world, blows, name, &disk.volume));
    check(leaked && !struck(&[Blow::Straggler]), "a volume leaked");
}

/// It is under no claim; no release will free it, nobody is told of it, and no case explains why it is there.
fn is_leaked(world: &World, blows: &Blows, name: &String, volume: &Volume) -> bool {
    let under = world.claims.values().any(|claim| claim.volume.as_ref() == Some(name));
    let status = &world.status;
    let olds = status.plan.iter().flat_map(|plan| &plan.claims).filter_map(|item| item.old_pv.as_ref());
    let known = olds.chain(status.staged.iter().filter_map(|staged| staged.pv.as_ref())).any(|pv| pv == name);
    let marked = volume.policy == RETAIN && volume.marks.restore.as_deref() == Some(UID);
    // A release comes; or the object is deleted, and it is kept for people.
    let kept = status.undo_deadline.is_some() || blows.iter().any(|(_, blow)| *blow == Blow::Deleted);
    let told = status.message.as_ref().is_some_and(|told| told.contains(&format!("{name} stays")));
    let forsaken = world.is_excused(Wrong::Stored(Promise::Mark), name);
    !(under || told || forsaken || known && marked && kept)
}
