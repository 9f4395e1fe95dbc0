//! Quota, a dry run of what will be made, rights, other restores, and who else may scale.

use std::collections::BTreeMap;

use super::Findings;
use crate::api::condition::Reason;
use crate::api::restore::Strategy;
use crate::plan::quantity::bytes;
use crate::plan::restore::journal::Plan;
use crate::plan::restore::new_claim;
use crate::plan::view::{Read, View};

pub fn check(v: &View, plan: &Plan, found: &mut Findings) -> Result<(), Read> {
    quota(v, plan, found)?;
    trials(v, plan, found)?;
    for peer in v.restore.peers()?.iter().filter(|peer| peer.uid != v.want.uid && peer.planned && !peer.ended) {
        let object = format!("StatefulSetRestore {}/{}", peer.namespace, peer.name);
        let message = "is open on the same StatefulSet";
        found.refuse_as(Reason::LockedByOpenRun, &object, message, "let it finish, undo it or delete it");
    }
    scalers(v, found)
}

/// Of the account that is at it.
pub fn rights(v: &View, found: &mut Findings) -> Result<(), Read> {
    let restore = format!("StatefulSetRestore {}/{}", v.want.namespace, v.want.name);
    for missing in v.restore.rights()? {
        let message = format!("the runner lacks the right to {missing}");
        found.refuse_as(Reason::Forbidden, &restore, message, "bind the role that sts-backup generate rbac prints");
    }
    Ok(())
}

/// Staged needs room for both sets of claims at once; in place the old ones go first.
fn quota(v: &View, plan: &Plan, found: &mut Findings) -> Result<(), Read> {
    if v.want.restore.strategy == Strategy::InPlace {
        return Ok(());
    }
    let mut asked: BTreeMap<String, u128> = BTreeMap::new();
    for item in plan.items.iter().filter(|item| item.staging.is_some()) {
        let claim = new_claim(v, item, item.snapshot.as_ref())?;
        let storage = bytes(&claim.manifest.storage).unwrap_or_default();
        let mut add = |resource: String, amount| *asked.entry(resource).or_default() += amount;
        add("requests.storage".into(), storage);
        add("persistentvolumeclaims".into(), 1);
        add("count/persistentvolumeclaims".into(), 1);
        if let Some(class) = &claim.manifest.storage_class_name {
            add(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
            add(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), 1);
        }
    }
    for quota in v.restore.quotas()? {
        let object = format!("ResourceQuota {}/{}", v.want.statefulset_namespace, quota.name);
        for (resource, (hard, used)) in &quota.left {
            let Some((hard, used)) = bytes(hard).zip(bytes(used)) else { continue };
            let Some(asked) = asked.get(resource).filter(|asked| used + **asked > hard) else { continue };
            let message =
                format!("{resource}: {asked} more are needed, {} of {hard} are left", hard.saturating_sub(used));
            let remedy = "raise it for the time of the restore, or use spec.strategy: InPlace";
            found.refuse_as(Reason::QuotaTooSmall, &object, message, remedy);
        }
    }
    Ok(())
}

/// The final manifests, as the API server and its admission judge them.
fn trials(v: &View, plan: &Plan, found: &mut Findings) -> Result<(), Read> {
    for item in &plan.items {
        let claim = new_claim(v, item, item.snapshot.as_ref())?;
        if let Some(refusal) = v.restore.trial(&claim)? {
            let object = format!("PersistentVolumeClaim {}/{}", v.want.statefulset_namespace, item.pvc);
            found.refuse_as(refusal.reason, &object, refusal.message.clone(), "change what refuses it");
        }
    }
    Ok(())
}

fn scalers(v: &View, found: &mut Findings) -> Result<(), Read> {
    let object = format!("StatefulSet {}/{}", v.want.statefulset_namespace, v.want.statefulset);
    for name in v.restore.scalers()? {
        let message = format!("{name} scales it, and will be refused while the restore keeps it at 0");
        found.warn(Reason::ReplicasOwned, &object, message, "nothing to do; it takes over again afterwards");
    }
    if let Some(governor) = v.target()?.and_then(|target| target.governor.as_ref()) {
        let message = format!("{governor} owns its replica count, and will be refused while the restore keeps it at 0");
        found.warn(Reason::ReplicasOwned, &object, message, "nothing to do; suspend it if it gives up after refusals");
    }
    Ok(())
}
