//! A backup whose policy is a file: nothing of it is in the cluster. Its state lives on the Lease and on the snapshots,
//! so that the same command, run again, takes up what a dead process left open.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};

use super::{Ended, Request, carry_out, want};
use crate::api::backup::{DeletionPolicy, StatefulSetBackup, StatefulSetBackupStatus};
use crate::api::shared::Trigger;
use crate::api::{FILE_UID, annotation};
use crate::client::Connection;
use crate::config::Settings;
use crate::error::{Error, Result, is_definite, or_absent};
use crate::plan::name;
use crate::plan::noun::Want;
use crate::plan::view::View;
use crate::step::clock::Clock;
use crate::step::cluster::Cluster;
use crate::step::lock;

/// What is said before it begins: fields that mean nothing without an object.
pub fn warnings(object: &StatefulSetBackup) -> Vec<&'static str> {
    let spec = &object.spec;
    let owned = spec.deletion_policy() == DeletionPolicy::Delete;
    let all = [
        (
            owned,
            "spec.deletionPolicy: Delete is ignored: there is no object whose deletion could take the snapshots along",
        ),
        (spec.schedule().is_some(), "spec.schedule is ignored: this command runs once, now"),
    ];
    all.into_iter().filter_map(|(ignored, why)| ignored.then_some(why)).collect()
}

/// The object as the flow takes it: in its namespace, with the uid of all that come from files.
fn prepare(mut object: StatefulSetBackup, namespace: Option<&str>, default: &str) -> Result<StatefulSetBackup> {
    let meta = &mut object.metadata;
    let namespace = match (meta.namespace.as_deref(), namespace) {
        (Some(written), Some(given)) if written != given => {
            let message = format!("metadata.namespace {written} contradicts --namespace {given}: give one of them");
            return Err(Error::Usage(message));
        }
        (written, given) => written.or(given).unwrap_or(default).to_owned(),
    };
    if meta.name.as_deref().unwrap_or_default().is_empty() {
        return Err(Error::Usage("metadata.name is missing: the snapshots are labelled with it".into()));
    }
    meta.namespace = Some(namespace);
    meta.uid = Some(FILE_UID.into());
    meta.finalizers = None;
    object.spec.deletion_policy = None;
    object.status = None;
    Ok(object)
}

fn request(object: &StatefulSetBackup) -> Request {
    let namespace = object.namespace().unwrap_or_default();
    Request { namespace, name: object.name_any(), slot: None, trigger: Trigger::Command, attempt: None }
}

pub async fn run_file(
    connection: &Connection,
    settings: &Settings,
    namespace: Option<&str>,
    object: StatefulSetBackup,
) -> Result<Ended> {
    let mut object = prepare(object, namespace, &connection.namespace)?;
    let request = request(&object);
    let clock = Clock::start();
    let asked = want(&object, settings, &request, clock.now())?;
    // An open mark of ours is a journal: its slot is taken up.
    let run = marked(connection, &asked).await?.and_then(|open| open.journal).map(|run| *run);
    object.status = Some(StatefulSetBackupStatus { run, ..StatefulSetBackupStatus::default() });
    let want = want(&object, settings, &request, clock.now())?;
    let cluster = Cluster::of_file(connection.client.clone(), want.clone(), clock, object).dated(&connection.server);
    Box::pin(carry_out(&cluster, View::new(want))).await
}

async fn marked(connection: &Connection, want: &Want) -> Result<Option<crate::plan::noun::Open>> {
    let (namespace, name) = (&want.statefulset_namespace, name::lease(&want.statefulset));
    let api: Api<Lease> = Api::namespaced(connection.client.clone(), namespace);
    let found = or_absent(api.get(&name).await)
        .map_err(|error| Error::api("get", format!("Lease {namespace}/{name}"), error))?;
    Ok(found.as_ref().and_then(lock::open).filter(|open| open.is_of(want)))
}

/// Whose runs a manifest speaks of: those of the object of its name where there is one, else those made from files.
pub async fn want_of(connection: &Connection, namespace: Option<&str>, object: StatefulSetBackup) -> Result<Want> {
    let mut object = prepare(object, namespace, &connection.namespace)?;
    let request = request(&object);
    let api: Api<StatefulSetBackup> = Api::namespaced(connection.client.clone(), &request.namespace);
    match or_absent(api.get(&request.name).await) {
        Ok(Some(found)) => {
            object.metadata.uid.clone_from(&found.metadata.uid);
            if let Some(uid) = found.annotations().get(annotation::ADOPT) {
                object.annotations_mut().entry(annotation::ADOPT.into()).or_insert_with(|| uid.clone());
            }
        }
        Ok(None) => {}
        // Who may not read our kind, or where it is not served, has none.
        Err(error) if is_definite(&error) => {}
        Err(error) => {
            let path = format!("StatefulSetBackup {}/{}", request.namespace, request.name);
            return Err(Error::api("get", path, error));
        }
    }
    want(&object, &Settings::default(), &request, Timestamp::now())
}
