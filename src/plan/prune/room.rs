//! Room before a freeze: runs that the policy lets go anyway once this run is complete, and that may go before it is. The
//! newest complete run of a claim is none of them: it goes only when there is a newer one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{deletion, hindrance, is_partial, judged, own, rules, unwanted};
use crate::plan::backup::Backup;
use crate::plan::known::{self, State};
use crate::plan::name::RunId;
use crate::plan::retention::{Rule, Run, Verdict, retain};
use crate::plan::view::{Read, View};

/// Those that can go now, oldest first; none where that cannot be told. `claims`: of the run that is to be.
pub fn outlived<'a>(v: &'a View, claims: &BTreeSet<String>, now: Timestamp) -> Result<Vec<known::Run<'a>>, Read> {
    let Some(keep) = &v.want.backup.keep else { return Ok(vec![]) };
    let Ok((zone, own)) = own(v, keep)? else { return Ok(vec![]) };
    // Ages count by the API server's clock.
    let now = now.saturating_add(v.ahead).unwrap_or(now);
    let floor = floor(&own, &v.want.statefulset, |runs| retain(runs, Some(&keep.policy), now, zone));
    let id = RunId::after(own.iter().map(|run| run.id).max(), now);
    let new = Run { id, cut: now, complete: true, claims: claims.clone() };
    let unwanted = unwanted(&own, Some(new), &v.want.statefulset, |runs| retain(runs, Some(&keep.policy), now, zone));
    let mut outlived = vec![];
    for run in own {
        let goes = run.state == State::Complete && unwanted.contains(&run.id) && !floor.contains_key(&run.id);
        if (goes || is_partial(&run) && replaced(&run, &floor)) && hindrance(v, keep, &run)?.is_none() {
            outlived.push(run);
        }
    }
    Ok(outlived)
}

/// The newest complete run of each claim, with its claims: what was imported counts here as well, each for itself.
fn floor(
    own: &[known::Run],
    statefulset: &str,
    judge: impl Fn(&[Run<RunId>]) -> Vec<Verdict<RunId>>,
) -> BTreeMap<RunId, BTreeSet<String>> {
    let floor = judged(own, None, statefulset, judge, |verdict| verdict.rules.contains(&Rule::Floor));
    let of = own.iter().filter(|run| floor.contains(&run.id));
    of.map(|run| (run.id, run.counted(statefulset).claims)).collect()
}

/// A process that died while it made room has left it half gone: a newer run has all its claims.
fn replaced(partial: &known::Run, floor: &BTreeMap<RunId, BTreeSet<String>>) -> bool {
    let newer: BTreeSet<&String> = floor.range(partial.id..).flat_map(|(_, claims)| claims).collect();
    partial.snapshots.iter().all(|(_, one)| one.pvc.as_ref().is_some_and(|pvc| newer.contains(pvc)))
}

/// The next deletions towards room for so many snapshots; none where all that may go is not enough: then nothing goes.
pub fn make(v: &View, claims: &BTreeSet<String>, asked: usize, now: Timestamp) -> Result<Option<Vec<Backup>>, Read> {
    let Some(keep) = v.want.backup.keep.as_ref().filter(|keep| keep.policy.make_room == Some(true)) else {
        return Ok(None);
    };
    let outlived = outlived(v, claims, now)?;
    let Some(first) = outlived.first().filter(|_| is_enough(&outlived, asked)) else { return Ok(None) };
    let why = if is_partial(first) {
        "it is partial, and a quota has no room for the run that begins (makeRoom)".to_owned()
    } else {
        format!(
            "no rule keeps it once the run that begins is complete ({}), and a quota has no room for that one (makeRoom)",
            rules(keep)
        )
    };
    deletion(v, first, &why).map(Some)
}

/// Together they have so many snapshots.
pub fn is_enough(runs: &[known::Run], asked: usize) -> bool {
    runs.iter().map(known::Run::staying).sum::<usize>() >= asked
}
