//! A restore, its undo and its release: the same object, the same journal, three planners.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{LONGEST, drive_until_told, find, holder, is_guarded, seconds};
use crate::api::annotation;
use crate::api::condition::Reason;
use crate::api::restore::{RestorePhase, StatefulSetRestore, StatefulSetRestoreStatus};
use crate::client::Connection;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::plan;
use crate::plan::flow::{Exit, Planner};
use crate::plan::noun::{BackupWant, Refusal, RestoreWant, Want};
use crate::plan::restore::Restore;
use crate::plan::restore::preview::Preview;
use crate::plan::restore::sight::Sight;
use crate::plan::view::{Fact, View};
use crate::step::clock::Clock;
use crate::step::cluster::Cluster;
use crate::step::record;

/// How long the lock of another's run is waited for.
const LOCK: SignedDuration = SignedDuration::from_mins(10);

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Restore,
    /// `force`: although ordinals outside the plan run.
    Undo {
        force: bool,
    },
    Release,
}

/// As asked for on the command line.
#[derive(Debug, Clone)]
pub struct Request {
    pub namespace: String,
    pub name: String,
    pub flow: Flow,
    /// Default: the open run's, else 1.
    pub attempt: Option<i64>,
}

/// How it ended, and what status tells of it.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    pub summary: Option<Summary>,
}

/// The last line of the log: status without the plans.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    #[serde(flatten)]
    pub status: StatefulSetRestoreStatus,
}

impl Summary {
    fn of(status: StatefulSetRestoreStatus) -> Summary {
        let run_id = status.plan.as_ref().and_then(|plan| plan.run_id.clone());
        let (staged, made_claims) = (vec![], BTreeMap::new());
        let bare = StatefulSetRestoreStatus { plan: None, undo_plan: None, staged, made_claims, run: None, ..status };
        Summary { run_id, status: StatefulSetRestoreStatus { conditions: vec![], managed_by: None, ..bare } }
    }
}

pub async fn run(connection: &Connection, settings: &Settings, request: &Request) -> Result<Ended> {
    let object: StatefulSetRestore = find(connection, &request.namespace, &request.name).await?;
    let clock = Clock::start();
    let guarded = is_guarded(connection, settings);
    let want = Want { guarded, ..want(&object, settings, request, clock.now())? };
    let cluster = Cluster::new(connection.client.clone(), want.clone(), clock);
    let mut view = View::new(want);
    view.fold(Fact::Restore(Box::new(Sight::Record(Box::new(record::restore_record(&object))))));
    let planner: Planner<Restore> = match request.flow {
        Flow::Restore => plan::restore::next,
        Flow::Undo { .. } => plan::restore::undo::next,
        Flow::Release => plan::restore::release::next,
    };
    let (exit, view) = Box::pin(drive_until_told(&cluster, planner, view)).await?;
    let status = view.restore.record().ok().map(|record| record.status.clone());
    Ok(Ended { exit, summary: status.map(Summary::of) })
}

/// The restore as it would be: everything is looked at and nothing is changed.
pub async fn preview(
    connection: &Connection,
    settings: &Settings,
    object: &StatefulSetRestore,
    request: &Request,
) -> Result<Preview> {
    let clock = Clock::start();
    let guarded = is_guarded(connection, settings);
    let want = Want { guarded, ..want(object, settings, request, clock.now())? };
    let cluster = Cluster::new(connection.client.clone(), want.clone(), clock);
    let (exit, view) = Box::pin(drive_until_told(&cluster, plan::restore::preview::next, View::new(want))).await?;
    match exit {
        Exit::Refused(refusal) => Err(Error::Refused(refusal)),
        Exit::Done(_) => plan::restore::preview::preview(&view)
            .map_err(|read| Error::Config(format!("{read:?} was not read: this is a mistake of the program"))),
        Exit::Again(why) | Exit::Superseded(why) | Exit::Waits(why) => Err(Error::Unanswered(why)),
    }
}

/// What the object and the command line ask for; whether it is guarded is a matter of the connection.
pub fn want(object: &StatefulSetRestore, settings: &Settings, request: &Request, now: Timestamp) -> Result<Want> {
    let spec = &object.spec;
    let (namespace, name) = (request.namespace.clone(), request.name.clone());
    if spec.stateful_set_ref.name.is_empty() {
        let message =
            format!("StatefulSetRestore {namespace}/{name} names no StatefulSet: set spec.statefulSetRef.name");
        return Err(Error::Refused(Refusal::new(Reason::StatefulSetNotFound, message)));
    }
    let slot = slot(object, request, now);
    let open = object.status.as_ref().and_then(|status| status.run.as_ref());
    let same = open.filter(|run| run.slot.as_ref() == Some(&slot)).and_then(|run| run.attempt).map(i64::from);
    Ok(Want {
        secret: String::new(),
        me: holder("restore", &namespace, &name, settings),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        statefulset: spec.stateful_set_ref.name.clone(),
        statefulset_namespace: spec.stateful_set_ref.namespace_or(&namespace).to_owned(),
        slot: slot.clone(),
        attempt: request.attempt.or(same).unwrap_or(1),
        job: settings.job_name.clone(),
        lock_by: now + LOCK,
        guarded: false,
        backup: BackupWant::default(),
        restore: RestoreWant {
            source: spec.source_stateful_set().to_owned(),
            backup: spec.backup_name.clone().filter(|name| !name.is_empty()),
            run_id: spec.run_id.clone().filter(|id| !id.is_empty()),
            point_in_time: spec.point_in_time,
            snapshot_names: spec.snapshot_names.clone(),
            strategy: spec.strategy(),
            scale_down: spec.scale_down(),
            deletion_timeout: seconds(spec.pvc_deletion_timeout_seconds()),
            uncovered: spec.uncovered(),
            stop_timeout: spec.stop_timeout_seconds.map(seconds),
            stage_timeout: seconds(spec.stage_timeout_seconds()),
            ready_timeout: seconds(spec.ready_timeout_seconds()),
            on_failure: spec.on_failure(),
            undo_window: SignedDuration::from_secs(spec.undo_window_seconds().clamp(0, LONGEST)),
            flaws: object.problems(),
            release: spec.release_old_volumes(),
            hash: hash(object),
            force: request.flow == Flow::Undo { force: true } || slot.ends_with(annotation::FORCED),
        },
        namespace,
        name,
    })
}

/// Of an undo the value that asks for it: the annotation's, an open undo's, else, by hand, this instant.
fn slot(object: &StatefulSetRestore, request: &Request, now: Timestamp) -> String {
    let Flow::Undo { .. } = request.flow else { return String::new() };
    let status = object.status.as_ref();
    // One that is Held is answered: it takes a new request to go on with it.
    let under_way = status.filter(|status| status.phase != Some(RestorePhase::Failed));
    let open = under_way.and_then(|status| status.run.as_ref()?.slot.clone()).filter(|slot| !slot.is_empty());
    let handled = status.and_then(|status| status.last_request.as_ref());
    let asked = object.annotations().get(annotation::UNDO);
    // A Job's pod that comes back finds its request answered; who types the command asks anew.
    let asked = asked.filter(|value| request.attempt.is_some() || handled != Some(*value));
    open.or_else(|| asked.cloned()).unwrap_or_else(|| format!("{now:.3}"))
}

/// Every default that a release has had for a field of the spec. The API server writes defaults into what is stored: what
/// has one of them counts as not written, so that the same manifest is the same request also under a release that has a
/// field more, or another default. A default that changes is added; none is ever taken away.
fn defaults() -> [(&'static str, Vec<Value>); 9] {
    use crate::api::restore::{
        PVC_DELETION_TIMEOUT_SECONDS, READY_TIMEOUT_SECONDS, STAGE_TIMEOUT_SECONDS, UNDO_WINDOW_SECONDS,
    };
    [
        ("strategy", vec![json!("Staged")]),
        ("scaleDown", vec![json!(true)]),
        ("pvcDeletionTimeoutSeconds", vec![json!(PVC_DELETION_TIMEOUT_SECONDS)]),
        ("uncovered", vec![json!("Refuse")]),
        ("stageTimeoutSeconds", vec![json!(STAGE_TIMEOUT_SECONDS)]),
        ("readyTimeoutSeconds", vec![json!(READY_TIMEOUT_SECONDS)]),
        ("onFailure", vec![json!("Rollback")]),
        ("undoWindowSeconds", vec![json!(UNDO_WINDOW_SECONDS)]),
        ("releaseOldVolumes", vec![json!("Auto")]),
    ]
}

/// Of the spec as it was written: the same request has the same.
fn hash(object: &StatefulSetRestore) -> String {
    let mut spec = serde_json::to_value(&object.spec).unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        for (field, values) in defaults() {
            if fields.get(field).is_some_and(|value| values.contains(value)) {
                fields.remove(field);
            }
        }
    }
    let digest = Sha256::digest(spec.to_string());
    plan::name::hex(&digest[..8])
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use super::*;

    /// Of which request an undo is, with a Job's attempt or typed by hand.
    fn slot_of(
        phase: &str,
        run: Option<&str>,
        last: Option<&str>,
        asked: Option<&str>,
        attempt: Option<i64>,
    ) -> String {
        let mut object = json!({ "metadata": { "name": "r" }, "spec": { "statefulSetRef": { "name": "pg" } },
            "status": { "phase": phase, "lastRequest": last } });
        if let Some(run) = run {
            object["status"]["run"] = json!({ "slot": run });
        }
        if let Some(asked) = asked {
            object["metadata"]["annotations"] = json!({ annotation::UNDO: asked });
        }
        let (namespace, name, flow) = ("shop".into(), "r".into(), Flow::Undo { force: false });
        let request = Request { namespace, name, flow, attempt };
        slot(&serde_json::from_value(object).unwrap(), &request, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_undo_knows_which_request_it_answers() {
        let (a, b, now) = (Some("a"), Some("b"), "1970-01-01T00:00:00.000Z");
        for (phase, run, last, asked, attempt, expected) in [
            ("Completed", None, None, a, None, "a"),
            ("Completed", None, None, None, None, now),
            ("Completed", None, a, a, None, now),    // typed anew
            ("Completed", None, a, a, Some(1), "a"), // the pod of an old Job: it finds its request answered
            ("Restoring", a, a, b, Some(2), "a"),    // goes on with what is open
            ("Failed", a, a, a, Some(2), "a"),       // Held, and nobody has asked anew
            ("Failed", a, a, b, Some(1), "b"),       // Held, and asked for once more
            ("Failed", a, a, b, None, "b"),
            ("Failed", Some(""), None, b, None, "b"),
        ] {
            assert_eq!(
                slot_of(phase, run, last, asked, attempt),
                expected,
                "{phase} {run:?} {last:?} {asked:?} {attempt:?}"
            );
        }
    }

    fn hash_of(spec: &Value) -> String {
        hash(&serde_json::from_value(json!({ "metadata": { "name": "r" }, "spec": spec })).unwrap())
    }

    /// As the API server stores it: with every default of the schema.
    #[test]
    fn the_same_manifest_is_the_same_request_with_and_without_defaults() {
        let written = json!({ "statefulSetRef": { "name": "pg" }, "backupName": "nightly" });
        let crd = serde_json::to_value(StatefulSetRestore::crd()).unwrap();
        let fields = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
        let (mut stored, mut filled) = (written.clone(), 0);
        for (field, schema) in fields.as_object().unwrap() {
            if let Some(default) = schema.get("default") {
                stored[field] = default.clone();
                filled += 1;
            }
        }
        assert!(filled > 5, "{filled}");
        assert_eq!(hash_of(&stored), hash_of(&written));
        for (field, value) in [("runId", json!("20261127-010000")), ("strategy", json!("InPlace"))] {
            let mut other = written.clone();
            other[field] = value;
            assert_ne!(hash_of(&other), hash_of(&written), "{field}");
        }
    }
}
