//! Which snapshots a restore restores: the newest complete run, a named one, the newest at or before an instant, or
//! exactly these. Completeness is read from the snapshots themselves.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::known::{self, Record, Run, Snapshot, Snapshots, State};
use super::member::Odd;
use super::name::{ClaimKey, RunId};
use super::noun::Refusal;
use super::roll::digest;
use super::view::{Read, View};
use crate::api::condition::Reason;

/// What is to be restored: for each claim its snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// None for snapshots that were made before there were runs.
    pub run: Option<RunId>,
    pub claims: BTreeMap<ClaimKey, String>,
    /// Named one by one: only their claims are affected.
    pub partial: bool,
}

type Named<'a> = (&'a String, &'a Snapshot);

pub fn choose(v: &View) -> Result<Result<Chosen, Refusal>, Read> {
    let sources = v.restore.sources()?;
    if !v.want.restore.snapshot_names.is_empty() {
        return Ok(named(v, sources));
    }
    let is_its = |(_, source): &Named| {
        Some(&source.maker.name) == v.want.restore.backup.as_ref()
            && source.maker.namespace == v.want.namespace
            && source.statefulset.as_ref() == Some(&v.want.restore.source)
    };
    // The Lease is the target's: of another's runs it says nothing.
    let own = v.want.restore.source == v.want.statefulset;
    let roll = if own { v.lease()?.and_then(|lease| lease.roll.as_ref()) } else { None };
    let runs = known::runs(sources.iter().filter(is_its), roll);
    let again: Vec<Named> = sources.iter().filter(|(_, source)| source.stranger.is_some()).filter(is_its).collect();
    Ok(one_of(v, &runs, roll.is_some())
        .map_err(|refusal| Refusal { message: refusal.message + &replaced(v, &again), ..refusal }))
}

/// What bears the label of the run that is asked for, and was made again after it.
fn replaced(v: &View, again: &[Named]) -> String {
    let is_of = |run: &String| v.want.restore.run_id.as_ref().is_none_or(|asked| asked == run);
    let said = again.iter().filter_map(|(name, source)| match &source.stranger {
        Some((run, odd @ Odd::Cut(..))) if is_of(run) => Some(format!("; VolumeSnapshot {name} {odd}")),
        _ => None,
    });
    said.take(3).collect()
}

/// The run that is named is not on record on the lock Lease, as far as that can be told.
pub fn unrecorded(v: &View, chosen: &Chosen) -> Result<Option<RunId>, Read> {
    let Some(run) = chosen.run.filter(|_| v.want.restore.run_id.is_some()) else { return Ok(None) };
    if v.want.restore.source != v.want.statefulset {
        return Ok(None); // the Lease is the target's
    }
    let sources = v.restore.sources()?;
    let snaps: Vec<&Snapshot> = chosen.claims.values().filter_map(|name| sources.get(name)).collect();
    let uid = snaps.first().map(|source| source.maker.uid.as_str()).unwrap_or_default();
    let roll = v.lease()?.and_then(|lease| lease.roll.as_ref());
    let entry = roll.and_then(|roll| roll.entry(uid, run));
    let known = entry.is_some_and(|entry| entry.digest == digest(snaps.iter().map(|source| source.uid.as_str())));
    Ok((!known).then_some(run))
}

/// Of itself it takes only what is on record, where there is a record; what is named it takes as it is.
fn one_of(v: &View, runs: &[Run], recorded: bool) -> Result<Chosen, Refusal> {
    let want = &v.want.restore;
    let backup = want.backup.as_deref().unwrap_or_default();
    let refuse = |why: String| Err(Refusal::new(Reason::RunNotFound, why));
    let whose = format!("of StatefulSet {} made by StatefulSetBackup {}/{backup}", want.source, v.want.namespace);
    if let Some(text) = &want.run_id {
        let id: Option<RunId> = text.parse().ok();
        let found = runs.iter().filter(|run| Some(run.id) == id).min_by_key(|run| run.why.is_some());
        let Some(run) = found else {
            return refuse(format!("there is no run {text} {whose}: sts-backup list runs shows those that there are"));
        };
        return match &run.why {
            None => Ok(chosen(run)),
            Some(Refusal { reason, message }) => {
                Err(Refusal::new(*reason, format!("run {} cannot be restored: {message}", run.id)))
            }
        };
    }
    let is_known = |run: &&Run| !recorded || matches!(run.record, Record::Own | Record::Imported);
    let fits = |run: &&Run| want.point_in_time.is_none_or(|at| is_by(run, at));
    let complete = runs.iter().rev().filter(is_known).filter(|run| run.state == State::Complete);
    let newest = complete.filter(fits).max_by_key(|run| (run.instant(), run.id));
    match (newest, want.point_in_time) {
        (Some(run), _) => Ok(chosen(run)),
        (None, Some(at)) => refuse(format!("no complete run {whose} was cut at or before {at}")),
        (None, None) => match runs.last() {
            None => refuse(format!("there is no run {whose}")),
            Some(Run { id, why, .. }) => {
                let unknown = "it is not on record on the lock Lease: name it (spec.runId) to restore it all the same";
                let why = why.as_ref().map_or(unknown, |refusal| &refusal.message);
                refuse(format!("no run {whose} is complete; the newest, {id}: {why}"))
            }
        },
    }
}

fn chosen(run: &Run) -> Chosen {
    let of = |(name, source): &Named| Some((source.claim.clone()?, (*name).clone()));
    Chosen { run: Some(run.id), claims: run.snapshots.iter().filter_map(of).collect(), partial: false }
}

/// Cut at or before that instant; or at that instant, where it is that of one of its claims. Tables leave fractions out:
/// an instant without one is its whole second.
fn is_by(run: &Run, at: Timestamp) -> bool {
    let rest = if at.subsec_nanosecond() == 0 { SECOND } else { SignedDuration::ZERO };
    let end = at.checked_add(rest).unwrap_or(Timestamp::MAX);
    let mut cuts = run.snapshots.iter().filter_map(|(_, source)| source.instant());
    run.instant().is_some_and(|cut| cut <= end) || cuts.any(|cut| at <= cut && cut <= end)
}

/// But its last nanosecond.
const SECOND: SignedDuration = SignedDuration::from_nanos(999_999_999);

/// Exactly these. One that was made before there were runs is known by the claim that it was cut of.
fn named(v: &View, sources: &Snapshots) -> Result<Chosen, Refusal> {
    let namespace = &v.want.statefulset_namespace;
    let refuse = |why: String| Err(Refusal::new(Reason::RunNotFound, why));
    let mut claims: BTreeMap<ClaimKey, String> = BTreeMap::new();
    let mut runs = BTreeSet::new();
    for name in &v.want.restore.snapshot_names {
        let Some(source) = sources.get(name) else {
            return refuse(format!("there is no VolumeSnapshot {namespace}/{name} (spec.snapshotNames)"));
        };
        if let Some(refusal) = source.unknown_format(name) {
            return Err(refusal);
        }
        let of = |pvc: &String| split(pvc, &v.want.restore.source);
        let Some(claim) = source.claim.clone().or_else(|| source.pvc.as_ref().and_then(of)) else {
            return refuse(format!(
                "VolumeSnapshot {namespace}/{name} is not of a claim of StatefulSet {}: set spec.sourceStatefulSet",
                v.want.restore.source
            ));
        };
        if let Some(other) = claims.insert(claim, name.clone()) {
            return refuse(format!("VolumeSnapshots {other} and {name} are of the same claim: name one of them"));
        }
        runs.insert(source.run);
    }
    if runs.len() > 1 {
        return refuse("spec.snapshotNames names snapshots of more than one run: together they fit no instant".into());
    }
    Ok(Chosen { run: runs.into_iter().next().flatten(), claims, partial: true })
}

/// `{template}-{statefulset}-{ordinal}`
pub fn split(pvc: &str, statefulset: &str) -> Option<ClaimKey> {
    let (front, _) = pvc.rsplit_once('-')?;
    let template = front.strip_suffix(statefulset)?.strip_suffix('-').filter(|template| !template.is_empty())?;
    ClaimKey::of(pvc, statefulset, &[template.to_owned()])
}
