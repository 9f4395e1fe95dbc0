//! Promises of a restore broken on purpose: each is taken away by a wrapper around what a process does, hears or plans.
//! A sweep that stays green over one of these proves nothing.

use jiff::Timestamp;
use sts_backup::api::restore::{OnFailure, RestorePhase};
use sts_backup::api::shared::Goal;
use sts_backup::plan::flow::{Next, Plan, Planner, act};
use sts_backup::plan::noun::{Holder, Lease, Volume};
use sts_backup::plan::restore::journal::{Journal, Run};
use sts_backup::plan::restore::sight::{Fence, Look, Sight};
use sts_backup::plan::restore::{self, Doomed, Reserve, Restore, Signs, release, undo};
use sts_backup::plan::view::{Fact, Read, Seen, View};
use sts_backup::step::Fault;

use super::world::World;

/// A promise that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Claims are deleted before the journal says that their new volumes are staged.
    ClaimsBeforeStaged,
    /// The swap begins before the journal says so.
    SwapUnwritten,
    /// Nothing is Retained before the claims are deleted.
    NoProtect,
    /// An undo does not protect what it replaces.
    UndoUnprotected,
    /// The claim that bears the name is deleted, whichever it is.
    NoUid,
    /// Pods of others that use the claims are not looked at.
    UserIgnored,
    /// The pods of the StatefulSet are taken for stopped once it is at 0.
    NoStop,
    /// No fence is put up.
    NoFence,
    /// The fence is lifted before the scale-up.
    FenceLiftedEarly,
    /// The open mark is taken off before the fence.
    MarkLiftedEarly,
    /// The way back puts the volumes under each other's claims.
    WrongVolume,
    /// The replicas are read again when they are 0.
    ReplicasAgain,
    /// What was staged and not used stays.
    StagingKept,
    /// The reclaim policies are not put back.
    PolicyKept,
    /// The StatefulSet's own retention policy is not put back.
    RetentionKept,
    /// The claimRef of a volume that is bound is written once more.
    BoundReserved,
    /// A release looks at no volume's phase.
    ReleaseUnlooked,
    /// A release goes on although an undo is asked for.
    ReleaseBeforeUndo,
    /// The Lease does not remember that it was done.
    Unsigned,
    /// A read that fails says that there is nothing.
    FailedIsAbsent,
    /// A write that got no answer is taken for done.
    LostIsDone,
    /// Snapshots are restored from without a pin.
    NoPin,
    /// They stay pinned.
    PinKept,
    /// Turned back although pods have served from the restored volumes.
    ServedIgnored,
    /// Another's lock is taken.
    LockIgnored,
    /// The finalizer is never taken off.
    FinalizerKept,
    /// Who made a volume, and when, is not looked at.
    MakerUnlooked,
    /// Whose claim a volume is, is not looked at.
    ClaimRefUnlooked,
}

impl Mutant {
    /// This step is not done and taken for done.
    fn believes(self, world: &World, step: &Restore) -> bool {
        let stopping = matches!(world.status.phase, Some(RestorePhase::ScalingDown | RestorePhase::Restoring));
        match (self, step) {
            (Mutant::NoProtect, Restore::Protect(_)) => stopping,
            (Mutant::UndoUnprotected, Restore::Protect(_)) => {
                stopping && world.status.run.as_ref().is_some_and(|run| run.goal == Some(Goal::Old))
            }
            (Mutant::NoFence, Restore::Mark(signs)) => signs.fence.is_some() && world.lease.fence.is_none(),
            (Mutant::Unsigned, Restore::Mark(signs)) => signs.restored.len() > world.lease.restored.len(),
            (Mutant::PolicyKept, Restore::Settle(_)) => true,
            (Mutant::RetentionKept, Restore::Retain(_)) => world.status.phase == Some(RestorePhase::ScalingUp),
            (Mutant::StagingKept, Restore::DropClaim(doomed)) => doomed.why == "staged and not used",
            (Mutant::NoPin, Restore::Pin(pin)) => !pin.pinned.is_empty(),
            (Mutant::PinKept, Restore::Pin(pin)) => pin.pinned.is_empty(),
            (Mutant::FinalizerKept, Restore::Hold(hold)) => hold.finalizers.is_empty(),
            _ => false,
        }
    }

    /// The step as it is really done.
    fn twist(self, world: &World, step: &Restore) -> Restore {
        match (self, step) {
            (Mutant::NoUid, Restore::DropClaim(doomed)) => {
                let uid = world.claims.get(&doomed.name).map_or(&doomed.uid, |claim| &claim.uid).clone();
                Restore::DropClaim(Doomed { uid, ..doomed.clone() })
            }
            (Mutant::NoFence, Restore::Mark(signs)) => Restore::Mark(Box::new(Signs { fence: None, ..*signs.clone() })),
            (Mutant::Unsigned, Restore::Mark(signs)) => {
                Restore::Mark(Box::new(Signs { restored: world.lease.restored.clone(), ..*signs.clone() }))
            }
            _ => step.clone(),
        }
    }

    /// What a process hears of what there is.
    pub fn hears(self, world: &World, me: &Holder, mut fact: Fact) -> Fact {
        for step in &world.believed {
            believe(step, &mut fact);
        }
        match (self, &mut fact) {
            (Mutant::UserIgnored, Fact::Pods(pods)) => pods.retain(|_, pod| pod.owner.is_some()),
            (Mutant::NoStop, Fact::Pods(pods)) if world.target.replicas == 0 => pods.clear(),
            (Mutant::NoStop, Fact::Target(Some(target))) if target.replicas == 0 => target.pods = 0,
            (Mutant::ReleaseUnlooked, Fact::Volume(_, Some(volume))) if me.0.starts_with("release/") => {
                volume.phase = "Released".into();
            }
            (Mutant::MakerUnlooked, Fact::Volume(_, Some(volume))) => {
                (volume.provisioner, volume.created) = (Some("csi".into()), Timestamp::MAX);
            }
            (Mutant::ClaimRefUnlooked, Fact::Volume(_, Some(volume))) => {
                volume
                    .claim
                    .iter_mut()
                    .filter(|of| of.name == "data-db-0")
                    .for_each(|of| of.name = "data-web-0".into());
            }
            (Mutant::LockIgnored, Fact::Lease(Seen::Known(Some(lease)))) => lease.gone |= lease.holder.is_some(),
            (Mutant::ReleaseBeforeUndo, Fact::Restore(sight)) if me.0.starts_with("release/") => {
                if let Sight::Record(record) = sight.as_mut() {
                    record.undo = None;
                }
            }
            _ => {}
        }
        fact
    }

    /// What is heard of a read.
    pub fn read(self, read: &Read, reply: Result<Vec<Fact>, Fault>) -> Result<Vec<Fact>, Fault> {
        if self != Mutant::FailedIsAbsent || reply.is_ok() {
            return reply;
        }
        match read {
            Read::Target => Ok(vec![Fact::Target(None)]),
            Read::Claims => Ok(vec![Fact::Claims(std::collections::BTreeMap::new())]),
            Read::Volume(name) => Ok(vec![Fact::Volume(name.clone(), None)]),
            Read::Restore(Look::Pods) => Ok(vec![Fact::Pods(std::collections::BTreeMap::new())]),
            _ => reply,
        }
    }

    /// What is heard of a write.
    pub fn heard(self, reply: Result<Vec<Fact>, Fault>) -> Result<Vec<Fact>, Fault> {
        if self == Mutant::LostIsDone && reply == Err(Fault::Lost) { Ok(vec![]) } else { reply }
    }

    /// The flow that is driven.
    pub fn planner(self, next: Planner<Restore>) -> Planner<Restore> {
        match self {
            Mutant::ClaimsBeforeStaged => claims_before_staged,
            Mutant::SwapUnwritten => swap_unwritten,
            Mutant::FenceLiftedEarly => fence_lifted_early,
            Mutant::MarkLiftedEarly => mark_lifted_early,
            Mutant::WrongVolume => wrong_volume,
            Mutant::ReplicasAgain => replicas_again,
            Mutant::BoundReserved => bound_reserved,
            Mutant::ServedIgnored => served_ignored,
            _ => next,
        }
    }
}

impl World {
    /// What a request does, with a promise broken or with none.
    pub fn act(&mut self, me: &Holder, step: &Restore) -> Result<Vec<Fact>, Fault> {
        let Some(mutant) = self.mutant else { return self.apply(me, step) };
        if !mutant.believes(self, step) {
            if let Restore::Protect(tend) | Restore::Settle(tend) | Restore::Discard(tend) = step {
                let same =
                    |step: &Restore| matches!(step, Restore::Protect(old) | Restore::Settle(old) if old.pv == tend.pv);
                self.believed.retain(|step| !same(step));
            }
            let reply = self.apply(me, &mutant.twist(self, step))?;
            return Ok(reply.into_iter().map(|fact| mutant.hears(self, me, fact)).collect());
        }
        self.note(|| format!("       believed: {step:?}"));
        self.believed.push(step.clone());
        let read = match step {
            Restore::Protect(tend) | Restore::Settle(tend) => Read::Volume(tend.pv.clone()),
            Restore::Mark(_) => Read::Lease,
            Restore::Retain(_) => Read::Target,
            Restore::Pin(_) => Read::Restore(Look::Sources),
            Restore::Hold(_) => Read::Restore(Look::Record),
            _ => Read::Claims,
        };
        Ok(vec![mutant.hears(self, me, self.answer(&read))])
    }
}

/// The fact as it were if the step had been done.
fn believe(step: &Restore, fact: &mut Fact) {
    match (step, fact) {
        (Restore::Protect(tend) | Restore::Settle(tend), Fact::Volume(_, Some(volume))) if volume.uid == tend.uid => {
            volume.policy.clone_from(&tend.policy);
            volume.marks = tend.marks.clone();
        }
        (Restore::Mark(signs), Fact::Lease(Seen::Known(Some(lease)))) => {
            lease.fence = lease.fence.take().or(signs.fence.clone());
            if signs.restored.len() > lease.restored.len() {
                lease.restored.clone_from(&signs.restored);
            }
        }
        (Restore::Retain(keep), Fact::Target(Some(target))) => target.retention = keep.retention.clone(),
        (Restore::DropClaim(doomed), Fact::Claims(all)) => all.retain(|_, claim| claim.uid != doomed.uid),
        (Restore::Mark(_), Fact::Restore(sight)) => {
            if let Sight::Fence(fence, _) = sight.as_mut() {
                *fence = Fence::Up;
            }
        }
        (Restore::Pin(pin), Fact::Restore(sight)) => {
            if let Sight::Sources(all) = sight.as_mut()
                && let Some(source) = all.get_mut(&pin.name)
            {
                source.pins.clone_from(&pin.pinned);
            }
        }
        (Restore::Hold(hold), Fact::Restore(sight)) => {
            if let Sight::Record(record) = sight.as_mut() {
                record.finalizers.clone_from(&hold.finalizers);
            }
        }
        _ => {}
    }
}

/// The flow as it is, of whichever command.
fn sound(v: &View, now: Timestamp) -> Plan<Restore> {
    match v.want.me.0.split('/').next() {
        Some("undo") => undo::next(v, now),
        Some("release") => release::next(v, now),
        _ => restore::next(v, now),
    }
}

fn open(v: &View) -> Option<&Run> {
    match &v.restore.record().ok()?.journal {
        Journal::Open(run) => Some(run),
        _ => None,
    }
}

/// The view with another journal.
fn changed(v: &View, change: impl FnOnce(&mut Run)) -> View {
    let mut v = v.clone();
    if let Seen::Known(record) = &mut v.restore.record
        && let Journal::Open(run) = &mut record.journal
    {
        change(run);
    }
    v
}

fn enters(plan: &Plan<Restore>, phase: RestorePhase) -> bool {
    let is_it = |step: &Restore| matches!(step, Restore::Write(write) if write.status.phase == Some(phase));
    matches!(plan, Ok(Next::Do { batch, .. }) if batch.iter().any(is_it))
}

fn claims_before_staged(v: &View, now: Timestamp) -> Plan<Restore> {
    let plan = sound(v, now);
    let Some(run) = open(v).filter(|run| run.phase == RestorePhase::New) else { return plan };
    if !enters(&plan, RestorePhase::ScalingDown) {
        return plan;
    }
    let going = run.deed.plan.items.iter().filter_map(|item| {
        let claim = v.claims().ok()?.get(&item.pvc)?;
        let doomed = Doomed { name: item.pvc.clone(), uid: claim.uid.clone(), why: "too early" };
        (!claim.leaving).then_some(Restore::DropClaim(doomed))
    });
    let batch: Vec<_> = going.collect();
    if batch.is_empty() { plan } else { act(batch, now + jiff::SignedDuration::from_secs(5)) }
}

fn swap_unwritten(v: &View, now: Timestamp) -> Plan<Restore> {
    let plan = sound(v, now);
    if !enters(&plan, RestorePhase::Restoring) {
        return plan;
    }
    sound(&changed(v, |run| *run = run.enter(RestorePhase::Restoring, now)), now)
}

/// In the phase ScalingUp another mark than is due.
fn marked(v: &View, now: Timestamp, signs: impl FnOnce(&Lease) -> Option<Signs>) -> Plan<Restore> {
    let up = open(v).is_some_and(|run| run.phase == RestorePhase::ScalingUp);
    let held = v.lease().ok().flatten().filter(|_| up && v.mine().is_ok_and(|mine| mine.is_some()));
    match held.and_then(signs) {
        Some(signs) => act([Restore::Mark(Box::new(signs))], now + jiff::SignedDuration::from_secs(5)),
        None => sound(v, now),
    }
}

fn fence_lifted_early(v: &View, now: Timestamp) -> Plan<Restore> {
    marked(v, now, |lease| {
        lease.fence.as_ref()?;
        Some(Signs { open: lease.open.clone(), fence: None, restored: lease.restored.clone() })
    })
}

fn mark_lifted_early(v: &View, now: Timestamp) -> Plan<Restore> {
    marked(v, now, |lease| {
        lease.open.as_ref()?;
        Some(Signs { open: None, fence: lease.fence.clone(), restored: lease.restored.clone() })
    })
}

/// Two claims of one size have each other's old volumes.
fn wrong_volume(v: &View, now: Timestamp) -> Plan<Restore> {
    let swapped = changed(v, |run| {
        let items = &mut run.deed.plan.items;
        if run.goal == Goal::Old && items.len() > 1 {
            let (first, rest) = items.split_at_mut(1);
            std::mem::swap(&mut first[0].old, &mut rest[0].old);
        }
    });
    sound(&swapped, now)
}

fn replicas_again(v: &View, now: Timestamp) -> Plan<Restore> {
    let Ok(Some(target)) = v.target() else { return sound(v, now) };
    let replicas = target.replicas;
    let read = |run: &mut Run| {
        run.deed.plan.replicas = replicas;
        run.deed.undo.iter_mut().for_each(|undo| undo.replicas = replicas);
    };
    sound(&changed(v, read), now)
}

fn bound_reserved(v: &View, now: Timestamp) -> Plan<Restore> {
    let plan = sound(v, now);
    let Some(run) = open(v).filter(|_| enters(&plan, RestorePhase::ScalingUp)) else { return plan };
    let placed = run.deed.plan.items.first().and_then(|item| run.wanted(item));
    let Some(placed) = placed else { return plan };
    let Some(Volume { version, claim: Some(of), .. }) = v.volume(&placed.pv)? else { return plan };
    if of.uid.is_none() {
        return plan;
    }
    let (pv, version, from) = (placed.pv.clone(), version.clone(), of.uid.clone());
    let (namespace, name) = (of.namespace.clone(), of.name.clone());
    let reserve = Reserve { pv, version, from, namespace, name, uid: None };
    act([Restore::Reserve(Box::new(reserve))], now + jiff::SignedDuration::from_secs(5))
}

fn served_ignored(v: &View, now: Timestamp) -> Plan<Restore> {
    let mut v = v.clone();
    v.want.restore.on_failure = OnFailure::RollbackAlways;
    sound(&v, now)
}
