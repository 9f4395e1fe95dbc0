//! A namespace that is being deleted: nothing is reserved or made there any more. What is reserved gets the uid of a claim
//! that is gone, so that no claim that is made anew under the name, in a namespace that is made anew, takes a volume by
//! chance.

use jiff::Timestamp;

use super::journal::{Deed, Item, Journal, Placed, Run};
use super::volume::find;
use super::{Reserve, Restore, depart, leave_lock, release, write};
use crate::api::condition::Reason;
use crate::plan::flow::{Exit, Plan, act};
use crate::plan::noun::{Outcome, Refusal, Volume};
use crate::plan::view::{Read, View};

/// It binds or reserves: it has no place where a namespace goes.
pub fn is_beginning(step: &Restore) -> bool {
    matches!(step, Restore::Make(_)) || matches!(step, Restore::Reserve(reserve) if reserve.uid.is_none())
}

/// A volume that is reserved for the item's claim is nobody's again: Released, from a claim that is gone.
pub fn free(v: &View, deed: &Deed, item: &Item, placed: &Placed, volume: &Volume) -> Option<Restore> {
    let of = volume.claim.as_ref().filter(|of| of.name == item.pvc && of.uid.is_none())?;
    let new = deed.staged.get(&item.pvc) == Some(placed);
    let name = item.staging.as_ref().filter(|_| new).unwrap_or(&item.pvc);
    // No claim has our object's uid.
    let gone = Some(&placed.claim).filter(|uid| !uid.is_empty()).unwrap_or(&v.want.uid);
    Some(Restore::Reserve(Box::new(Reserve {
        pv: placed.pv.clone(),
        version: volume.version.clone(),
        from: None,
        namespace: of.namespace.clone(),
        name: name.clone(),
        uid: Some(gone.clone()),
    })))
}

/// What is reserved of these claims, of all that the journal names.
pub fn free_of(v: &View, deed: &Deed, of: impl Fn(&Item) -> Result<bool, Read>) -> Result<Vec<Restore>, Read> {
    let mut batch = vec![];
    for (item, placed) in release::volumes(deed) {
        if of(item)?
            && let Some(volume) = find(v, deed, item, placed)?
        {
            batch.extend(free(v, deed, item, placed, volume));
        }
    }
    Ok(batch)
}

pub fn free_all(v: &View, deed: &Deed) -> Result<Vec<Restore>, Read> {
    free_of(v, deed, |_| Ok(true))
}

/// The swap comes to its end here: what is reserved is freed, and the rest is for whoever deletes the object. Where that
/// goes with the namespace it is a matter of seconds.
pub fn stop(v: &View, run: &Run, now: Timestamp) -> Plan<Restore> {
    let batch = free_all(v, &run.deed)?;
    if !batch.is_empty() {
        return act(batch, now + super::CALL);
    }
    let namespace = &v.want.statefulset_namespace;
    let message = format!("namespace {namespace} is being deleted: nothing is made or reserved there any more");
    if v.restore.ending()? {
        return depart(v, Exit::Again(message), now);
    }
    let refusal = Refusal::new(Reason::Superseded, message);
    match v.restore.record()?.journal {
        Journal::Held(..) => leave_lock(v, Outcome::Failed(refusal), now),
        _ => write(v, &Journal::Held(Box::new(run.clone()), refusal), now),
    }
}
