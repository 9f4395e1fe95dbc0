//! The only writer of status: server-side apply of a typed body that carries the resourceVersion it was decided
//! on. Any other write to the object makes it a conflict, which is a lost reply: read again, decide again.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Fault;
use super::call::{Call, No, call};
use super::cluster::Cluster;
use super::lock::open;
use super::observe::{get, own, replaced};
use super::stock;
use crate::api::backup::{StatefulSetBackup, StatefulSetBackupStatus};
use crate::api::{API_VERSION, manager};
use crate::plan::backup::Hold;
use crate::plan::flow::{Row, Verb};
use crate::plan::journal::{self, Record};
use crate::plan::launch::entry::{Object, Owned, Uid};
use crate::plan::report::{Note, Write};
use crate::plan::view::{Fact, Seen};

/// What telling needs of a role; what writing status needs stands with its step.
pub const VERBS: &[Verb] = &[("events.k8s.io", "events", "create")];

/// Events are best effort: no run waits longer for one.
const EVENT: Duration = Duration::from_secs(2);

/// What plays the part of the object.
pub(super) enum Ledger {
    /// The object itself, in the API server.
    Object,
    /// A manifest in this process: what it forgets stands in the Lease's open mark and on the snapshots.
    File(Box<File>),
}

pub(super) struct File {
    object: RefCell<StatefulSetBackup>,
    /// We have written since: nobody knows better. Else it is as Lease and snapshots tell.
    written: Cell<bool>,
}

impl Ledger {
    pub fn of_file(object: StatefulSetBackup) -> Ledger {
        Ledger::File(Box::new(File { object: RefCell::new(object), written: Cell::new(false) }))
    }
}

impl File {
    fn change(&self, c: &Cluster, change: impl FnOnce(&mut StatefulSetBackup)) -> Vec<Fact> {
        change(&mut self.object.borrow_mut());
        self.written.set(true);
        vec![fact(c, Some(&self.object.borrow()))]
    }
}

/// The object as it is now. Of a run without one that has written nothing yet: as recovered.
pub async fn read(c: &Cluster) -> Result<Vec<Fact>, Fault> {
    let want = &c.want;
    let Ledger::File(file) = &c.ledger else {
        let path = format!("statefulsetbackup/{}/{}", want.namespace, want.name);
        return match get(&own(c), &want.name, &path).await {
            Ok(object) => Ok(vec![fact(c, object.as_ref())]),
            Err(Fault::Refused(refusal)) => Ok(vec![Fact::Mute(refusal)]),
            Err(Fault::Lost) => Err(Fault::Lost),
        };
    };
    if !file.written.get() {
        let lease = get(c.lock.api(), c.lock.name(), &c.lock.path()).await?;
        let open = lease.as_ref().and_then(open);
        let status = journal::recover(open.as_ref(), &stock::all(c).await?, want, c.clock.now());
        file.object.borrow_mut().status = Some(status);
    }
    Ok(vec![fact(c, Some(&file.object.borrow()))])
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Apply<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    status: &'a StatefulSetBackupStatus,
}

/// Post: the status is what `write` says. Again: a conflict, since the version has moved on.
pub async fn write(c: &Cluster, row: &'static Row, write: &Write) -> Result<Vec<Fact>, Fault> {
    let want = &c.want;
    c.name_run(write.run);
    if let Ledger::File(file) = &c.ledger {
        let facts = file.change(c, |object| object.status = Some(write.status.clone()));
        for note in &write.notes {
            tell(c, note).await;
        }
        return Ok(facts);
    }
    let body = Apply {
        api_version: API_VERSION,
        kind: "StatefulSetBackup",
        metadata: ObjectMeta {
            name: Some(want.name.clone()),
            namespace: Some(want.namespace.clone()),
            uid: Some(want.uid.clone()),
            resource_version: Some(write.version.clone()),
            ..ObjectMeta::default()
        },
        status: &write.status,
    };
    let asked = Call {
        step: row.name,
        verb: "patch",
        object: format!("statefulsetbackup/{}/{}", want.namespace, want.name),
        uid: Some(&want.uid),
        message: write.status.message.clone(),
    };
    let params = PatchParams::apply(manager::RUNNER).force();
    let request = async { own(c).patch_status(&want.name, &params, &Patch::Apply(&body)).await };
    match call(c, asked, request).await {
        Ok(object) => {
            for note in &write.notes {
                tell(c, note).await;
            }
            Ok(vec![fact(c, Some(&object))])
        }
        Err(No::Absent) => Ok(vec![Fact::Mute(replaced(c))]),
        Err(No::Refused(refusal)) => Ok(vec![Fact::Mute(refusal)]),
        Err(No::Exists | No::Stale | No::Unknown) => Err(Fault::Lost),
    }
}

#[derive(Serialize, Debug)]
struct Meta {
    metadata: ObjectMeta,
}

/// Post: the finalizers are those of `hold`. Again: a conflict, since the version has moved on.
pub async fn hold(c: &Cluster, row: &'static Row, hold: &Hold) -> Result<Vec<Fact>, Fault> {
    let want = &c.want;
    if let Ledger::File(file) = &c.ledger {
        return Ok(file.change(c, |object| object.metadata.finalizers = Some(hold.finalizers.clone())));
    }
    let body = Meta {
        metadata: ObjectMeta {
            uid: Some(want.uid.clone()),
            resource_version: Some(hold.version.clone()),
            finalizers: Some(hold.finalizers.clone()),
            ..ObjectMeta::default()
        },
    };
    let asked = Call {
        step: row.name,
        verb: "patch",
        object: format!("statefulsetbackup/{}/{}", want.namespace, want.name),
        uid: Some(&want.uid),
        message: Some(format!("finalizers: [{}]", hold.finalizers.join(", "))),
    };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    match call(c, asked, async { own(c).patch(&want.name, &params, &Patch::Merge(&body)).await }).await {
        Ok(object) => Ok(vec![fact(c, Some(&object))]),
        Err(No::Absent) => Ok(vec![Fact::Mute(replaced(c))]),
        Err(No::Refused(refusal)) => Ok(vec![Fact::Mute(refusal)]),
        Err(No::Exists | No::Stale | No::Unknown) => Err(Fault::Lost),
    }
}

/// Our object as the planner knows it; another of its name is none of ours.
pub fn fact(c: &Cluster, object: Option<&StatefulSetBackup>) -> Fact {
    match object.filter(|object| object.uid().as_ref() == Some(&c.want.uid)) {
        Some(object) => Fact::Record(Box::new(Seen::Known(record(object, &c.want.slot)))),
        None => Fact::Mute(replaced(c)),
    }
}

pub fn record(object: &StatefulSetBackup, slot: &str) -> Record {
    let status = object.status.clone().unwrap_or_default();
    let open = status.run.as_ref().map(|run| (run.slot.clone().unwrap_or_default(), run.attempt.map_or(1, i64::from)));
    Record {
        version: object.resource_version().unwrap_or_default(),
        uid: object.uid().unwrap_or_default(),
        finalizers: object.metadata.finalizers.clone().unwrap_or_default(),
        leaving: object.metadata.deletion_timestamp.is_some(),
        journal: journal::read(&status, slot),
        open,
        status,
    }
}

/// Tells it on the object and on the `StatefulSet`.
async fn tell(c: &Cluster, note: &Note) {
    let want = &c.want;
    let ours = ObjectReference {
        api_version: Some(API_VERSION.into()),
        kind: Some("StatefulSetBackup".into()),
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
        ..ObjectReference::default()
    };
    let me = c.want.me.to_string();
    let teller = Teller { controller: "sts-backup.io/runner", instance: &me, action: "Backup", now: c.clock.now() };
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
    pub action: &'static str,
    pub now: Timestamp,
}

/// Best effort, within its time.
pub async fn publish(client: &Client, teller: &Teller<'_>, note: &Note, regarding: ObjectReference) {
    let (namespace, now) = (regarding.namespace.clone().unwrap_or_default(), teller.now);
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", regarding.name.clone().unwrap_or_default(), now.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: Some(teller.action.into()),
        reason: Some(note.reason.to_string()),
        note: Some(note.message.chars().take(1000).collect()),
        regarding: Some(regarding),
        reporting_controller: Some(teller.controller.into()),
        reporting_instance: Some(teller.instance.chars().take(128).collect()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let why = match tokio::time::timeout(EVENT, api.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => crate::error::sentence(&error),
        Err(_) => "no answer".to_owned(),
    };
    tracing::warn!(message = format!("Event {} was not written: {why}", note.reason));
}

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
struct WatchedApply<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    status: WatchedStatus<'a>,
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
}

/// Post: the watcher's fields are these. Again: a conflict, since the version has moved on.
pub async fn watched<K>(client: Client, fields: &Watched<'_>, kind: &'static str) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let (object, owned) = (fields.object, fields.owned);
    let body = WatchedApply {
        api_version: API_VERSION,
        kind,
        metadata: ObjectMeta {
            name: Some(object.name.to_string()),
            namespace: Some(object.namespace.to_string()),
            uid: Some(fields.uid.to_string()),
            resource_version: Some(object.version.to_string()),
            ..ObjectMeta::default()
        },
        status: WatchedStatus {
            next_schedule_time: owned.next,
            last_schedule_time: owned.last,
            last_request: owned.request.as_deref(),
            managed_by: fields.install,
        },
    };
    let params = PatchParams::apply(manager::WATCHER).force();
    let api: Api<K> = Api::namespaced(client, &object.namespace);
    api.patch_status(&object.name, &params, &Patch::Apply(&body)).await
}
