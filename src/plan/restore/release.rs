//! Release: after the undo window the volumes that a restore has set aside get their own reclaim policy back. Those
//! whose policy is Delete go; what a snapshot still hangs on waits (`spec.releaseOldVolumes`).

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::begin::queue_after;
use super::journal::{Deed, Item, Journal, Placed, Record};
use super::volume::{find, is_marked, tend};
use super::{Restore, closed, depart, ending, gate, held, leave_lock, leaving, let_loose, one, outcome, report};
use crate::api::restore::ReleaseOldVolumes;
use crate::plan::flow::{Exit, Feed, Next, Plan, act, end, wait};
use crate::plan::noun::{ClaimRef, DELETE, Marks, Outcome, RETAIN, Volume};
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
    let left = left(v, deed.as_deref())?;
    if batch.is_empty() && !left.is_empty() && now < v.want.lock_by {
        // Nobody else has to wait for that.
        return match v.to_release()? {
            Some(epoch) => one(Restore::Unlock(epoch), now),
            None => wait(left.into_iter().map(|(pv, _)| Feed::Volume(pv)), v.want.lock_by),
        };
    }
    // Still referenced: tomorrow again. When the object goes it stays Retained and labelled, and the deletion ends.
    if batch.is_empty() && !waits.is_empty() && !record.leaving {
        return depart(v, Exit::Waits(waiting(v, &waits)), now);
    }
    if v.mine()?.is_none() {
        return queue_after(v, record, report::QUEUED[1], now);
    }
    if record.status.message.as_ref().is_some_and(|message| message.contains(report::QUEUED[1])) {
        return one(Restore::Write(Box::new(report::queued(v, "", now)?)), now);
    }
    if record.leaving && record.status.undo_deadline.is_some() {
        return one(Restore::Write(Box::new(report::going(v, now)?)), now);
    }
    if !batch.is_empty() {
        return act(batch, now + super::CALL);
    }
    // Of an object that goes the Event stays.
    let told = record.status.message.as_ref().is_some_and(|told| told.contains(report::STILL_THERE));
    let due = if record.leaving { !left.is_empty() && !told } else { record.status.undo_deadline.is_some() };
    if waits.is_empty() && due {
        let left: Vec<String> = left.into_iter().map(|(_, why)| why).collect();
        let stay = staying(v, deed.as_deref())?;
        return one(Restore::Write(Box::new(report::released(v, &left, &stay, now)?)), now);
    }
    match held(record) {
        Some(hold) => let_loose(v, record, hold, now),
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

/// What is still to come of what was set aside, each by name and as a phrase: a volume that its controller has not seen
/// free yet, so that it could not be given back; and one that was, and that its provisioner has not deleted.
fn left(v: &View, deed: Option<&Deed>) -> Result<Vec<(String, String)>, Read> {
    let mut left = vec![];
    for (deed, item, placed) in deed.into_iter().flat_map(|deed| volumes(deed).map(move |(item, of)| (deed, item, of)))
    {
        let Some(volume) = find(v, deed, item, placed)? else { continue };
        let claims = v.claims()?;
        let lives = |of: &ClaimRef| claims.get(&of.name).is_some_and(|claim| Some(&claim.uid) == of.uid.as_ref());
        let Some(of) = volume.claim.as_ref().filter(|of| of.uid.is_some() && !lives(of)) else { continue };
        let why = match volume.phase.as_str() {
            "Released" | "Failed" if !is_marked(v, volume) && volume.policy == DELETE => {
                "its provisioner has not deleted it"
            }
            phase if is_marked(v, volume) && phase != "Released" => "it is not Released from that claim yet",
            _ => continue,
        };
        left.push((placed.pv.clone(), format!("PersistentVolume {} of claim {}: {why}", placed.pv, of.name)));
    }
    Ok(left)
}

/// Those that are given back and that nobody frees: their own policy is Retain.
fn staying<'a>(v: &View, deed: Option<&'a Deed>) -> Result<Vec<&'a str>, Read> {
    let mut all = vec![];
    for (deed, item, placed) in deed.into_iter().flat_map(|deed| volumes(deed).map(move |(item, of)| (deed, item, of)))
    {
        let stays = |volume: &Volume| volume.phase == "Released" && volume.policy == RETAIN;
        if find(v, deed, item, placed)?.is_some_and(stays) {
            all.push(placed.pv.as_str());
        }
    }
    Ok(all)
}

fn waiting(v: &View, waits: &[String]) -> String {
    format!(
        "restore {}/{} still keeps volumes that snapshots may live in, until these are gone (spec.releaseOldVolumes): {}",
        v.want.namespace,
        v.want.name,
        waits.join("; ")
    )
}

/// Where the namespace of the StatefulSet is being deleted nothing can be put back and nobody needs it: the object goes at
/// once, as soon as no volume is reserved any more. The volumes that it has set aside stay, Retained and labelled. Where
/// only the object's own namespace goes, it goes as any object that is deleted: the StatefulSet is put back first.
pub(super) fn let_go(v: &View, record: &Record, now: Timestamp) -> Result<Option<Next<Restore>>, Read> {
    let home = v.want.namespace == v.want.statefulset_namespace;
    if !record.leaving || !(home && v.restore.ending()? || v.restore.closing()?) {
        return Ok(None);
    }
    let deed = match &record.journal {
        Journal::Open(run) | Journal::Held(run, _) => Some(&run.deed),
        Journal::Ended(_, deed) => deed.as_deref(),
        Journal::Idle | Journal::Unread(_) => None,
    };
    if let Some(deed) = deed.filter(|_| v.refused.is_none() && held(record).is_some()) {
        let batch = ending::free_all(v, deed)?;
        if !batch.is_empty() {
            return act(batch, now + super::CALL).map(Some);
        }
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
    if v.classes()?.iter().any(|class| class.in_volume) {
        let used = deed.plan.items.iter().filter_map(|item| item.snapshot.as_ref());
        for name in used {
            let class = v.restore.sources()?.get(name).and_then(|source| source.class.as_ref());
            if v.classes()?.iter().any(|known| known.in_volume && class.is_none_or(|class| *class == known.name)) {
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
        among(deadline, ("shop", false), ("shop", false), change)
    }

    /// The namespaces of object and StatefulSet, and whether each is being deleted.
    fn among(
        deadline: Option<&str>,
        (namespace, ending): (&str, bool),
        (theirs, closing): (&str, bool),
        change: impl Fn(&mut Record),
    ) -> Next<Restore> {
        let undo_deadline = deadline.map(|at| Time(at.parse().unwrap()));
        let phase = Some(RestorePhase::Completed);
        let status = StatefulSetRestoreStatus { phase, undo_deadline, ..StatefulSetRestoreStatus::default() };
        let mut record = Record {
            finalizers: vec![crate::api::FINALIZER.to_owned()],
            status,
            ..Record::of(Journal::Ended(End::Completed, Some(Box::default())))
        };
        change(&mut record);
        let (namespace, statefulset_namespace) = (namespace.to_owned(), theirs.to_owned());
        let (name, statefulset) = ("back".to_owned(), "pg".to_owned());
        let mut view = View::new(Want { namespace, name, statefulset, statefulset_namespace, ..Want::default() });
        view.fold(Fact::Restore(Box::new(Sight::Record(Box::new(record)))));
        view.fold(Fact::Restore(Box::new(Sight::Ending(ending))));
        view.fold(Fact::Restore(Box::new(Sight::Closing(closing))));
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

    /// Only where nothing of the StatefulSet will be left is nothing owed to it.
    #[test]
    fn it_lets_go_at_once_only_where_the_namespace_of_the_statefulset_goes() {
        let lets_go = |ours, theirs| {
            let next = among(Some("2026-12-24T00:00:00Z"), ours, theirs, |record| record.leaving = true);
            matches!(next, Next::Do { batch, .. } if matches!(batch[..], [Restore::Hold(_)]))
        };
        assert!(lets_go(("shop", true), ("shop", true)));
        assert!(lets_go(("ops", false), ("shop", true)));
        assert!(!lets_go(("ops", true), ("shop", false)), "the StatefulSet lives on");
        assert!(!lets_go(("shop", false), ("shop", false)));
    }

    #[test]
    fn without_anything_kept_it_is_over() {
        let over = decided(None, |record| record.finalizers.clear());
        assert_eq!(over, Next::End(Exit::Done(Outcome::Succeeded)));
    }
}
