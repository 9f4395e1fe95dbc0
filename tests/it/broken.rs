//! Broken on purpose: promises of the flow, each taken away by a wrapper around what a process does or hears. A sweep
//! that stays green over one of these proves nothing.

use sts_backup::plan::backup::{self, Backup};
use sts_backup::plan::flow::{Lost, Next, Plan, Planner};
use sts_backup::plan::hook::End;
use sts_backup::plan::journal::Journal;
use sts_backup::plan::noun::Stop;
use sts_backup::plan::view::{Fact, Read, Seen, View};
use sts_backup::step::Fault;

use crate::sweep::{Blows, sweep_broken};
use crate::two;
use crate::world::{Blow, World};

/// A promise that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The intent is taken for written.
    NoIntent,
    /// A pod is thawed only once everything is cut.
    ThawOnSuccess,
    /// A new freeze takes the id of the one before.
    IdReused,
    /// A read that fails says that there is nothing.
    FailedIsAbsent,
    /// A write that got no answer is taken for done.
    LostIsDone,
    /// The finalizer is never taken off.
    FinalizerKept,
    /// The open mark is never taken off.
    MarkKept,
    /// No mark is put on the Lease.
    NoMark,
    /// The pods are not looked at any more once they are frozen.
    NoProof,
    /// A hook of which nothing was heard was not started.
    LostNotStarted,
    /// What is partial stays.
    PartialKept,
    /// The lock is not given back.
    LockKept,
    /// The application is not frozen before the cut.
    NoFreeze,
    /// SIGTERM is not heard.
    DeafToSigterm,
    /// Another's lock is taken.
    LockIgnored,
    /// What a dead process froze is taken for our own.
    ForeignIsOwn,
    /// A snapshot counts before the cut is recorded.
    SealedEarly,
    /// What may be frozen is not written down.
    NoPods,
}

impl Mutant {
    /// What is done instead; none: the step itself.
    pub fn instead(self, world: &mut World, step: &Backup) -> Option<Vec<Fact>> {
        match (self, step) {
            (Mutant::NoIntent, Backup::Write(write)) if journal(&write.status).is_some() => {
                let before = (world.status.clone(), world.version());
                world.status.clone_from(&write.status);
                let fact = world.record();
                world.status = before.0;
                Some(vec![fact])
            }
            (Mutant::ThawOnSuccess, Backup::Post(exec)) if !world.is_cut(exec.run) => Some(world.heard(exec)),
            (Mutant::NoFreeze, Backup::Pre(exec)) => Some(world.heard(exec)),
            (Mutant::FinalizerKept, Backup::Hold(hold)) if hold.finalizers.is_empty() => {
                let kept = std::mem::take(&mut world.finalizers);
                let fact = world.record();
                world.finalizers = kept;
                Some(vec![fact])
            }
            (Mutant::MarkKept, Backup::Mark(None)) => {
                let kept = world.open.take();
                let fact = world.lease();
                world.open = kept;
                Some(vec![fact])
            }
            (Mutant::NoMark, Backup::Mark(Some(open))) => {
                let kept = world.open.replace((**open).clone());
                let fact = world.lease();
                world.open = kept;
                Some(vec![fact])
            }
            (Mutant::PartialKept, Backup::Delete(doomed)) => Some(vec![Fact::Snap(doomed.name.clone(), None)]),
            (Mutant::LockKept, Backup::Unlock(_)) => {
                let kept = world.holder.take();
                let fact = world.lease();
                world.holder = kept;
                Some(vec![fact])
            }
            _ => None,
        }
    }

    /// The step as it is really done.
    pub fn twist(self, world: &World, step: &Backup) -> Backup {
        let Backup::Write(write) = step else { return step.clone() };
        let mut write = write.clone();
        if journal(&write.status).is_none() {
            return step.clone();
        }
        let Some(run) = write.status.run.as_mut() else { return step.clone() };
        match self {
            Mutant::IdReused => {
                let last = world.status.last_run.as_ref().and_then(|last| last.id.clone());
                if let Some(id) = last {
                    run.id = Some(id);
                }
            }
            Mutant::NoPods => run.intent.as_mut().unwrap().pods.clear(),
            _ => {}
        }
        Backup::Write(write)
    }

    /// What is heard of a write.
    pub fn heard(self, reply: Result<Vec<Fact>, Fault>) -> Result<Vec<Fact>, Fault> {
        match (self, reply) {
            (Mutant::LostIsDone, Err(Fault::Lost)) => Ok(vec![]),
            (Mutant::LostNotStarted, Ok(facts)) => Ok(facts.into_iter().map(unheard).collect()),
            (_, reply) => reply,
        }
    }

    /// What is heard of a read.
    pub fn read(self, read: &Read, reply: Result<Vec<Fact>, Fault>) -> Result<Vec<Fact>, Fault> {
        match (self, read, reply) {
            (Mutant::FailedIsAbsent, Read::Target, Err(_)) => Ok(vec![Fact::Target(None)]),
            (Mutant::FailedIsAbsent, Read::Claims, Err(_)) => Ok(vec![Fact::Claims(std::collections::BTreeMap::new())]),
            (Mutant::FailedIsAbsent, Read::Snaps, Err(_)) => {
                Ok(vec![Fact::Snaps(Seen::Known(std::collections::BTreeMap::new()))])
            }
            (Mutant::NoProof, Read::Proof(_), Ok(facts)) => Ok(facts.into_iter().map(believed).collect()),
            (Mutant::LockIgnored, Read::Lease, Ok(facts)) => Ok(facts.into_iter().map(gone).collect()),
            (_, _, reply) => reply,
        }
    }

    pub fn stop(self, stop: Option<Stop>) -> Option<Stop> {
        stop.filter(|stop| self != Mutant::DeafToSigterm || *stop != Stop::Sigterm)
    }

    /// The flow that is driven.
    pub fn planner(self) -> Planner<Backup> {
        match self {
            Mutant::ForeignIsOwn => foreign_is_own,
            Mutant::SealedEarly => sealed_early,
            _ => backup::next,
        }
    }
}

/// The write is an intent.
fn journal(status: &sts_backup::api::backup::StatefulSetBackupStatus) -> Option<()> {
    let phase = status.run.as_ref()?.intent.as_ref()?.phase;
    (phase == sts_backup::api::shared::IntentPhase::Frozen).then_some(())
}

fn unheard(fact: Fact) -> Fact {
    match fact {
        Fact::Hook(exec, mut tried) if tried.end == End::Lost(Lost::Reply) => {
            tried.end = End::Gone;
            Fact::Hook(exec, tried)
        }
        fact => fact,
    }
}

/// The container that was frozen first, whatever runs now.
fn believed(fact: Fact) -> Fact {
    match fact {
        Fact::Proof(name, Some(mut pod)) => {
            for container in &mut pod.containers {
                let id: u32 = container.id.as_ref().map_or(0, |id| id.parse().unwrap());
                container.id = Some((id % 100).to_string());
            }
            Fact::Proof(name, Some(pod))
        }
        fact => fact,
    }
}

fn gone(fact: Fact) -> Fact {
    match fact {
        Fact::Lease(Seen::Known(Some(mut lease))) => {
            lease.gone = true;
            lease.open = None;
            Fact::Lease(Seen::Known(Some(lease)))
        }
        fact => fact,
    }
}

fn foreign_is_own(v: &View, now: jiff::Timestamp) -> Plan<Backup> {
    let mut v = v.clone();
    if let Seen::Known(record) = &mut v.record
        && let Journal::Frozen(f) = &mut record.journal
    {
        f.holder = v.want.me.clone();
    }
    backup::next(&v, now)
}

/// Seals whatever was cut before anything else is done.
fn sealed_early(v: &View, now: jiff::Timestamp) -> Plan<Backup> {
    let plan = backup::next(v, now);
    let (Ok(Next::Do { batch, until }), Ok(snaps)) = (&plan, v.snaps()) else { return plan };
    if !matches!(batch.first(), Some(Backup::Post(_))) {
        return plan;
    }
    let seals = snaps.iter().filter(|(_, snap)| !snap.sealed).filter_map(|(name, snap)| {
        let (name, uid, cut) = (name.clone(), snap.uid.clone(), v.cut(snap)?);
        let consistency = sts_backup::api::shared::Consistency::Frozen;
        Some(Backup::Seal(backup::Seal { name, uid, cut, consistency }))
    });
    let seals: Vec<_> = seals.collect();
    if seals.is_empty() { plan } else { Ok(Next::Do { batch: seals, until: *until }) }
}

/// Which sweep must catch it.
fn red(mutant: Mutant) -> usize {
    match mutant {
        Mutant::LockIgnored => two::red(mutant),
        _ => sweep_broken(mutant),
    }
}

#[test]
fn every_promise_that_is_broken_turns_a_sweep_red() {
    use Mutant::*;
    let all = [
        NoIntent,
        ThawOnSuccess,
        IdReused,
        FailedIsAbsent,
        LostIsDone,
        FinalizerKept,
        MarkKept,
        NoMark,
        NoProof,
        LostNotStarted,
        PartialKept,
        LockKept,
        NoFreeze,
        DeafToSigterm,
        LockIgnored,
        ForeignIsOwn,
        SealedEarly,
        NoPods,
    ];
    let counts = all.map(|mutant| (mutant, red(mutant)));
    counts.iter().for_each(|(mutant, red)| println!("{red:>6} red cases with {mutant:?}"));
    let alive: Vec<_> = counts.iter().filter(|(_, red)| *red == 0).collect();
    assert!(alive.is_empty(), "no sweep sees {alive:?}");
}

/// What a sweep of a mutant strikes with: all single blows and, where that takes two, a container that restarts.
pub fn blows(writes: usize, kinds: &[Blow]) -> Vec<Box<Blows>> {
    let singles = (0..writes).flat_map(|k| kinds.iter().map(move |blow| vec![(k, *blow)].into_boxed_slice()));
    std::iter::once(vec![].into_boxed_slice()).chain(singles).collect()
}
