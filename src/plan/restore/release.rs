//! Release: after the undo window the volumes that a restore has set aside get their own reclaim policy back. Those
//! whose policy is Delete go; what a snapshot still hangs on waits (`spec.releaseOldVolumes`).

use jiff::Timestamp;

use super::journal::{Deed, Item, Journal, Placed, Record};
use super::volume::{find, is_marked, tend};
use super::{Restore, acquire, closed, gate, held, leave_lock, leaving, one, outcome, report};
use crate::api::restore::ReleaseOldVolumes;
use crate::plan::flow::{Exit, Next, Plan, act, end};
use crate::plan::noun::{Marks, Outcome, Volume};
use crate::plan::view::{Read, View};

pub fn next(v: &View, now: Timestamp) -> Plan<Restore> {
    let record = match gate(v, now)? {
        Ok(record) => record,
        Err(next) => return Ok(next),
    };
    if let Some(next) = let_go(v, record, now)? {
        return Ok(next);
    }
    let Journal::Ended(ended, deed) = &record.journal else {
        return end(Exit::Again("the restore is not over: its old volumes stay".into()));
    };
    if record.status.undo_deadline.is_none() && !record.leaving {
        return closed(v, record, outcome(ended), now); // nothing is set aside any more
    }
    let due = record.leaving || record.status.undo_deadline.as_ref().is_some_and(|deadline| deadline.0 <= now);
    if !due || undo_is_asked_for(record) {
        return leave_lock(v, outcome(ended), now);
    }
    if record.leaving && held(record).is_none() {
        return leave_lock(v, outcome(ended), now);
    }
    if v.mine()?.is_none() {
        return acquire(v, record, now);
    }
    if let Some(refusal) = &v.refused {
        return end(Exit::Refused(refusal.clone()));
    }
    let (mut batch, mut waits) = (vec![], false);
    if let Some(deed) = deed {
        for (item, placed) in volumes(deed) {
            let Some(volume) = find(v, placed)?.filter(|volume| is_free(v, item, volume)) else { continue };
            if is_referenced(v, deed, volume)? {
                waits = true;
            } else {
                let own = volume.marks.policy.clone().unwrap_or_else(|| volume.policy.clone());
                batch.push(Restore::Settle(tend(&placed.pv, volume, &own, Marks::default())));
            }
        }
    }
    if !batch.is_empty() {
        return act(batch, now + super::CALL);
    }
    // Still referenced: tomorrow again. When the object goes it stays Retained and labelled, and the deletion ends.
    if waits && !record.leaving {
        return leave_lock(v, outcome(ended), now);
    }
    if !waits && record.status.undo_deadline.is_some() && !record.leaving {
        return one(Restore::Write(Box::new(report::released(v, now)?)), now);
    }
    match held(record) {
        Some(hold) => one(Restore::Hold(hold), now),
        None => leave_lock(v, outcome(ended), now),
    }
}

/// Where the namespace itself is being deleted nothing can be put back and nobody needs it: the object goes at once.
/// The volumes that it has set aside stay, Retained and labelled.
pub(super) fn let_go(v: &View, record: &Record, now: Timestamp) -> Result<Option<Next<Restore>>, Read> {
    if !record.leaving || !v.restore.ending()? {
        return Ok(None);
    }
    match held(record) {
        Some(hold) => one(Restore::Hold(hold), now).map(Some),
        None => end(Exit::Done(Outcome::Failed(leaving(v)))).map(Some),
    }
}

fn undo_is_asked_for(record: &Record) -> bool {
    record.undo.is_some() && record.undo != record.status.last_request
}

/// All that the journal names, by uid and handle.
fn volumes(deed: &Deed) -> impl Iterator<Item = (&Item, &Placed)> {
    deed.plan.items.iter().flat_map(|item| {
        let undo = deed.undo.iter().flat_map(|undo| &undo.items).find(|undo| undo.pvc == item.pvc);
        let undo = undo
            .and_then(|undo| undo.old.as_ref())
            .filter(|undo| deed.staged.get(&item.pvc).is_none_or(|new| new.pv != undo.pv));
        let all = item.old.iter().chain(deed.staged.get(&item.pvc)).chain(undo);
        all.map(move |placed| (item, placed))
    })
}

/// Set aside by this restore, of its claims, and Released: never Available, never Bound.
fn is_free(v: &View, item: &Item, volume: &Volume) -> bool {
    let its = |of: &crate::plan::noun::ClaimRef| {
        of.namespace == v.want.statefulset_namespace && (of.name == item.pvc || Some(&of.name) == item.staging.as_ref())
    };
    is_marked(v, volume) && volume.phase == "Released" && volume.claim.as_ref().is_some_and(its)
}

/// A snapshot lives inside the volume, and would go with it.
fn is_referenced(v: &View, deed: &Deed, volume: &Volume) -> Result<bool, Read> {
    let until = match v.want.restore.release {
        ReleaseOldVolumes::AtDeadline => false,
        ReleaseOldVolumes::WhenUnreferenced => true,
        ReleaseOldVolumes::Auto | ReleaseOldVolumes::Unknown => is_inside(v, deed, volume)?,
    };
    Ok(until && v.restore.handles()?.contains(&volume.handle))
}

/// The driver keeps its snapshots inside the source volume: its handles say so, or the class does.
fn is_inside(v: &View, deed: &Deed, volume: &Volume) -> Result<bool, Read> {
    if v.restore.classes()?.iter().any(|class| class.in_volume) {
        let used = deed.plan.items.iter().filter_map(|item| item.snapshot.as_ref());
        for name in used {
            let class = v.restore.sources()?.get(name).and_then(|source| source.class.as_ref());
            if v.restore
                .classes()?
                .iter()
                .any(|known| known.in_volume && class.is_none_or(|class| *class == known.name))
            {
                return Ok(true);
            }
        }
    }
    for source in v.restore.sources()?.values() {
        let Some(content) = &source.content else { continue };
        let inside = |handle: &String| !volume.handle.is_empty() && handle.contains(&volume.handle);
        if v.restore.content(content)?.and_then(|content| content.handle.as_ref()).is_some_and(inside) {
            return Ok(true);
        }
    }
    Ok(false)
}
