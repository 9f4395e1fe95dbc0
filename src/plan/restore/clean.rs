//! What a way back leaves behind is put away: staging claims with their volumes where nothing was swapped yet; after
//! that the new volumes are kept, Released, for a last look.

use jiff::{SignedDuration, Timestamp};

use super::journal::{Item, Run};
use super::stage::discard;
use super::volume::{find, is_ours};
use super::{Doomed, Go, Holds, Reserve, Restore, steps, volume};
use crate::plan::flow::Feed;
use crate::plan::noun::{Claim, DELETE, Marks, Volume};
use crate::plan::view::{Read, View};

/// How long a volume that is set to Delete may take to go, before it is left to its provisioner.
const GOING: SignedDuration = SignedDuration::from_mins(5);

pub fn clean(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (mut batch, mut leaving, all) = (vec![], false, v.claims()?);
    for item in &run.deed.plan.items {
        let staging = item.staging.as_ref().and_then(|name| Some((name, all.get(name)?)));
        match staging.filter(|(_, claim)| is_ours(v, claim)) {
            None => batch.extend(put_back(v, run, item)?),
            Some((_, claim)) if claim.leaving_since.is_some() => leaving = true,
            Some((name, claim)) => batch.extend(away(v, run, name, claim)?),
        }
    }
    if !batch.is_empty() {
        return Ok(steps(batch));
    }
    if leaving {
        return Ok(Some(Go::Wait(vec![Feed::Claims], now + GOING)));
    }
    if run.swapped() { Ok(None) } else { volumes(v, run, now) }
}

fn away(v: &View, run: &Run, name: &str, claim: &Claim) -> Result<Option<Restore>, Read> {
    if !run.swapped() {
        return discard(v, name, claim);
    }
    let why = "its volume is kept by itself";
    Ok(Some(Restore::DropClaim(Doomed { name: name.to_owned(), uid: claim.uid.clone(), why })))
}

/// A new volume that is only reserved gets its old claimRef back: it is Released again, nobody's and not free.
fn put_back(v: &View, run: &Run, item: &Item) -> Result<Option<Restore>, Read> {
    let Some(placed) = run.deed.staged.get(&item.pvc).filter(|_| run.swapped()) else { return Ok(None) };
    let (Some(volume), Some(staging)) = (find(v, placed)?, &item.staging) else { return Ok(None) };
    let reserved = volume.claim.as_ref().filter(|of| of.name == item.pvc && of.uid.is_none());
    Ok(reserved.map(|of| {
        Restore::Reserve(Box::new(Reserve {
            pv: placed.pv.clone(),
            version: volume.version.clone(),
            from: None,
            namespace: of.namespace.clone(),
            name: staging.clone(),
            uid: Some(placed.claim.clone()),
        }))
    }))
}

/// No volume of a staging claim is left.
fn volumes(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (mut batch, mut going) = (vec![], vec![]);
    let staging = |volume: &Volume| {
        let of = volume.claim.as_ref().filter(|of| of.namespace == v.want.statefulset_namespace);
        run.deed.plan.items.iter().any(|item| item.staging.is_some() && item.staging.as_ref() == of.map(|of| &of.name))
    };
    for name in v.restore.kin()? {
        let Some(volume) = v.volume(name)?.filter(|volume| staging(volume)) else { continue };
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
