//! What a request meets before it is carried out: the fence of a StatefulSet, as the admission policy has it; and the
//! reviews, which are answered and never stored.

use serde_json::{Value, json};
use sts_backup::api::{FENCE_POLICY, annotation, label};
use sts_backup::plan::flow::Verb;

use super::answer::No;
use super::kind::{ACCESS_REVIEW, Key, USER_REVIEW};
use super::request::Ask;
use super::store::{Store, text};

pub fn is_review(ask: &Ask) -> bool {
    [ACCESS_REVIEW, USER_REVIEW].contains(&ask.place.kind.resource)
}

/// Who asks, or whether they may; all may ask that.
pub fn review(ask: &Ask, user: &str, rights: Option<&Vec<Verb>>) -> Option<Value> {
    let mut said = ask.body.clone();
    said["status"] = match ask.place.kind.resource {
        USER_REVIEW => json!({ "userInfo": { "username": user } }),
        ACCESS_REVIEW => {
            let of = |field: &str| text(&ask.body, &format!("/spec/resourceAttributes/{field}"));
            let part = Some(of("subresource")).filter(|part| !part.is_empty());
            let resource = part.map_or_else(|| of("resource").to_owned(), |part| format!("{}/{part}", of("resource")));
            let asked = (of("group"), resource.as_str(), of("verb"));
            json!({ "allowed": rights.is_none_or(|rights| rights.contains(&asked)) })
        }
        _ => return None,
    };
    Some(said)
}

/// `generate/policies/fence.yaml`, as far as patches go: while its Lease bears the label nobody scales the StatefulSet
/// up but the one who is named there, and a dry run not even he. Without a binding it decides nothing.
pub fn fence(store: &Store, ask: &Ask, user: &str) -> Result<(), No> {
    let key = ask.key();
    let asleep = ask.body.pointer("/spec/replicas").is_none_or(|replicas| *replicas == 0);
    if key.kind.resource != "statefulsets" || ask.verb != "patch" || ask.place.part.as_deref() == Some("status") {
        return Ok(());
    }
    let at_zero = store.get(&key).is_some_and(|set| set["spec"]["replicas"] == 0);
    let up = if ask.body["spec"]["replicas"].is_null() { !at_zero } else { !asleep };
    let bound = store.get(&Key::new("validatingadmissionpolicybindings", "", FENCE_POLICY)).is_some();
    let lease = store.get(&Key::new("leases", &key.namespace, &format!("sts-backup-{}", key.name)));
    let fenced = |lease: &&Value| lease["metadata"]["labels"][label::FENCE] == label::FENCE_VALUE;
    let Some(lease) = lease.filter(fenced).filter(|_| bound && up) else { return Ok(()) };
    if lease["metadata"]["annotations"][annotation::FENCE_USER] == user && !ask.is_dry() {
        return Ok(());
    }
    let why = format!(
        "statefulsets.apps \"{}\" is forbidden: ValidatingAdmissionPolicy '{FENCE_POLICY}' with binding '{FENCE_POLICY}' \
         denied request: StatefulSet {}/{} is kept at 0 replicas",
        key.name, key.namespace, key.name
    );
    Err(No::new(403, "Forbidden", why))
}
