//! The freeze: pod after pod is frozen, every claim is cut at once, every pod is thawed, whatever went before.
//!
//! Between the first pre hook and the last post hook nothing is read, because nothing is asked for that is unknown;
//! a lost POST costs one LIST. After the last thaw the Lease and the pods are read once more: only if all of them
//! are still what they were was it one freeze.

mod place;
mod void;

use jiff::{SignedDuration, Timestamp};

pub use self::void::Cause;
use self::void::{interrupted, thaw_unproven, void};
use super::after;
use super::backup::{Backup, CALL, LASTING, NewSnapshot, leave, one, write};
use super::blame;
use super::flow::{Exit, Feed, Plan, act, end, wait};
use super::hook::{Debt, End, Exec, HookSpec, Owed, Place, UNPROVEN, Which};
use super::inherit;
use super::journal::{Cut, Freeze, Journal};
use super::name;
use super::noun::{Open, Refusal, Snap};
use super::report;
use super::resolve::{Covered, resolve};
use super::restore;
use super::roll::Entry;
use super::view::{Read, View};
use crate::api::condition::Reason;
use crate::api::shared::Consistency;

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
        let refused = v.hooks.refused(f.id, exec.place.ordinal);
        if let Some(refused) = refused.filter(|refused| now < refused.due()) {
            return wait([Feed::Pods], refused.due().min(refused.since + hook.timeout).min(by));
        }
        let until = by.min(now + hook.timeout);
        return act([Backup::Pre(Box::new(Exec { until, ..exec }))], until + HEARD);
    }
    let covered = match resolve(v)? {
        Ok(covered) => covered,
        Err(refusal) => return thaw(v, f, Some(Cause::Again(refusal)), now),
    };
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
fn thaw(v: &View, f: &Freeze, void: Option<Cause>, now: Timestamp) -> Plan<Backup> {
    let mut later: Option<Timestamp> = None;
    let mut unproven: Option<Exec> = None;
    let left = if own(v, f) { None } else { inherit::left_alone(v, f)? };
    for (exec, hook) in execs(v, f, Which::Post) {
        if own(v, f) || is_owed(v, f, &exec.place)? {
            let elsewhere = place::is_elsewhere(v, f, exec.place.ordinal)?;
            let (pre, hurry, time) = (pre(v, f), v.stop.is_some(), hook.timeout);
            let debt = Debt { pre, own: own(v, f), hurry, time, elsewhere };
            match v.hooks.owed(f.id, exec.place.ordinal, debt, now) {
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
        if let Some(write) = thaw_fails(v, f, now)? {
            return one(write, now);
        }
        let given_up = f.pods.iter().map(|place| Feed::Hook(f.id, place.ordinal));
        return wait(given_up.chain([Feed::Pods]), until);
    }
    if let Some(stop) = v.stop
        && !settled(v, f)?
    {
        return leave(v, stop, now); // the journal keeps the freeze open: the next process thaws once more
    }
    if v.is_usurped()? || v.mine()?.is_none() {
        return end(Exit::usurped());
    }
    let void = match (unproven, void) {
        _ if let Some(left) = left => Some(Cause::Final(left)),
        (Some(exec), void) if !void::is_said(void.as_ref()) || is_at_large(v, f, &exec.place) => {
            Some(Cause::Final(thaw_unproven(v, f, &exec)))
        }
        (_, None) if v.mine()? != Some(f.epoch) || !is_proved(v, f)? => Some(Cause::Again(interrupted(v, f))),
        (_, void) => void,
    };
    if !f.pods.is_empty() && v.lease()?.is_some_and(|lease| lease.open.is_some()) {
        return one(Backup::Mark(None), now);
    }
    let journal = if let Some(why) = void {
        f.void(why.counted(f), now)
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

/// Says in status that a pod stays frozen because its post hook fails, once, of the first such pod. None: it is said, none
/// fails, or there is no time for it.
fn thaw_fails(v: &View, f: &Freeze, now: Timestamp) -> Result<Option<Backup>, Read> {
    if !own(v, f) || v.stop.is_some() || v.refused.is_some() {
        return Ok(None);
    }
    let told = format!("Run {}: {} ", f.id, Which::Post.name());
    if v.record()?.status.message.as_ref().is_some_and(|message| message.starts_with(&told)) {
        return Ok(None);
    }
    let why = execs(v, f, Which::Post).find_map(|(exec, hook)| {
        let end = &v.hooks.of(f.id, exec.place.ordinal, Which::Post).last()?.end;
        let refusal = blame::refusal(&exec, end, hook.timeout, v.want.backup.quiet)?;
        matches!(end, End::NotStarted(_)).then_some(refusal.message)
    });
    let Some(why) = why else { return Ok(None) };
    let message = format!(
        "Run {}: {why}. The pod may be frozen until it is: it is tried again for {} minutes",
        f.id,
        UNPROVEN.as_mins()
    );
    Ok(Some(Backup::Write(Box::new(report::complains(v, message, now)?))))
}

/// What another process froze is there still, and is a pod of the `StatefulSet`.
fn is_owed(v: &View, f: &Freeze, place: &Place) -> Result<bool, Read> {
    let Some(frozen) = place::frozen(v, f, place.ordinal) else { return Ok(false) };
    Ok(is_same(v.pod(&frozen.pod)?, Some(frozen))
        && inherit::stranger(v, frozen)?.is_none()
        && inherit::stranger(v, place)?.is_none())
}

fn pre<'a>(v: &'a View, f: &'a Freeze) -> Option<&'a HookSpec> {
    inherit::hooks(v, f)?.pre.as_ref()
}

/// Of no pod is a hook at large (given up, its end not witnessed), and none is left unthawed.
fn settled(v: &View, f: &Freeze) -> Result<bool, Read> {
    for place in &f.pods {
        let unthawed = match v.hooks.of(f.id, place.ordinal, Which::Post).last().map(|tried| &tried.end) {
            None | Some(End::Exit(..)) => false,
            Some(End::Gone) => place::is_elsewhere(v, f, place.ordinal)?,
            Some(End::NotStarted(_) | End::Refused(_) | End::Lost(_) | End::Late(_)) => true,
        };
        if unthawed || is_at_large(v, f, place) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The pod's pre hook, if there is one, may still be at work.
fn is_at_large(v: &View, f: &Freeze, place: &Place) -> bool {
    let last = v.hooks.of(f.id, place.ordinal, Which::Pre).last();
    pre(v, f).is_some() && last.map_or(!own(v, f), |tried| tried.end.is_at_large())
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

/// The hook on each pod of the freeze, in ordinal order.
fn execs<'a>(v: &'a View, f: &'a Freeze, which: Which) -> impl Iterator<Item = (Exec, &'a HookSpec)> {
    let hook = inherit::hooks(v, f).and_then(|hooks| hooks.get(which));
    let place = move |ordinal| match which {
        Which::Pre => place::meant(f, ordinal).cloned(),
        Which::Post => place::thawed(v, f, ordinal),
    };
    let ordinals: std::collections::BTreeSet<u32> = f.pods.iter().map(|place| place.ordinal).collect();
    let exec = move |place: Place, hook: &HookSpec| Exec {
        run: f.id,
        which,
        place,
        argv: hook.argv.clone(),
        until: Timestamp::MIN,
    };
    ordinals.into_iter().filter_map(move |ordinal| Some((exec(place(ordinal)?, hook?), hook?)))
}

/// What this very process has made in this freeze. What somebody else has put under its names, or on top, is none of it.
fn made<'a>(v: &'a View, f: &Freeze) -> Result<impl Iterator<Item = (&'a String, &'a Snap)>, Read> {
    let epoch = f.epoch;
    let is_ours = move |(name, snap): &(&String, &Snap)| {
        snap.epoch == epoch && snap.token.as_ref() == Some(&name::token(&v.want.secret, name))
    };
    Ok(v.run(f.id)?.filter(is_ours))
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

/// The lock that another object's open run bars.
pub fn barred(v: &View, open: &Open) -> Refusal {
    if open.kind == restore::KIND {
        return restore::begin::barred(v, open);
    }
    let message = format!(
        "{} {}/{} has left run {} open on StatefulSet {}/{}; pods that may be frozen: {}. Only its own run may take \
         the lock: start it again; if the installation that manages it is gone, sts-backup doctor --take-over {}/{} lets \
         another carry it on; or thaw the pods by hand and remove the annotation backup.sts-backup.io/open from Lease {}",
        open.kind,
        open.namespace,
        open.name,
        open.run,
        v.want.statefulset_namespace,
        v.want.statefulset,
        open.pods.join(", "),
        open.namespace,
        open.name,
        name::lease(&v.want.statefulset),
    );
    Refusal::new(Reason::LockedByOpenRun, message)
}
