//! Which snapshots a restore restores: the newest complete run, a named one, the newest at or before an instant, or
//! exactly these. Completeness is read from the snapshots themselves.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::member::{Odd, of_run};
use super::name::{ClaimKey, RunId};
use super::noun::Refusal;
use super::restore::sight::Source;
use super::roll::digest;
use super::view::{Read, View};
use crate::api::FORMAT;
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

type Named<'a> = (&'a String, &'a Source);

pub fn choose(v: &View) -> Result<Result<Chosen, Refusal>, Read> {
    let sources = v.restore.sources()?;
    if !v.want.restore.snapshot_names.is_empty() {
        return Ok(named(v, sources));
    }
    let is_its = |(_, source): &Named| {
        source.policy == v.want.restore.backup
            && source.policy_namespace.as_ref() == Some(&v.want.namespace)
            && source.statefulset.as_ref() == Some(&v.want.restore.source)
    };
    let mut runs: Runs = BTreeMap::new();
    for named in sources.iter().filter(is_its) {
        if let Some(run) = named.1.run {
            runs.entry((run, named.1.policy_uid.as_deref())).or_default().push(named);
        }
    }
    // The Lease is the target's: of another's runs it says nothing.
    let own = v.want.restore.source == v.want.statefulset;
    let roll = if own { v.lease()?.and_then(|lease| lease.roll.as_ref()) } else { None };
    let mut known = BTreeSet::new();
    for ((run, uid), snaps) in &mut runs {
        let size = snaps.iter().filter_map(|(_, source)| Some((source.created, source.size?))).min();
        let entry = roll.zip(*uid).and_then(|(roll, uid)| roll.entry(uid, *run));
        let see = |(_, source): &Named| (source.claim.clone(), source.created);
        *snaps = of_run(std::mem::take(snaps), size.map(|(_, size)| size), entry, see);
        let digest = digest(snaps.iter().map(|(_, source)| source.uid.as_str()));
        if roll.is_none() || entry.is_some_and(|entry| entry.digest == digest) {
            known.insert((*run, *uid));
        }
    }
    let again: Vec<Named> = sources.iter().filter(|(_, source)| source.stranger.is_some()).filter(is_its).collect();
    Ok(one_of(v, &runs, &known)
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
    let snaps: Vec<&Source> = chosen.claims.values().filter_map(|name| sources.get(name)).collect();
    let uid = snaps.first().and_then(|source| source.policy_uid.as_deref()).unwrap_or_default();
    let roll = v.lease()?.and_then(|lease| lease.roll.as_ref());
    let entry = roll.and_then(|roll| roll.entry(uid, run));
    let known = entry.is_some_and(|entry| entry.digest == digest(snaps.iter().map(|source| source.uid.as_str())));
    Ok((!known).then_some(run))
}

/// By id, and by the uid of the policy that made them.
type Runs<'a> = BTreeMap<(RunId, Option<&'a str>), Vec<Named<'a>>>;

/// Of itself it takes only what is on record; what is named it takes as it is.
fn one_of(v: &View, runs: &Runs, known: &BTreeSet<(RunId, Option<&str>)>) -> Result<Chosen, Refusal> {
    let want = &v.want.restore;
    let backup = want.backup.as_deref().unwrap_or_default();
    let refuse = |why: String| Err(Refusal::new(Reason::RunNotFound, why));
    let whose = format!("of StatefulSet {} made by StatefulSetBackup {}/{backup}", want.source, v.want.namespace);
    if let Some(text) = &want.run_id {
        let id: Option<RunId> = text.parse().ok();
        let mut found: Vec<_> = runs.iter().filter(|((run, _), _)| Some(*run) == id).collect();
        found.sort_by_key(|(_, snaps)| incomplete(snaps).is_some());
        let Some(((run, _), snaps)) = found.first() else {
            return refuse(format!("there is no run {text} {whose}: sts-backup list runs shows those that there are"));
        };
        return match incomplete(snaps) {
            None => Ok(chosen(*run, snaps)),
            Some(refusal) => {
                Err(Refusal::new(refusal.reason, format!("run {run} cannot be restored: {}", refusal.message)))
            }
        };
    }
    let fits = |snaps: &[Named]| want.point_in_time.is_none_or(|at| is_by(snaps, at));
    let complete = runs.iter().rev().filter(|(of, snaps)| known.contains(*of) && incomplete(snaps).is_none());
    let newest = complete.filter(|(_, snaps)| fits(snaps)).max_by_key(|((run, _), snaps)| (cut(snaps), *run));
    match (newest, want.point_in_time) {
        (Some(((run, _), snaps)), _) => Ok(chosen(*run, snaps)),
        (None, Some(at)) => refuse(format!("no complete run {whose} was cut at or before {at}")),
        (None, None) => match runs.iter().next_back() {
            None => refuse(format!("there is no run {whose}")),
            Some(((run, _), snaps)) => {
                let unknown =
                    || "it is not on record on the lock Lease: name it (spec.runId) to restore it all the same";
                let why = incomplete(snaps).map_or_else(|| unknown().to_owned(), |refusal| refusal.message);
                refuse(format!("no run {whose} is complete; the newest, {run}: {why}"))
            }
        },
    }
}

fn chosen(run: RunId, snaps: &[Named]) -> Chosen {
    let claims = snaps.iter().filter_map(|(name, source)| Some((source.claim.clone()?, (*name).clone()))).collect();
    Chosen { run: Some(run), claims, partial: false }
}

/// The instant of a run: its latest cut.
pub fn cut(snaps: &[Named]) -> Option<Timestamp> {
    snaps.iter().filter_map(|(_, source)| source.cut).max()
}

/// Cut at or before that instant; or at that instant, where it is that of one of its claims. Tables leave fractions out:
/// an instant without one is its whole second.
fn is_by(snaps: &[Named], at: Timestamp) -> bool {
    let rest = if at.subsec_nanosecond() == 0 { SECOND } else { SignedDuration::ZERO };
    let end = at.checked_add(rest).unwrap_or(Timestamp::MAX);
    let mut cuts = snaps.iter().filter_map(|(_, source)| source.cut);
    cut(snaps).is_some_and(|cut| cut <= end) || cuts.any(|cut| at <= cut && cut <= end)
}

/// But its last nanosecond.
const SECOND: SignedDuration = SignedDuration::from_nanos(999_999_999);

/// Why a run is not whole: complete are `/run-size` snapshots of one `/transitions`, each with `/cut`, ready, staying.
pub fn incomplete(snaps: &[Named]) -> Option<Refusal> {
    let refuse = |why: String| Some(Refusal::new(Reason::RunNotFound, why));
    let newer = |source: &Source| source.format.as_ref().is_some_and(|format| !is_known(format));
    if let Some((name, source)) = snaps.iter().find(|(_, source)| newer(source)) {
        let format = source.format.as_deref().unwrap_or_default();
        let message = format!("VolumeSnapshot {name} has format {format:?}; this version knows {FORMAT:?} and older");
        return Some(Refusal::new(Reason::FormatUnknown, message));
    }
    let size = snaps.iter().filter_map(|(_, source)| source.size).max().unwrap_or(usize::MAX);
    let claims: BTreeSet<_> = snaps.iter().filter_map(|(_, source)| source.claim.as_ref()).collect();
    if claims.len() != size || snaps.len() != size || snaps.iter().any(|(_, source)| source.size != Some(size)) {
        return refuse(format!("{} of {size} snapshots are there", claims.len()));
    }
    let epochs: BTreeSet<_> = snaps.iter().map(|(_, source)| source.epoch).collect();
    if epochs.len() != 1 || epochs.contains(&None) {
        return refuse("its snapshots were not made under one hold of the lock".into());
    }
    for (name, source) in snaps {
        let why = match source {
            Source { leaving: true, .. } => "is being deleted",
            Source { cut: None, .. } => "is not proved to belong to one freeze (no cut)",
            Source { ready: false, .. } => "is not ready",
            _ => continue,
        };
        return refuse(format!("VolumeSnapshot {name} {why}"));
    }
    None
}

/// Formats are numbers; older ones are read.
fn is_known(format: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    number(format).is_some_and(|format| number(FORMAT).is_some_and(|newest| format <= newest))
}

/// Exactly these. One that was made before there were runs is known by the claim that it was cut of.
fn named(v: &View, sources: &BTreeMap<String, Source>) -> Result<Chosen, Refusal> {
    let namespace = &v.want.statefulset_namespace;
    let refuse = |why: String| Err(Refusal::new(Reason::RunNotFound, why));
    let mut claims: BTreeMap<ClaimKey, String> = BTreeMap::new();
    let mut runs = BTreeSet::new();
    for name in &v.want.restore.snapshot_names {
        let Some(source) = sources.get(name) else {
            return refuse(format!("there is no VolumeSnapshot {namespace}/{name} (spec.snapshotNames)"));
        };
        if let Some(format) = source.format.as_ref().filter(|format| !is_known(format)) {
            let message =
                format!("VolumeSnapshot {name} has format {format:?}; this version knows {FORMAT:?} and older");
            return Err(Refusal::new(Reason::FormatUnknown, message));
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
