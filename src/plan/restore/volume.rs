//! The volumes of a restore: which one is which, by uid and handle, and what is asked of it. A volume is touched only
//! if it is the very one that the journal names and its claimRef says that it is that claim's, or if it is the one behind
//! a live claim; a record is never trusted blindly.

use std::collections::BTreeMap;

use super::journal::{Cause, Deed, Item, Placed, Run};
use super::{Restore, Tend};
use crate::api::shared::Goal;
use crate::plan::name::{self, ClaimKey};
use crate::plan::noun::{Claim, ClaimRef, Marks, RETAIN, Volume};
use crate::plan::view::{Read, View};

/// Roles of a volume, as its label says it.
pub const OLD: &str = "old";
pub const NEW: &str = "new";
pub const OTHER: &str = "other";

/// The very volume that the journal names, as it is now; none when it is gone, another bears its name, or it is not the
/// item's.
pub fn find<'a>(v: &'a View, deed: &Deed, item: &Item, placed: &Placed) -> Result<Option<&'a Volume>, Read> {
    let found = v.volume(&placed.pv)?.filter(|volume| volume.uid == placed.pv_uid && volume.handle == placed.handle);
    Ok(match found {
        Some(volume) if is_its(v, deed, item, volume)? => Some(volume),
        _ => None,
    })
}

/// By its claimRef the volume is of the item's claim or of its staging claim: of one that the journal knows, of the one
/// that is there, or, with our marks on the volume itself, of any or of none yet.
fn is_its(v: &View, deed: &Deed, item: &Item, volume: &Volume) -> Result<bool, Read> {
    let named = |of: &&ClaimRef| of.name == item.pvc || Some(&of.name) == item.staging.as_ref();
    let of = volume.claim.as_ref().filter(|of| of.namespace == v.want.statefulset_namespace).filter(named);
    let Some(of) = of else { return Ok(false) };
    if is_marked(v, volume) && volume.marks.claim == Some(name::label(&item.pvc)) {
        return Ok(true);
    }
    let Some(uid) = &of.uid else { return Ok(false) };
    let undo = deed.undo.iter().flat_map(|undo| &undo.items).filter(|undo| undo.pvc == item.pvc);
    let olds = undo.chain([item]).filter_map(|item| item.old.as_ref());
    let known = olds.chain(deed.staged.get(&item.pvc)).any(|placed| placed.claim == *uid);
    if known || deed.made.contains_key(uid) {
        return Ok(true);
    }
    Ok(of.name == item.pvc && v.claims()?.get(&item.pvc).is_some_and(|claim| claim.uid == *uid))
}

/// The claims of the `StatefulSet` that there are: those of the plan, and those of every other ordinal. It may be gone,
/// or another by now: what was guarded while it was there is known by the plan.
pub fn claims<'a>(v: &'a View, run: &Run) -> Result<BTreeMap<&'a String, &'a Claim>, Read> {
    let mut templates = run.deed.plan.templates();
    templates.extend(v.target()?.iter().flat_map(|target| target.templates.clone()));
    let is_its = |name: &String| {
        run.deed.plan.items.iter().any(|item| item.pvc == *name)
            || ClaimKey::of(name, &v.want.statefulset, &templates).is_some()
    };
    Ok(v.claims()?.iter().filter(|(name, _)| is_its(name)).collect())
}

/// The volume that is bound to this very claim.
pub fn behind<'a>(v: &'a View, pvc: &str, claim: &'a Claim) -> Result<Option<(&'a String, &'a Volume)>, Read> {
    let Some(name) = &claim.volume else { return Ok(None) };
    let is_its = |of: &ClaimRef| {
        of.namespace == v.want.statefulset_namespace && of.name == pvc && of.uid.as_ref() == Some(&claim.uid)
    };
    let volume = v.volume(name)?.filter(|volume| volume.claim.as_ref().is_some_and(is_its));
    Ok(volume.map(|volume| (name, volume)))
}

pub fn is_marked(v: &View, volume: &Volume) -> bool {
    volume.marks.restore.as_ref() == Some(&v.want.uid)
}

pub fn tend(pv: &str, volume: &Volume, policy: &str, marks: Marks) -> Box<Tend> {
    let (uid, version) = (volume.uid.clone(), volume.version.clone());
    Box::new(Tend { pv: pv.to_owned(), uid, version, policy: policy.to_owned(), marks })
}

/// Retain, and whose and what it is; `policy`: what is to be put back in the end. None: it is so.
pub fn protect(v: &View, pv: &str, volume: &Volume, role: &str, pvc: &str, policy: &str) -> Option<Restore> {
    let marks = Marks {
        restore: Some(v.want.uid.clone()),
        role: Some(role.to_owned()),
        claim: Some(name::label(pvc)),
        policy: Some(policy.to_owned()),
        of: Some(format!("{}/{}", v.want.namespace, v.want.name)),
        deadline: None,
    };
    (volume.policy != RETAIN || volume.marks != marks).then(|| Restore::Protect(tend(pv, volume, RETAIN, marks)))
}

/// A volume's own policy: what we have noted on it, else what it has.
pub fn own_policy<'a>(v: &View, volume: &'a Volume) -> &'a str {
    volume.marks.policy.as_deref().filter(|_| is_marked(v, volume)).unwrap_or(&volume.policy)
}

/// Role and own policy of a volume behind the claim of an item.
pub fn role<'a>(
    v: &View,
    run: &'a Run,
    item: Option<&'a Item>,
    pv: &str,
    volume: &'a Volume,
) -> (&'static str, &'a str) {
    let Some(item) = item else { return (OTHER, own_policy(v, volume)) };
    let is_it = |placed: &Placed| placed.pv == pv && placed.pv_uid == volume.uid;
    match (&item.old, run.deed.staged.get(&item.pvc)) {
        (Some(old), _) if is_it(old) => (OLD, &old.policy),
        // The new one ends with the policy of the one it replaces.
        (Some(old), Some(new)) if is_it(new) => (NEW, &old.policy),
        // Somebody has put another there.
        (_, Some(new)) if !is_it(new) => (OTHER, own_policy(v, volume)),
        _ => (NEW, own_policy(v, volume)),
    }
}

/// What the goal does not want under the claims: kept for an undo, or for a last look.
pub fn set_aside<'a>(run: &'a Run) -> Box<dyn Iterator<Item = (&'a Item, &'a Placed)> + 'a> {
    let items = run.deed.plan.items.iter();
    match run.goal {
        Goal::Old if !run.swapped() => Box::new(std::iter::empty()),
        Goal::Old => Box::new(items.filter_map(|item| Some((item, replaced(run, item)?)))),
        Goal::New | Goal::Unknown => Box::new(items.filter_map(|item| Some((item, item.old.as_ref()?)))),
    }
}

/// What a way back takes from under the claim: the new volume; of a claim that started empty what an undo found there.
fn replaced<'a>(run: &'a Run, item: &Item) -> Option<&'a Placed> {
    let found = || run.deed.undo.as_ref()?.items.iter().find(|undo| undo.pvc == item.pvc)?.old.as_ref();
    let undone = matches!(run.cause, Cause::Undo(_)) && item.snapshot.is_none();
    run.deed.staged.get(&item.pvc).or_else(|| found().filter(|found| undone && item.old.as_ref() != Some(found)))
}
