//! What holds in every stored state of a restore. Read by the sweeps after every write, and by `doctor`.

use std::collections::BTreeMap;

use crate::api::condition::{self, ConditionType, Reason};
use crate::api::restore::{RestorePhase, StatefulSetRestoreStatus};
use crate::api::shared::Goal;
use crate::plan::noun::{Claim, ClaimRef, Lease, RETAIN, Target, Volume};
use crate::plan::restore::journal::{self, Deed, Item, Journal, Placed, Run};

/// The objects of one restore, as they are stored.
#[derive(Debug)]
pub struct State<'a> {
    pub uid: &'a str,
    pub status: &'a StatefulSetRestoreStatus,
    pub claims: &'a BTreeMap<String, Claim>,
    pub volumes: &'a BTreeMap<String, Volume>,
    pub target: Option<&'a Target>,
    pub lease: Option<&'a Lease>,
    /// The undo window is over: what was set aside may be gone.
    pub released: bool,
    /// The namespace of the claims is being deleted: what is not set aside goes with it.
    pub ending: bool,
    /// Which request it is, as the Lease remembers it: `NAMESPACE/NAME@HASH`.
    pub signature: &'a str,
}

/// What holds in every stored state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// A fence stands only beside an open mark.
    Fence,
    /// Status does not contradict itself.
    Status,
    /// A claim's old or new content is on a volume that is bound or Retained.
    Content,
    /// Until the release the old content is.
    WayBack,
    /// A claim's name is without a claim only during its own swap.
    Name,
    /// No claim goes before the journal says that it may.
    Journal,
    /// Before a claim goes the Lease remembers the request.
    Memory,
    /// The volume that a claim names is bound to it.
    Bound,
    /// The StatefulSet is at 0 only behind fence and mark.
    Stopped,
    /// At most one volume can bind under a claim's name.
    Single,
    /// Nothing bears our mark but what the journal names, or what is behind a claim.
    Mark,
    /// In the end the volume under a claim has its own policy and no mark.
    GivenBack,
    /// In the end what is set aside is Retained and marked.
    Aside,
}

/// A promise that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub promise: Promise,
    /// The claim or the volume, by name; empty: of no single one.
    pub of: String,
    /// The same as a sentence.
    pub why: String,
}

fn breach(promise: Promise, of: &str, why: impl Into<String>) -> Breach {
    Breach { promise, of: of.to_owned(), why: why.into() }
}

/// Every promise that is broken.
pub fn broken(state: &State) -> Vec<Breach> {
    let mut all = vec![];
    if state.lease.is_some_and(|lease| lease.fence.is_some() && lease.open.is_none()) {
        all.push(breach(Promise::Fence, "", "a fence stands without an open mark"));
    }
    said(state.status, &mut all);
    let (deed, ended) = match journal::read(state.status) {
        Journal::Open(run) | Journal::Held(run, _) => {
            if !state.ending {
                begun(state, &run, &mut all);
            }
            (run.deed, false)
        }
        Journal::Ended(_, Some(deed)) => (*deed, true),
        Journal::Idle | Journal::Unread(_) | Journal::Ended(_, None) => return all,
    };
    single(state, &deed, &mut all);
    if state.ending {
        return all;
    }
    contents(state, &deed, &mut all);
    names(state, &deed, &mut all);
    bound(state, &deed, &mut all);
    stopped(state, &deed, ended, &mut all);
    strangers(state, &deed, &mut all);
    if ended {
        settled(state, &deed, &mut all);
    }
    all
}

/// What status says does not contradict itself, and a wait for it ends: kstatus takes Reconciling for under way, Stalled for
/// failed, and Ready False alone for under way as well.
fn said(status: &StatefulSetRestoreStatus, all: &mut Vec<Breach>) {
    let is = |kind| condition::is_true(&status.conditions, kind);
    let (ready, stalled) = (is(ConditionType::Ready), is(ConditionType::Stalled));
    let (reconciling, undoable) = (is(ConditionType::Reconciling), is(ConditionType::Undoable));
    let over = matches!(status.phase, Some(RestorePhase::Completed | RestorePhase::Failed | RestorePhase::Undone));
    let failed = status.phase == Some(RestorePhase::Failed);
    if status.phase.is_some() && (reconciling == over || ready != (over && !failed) || stalled != failed) {
        let why = format!("Ready {ready}, Reconciling {reconciling}, Stalled {stalled} in phase {:?}", status.phase);
        all.push(breach(Promise::Status, "", why));
    }
    let why = condition::get(&status.conditions, ConditionType::Undoable).map(|one| one.reason.as_str());
    let kept = status.undo_deadline.is_some() || failed && status.run.is_some();
    if undoable && (why == Some(Reason::UndoRefused.as_str()) || !kept) {
        all.push(breach(Promise::Status, "", format!("Undoable for {why:?} in phase {:?}", status.phase)));
    }
    let precise = |seconds: f64| ((seconds * 1000.0).round() - seconds * 1000.0).abs() < 1e-6;
    if status.downtime_seconds.is_some_and(|seconds| !precise(seconds)) {
        all.push(breach(Promise::Status, "", "downtimeSeconds has more than three decimals"));
    }
}

fn find<'a>(state: &State<'a>, placed: &Placed) -> Option<&'a Volume> {
    state.volumes.get(&placed.pv).filter(|volume| volume.uid == placed.pv_uid && volume.handle == placed.handle)
}

/// The claim by which a volume is held lives.
fn is_bound(state: &State, volume: &Volume) -> bool {
    let of = volume.claim.as_ref();
    of.is_some_and(|of| state.claims.get(&of.name).is_some_and(|claim| Some(&claim.uid) == of.uid.as_ref()))
}

/// Bound to a claim that stays, or Retained.
fn is_safe(state: &State, volume: &Volume) -> bool {
    let stays = |name: &String| state.claims.get(name).is_some_and(|claim| !claim.leaving);
    volume.policy == RETAIN || is_bound(state, volume) && volume.claim.as_ref().is_some_and(|of| stays(&of.name))
}

/// Each claim's old or new content sits on a volume that is bound or Retained; and until the release the old one
/// does, so that there is always a way back.
fn contents(state: &State, deed: &Deed, all: &mut Vec<Breach>) {
    for item in &deed.plan.items {
        let safe = |placed: &Placed| find(state, placed).is_some_and(|volume| is_safe(state, volume));
        let old = item.old.as_ref().is_some_and(safe);
        let new = deed.staged.get(&item.pvc).is_some_and(safe);
        if item.old.is_some() && !old && !new {
            let why = format!("claim {}: neither its old nor its new content is safe", item.pvc);
            all.push(breach(Promise::Content, &item.pvc, why));
        }
        if item.old.is_some() && !old && !state.released {
            let why = format!("claim {}: its old volume is not safe: no way back", item.pvc);
            all.push(breach(Promise::WayBack, &item.pvc, why));
        }
    }
}

/// No claim name is without a claim but during its own swap.
fn names(state: &State, deed: &Deed, all: &mut Vec<Breach>) {
    let swapping = match journal::read(state.status) {
        Journal::Open(run) => {
            let back = run.goal == Goal::Old && run.swapped() && run.phase == RestorePhase::ScalingDown;
            back || run.phase == RestorePhase::Restoring
        }
        Journal::Held(run, _) => run.swapped(),
        _ => false,
    };
    if swapping {
        return;
    }
    for item in deed.plan.items.iter().filter(|item| item.old.is_some()) {
        if !state.claims.contains_key(&item.pvc) {
            let why = format!("there is no claim {}, and no swap under way", item.pvc);
            all.push(breach(Promise::Name, &item.pvc, why));
        }
    }
}

/// No claim goes before the journal says that it may; and before one goes the Lease remembers that this was done.
fn begun(state: &State, run: &Run, all: &mut Vec<Breach>) {
    let olds = run.deed.plan.items.iter().filter_map(|item| Some((&item.pvc, item.old.as_ref()?)));
    for (pvc, old) in olds.filter(|_| !run.swapped()) {
        if state.claims.get(pvc).is_some_and(|claim| claim.uid == old.claim && claim.leaving) {
            let why = format!("claim {pvc} goes, and the journal does not say that it may");
            all.push(breach(Promise::Journal, pvc, why));
        }
    }
    let is_it = |entry: &String| entry.split(' ').next() == Some(state.signature);
    let signed = state.lease.is_none_or(|lease| lease.restored.iter().any(is_it));
    if run.goal == Goal::New && run.swapped() && !signed {
        all.push(breach(Promise::Memory, "", "claims are replaced, and the Lease does not remember this request"));
    }
}

/// The volume that a claim of the plan names is bound to that very claim.
fn bound(state: &State, deed: &Deed, all: &mut Vec<Breach>) {
    for item in &deed.plan.items {
        let Some(claim) = state.claims.get(&item.pvc).filter(|claim| !claim.leaving) else { continue };
        let Some(pv) = &claim.volume else { continue };
        let volume = state.volumes.get(pv);
        let of = volume.and_then(|volume| volume.claim.as_ref()?.uid.as_ref());
        if of != Some(&claim.uid) {
            all.push(breach(Promise::Bound, &item.pvc, format!("claim {} has lost its volume {pv}", item.pvc)));
        }
    }
}

/// At 0 only while fence and open mark stand.
fn stopped(state: &State, deed: &Deed, ended: bool, all: &mut Vec<Breach>) {
    let (Some(target), Some(lease)) = (state.target, state.lease) else { return };
    if target.replicas > 0 || deed.plan.replicas == 0 {
        return;
    }
    let marked = lease.open.as_ref().is_some_and(|open| open.uid == state.uid);
    if ended || lease.fence.is_none() || !marked {
        all.push(breach(Promise::Stopped, "", "the StatefulSet is at 0 without fence and open mark"));
    }
}

/// Every volume that the journal names.
fn placed(deed: &Deed) -> impl Iterator<Item = &Placed> {
    let undo = deed.undo.iter().flat_map(|undo| &undo.items);
    undo.chain(&deed.plan.items).filter_map(|item| item.old.as_ref()).chain(deed.staged.values())
}

/// At most one volume of ours can bind under a claim's name: is bound to the claim that lives, or reserved for any of that
/// name. (What another StatefulSet of the name gets for its own claim meanwhile is none of ours.)
/// What is set aside has a claimRef that no claim can match. Were there two, a claim that is made anew (GitOps, another
/// StatefulSet) would get one of them, and its sibling perhaps one of another age.
fn single(state: &State, deed: &Deed, all: &mut Vec<Breach>) {
    let known: Vec<&String> = placed(deed).map(|placed| &placed.pv).collect();
    let ours =
        |name: &String, volume: &Volume| known.contains(&name) || volume.marks.restore.as_deref() == Some(state.uid);
    for Item { pvc, .. } in &deed.plan.items {
        let lives = state.claims.get(pvc).map(|claim| &claim.uid);
        let binds = |of: &ClaimRef| of.name == *pvc && (of.uid.is_none() || of.uid.as_ref() == lives);
        let mut could = state
            .volumes
            .iter()
            .filter(|(name, volume)| ours(name, volume) && volume.claim.as_ref().is_some_and(binds));
        if let (Some((one, _)), Some((other, _))) = (could.next(), could.next()) {
            let why = format!("claim {pvc}: volumes {one} and {other} could both bind under its name");
            all.push(breach(Promise::Single, pvc, why));
        }
    }
}

/// Nothing is marked as ours but what the journal names by uid, or what is behind a claim.
fn strangers(state: &State, deed: &Deed, all: &mut Vec<Breach>) {
    let known: Vec<_> = placed(deed).map(|placed| (&placed.pv, &placed.pv_uid)).collect();
    for (name, volume) in state.volumes {
        let ours = volume.marks.restore.as_deref() == Some(state.uid);
        if ours && !known.contains(&(name, &volume.uid)) && !is_bound(state, volume) {
            let why = format!("volume {name} is marked as ours, and no journal names it");
            all.push(breach(Promise::Mark, name, why));
        }
    }
}

/// In the end each volume under a claim has no mark, and, if the journal names it, the policy of the one that was there
/// before (Retain if the claim goes); what was set aside is Retained and marked.
fn settled(state: &State, deed: &Deed, all: &mut Vec<Breach>) {
    for item in &deed.plan.items {
        let Some(old) = &item.old else { continue };
        let claim = state.claims.get(&item.pvc);
        let goes = claim.is_some_and(|claim| claim.leaving);
        let under = claim.and_then(|claim| claim.volume.as_ref());
        if let Some((pv, volume)) = under.and_then(|pv| Some((pv, state.volumes.get(pv)?))) {
            let known = placed(deed).any(|placed| placed.pv == *pv && placed.pv_uid == volume.uid);
            if known && volume.policy != old.policy && !(goes && volume.policy == RETAIN) {
                let why = format!("volume {pv} of claim {} ends with policy {}", item.pvc, volume.policy);
                all.push(breach(Promise::GivenBack, pv, why));
            }
            if volume.marks.restore.is_some() {
                let why = format!("volume {pv} of claim {} still bears our mark", item.pvc);
                all.push(breach(Promise::GivenBack, pv, why));
            }
        }
        let aside = [Some(old), deed.staged.get(&item.pvc)].into_iter().flatten();
        for placed in aside.filter(|placed| Some(&placed.pv) != under) {
            let Some(volume) = find(state, placed) else { continue };
            let marked = volume.marks.restore.as_deref() == Some(state.uid);
            if !state.released && (volume.policy != RETAIN || !marked) {
                let why = format!("volume {} of claim {} is set aside without Retain and mark", placed.pv, item.pvc);
                all.push(breach(Promise::Aside, &placed.pv, why));
            }
        }
    }
}
