//! The StatefulSet that the claims are for: whether it is there, which of its templates the run has, and which revision
//! its pods start with. A claim that no pod mounts is restored for nobody.

use std::collections::BTreeSet;

use super::Findings;
use crate::api::condition::Reason;
use crate::plan::choose::Chosen;
use crate::plan::name::ClaimKey;
use crate::plan::noun::Target;
use crate::plan::view::{Read, View};

pub fn check(v: &View, chosen: &Chosen, found: &mut Findings) -> Result<(), Read> {
    let object = object(v);
    if chosen.claims.is_empty() {
        found.refuse_as(Reason::NoClaims, &object, "the run holds no claim", "choose another run");
    }
    match v.target()? {
        Some(target) => {
            lacking(v, target, chosen, found);
            left(v, target, chosen, found);
            pending(target, &object, found);
        }
        None if v.want.restore.source != v.want.statefulset => {
            let message = format!("does not exist, and the snapshots are of StatefulSet {}", v.want.restore.source);
            let remedy = "look at its name; or create it first, with 0 replicas if its pods must not start yet";
            found.refuse_as(Reason::StatefulSetNotFound, &object, message, remedy);
        }
        None => {}
    }
    Ok(())
}

fn object(v: &View) -> String {
    format!("StatefulSet {}/{}", v.want.statefulset_namespace, v.want.statefulset)
}

/// Its pods mount the claim: by a template, or by its name.
fn mounts(v: &View, target: &Target, key: &ClaimKey) -> bool {
    target.templates.contains(&key.template) || target.outside.contains(&key.pvc(&v.want.statefulset))
}

/// Templates of the run that the `StatefulSet` lacks.
pub fn lacking(v: &View, target: &Target, chosen: &Chosen, found: &mut Findings) {
    let (fit, lost): (Vec<_>, Vec<_>) = chosen.claims.iter().partition(|(key, _)| mounts(v, target, key));
    if lost.is_empty() {
        return;
    }
    let templates: BTreeSet<&str> = lost.iter().map(|(key, _)| key.template.as_str()).collect();
    let templates = templates.into_iter().collect::<Vec<_>>().join(", ");
    let whose = if chosen.partial { "spec.snapshotNames names" } else { "the run has" };
    let names: Vec<&str> = fit.iter().map(|(_, name)| name.as_str()).collect();
    let own = target.templates.join(", ");
    let alien = names.is_empty() && !own.is_empty();
    let none = if alien { format!("; none of its own ({own}) is in the run") } else { String::new() };
    let message = format!("has no volumeClaimTemplate {templates}, which {whose}: no pod would mount its claims{none}");
    let remedy = match names.as_slice() {
        [] => "choose another run, or a StatefulSet that has this volumeClaimTemplate".to_owned(),
        names => format!("restore only what it has: --snapshots {}", names.join(",")),
    };
    found.refuse(&object(v), message, &remedy);
}

/// What of the `StatefulSet` is not restored and stays as it is.
fn left(v: &View, target: &Target, chosen: &Chosen, found: &mut Findings) {
    if chosen.partial {
        let ordinals = target.start..target.start.saturating_add(target.replicas);
        let of =
            |ordinal| target.templates.iter().map(move |template| ClaimKey { ordinal, template: template.clone() });
        let keys = ordinals.flat_map(of).filter(|key| !chosen.claims.contains_key(key));
        let names: Vec<String> = keys.map(|key| key.pvc(&v.want.statefulset)).collect();
        if !names.is_empty() {
            let message = format!("spec.snapshotNames leaves out {}: they stay as they are", names.join(", "));
            found.warn(
                Reason::TemplateUncovered,
                &object(v),
                message,
                "nothing to do if the pods can work with claims of two instants",
            );
        }
        return;
    }
    for template in target.templates.iter().filter(|of| !chosen.claims.keys().any(|key| key.template == **of)) {
        let message = format!("volumeClaimTemplate {template} is not in the run: its claims stay as they are");
        found.warn(Reason::TemplateUncovered, &object(v), message, "look at spec.claimTemplates of the backup");
    }
}

/// At 0 replicas the controller drops the revision that runs.
fn pending(target: &Target, object: &str, found: &mut Findings) {
    let Some((runs, waits)) = &target.pending else { return };
    let message = format!("revision {runs} runs and {waits} is pending: after the stop all pods start with {waits}");
    let remedy = format!("finish that rollout first, or undo it if pods of {waits} must not start");
    found.warn(Reason::RevisionPending, object, message, &remedy);
}
