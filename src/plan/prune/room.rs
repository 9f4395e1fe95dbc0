//! Room before a freeze: runs that the policy lets go anyway once this run is complete, and that may go before it is. The
//! newest complete run of a claim is none of them: it goes only when there is a newer one.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{deletion, hindrance, is_partial, own, rules, unwanted};
use crate::plan::backup::Backup;
use crate::plan::known::{self, State};
use crate::plan::name::RunId;
use crate::plan::retention::{Rule, Run, retain};
use crate::plan::view::{Read, View};

/// Those that can go now, oldest first; none where that cannot be told. `claims`: of the run that is to be.
pub fn outlived<'a>(v: &'a View, claims: &BTreeSet<String>, now: Timestamp) -> Result<Vec<known::Run<'a>>, Read> {
    let Some(keep) = &v.want.backup.keep else { return Ok(vec![]) };
    let Ok((zone, own)) = own(v, keep)? else { return Ok(vec![]) };
    // Ages count by the API server's clock.
    let now = now.saturating_add(v.ahead).unwrap_or(now);
    let runs: Vec<_> = own.iter().map(|run| run.counted(&v.want.statefulset)).collect();
    let verdicts = retain(&runs, Some(&keep.policy), now, zone).into_iter();
    let floor: BTreeSet<RunId> =
        verdicts.filter(|verdict| verdict.rules.contains(&Rule::Floor)).map(|verdict| verdict.id).collect();
    let id = RunId::after(runs.iter().map(|run| run.id).max(), now);
    let new = Run { id, cut: now, complete: true, claims: claims.clone() };
    let unwanted = unwanted(&own, Some(new), &v.want.statefulset, |runs| retain(runs, Some(&keep.policy), now, zone));
    let mut outlived = vec![];
    for run in own {
        let goes = run.state == State::Complete && unwanted.contains(&run.id) && !floor.contains(&run.id);
        // A process that died while it made room has left one half gone.
        if (goes || is_partial(&run)) && hindrance(v, keep, &run)?.is_none() {
            outlived.push(run);
        }
    }
    Ok(outlived)
}

/// The next deletions towards room for so many snapshots; none where all that may go is not enough: then nothing goes.
pub fn make(v: &View, claims: &BTreeSet<String>, asked: usize, now: Timestamp) -> Result<Option<Vec<Backup>>, Read> {
    let Some(keep) = v.want.backup.keep.as_ref().filter(|keep| keep.policy.make_room == Some(true)) else {
        return Ok(None);
    };
    let outlived = outlived(v, claims, now)?;
    let Some(first) = outlived.first().filter(|_| is_enough(&outlived, asked)) else { return Ok(None) };
    let why = format!(
        "no rule keeps it once the run that begins is complete ({}), and a quota has no room for that one (makeRoom)",
        rules(keep)
    );
    deletion(v, first, &why).map(Some)
}

/// Together they have so many snapshots.
pub fn is_enough(runs: &[known::Run], asked: usize) -> bool {
    runs.iter().map(known::Run::staying).sum::<usize>() >= asked
}
