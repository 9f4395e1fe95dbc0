//! What a way back leaves behind is put away: staging claims with their volumes where nothing was swapped yet; after
//! that the new volumes are kept, Released, for a last look.

use jiff::{SignedDuration, Timestamp};

use super::journal::{Item, Run};
use super::stage::discard;
use super::volume::find;
use super::{Doomed, Go, Holds, Restore, ending, own, steps, volume};
use crate::plan::flow::Feed;
use crate::plan::noun::{Claim, DELETE, Marks};
use crate::plan::view::{Read, View};

/// How long a staging claim may take to go, and a volume that is set to Delete, before they are left to their controllers.
const GOING: SignedDuration = SignedDuration::from_mins(5);

pub fn clean(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (mut batch, mut leaving, all) = (vec![], None, v.claims()?);
    for item in &run.deed.plan.items {
        let staging = item.staging.as_ref().and_then(|name| Some((name, all.get(name)?)));
        match staging {
            Some((_, claim)) if !own::is_made(v, run, item, claim)? => batch.extend(put_back(v, run, item)?),
            None => batch.extend(put_back(v, run, item)?),
            // One that a pod of somebody's holds is told of at the end, and goes with that pod.
            Some((_, claim)) if let Some(since) = claim.leaving_since => {
                let by = run.since.max(since) + GOING;
                leaving = leaving.max(Some(by).filter(|by| now < *by));
            }
            Some((name, claim)) => batch.extend(away(v, run, item, name, claim)?),
        }
    }
    if !batch.is_empty() {
        // What comes of a claim that is gone is known by its uid.
        return Ok(own::record(v, run, now)?.or_else(|| steps(batch)));
    }
    if let Some(by) = leaving {
        return Ok(Some(Go::Wait(vec![Feed::Claims], by)));
    }
    if run.swapped() { Ok(None) } else { volumes(v, run, now) }
}

fn away(v: &View, run: &Run, item: &Item, name: &str, claim: &Claim) -> Result<Option<Restore>, Read> {
    if !run.swapped() {
        return discard(v, run, item, name, claim);
    }
    let why = "its volume is kept by itself";
    Ok(Some(Restore::DropClaim(Doomed { name: name.to_owned(), uid: claim.uid.clone(), why })))
}

/// A new volume that is only reserved gets its old claimRef back: it is Released again, nobody's and not free.
fn put_back(v: &View, run: &Run, item: &Item) -> Result<Option<Restore>, Read> {
    let Some(placed) = run.deed.staged.get(&item.pvc).filter(|_| run.swapped()) else { return Ok(None) };
    Ok(find(v, &run.deed, item, placed)?.and_then(|volume| ending::free(v, &run.deed, item, placed, volume)))
}

/// No volume of a staging claim is left.
fn volumes(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (mut batch, mut going) = (vec![], vec![]);
    for name in v.restore.kin()? {
        let Some(volume) = v.volume(name)? else { continue };
        if !own::is_left(v, run, name, volume)? {
            continue;
        }
        if volume.policy == DELETE {
            going.push(Feed::Volume(name.clone()));
        } else {
            batch.push(Restore::Discard(volume::tend(name, volume, DELETE, Marks::default())));
        }
    }
    let by = run.since + GOING;
    match going.is_empty() || now >= by {
        _ if !batch.is_empty() => Ok(steps(batch)),
        true => Ok(None),
        false => Ok(Some(Go::Wait(going, by))),
    }
}
