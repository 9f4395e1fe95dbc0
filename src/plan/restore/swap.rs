//! The swap: under every claim name stands the volume that the goal wants. Claims go side by side, each at its own
//! pace: drop the claim, drop the staging claim, reserve the volume, make the claim.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::journal::{Cause, Item, Placed, Run};
use super::volume::{self, behind, find};
use super::{Doomed, Go, Holds, NewClaim, Reserve, Restore, ending, own, release, signature, stage, steps, stop};
use crate::api::condition::Reason;
use crate::api::shared::Goal;
use crate::plan::flow::Feed;
use crate::plan::noun::{Claim, RETAIN, Refusal, Volume};
use crate::plan::view::{Read, View};

/// On the way back there is no deadline: it goes on when the claim is gone.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

enum Place {
    There,
    Step(Vec<Restore>),
    /// Its claim goes, since then.
    Leaving(Timestamp),
    /// Its claim is not Bound yet.
    Binding,
    /// Its volume is reserved, and its controller has not seen that yet.
    Freeing(String),
    Fail(Refusal),
}

pub fn swap(v: &View, run: &Run, now: Timestamp) -> Holds {
    if let Some(write) = own::record(v, run, now)? {
        return Ok(Some(write));
    }
    let free = taken(v, run)?;
    if !free.is_empty() {
        return Ok(steps(free));
    }
    let (mut batch, mut waits, mut on) = (vec![], vec![], vec![Feed::Claims]);
    let mut late = None;
    for item in &run.deed.plan.items {
        match place(v, run, item)? {
            Place::There => {}
            Place::Step(more) => batch.extend(more),
            Place::Fail(refusal) => return Ok(Some(Go::Fail(refusal))),
            Place::Leaving(since) if run.goal == Goal::New => {
                let by = since + v.want.restore.deletion_timeout;
                waits.push(by);
                if now >= by {
                    late.get_or_insert_with(|| hangs(v, item));
                }
            }
            Place::Leaving(_) => {
                waits.push(now + PATIENCE);
                // Another of this name would hold the claim with its pods, and nobody would stop them.
                on.extend([Feed::Target, Feed::Object]);
            }
            Place::Freeing(volume) => {
                waits.push(now + PATIENCE);
                on.push(Feed::Volume(volume));
            }
            Place::Binding => {
                let by = run.since + v.want.restore.stage_timeout;
                waits.push(by);
                if now >= by && late.is_none() {
                    late = Some(unbound(v, item)?);
                }
            }
        }
    }
    match (late, waits.into_iter().min()) {
        _ if batch.iter().any(ending::is_beginning) && v.restore.closing()? => Ok(Some(Go::Stop)),
        _ if !batch.is_empty() => Ok(steps(batch)),
        (Some(refusal), _) => Ok(Some(Go::Fail(refusal))),
        (None, Some(until)) => Ok(Some(Go::Wait(on, until))),
        (None, None) => Ok(None),
    }
}

fn hangs(v: &View, item: &Item) -> Refusal {
    let seconds = v.want.restore.deletion_timeout.as_secs();
    let message = format!(
        "claim {} did not disappear within spec.pvcDeletionTimeoutSeconds ({seconds} s): look for a pod that uses it, or \
         a finalizer on it",
        item.pvc
    );
    Refusal::new(Reason::PvcDeletionTimeout, message)
}

fn unbound(v: &View, item: &Item) -> Result<Refusal, Read> {
    let (seconds, trouble) = (v.want.restore.stage_timeout.as_secs(), v.restore.trouble(&item.pvc)?);
    let message = format!("claim {} was not Bound within spec.stageTimeoutSeconds ({seconds} s){trouble}", item.pvc);
    Ok(Refusal::new(Reason::StageTimeout, message))
}

/// Where somebody's claim has a name, what is reserved for that name is freed: it would bind to whatever claim comes after
/// theirs.
pub fn taken(v: &View, run: &Run) -> Result<Vec<Restore>, Read> {
    ending::free_of(v, &run.deed, |item| {
        let claim = v.claims()?.get(&item.pvc).filter(|claim| !claim.leaving);
        Ok(match claim {
            Some(claim) => !own::was(item, claim) && !own::is_ours(v, run, item, claim)?,
            None => false,
        })
    })
}

fn foreign(item: &Item) -> Place {
    let message = format!("claim {} was made or taken over by somebody else during the restore", item.pvc);
    Place::Fail(Refusal::new(Reason::Foreign, message))
}

fn place(v: &View, run: &Run, item: &Item) -> Result<Place, Read> {
    let wanted = run.wanted(item);
    let Some(claim) = v.claims()?.get(&item.pvc) else { return make(v, run, item, wanted) };
    if let Some(since) = claim.leaving_since {
        return Ok(Place::Leaving(since));
    }
    if !own::was(item, claim) && !own::is_ours(v, run, item, claim)? {
        return Ok(foreign(item));
    }
    let stands = match (run.goal, wanted) {
        (_, Some(wanted)) => claim.asked.as_ref() == Some(&wanted.pv),
        // In place, or fresh: the one that we have made.
        (Goal::New, None) => own::is_made(v, run, item, claim)?,
        _ => false,
    };
    let fresh = run.goal == Goal::New && item.snapshot.is_none();
    let placed = wanted.is_some() || fresh || claim.asked.is_none();
    match stands {
        true if claim.lost || claim.volume.is_some() && behind(v, &item.pvc, claim)?.is_none() => {
            Ok(Place::Fail(stop::gone(&item.pvc, claim.asked.as_deref().unwrap_or_default())))
        }
        true if !placed && !own::is_proven(v, claim)? => Ok(Place::Fail(stage::unproven(&item.pvc, claim))),
        true if claim.volume.is_some() || fresh && own::waits(v, item)? => Ok(Place::There),
        true => Ok(Place::Binding),
        false => drop_claim(v, run, item, claim),
    }
}

/// By uid; never before the volume behind it is safe.
fn drop_claim(v: &View, run: &Run, item: &Item, claim: &Claim) -> Result<Place, Read> {
    // Half made in place, or fresh: no pod has ever served from it.
    let unused = !run.served && !matches!(run.cause, Cause::Undo(_)) && !run.deed.staged.contains_key(&item.pvc);
    if unused && let Some(step) = stage::discard(v, run, item, &item.pvc, claim)? {
        return Ok(Place::Step(vec![step]));
    }
    if let Some((pv, volume)) = behind(v, &item.pvc, claim)?
        && volume.policy != RETAIN
    {
        let (role, policy) = volume::role(v, run, Some(item), pv, volume);
        return Ok(Place::Step(volume::protect(v, pv, volume, role, &item.pvc, policy).into_iter().collect()));
    }
    let why = if run.goal == Goal::New { "replaced" } else { "put back" };
    let mut batch = vec![Restore::DropClaim(Doomed { name: item.pvc.clone(), uid: claim.uid.clone(), why })];
    if let (Goal::New, Some(staging)) = (run.goal, staging(v, run, item)?)
        && staging.leaving_since.is_none()
    {
        batch.push(drop_staging(item, staging));
    }
    Ok(Place::Step(batch))
}

fn staging<'a>(v: &'a View, run: &Run, item: &Item) -> Result<Option<&'a Claim>, Read> {
    let Some(name) = &item.staging else { return Ok(None) };
    let known = run.deed.staged.get(&item.pvc).map(|staged| &staged.claim);
    Ok(v.claims()?.get(name).filter(|claim| known == Some(&claim.uid)))
}

fn drop_staging(item: &Item, claim: &Claim) -> Restore {
    let name = item.staging.clone().unwrap_or_default();
    Restore::DropClaim(Doomed { name, uid: claim.uid.clone(), why: "its volume goes under the claim's own name" })
}

/// There is no claim of that name.
fn make(v: &View, run: &Run, item: &Item, wanted: Option<&Placed>) -> Result<Place, Read> {
    // One volume at a time waits for a claim of that name.
    if run.goal == Goal::Old {
        let others =
            release::volumes(&run.deed).filter(|(other, placed)| other.pvc == item.pvc && Some(*placed) != wanted);
        for (_, placed) in others {
            if let Some(volume) = find(v, &run.deed, item, placed)?
                && let Some(step) = ending::free(v, &run.deed, item, placed, volume)
            {
                return Ok(Place::Step(vec![step]));
            }
        }
    }
    let Some(wanted) = wanted else {
        return if run.goal == Goal::Old { Ok(Place::There) } else { anew(v, run, item) };
    };
    if run.goal == Goal::New
        && let Some(staging) = staging(v, run, item)?
    {
        return Ok(match staging.leaving_since {
            Some(since) => Place::Leaving(since),
            None => Place::Step(vec![drop_staging(item, staging)]),
        });
    }
    let Some(volume) = find(v, &run.deed, item, wanted)? else {
        return Ok(Place::Fail(stop::gone(&item.pvc, &wanted.pv)));
    };
    let namespace = &v.want.statefulset_namespace;
    let of = volume.claim.as_ref().filter(|of| of.namespace == *namespace);
    Ok(match of {
        // A claim that comes before its volume is free would be looked at again only after a quarter of a minute.
        Some(of) if of.name == item.pvc && of.uid.is_none() && volume.phase != "Available" => {
            Place::Freeing(wanted.pv.clone())
        }
        Some(of) if of.name == item.pvc && of.uid.is_none() => {
            let claim = NewClaim {
                volume: Some(wanted.pv.clone()),
                restored_by: Some(signature(v)),
                ..fitted(stage::new_claim(v, item, None)?, volume)
            };
            Place::Step(vec![Restore::Make(Box::new(claim))])
        }
        Some(of) if of.name == item.pvc || Some(&of.name) == item.staging.as_ref() => {
            Place::Step(vec![Restore::Reserve(Box::new(Reserve {
                pv: wanted.pv.clone(),
                version: volume.version.clone(),
                from: of.uid.clone(),
                namespace: namespace.clone(),
                name: item.pvc.clone(),
                uid: None,
            }))])
        }
        _ => Place::Fail(stop::gone(&item.pvc, &wanted.pv)),
    })
}

/// A claim asks for no more than its volume has, and for the volume's class: else it would stay Pending for ever.
fn fitted(mut claim: NewClaim, volume: &Volume) -> NewClaim {
    if crate::plan::quantity::exceeds(&claim.manifest.storage, &volume.capacity) {
        volume.capacity.clone_into(&mut claim.manifest.storage);
    }
    if let Some(class) = &volume.class {
        claim.manifest.storage_class_name = Some(class.clone());
    }
    claim
}

/// In place: made from its snapshot while everything is stopped. Fresh: an empty one.
fn anew(v: &View, run: &Run, item: &Item) -> Result<Place, Read> {
    let (node, tried) = match &item.snapshot {
        Some(_) => match stage::candidate(v, run, item)? {
            Ok(found) => found,
            Err(refusal) => return Ok(Place::Fail(refusal)),
        },
        None => (None, vec![]),
    };
    let claim = stage::new_claim(v, item, item.snapshot.as_ref())?;
    let claim = NewClaim { node, tried, restored_by: Some(signature(v)), ..claim };
    Ok(Place::Step(vec![Restore::Make(Box::new(claim))]))
}

/// In place: the volumes under the claims, as they are written into the journal.
pub fn made(v: &View, run: &Run) -> Result<BTreeMap<String, Placed>, Read> {
    let mut all = BTreeMap::new();
    for item in run.deed.plan.items.iter().filter(|item| item.snapshot.is_some()) {
        let Some(claim) = v.claims()?.get(&item.pvc) else { continue };
        if let Some((_, volume)) = behind(v, &item.pvc, claim)? {
            all.insert(item.pvc.clone(), stage::placed(claim, volume));
        }
    }
    Ok(all)
}
