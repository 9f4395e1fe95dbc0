//! Scale up, lift the fence, wait until the pods are ready, put back what Protect changed, take the mark off.

use jiff::Timestamp;

use super::journal::{Cause, Item, Journal, Placed, Plan, Record, Run};
use super::volume::{self, behind, claims, find, is_marked, protect, set_aside, tend};
use super::{Go, Holds, Restore, Scale, Signs, release, report, stage, steps, stop, swap};
use crate::api::condition::Reason;
use crate::api::restore::RestorePhase;
use crate::api::shared::Goal;
use crate::plan::flow::Feed;
use crate::plan::noun::{Marks, Pod, RETAIN, Refusal, Volume};
use crate::plan::view::{Read, View};

/// The replicas to go back to: never read from a StatefulSet that is scaled down.
pub fn before(run: &Run) -> &Plan {
    match (&run.cause, &run.deed.undo) {
        (Cause::Undo(_), Some(undo)) => undo,
        _ => &run.deed.plan,
    }
}

pub fn before_mut(run: &mut Run) -> &mut Plan {
    match (&run.cause, &mut run.deed.undo) {
        (Cause::Undo(_), Some(undo)) => undo,
        _ => &mut run.deed.plan,
    }
}

/// Before the fence is lifted: it is we who may scale up, and each claim stands on its volume, Bound: a StatefulSet that
/// starts makes an empty claim for one that is gone. Where it does not exist, what was swapped stands for the next one.
pub fn scale(v: &View, run: &Run, now: Timestamp) -> Holds {
    let replicas = before(run).replicas;
    let ours = run.reached >= RestorePhase::ScalingDown && v.want.restore.scale_down && replicas > 0;
    let target = match v.target()? {
        None if run.swapped() => return stand(v, run, now),
        Some(target) if ours && target.replicas == 0 => target,
        _ => return Ok(None),
    };
    if let Some(go) = stand(v, run, now)? {
        return Ok(Some(go));
    }
    Ok(steps(vec![Restore::Scale(Scale { uid: target.uid.clone(), version: target.version.clone(), replicas })]))
}

/// What was swapped may have been touched since. Where nothing was, somebody's claim is no reason to leave all at 0, as
/// long as there is one.
fn stand(v: &View, run: &Run, now: Timestamp) -> Holds {
    let late = now >= run.since + v.want.restore.deletion_timeout;
    let go = swap::swap(v, run, now)?;
    let passes = match &go {
        Some(Go::Fail(_)) => true,
        Some(Go::Wait(..)) => late,
        _ => false,
    };
    Ok(if passes && !run.swapped() && is_taken(v, run)? { None } else { go })
}

/// Under each name that had one there is a claim, Bound: a StatefulSet that starts makes none.
fn is_taken(v: &View, run: &Run) -> Result<bool, Read> {
    let all = v.claims()?;
    let mut olds = run.deed.plan.items.iter().filter(|item| item.old.is_some());
    Ok(olds.all(|item| all.get(&item.pvc).is_some_and(|claim| claim.volume.is_some())))
}

pub fn unfence(v: &View, _: &Run, _: Timestamp) -> Holds {
    let Some(lease) = v.lease()?.filter(|lease| lease.fence.is_some()) else { return Ok(None) };
    Ok(steps(vec![Restore::Mark(Box::new(Signs { fence: None, ..stage::signs(lease) }))]))
}

/// The first pod that is Ready on restored volumes is written down: from now on they may hold new writes.
pub fn serve(v: &View, run: &Run, now: Timestamp) -> Holds {
    if run.served || run.goal != Goal::New || run.phase != RestorePhase::ScalingUp {
        return Ok(None);
    }
    let on_ours = |pod: &Pod| run.deed.plan.items.iter().any(|item| pod.claims.contains(&item.pvc));
    if !v.roster()?.values().any(|pod| pod.ready_since.is_some() && on_ours(pod)) {
        return Ok(None);
    }
    let served = Journal::Open(Box::new(Run { served: true, ..run.clone() }));
    Ok(steps(vec![Restore::Write(Box::new(report::write(v, &served, now)?))]))
}

pub fn ready(v: &View, run: &Run, now: Timestamp) -> Holds {
    let Some(target) = v.target()? else { return Ok(None) };
    let ordinals = target.start..target.start.saturating_add(before(run).replicas);
    let name = |ordinal| format!("{}-{ordinal}", v.want.statefulset);
    let its = |pod: &&Pod| pod.owner.as_ref() == Some(&target.uid) && !pod.leaving;
    let roster = v.roster()?;
    let since = |ordinal: &u32| roster.get(&name(*ordinal)).filter(its).and_then(|pod| pod.ready_since);
    let last = ordinals.clone().filter_map(|ordinal| since(&ordinal)).max();
    let Some(missing) = ordinals.clone().find(|ordinal| since(ordinal).is_none()) else { return Ok(None) };
    let by = last.unwrap_or(run.since).max(run.since) + v.want.restore.ready_timeout;
    if now < by {
        return Ok(Some(Go::Wait(vec![Feed::Pods], by)));
    }
    let (name, seconds) = (name(missing), v.want.restore.ready_timeout.as_secs());
    let why = unready(roster.get(&name).filter(its));
    let message = format!("pod {name} was not ready within spec.readyTimeoutSeconds ({seconds} s): {why}");
    Ok(Some(Go::Fail(Refusal::new(Reason::ReadyTimeout, message))))
}

/// Where a pod that runs and is not ready is not yet started, its kubelet or the scheduler knows why; else its log does.
fn unready(pod: Option<&Pod>) -> String {
    const LOG: &str = "look at its log (a database that refuses its directory may need fsGroupChangePolicy: \
                       OnRootMismatch)";
    match pod.map(|pod| pod.waits.as_ref()) {
        None => "there is no such pod: look at the events of the StatefulSet".to_owned(),
        Some(Some(waits)) if waits.contains("CrashLoopBackOff") => format!("{waits}; {LOG}"),
        Some(Some(waits)) => waits.clone(),
        Some(None) => LOG.to_owned(),
    }
}

/// Since when all its pods have run again, as far as they do.
pub fn up(v: &View, run: &Run, now: Timestamp) -> Result<Timestamp, Read> {
    let Some(target) = v.target()? else { return Ok(now) };
    let its = v.roster()?.values().filter(|pod| pod.owner.as_ref() == Some(&target.uid) && !pod.leaving);
    let since: Option<Vec<_>> = its.map(|pod| pod.ready_since).collect();
    let all = since.filter(|since| since.len() >= before(run).replicas as usize);
    Ok(all.and_then(|since| since.into_iter().max()).unwrap_or(now))
}

/// The StatefulSet's own persistentVolumeClaimRetentionPolicy.
pub fn relax(v: &View, run: &Run, _: Timestamp) -> Holds {
    let Some(target) = v.target()? else { return Ok(None) };
    let own = run.deed.plan.retention();
    let ours = run.reached >= RestorePhase::ScalingDown && target.retention != own;
    Ok(ours.then(|| Go::Do(vec![Restore::Retain(stop::keep(target, own))])))
}

/// Volumes under claims get back their own policy and lose our marks. One whose claim goes after all stays Retained: the
/// deletion may be one of ours, sent by a process that is dead and late.
pub fn give_back(v: &View, run: &Run) -> Result<Vec<Restore>, Read> {
    let mut batch = vec![];
    for (pvc, claim) in claims(v, run)? {
        // One that is not Bound any more has lost its claim since that was seen, and may be the only copy.
        let under = behind(v, pvc, claim)?.filter(|(_, volume)| volume.phase == "Bound" || claim.leaving);
        let Some((pv, volume)) = under else { continue };
        let item = run.deed.plan.items.iter().find(|item| item.pvc == *pvc);
        let (_, own) = volume::role(v, run, item, pv, volume);
        let policy = if item.is_some() && claim.leaving { RETAIN } else { own };
        let touched = is_marked(v, volume) || item.is_some() && volume.policy != policy;
        if touched && (volume.policy != policy || volume.marks != Marks::default()) {
            batch.push(Restore::Settle(tend(pv, volume, policy, Marks::default())));
        }
    }
    Ok(batch)
}

/// What is to be said of the claims that go although they were to stay: each with the volume behind it.
pub fn going(v: &View, run: &Run) -> Result<String, Read> {
    let (mut said, all) = (vec![], v.claims()?);
    for item in run.deed.plan.items.iter().filter(|_| run.reached >= RestorePhase::ScalingDown) {
        let Some(claim) = all.get(&item.pvc).filter(|claim| claim.leaving) else { continue };
        let Some((pv, _)) = behind(v, &item.pvc, claim)? else { continue };
        let pvc = &item.pvc;
        said.push(format!("; claim {pvc} is being deleted: its volume {pv} stays, with reclaim policy {RETAIN}"));
    }
    for name in run.deed.plan.items.iter().filter_map(|item| item.staging.as_ref()) {
        if all.get(name).is_some_and(|claim| claim.leaving) {
            let users = v.roster()?.iter().filter(|(_, pod)| !pod.finished && pod.claims.contains(name));
            let users: Vec<&str> = users.map(|(pod, _)| pod.as_str()).collect();
            let by =
                if users.is_empty() { String::new() } else { format!(", because pods use it: {}", users.join(", ")) };
            said.push(format!("; staging claim {name} is deleted and still there{by}"));
        }
    }
    said.extend(bereft(v, run)?);
    Ok(said.concat())
}

/// What is to be said of the volumes that are under no claim any more, since somebody took that away, and that nobody will
/// free: they are Retained, and no release comes for them.
fn bereft(v: &View, run: &Run) -> Result<Vec<String>, Read> {
    let (mut said, kept) = (vec![], set_aside(run).map(|(_, placed)| placed).collect::<Vec<_>>());
    if run.reached < RestorePhase::ScalingDown || v.refused.is_some() {
        return Ok(said);
    }
    for (item, placed) in release::volumes(&run.deed).filter(|(_, placed)| !kept.contains(placed)) {
        let under = v.claims()?.values().any(|claim| claim.volume.as_ref() == Some(&placed.pv));
        let stays = |volume: &Volume| volume.policy == RETAIN;
        if !under && find(v, &run.deed, item, placed)?.is_some_and(stays) {
            let (pvc, pv) = (&item.pvc, &placed.pv);
            said.push(format!("; claim {pvc} was taken away: its volume {pv} stays, with reclaim policy {RETAIN}"));
        }
    }
    Ok(said)
}

/// A volume under no claim: Retained and marked, with the day until which it is kept.
pub fn aside(v: &View, item: &Item, placed: &Placed, volume: &Volume, role: &str, until: Timestamp) -> Restore {
    let own = item.old.as_ref().map_or_else(|| volume::own_policy(v, volume), |old| old.policy.as_str());
    let mut tend = match protect(v, &placed.pv, volume, role, &item.pvc, own) {
        Some(Restore::Protect(tend)) => tend,
        _ => tend(&placed.pv, volume, &volume.policy, volume.marks.clone()),
    };
    tend.marks.deadline = Some(until);
    Restore::Protect(tend)
}

/// Volumes under claims have their own policy and no mark of ours; those set aside stay Retained until their day.
pub fn settle(v: &View, run: &Run, now: Timestamp) -> Holds {
    if run.reached < RestorePhase::ScalingDown {
        return Ok(None);
    }
    let mut batch = give_back(v, run)?;
    let until = now + v.want.restore.undo_window;
    for (item, placed) in set_aside(run) {
        let Some(volume) = find(v, &run.deed, item, placed)?.filter(|volume| volume.marks.deadline.is_none()) else {
            continue;
        };
        let role = if run.goal == Goal::New { volume::OLD } else { volume::NEW };
        batch.push(aside(v, item, placed, volume, role, until));
    }
    Ok(steps(batch))
}

/// The last thing before it is closed.
pub fn unmark(v: &View, _: &Run, _: Timestamp) -> Holds {
    let ours = |open: &crate::plan::noun::Open| open.uid == v.want.uid;
    let Some(lease) = v.lease()?.filter(|lease| lease.open.as_ref().is_some_and(ours)) else { return Ok(None) };
    Ok(steps(vec![Restore::Mark(Box::new(Signs { open: None, ..stage::signs(lease) }))]))
}

/// The mark has been taken off: all was as it should be, and whatever has come since, it only remains to say so. (A
/// rollback may end without ever having had a mark.)
pub fn is_over(v: &View, record: &Record, run: &Run) -> Result<bool, Read> {
    let open = matches!(record.journal, Journal::Open(_));
    let had_one = run.goal == Goal::New || matches!(run.cause, Cause::Undo(_));
    Ok(open && had_one && run.phase == RestorePhase::ScalingUp && unmark(v, run, run.since)?.is_none())
}

/// Something is kept for later: there will be a release.
pub fn keeps(v: &View, run: &Run) -> Result<bool, Read> {
    for (item, placed) in set_aside(run) {
        if find(v, &run.deed, item, placed)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
