//! What makes a freeze void, and what that is worth: another one, as long as the run has not had too many, or the end of
//! the run.

use jiff::Timestamp;

use super::{execs, is_at_large, is_cut, is_same, own, place, pre, uncut};
use crate::api::condition::Reason;
use crate::plan::after;
use crate::plan::backup::{LASTING, inherited};
use crate::plan::blame;
use crate::plan::flow::Lost;
use crate::plan::hook::{End, Exec, Place, Which};
use crate::plan::journal::{FREEZES, Freeze, Void};
use crate::plan::noun::{Pod, Refusal, Snap, Stop};
use crate::plan::view::{Read, View};

/// Why a freeze is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Another one may be worth something.
    Again(Refusal),
    /// No other would be.
    Final(Refusal),
}

impl Cause {
    /// Whatever it was: the last freeze that a run may have ends it.
    pub fn counted(self, f: &Freeze) -> Void {
        match self {
            Cause::Final(refusal) => Void::Failed(refusal),
            Cause::Again(refusal) if f.void_before.saturating_add(1) < FREEZES => Void::Interrupted(refusal.message),
            Cause::Again(Refusal { reason, message }) => {
                let message = format!("{message} (the third try of this run that came to nothing: no other is made)");
                Void::Failed(Refusal { reason, message })
            }
        }
    }
}

/// That something may be frozen still is said already.
pub fn is_said(cause: Option<&Cause>) -> bool {
    matches!(cause, Some(Cause::Final(refusal)) if refusal.reason == Reason::ThawFailed)
}

/// Why this freeze cannot become a run; `None` while it can. Every cause stays true once it is.
pub fn void(v: &View, f: &Freeze, now: Timestamp) -> Result<Option<Cause>, Read> {
    let refusal = v.refused.clone().or_else(|| failed_hook(v, f, now));
    if let Some(refusal) = refusal {
        return Ok(Some(Cause::Final(refusal)));
    }
    if !own(v, f) {
        return inherited(v).map(Some);
    }
    let again = v.foreign.get(&f.id).filter(|_| v.stop.is_none()).map(|name| squatted(v, name));
    let denied = || v.prospect.balked(f.id).cloned();
    let again = again.or_else(|| v.stop.map(stopped)).or_else(denied).or_else(|| cut_off(v, f));
    if let Some(refusal) = again {
        return Ok(Some(Cause::Again(refusal)));
    }
    for place in &f.pods {
        let pod = v.pod(&place.pod)?;
        if !is_same(pod, Some(place)) {
            return Ok(Some(Cause::Again(changed(pod, place))));
        }
    }
    let (by, heals) = (after::cut_by(v, f)?, f.pods.is_empty());
    let lasting = |snap: &Snap| {
        let error = snap.error.as_ref();
        error.filter(|(_, since)| now >= *since + LASTING && !heals || now >= by).cloned()
    };
    if let Some((name, error)) = uncut(v, f)?.find_map(|(name, snap)| Some((name, lasting(snap)?.0))) {
        let message = format!("VolumeSnapshot {name} was not taken: {error}");
        return Ok(Some(Cause::Final(Refusal::new(Reason::SnapshotFailed, message))));
    }
    if now < by {
        return Ok(None);
    }
    let behind = uncut(v, f)?.next().map(|(name, _)| format!("VolumeSnapshot {name}"));
    Ok(Some(Cause::Final(match behind {
        Some(behind) => too_long(v, &behind, "was not cut"),
        None if is_cut(v, f)? => too_long(v, "the post hooks", "had not ended"),
        None => too_long(v, "the snapshots", "were not made"),
    })))
}

/// The names of this run are taken.
fn squatted(v: &View, name: &str) -> Refusal {
    let message = format!(
        "VolumeSnapshot {}/{name} was there before this run made it: somebody makes snapshots under the names of runs to \
         come. Find out who may create volumesnapshots there, and delete those that are no backup",
        v.want.statefulset_namespace
    );
    Refusal::new(Reason::Foreign, message)
}

fn stopped(stop: Stop) -> Refusal {
    match stop {
        Stop::Sigterm => Refusal::new(Reason::JobLost, "its process was told to stop before all of it was cut"),
        Stop::CutOff => Refusal::new(Reason::JobLost, "the API server was away for longer than the lock lasts"),
        Stop::LeaseLost => lock_lost(),
    }
}

fn lock_lost() -> Refusal {
    Refusal::new(Reason::Superseded, "the lock was not held from the first request of the freeze to the last")
}

/// A pre hook's end did not reach us, or it found another container than the one that was meant.
fn cut_off(v: &View, f: &Freeze) -> Option<Refusal> {
    execs(v, f, Which::Pre).find_map(|(exec, _)| {
        let Place { ordinal, pod, container, .. } = &exec.place;
        match v.hooks.of(f.id, *ordinal, Which::Pre).first()?.end {
            End::Gone => {
                let message = format!(
                    "container {container} of pod {pod} was restarted or replaced before its pre hook began (does \
                     its liveness probe outlast the freeze?)"
                );
                Some(Refusal::new(Reason::PodNotRunning, message))
            }
            End::Lost(Lost::Reply | Lost::Stopped) => {
                let message = format!("the end of the {} could not be learnt", blame::what(&exec));
                Some(Refusal::new(Reason::HookFailed, message))
            }
            _ => None,
        }
    })
}

/// What froze is not there any more, so nothing is frozen; but it was no freeze either.
fn changed(pod: Option<&Pod>, place: &Place) -> Refusal {
    let (name, container) = (&place.pod, &place.container);
    let message = match pod.filter(|pod| pod.uid == place.uid) {
        None => format!("pod {name} was deleted or replaced in the freeze (by a rollout, or an eviction?)"),
        Some(_) => format!(
            "container {container} of pod {name} was restarted in the freeze (does its liveness probe outlast the freeze?)"
        ),
    };
    Refusal::new(Reason::PodNotRunning, message)
}

/// After the last thaw: which container is not the one that was frozen; else it is the lock.
pub fn interrupted(v: &View, f: &Freeze) -> Refusal {
    let other = |place: &Place| {
        let pod = v.proof(&place.pod).ok()?;
        (!is_same(pod, Some(place))).then(|| changed(pod, place))
    };
    f.pods.iter().find_map(other).unwrap_or_else(lock_lost)
}

/// The first hook of the freeze that said no.
fn failed_hook(v: &View, f: &Freeze, now: Timestamp) -> Option<Refusal> {
    let both = execs(v, f, Which::Pre).chain(execs(v, f, Which::Post));
    let mut refusals = both.filter_map(|(exec, hook)| {
        let by = f.since + v.want.backup.max_freeze;
        let tried = v.hooks.of(f.id, exec.place.ordinal, exec.which);
        let who = || format!("the pre hook of pod {}", exec.place.pod);
        if exec.which == Which::Pre
            && let Some(refused) = v.hooks.refused(f.id, exec.place.ordinal)
        {
            // Where something else ends the freeze before, it is not asked for again, and has not failed.
            let over = |at: Timestamp| refused.due().min(now) >= at;
            let why = || blame::never_started(&exec, &refused.why, hook.timeout);
            return match () {
                () if over(refused.since + hook.timeout) => Some(why()),
                () if over(by) => {
                    Some(too_long(v, &who(), &format!("was not started ({})", blame::reason(&refused.why))))
                }
                () => None,
            };
        }
        // A thaw that got no answer is tried again; only what it said in the end counts.
        let heard = if exec.which == Which::Pre { tried.first() } else { tried.last() };
        let heard = heard?;
        if heard.end.is_late() && exec.which == Which::Pre && heard.when.ended >= by {
            return Some(too_long(v, &who(), "had not ended"));
        }
        blame::refusal(&exec, &heard.end, hook.timeout, v.want.backup.quiet)
    });
    refusals.next()
}

/// Why nobody knows whether the pod is thawed, after all the time that it was tried.
pub fn thaw_unproven(v: &View, f: &Freeze, exec: &Exec) -> Refusal {
    let Place { pod, container, ordinal, .. } = &exec.place;
    let by_hand = blame::command(&exec.argv);
    let frozen = place::frozen(v, f, *ordinal).map_or(container, |frozen| &frozen.container);
    let gone = v.hooks.of(f.id, *ordinal, Which::Post).last().is_some_and(|tried| tried.end == End::Gone);
    let message = if is_at_large(v, f, &exec.place) {
        let argv = blame::command(pre(v, f).map_or(&exec.argv, |pre| &pre.argv));
        format!(
            "the pre hook {argv} in container {frozen} of pod {pod} may still be at work and freeze it after the thaw: look \
             at the container, then run {by_hand} in it"
        )
    } else if gone {
        format!(
            "container {container} of pod {pod}, in which the post hook runs, was restarted and did not come back in time: \
             container {frozen} may be frozen still; run {by_hand} in container {container} once it runs"
        )
    } else {
        format!(
            "the {} was asked for again and again and its end could not be learnt: container {frozen} may be frozen still; \
             look at it, then run {by_hand} in container {container}",
            blame::what(exec)
        )
    };
    Refusal::new(Reason::ThawUnproven, message)
}

fn too_long(v: &View, who: &str, what: &str) -> Refusal {
    let seconds = v.want.backup.max_freeze.as_secs();
    Refusal::new(Reason::FreezeTooLong, format!("{who} {what} within spec.maxFreezeSeconds ({seconds} s)"))
}
