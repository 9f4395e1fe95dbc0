//! `PersistentVolume`s: reclaim policy and marks, and whose they are. Each by uid and resourceVersion: what the plan
//! names is changed, or nothing.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Call, No, call};
use super::cluster::Cluster;
use super::lens::{claim, volume};
use super::observe::get;
use crate::api::lean::{PersistentVolume, PersistentVolumeClaim};
use crate::api::{annotation, label, manager};
use crate::plan::flow::Row;
use crate::plan::restore::{Reserve, Tend};
use crate::plan::view::{Fact, Read};

#[derive(Serialize, Debug)]
struct Body<'a> {
    metadata: Meta<'a>,
    spec: Spec<'a>,
}

/// `null` takes a label or annotation away.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    uid: &'a str,
    resource_version: &'a str,
    labels: BTreeMap<&'static str, Option<&'a str>>,
    annotations: BTreeMap<&'static str, Option<String>>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    persistent_volume_reclaim_policy: &'a str,
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() }
}

/// Post: reclaim policy and marks are these. Again: a conflict, since the version has moved on.
pub async fn tend(c: &Cluster, row: &'static Row, tend: &Tend) -> Result<Vec<Fact>, Fault> {
    let marks = &tend.marks;
    let labels = [(label::RESTORE, &marks.restore), (label::ROLE, &marks.role), (label::CLAIM, &marks.claim)];
    let body = Body {
        metadata: Meta {
            uid: &tend.uid,
            resource_version: &tend.version,
            labels: labels.into_iter().map(|(key, value)| (key, value.as_deref())).collect(),
            annotations: BTreeMap::from([
                (annotation::RECLAIM_POLICY, marks.policy.clone()),
                (annotation::RESTORE, marks.of.clone()),
                (annotation::UNDO_DEADLINE, marks.deadline.map(|at| at.to_string())),
            ]),
        },
        spec: Spec { persistent_volume_reclaim_policy: &tend.policy },
    };
    let message = match (&marks.role, &marks.claim) {
        (Some(role), Some(claim)) => format!("{}: {role} volume of claim {claim}", tend.policy),
        _ => format!("{}: our marks are taken off", tend.policy),
    };
    let object = format!("persistentvolume/{}", tend.pv);
    let asked = Call { step: row.name, verb: "patch", object, uid: Some(&tend.uid), message: Some(message) };
    let api: Api<PersistentVolume> = Api::all(c.client.clone());
    let request = async { api.patch(&tend.pv, &params(), &Patch::Merge(&body)).await };
    let object = call(c, asked, request).await.map_err(No::fault)?;
    Ok(vec![Fact::Volume(tend.pv.clone(), Some(volume(&object)))])
}

/// A live claim stands on the volume: repeated on a bound volume the patch would make that claim Lost. A uid never comes
/// back, so what is not there now is not there when the patch arrives.
async fn bound(c: &Cluster, reserve: &Reserve) -> Result<Option<Fact>, Fault> {
    if reserve.from.is_none() {
        return Ok(None); // it is bound to none, as its resourceVersion says; and who frees it may look at claims no more
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(c.client.clone(), &reserve.namespace);
    let found =
        get(&api, &reserve.name, &format!("persistentvolumeclaim/{}/{}", reserve.namespace, reserve.name)).await?;
    let its = found.filter(|claim| claim.uid() == reserve.from);
    Ok(its.map(|object| Fact::Claim(reserve.name.clone(), Some(claim(&object, c.clock.now())))))
}

/// Pre: no live claim is bound to it. Post: reserved for the claim of that name, or, with a uid, Released from it. Again: a test fails.
pub async fn reserve(c: &Cluster, row: &'static Row, reserve: &Reserve) -> Result<Vec<Fact>, Fault> {
    if let Some(live) = bound(c, reserve).await? {
        return Ok(vec![live, Fact::Stale(Read::Volume(reserve.pv.clone()))]);
    }
    let mut of = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": reserve.namespace,
        "name": reserve.name,
    });
    if let Some(uid) = &reserve.uid {
        of["uid"] = json!(uid);
    }
    let test = |path: &str, value: &str| json!({ "op": "test", "path": path, "value": value });
    let from = reserve.from.iter().map(|uid| test("/spec/claimRef/uid", uid));
    let tests = [test("/metadata/resourceVersion", &reserve.version)].into_iter().chain(from);
    let replace = json!({ "op": "replace", "path": "/spec/claimRef", "value": of });
    let patch = Value::Array(tests.chain([replace]).collect());
    let patch = serde_json::from_value::<json_patch::Patch>(patch).map_err(|_| Fault::Lost)?;
    let object = format!("persistentvolume/{}", reserve.pv);
    let state = if reserve.uid.is_some() { "Released from" } else { "reserved for" };
    let message = Some(format!("{state} claim {}/{}", reserve.namespace, reserve.name));
    let asked = Call { step: row.name, verb: "patch", object, uid: None, message };
    let api: Api<PersistentVolume> = Api::all(c.client.clone());
    let request = async { api.patch(&reserve.pv, &params(), &Patch::Json::<()>(patch)).await };
    match call(c, asked, request).await {
        Ok(object) => Ok(vec![Fact::Volume(reserve.pv.clone(), Some(volume(&object)))]),
        // A test that fails is answered as an invalid object (422): it has changed since we looked.
        Err(No::Refused(_)) => Err(Fault::Lost),
        Err(no) => Err(no.fault()),
    }
}
