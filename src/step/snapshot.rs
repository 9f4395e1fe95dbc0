//! `VolumeSnapshot`s: made, sealed, deleted. A name that is taken is looked at.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::params::PropagationPolicy;
use serde::Serialize;

use super::Fault;
use super::call::{Call, No, call};
use super::cluster::Cluster;
use super::observe::snap;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent, VolumeSnapshotSource, VolumeSnapshotSpec};
use crate::api::{API_VERSION, FORMAT, annotation, label, manager};
use crate::plan;
use crate::plan::backup::{Doomed, NewSnapshot, Seal};
use crate::plan::flow::Row;
use crate::plan::known::{Content, Snapshot};
use crate::plan::noun::Refusal;
use crate::plan::prune::{Prune, Purge};
use crate::plan::restore::Pin;
use crate::plan::restore::sight::Sight;
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
        snap.policy_uid == c.want.uid && snap.epoch == new.epoch && snap.token.as_ref() == Some(&new.token)
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
        (annotation::TOKEN, new.token.clone()),
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
            owner_references: want.backup.owned.then(|| vec![owner]),
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

/// Post: which restores use it. By uid and resourceVersion. Again: a conflict.
pub async fn pin(c: &Cluster, row: &'static Row, pin: &Pin) -> Result<Vec<Fact>, Fault> {
    let joined = |by: &str| pin.pinned.iter().map(String::as_str).collect::<Vec<_>>().join(by);
    let value = (!pin.pinned.is_empty()).then(|| joined(","));
    let body = serde_json::json!({ "metadata": {
        "uid": pin.uid,
        "resourceVersion": pin.version,
        "annotations": { annotation::PINNED_BY: value },
    } });
    let message = Some(format!("restores that use it: [{}]", joined(", ")));
    let asked = Call { step: row.name, verb: "patch", object: path(c, &pin.name), uid: Some(&pin.uid), message };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let api = api(c);
    let object = call(c, asked, async { api.patch(&pin.name, &params, &Patch::Merge(&body)).await }).await;
    let seen = Sight::Source(pin.name.clone(), Box::new(Some(Snapshot::of(&object.map_err(No::fault)?))));
    Ok(vec![Fact::Restore(Box::new(seen))])
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
    let why = format!("run {} is {}", doomed.run, doomed.why);
    let left = remove(c, row, &doomed.name, &doomed.uid, None, why).await?;
    Ok(vec![Fact::Snap(doomed.name.clone(), left.as_ref().and_then(|left| snap(left, c.clock.now())))])
}

/// By uid and resourceVersion. Again: it is gone, which is what was wanted.
pub async fn prune(c: &Cluster, row: &'static Row, prune: &Prune) -> Result<Vec<Fact>, Fault> {
    let why = format!("run {}: {}", prune.run, prune.why);
    let left = remove(c, row, &prune.name, &prune.uid, Some(&prune.version), why).await?;
    let left = left.as_ref().map(|object| Box::new(Snapshot::of(object)));
    Ok(vec![Fact::Prune(plan::prune::Fact::Dropped(prune.name.clone(), prune.run, left))])
}

/// What is left of it while something holds it.
async fn remove(
    c: &Cluster,
    row: &'static Row,
    name: &str,
    uid: &str,
    version: Option<&str>,
    why: String,
) -> Result<Option<VolumeSnapshot>, Fault> {
    let asked = Call { step: row.name, verb: "delete", object: path(c, name), uid: Some(uid), message: Some(why) };
    let only = Preconditions { uid: Some(uid.to_owned()), resource_version: version.map(ToOwned::to_owned) };
    let params = DeleteParams {
        preconditions: Some(only),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let api = api(c);
    match call(c, asked, async { api.delete(name, &params).await }).await {
        Ok(reply) => Ok(reply.left().filter(|object| object.metadata.deletion_timestamp.is_some())),
        Err(No::Absent) => Ok(None),
        Err(no) => Err(no.fault()),
    }
}

/// Post: the content's deletionPolicy is Delete. By uid and resourceVersion. Again: the same word.
pub async fn purge(c: &Cluster, row: &'static Row, purge: &Purge) -> Result<Vec<Fact>, Fault> {
    #[derive(Serialize, Debug)]
    struct Body {
        metadata: ObjectMeta,
        spec: Spec,
    }
    #[derive(Serialize, Debug)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        deletion_policy: &'static str,
    }
    let body = Body {
        metadata: ObjectMeta {
            uid: Some(purge.uid.clone()),
            resource_version: Some(purge.version.clone()),
            ..ObjectMeta::default()
        },
        spec: Spec { deletion_policy: "Delete" },
    };
    let asked = Call {
        step: row.name,
        verb: "patch",
        object: format!("volumesnapshotcontent//{}", purge.content),
        uid: Some(&purge.uid),
        message: Some(format!("spec.retentionPolicy.purgeRetained: VolumeSnapshot {} is to go", purge.snapshot)),
    };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let contents: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
    let request = async { contents.patch(&purge.content, &params, &Patch::Merge(&body)).await };
    let found = match call(c, asked, request).await {
        Ok(object) => Some(Content::of(&object)),
        Err(No::Absent) => None,
        Err(no) => return Err(no.fault()),
    };
    Ok(vec![Fact::Prune(plan::prune::Fact::Content(purge.content.clone(), Ok(found)))])
}
