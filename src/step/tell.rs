//! Events: what a run and the watcher tell people beside status. Best effort: no run waits long for one, and none
//! fails for one.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, Resource};

use super::cluster::Cluster;
use super::record::Ledger;
use crate::api::API_VERSION;
use crate::plan::flow::Verb;
use crate::plan::report::Note;
use crate::plan::text::{escape, head, tail};

/// What telling needs of a role.
pub const VERBS: &[Verb] = &[("events.k8s.io", "events", "create")];

/// How long a run waits for one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that the API server takes of a note, and of a reporting instance.
const NOTE: usize = 1024;
const INSTANCE: usize = 128;

/// Tells it on the object and on the `StatefulSet`.
pub(super) async fn tell<K: Resource<DynamicType = ()>>(c: &Cluster, note: &Note) {
    let want = &c.want;
    let kind = K::kind(&()).into_owned();
    // Of a StatefulSetBackup: Backup.
    let action = kind.trim_start_matches("StatefulSet").to_owned();
    let ours = ObjectReference {
        api_version: Some(API_VERSION.into()),
        kind: Some(kind),
        name: Some(want.name.clone()),
        namespace: Some(want.namespace.clone()),
        uid: Some(want.uid.clone()),
        ..ObjectReference::default()
    };
    let target = ObjectReference {
        api_version: Some("apps/v1".into()),
        kind: Some("StatefulSet".into()),
        name: Some(want.statefulset.clone()),
        namespace: Some(want.statefulset_namespace.clone()),
        // `kubectl describe` shows only what bears it.
        uid: c.set(),
        ..ObjectReference::default()
    };
    let me = c.want.me.to_string();
    let teller = Teller { controller: "sts-backup.io/runner", instance: &me, action: &action, now: c.clock.now() };
    let on_ours = async {
        if matches!(c.ledger, Ledger::Object) {
            publish(&c.client, &teller, note, ours).await;
        }
    };
    futures::future::join(on_ours, publish(&c.client, &teller, note, target)).await;
}

/// Who tells an Event.
#[derive(Debug)]
pub struct Teller<'a> {
    pub controller: &'static str,
    pub instance: &'a str,
    pub action: &'a str,
    pub now: Timestamp,
}

/// Best effort, within its time.
pub async fn publish(client: &Client, teller: &Teller<'_>, note: &Note, regarding: ObjectReference) {
    let (namespace, now) = (regarding.namespace.clone().unwrap_or_default(), teller.now);
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name(&regarding, now)),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: Some(teller.action.into()),
        reason: Some(note.reason.to_string()),
        note: Some(head(&escape(&note.message), NOTE).into_owned()),
        regarding: Some(regarding),
        reporting_controller: Some(teller.controller.into()),
        reporting_instance: Some(tail(teller.instance, INSTANCE).to_owned()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let why = match tokio::time::timeout(PATIENCE, api.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => crate::error::sentence(&error),
        Err(_) => "no answer".to_owned(),
    };
    tracing::warn!(message = format!("Event {} was not written: {why}", note.reason));
}

/// One name for each object and instant: a StatefulSet and its policy may bear the same name.
fn name(regarding: &ObjectReference, now: Timestamp) -> String {
    let kind = regarding.kind.clone().unwrap_or_default().to_lowercase();
    format!("{}.{kind}.{:x}", regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond())
}
