//! Core objects as the planner knows them. No request and no decision: what an object says, and nothing else.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::lean::{self, NodeRequirement, PersistentVolume, PersistentVolumeClaim, StatefulSet};
use crate::api::recorded::RecordedClaim;
use crate::api::{annotation, foreign, label};
use crate::plan::name::hex;
use crate::plan::noun::{Claim, ClaimRef, Container, Marks, Pod, RETAIN, Retention, Target, Volume};
use crate::plan::restore::sight::{Quota, StorageClass};
use crate::plan::text::head;
use crate::plan::topology::{NAME, Requirement, Term};

/// Finalizers by which Kubernetes protects what is in use: they go by themselves.
const PROTECTION: [&str; 3] = [
    "kubernetes.io/pvc-protection",
    "kubernetes.io/pv-protection",
    "snapshot.storage.kubernetes.io/pvc-as-source-protection",
];

/// And those of the volume's own provisioner and attacher.
const PROVISIONER: [&str; 2] = ["external-provisioner.volume.kubernetes.io/finalizer", "external-attacher/"];

fn foreign_finalizers(meta: &ObjectMeta) -> Vec<String> {
    let known = |name: &str| PROTECTION.contains(&name) || PROVISIONER.iter().any(|own| name.starts_with(own));
    let all = meta.finalizers.iter().flatten();
    all.filter(|name| !known(name)).cloned().collect()
}

fn version(meta: &ObjectMeta) -> String {
    meta.resource_version.clone().unwrap_or_default()
}

pub fn target(object: &StatefulSet) -> Target {
    let spec = &object.spec;
    let hash = Sha256::digest(spec.template.to_string());
    let retention = spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let word = |word: Option<String>| word.unwrap_or_else(|| RETAIN.to_owned());
    let selector = spec.template.pointer("/spec/nodeSelector").cloned();
    Target {
        uid: object.uid().unwrap_or_default(),
        replicas: spec.replicas.unwrap_or(1),
        start: spec.ordinals.start,
        templates: spec.volume_claim_templates.iter().map(|template| template.metadata.name.clone()).collect(),
        outside: outside(&spec.template),
        hash: hex(&hash[..5]),
        version: version(&object.metadata),
        observed: object.metadata.generation.is_none_or(|generation| object.status.observed_generation >= generation),
        pods: object.status.replicas,
        retention: Retention { scaled: word(retention.when_scaled), deleted: word(retention.when_deleted) },
        node_selector: selector.and_then(|map| serde_json::from_value(map).ok()).unwrap_or_default(),
        pending: pending(&object.status),
        governor: governor(&object.metadata),
        manifest: manifest(object),
    }
}

/// A rollout that is not done: partition, OnDelete, or pods of the newest revision that do not become ready. After one by
/// hand (OnDelete) the controller goes on telling of two revisions, but all pods are of the newer one.
fn pending(status: &lean::StatefulSetStatus) -> Option<(String, String)> {
    let (runs, waits) = (&status.current_revision, &status.update_revision);
    let both = !runs.is_empty() && !waits.is_empty() && runs != waits;
    (both && status.updated_replicas < status.replicas).then(|| (runs.clone(), waits.clone()))
}

/// The claims that a pod template names itself.
fn outside(template: &Value) -> Vec<String> {
    let volumes = template["spec"]["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    let named = |volume: &Value| Some(volume["persistentVolumeClaim"]["claimName"].as_str()?.to_owned());
    volumes.iter().filter_map(named).collect()
}

/// What is recorded of it: enough to make it again, nothing that the server owns.
fn manifest(object: &StatefulSet) -> Value {
    let users = |map: &BTreeMap<String, String>| {
        let users = |key: &str| !key.starts_with("kubectl.kubernetes.io/");
        map.iter()
            .filter(|(key, _)| users(key))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
    };
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": object.name_any(),
            "namespace": object.namespace(),
            "uid": object.uid(),
            "labels": users(object.labels()),
            "annotations": users(object.annotations()),
        },
        "spec": object.spec,
    })
}

/// Who else writes its replicas: its controller, or the GitOps tool that says so in a label.
fn governor(meta: &ObjectMeta) -> Option<String> {
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let gitops = ["argocd.argoproj.io/instance", "kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"];
    let has = |key: &&str| {
        let labels = meta.labels.as_ref().is_some_and(|all| all.contains_key(*key));
        labels || meta.annotations.as_ref().is_some_and(|all| all.contains_key(*key))
    };
    owner.map(|owner| format!("{} {}", owner.kind, owner.name)).or_else(|| {
        let key = gitops.iter().find(|key| has(key))?;
        Some(format!("a GitOps tool ({key})"))
    })
}

/// The pod with its containers in the order of the spec; what has no status yet does not run.
/// `now`: since when it is known to be ready.
pub fn pod(object: &lean::Pod, now: Timestamp) -> Pod {
    let (spec, status) = (&object.spec, &object.status);
    let statuses: Vec<_> = status.container_statuses.iter().chain(&status.init_container_statuses).collect();
    // Init containers that go on beside the others can be entered as well, by their names.
    let sidecars = spec.init_containers.iter().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let container = |name: &lean::ContainerName| {
        let status = statuses.iter().find(|status| status.name == name.name).map(|found| (*found).clone());
        let status = status.unwrap_or_default();
        let id = status.container_id.filter(|_| status.state.running.is_some());
        Container { name: name.name.clone(), id, restarts: status.restart_count }
    };
    let owners = object.metadata.owner_references.iter().flatten();
    let own = |volume: &lean::PodVolume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", object.name_any(), volume.name)))
    };
    let phase = status.phase.as_deref();
    let is_ready = status.conditions.iter().any(|of| of.kind == "Ready" && of.status == "True");
    Pod {
        uid: object.uid().unwrap_or_default(),
        ready_since: is_ready.then_some(now),
        running: phase == Some("Running"),
        default: object.annotations().get(foreign::DEFAULT_CONTAINER).cloned(),
        containers: spec.containers.iter().chain(sidecars).map(container).collect(),
        leaving: object.metadata.deletion_timestamp.is_some(),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        claims: spec.volumes.iter().filter_map(own).collect(),
        owner: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()),
        node: spec.node_name.clone().filter(|name| !name.is_empty()),
        finalizers: foreign_finalizers(&object.metadata),
        waits: waits(status),
    }
}

/// What keeps its containers from running, as far as it says so. Of those that only wait for another it says nothing.
fn waits(status: &lean::PodStatus) -> Option<String> {
    let unscheduled = status.conditions.iter().find(|of| of.kind == "PodScheduled" && of.status == "False");
    if let Some(condition) = unscheduled {
        return Some(format!("no node takes it{}", said(condition.message.as_deref())));
    }
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let waiting = |one: &lean::ContainerStatus| Some((one.name.clone(), one.state.waiting.clone()?));
    let (name, waiting) = all.filter_map(waiting).find(|(_, waiting)| waiting.reason != "PodInitializing")?;
    Some(format!("container {name} waits, {}{}", waiting.reason, said(Some(&waiting.message))))
}

fn said(message: Option<&str>) -> String {
    let message = message.filter(|message| !message.is_empty());
    message.map(|message| format!(": {}", head(message, SAID))).unwrap_or_default()
}

/// Of a message of others so many bytes.
const SAID: usize = 256;

/// `now`: since when it is known to go.
pub fn claim(object: &PersistentVolumeClaim, now: Timestamp) -> Claim {
    let phase = object.status.phase.as_deref();
    let asked = object.spec.volume_name.clone().filter(|name| !name.is_empty());
    let note = |key: &str| object.annotations().get(key).cloned();
    let snapshot = snapshot(object);
    let owners = object.metadata.owner_references.iter().flatten();
    let resizing = |of: &lean::PlainCondition| matches!(of.kind.as_str(), "Resizing" | "FileSystemResizePending");
    let leaving = object.metadata.deletion_timestamp.is_some();
    Claim {
        uid: object.uid().unwrap_or_default(),
        leaving,
        volume: asked.clone().filter(|_| phase == Some("Bound")),
        manifest: RecordedClaim::of(object),
        version: version(&object.metadata),
        asked,
        lost: phase == Some("Lost"),
        leaving_since: leaving.then_some(now),
        restore: object.labels().get(label::RESTORE).cloned(),
        restored_by: note(annotation::RESTORED_BY),
        filled: snapshot.is_none() && (object.spec.data_source.is_some() || object.spec.data_source_ref.is_some()),
        snapshot,
        created: created(&object.metadata),
        node: note(foreign::SELECTED_NODE),
        tried: words(note(annotation::TRIED_NODES)),
        owned: owners.into_iter().any(|owner| matches!(owner.kind.as_str(), "Pod" | "StatefulSet")),
        finalizers: foreign_finalizers(&object.metadata),
        resizing: object.status.conditions.iter().any(|of| resizing(of) && of.status == "True"),
        capacity: object.status.capacity.get("storage").cloned(),
    }
}

/// The `VolumeSnapshot` of its own namespace that it is made from. The API server repeats a dataSource as dataSourceRef.
fn snapshot(object: &PersistentVolumeClaim) -> Option<String> {
    let is_snapshot = |of: &&lean::DataSource| {
        of.kind == "VolumeSnapshot"
            && of.api_group.as_deref() == Some("snapshot.storage.k8s.io")
            && of.namespace.is_none()
    };
    let source = object.spec.data_source.as_ref().filter(is_snapshot)?;
    let same = object.spec.data_source_ref.as_ref().is_none_or(|again| again == source);
    same.then(|| source.name.clone())
}

fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default()
}

/// A comma-separated list.
pub fn words(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
}

pub fn volume(object: &PersistentVolume) -> Volume {
    let spec = &object.spec;
    let csi = spec.csi.clone();
    let of = |claim: &lean::ClaimReference| ClaimRef {
        namespace: claim.namespace.clone(),
        name: claim.name.clone(),
        uid: claim.uid.clone().filter(|uid| !uid.is_empty()),
    };
    let terms = spec.node_affinity.iter().flat_map(|affinity| &affinity.required);
    Volume {
        driver: csi.as_ref().map(|csi| csi.driver.clone()),
        uid: object.uid().unwrap_or_default(),
        version: version(&object.metadata),
        handle: csi.map(|csi| csi.volume_handle).unwrap_or_default(),
        policy: spec.persistent_volume_reclaim_policy.clone().unwrap_or_else(|| RETAIN.to_owned()),
        phase: object.status.phase.clone().unwrap_or_default(),
        claim: spec.claim_ref.as_ref().map(of),
        marks: marks(object),
        leaving: object.metadata.deletion_timestamp.is_some(),
        finalizers: foreign_finalizers(&object.metadata),
        affinity: terms.flat_map(|selector| &selector.node_selector_terms).map(term).collect(),
        capacity: spec.capacity.get("storage").cloned().unwrap_or_default(),
        class: Some(spec.storage_class_name.clone().unwrap_or_default()),
        provisioner: object.annotations().get(foreign::PROVISIONED_BY).cloned(),
        created: created(&object.metadata),
    }
}

fn marks(object: &PersistentVolume) -> Marks {
    let label = |key: &str| object.labels().get(key).cloned();
    let note = |key: &str| object.annotations().get(key).cloned();
    Marks {
        restore: label(label::RESTORE),
        role: label(label::ROLE),
        claim: label(label::CLAIM),
        policy: note(annotation::RECLAIM_POLICY),
        of: note(annotation::RESTORE),
        deadline: note(annotation::UNDO_DEADLINE).and_then(|at| at.parse().ok()),
    }
}

/// Fields and labels of a term stand side by side; the one field that there is, is the node's name.
fn term(term: &lean::NodeSelectorTerm) -> Term {
    let of = |key: &str, with: &NodeRequirement| Requirement {
        key: key.to_owned(),
        operator: with.operator.clone(),
        values: with.values.clone(),
    };
    let labels = term.match_expressions.iter().map(|with| of(&with.key, with));
    let fields = term.match_fields.iter().map(|with| of(if with.key == NAME { NAME } else { &with.key }, with));
    Term(labels.chain(fields).collect())
}

pub fn storage_class(object: &storage::StorageClass) -> StorageClass {
    let default = object.annotations().get(foreign::DEFAULT_STORAGE_CLASS);
    StorageClass {
        name: object.name_any(),
        provisioner: object.provisioner.clone(),
        is_default: default.is_some_and(|value| value == "true"),
        waits: object.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
        parameters: object.parameters.clone().unwrap_or_default(),
    }
}

/// What is allowed and what is used, where both are known.
pub fn quota(object: &ResourceQuota) -> Quota {
    let status = object.status.clone().unwrap_or_default();
    let used = status.used.unwrap_or_default();
    let both = |(resource, hard): (String, Quantity)| {
        let used = used.get(&resource).map_or_else(|| "0".to_owned(), |used| used.0.clone());
        (resource, (hard.0, used))
    };
    Quota { name: object.name_any(), left: status.hard.unwrap_or_default().into_iter().map(both).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kubelet and the scheduler write it.
    #[test]
    fn a_pod_that_does_not_start_says_what_it_waits_for() {
        let of = |status: Value| {
            let object =
                json!({ "metadata": { "name": "web-0", "finalizers": ["x/y"] }, "spec": {}, "status": status });
            let pod = pod(&serde_json::from_value(object).unwrap(), Timestamp::UNIX_EPOCH);
            assert_eq!(pod.finalizers, ["x/y"]);
            pod.waits
        };
        let waiting = |name: &str, reason: &str, message: &str| {
            json!({ "name": name, "restartCount": 0,
            "state": { "waiting": { "reason": reason, "message": message } } })
        };
        let image = waiting("app", "ErrImagePull", "manifest unknown");
        let init = waiting("app", "PodInitializing", "");
        let done = json!({ "name": "first", "state": { "terminated": { "exitCode": 0 } } });
        let crash = waiting("first", "CrashLoopBackOff", "back-off 10s");
        let runs = json!({ "name": "app", "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } });
        let no_node = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available" });
        for (status, expected) in [
            (json!({ "containerStatuses": [image] }), Some("container app waits, ErrImagePull: manifest unknown")),
            (
                json!({ "initContainerStatuses": [crash], "containerStatuses": [init] }),
                Some("container first waits, CrashLoopBackOff: back-off 10s"),
            ),
            (json!({ "initContainerStatuses": [done], "containerStatuses": [init] }), None),
            (json!({ "containerStatuses": [runs] }), None),
            (json!({ "conditions": [no_node] }), Some("no node takes it: 0/3 nodes are available")),
            (json!({}), None),
        ] {
            assert_eq!(of(status.clone()).as_deref(), expected, "{status}");
        }
        let long = of(json!({ "containerStatuses": [waiting("app", "ErrImagePull", &"x".repeat(9000))] })).unwrap();
        assert!(long.len() < 400, "{} bytes", long.len());
    }

    #[test]
    fn a_rollout_that_is_not_done_is_known_by_its_two_revisions() {
        let pending = |status: Value| {
            let object = json!({ "metadata": { "name": "web" }, "spec": { "template": {} }, "status": status });
            target(&serde_json::from_value(object).unwrap()).pending
        };
        let both = |replicas: u32, updated: u32| {
            json!({ "replicas": replicas, "updatedReplicas": updated,
            "currentRevision": "web-a", "updateRevision": "web-b" })
        };
        assert_eq!(pending(both(3, 1)), Some(("web-a".into(), "web-b".into())));
        assert_eq!(pending(both(3, 3)), None, "rolled out by hand");
        assert_eq!(pending(both(0, 0)), None, "nothing runs");
        assert_eq!(pending(json!({ "replicas": 3, "currentRevision": "web-a", "updateRevision": "web-a" })), None);
        assert_eq!(pending(json!({ "replicas": 3 })), None);
    }

    #[test]
    fn a_claim_is_made_from_a_snapshot_only_where_its_source_is_just_that() {
        let source = |group: &str, kind: &str| json!({ "apiGroup": group, "kind": kind, "name": "s" });
        let of = |fields: Value| {
            let object = json!({ "metadata": { "name": "c" }, "spec": fields });
            let claim = claim(&serde_json::from_value(object).unwrap(), Timestamp::UNIX_EPOCH);
            (claim.snapshot, claim.filled)
        };
        let ours = source("snapshot.storage.k8s.io", "VolumeSnapshot");
        let mut elsewhere = ours.clone();
        elsewhere["namespace"] = json!("other");
        assert_eq!(of(json!({})), (None, false));
        assert_eq!(of(json!({ "dataSource": ours })), (Some("s".into()), false));
        assert_eq!(of(json!({ "dataSource": ours, "dataSourceRef": ours })), (Some("s".into()), false));
        for other in [
            json!({ "dataSource": source("example.com", "VolumeSnapshot") }),
            json!({ "dataSource": { "kind": "PersistentVolumeClaim", "name": "s" } }),
            json!({ "dataSource": ours, "dataSourceRef": elsewhere }),
            json!({ "dataSourceRef": elsewhere }),
            json!({ "dataSourceRef": source("example.com", "Filler") }),
        ] {
            assert_eq!(of(other.clone()), (None, true), "{other}");
        }
    }
}
