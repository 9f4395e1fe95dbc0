//! Release: after the undo window the volumes that a restore has set aside get their own reclaim policy back. Those
//! whose policy is Delete go; what a snapshot still hangs on waits (`spec.releaseOldVolumes`).

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::journal::{Deed, Item, Journal, Placed, Record};
use super::volume::{find, is_marked, tend};
use super::{Restore, acquire, closed, depart, gate, held, leave_lock, leaving, one, outcome, report};
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
    if let Some(why) = kept(v, record, now) {
        return depart(v, Exit::Again(why), now);
    }
    if record.leaving && held(record).is_none() {
        return leave_lock(v, outcome(ended), now);
    }
    if let Some(refusal) = &v.refused {
        return end(Exit::Refused(refusal.clone()));
    }
    let (batch, waits) = free(v, deed.as_deref())?;
    // Still referenced: tomorrow again. When the object goes it stays Retained and labelled, and the deletion ends.
    if batch.is_empty() && !waits.is_empty() && !record.leaving {
        return depart(v, Exit::Waits(waiting(v, &waits)), now);
    }
    if v.mine()?.is_none() {
        return acquire(v, record, now);
    }
    if !batch.is_empty() {
        return act(batch, now + super::CALL);
    }
    if waits.is_empty() && record.status.undo_deadline.is_some() && !record.leaving {
        return one(Restore::Write(Box::new(report::released(v, now)?)), now);
    }
    match held(record) {
        Some(hold) => one(Restore::Hold(hold), now),
        None => leave_lock(v, outcome(ended), now),
    }
}

/// What gives back to each volume its own policy; and those that a snapshot still hangs on, each as a phrase.
fn free(v: &View, deed: Option<&Deed>) -> Result<(Vec<Restore>, Vec<String>), Read> {
    let (mut batch, mut waits) = (vec![], vec![]);
    for (deed, item, placed) in deed.into_iter().flat_map(|deed| volumes(deed).map(move |(item, of)| (deed, item, of)))
    {
        let Some(volume) = find(v, deed, item, placed)?.filter(|volume| is_free(v, item, volume)) else { continue };
        match references(v, deed, volume)? {
            0 => {
                let own = volume.marks.policy.clone().unwrap_or_else(|| volume.policy.clone());
                batch.push(Restore::Settle(tend(&placed.pv, volume, &own, Marks::default())));
            }
            count => waits.push(format!(
                "PersistentVolume {} of claim {} is the source of {count} VolumeSnapshotContent{}",
                placed.pv,
                item.pvc,
                if count == 1 { "" } else { "s" }
            )),
        }
    }
    Ok((batch, waits))
}

fn waiting(v: &View, waits: &[String]) -> String {
    format!(
        "restore {}/{} still keeps volumes that snapshots may live in, until these are gone (spec.releaseOldVolumes): {}",
        v.want.namespace,
        v.want.name,
        waits.join("; ")
    )
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

/// Why it is not the day yet.
fn kept(v: &View, record: &Record, now: Timestamp) -> Option<String> {
    let place = format!("{}/{}", v.want.namespace, v.want.name);
    if record.undo.is_some() && record.undo != record.status.last_request {
        return Some(format!("an undo of restore {place} is asked for: its old volumes stay until that is answered"));
    }
    let deadline = record.status.undo_deadline.as_ref().filter(|deadline| !record.leaving && deadline.0 > now)?;
    Some(format!(
        "the volumes that restore {place} has set aside are kept until {}. To give them up before: kubectl -n {} delete \
         statefulsetrestore {}",
        deadline.0, v.want.namespace, v.want.name
    ))
}

/// All that the journal names, by uid and handle.
pub(super) fn volumes(deed: &Deed) -> impl Iterator<Item = (&Item, &Placed)> {
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

/// How many snapshots live inside the volume, and would go with it.
fn references(v: &View, deed: &Deed, volume: &Volume) -> Result<usize, Read> {
    let until = match v.want.restore.release {
        ReleaseOldVolumes::AtDeadline => false,
        ReleaseOldVolumes::WhenUnreferenced => true,
        ReleaseOldVolumes::Auto | ReleaseOldVolumes::Unknown => is_inside(v, deed, volume)?,
    };
    Ok(if until { v.restore.handles(|| handles(deed))?.get(&volume.handle).copied().unwrap_or_default() } else { 0 })
}

/// Of every volume that it may be asked of.
fn handles(deed: &Deed) -> BTreeSet<String> {
    volumes(deed).map(|(_, placed)| placed.handle.clone()).collect()
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

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::restore::{RestorePhase, StatefulSetRestoreStatus};
    use crate::plan::flow::Next;
    use crate::plan::noun::{Outcome, Want};
    use crate::plan::restore::Restore;
    use crate::plan::restore::journal::End;
    use crate::plan::restore::sight::Sight;
    use crate::plan::view::{Fact, Seen};

    const NOW: &str = "2026-11-26T12:00:00Z";

    /// A completed restore whose volumes are kept until then.
    fn decided(deadline: Option<&str>, change: impl Fn(&mut Record)) -> Next<Restore> {
        let undo_deadline = deadline.map(|at| Time(at.parse().unwrap()));
        let phase = Some(RestorePhase::Completed);
        let status = StatefulSetRestoreStatus { phase, undo_deadline, ..StatefulSetRestoreStatus::default() };
        let mut record = Record {
            version: "1".into(),
            uid: "uid".into(),
            leaving: false,
            created: Timestamp::UNIX_EPOCH,
            finalizers: vec![crate::api::FINALIZER.to_owned()],
            undo: None,
            status,
            journal: Journal::Ended(End::Completed, Some(Box::default())),
        };
        change(&mut record);
        let (namespace, name) = ("shop".to_owned(), "back".to_owned());
        let mut view = View::new(Want { namespace, name, statefulset: "pg".into(), ..Want::default() });
        view.fold(Fact::Restore(Box::new(Sight::Record(Box::new(record)))));
        view.fold(Fact::Restore(Box::new(Sight::Ending(false))));
        view.fold(Fact::Lease(Seen::Known(None)));
        next(&view, NOW.parse().unwrap()).unwrap()
    }

    #[test]
    fn before_its_day_it_says_until_when_and_how_to_end_it() {
        let Next::End(Exit::Again(why)) = decided(Some("2026-11-26T12:00:01Z"), |_| {}) else { panic!("it goes on") };
        for words in ["shop/back", "kept until 2026-11-26T12:00:01Z", "kubectl -n shop delete statefulsetrestore back"]
        {
            assert!(why.contains(words), "{words} is not in {why}");
        }
    }

    #[test]
    fn an_undo_that_is_asked_for_is_waited_for() {
        let asked = |record: &mut Record| record.undo = Some("please".into());
        let Next::End(Exit::Again(why)) = decided(Some(NOW), asked) else { panic!("it goes on") };
        assert!(why.contains("an undo of restore shop/back is asked for"), "{why}");
        let answered = |record: &mut Record| {
            asked(record);
            record.status.last_request = Some("please".into());
        };
        assert!(matches!(decided(Some(NOW), answered), Next::Do { .. }), "the lock is taken");
    }

    #[test]
    fn on_its_day_or_when_the_object_goes_it_begins() {
        let locks =
            |next: Next<Restore>| matches!(next, Next::Do { batch, .. } if matches!(batch[..], [Restore::Lock(_)]));
        assert!(locks(decided(Some(NOW), |_| {})));
        assert!(locks(decided(Some("2026-12-24T00:00:00Z"), |record| record.leaving = true)));
    }

    #[test]
    fn without_anything_kept_it_is_over() {
        let over = decided(None, |record| record.finalizers.clear());
        assert_eq!(over, Next::End(Exit::Done(Outcome::Succeeded)));
    }
}
