//! A restore that is Held because the API server said no goes on by itself once that has passed: it asks first, by reviews
//! and dry runs, and goes on only from where the journal left it.

use jiff::Timestamp;

use super::journal::{Journal, Run};
use super::{Go, Restore, leave_lock, stage, swap, write};
use crate::api::condition::Reason;
use crate::api::restore::{OnFailure, RestorePhase};
use crate::api::shared::Goal;
use crate::plan::flow::{Plan, act};
use crate::plan::noun::{Outcome, Refusal};
use crate::plan::view::{Read, View};

/// What was refused may be allowed later. Who asked for Hold wants nothing to be changed.
pub fn may_pass(v: &View, refusal: &Refusal) -> bool {
    let passes = matches!(refusal.reason, Reason::Forbidden | Reason::QuotaTooSmall);
    passes && !matches!(v.want.restore.on_failure, OnFailure::Hold | OnFailure::Unknown)
}

/// The lock is ours. Goes on; or ends for now; or, where others have changed what it rests on, leaves it for good.
pub fn take_up(v: &View, run: &Run, held: &Refusal, now: Timestamp) -> Plan<Restore> {
    if let Some(refusal) = v.refused.as_ref() {
        return leave_lock(v, Outcome::Failed(refusal.clone()), now);
    }
    let free = swap::taken(v, run)?;
    if !free.is_empty() {
        return act(free, now + super::CALL);
    }
    let phase = match stand(v, run, now)? {
        Ok(phase) => phase,
        Err(why) => {
            let message = format!("it was not taken up again: {why}. Before: {}", held.message);
            return write(v, &Journal::Held(Box::new(run.clone()), Refusal::new(Reason::Foreign, message)), now);
        }
    };
    match barred(v, run)? {
        Some(refusal) => leave_lock(v, Outcome::Failed(refusal), now),
        None => write(v, &Journal::Open(Box::new(run.enter(phase, now))), now),
    }
}

/// From which phase it goes on; or what is not as the journal left it.
fn stand(v: &View, run: &Run, now: Timestamp) -> Result<Result<RestorePhase, String>, Read> {
    let lease = v.lease()?;
    if lease.and_then(|lease| lease.open.as_ref()).is_none_or(|open| open.uid != v.want.uid) {
        return Ok(Err("its mark on the lock is gone".into()));
    }
    if !run.swapped() {
        let claims = v.claims()?;
        let stays =
            |pvc: &String, uid: &String| claims.get(pvc).is_some_and(|claim| claim.uid == *uid && !claim.leaving);
        let mut olds = run.deed.plan.items.iter().filter_map(|item| Some((&item.pvc, &item.old.as_ref()?.claim)));
        let gone = olds.find(|(pvc, uid)| !stays(pvc, uid));
        return Ok(match gone {
            Some((pvc, _)) => Err(format!("claim {pvc} is gone, or it is another one")),
            None => Ok(RestorePhase::ScalingUp),
        });
    }
    match swap::swap(v, run, now)? {
        None => Ok(Ok(RestorePhase::ScalingUp)),
        Some(Go::Fail(refusal)) => Ok(Err(refusal.message)),
        Some(_) if run.goal == Goal::New => Ok(Err("the restored volumes are not under their claims any more".into())),
        Some(_) => Ok(match v.target()? {
            Some(target) if target.replicas > 0 => Err("the StatefulSet was scaled up".into()),
            Some(_) if lease.is_some_and(|lease| lease.fence.is_none()) => Err("the fence is gone".into()),
            _ => Ok(RestorePhase::ScalingDown),
        }),
    }
}

/// What we still may not do: the rights that all steps need, and the claims that are to be made, as dry runs.
fn barred(v: &View, run: &Run) -> Result<Option<Refusal>, Read> {
    if let Some(missing) = v.restore.rights()?.first() {
        return Ok(Some(Refusal::new(Reason::Forbidden, format!("the runner lacks the right to {missing}"))));
    }
    for item in run.deed.plan.items.iter().filter(|item| run.swapped() && run.wanted(item).is_some()) {
        if !v.claims()?.contains_key(&item.pvc)
            && let Some(refusal) = v.restore.trial(&stage::new_claim(v, item, None)?)?
        {
            return Ok(Some(refusal.clone()));
        }
    }
    Ok(None)
}
