//! The run-once role: find the object, say who we are, drive the flow to its end.

pub mod file;
pub mod handover;
pub mod lift;
pub mod restore;

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::BuildHasher;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::api::annotation;
use crate::api::backup::{self, DeletionPolicy, LastRun, StatefulSetBackup, StatefulSetBackupSpec};
use crate::api::condition::Reason;
use crate::api::shared::Trigger;
use crate::client::Connection;
use crate::config::Settings;
use crate::error::{Error, Result, is_definite, may_pass, sentence};
use crate::plan;
use crate::plan::flow::{Exit, Planner, Step};
use crate::plan::hook::{HookSpec, Pair};
use crate::plan::noun::{BackupWant, Holder, Keep, Refusal, RestoreWant, Stop, Want};
use crate::plan::view::{Fact, Seen, View};
use crate::step::clock::Clock;
use crate::step::cluster::Cluster;
use crate::step::observe::answered;
use crate::step::{Effect, drive, record};

/// First contact is tried so often, a second apart: a pod may start before its network does.
const FIRST_TRIES: u32 = 15;

/// And so often where what is said may pass.
const DENIED_TRIES: u32 = 60;

/// The greatest bound of a time in spec, in seconds.
const LONGEST: i64 = 30 * 86_400;

/// One run of a backup, as asked for on the command line.
#[derive(Debug, Clone)]
pub struct Request {
    pub namespace: String,
    pub name: String,
    /// Default: the open run's, else the time of the request.
    pub slot: Option<String>,
    pub trigger: Trigger,
    /// Default: the open run's, else 1.
    pub attempt: Option<i64>,
}

/// How it ended, and the run as status tells it.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    pub last_run: Option<LastRun>,
}

pub async fn run_backup(connection: &Connection, settings: &Settings, request: &Request) -> Result<Ended> {
    let object: StatefulSetBackup = find(connection, &request.namespace, &request.name).await?;
    let clock = Clock::start();
    let guarded = is_guarded(connection, settings);
    let want = Want { guarded, ..want(&object, settings, request, clock.now())? };
    let cluster = Cluster::new(connection.client.clone(), want.clone(), clock).dated(&connection.server);
    let mut view = View::new(want);
    view.fold(Fact::Record(Box::new(Seen::Known(record::record(&object, &view.want.slot)))));
    Box::pin(carry_out(&cluster, view)).await
}

/// In a pod the rights are the pod's: the author policies see to it that who asks has them too. By hand, from CI and
/// from a file they are those of who asks.
fn is_guarded(connection: &Connection, settings: &Settings) -> bool {
    connection.in_pod && !settings.allow_without_policy
}

async fn carry_out(cluster: &Cluster, view: View) -> Result<Ended> {
    let (exit, view) = Box::pin(drive_until_told(cluster, plan::backup::next, view)).await?;
    let last_run = view.record().ok().and_then(|record| record.status.last_run.clone());
    let ours = |last: &LastRun| last.slot.as_deref() == Some(&view.want.slot);
    Ok(Ended { exit, last_run: last_run.filter(ours) })
}

async fn drive_until_told<S: Step>(cluster: &Cluster, next: Planner<S>, view: View) -> Result<(Exit, View)>
where
    Cluster: Effect<S>,
{
    tokio::select! {
        ended = drive(cluster, next, view) => Ok(ended),
        never = signals(cluster) => match never? {},
    }
}

async fn find<K>(connection: &Connection, namespace: &str, name: &str) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(connection.client.clone(), namespace);
    let path = format!("{} {namespace}/{name}", K::kind(&()));
    let mut tries = 0;
    loop {
        tries += 1;
        match answered("get", &path, api.get(name)).await {
            Ok(Ok(object)) => return Ok(object),
            Ok(Err(error)) if may_pass(&error) && tries < DENIED_TRIES => {
                tracing::warn!(object = path, message = format!("{}: tried again for a minute", sentence(&error)));
                sleep(Duration::from_secs(1)).await;
            }
            Ok(Err(error)) if is_definite(&error) || tries >= FIRST_TRIES => {
                return Err(Error::api("get", path, error));
            }
            Err(_) if tries >= FIRST_TRIES => return Err(Error::Unanswered(format!("cannot get {path}: no answer"))),
            Ok(Err(_)) | Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// SIGTERM and SIGINT ask the flow to stop; the planner says when it is safe to.
async fn signals(cluster: &Cluster) -> Result<Infallible> {
    let listen = |kind| signal(kind).map_err(|error| Error::Config(format!("cannot listen for signals: {error}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            _ = term.recv() => cluster.ask_to_stop(Stop::Sigterm),
            _ = int.recv() => cluster.ask_to_stop(Stop::Sigterm),
        }
    }
}

/// What the object and the command line ask for; whether it is guarded is a matter of the connection.
pub fn want(object: &StatefulSetBackup, settings: &Settings, request: &Request, now: Timestamp) -> Result<Want> {
    let spec = &object.spec;
    let (namespace, name) = (request.namespace.clone(), request.name.clone());
    if spec.stateful_set_ref.name.is_empty() {
        let message =
            format!("StatefulSetBackup {namespace}/{name} names no StatefulSet: set spec.statefulSetRef.name");
        return Err(Error::Refused(Refusal::new(Reason::StatefulSetNotFound, message)));
    }
    let open = object.status.as_ref().and_then(|status| status.run.as_ref());
    let slot = request.slot.clone().or_else(|| open.and_then(|run| run.slot.clone()));
    let flaws = object.problems();
    // Who changes an object that is being deleted is asked for no right: nothing of it counts any more.
    let leaving = object.metadata.deletion_timestamp.is_some();
    let (pre, post) = (spec.pre_backup_hook.as_ref().map(hook), spec.post_backup_hook.as_ref().map(hook));
    let hooks = Pair { pre, post };
    let same = open.filter(|run| run.slot == slot).and_then(|run| run.attempt).map(i64::from);
    Ok(Want {
        me: holder("backup", &namespace, &name, settings),
        secret: secret(),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        statefulset: spec.stateful_set_ref.name.clone(),
        statefulset_namespace: spec.stateful_set_ref.namespace_or(&namespace).to_owned(),
        slot: slot.unwrap_or_else(|| format!("{now:.3}")),
        attempt: request.attempt.or(same).unwrap_or(1),
        job: settings.job_name.clone(),
        lock_by: now + plan::patience::lock(spec, now),
        guarded: false,
        backup: BackupWant {
            trigger: request.trigger,
            templates: spec.claim_templates.clone(),
            class: spec.volume_snapshot_class_name.clone().filter(|name| !name.is_empty()),
            owned: spec.deletion_policy() == DeletionPolicy::Delete,
            hooks: if leaving { Pair::default() } else { hooks },
            quiet: !spec.output_in_status(),
            max_freeze: seconds(spec.max_freeze_seconds()),
            ready_timeout: seconds(spec.snapshot_ready_timeout_seconds()),
            keep: keep(spec).filter(|_| !leaving && flaws.is_empty()),
            flaws,
            adopt: object.annotations().get(annotation::ADOPT).map(|uid| uid.trim().to_owned()),
        },
        restore: RestoreWant::default(),
        namespace,
        name,
    })
}

/// What retention goes by; without a policy nothing is ever deleted.
fn keep(spec: &StatefulSetBackupSpec) -> Option<Keep> {
    let zone_name = spec.time_zone().to_owned();
    let zone = TimeZone::get(&zone_name).ok();
    spec.retention_policy.clone().map(|policy| Keep { policy, zone_name, zone })
}

fn hook(hook: &backup::Hook) -> HookSpec {
    HookSpec {
        argv: hook.command.clone(),
        container: hook.container_name.clone().filter(|name| !name.is_empty()),
        timeout: seconds(hook.timeout_seconds()),
    }
}

/// A word that nobody else knows.
fn secret() -> String {
    let half = |which: u8| RandomState::new().hash_one((which, std::process::id()));
    format!("{:016x}{:016x}", half(0), half(1))
}

/// Of an object that breaks the rules as well: no number of it leaves the calendar.
fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds.clamp(1, LONGEST))
}

/// A new identity for every process.
fn holder(kind: &str, namespace: &str, name: &str, settings: &Settings) -> Holder {
    let token = RandomState::new().hash_one(std::process::id());
    Holder(format!("{kind}/{namespace}/{name}/{}-{token:016x}", settings.host()))
}
