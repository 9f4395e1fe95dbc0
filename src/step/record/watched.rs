//! The watcher's two writes of a status: what is due and what waits, which it owns throughout; and what it says of a spec
//! that no run can begin with, which the runner's next status takes over. Beside them the one by hand that lets another
//! watcher have the object.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{TEXT, head};
use crate::api::backup::BackupPhase;
use crate::api::condition::{ConditionType, Reason};
use crate::api::{API_VERSION, manager};
use crate::plan::launch::entry::{Object, Owned, Uid};
use crate::plan::launch::verdict::Verdict;

/// The watcher's fields of one object's status.
#[derive(Debug)]
pub struct Watched<'a> {
    pub object: &'a Object,
    pub uid: Uid,
    pub owned: &'a Owned,
    /// `managedBy`
    pub install: &'a str,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Apply<S> {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    status: S,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct WatchedStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_schedule_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_schedule_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_request: Option<&'a str>,
    managed_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<[Condition; 1]>,
}

impl Watched<'_> {
    /// One that is over is said to be False: whoever else has come to own it cannot keep it True.
    fn waiting(&self) -> Option<[Condition; 1]> {
        let waiting = self.owned.waiting.as_ref()?;
        Some([Condition {
            type_: ConditionType::Waiting.to_string(),
            status: if waiting.why.is_some() { "True" } else { "False" }.into(),
            reason: waiting.why.unwrap_or(Reason::NoPlace).to_string(),
            message: waiting.message.to_string(),
            observed_generation: Some(self.object.generation),
            last_transition_time: Time(waiting.since),
        }])
    }
}

/// Post: the watcher's fields are these. Again: a conflict, since the version has moved on.
pub async fn watched<K>(client: Client, fields: &Watched<'_>, kind: &'static str) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let owned = fields.owned;
    let status = WatchedStatus {
        next_schedule_time: owned.next,
        last_schedule_time: owned.last,
        last_request: owned.request.as_deref(),
        managed_by: fields.install,
        conditions: fields.waiting(),
    };
    apply(client, (fields.object, fields.uid), kind, manager::WATCHER, status).await
}

/// What the watcher says of one object's spec.
#[derive(Debug)]
pub struct Judged<'a> {
    pub object: &'a Object,
    pub uid: Uid,
    pub verdict: &'a Verdict,
}

#[derive(Serialize, Debug)]
struct JudgedStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<BackupPhase>,
    message: String,
    conditions: Vec<Condition>,
}

/// Post: status says so. Again: a conflict, since the version has moved on.
pub async fn judged<K>(client: Client, fields: &Judged<'_>, kind: &'static str) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let verdict = fields.verdict;
    let conditions = verdict.conditions.iter().map(|set| Condition {
        type_: set.kind.to_string(),
        status: set.on.map_or("Unknown", |on| if on { "True" } else { "False" }).into(),
        reason: set.reason.to_string(),
        message: head(&set.message, TEXT).into_owned(),
        observed_generation: Some(fields.object.generation),
        last_transition_time: Time(set.since),
    });
    let message = head(&verdict.message, TEXT).into_owned();
    let status = JudgedStatus { phase: verdict.phase, message, conditions: conditions.collect() };
    apply(client, (fields.object, fields.uid), kind, manager::VERDICT, status).await
}

/// Post: no installation manages it. Again: a conflict, since the version has moved on.
pub async fn unmanage<K>(api: &Api<K>, object: &K) -> kube::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let meta = object.meta();
    let patch = json!({
        "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
        "status": { "managedBy": null },
    });
    let name = meta.name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

async fn apply<K, S>(
    client: Client,
    (object, uid): (&Object, Uid),
    kind: &'static str,
    manager: &str,
    status: S,
) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    S: Serialize + Debug,
{
    let metadata = ObjectMeta {
        name: Some(object.name.to_string()),
        namespace: Some(object.namespace.to_string()),
        uid: Some(uid.to_string()),
        resource_version: Some(object.version.to_string()),
        ..ObjectMeta::default()
    };
    let body = Apply { api_version: API_VERSION, kind, metadata, status };
    let params = PatchParams::apply(manager).force();
    let api: Api<K> = Api::namespaced(client, &object.namespace);
    api.patch_status(&object.name, &params, &Patch::Apply(&body)).await
}
