//! The only writer of status: server-side apply of a typed body that carries the resourceVersion it was decided
//! on. Any other write to the object makes it a conflict, which is a lost reply: read again, decide again. The
//! watcher's writes are in a room of their own.

mod watched;

use std::cell::{Cell, RefCell};
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::watched::{Judged, Watched, judged, unmanage, watched};
use super::call::{Call, No, call};
use super::cluster::Cluster;
use super::lock::{open, roll};
use super::observe::get;
use super::tell::tell;
use super::{Fault, stock};
use crate::api::backup::StatefulSetBackup;
use crate::api::condition::Reason;
use crate::api::restore::StatefulSetRestore;
use crate::api::shared::RunStatus;
use crate::api::{API_VERSION, annotation, manager};
use crate::plan::backup::Hold;
use crate::plan::flow::Row;
use crate::plan::journal::{self, Record};
use crate::plan::noun::Refusal;
use crate::plan::report::Write;
use crate::plan::restore::{self, sight::Sight};
use crate::plan::text::head;
use crate::plan::view::{Fact, Seen};

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
        return Ok(vec![fact(c, get(&api(c), &want.name, &named::<StatefulSetBackup>(c)).await?.as_ref())]);
    };
    if !file.written.get() {
        let lease = get(c.lock.api(), c.lock.name(), &c.lock.path()).await?;
        let open = lease.as_ref().and_then(open);
        let roll = lease.as_ref().and_then(roll).unwrap_or_default();
        let status = journal::recover(open.as_ref(), &stock::all(c).await?, &roll, want, c.clock.now());
        file.object.borrow_mut().status = Some(status);
    }
    Ok(vec![fact(c, Some(&file.object.borrow()))])
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Apply<'a, S> {
    api_version: &'static str,
    kind: &'a str,
    metadata: ObjectMeta,
    status: &'a S,
}

/// One of our two kinds.
trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug
{
}
impl Kind for StatefulSetBackup {}
impl Kind for StatefulSetRestore {}

fn named<K: Kind>(c: &Cluster) -> String {
    format!("{}/{}/{}", K::kind(&()).to_lowercase(), c.want.namespace, c.want.name)
}

fn api<K: Kind>(c: &Cluster) -> Api<K> {
    Api::namespaced(c.client.clone(), &c.want.namespace)
}

fn metadata(c: &Cluster, version: &str) -> ObjectMeta {
    let (uid, version) = (Some(c.want.uid.clone()), Some(version.to_owned()));
    ObjectMeta { uid, resource_version: version, ..ObjectMeta::default() }
}

/// Bytes of one text in status.
const TEXT: usize = 4096;

/// Bytes of all of it: the API server stores no object of more than 1.5 MiB.
const WHOLE: usize = 1024 * 1024;

/// The sentences of a status, each cut to what a reader can use.
fn bound<'a>(message: &'a mut Option<String>, conditions: &'a mut [Condition], run: &'a mut Option<RunStatus>) {
    let told = run.iter_mut().flat_map(|run| {
        let intent = run.intent.iter_mut().flat_map(|intent| &mut intent.message);
        run.message.iter_mut().chain(intent)
    });
    let of = conditions.iter_mut().map(|one| &mut one.message);
    for text in message.iter_mut().chain(of).chain(told).filter(|text| text.len() > TEXT) {
        *text = head(text, TEXT).into_owned();
    }
}

/// What the API server would not store is not sent.
fn too_large<K: Kind>(c: &Cluster, status: &impl Serialize) -> Option<No> {
    let size = serde_json::to_string(status).map_or(usize::MAX, |text| text.len());
    let message = || format!("{}: its status would take {size} bytes, and {WHOLE} are allowed", named::<K>(c));
    (size > WHOLE).then(|| No::Refused(Refusal::new(Reason::InvalidSpec, message())))
}

async fn apply<K: Kind>(
    c: &Cluster,
    row: &'static Row,
    version: &str,
    status: &(impl Serialize + Debug),
    message: Option<String>,
) -> Result<K, No> {
    if let Some(no) = too_large::<K>(c, status) {
        return Err(no);
    }
    let (name, namespace) = (Some(c.want.name.clone()), Some(c.want.namespace.clone()));
    let metadata = ObjectMeta { name, namespace, ..metadata(c, version) };
    let body = Apply { api_version: API_VERSION, kind: &K::kind(&()), metadata, status };
    let asked = Call { step: row.name, verb: "patch", object: named::<K>(c), uid: Some(&c.want.uid), message };
    let params = PatchParams::apply(manager::RUNNER).force();
    let api = api::<K>(c);
    let object: K =
        call(c, asked, async { api.patch_status(&c.want.name, &params, &Patch::Apply(&body)).await }).await?;
    let Some(nulls) = leftover(status, &object) else { return Ok(object) };
    // An apply takes nothing away that somebody else has put there, and whoever reads it would take it for ours.
    let message = Some("takes off what is not ours".to_owned());
    let asked = Call { step: row.name, verb: "patch", object: named::<K>(c), uid: Some(&c.want.uid), message };
    let metadata = self::metadata(c, object.meta().resource_version.as_deref().unwrap_or_default());
    let body = serde_json::json!({ "metadata": metadata, "status": nulls });
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    call(c, asked, async { api.patch_status(&c.want.name, &params, &Patch::Merge(&body)).await }).await
}

/// The fields of status that are the watcher's, and the conditions, which are told apart by their types.
const NOT_OURS: [&str; 5] = ["conditions", "lastRequest", "lastScheduleTime", "managedBy", "nextScheduleTime"];

/// A merge patch that takes away what the object's status has and ours has not; none: there is nothing of the kind.
fn leftover(sent: &impl Serialize, stored: &impl Serialize) -> Option<Value> {
    let sent = serde_json::to_value(sent).ok()?;
    let mut stored = serde_json::to_value(stored).ok()?["status"].take();
    let fields = stored.as_object_mut()?;
    for field in NOT_OURS {
        fields.remove(field);
    }
    nulls(&sent, &stored)
}

fn nulls(sent: &Value, stored: &Value) -> Option<Value> {
    let (sent, stored) = (sent.as_object()?, stored.as_object()?);
    let gone = stored.iter().filter(|(_, value)| !value.is_null()).filter_map(|(key, value)| match sent.get(key) {
        None | Some(Value::Null) => Some((key.clone(), Value::Null)),
        Some(sent) => Some((key.clone(), nulls(sent, value)?)),
    });
    let gone: serde_json::Map<_, _> = gone.collect();
    (!gone.is_empty()).then_some(Value::Object(gone))
}

#[derive(Serialize, Debug)]
struct Meta {
    metadata: ObjectMeta,
}

async fn finalize<K: Kind>(c: &Cluster, row: &'static Row, hold: &Hold) -> Result<K, No> {
    let finalizers = Some(hold.finalizers.clone());
    let body = Meta { metadata: ObjectMeta { finalizers, ..metadata(c, &hold.version) } };
    let message = Some(format!("finalizers: [{}]", hold.finalizers.join(", ")));
    let asked = Call { step: row.name, verb: "patch", object: named::<K>(c), uid: Some(&c.want.uid), message };
    let params = PatchParams { field_manager: Some(manager::RUNNER.into()), ..PatchParams::default() };
    let api = api::<K>(c);
    call(c, asked, async { api.patch(&c.want.name, &params, &Patch::Merge(&body)).await }).await
}

/// What a write of our object came to. Without it all that is left is to leave: so a definite no is taken, [`Fact::Mute`].
fn answer<K: Kind>(c: &Cluster, reply: Result<K, No>, fact: fn(&Cluster, Option<&K>) -> Fact) -> Result<Fact, Fault> {
    match reply {
        Ok(object) => Ok(fact(c, Some(&object))),
        Err(No::Absent) => Ok(Fact::Mute(replaced::<K>(c))),
        Err(no) => Err(no.fault()),
    }
}

/// Post: the status is what `write` says. Again: a conflict, since the version has moved on.
pub async fn write(c: &Cluster, row: &'static Row, write: &Write) -> Result<Vec<Fact>, Fault> {
    c.name_run(write.run);
    let mut status = write.status.clone();
    bound(&mut status.message, &mut status.conditions, &mut status.run);
    let facts = if let Ledger::File(file) = &c.ledger {
        file.change(c, |object| object.status = Some(status))
    } else {
        let reply = apply(c, row, &write.version, &status, status.message.clone()).await;
        vec![answer(c, reply, fact)?]
    };
    if !matches!(facts[..], [Fact::Mute(_)]) {
        for note in &write.notes {
            tell::<StatefulSetBackup>(c, note).await;
        }
    }
    Ok(facts)
}

/// Post: the finalizers are those of `hold`. Again: a conflict, since the version has moved on.
pub async fn hold(c: &Cluster, row: &'static Row, hold: &Hold) -> Result<Vec<Fact>, Fault> {
    if let Ledger::File(file) = &c.ledger {
        return Ok(file.change(c, |object| object.metadata.finalizers = Some(hold.finalizers.clone())));
    }
    Ok(vec![answer(c, finalize(c, row, hold).await, fact)?])
}

/// A restore's object as it is now.
pub async fn read_restore(c: &Cluster) -> Result<Vec<Fact>, Fault> {
    let found = get(&api::<StatefulSetRestore>(c), &c.want.name, &named::<StatefulSetRestore>(c)).await?;
    Ok(vec![restore_fact(c, found.as_ref())])
}

/// Post: the status is what `write` says. Again: a conflict, since the version has moved on.
pub async fn write_restore(c: &Cluster, row: &'static Row, write: &restore::Write) -> Result<Vec<Fact>, Fault> {
    c.name_run(write.run);
    let mut status = write.status.clone();
    bound(&mut status.message, &mut status.conditions, &mut status.run);
    let reply = apply(c, row, &write.version, &status, status.message.clone()).await;
    let fact = answer(c, reply, restore_fact)?;
    if !matches!(fact, Fact::Mute(_)) {
        for note in &write.notes {
            tell::<StatefulSetRestore>(c, note).await;
        }
    }
    Ok(vec![fact])
}

/// Post: the finalizers are those of `hold`. Again: a conflict, since the version has moved on.
pub async fn hold_restore(c: &Cluster, row: &'static Row, hold: &Hold) -> Result<Vec<Fact>, Fault> {
    Ok(vec![answer(c, finalize(c, row, hold).await, restore_fact)?])
}

fn restore_fact(c: &Cluster, object: Option<&StatefulSetRestore>) -> Fact {
    match object.filter(|object| object.uid().as_ref() == Some(&c.want.uid)) {
        Some(object) => Fact::Restore(Box::new(Sight::Record(Box::new(restore_record(object))))),
        None => Fact::Mute(replaced::<StatefulSetRestore>(c)),
    }
}

pub fn restore_record(object: &StatefulSetRestore) -> restore::journal::Record {
    let status = object.status.clone().unwrap_or_default();
    restore::journal::Record {
        version: object.resource_version().unwrap_or_default(),
        uid: object.uid().unwrap_or_default(),
        leaving: object.metadata.deletion_timestamp.is_some(),
        finalizers: object.metadata.finalizers.clone().unwrap_or_default(),
        created: object.creation_timestamp().map(|time| time.0).unwrap_or_default(),
        undo: object.annotations().get(annotation::UNDO).cloned(),
        journal: restore::own::read(&status, &object.spec.stateful_set_ref.name, &object.uid().unwrap_or_default()),
        status,
    }
}

/// The object bears our name but is another.
fn replaced<K: Kind>(c: &Cluster) -> Refusal {
    let (kind, want) = (K::kind(&()), &c.want);
    let message = format!(
        "{kind} {}/{} was deleted, or deleted and created anew: this run was for uid {}",
        want.namespace, want.name, want.uid
    );
    Refusal::new(Reason::Superseded, message)
}

/// Our object as the planner knows it; another of its name is none of ours.
pub fn fact(c: &Cluster, object: Option<&StatefulSetBackup>) -> Fact {
    match object.filter(|object| object.uid().as_ref() == Some(&c.want.uid)) {
        Some(object) => Fact::Record(Box::new(Seen::Known(record(object, &c.want.slot)))),
        None => Fact::Mute(replaced::<StatefulSetBackup>(c)),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_have_left_in_a_status_is_found_at_any_depth() {
        let sent = json!({ "phase": "Ready", "lastRun": { "id": "1", "outcome": null }, "history": [] });
        let stored = |status: Value| json!({ "spec": {}, "status": status });
        let mine = json!({ "phase": "Ready", "lastRun": { "id": "1" }, "history": [{ "id": "0" }],
            "managedBy": "ops/x", "conditions": [{}], "lastRequest": "now" });
        assert_eq!(leftover(&sent, &stored(mine.clone())), None, "the watcher's fields stay");
        let mut forged = mine;
        forged["run"] = json!({ "id": "1" });
        forged["lastRun"]["outcome"] = "Succeeded".into();
        let gone = json!({ "run": null, "lastRun": { "outcome": null } });
        assert_eq!(leftover(&sent, &stored(forged)), Some(gone));
        assert_eq!(leftover(&sent, &json!({})), None);
    }
}
