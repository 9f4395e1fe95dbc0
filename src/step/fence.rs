//! The `StatefulSet` in a restore: kept at 0 by the fence, scaled, its claims kept; and the pods that it leaves behind.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde::Serialize;

use super::Fault;
use super::call::{Call, No, call, fault};
use super::cluster::Cluster;
use super::lens::{pod, target};
use super::observe::{answered, get};
use crate::api::lean::{ClaimRetention, Pod, StatefulSet};
use crate::api::{FENCE_POLICY, manager};
use crate::error::{is_definite, may_pass, sentence};
use crate::plan::flow::Row;
use crate::plan::restore::sight::{Fence, Sight};
use crate::plan::restore::{Doomed, Keep, Scale};
use crate::plan::view::{Fact, Read};

#[derive(Serialize, Debug)]
struct Body<S> {
    metadata: ObjectMeta,
    spec: S,
}

#[derive(Serialize, Debug)]
struct Replicas {
    replicas: u32,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Claims {
    persistent_volume_claim_retention_policy: ClaimRetention,
}

fn api(c: &Cluster) -> Api<StatefulSet> {
    Api::namespaced(c.client.clone(), &c.want.statefulset_namespace)
}

fn path(c: &Cluster) -> String {
    format!("statefulset/{}/{}", c.want.statefulset_namespace, c.want.statefulset)
}

fn precondition(uid: &str, version: &str) -> ObjectMeta {
    ObjectMeta { uid: Some(uid.to_owned()), resource_version: Some(version.to_owned()), ..ObjectMeta::default() }
}

/// Post: claims outlive pods and `StatefulSet` as `keep` says. By uid and resourceVersion. Again: a conflict.
pub async fn retain(c: &Cluster, row: &'static Row, keep: &Keep) -> Result<Vec<Fact>, Fault> {
    let (scaled, deleted) = (keep.retention.scaled.clone(), keep.retention.deleted.clone());
    let message = format!("persistentVolumeClaimRetentionPolicy: whenScaled {scaled}, whenDeleted {deleted}");
    let policy = ClaimRetention { when_scaled: Some(scaled), when_deleted: Some(deleted) };
    let spec = Claims { persistent_volume_claim_retention_policy: policy };
    let body = Body { metadata: precondition(&keep.uid, &keep.version), spec };
    let asked = Call { step: row.name, verb: "patch", object: path(c), uid: Some(&keep.uid), message: Some(message) };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let api = api(c);
    let request = async { api.patch(&c.want.statefulset, &params, &Patch::Merge(&body)).await };
    let object = call(c, asked, request).await.map_err(No::fault)?;
    Ok(vec![Fact::Target(Some(target(&object)))])
}

/// Post: spec.replicas. By uid and resourceVersion. Again: a conflict.
pub async fn scale(c: &Cluster, row: &'static Row, scale: &Scale) -> Result<Vec<Fact>, Fault> {
    let spec = Replicas { replicas: scale.replicas };
    let body = Body { metadata: precondition(&scale.uid, &scale.version), spec };
    let message = Some(format!("replicas {}", scale.replicas));
    let asked = Call { step: row.name, verb: "patch", object: path(c), uid: Some(&scale.uid), message };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let api = api(c);
    let request = async { api.patch_scale(&c.want.statefulset, &params, &Patch::Merge(&body)).await };
    call(c, asked, request).await.map_err(No::fault)?;
    Ok(vec![Fact::Stale(Read::Target)])
}

/// By uid. Again: it is gone, which is what was wanted.
pub async fn evict(c: &Cluster, row: &'static Row, doomed: &Doomed) -> Result<Vec<Fact>, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let object = format!("pod/{namespace}/{}", doomed.name);
    let message = Some(format!("the StatefulSet is at 0, and it is {}", doomed.why));
    let asked = Call { step: row.name, verb: "delete", object, uid: Some(&doomed.uid), message };
    let only = Preconditions { uid: Some(doomed.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    let api: Api<Pod> = Api::namespaced(c.client.clone(), namespace);
    let left = match call(c, asked, async { api.delete(&doomed.name, &params).await }).await {
        Ok(reply) => reply.left().filter(|object| object.metadata.deletion_timestamp.is_some()),
        Err(No::Absent) => None,
        Err(no) => return Err(no.fault()),
    };
    Ok(vec![Fact::Pod(doomed.name.clone(), left.map(|object| pod(&object, c.clock.now())))])
}

/// Our own scale-up, sent as a dry run: while the fence stands it is refused, to us as well.
pub async fn probe(c: &Cluster) -> Result<Sight, Fault> {
    let body = serde_json::json!({ "spec": Replicas { replicas: 1 } });
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let (api, body) = (api(c), Patch::Merge(&body));
    let refused = match answered("patch", &path(c), api.patch_scale(&c.want.statefulset, &params, &body)).await? {
        Ok(_) => false,
        Err(error) if may_pass(&error) => return Err(fault(&error, &path(c))),
        Err(error) if is_definite(&error) => sentence(&error).contains(FENCE_POLICY),
        Err(_) => return Err(Fault::Lost),
    };
    let fence = match refused {
        true => Fence::Up,
        false if is_installed(&c.client).await? => Fence::Rising,
        false => Fence::Missing,
    };
    if fence == Fence::Missing {
        tracing::warn!(
            message = format!(
                "the admission policy {FENCE_POLICY} is not installed: nobody is kept from scaling the StatefulSet up \
                 during the swap; its replicas are looked at before each destructive step instead"
            )
        );
    }
    Ok(Sight::Fence(fence, c.clock.now()))
}

/// Bound, so that it decides. Who may not look takes it for missing: the dry run has the last word.
async fn is_installed(client: &Client) -> Result<bool, Fault> {
    let api: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    match get(&api, FENCE_POLICY, &format!("validatingadmissionpolicybinding/{FENCE_POLICY}")).await {
        Ok(found) => Ok(found.is_some()),
        Err(Fault::Refused(_) | Fault::Denied(_)) => Ok(false),
        Err(Fault::Lost) => Err(Fault::Lost),
    }
}
