//! Every reason to refuse a restore or to warn of it, all at once, before anything is changed.
//!
//! Role: findings from the view alone; it asks for every read that one of them needs, and never stops at the first.

mod claim;
mod cluster;
mod parameter;
mod source;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

use super::choose::Chosen;
use super::consent::STATUS;
use super::guard;
use super::noun::Refusal;
use super::restore::begin::size;
use super::restore::journal::Plan;
use super::view::{Read, View};
use crate::api::RESTORE_POLICY;
use crate::api::condition::Reason;

#[derive(Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Refuse,
    Warn,
}

#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub reason: Reason,
    /// `kind namespace/name`, or `kind name`.
    pub object: String,
    pub message: String,
    pub remedy: String,
}

/// What is found, as it is found.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    fn refuse(&mut self, object: &str, message: impl Into<String>, remedy: &str) {
        self.refuse_as(Reason::PreflightRefused, object, message, remedy);
    }

    fn refuse_as(&mut self, reason: Reason, object: &str, message: impl Into<String>, remedy: &str) {
        self.add(Severity::Refuse, reason, object, message.into(), remedy);
    }

    fn warn(&mut self, reason: Reason, object: &str, message: impl Into<String>, remedy: &str) {
        self.add(Severity::Warn, reason, object, message.into(), remedy);
    }

    fn add(&mut self, severity: Severity, reason: Reason, object: &str, message: String, remedy: &str) {
        self.0.push(Finding { severity, reason, object: object.to_owned(), message, remedy: remedy.to_owned() });
    }
}

pub fn preflight(v: &View, chosen: &Chosen, plan: &Plan) -> Result<Vec<Finding>, Read> {
    let mut found = Findings(judge(v, chosen, plan)?);
    cluster::rights(v, &mut found)?;
    found.0.extend(guard::finding(v, RESTORE_POLICY)?);
    Ok(found.0)
}

/// All that holds whoever carries it out.
pub fn judge(v: &View, chosen: &Chosen, plan: &Plan) -> Result<Vec<Finding>, Read> {
    let mut found = Findings::default();
    room(v, plan, &mut found);
    source::check(v, chosen, plan, &mut found)?;
    claim::check(v, chosen, plan, &mut found)?;
    template::check(v, chosen, &mut found)?;
    cluster::check(v, plan, &mut found)?;
    Ok(found.0)
}

/// What is judged once more right before the stop.
pub fn again(v: &View, chosen: &Chosen, plan: &Plan) -> Result<Vec<Finding>, Read> {
    let mut found = Findings::default();
    claim::again(v, chosen, plan, &mut found)?;
    if let Some(target) = v.target()? {
        template::lacking(v, target, chosen, &mut found);
    }
    Ok(found.0)
}

/// What is recorded of the plan, and of its undo, fits into no object.
fn room(v: &View, plan: &Plan, found: &mut Findings) {
    let size = size(plan);
    if size > STATUS {
        let object = format!("StatefulSetRestore {}/{}", v.want.namespace, v.want.name);
        let claims = plan.items.len();
        let message =
            format!("its status, with the plan for {claims} claims, would take {size} bytes, and {STATUS} are allowed");
        found.refuse_as(Reason::InvalidSpec, &object, message, "restore the claims in parts (spec.snapshotNames)");
    }
}

pub fn verdict(findings: &[Finding]) -> Option<Refusal> {
    refusal(findings, "nothing was touched")
}

/// All that refuses, in one sentence each. Where all have one reason it is the reason.
pub fn refusal(findings: &[Finding], lead: &str) -> Option<Refusal> {
    let refusing: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Refuse).collect();
    let reasons: BTreeSet<_> = refusing.iter().map(|finding| finding.reason).collect();
    let first = refusing.first()?;
    let reason = if reasons.len() == 1 { first.reason } else { Reason::PreflightRefused };
    let sentence = |finding: &&Finding| format!("{}: {} ({})", finding.object, finding.message, finding.remedy);
    let message = refusing.iter().map(sentence).collect::<Vec<_>>().join("; ");
    Some(Refusal::new(reason, format!("{lead}: {message}")))
}
