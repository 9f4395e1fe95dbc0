//! After the cut: its snapshots say that they are proved, all of them become ready, retention has its turn. And what a
//! driver complains of meanwhile.

use jiff::Timestamp;

use super::backup::{Backup, CALL, LASTING, Seal, close, doom, one};
use super::flow::{Feed, Plan, act, wait};
use super::journal::{Cut, Freeze};
use super::name::RunId;
use super::noun::{Outcome, Refusal, Snap};
use super::prune;
use super::report;
use super::roll::of_cut;
use super::text::said;
use super::view::{Read, View};
use crate::api::condition::Reason;

/// So many contents are watched at once: each watch is a connection. As one is heard of, the next has its place.
const WATCHED: usize = 16;

/// What tells of the cuts of these: the first of their contents, which know to the nanosecond, and the snapshots.
pub fn cuts<'a>(uncut: impl IntoIterator<Item = &'a Snap>) -> impl Iterator<Item = Feed> {
    uncut.into_iter().take(WATCHED).map(|snap| Feed::Cut(snap.uid.clone())).chain([Feed::Snaps])
}

/// Until when the cut is waited for. Without hooks nobody stands still meanwhile: what a driver complains of may heal for
/// as long as its snapshot may take to become ready.
pub fn cut_by(v: &View, f: &Freeze) -> Result<Timestamp, Read> {
    let by = f.since + v.want.backup.max_freeze;
    let complains = f.pods.is_empty() && v.run(f.id)?.any(|(_, snap)| v.cut(snap).is_none() && snap.error.is_some());
    Ok(if complains { by.max(f.since + v.want.backup.ready_timeout) } else { by })
}

/// Says in status what a driver complains of for so long that its sidecar's retries have not healed it, once before the
/// cut and once after it, of the first snapshot; and when to look for that again. `from`: what was said before may be over.
pub fn complaint<'a>(
    v: &View,
    (run, from): (RunId, Timestamp),
    waiting: impl Iterator<Item = (&'a String, &'a Snap)>,
    by: Timestamp,
    now: Timestamp,
) -> Result<Result<Backup, Timestamp>, Read> {
    let mut next = by;
    for (name, snap) in waiting {
        let Some((error, since)) = &snap.error else { continue };
        let lasting = from.max(*since) + LASTING;
        if now < lasting {
            next = next.min(lasting);
            continue;
        }
        let what = if v.cut(snap).is_some() { "is cut and not ready" } else { "is not cut" };
        let (begins, goes_on) = (format!("Run {run}: VolumeSnapshot "), format!(" {what}: "));
        let is_told = |message: &String| message.starts_with(&begins) && message.contains(&goes_on);
        if v.record()?.status.message.as_ref().is_some_and(is_told) {
            break;
        }
        let error = said(error);
        let message =
            format!("{begins}{name}{goes_on}{error}. The driver may heal it yet: it is waited for until {by:.0}");
        return Ok(Ok(Backup::Write(Box::new(report::complains(v, message, now)?))));
    }
    Ok(Err(next))
}

/// Says on the snapshots that their run is proved, before the lock is given back: who takes it next need not wonder.
pub fn seals(v: &View, cut: &Cut) -> Result<Option<Vec<Backup>>, Read> {
    if v.refused.is_some() {
        return Ok(None);
    }
    let run = of_cut(v, cut)?;
    if run.len() < cut.size {
        return Ok(None);
    }
    let seal = |(name, snap): (&String, &Snap)| {
        let (name, uid) = (name.clone(), snap.uid.clone());
        Some(Backup::Seal(Seal { name, uid, cut: v.cut(snap)?, consistency: cut.consistency }))
    };
    let seals: Vec<_> = run.into_iter().filter(|(_, snap)| !snap.sealed).filter_map(seal).collect();
    Ok((!seals.is_empty()).then_some(seals))
}

/// Cut, proved, and the lock given back: wait until all of it is ready, prune, close.
pub fn keep(v: &View, cut: &Cut, now: Timestamp) -> Plan<Backup> {
    if let Some(refusal) = &v.refused {
        return close(v, Outcome::Failed(refusal.clone()), now);
    }
    let run = of_cut(v, cut)?;
    if run.len() < cut.size {
        // What is left of a run that the journal knows by its snapshots is left to retention, which looks at the record.
        let doomed = if cut.entry.is_some() { vec![] } else { doom(v, cut.id, cut.epoch)? };
        let message = format!("{} of {} snapshots of run {} were deleted", cut.size - run.len(), cut.size, cut.id);
        let failed = Outcome::Failed(Refusal::new(Reason::SnapshotFailed, message));
        return if doomed.is_empty() { close(v, failed, now) } else { act(doomed, now + CALL) };
    }
    let untold = run.iter().filter(|(_, snap)| !snap.sealed && v.cut(snap).is_none());
    let untold: Vec<&Snap> = untold.map(|(_, snap)| *snap).collect();
    let by = cut.since + v.want.backup.ready_timeout;
    if !untold.is_empty() && now < by {
        return wait(cuts(untold), by);
    }
    let Some((name, snap)) = run.iter().find(|(_, snap)| !snap.ready || !snap.sealed) else {
        return match prune::prune(v, cut, now)? {
            Some(next) => Ok(next),
            None => close(v, Outcome::Succeeded, now),
        };
    };
    if now < by {
        let unready = run.iter().copied().filter(|(_, snap)| !snap.ready);
        return match complaint(v, (cut.id, cut.since), unready, by, now)? {
            Ok(write) => one(write, now),
            Err(next) => wait([Feed::Snaps], next),
        };
    }
    let error = snap.error.as_ref().map(|(error, _)| format!(": {error}")).unwrap_or_default();
    let seconds = v.want.backup.ready_timeout.as_secs();
    let message = format!(
        "VolumeSnapshot {name} was not ready within spec.snapshotReadyTimeoutSeconds ({seconds} s){error}; nothing is \
         deleted, and the run counts as soon as all of it is ready"
    );
    close(v, Outcome::Failed(Refusal::new(Reason::SnapshotTimeout, message)), now)
}
