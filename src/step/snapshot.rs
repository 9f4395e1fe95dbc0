//! `VolumeSnapshot`s: made, sealed, deleted. Ownership rests on labels; a name that is taken is looked at.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::params::PropagationPolicy;
use serde::Serialize;

use super::Fault;
use super::call::{Call, No, call};
use super::cluster::Cluster;
use super::observe::snap;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotSource, VolumeSnapshotSpec};
use crate::api::{API_VERSION, FORMAT, annotation, label, manager};
use crate::plan::backup::{Doomed, NewSnapshot, Seal};
use crate::plan::flow::Row;
use crate::plan::noun::Refusal;
use crate::plan::view::Fact;

fn api(c: &Cluster) -> Api<VolumeSnapshot> {
    Api::namespaced(c.client.clone(), &c.want.statefulset_namespace)
}

fn path(c: &Cluster, name: &str) -> String {
    format!("volumesnapshot/{}/{name}", c.want.statefulset_namespace)
}

/// Pre: the intent of this run stands. Again: the name is taken, by ourselves.
pub async fn create(c: &Cluster, row: &'static Row, new: &NewSnapshot) -> Result<Vec<Fact>, Fault> {
    let asked = Call { step: row.name, verb: "create", object: path(c, &new.name), uid: None, message: None };
    let params = PostParams { field_manager: Some(manager::RUNNER.into()), ..PostParams::default() };
    let body = manifest(c, new)?;
    let api = api(c);
    let object = match call(c, asked, api.create(&params, &body)).await {
        Ok(object) => object,
        Err(No::Exists) => api.get(&new.name).await.map_err(|_| Fault::Lost)?,
        Err(no) => return Err(no.fault()),
    };
    let ours = snap(&object, c.clock.now()).filter(|snap| {
        snap.policy_uid == c.want.uid && snap.run == new.run && snap.epoch == new.epoch && snap.claim == new.claim
    });
    Ok(vec![match ours {
        Some(snap) => Fact::Snap(new.name.clone(), Some(snap)),
        None => Fact::Foreign(new.run, new.name.clone()),
    }])
}

fn manifest(c: &Cluster, new: &NewSnapshot) -> Result<VolumeSnapshot, Fault> {
    let want = &c.want;
    let labels = [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE.to_owned()),
        (label::STATEFULSET, want.statefulset.clone()),
        (label::POLICY, want.name.clone()),
        (label::POLICY_NAMESPACE, want.namespace.clone()),
        (label::POLICY_UID, want.uid.clone()),
        (label::RUN, new.run.to_string()),
        (label::CLAIM_TEMPLATE, new.claim.template.clone()),
        (label::ORDINAL, new.claim.ordinal.to_string()),
    ];
    let claim = serde_json::to_string(&new.manifest).map_err(|error| {
        let message = format!("claim {} cannot be recorded: {error}", new.pvc);
        Fault::Refused(Refusal::new(crate::api::condition::Reason::SnapshotFailed, message))
    })?;
    let notes = [
        (annotation::CLAIM, claim),
        (annotation::RUN_SIZE, new.size.to_string()),
        (annotation::TEMPLATE_HASH, new.template_hash.clone()),
        (annotation::REPLICAS, new.replicas.to_string()),
        (annotation::TRANSITIONS, new.epoch.to_string()),
        (annotation::FORMAT, FORMAT.to_owned()),
    ];
    let owner = OwnerReference {
        api_version: API_VERSION.into(),
        kind: "StatefulSetBackup".into(),
        name: want.name.clone(),
        uid: want.uid.clone(),
        ..OwnerReference::default()
    };
    let own = |(key, value): (&str, String)| (key.to_owned(), value);
    Ok(VolumeSnapshot {
        metadata: ObjectMeta {
            name: Some(new.name.clone()),
            labels: Some(labels.into_iter().map(own).collect()),
            annotations: Some(notes.into_iter().map(own).collect()),
            owner_references: want.owned.then(|| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: VolumeSnapshotSpec {
            volume_snapshot_class_name: Some(new.class.clone()),
            source: VolumeSnapshotSource {
                persistent_volume_claim_name: Some(new.pvc.clone()),
                ..VolumeSnapshotSource::default()
            },
        },
        ..VolumeSnapshot::default()
    })
}

/// Pre: the run's cut is recorded. Again: the same words.
pub async fn seal(c: &Cluster, row: &'static Row, seal: &Seal) -> Result<Vec<Fact>, Fault> {
    #[derive(Serialize, Debug)]
    struct Body {
        metadata: ObjectMeta,
    }
    let notes = [
        (annotation::CUT.to_owned(), seal.cut.as_nanosecond().to_string()),
        (annotation::CONSISTENCY.to_owned(), seal.consistency.to_string()),
    ];
    let body = Body {
        metadata: ObjectMeta { uid: Some(seal.uid.clone()), annotations: Some(notes.into()), ..ObjectMeta::default() },
    };
    let asked =
        Call { step: row.name, verb: "patch", object: path(c, &seal.name), uid: Some(&seal.uid), message: None };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let api = api(c);
    call(c, asked, async { api.patch(&seal.name, &params, &Patch::Merge(&body)).await }).await.map_err(No::fault)?;
    Ok(vec![Fact::Sealed(seal.uid.clone())])
}

/// By uid. Again: it is gone, which is what was wanted.
pub async fn delete(c: &Cluster, row: &'static Row, doomed: &Doomed) -> Result<Vec<Fact>, Fault> {
    let asked = Call {
        step: row.name,
        verb: "delete",
        object: path(c, &doomed.name),
        uid: Some(&doomed.uid),
        message: Some(format!("run {} is {}", doomed.run, doomed.why)),
    };
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(doomed.uid.clone()), ..Preconditions::default() }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let api = api(c);
    let left = match call(c, asked, async { api.delete(&doomed.name, &params).await }).await {
        Ok(reply) => reply.left().and_then(|object| snap(&object, c.clock.now())).filter(|snap| snap.leaving),
        Err(No::Absent) => None,
        Err(no) => return Err(no.fault()),
    };
    Ok(vec![Fact::Snap(doomed.name.clone(), left)])
}
