//! The lift of a fence by hand: whose marks stand on the lock, and what may be done about them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};

use super::restore::{Flow, Request};
use super::{drive_until_told, holder, restore};
use crate::api::backup::StatefulSetBackup;
use crate::api::condition::Reason;
use crate::api::restore::{RestorePhase, StatefulSetRestore};
use crate::api::{FILE_UID, label};
use crate::client::Connection;
use crate::config::Settings;
use crate::error::{Error, Result, or_absent};
use crate::plan::flow::{Exit, Planner};
use crate::plan::name;
use crate::plan::noun::{Open, Refusal, Want};
use crate::plan::restore::{KIND, Restore, lift};
use crate::plan::view::View;
use crate::step::clock::Clock;
use crate::step::cluster::Cluster;
use crate::step::lock;

/// A holder that has not renewed the Lease for 30 s counts as gone.
const PATIENCE: SignedDuration = SignedDuration::from_secs(45);

/// What stands on the lock of a `StatefulSet`.
#[derive(Debug)]
pub enum Found {
    /// Neither mark nor fence.
    Nothing,
    /// Of a run whose object is gone or over; none: a fence without a mark.
    Orphan(Option<Open>),
    /// Of a restore that is Held.
    Held(Box<StatefulSetRestore>),
}

/// # Errors
/// Refused with a sentence that says whose run it is, where its object is there and not Held.
pub async fn look(connection: &Connection, namespace: &str, statefulset: &str) -> Result<Found> {
    let (lock, client) = (name::lease(statefulset), &connection.client);
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let failed = |what: String| move |error| Error::api("get", what, error);
    let lease = or_absent(api.get(&lock).await).map_err(failed(format!("Lease {namespace}/{lock}")))?;
    let Some(lease) = lease else { return Ok(Found::Nothing) };
    let Some(open) = lock::open(&lease) else {
        let fenced = lease.labels().contains_key(label::FENCE);
        return Ok(if fenced { Found::Orphan(None) } else { Found::Nothing });
    };
    let path = format!("{} {}/{}", open.kind, open.namespace, open.name);
    let refuse = |why: String| Err(Error::Refused(Refusal::new(Reason::LockedByOpenRun, why)));
    if open.kind == KIND {
        let api: Api<StatefulSetRestore> = Api::namespaced(client.clone(), &open.namespace);
        let found = or_absent(api.get(&open.name).await).map_err(failed(path.clone()))?;
        return match found.filter(|object| object.uid().as_ref() == Some(&open.uid)) {
            None => Ok(Found::Orphan(Some(open))),
            Some(object) if object.metadata.deletion_timestamp.is_some() => {
                let (ns, name) = (&open.namespace, &open.name);
                refuse(format!(
                    "{path} is being deleted, which ends it: sts-backup run-once restore {ns}/{name} carries that out"
                ))
            }
            Some(object) => of_restore(object, open, &path),
        };
    }
    if open.kind != "StatefulSetBackup" {
        return refuse(format!(
            "the mark on Lease {namespace}/{lock} cannot be read: a newer version may have written it"
        ));
    }
    if open.uid == FILE_UID {
        return refuse(format!(
            "the freeze of run {} of {}/{} is open, which was begun from a file: the same command with that file thaws and \
             closes it (sts-backup run-once backup -f FILE)",
            open.run, open.namespace, open.name
        ));
    }
    let api: Api<StatefulSetBackup> = Api::namespaced(client.clone(), &open.namespace);
    let found = or_absent(api.get(&open.name).await).map_err(failed(path.clone()))?;
    if found.is_some_and(|object| object.uid().as_ref() == Some(&open.uid)) {
        let (run, ns, name) = (&open.run, &open.namespace, &open.name);
        return refuse(format!(
            "{path} has the freeze of run {run} open: its next run thaws and closes it (sts-backup run-once backup {ns}/{name}); if \
             the installation that manages it is gone: sts-backup doctor --take-over {ns}/{name}"
        ));
    }
    Ok(Found::Orphan(Some(open)))
}

fn of_restore(object: StatefulSetRestore, open: Open, path: &str) -> Result<Found> {
    let status = object.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    match (phase, status.run) {
        (RestorePhase::Failed, Some(_)) => Ok(Found::Held(Box::new(object))),
        (RestorePhase::Failed | RestorePhase::Completed | RestorePhase::Undone, _) => Ok(Found::Orphan(Some(open))),
        _ => {
            let (ns, name) = (&open.namespace, &open.name);
            let why = format!(
                "{path} is under way ({phase}) and not Held: let it finish, undo it or delete it; if the installation that \
                 manages it is gone: sts-backup doctor --take-over {ns}/{name}"
            );
            Err(Error::Refused(Refusal::new(Reason::LockedByOpenRun, why)))
        }
    }
}

/// The planner that lifts it, and what it wants.
///
/// # Errors
/// A restore that names no StatefulSet.
pub fn prepare(
    found: &Found,
    settings: &Settings,
    (namespace, statefulset): (&str, &str),
    now: Timestamp,
) -> Result<(Planner<Restore>, Want)> {
    let lock_by = now + PATIENCE;
    if let Found::Held(object) = found {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let attempt = object.status.as_ref().and_then(|status| status.run.as_ref()?.attempt).map(i64::from);
        let request = Request { namespace, name, flow: Flow::Restore, attempt };
        return Ok((lift::held, Want { lock_by, ..restore::want(object, settings, &request, now)? }));
    }
    let uid = if let Found::Orphan(Some(open)) = found { open.uid.clone() } else { String::new() };
    let want = Want {
        me: holder("doctor", namespace, statefulset, settings),
        namespace: namespace.to_owned(),
        name: statefulset.to_owned(),
        uid,
        statefulset: statefulset.to_owned(),
        statefulset_namespace: namespace.to_owned(),
        lock_by,
        ..Want::default()
    };
    Ok((lift::orphan, want))
}

pub async fn lift(connection: &Connection, settings: &Settings, found: &Found, of: (&str, &str)) -> Result<Exit> {
    let clock = Clock::start();
    let (next, want) = prepare(found, settings, of, clock.now())?;
    let cluster = Cluster::new(connection.client.clone(), want.clone(), clock);
    Ok(Box::pin(drive_until_told(&cluster, next, View::new(want))).await?.0)
}
