//! What may have changed while the new volumes were made, judged once more before anything is stopped: whether the
//! StatefulSet is still the one of the plan, its replicas, its claims, and what would keep these from going.

use jiff::Timestamp;

use super::journal::{Journal, Plan, Run};
use super::{Go, Holds, Restore, finish, report, steps};
use crate::api::condition::Reason;
use crate::api::restore::RestorePhase;
use crate::api::shared::Goal;
use crate::plan::choose::{Chosen, split};
use crate::plan::noun::{Refusal, Target};
use crate::plan::preflight;
use crate::plan::view::{Read, View};

/// Before the fence. Once that stands nobody scales up any more, and the stop looks for itself.
pub fn again(v: &View, run: &Run, _: Timestamp) -> Holds {
    if v.lease()?.is_some_and(|lease| lease.fence.is_some()) {
        return Ok(None);
    }
    Ok(changed(v, run)?.map(Go::Fail))
}

/// Before this very StatefulSet is scaled to 0: judged as it is now, and its replicas written down, so that it is scaled
/// back to what it had then. The scale carries its resourceVersion.
pub fn before_stop(v: &View, run: &Run, target: &Target, now: Timestamp) -> Holds {
    if (run.goal, run.phase) == (Goal::New, RestorePhase::ScalingDown)
        && let Some(refusal) = changed(v, run)?
    {
        return Ok(Some(Go::Fail(refusal)));
    }
    if finish::before(run).replicas == target.replicas {
        return Ok(None);
    }
    let mut run = run.clone();
    finish::before_mut(&mut run).replicas = target.replicas;
    Ok(steps(vec![Restore::Write(Box::new(report::write(v, &Journal::Open(Box::new(run)), now)?))]))
}

fn changed(v: &View, run: &Run) -> Result<Option<Refusal>, Read> {
    let plan = &run.deed.plan;
    if let Some(refusal) = replaced(v, plan)? {
        return Ok(Some(refusal));
    }
    for item in &plan.items {
        let (is, was) = (v.claims()?.get(&item.pvc).map(|claim| &claim.uid), item.old.as_ref().map(|old| &old.claim));
        if is.is_some() && is != was {
            let message = format!("claim {} was made by somebody else while the new volumes were made", item.pvc);
            return Ok(Some(Refusal::new(Reason::Foreign, message)));
        }
    }
    let findings = preflight::again(v, &chosen(v, plan), plan)?;
    Ok(preflight::refusal(&findings, "it has changed while the new volumes were made"))
}

/// The StatefulSet is not the one of the plan any more.
fn replaced(v: &View, plan: &Plan) -> Result<Option<Refusal>, Read> {
    let what = match (plan.uid(), v.target()?) {
        (Some(_), None) if orphans(v, plan)?.is_empty() => "was deleted".to_owned(),
        (Some(_), None) => {
            format!("was deleted, and its pods were left running ({})", orphans(v, plan)?.join(", "))
        }
        (Some(was), Some(target)) if was != target.uid => "was deleted and created again".to_owned(),
        (None, Some(_)) if plan.statefulset.is_none() => "was created".to_owned(),
        _ => return Ok(None),
    };
    let (namespace, name) = (&v.want.statefulset_namespace, &v.want.statefulset);
    let message = format!("StatefulSet {namespace}/{name} {what} while the new volumes were made: restore once more");
    Ok(Some(Refusal::new(Reason::StatefulSetNotFound, message)))
}

/// Pods that use claims of the plan, belong to nobody and stay: whom nobody stops.
pub fn orphans<'a>(v: &'a View, plan: &Plan) -> Result<Vec<&'a str>, Read> {
    let uses = |claims: &[String]| plan.items.iter().any(|item| claims.contains(&item.pvc));
    let all = v.roster()?.iter();
    let orphans = all.filter(|(_, pod)| !pod.finished && !pod.leaving && pod.owner.is_none() && uses(&pod.claims));
    Ok(orphans.map(|(name, _)| name.as_str()).collect())
}

/// What the plan restores.
fn chosen(v: &View, plan: &Plan) -> Chosen {
    let key = |pvc: &String| split(pvc, &v.want.statefulset);
    let items = plan.items.iter().filter_map(|item| Some((key(&item.pvc)?, item.snapshot.clone()?)));
    Chosen { run: plan.run, claims: items.collect(), partial: !v.want.restore.snapshot_names.is_empty() }
}
