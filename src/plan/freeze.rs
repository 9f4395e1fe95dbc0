//! The freeze: pod after pod is frozen, every claim is cut at once, every pod is thawed, whatever went before.
//!
//! Between the first pre hook and the last post hook nothing is read, because nothing is asked for that is unknown;
//! a lost POST costs one LIST. After the last thaw the Lease and the pods are read once more: only if all of them
//! are still what they were was it one freeze.

use jiff::{SignedDuration, Timestamp};

use super::after;
use super::backup::{Backup, CALL, LASTING, NewSnapshot, leave, one, write};
use super::blame;
use super::flow::{Exit, Feed, Lost, Plan, act, end, wait};
use super::hook::{self, Exec, HookSpec, Owed, Place, Which};
use super::inherit;
use super::journal::{Cut, Freeze, Journal, Void};
use super::name;
use super::noun::{Open, Refusal, Snap};
use super::resolve::{Covered, resolve};
use super::roll::Entry;
use super::view::{Read, View};
use crate::api::condition::Reason;
use crate::api::shared::Consistency;

/// Freezes that may be interrupted before the run gives up: each one costs the application a pause.
const FREEZES: usize = 3;

/// How much later than the hook itself its effect is given up: it has the last word of what the hook said.
const HEARD: SignedDuration = SignedDuration::from_secs(2);

/// From the intent to the record of what came of it.
pub fn freeze(v: &View, f: &Freeze, now: Timestamp) -> Plan<Backup> {
    if v.is_usurped()? && !still_open(v, f)? {
        return end(Exit::usurped());
    }
    if !own(v, f) {
        v.lease()?; // what its mark says of the hooks decides what may be run
    }
    match void(v, f, now)? {
        None if !is_cut(v, f)? => take(v, f, now),
        void => thaw(v, f, void, now),
    }
}

fn own(v: &View, f: &Freeze) -> bool {
    f.holder == v.want.me
}

/// Another holds the lock; but while the open mark names our run nobody else has thawed, so we do.
pub fn still_open(v: &View, f: &Freeze) -> Result<bool, Read> {
    let open = v.lease()?.and_then(|lease| lease.open.as_ref());
    Ok(open.is_some_and(|open| open.is_of(&v.want) && open.run == f.id.to_string()))
}

/// Mark, freeze, cut.
fn take(v: &View, f: &Freeze, now: Timestamp) -> Plan<Backup> {
    let by = f.since + v.want.backup.max_freeze;
    if !f.pods.is_empty() && !v.marked(&f.id.to_string()) {
        v.lease()?; // a mark whose reply was lost is looked for first: nothing is frozen yet
        return one(Backup::Mark(Some(Box::new(inherit::mark(v, f)))), now);
    }
    if let Some((exec, hook)) =
        execs(v, f, Which::Pre).find(|(exec, _)| v.hooks.of(f.id, exec.place.ordinal, Which::Pre).is_empty())
    {
        let until = by.min(now + hook.timeout);
        return act([Backup::Pre(Box::new(Exec { until, ..exec }))], until + HEARD);
    }
    let Ok(covered) = resolve(v)? else { return thaw(v, f, Some(Void::Interrupted), now) };
    let made: Vec<_> = made(v, f)?.map(|(_, snap)| &snap.claim).collect();
    let missing: Vec<_> = covered.iter().filter(|claim| !made.contains(&&claim.key)).collect();
    if !missing.is_empty() {
        let new = missing.into_iter().map(|claim| snapshot(v, f, claim)).collect::<Result<Vec<_>, _>>()?;
        return act(new, by.min(now + CALL));
    }
    let uncut: Vec<_> = uncut(v, f)?.collect();
    let next = if f.pods.is_empty() {
        match after::complaint(v, (f.id, f.since), uncut.iter().copied(), after::cut_by(v, f)?, now)? {
            Ok(write) => return one(write, now),
            Err(next) => next,
        }
    } else {
        let failing = uncut.iter().filter_map(|(_, snap)| snap.error.as_ref().map(|(_, since)| *since + LASTING));
        failing.min().map_or(by, |at| by.min(at))
    };
    let pods = (!f.pods.is_empty()).then_some(Feed::Pods);
    wait(after::cuts(uncut.into_iter().map(|(_, snap)| snap)).chain(pods), next)
}

fn snapshot(v: &View, f: &Freeze, claim: &Covered) -> Result<Backup, Read> {
    let target = v.target()?;
    let name = name::snapshot(&v.want.name, &claim.key, f.id);
    Ok(Backup::Snapshot(Box::new(NewSnapshot {
        token: name::token(&v.want.secret, &name),
        name,
        run: f.id,
        claim: claim.key.clone(),
        pvc: claim.pvc.to_owned(),
        class: claim.class.name.clone(),
        epoch: f.epoch,
        size: f.size,
        replicas: target.map_or(0, |target| target.replicas),
        template_hash: target.map(|target| target.hash.clone()).unwrap_or_default(),
        manifest: claim.claim.manifest.clone(),
    })))
}

/// Every pod that may be frozen is thawed; one write says what came of it.
fn thaw(v: &View, f: &Freeze, void: Option<Void>, now: Timestamp) -> Plan<Backup> {
    let mut later: Option<Timestamp> = None;
    let mut unproven: Option<Exec> = None;
    let left = if own(v, f) { None } else { inherit::left_alone(v, f)? };
    for (exec, hook) in execs(v, f, Which::Post) {
        if own(v, f) || is_owed(v, f, &exec.place)? {
            let hurry = v.stop.is_some();
            match v.hooks.owed(f.id, exec.place.ordinal, pre(v, f), own(v, f), hurry, now) {
                Owed::Now => {
                    let until = now + hook.timeout;
                    return act([Backup::Post(Box::new(Exec { until, ..exec }))], until + HEARD);
                }
                Owed::At(at) => later = Some(later.map_or(at, |later| later.min(at))),
                Owed::Unproven => unproven = unproven.or(Some(exec)),
                Owed::Nothing => {}
            }
        }
    }
    if let Some(until) = later {
        let given_up = f.pods.iter().map(|place| Feed::Hook(f.id, place.ordinal));
        return wait(given_up.chain([Feed::Pods]), until);
    }
    if let (Some(stop), false) = (v.stop, settled(v, f)) {
        return leave(v, stop, now); // the journal keeps the freeze open: the next process thaws once more
    }
    if v.is_usurped()? || v.mine()?.is_none() {
        return end(Exit::usurped());
    }
    let void = match (unproven, void) {
        _ if let Some(left) = left => Some(Void::Failed(left)),
        // Else it is the post hook that does not end, and that is said already.
        (Some(exec), void) if void.is_none() || is_at_large(v, f, &exec.place) => {
            Some(Void::Failed(thaw_unproven(v, f, &exec)))
        }
        (_, None) if v.mine()? != Some(f.epoch) || !is_proved(v, f)? => Some(interrupted(v, f)),
        (_, void) => void,
    };
    if !f.pods.is_empty() && v.lease()?.is_some_and(|lease| lease.open.is_some()) {
        return one(Backup::Mark(None), now);
    }
    let journal = if let Some(why) = void {
        Journal::Void(f.id, f.epoch, why)
    } else {
        let both = inherit::hooks(v, f).is_some_and(|hooks| hooks.pre.is_some() && hooks.post.is_some());
        let frozen = both && !f.pods.is_empty();
        let consistency = if frozen { Consistency::Frozen } else { Consistency::CrashPerVolume };
        let mut entry = Entry::of(made(v, f)?.map(|(_, snap)| snap).collect::<Vec<_>>());
        entry.frozen = frozen;
        Journal::Cut(Cut { id: f.id, epoch: f.epoch, since: now, size: f.size, consistency, entry: Some(entry) })
    };
    one(write(v, &journal, now)?, now)
}

/// What another process froze is there still, and is a pod of the `StatefulSet`.
fn is_owed(v: &View, f: &Freeze, place: &Place) -> Result<bool, Read> {
    Ok(is_same(v.pod(&place.pod)?, frozen(f, place.ordinal)) && inherit::stranger(v, place)?.is_none())
}

fn pre<'a>(v: &'a View, f: &'a Freeze) -> Option<&'a HookSpec> {
    inherit::hooks(v, f)?.pre.as_ref()
}

/// Of no pod is a hook at large: given up, its end not witnessed.
fn settled(v: &View, f: &Freeze) -> bool {
    let last = |place: &Place, which| v.hooks.of(f.id, place.ordinal, which).last();
    let thawing = |place: &Place| last(place, Which::Post).is_some_and(|tried| tried.end.is_at_large());
    !f.pods.iter().any(|place| is_at_large(v, f, place) || thawing(place))
}

/// The pod's pre hook, if there is one, may still be at work.
fn is_at_large(v: &View, f: &Freeze, place: &Place) -> bool {
    let last = v.hooks.of(f.id, place.ordinal, Which::Pre).last();
    pre(v, f).is_some() && last.map_or(!own(v, f), |tried| tried.end.is_at_large())
}

/// The pre hook's end did not reach us: worth another freeze, unless that is the rule.
fn cut_off(v: &View, f: &Freeze, exec: &Exec) -> Void {
    let gone = |tried: &hook::Tried| tried.end == hook::End::Gone;
    if v.hooks.freezes() < FREEZES || v.hooks.of(f.id, exec.place.ordinal, Which::Pre).iter().any(gone) {
        return interrupted(v, f);
    }
    let Place { pod, container, .. } = &exec.place;
    let what = format!("pre hook {} in container {container} of pod {pod}", blame::command(&exec.argv));
    let message = format!("the end of the {what} could not be learnt, in {FREEZES} freezes in a row");
    Void::Failed(Refusal::new(Reason::HookFailed, message))
}

/// What froze is not there any more, so nothing is frozen; but it was no freeze either.
fn interrupted(v: &View, f: &Freeze) -> Void {
    let changed = f.pods.iter().find(|place| !v.proof(&place.pod).is_ok_and(|pod| is_same(pod, Some(place))));
    match changed {
        Some(place) if v.hooks.freezes() >= FREEZES => Void::Failed(Refusal::new(
            Reason::PodNotRunning,
            format!(
                "container {} of pod {} was restarted or replaced during the freeze, {FREEZES} times in a row: does its \
                 liveness probe outlast the freeze?",
                place.container, place.pod
            ),
        )),
        _ => Void::Interrupted,
    }
}

fn is_proved(v: &View, f: &Freeze) -> Result<bool, Read> {
    for place in &f.pods {
        if !is_same(v.proof(&place.pod)?, Some(place)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The very container, neither restarted nor replaced.
pub fn is_same(pod: Option<&super::noun::Pod>, place: Option<&Place>) -> bool {
    let Some((pod, place)) = pod.zip(place) else { return false };
    let same = |container: &super::noun::Container| {
        container.name == place.container
            && container.id.as_ref() == Some(&place.container_id)
            && container.restarts == place.restarts
    };
    pod.uid == place.uid && pod.containers.iter().any(same)
}

/// Where the ordinal's pre hook ran.
fn frozen(f: &Freeze, ordinal: u32) -> Option<&Place> {
    f.pods.iter().find(|place| place.ordinal == ordinal)
}

/// The hook on each pod of the freeze, in ordinal order.
fn execs<'a>(v: &'a View, f: &'a Freeze, which: Which) -> impl Iterator<Item = (Exec, &'a HookSpec)> {
    let hook = inherit::hooks(v, f).and_then(|hooks| hooks.get(which));
    let place = move |ordinal| {
        let mut of = f.pods.iter().filter(|place| place.ordinal == ordinal);
        match which {
            Which::Pre => of.next(),
            Which::Post => v.hooks.strayed(f.id, ordinal).or_else(|| of.next_back()),
        }
    };
    let ordinals: std::collections::BTreeSet<u32> = f.pods.iter().map(|place| place.ordinal).collect();
    let exec = move |place: &Place, hook: &HookSpec| {
        let (place, argv) = (place.clone(), hook.argv.clone());
        Exec { run: f.id, which, place, argv, until: Timestamp::MIN }
    };
    ordinals.into_iter().filter_map(move |ordinal| Some((exec(place(ordinal)?, hook?), hook?)))
}

/// Why this freeze cannot become a run; `None` while it can. Every cause stays true once it is.
fn void(v: &View, f: &Freeze, now: Timestamp) -> Result<Option<Void>, Read> {
    let failed = |reason, message: String| Ok(Some(Void::Failed(Refusal { reason, message })));
    if let Some(refusal) = &v.refused {
        return Ok(Some(Void::Failed(refusal.clone())));
    }
    if let Some(refusal) = failed_hook(v, f) {
        return Ok(Some(Void::Failed(refusal)));
    }
    if !own(v, f) {
        return super::backup::inherited(v).map(Some);
    }
    let lost = execs(v, f, Which::Pre).find(|(exec, _)| {
        let tried = v.hooks.of(f.id, exec.place.ordinal, Which::Pre).first();
        tried.is_some_and(|tried| matches!(tried.end, hook::End::Gone | hook::End::Lost(Lost::Reply | Lost::Stopped)))
    });
    if let Some(name) = v.foreign.get(&f.id).filter(|_| v.stop.is_none()) {
        return Ok(Some(squatted(v, name)));
    }
    if v.stop.is_some() || v.prospect.balked(f.id) {
        return Ok(Some(Void::Interrupted));
    }
    if let Some((exec, _)) = lost {
        return Ok(Some(cut_off(v, f, &exec)));
    }
    for place in &f.pods {
        if !is_same(v.pod(&place.pod)?, Some(place)) {
            return Ok(Some(Void::Interrupted));
        }
    }
    let (by, heals) = (after::cut_by(v, f)?, f.pods.is_empty());
    let lasting = |snap: &Snap| {
        let error = snap.error.as_ref();
        error.filter(|(_, since)| now >= *since + LASTING && !heals || now >= by).cloned()
    };
    if let Some((name, error)) = uncut(v, f)?.find_map(|(name, snap)| Some((name, lasting(snap)?.0))) {
        return failed(Reason::SnapshotFailed, format!("VolumeSnapshot {name} was not taken: {error}"));
    }
    if now < by {
        return Ok(None);
    }
    let behind = uncut(v, f)?.next().map(|(name, _)| format!("VolumeSnapshot {name}"));
    Ok(Some(Void::Failed(match behind {
        Some(behind) => too_long(v, &behind, "was not cut"),
        None if is_cut(v, f)? => too_long(v, "the post hooks", "had not ended"),
        None => too_long(v, "the snapshots", "were not made"),
    })))
}

/// The names of this run are taken: another id is tried, but not without end.
fn squatted(v: &View, name: &str) -> Void {
    if v.foreign.len() < FREEZES {
        return Void::Interrupted;
    }
    let message = format!(
        "VolumeSnapshot {}/{name} was there before this run made it, and so it was with {FREEZES} ids in a row: somebody \
         makes snapshots under the names of runs to come. Find out who may create volumesnapshots there, and delete \
         those that are no backup",
        v.want.statefulset_namespace
    );
    Void::Failed(Refusal::new(Reason::Foreign, message))
}

/// What this very process has made in this freeze. What somebody else has put under its names, or on top, is none of it.
fn made<'a>(v: &'a View, f: &Freeze) -> Result<impl Iterator<Item = (&'a String, &'a Snap)>, Read> {
    let epoch = f.epoch;
    let is_ours = move |(name, snap): &(&String, &Snap)| {
        snap.epoch == epoch && snap.token.as_ref() == Some(&name::token(&v.want.secret, name))
    };
    Ok(v.run(f.id)?.filter(is_ours))
}

fn too_long(v: &View, who: &str, what: &str) -> Refusal {
    let seconds = v.want.backup.max_freeze.as_secs();
    Refusal::new(Reason::FreezeTooLong, format!("{who} {what} within spec.maxFreezeSeconds ({seconds} s)"))
}

/// The first hook of the freeze that said no.
fn failed_hook(v: &View, f: &Freeze) -> Option<Refusal> {
    let both = execs(v, f, Which::Pre).chain(execs(v, f, Which::Post));
    let mut refusals = both.filter_map(|(exec, hook)| {
        let tried = v.hooks.of(f.id, exec.place.ordinal, exec.which);
        // A thaw that got no answer is tried again; only what it said in the end counts.
        let heard = if exec.which == Which::Pre { tried.first() } else { tried.last() };
        let heard = heard?;
        if heard.end.is_late() && exec.which == Which::Pre && heard.when.ended >= f.since + v.want.backup.max_freeze {
            return Some(too_long(v, &format!("the pre hook of pod {}", exec.place.pod), "had not ended"));
        }
        blame::refusal(&exec, &heard.end, hook.timeout, v.want.backup.quiet)
    });
    refusals.next()
}

fn thaw_unproven(v: &View, f: &Freeze, exec: &Exec) -> Refusal {
    let Place { pod, container, .. } = &exec.place;
    let argv = blame::command(pre(v, f).map_or(&exec.argv, |pre| &pre.argv));
    let message = format!(
        "the pre hook {argv} in container {container} of pod {pod} may still be at work and freeze it after the thaw: \
         look at the container, then run {} in it",
        blame::command(&exec.argv)
    );
    Refusal::new(Reason::ThawUnproven, message)
}

fn uncut<'a>(v: &'a View, f: &Freeze) -> Result<impl Iterator<Item = (&'a String, &'a Snap)>, Read> {
    let late = late(v)?;
    Ok(made(v, f)?.filter(move |(_, snap)| v.cut(snap).is_none() || (late.contains(&snap.claim) && !snap.ready)))
}

/// The claims whose class says that its driver reports before it cuts.
fn late(v: &View) -> Result<Vec<name::ClaimKey>, Read> {
    let covered = resolve(v)?.unwrap_or_default();
    Ok(covered.into_iter().filter(|claim| claim.class.thaw_at_ready).map(|claim| claim.key).collect())
}

fn is_cut(v: &View, f: &Freeze) -> Result<bool, Read> {
    let pres = execs(v, f, Which::Pre).all(|(exec, _)| !v.hooks.of(f.id, exec.place.ordinal, Which::Pre).is_empty());
    Ok(pres && made(v, f)?.count() >= f.size && uncut(v, f)?.next().is_none())
}

/// A freeze that ended without any hook of ours: nobody waits for its end.
pub fn quiet_until(v: &View) -> Option<Timestamp> {
    Some(v.hooks.quiet_from()? + v.want.backup.hooks.longest().max(v.hooks.longest())?)
}

/// The lock that another object's open freeze bars.
pub fn barred(v: &View, open: &Open) -> Refusal {
    let message = format!(
        "{} {}/{} has left run {} open on StatefulSet {}/{}; pods that may be frozen: {}. Only its own run may take \
         the lock: start it again, or thaw the pods by hand and remove the annotation backup.sts-backup.io/open from \
         Lease {}",
        open.kind,
        open.namespace,
        open.name,
        open.run,
        v.want.statefulset_namespace,
        v.want.statefulset,
        open.pods.join(", "),
        name::lease(&v.want.statefulset),
    );
    Refusal::new(Reason::LockedByOpenRun, message)
}
