//! Protect, fence, stop: nothing can be lost with its claim, nobody scales up, nothing uses the volumes.

use jiff::{SignedDuration, Timestamp};

use super::journal::{Journal, Plan, Run};
use super::sight::Fence;
use super::volume::{self, behind, claims, find, protect as guard};
use super::{Doomed, Go, Holds, Keep, Restore, Scale, Signs, again, finish, report, stage, steps};
use crate::api::condition::Reason;
use crate::api::restore::{STOP_TIMEOUT_MARGIN_SECONDS, STOP_TIMEOUT_MOST_SECONDS, Strategy};
use crate::api::shared::Goal;
use crate::plan::flow::Feed;
use crate::plan::noun::{Pod, Refusal, RestoreWant, Retention, Target};
use crate::plan::view::{Read, View};

/// Between two looks at a fence that rises.
const RISE: SignedDuration = SignedDuration::from_millis(200);
/// The API server knows a new Lease label within a fraction of a second.
const RISEN: SignedDuration = SignedDuration::from_secs(30);

/// Every volume behind every claim of the `StatefulSet`, every new and every old one of the plan is Retained; then
/// no claim goes with a pod or with the `StatefulSet`.
pub fn protect(v: &View, run: &Run, now: Timestamp) -> Holds {
    let plan = &run.deed.plan;
    let (mut batch, all) = (vec![], claims(v, run)?);
    for (pvc, claim) in &all {
        let item = plan.items.iter().find(|item| item.pvc == **pvc);
        if let Some((pv, volume)) = behind(v, pvc, claim)? {
            let (role, policy) = volume::role(v, run, item, pv, volume);
            batch.extend(guard(v, pv, volume, role, pvc, policy));
        }
    }
    for item in &plan.items {
        let old = item.old.iter().map(|old| (volume::OLD, old));
        let new = run.deed.staged.get(&item.pvc).into_iter().map(|new| (volume::NEW, new));
        for (role, placed) in old.chain(new) {
            let policy = item.old.as_ref().map_or(placed.policy.as_str(), |old| old.policy.as_str());
            match find(v, &run.deed, item, placed)? {
                Some(volume)
                    if all.values().any(|claim| claim.volume.as_ref() == Some(&placed.pv))
                        && volume.phase == "Bound" => {}
                Some(volume) => {
                    let own = if policy.is_empty() { volume::own_policy(v, volume) } else { policy };
                    batch.extend(guard(v, &placed.pv, volume, role, &item.pvc, own));
                }
                None => return Ok(Some(Go::Fail(gone(&item.pvc, &placed.pv)))),
            }
        }
    }
    if !batch.is_empty() {
        return Ok(steps(batch));
    }
    let Some(target) = v.target()? else { return Ok(None) };
    if target.retention != Retention::default() {
        return Ok(steps(vec![Restore::Retain(keep(target, Retention::default()))]));
    }
    let by = run.since + stop_timeout(v, run);
    match all.iter().find(|(_, claim)| claim.owned) {
        None => Ok(None),
        Some((pvc, _)) if now >= by => {
            let message = format!("claim {pvc} still has an owner that would take it along");
            Ok(Some(Go::Fail(Refusal::new(Reason::StopTimeout, message))))
        }
        Some(_) => Ok(Some(Go::Wait(vec![Feed::Claims], by))),
    }
}

pub fn gone(pvc: &str, pv: &str) -> Refusal {
    let message = format!("PersistentVolume {pv} of claim {pvc} is gone, or it is another one or another claim's now");
    Refusal::new(Reason::Foreign, message)
}

pub fn keep(target: &Target, retention: Retention) -> Keep {
    Keep { uid: target.uid.clone(), version: target.version.clone(), retention }
}

pub fn stop_timeout(v: &View, run: &Run) -> SignedDuration {
    patience(&v.want.restore, finish::before(run))
}

/// How long the pods may take to stop: by default each its grace period, one after the other or all at once.
pub fn patience(want: &RestoreWant, plan: &Plan) -> SignedDuration {
    let turns = if plan.is_parallel() { 1 } else { i64::from(plan.replicas.max(1)) };
    let default = plan.grace().saturating_mul(turns).saturating_add(STOP_TIMEOUT_MARGIN_SECONDS);
    want.stop_timeout.unwrap_or(SignedDuration::from_secs(default.min(STOP_TIMEOUT_MOST_SECONDS)))
}

/// Nobody but us scales up: the label stands, and a scale-up of our own is refused.
pub fn fence(v: &View, run: &Run, now: Timestamp) -> Holds {
    let (Some(lease), Some(_)) = (v.lease()?, v.target()?) else { return Ok(None) };
    if lease.fence.is_none() {
        let signs = Signs { fence: Some(v.restore.user()?.to_owned()), ..stage::signs(lease) };
        return Ok(steps(vec![Restore::Mark(Box::new(signs))]));
    }
    match v.restore.fence()? {
        (Fence::Up | Fence::Missing, _) => Ok(None),
        (Fence::Rising, at) if now < at + RISE => Ok(Some(Go::Wait(vec![], at + RISE))),
        (Fence::Rising, _) if now < run.since + RISEN => Err(Read::Restore(super::sight::Look::Fence)),
        (Fence::Rising, _) => {
            let message = "the fence policy is installed, but a scale-up is not refused. An API server forgets the \
                           Leases for good when the binding of that policy is deleted (kubernetes/kubernetes issue \
                           130887): restart it, or delete the binding to restore without a fence";
            Ok(Some(Go::Fail(Refusal::new(Reason::PolicyMissing, message))))
        }
    }
}

/// At 0, and nothing uses the volumes any more.
pub fn stop(v: &View, run: &Run, now: Timestamp) -> Holds {
    let target = v.target()?;
    if let Some(target) = target.filter(|target| target.replicas > 0 && v.want.restore.scale_down) {
        if let Some(go) = again::before_stop(v, run, target, now)? {
            return Ok(Some(go));
        }
        if run.down_since.is_none() {
            let down = Journal::Open(Box::new(Run { down_since: Some(now), ..run.clone() }));
            return Ok(steps(vec![Restore::Write(Box::new(report::write(v, &down, now)?))]));
        }
        return Ok(steps(vec![Restore::Scale(Scale {
            uid: target.uid.clone(),
            version: target.version.clone(),
            replicas: 0,
        })]));
    }
    let by = run.since + stop_timeout(v, run);
    if target.is_some_and(|target| !target.observed) {
        let what = format!("the controller has not seen StatefulSet {} at 0", v.want.statefulset);
        return Ok(Some(late(v, run, by, now, &what)));
    }
    // OrderedReady waits for an unready pod for ever; one that is deleted does not come back.
    let stuck = |pod: &&Pod| {
        let its = target.is_some_and(|target| pod.owner.as_ref() == Some(&target.uid));
        its && !pod.leaving && pod.ready_since.is_none()
    };
    let stuck = v.roster()?.iter().filter(|(_, pod)| stuck(pod));
    let doomed: Vec<_> = stuck
        .map(|(name, pod)| Restore::Evict(Doomed { name: name.clone(), uid: pod.uid.clone(), why: "not Ready" }))
        .collect();
    if !doomed.is_empty() && v.want.restore.scale_down {
        return Ok(steps(doomed));
    }
    if let Some((name, pod)) = v.roster()?.iter().find(|(_, pod)| !pod.finished && uses(run, pod)) {
        let alone = target.is_none() && again::orphans(v, &run.deed.plan)?.contains(&name.as_str());
        if alone && run.deed.plan.statefulset.is_some() {
            return Ok(Some(Go::Fail(orphaned(v, name))));
        }
        return Ok(Some(late(v, run, by, now, &format!("pod {name}{} still uses a claim", kept(pod)))));
    }
    if let Some(target) = target.filter(|target| target.pods > 0) {
        let its = v.roster()?.iter().filter(|(_, pod)| pod.owner.as_ref() == Some(&target.uid));
        let names = its.map(|(name, pod)| format!("{name}{}", kept(pod))).collect::<Vec<_>>().join(", ");
        return Ok(Some(late(v, run, by, now, &format!("pods are left ({names})"))));
    }
    if v.want.restore.strategy == Strategy::InPlace || run.goal == Goal::Old {
        let mut volumes =
            run.deed.plan.items.iter().flat_map(|item| item.old.iter().chain(run.deed.staged.get(&item.pvc)));
        let attached = v.restore.attached()?;
        if let Some(placed) = volumes.find(|placed| attached.contains(&placed.pv)) {
            return Ok(Some(late(v, run, by, now, &format!("volume {} is still attached", placed.pv))));
        }
    }
    Ok(None)
}

/// What keeps a pod there that has been told to go.
fn kept(pod: &Pod) -> String {
    let kept = pod.leaving && !pod.finalizers.is_empty();
    if kept { format!(" with finalizers of others: {}", pod.finalizers.join(", ")) } else { String::new() }
}

/// Without the fence's policy a StatefulSet can be deleted at any time.
fn orphaned(v: &View, pod: &str) -> Refusal {
    let (namespace, name) = (&v.want.statefulset_namespace, &v.want.statefulset);
    let message =
        format!("StatefulSet {namespace}/{name} was deleted, and pod {pod} was left running: nobody stops it");
    Refusal::new(Reason::StatefulSetNotFound, message)
}

fn uses(run: &Run, pod: &Pod) -> bool {
    run.deed.plan.items.iter().any(|item| pod.claims.contains(&item.pvc))
}

fn late(v: &View, run: &Run, by: Timestamp, now: Timestamp, what: &str) -> Go {
    if now < by {
        return Go::Wait(vec![Feed::Pods, Feed::Target, Feed::Attached], by);
    }
    let seconds = stop_timeout(v, run).as_secs();
    let message = format!("{what} after {seconds} s (spec.stopTimeoutSeconds)");
    Go::Fail(Refusal::new(Reason::StopTimeout, message))
}

/// The Lease remembers, before the first deletion, that this request was carried out.
pub fn sign(v: &View, _: &Run, now: Timestamp) -> Holds {
    let Some(lease) = v.lease()? else { return Ok(None) };
    let ours = super::signature(v);
    if lease.restored.iter().any(|entry| entry.split(' ').next() == Some(ours.as_str())) {
        return Ok(None);
    }
    let kept = lease.restored.len().saturating_sub(REMEMBERED - 1);
    let entry = format!("{ours} {now:.0}");
    let restored = lease.restored.iter().skip(kept).cloned().chain([entry]).collect();
    Ok(steps(vec![Restore::Mark(Box::new(Signs { restored, ..stage::signs(lease) }))]))
}

/// How many restores the Lease remembers.
const REMEMBERED: usize = 50;
