//! The story of a backup. Pure: `next` looks at the view and says what comes next.
//!
//! lock → resolve → write the intent → create every snapshot at once → wait only for the cut → prove that the lock
//! was held throughout → record the cut → seal → unlock → wait for readiness → prune → close.

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};

use super::after;
use super::consent;
use super::flow::{Exit, Feed, Plan, Verb, act, end, steps, wait};
use super::freeze::{Cause, barred, freeze, quiet_until, still_open};
use super::guard;
use super::hook::{End, Exec, Place, Tried};
use super::journal::{Freeze, Journal, Record, Void, Voided};
use super::name::{self, ClaimKey, RunId};
use super::noun::{Lease, Open, Outcome, Refusal, Snap, Stop};
use super::prospect::{self, Against};
use super::prune::{self, Prune, Purge};
use super::report::{self, Write};
use super::resolve::{self, resolve};
use super::roll::{Enroll, enroll};
use super::view::{Fact, Read, Seen, View};
use crate::api::condition::Reason;
use crate::api::recorded::RecordedClaim;
use crate::api::shared::{Consistency, Trigger};
use crate::api::{BACKUP_POLICY, FINALIZER};

/// One API call.
pub const CALL: SignedDuration = SignedDuration::from_secs(30);

/// A driver's complaint that its sidecar's retries have not healed for so long is an answer.
pub const LASTING: SignedDuration = SignedDuration::from_secs(30);

/// A container that went in the freeze is waited for so long.
pub const REBORN: SignedDuration = SignedDuration::from_mins(1);

/// A websocket is opened by a GET, and asks for `create` as well since Kubernetes 1.35.
const EXEC: [Verb; 2] = [("", "pods/exec", "get"), ("", "pods/exec", "create")];

steps! {
    /// What a backup may do: one write each. A step owns all that its effect needs.
    pub enum Backup {
        /// Take the Lease as we saw it, or make it.
        Lock(Option<Box<Lease>>) => [("coordination.k8s.io", "leases", "create"), ("coordination.k8s.io", "leases", "patch")];
        /// Enter the next phase. Before `Frozen` nothing is created under a run's id.
        Write(Box<Write>) => [("backup.sts-backup.io", "statefulsetbackups/status", "patch")];
        /// Put the finalizer on our object, or take it off: the journal outlives a deletion exactly while a freeze is open.
        Hold(Hold) => [("backup.sts-backup.io", "statefulsetbackups", "patch")];
        /// Say on the Lease whose freeze is open, or that none is.
        Mark(Option<Box<Open>>) => [("coordination.k8s.io", "leases", "patch")];
        Pre(Box<Exec>) => EXEC, yields;
        Post(Box<Exec>) => EXEC;
        /// A name that is taken is looked at: is it our own, from a reply that was lost?
        Snapshot(Box<NewSnapshot>) => [("snapshot.storage.k8s.io", "volumesnapshots", "create"), ("snapshot.storage.k8s.io", "volumesnapshots", "get")];
        /// Put the run on record, on the Lease as we saw it, whoever holds it.
        Enroll(Box<Enroll>) => [("coordination.k8s.io", "leases", "patch")];
        /// Say on the snapshot when it was cut: from now on it may count.
        Seal(Seal) => [("snapshot.storage.k8s.io", "volumesnapshots", "patch")];
        /// By uid.
        Delete(Doomed) => [("snapshot.storage.k8s.io", "volumesnapshots", "delete")];
        /// Let the content take the storage's snapshot along. By uid and resourceVersion.
        Purge(Purge) => [("snapshot.storage.k8s.io", "volumesnapshotcontents", "patch")];
        /// What retention lets go. By uid and resourceVersion: what changes meanwhile (a restore's pin) forbids it.
        Prune(Prune) => [("snapshot.storage.k8s.io", "volumesnapshots", "delete")];
        /// Give the Lease of this epoch back.
        Unlock(i64) => [("coordination.k8s.io", "leases", "patch")];
    }
    lost(how, when) {
        Self::Lock(_) | Self::Mark(_) | Self::Unlock(_) | Self::Enroll(_) => Fact::Lease(Seen::Unknown),
        Self::Write(_) | Self::Hold(_) => Fact::Record(Box::new(Seen::Unknown)),
        Self::Pre(exec) | Self::Post(exec) => Fact::Hook(exec.clone(), Tried { when, end: End::Lost(how) }),
        Self::Snapshot(_) | Self::Seal(_) | Self::Delete(_) => Fact::Snaps(Seen::Unknown),
        Self::Purge(purge) => Fact::Prune(prune::Fact::Failed(purge.snapshot.clone(), None)),
        Self::Prune(prune) => Fact::Prune(prune::Fact::Failed(prune.name.clone(), None)),
    }
    refused(why) {
        Self::Write(_) | Self::Hold(_) => return Fact::Mute(why.clone()),
        Self::Purge(Purge { snapshot: name, .. }) | Self::Prune(Prune { name, .. }) => {
            return Fact::Prune(prune::Fact::Failed(name.clone(), Some(why.clone())));
        }
    }
}

/// All that a `VolumeSnapshot` says about itself when it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSnapshot {
    pub name: String,
    pub run: RunId,
    pub claim: ClaimKey,
    pub pvc: String,
    pub class: String,
    pub epoch: i64,
    pub size: usize,
    pub token: String,
    pub replicas: u32,
    pub template_hash: String,
    pub manifest: RecordedClaim,
}

/// The finalizers of our object as they are to be, and the resourceVersion that this was decided on.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    pub version: String,
    pub finalizers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Seal {
    pub name: String,
    pub uid: String,
    pub cut: Timestamp,
    pub consistency: Consistency,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Doomed {
    pub name: String,
    pub uid: String,
    pub run: RunId,
    /// What let it go, for the audit log.
    pub why: &'static str,
}

pub fn next(v: &View, now: Timestamp) -> Plan<Backup> {
    if let Some(refusal) = &v.mute {
        return match v.mine() {
            Ok(Some(epoch)) if v.refused.is_none() => one(Backup::Unlock(epoch), now),
            _ => end(Exit::Refused(refusal.clone())),
        };
    }
    if v.is_deserted(now) {
        return end(Exit::Again("the API server does not answer".into()));
    }
    if let (Some(stop), Seen::Unknown) = (v.stop, &v.record) {
        return leave(v, stop, now);
    }
    let record = v.record()?;
    let newer = record.open.iter().any(|(slot, attempt)| *slot == v.want.slot && *attempt > v.want.attempt);
    if newer {
        return end(Exit::Superseded("a later attempt of this run has begun".into()));
    }
    match &record.journal {
        Journal::Frozen(f) if f.holder == v.want.me => freeze(v, f, now),
        _ if let Some(stop) = v.stop => leave(v, stop, now),
        Journal::Idle if record.leaving => match held(record) {
            Some(hold) => one(Backup::Hold(hold), now),
            None => end(Exit::Refused(leaving(v))),
        },
        Journal::Idle if let Some(later) = overtaken(v, record) => {
            end(Exit::Superseded(format!("slot {} is over: a run for the later slot {later} has ended", v.want.slot)))
        }
        // Another process has ended it, and status remembers a later one by now.
        Journal::Idle if v.was_open => match v.to_release()? {
            Some(epoch) => one(Backup::Unlock(epoch), now),
            None => end(Exit::Superseded(format!("the run for slot {} has ended already", v.want.slot))),
        },
        Journal::Idle if let Some(refusal) = &v.refused => close(v, Outcome::Failed(refusal.clone()), now),
        Journal::Idle if let Some(refusal) = consent::flaw(&v.want) => close(v, Outcome::Failed(refusal), now),
        Journal::Idle | Journal::Void(..) | Journal::Cut(_) if let Some(refusal) = consent::refusal(v)? => {
            close(v, Outcome::Failed(refusal), now)
        }
        Journal::Frozen(f)
            if let Some(refusal) = consent::refusal(v)?
                && !still_open(v, f)? =>
        {
            consent::void(v, f, refusal, now)
        }
        Journal::Idle if v.target()?.is_none() => close(v, Outcome::Failed(resolve::absent(v)), now),
        Journal::Cut(_) | Journal::Closed(_) if let Some(hold) = held(record) => one(Backup::Hold(hold), now),
        Journal::Cut(cut) if let Some(enroll) = enroll(v, cut)? => one(Backup::Enroll(Box::new(enroll)), now),
        Journal::Cut(cut) if let Some(seals) = after::seals(v, cut)? => act(seals, now + CALL),
        Journal::Cut(_) | Journal::Closed(_) if let Some(epoch) = v.to_release()? => one(Backup::Unlock(epoch), now),
        Journal::Cut(_) | Journal::Closed(_) if let Some(lease) = v.left_behind()? => {
            one(Backup::Lock(Some(Box::new(lease.clone()))), now)
        }
        Journal::Cut(cut) => after::keep(v, cut, now),
        Journal::Closed(outcome) if v.acted => end(Exit::Done(outcome.clone())),
        Journal::Closed(_) => end(Exit::Superseded(format!("the run for slot {} has ended already", v.want.slot))),
        _ if v.mine()?.is_none() => acquire(v, now),
        Journal::Frozen(f) => freeze(v, f, now),
        Journal::Void(void) => clean(v, void, now),
        Journal::Idle => begin(v, None, now),
    }
}

fn acquire(v: &View, now: Timestamp) -> Plan<Backup> {
    let lease = v.lease()?;
    let refusal = if let Some(open) = lease.and_then(|lease| lease.open.as_ref()).filter(|open| !open.is_of(&v.want)) {
        barred(v, open)
    } else if let Some((holder, lease)) = lease.and_then(|lease| Some((lease.holder.as_ref()?, lease)))
        && !lease.gone
    {
        let waited = format!("{holder} has held the lock {} all the time", name::lease(&v.want.statefulset));
        Refusal::new(Reason::Skipped, format!("{waited} that this run could wait for it"))
    } else {
        return one(Backup::Lock(lease.cloned().map(Box::new)), now);
    };
    match v.record()?.journal {
        _ if now < v.want.lock_by => wait([Feed::Lease], v.want.lock_by),
        Journal::Idle => close(v, Outcome::Superseded(refusal), now),
        // No write: the journal is the holder's, and may be its intent.
        _ => end(Exit::Superseded(format!("{}: {}", refusal.reason, refusal.message))),
    }
}

/// A later slot of the schedule has had its run: ours is over, and its Job's pod has come back.
fn overtaken(v: &View, record: &Record) -> Option<Timestamp> {
    let planned = |trigger: Trigger| !matches!(trigger, Trigger::Manual | Trigger::Command);
    let last = record.status.last_run.as_ref().filter(|last| last.trigger.is_some_and(planned))?;
    let instant = |slot: &str| slot.parse::<Timestamp>().ok();
    let (ours, theirs) = (instant(&v.want.slot)?, instant(last.slot.as_deref()?)?);
    (planned(v.want.backup.trigger) && last.outcome.is_some() && ours < theirs).then_some(theirs)
}

/// A freeze that another process began. Only the same attempt of the same run may freeze again.
pub fn inherited(v: &View) -> Result<Cause, Read> {
    let record = v.record()?;
    let same = record.open.as_ref().is_some_and(|(slot, attempt)| *slot == v.want.slot && *attempt == v.want.attempt);
    Ok(if same { Cause::Again(lost()) } else { Cause::Final(lost()) })
}

fn lost() -> Refusal {
    Refusal::new(Reason::JobLost, "the process that ran it ended before the cut was recorded")
}

/// By a Job of its own after the one that began it is gone: so long after the slot nobody expects a freeze.
fn is_taken_up(v: &View) -> Result<bool, Read> {
    let open = v.record()?.open.as_ref();
    Ok(open.is_some_and(|(slot, attempt)| *slot == v.want.slot && *attempt != v.want.attempt))
}

/// Resolve, then write the intent under an id that is later than any that names a snapshot.
fn begin(v: &View, void: Option<&Voided>, now: Timestamp) -> Plan<Backup> {
    if let Some(refusal) = v.refused.clone().or_else(|| consent::flaw(&v.want)) {
        return close(v, Outcome::Failed(refusal), now);
    }
    let covered = match resolve(v)? {
        Ok(covered) => covered,
        Err(refusal) => return close(v, Outcome::Failed(refusal), now),
    };
    let pods = match resolve::places(v, &covered)? {
        Ok(pods) => pods,
        // A freeze that a restart has interrupted is worth some patience with the container that comes back.
        Err(_) if let Some(until) = void.and_then(|void| void.within(REBORN, now)) => return wait([Feed::Pods], until),
        Err(refusal) => return close(v, Outcome::Failed(refusal), now),
    };
    if !pods.is_empty()
        && let Some(refusal) = guard::refusal(v, BACKUP_POLICY)?
    {
        return close(v, Outcome::Failed(refusal), now);
    }
    if let Some(quiet) = quiet_until(v).filter(|quiet| *quiet > now) {
        return wait([], quiet);
    }
    match prospect::against(v, &covered, now)? {
        Some(Against::Until(until)) => return wait([], until),
        Some(Against::Room(_)) if v.mine()?.is_none() => return acquire(v, now),
        Some(Against::Room(batch)) => return act(batch, now + CALL),
        Some(Against::For(refusal)) => return close(v, Outcome::Failed(refusal), now),
        None => {}
    }
    if let Some(hold) = to_hold(v.record()?, &pods) {
        return one(Backup::Hold(hold), now);
    }
    // Ids are seconds of the API server's clock. A run that failed within this second has left no snapshot: status
    // remembers its id, unless somebody has written there what cannot be.
    let clock = now.saturating_add(v.ahead).unwrap_or(now);
    let told = v.record()?.status.last_run.as_ref().and_then(|last| last.id.as_ref()?.parse().ok());
    let told = told.filter(|id: &RunId| id.fits(clock));
    let taken = v.snaps()?.values().map(|snap| snap.run).chain(v.foreign.keys().copied());
    let newest = taken.chain(void.map(|void| void.id)).chain(told).max();
    let Some(epoch) = v.mine()? else { return acquire(v, now) };
    let id = RunId::after(newest, clock);
    let hooks = (!pods.is_empty()).then(|| v.want.backup.hooks.clone());
    let (holder, size, void_before) = (v.want.me.clone(), covered.len(), void.map_or(0, |void| void.count));
    let freeze = Freeze { id, holder, epoch, since: now, size, pods, hooks, void_before };
    let intent = report::write(v, &Journal::Frozen(freeze), now)?;
    match consent::too_large(v, &intent, &covered) {
        Some(refusal) => close(v, Outcome::Failed(refusal), now),
        None => one(Backup::Write(Box::new(intent)), now),
    }
}

/// Partial snapshots go first, then the run ends or begins anew.
fn clean(v: &View, void: &Voided, now: Timestamp) -> Plan<Backup> {
    let partial = doom(v, void.id, void.epoch)?;
    match &void.why {
        _ if !partial.is_empty() => act(partial, now + CALL),
        Void::Failed(refusal) => close(v, Outcome::Failed(refusal.clone()), now),
        Void::Interrupted(_) if v.record()?.leaving => close(v, Outcome::Failed(leaving(v)), now),
        Void::Interrupted(_) if is_taken_up(v)? => close(v, Outcome::Failed(lost()), now),
        Void::Interrupted(_) if let Some(until) = void.within(void.pause(), now) => wait([], until),
        Void::Interrupted(_) => begin(v, Some(void), now),
    }
}

/// All of the run that was made under this epoch and is still there: what another attempt has made under the same id is
/// not ours to delete. Nothing that was proved: a run that is void never was, whatever its status has been made to say.
pub fn doom(v: &View, run: RunId, epoch: i64) -> Result<Vec<Backup>, Read> {
    let doomed = |(name, snap): (&String, &Snap)| {
        Backup::Delete(Doomed { name: name.clone(), uid: snap.uid.clone(), run, why: "partial" })
    };
    let made = |snap: &Snap| (snap.epoch == epoch || epoch == 0) && !snap.sealed;
    Ok(v.run(run)?.filter(|(_, snap)| !snap.leaving && made(snap)).map(doomed).collect())
}

pub fn write(v: &View, journal: &Journal, now: Timestamp) -> Result<Backup, Read> {
    Ok(Backup::Write(Box::new(report::write(v, journal, now)?)))
}

pub fn close(v: &View, outcome: Outcome, now: Timestamp) -> Plan<Backup> {
    one(write(v, &Journal::Closed(outcome), now)?, now)
}

pub fn one(step: Backup, now: Timestamp) -> Plan<Backup> {
    act([step], now + CALL)
}

/// A freeze that may be open needs the finalizer; without hooks none is.
fn to_hold(record: &Record, pods: &[Place]) -> Option<Hold> {
    let on = record.finalizers.iter().any(|name| name == FINALIZER);
    let add = || record.finalizers.iter().cloned().chain([FINALIZER.to_owned()]).collect();
    (!on && !pods.is_empty()).then(|| Hold { version: record.version.clone(), finalizers: add() })
}

/// The finalizer stands although nothing is frozen any more.
fn held(record: &Record) -> Option<Hold> {
    let rest: Vec<_> = record.finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
    (rest.len() < record.finalizers.len()).then(|| Hold { version: record.version.clone(), finalizers: rest })
}

fn leaving(v: &View) -> Refusal {
    let message =
        format!("StatefulSetBackup {}/{} is being deleted: no run is begun for it", v.want.namespace, v.want.name);
    Refusal::new(Reason::Superseded, message)
}

/// Nothing is begun any more. A lock that is ours is given back, so that nobody has to wait until it runs out.
pub fn leave(v: &View, stop: Stop, now: Timestamp) -> Plan<Backup> {
    if v.is_usurped()? {
        return end(Exit::usurped());
    }
    match v.to_release()? {
        Some(epoch) => one(Backup::Unlock(epoch), now),
        None => end(Exit::stopped(stop)),
    }
}
