//! `PersistentVolumeClaim`s of a restore: made, steered to another node, dropped. What was made is told with its uid; a
//! name that is taken is told as it is, and the planner judges whose it is.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::core::params::PropagationPolicy;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Call, No, call, fault};
use super::cluster::Cluster;
use super::lens::claim;
use super::observe::answered;
use crate::api::lean::PersistentVolumeClaim;
use crate::api::{annotation, foreign, label, manager};
use crate::error::or_absent;
use crate::plan::flow::Row;
use crate::plan::noun::Denial;
use crate::plan::restore::sight::Sight;
use crate::plan::restore::{Doomed, NewClaim, Steer, Unlabel};
use crate::plan::view::Fact;

fn api(c: &Cluster) -> Api<PersistentVolumeClaim> {
    Api::namespaced(c.client.clone(), &c.want.statefulset_namespace)
}

fn path(c: &Cluster, name: &str) -> String {
    format!("persistentvolumeclaim/{}/{name}", c.want.statefulset_namespace)
}

fn fact(c: &Cluster, object: &PersistentVolumeClaim) -> Fact {
    Fact::Claim(object.name_any(), Some(claim(object, c.clock.now())))
}

/// A claim that is only staged is nobody's yet: it bears none of the labels by which operators find their claims.
fn manifest(c: &Cluster, new: &NewClaim) -> Value {
    let recorded = &new.manifest;
    let staged = new.restored_by.is_none();
    let mut labels = if staged { BTreeMap::new() } else { recorded.labels.clone() };
    labels.insert(label::RESTORE.into(), c.want.uid.clone());
    labels.entry(label::MANAGED_BY.into()).or_insert_with(|| label::MANAGED_BY_VALUE.into());
    let mut notes = recorded.annotations.clone();
    let tried = (!new.tried.is_empty()).then(|| new.tried.join(","));
    let own = [
        (annotation::RESTORED_BY, new.restored_by.clone()),
        (annotation::TRIED_NODES, tried),
        (foreign::SELECTED_NODE, new.node.clone()),
    ];
    notes.extend(own.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    let mut spec = json!({
        "accessModes": recorded.access_modes,
        "resources": { "requests": { "storage": recorded.storage } },
    });
    let words = [
        ("storageClassName", &recorded.storage_class_name),
        ("volumeMode", &recorded.volume_mode),
        ("volumeAttributesClassName", &recorded.volume_attributes_class_name),
        ("volumeName", &new.volume),
    ];
    for (field, value) in words {
        if let Some(value) = value {
            spec[field] = json!(value);
        }
    }
    if let Some(snapshot) = &new.snapshot {
        spec["dataSource"] =
            json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot });
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": new.name, "labels": labels, "annotations": notes },
        "spec": spec,
    })
}

/// Sends more than our lean kind has fields for, and reads back what it has.
async fn send(c: &Cluster, new: &NewClaim, dry_run: bool) -> kube::Result<PersistentVolumeClaim> {
    let params = PostParams { dry_run, field_manager: Some(manager::RUNNER.into()) };
    let url = PersistentVolumeClaim::url_path(&(), Some(&c.want.statefulset_namespace));
    let body = serde_json::to_vec(&manifest(c, new)).map_err(kube::Error::SerdeError)?;
    let request = Request::new(url).create(&params, body).map_err(kube::Error::BuildRequest)?;
    c.client.request(request).await
}

/// Post: a claim bears the name. Again: the name is taken, by ourselves.
pub async fn create(c: &Cluster, row: &'static Row, new: &NewClaim) -> Result<Vec<Fact>, Fault> {
    let message = match (&new.volume, &new.snapshot) {
        (Some(volume), _) => format!("on volume {volume}"),
        (None, Some(snapshot)) => format!("from VolumeSnapshot {snapshot}"),
        (None, None) => "fresh".to_owned(),
    };
    let asked = Call { step: row.name, verb: "create", object: path(c, &new.name), uid: None, message: Some(message) };
    match call(c, asked, send(c, new, false)).await {
        Ok(object) => {
            // One for a volume that is there is known by its volume.
            let made = new.volume.is_none().then(|| Sight::Made(object.uid().unwrap_or_default()));
            let made = made.map(|made| Fact::Restore(Box::new(made)));
            Ok(made.into_iter().chain([fact(c, &object)]).collect())
        }
        Err(No::Exists) => taken(c, new).await,
        Err(no) => Err(no.fault()),
    }
}

async fn taken(c: &Cluster, new: &NewClaim) -> Result<Vec<Fact>, Fault> {
    let found = or_absent(api(c).get(&new.name).await).map_err(|_| Fault::Lost)?.ok_or(Fault::Lost)?;
    Ok(vec![fact(c, &found)])
}

/// The claim as it is to be made, as a dry run: admission says its word before the name is looked at.
pub async fn trial(c: &Cluster, new: &NewClaim) -> Result<Sight, Fault> {
    let no = match answered("create", &path(c, &new.name), send(c, new, true)).await? {
        Ok(_) => None,
        Err(kube::Error::Api(status)) if status.code == 409 => None,
        // The old claim goes first; whether there is room for both is another question.
        Err(kube::Error::Api(status)) if status.message.contains("exceeded quota") => None,
        Err(error) => match fault(&error, &path(c, &new.name)) {
            Fault::Refused(refusal) | Fault::Denied(Denial { refusal, judged: true }) => Some(refusal),
            fault => return Err(fault),
        },
    };
    Ok(Sight::Trial(new.name.clone(), no))
}

#[derive(Serialize, Debug)]
struct Body {
    metadata: ObjectMeta,
}

/// Post: to be provisioned for the next node. By uid and resourceVersion. Again: a conflict.
pub async fn steer(c: &Cluster, row: &'static Row, steer: &Steer) -> Result<Vec<Fact>, Fault> {
    let notes = [
        (foreign::SELECTED_NODE.to_owned(), steer.node.clone()),
        (annotation::TRIED_NODES.to_owned(), steer.tried.join(",")),
    ];
    let body = Body {
        metadata: ObjectMeta {
            uid: Some(steer.uid.clone()),
            resource_version: Some(steer.version.clone()),
            annotations: Some(notes.into()),
            ..ObjectMeta::default()
        },
    };
    let message = Some(format!("node {} is next", steer.node));
    let asked = Call { step: row.name, verb: "patch", object: path(c, &steer.name), uid: Some(&steer.uid), message };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let request = async { api(c).patch(&steer.name, &params, &Patch::Merge(&body)).await };
    let object = call(c, asked, request).await.map_err(No::fault)?;
    Ok(vec![fact(c, &object)])
}

/// Post: our marks are off; a label that says who manages it goes if it says us. By uid and resourceVersion. Again: a
/// conflict.
pub async fn unlabel(c: &Cluster, row: &'static Row, of: &Unlabel) -> Result<Vec<Fact>, Fault> {
    let labels = [(label::RESTORE, true), (label::MANAGED_BY, of.managed)];
    let labels: BTreeMap<_, _> =
        labels.into_iter().filter(|(_, ours)| *ours).map(|(key, _)| (key, Value::Null)).collect();
    let notes = [annotation::RESTORED_BY, annotation::TRIED_NODES].map(|key| (key, Value::Null));
    let body = json!({ "metadata": {
        "uid": of.uid,
        "resourceVersion": of.version,
        "labels": labels,
        "annotations": BTreeMap::from(notes),
    } });
    let message = Some("our marks are taken off".to_owned());
    let asked = Call { step: row.name, verb: "patch", object: path(c, &of.name), uid: Some(&of.uid), message };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let request = async { api(c).patch(&of.name, &params, &Patch::Merge(&body)).await };
    let object = call(c, asked, request).await.map_err(No::fault)?;
    Ok(vec![fact(c, &object)])
}

/// By uid. Again: it is gone, which is what was wanted. A finalizer is waited for, never forced.
pub async fn delete(c: &Cluster, row: &'static Row, doomed: &Doomed) -> Result<Vec<Fact>, Fault> {
    let message = Some(doomed.why.to_owned());
    let asked = Call { step: row.name, verb: "delete", object: path(c, &doomed.name), uid: Some(&doomed.uid), message };
    let only = Preconditions { uid: Some(doomed.uid.clone()), resource_version: None };
    let params = DeleteParams {
        preconditions: Some(only),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let api = api(c);
    let left = match call(c, asked, async { api.delete(&doomed.name, &params).await }).await {
        Ok(reply) => reply.left().filter(|object| object.metadata.deletion_timestamp.is_some()),
        Err(No::Absent) => None,
        Err(no) => return Err(no.fault()),
    };
    Ok(vec![Fact::Claim(doomed.name.clone(), left.map(|object| claim(&object, c.clock.now())))])
}
