//! A restore as it would be, before it is asked for: what would be restored, all that speaks against it, and what
//! would be done. It reads by the same planner as the restore itself, takes no lock and changes nothing.

use jiff::Timestamp;
use serde::Serialize;

use super::journal::Plan as Deeds;
use super::sight::Fence;
use super::{Restore, begin, stop};
use crate::api::condition::Reason;
use crate::api::restore::{OnFailure, Strategy};
use crate::api::{FENCE_POLICY, RESTORE_POLICY};
use crate::plan::choose::{Chosen, choose};
use crate::plan::flow::{Exit, Plan, end};
use crate::plan::guard;
use crate::plan::name;
use crate::plan::noun::Outcome;
use crate::plan::preflight::{self, Finding, Severity};
use crate::plan::view::{Read, View};

/// What `restore --dry-run` prints.
#[derive(Serialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// None: no run was found, or the snapshots are from before there were runs.
    pub run: Option<String>,
    #[serde(skip)]
    pub cut: Option<Timestamp>,
    pub claims: Vec<Row>,
    pub findings: Vec<Finding>,
    pub steps: Vec<String>,
}

/// One claim: what it is made from and which volume it gives up.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub pvc: String,
    /// None: it starts empty.
    pub snapshot: Option<String>,
    /// None: the claim is not there now.
    pub old_pv: Option<String>,
    pub size: String,
}

impl Preview {
    pub fn refuses(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Refuse)
    }
}

/// Only ever asks for reads, or ends: then [`preview`] has all that it needs.
pub fn next(v: &View, now: Timestamp) -> Plan<Restore> {
    if v.stop.is_some() {
        return end(Exit::Again("stopped".into()));
    }
    if let Some(refusal) = v.refused.as_ref().or(v.mute.as_ref()) {
        return end(Exit::Refused(refusal.clone()));
    }
    if v.is_deserted(now) {
        return end(Exit::Again("the API server does not answer".into()));
    }
    preview(v)?;
    end(Exit::Done(Outcome::Succeeded))
}

pub fn preview(v: &View) -> Result<Preview, Read> {
    let mut findings = vec![];
    findings.extend(begin::not_allowed(v)?);
    findings.extend(locked(v)?);
    let chosen = match choose(v)? {
        Ok(chosen) => chosen,
        Err(refusal) => {
            let object = format!("StatefulSet {}/{}", v.want.statefulset_namespace, v.want.statefulset);
            let remedy = "choose another run".to_owned();
            let (severity, message) = (Severity::Refuse, refusal.message);
            findings.push(Finding { severity, reason: refusal.reason, object, message, remedy });
            return Ok(Preview { findings, ..Preview::default() });
        }
    };
    let plan = begin::plan(v, &chosen)?;
    findings.extend(preflight::judge(v, &chosen, &plan)?);
    findings.extend(rights(v)?);
    findings.extend(guard::finding(v, RESTORE_POLICY)?);
    findings.extend(unfenced(v)?);
    Ok(Preview {
        run: chosen.run.map(|run| run.to_string()),
        cut: instant(v, &chosen)?,
        claims: rows(v, &plan)?,
        findings,
        steps: steps(v, &plan)?,
    })
}

fn instant(v: &View, chosen: &Chosen) -> Result<Option<Timestamp>, Read> {
    let sources = v.restore.sources()?;
    Ok(chosen.claims.values().filter_map(|name| sources.get(name)?.instant()).max())
}

fn rows(v: &View, plan: &Deeds) -> Result<Vec<Row>, Read> {
    let row = |item: &super::journal::Item| {
        let claim = super::new_claim(v, item, item.snapshot.as_ref())?;
        Ok(Row {
            pvc: item.pvc.clone(),
            snapshot: item.snapshot.clone(),
            old_pv: item.old.as_ref().map(|old| old.pv.clone()),
            size: claim.manifest.storage,
        })
    };
    plan.items.iter().map(row).collect()
}

/// Another run's lock is waited for; what a restore has left open is not.
fn locked(v: &View) -> Result<Option<Finding>, Read> {
    let Some(lease) = v.lease()? else { return Ok(None) };
    let object = format!("Lease {}/{}", v.want.statefulset_namespace, name::lease(&v.want.statefulset));
    let reason = Reason::LockedByOpenRun;
    if let Some(open) = &lease.open {
        let severity = if open.kind == super::KIND { Severity::Refuse } else { Severity::Warn };
        let message = format!("{} {}/{} has left run {} open", open.kind, open.namespace, open.name, open.run);
        let remedy = match severity {
            Severity::Refuse => "let it finish, undo it or delete it",
            Severity::Warn => "the restore waits for it, 10 minutes at most",
        };
        return Ok(Some(Finding { severity, reason, object, message, remedy: remedy.to_owned() }));
    }
    let holder = lease.holder.as_ref().filter(|_| !lease.gone);
    Ok(holder.map(|holder| Finding {
        severity: Severity::Warn,
        reason,
        object,
        message: format!("{holder} holds the lock"),
        remedy: "the restore waits for it, 10 minutes at most".to_owned(),
    }))
}

/// Who asks for a restore need not be who carries it out: the runner has rights of its own.
fn rights(v: &View) -> Result<Vec<Finding>, Read> {
    let missing = v.restore.rights()?;
    if missing.is_empty() {
        return Ok(vec![]);
    }
    Ok(vec![Finding {
        severity: Severity::Warn,
        reason: Reason::Forbidden,
        object: format!("StatefulSet {}/{}", v.want.statefulset_namespace, v.want.statefulset),
        message: format!("this account itself could not carry it out: it may not {}", missing.join(", ")),
        remedy: "nothing to do where a watcher runs: its runner has these rights".to_owned(),
    }])
}

fn unfenced(v: &View) -> Result<Option<Finding>, Read> {
    if v.target()?.is_none() || !matches!(v.restore.fence()?, (Fence::Missing, _)) {
        return Ok(None);
    }
    Ok(Some(Finding {
        severity: Severity::Warn,
        reason: Reason::PolicyMissing,
        object: format!("ValidatingAdmissionPolicyBinding {FENCE_POLICY}"),
        message: "is not installed: nobody is kept from scaling the StatefulSet up during the swap".to_owned(),
        remedy: "sts-backup generate policies | kubectl apply --server-side -f -".to_owned(),
    }))
}

fn steps(v: &View, plan: &Deeds) -> Result<Vec<String>, Read> {
    let (want, count) = (&v.want.restore, plan.items.len());
    let of = format!("StatefulSet {}/{}", v.want.statefulset_namespace, v.want.statefulset);
    let lock = format!("Lease {}/{}", v.want.statefulset_namespace, name::lease(&v.want.statefulset));
    let in_place = want.strategy == Strategy::InPlace;
    let seconds = |span: jiff::SignedDuration| format!("{span:#}");
    let mut all = vec![format!("take the lock {lock}, write the plan into status, pin {count} VolumeSnapshots")];
    if !in_place {
        let within = seconds(want.stage_timeout);
        all.push(format!("make {count} new volumes from the snapshots and wait until they are Bound, {within} at most; the application runs on"));
    }
    all.push("set every volume of the StatefulSet to Retain, so that no deletion of a claim can free one".to_owned());
    if v.target()?.is_some() {
        let within = seconds(stop::patience(want, plan));
        all.push(format!("fence {of}: from here to the swap's end nobody else may scale it up"));
        all.push(match (want.scale_down, plan.replicas) {
            (true, 1..) => format!(
                "scale {of} from {} to 0 and wait until nothing uses the claims, {within} at most",
                plan.replicas
            ),
            _ => format!("wait until nothing uses the claims, {within} at most"),
        });
    }
    all.push(if in_place {
        format!("delete {count} claims and make each anew from its snapshot, until all are Bound")
    } else {
        format!(
            "put the {count} new volumes under the claims' names: delete the claim, reserve the volume, make the claim"
        )
    });
    if v.target()?.is_some() {
        let ready = seconds(want.ready_timeout);
        all.push(match plan.replicas {
            0 => "lift the fence; there are no replicas to start".to_owned(),
            replicas => format!("scale to {replicas}, lift the fence, and wait until all pods are ready, {ready} at most from one to the next"),
        });
    }
    all.push(format!("put reclaim policies back; keep the old volumes for {}, for an undo", seconds(want.undo_window)));
    all.push(match want.on_failure {
        OnFailure::Rollback => "if it fails: the old volumes come back, unless a pod was Ready on the new ones: then all stays as it is (Held)",
        OnFailure::RollbackAlways => "if it fails: the old volumes come back, whatever was written to the new ones",
        OnFailure::Hold | OnFailure::Unknown => "if it fails after the first claim was deleted: all stays as it is (Held)",
    }.to_owned());
    Ok(all)
}
