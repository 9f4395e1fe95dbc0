//! From what is decoded to what the index keeps, and why an object cannot be acted on.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::metrics::interval;
use crate::api::backup::{
    FAILED_JOBS_HISTORY_LIMIT, HOOK_TIMEOUT_SECONDS, MAX_FREEZE_SECONDS, SNAPSHOT_READY_TIMEOUT_SECONDS,
    SUCCESSFUL_JOBS_HISTORY_LIMIT,
};
use crate::api::condition::{ConditionType, Reason};
use crate::api::restore::RestorePhase;
use crate::api::shared::{IntentPhase, Trigger};
use crate::api::slim::{
    BackupSpec, BackupStatus, LastRun, RestoreStatus, Run, SlimBackup, SlimJob, SlimRestore, Target,
};
use crate::api::{FINALIZER, FORMAT, NAME_MAX, annotation, check, label, slim};
use crate::plan::job::Kind;
use crate::plan::launch::entry::{
    Job, Last, Manager, Object, OpenRun, Owned, Policy, Restore, Stage, State, Subject, Uid, Waiting,
};
use crate::plan::launch::verdict::{Flip, Standing};
use crate::plan::quantity;

/// A request is passed on as an argument and kept in names, annotations and status.
const REQUEST_MAX: usize = 256;
/// No schedule that the schema lets pass has more bytes; nobody reads or keeps a longer one.
pub(super) const SCHEDULE_MAX: usize = 4096;
/// What a stop takes beside the thaw.
const GRACE: i64 = 30;
/// Limits beyond this are as good as none.
const LONG: i64 = 100 * 366 * 86_400;

const UNREADABLE: &str = "its spec or status holds a value of a wrong type; apply the object again";

/// None for what no API server would send: an object without uid or name.
pub fn backup(install: &str, object: SlimBackup) -> Option<(Uid, Object)> {
    let (spec, status) = (object.spec.unwrap_or(slim::Leaf::Good(BackupSpec::default())), object.status);
    let status = status.unwrap_or(slim::Leaf::Good(BackupStatus::default()));
    let readable = matches!((&spec, &status), (slim::Leaf::Good(_), slim::Leaf::Good(_)));
    let (spec, status) = (spec.good().unwrap_or_default(), status.good().unwrap_or_default());
    let request = request(&object.metadata, annotation::REQUESTED_AT);
    let manager = manager(install, status.managed_by.as_deref());
    let standing = standing(&status.conditions);
    let policy = policy(&spec, status, request);
    let object =
        object_of(object.metadata, spec.stateful_set_ref, manager, readable, Subject::Backup(Box::new(policy)))?;
    Some(with(object, standing))
}

pub fn restore(install: &str, object: SlimRestore) -> Option<(Uid, Object)> {
    let (spec, status) = (object.spec, object.status.unwrap_or(slim::Leaf::Good(RestoreStatus::default())));
    let readable = !matches!(spec, Some(slim::Leaf::Bad(_))) && matches!(status, slim::Leaf::Good(_));
    let target = spec.and_then(slim::Leaf::good).map(|spec| spec.stateful_set_ref).unwrap_or_default();
    let status = status.good().unwrap_or_default();
    let manager = manager(install, status.managed_by.as_deref());
    let standing = standing(&status.conditions);
    let formats = status.plan.iter().chain(&status.undo_plan).filter_map(|plan| plan.format.clone());
    let restore = Restore {
        aside: aside(&status),
        failed: failed(&status),
        unread: formats.into_iter().find(|format| **format != *FORMAT),
        phase: status.phase,
        try_again: status.run.as_ref().is_some_and(|run| run.try_again == Some(true)),
        run: status.run.map(run),
        undo: request(&object.metadata, annotation::UNDO),
        undoing: status.undo_plan.is_some(),
        undo_deadline: status.undo_deadline,
        owned: Owned { request: status.last_request, waiting: waiting(status.conditions), ..Owned::default() },
    };
    let object = object_of(object.metadata, target, manager, readable, Subject::Restore(Box::new(restore)))?;
    Some(with(object, standing))
}

/// Volumes that wait for the end of the undo window, and their bytes: those that the newest plan has replaced, or after a
/// failure those that were not to be.
fn aside(status: &RestoreStatus) -> (u32, u64) {
    let plan = status.undo_plan.as_ref().or(status.plan.as_ref()).filter(|_| status.undo_deadline.is_some());
    let claims = plan.into_iter().flat_map(|plan| &plan.claims).filter(|claim| claim.old_pv.is_some());
    let bytes = |claim: &slim::Replaced| match claim.claim.as_ref().and_then(|claim| claim.storage.as_ref()) {
        Some(slim::Size::Quantity(text)) => quantity::bytes(text).and_then(|bytes| u64::try_from(bytes).ok()),
        _ => None,
    };
    let add = |(count, sum): (u32, u64), claim| {
        (count.saturating_add(1), sum.saturating_add(bytes(claim).unwrap_or_default()))
    };
    claims.fold((0, 0), add)
}

/// Why a restore has failed, as its condition says.
fn failed(status: &RestoreStatus) -> Option<Reason> {
    let ready = status.conditions.iter().find(|condition| &*condition.r#type == "Ready");
    let reason = || ready.and_then(|condition| condition.reason.as_deref()?.parse().ok()).unwrap_or(Reason::Unknown);
    (status.phase == Some(RestorePhase::Failed)).then(reason)
}

fn with((uid, object): (Uid, Object), standing: Vec<Flip>) -> (Uid, Object) {
    (uid, Object { standing, ..object })
}

/// Ready and Stalled, where they are True or False.
fn standing(conditions: &[slim::Condition]) -> Vec<Flip> {
    let flip = |c: &slim::Condition| {
        let kind = match &*c.r#type {
            "Ready" => Standing::Ready,
            "Stalled" => {
                let reason: Option<Reason> = c.reason.as_deref().and_then(|reason| reason.parse().ok());
                let ours = reason.filter(|reason| matches!(reason, Reason::InvalidSpec | Reason::NeverDue));
                Standing::Stalled(ours.zip(c.observed_generation))
            }
            _ => return None,
        };
        let on = match &*c.status {
            "True" => true,
            "False" => false,
            _ => return None,
        };
        Some(Flip { kind, on, since: c.last_transition_time? })
    };
    conditions.iter().filter_map(flip).take(2).collect()
}

/// None for a Job that lacks what each of ours has.
pub fn job(object: &SlimJob) -> Option<(Uid, Job)> {
    let labels = object.metadata.labels.as_ref()?;
    let notes = object.metadata.annotations.as_ref()?;
    let owner = labels.get(label::UID)?.parse().ok()?;
    let kind: Kind = labels.get(label::KIND)?.parse().ok()?;
    let slot = notes.get(annotation::SLOT)?.as_str().into();
    let attempt = notes.get(annotation::ATTEMPT)?.parse().ok()?;
    let args = object.spec.template.spec.containers.first().map(|container| container.args.as_slice());
    let word = args.and_then(|args| args.iter().skip_while(|arg| &***arg != "--trigger").nth(1));
    let trigger = word.and_then(|word| word.parse().ok()).unwrap_or(Trigger::Manual);
    let uid = object.metadata.uid.as_ref()?.parse().ok()?;
    let (state, ended) = state(object);
    Some((owner, Job::new(uid, kind, slot, attempt, trigger, state, ended)))
}

fn state(object: &SlimJob) -> (State, Option<Timestamp>) {
    let status = &object.status;
    let is = |kind: &str| status.conditions.iter().find(|c| &*c.r#type == kind && &*c.status == "True");
    if let Some(condition) = is("Complete") {
        return (State::Succeeded, status.completion_time.or(condition.last_transition_time));
    }
    if let Some(condition) = is("Failed") {
        let refused = condition.reason.as_deref() == Some("PodFailurePolicy");
        return (State::Failed { refused }, condition.last_transition_time);
    }
    (if status.ready.unwrap_or(0) > 0 { State::Running } else { State::Pending }, None)
}

fn policy(spec: &BackupSpec, status: BackupStatus, request: Option<Box<str>>) -> Policy {
    let hook = |hook: &Option<slim::Hook>| {
        hook.as_ref().map_or(0, |hook| hook.timeout_seconds.unwrap_or(HOOK_TIMEOUT_SECONDS).clamp(0, LONG))
    };
    let freeze = spec.max_freeze_seconds.unwrap_or(MAX_FREEZE_SECONDS).clamp(0, LONG);
    let ready = spec.snapshot_ready_timeout_seconds.unwrap_or(SNAPSHOT_READY_TIMEOUT_SECONDS).clamp(0, LONG);
    let post = hook(&spec.post_backup_hook);
    let limit = |limit: Option<i64>, default: i32| usize::try_from(limit.unwrap_or(default.into())).unwrap_or(0);
    let text = |text: &Option<Box<str>>| text.clone().filter(|text| !text.is_empty());
    Policy {
        interval: interval(spec.schedule.as_deref(), spec.time_zone.as_deref(), status.next_schedule_time),
        schedule: text(&spec.schedule).filter(|text| text.len() <= SCHEDULE_MAX),
        time_zone: text(&spec.time_zone)
            .filter(|zone| &**zone != crate::api::backup::TIME_ZONE && zone.len() <= SCHEDULE_MAX),
        starting_deadline: spec.starting_deadline_seconds.map(|seconds| seconds.clamp(0, LONG)),
        suspend: spec.suspend.unwrap_or(false),
        problem: check::timing_problems(&check::Timing {
            schedule: spec.schedule.as_deref(),
            time_zone: spec.time_zone.as_deref(),
            starting_deadline_seconds: spec.starting_deadline_seconds,
            snapshot_ready_timeout_seconds: spec.snapshot_ready_timeout_seconds,
            max_freeze_seconds: spec.max_freeze_seconds,
            hooks: [&spec.pre_backup_hook, &spec.post_backup_hook].map(|hook| hook.as_ref()?.timeout_seconds),
            history_limits: [spec.successful_jobs_history_limit, spec.failed_jobs_history_limit],
            retention: spec.retention_policy.as_ref(),
        })
        .into_iter()
        .next()
        .map(Into::into),
        keep_succeeded: limit(spec.successful_jobs_history_limit, SUCCESSFUL_JOBS_HISTORY_LIMIT),
        keep_failed: limit(spec.failed_jobs_history_limit, FAILED_JOBS_HISTORY_LIMIT),
        span: hook(&spec.pre_backup_hook) + post + freeze + ready,
        // How many pods there are is the runner's to see: maxFreezeSeconds bounds what a thaw of all may take.
        grace: if post > 0 { freeze + GRACE } else { GRACE },
        request,
        owned: Owned {
            next: status.next_schedule_time,
            last: status.last_schedule_time,
            request: status.last_request,
            waiting: waiting(status.conditions),
        },
        run: status.run.map(run),
        last: status.last_run.map(|last| Box::new(self::last(last))),
        succeeded: status.last_backup_time,
    }
}

fn waiting(conditions: Vec<slim::Condition>) -> Option<Box<Waiting>> {
    let is = |c: &slim::Condition| *c.r#type == *ConditionType::Waiting.as_str() && &*c.status == "True";
    let found = conditions.into_iter().find(is)?;
    let why = found.reason.and_then(|reason| reason.parse().ok()).unwrap_or(Reason::Unknown);
    let since = found.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH);
    Some(Box::new(Waiting { since, why: Some(why), message: found.message.unwrap_or_default() }))
}

fn run(run: Run) -> OpenRun {
    let stage = match run.intent.map(|intent| intent.phase) {
        Some(IntentPhase::Frozen) => Stage::Frozen,
        Some(IntentPhase::Cut) => Stage::Uploading,
        _ => Stage::Other,
    };
    OpenRun { slot: run.slot.unwrap_or_default(), attempt: run.attempt.unwrap_or(1), stage }
}

fn last(last: LastRun) -> Last {
    Last {
        slot: last.slot.unwrap_or_default(),
        attempt: last.attempt.unwrap_or(1),
        trigger: last.trigger.unwrap_or(Trigger::Command),
        outcome: last.outcome,
        reason: last.reason,
        started: last.start_time,
        ended: last.completion_time,
        freeze_seconds: last.freeze_seconds,
        snapshots: last.snapshots.len(),
    }
}

fn manager(install: &str, managed_by: Option<&str>) -> Manager {
    match managed_by {
        None | Some("") => Manager::Nobody,
        Some(by) if by == install => Manager::Us,
        Some(by) => Manager::Another(by.into()),
    }
}

/// An empty request is none; one that could not be passed on is left alone.
fn request(meta: &ObjectMeta, key: &str) -> Option<Box<str>> {
    let value = meta.annotations.as_ref()?.get(key).filter(|value| !value.is_empty())?;
    if value.len() > REQUEST_MAX || value.chars().any(char::is_control) {
        let object = format!("{}/{}", meta.namespace.as_deref()?, meta.name.as_deref()?);
        tracing::warn!(
            object,
            message = format!("annotation {key} is not acted on: give it at most {REQUEST_MAX} printable characters")
        );
        return None;
    }
    Some(value.as_str().into())
}

fn object_of(
    meta: ObjectMeta,
    target: Target,
    manager: Manager,
    readable: bool,
    subject: Subject,
) -> Option<(Uid, Object)> {
    let uid: Uid = meta.uid.as_ref()?.parse().ok()?;
    let (namespace, name): (Box<str>, Box<str>) = (meta.namespace?.into(), meta.name?.into());
    let label = |text: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        text.len() <= 63 && text.chars().all(inner) && !text.is_empty()
    };
    let problem = match () {
        () if !readable => Some(UNREADABLE),
        () if name.len() > NAME_MAX => Some("metadata.name has more than 52 characters; choose a shorter name"),
        () if !label(&target.name) => Some("statefulSetRef.name is not the name of a StatefulSet; correct it"),
        () => None,
    };
    let object = Object {
        created: meta.creation_timestamp?.0,
        leaving: meta.deletion_timestamp.map(|time| time.0),
        held: meta.finalizers.is_some_and(|all| all.iter().any(|name| name == FINALIZER)),
        version: meta.resource_version?.into(),
        generation: meta.generation.unwrap_or_default(),
        statefulset_namespace: target.namespace.filter(|ns| !ns.is_empty() && *ns != namespace),
        statefulset: target.name,
        manager,
        problem: problem.map(Into::into),
        standing: vec![],
        subject,
        namespace,
        name,
    };
    Some((uid, object))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(object: Value) -> Object {
        backup("ops/sts-backup", serde_json::from_value(object).unwrap()).unwrap().1
    }

    fn meta() -> Value {
        json!({ "name": "nightly", "namespace": "shop", "uid": "0a1f0c9e-2f43-4b8e-9d7e-0c51d3e5a7b1",
            "resourceVersion": "7", "creationTimestamp": "2026-03-29T01:30:00Z" })
    }

    /// The sizes are whatever somebody has written.
    #[test]
    fn volumes_set_aside_are_counted_with_their_bytes() {
        let of = |status: Value| {
            let object =
                json!({ "metadata": meta(), "spec": { "statefulSetRef": { "name": "pg" } }, "status": status });
            let (_, object) = restore("ops/sts-backup", serde_json::from_value(object).unwrap()).unwrap();
            assert_eq!(object.problem, None);
            let Subject::Restore(restore) = object.subject else { unreachable!() };
            (restore.aside, restore.failed)
        };
        let claim = |storage: Value| json!({ "pvc": "data-pg-0", "oldPv": "old", "claim": { "storage": storage } });
        let plan = |claims: Value| json!({ "format": "1", "claims": claims });
        let fresh = json!({ "pvc": "data-pg-1", "claim": { "storage": "5Gi" } });
        let old = plan(json!([claim(json!("1Gi")), claim(json!("1500m")), fresh]));
        let kept = json!({ "phase": "Completed", "undoDeadline": "2026-03-29T01:30:00Z", "plan": old });
        assert_eq!(of(kept.clone()), ((2, (1 << 30) + 2), None));
        let mut undone = kept.clone();
        undone["undoPlan"] = plan(json!([claim(json!("2Ki"))]));
        assert_eq!(of(undone).0, (1, 2048), "what an undo has replaced");
        for nonsense in [json!(5), json!({ "a": [1] }), json!(null), json!("x"), json!("9E"), json!("9999999E")] {
            let mut kept = kept.clone();
            kept["plan"] = plan(json!([claim(nonsense.clone()), claim(json!("1Ki"))]));
            let ((count, bytes), _) = of(kept);
            assert!(count == 2 && bytes >= 1024, "{nonsense}: {bytes}");
        }
        let mut held = kept;
        held["undoDeadline"] = json!(null);
        held["phase"] = "Failed".into();
        assert_eq!(of(held.clone()), ((0, 0), Some(Reason::Unknown)));
        held["conditions"] = json!([{ "type": "Ready", "status": "False", "reason": "Forbidden", "message": "" }]);
        assert_eq!(of(held).1, Some(Reason::Forbidden));
    }

    #[test]
    fn the_condition_waiting_is_read_while_it_is_true() {
        let of = |status: &str| {
            let conditions = json!([
                { "type": "Ready", "status": "True", "reason": "BackupCompleted", "message": "" },
                { "type": "Waiting", "status": status, "reason": "NoPlace", "message": "full",
                    "lastTransitionTime": "2026-03-29T01:30:00Z" }
            ]);
            let object = json!({ "metadata": meta(), "spec": { "statefulSetRef": { "name": "pg" } },
                "status": { "conditions": conditions } });
            read(object).owned().waiting.clone()
        };
        let waiting = of("True").unwrap();
        assert_eq!((waiting.why, &*waiting.message), (Some(Reason::NoPlace), "full"));
        assert_eq!(waiting.since, "2026-03-29T01:30:00Z".parse().unwrap());
        assert_eq!(of("False"), None);
    }

    /// The objects that the API server refuses and accepts, by the same tables as the schema's tests.
    #[test]
    fn stored_objects_are_judged_by_the_rules_of_the_schema() {
        let documents = |yaml: &str| -> Vec<Value> {
            let parts = yaml.split("\n---\n").filter(|part| part.contains("\nkind: StatefulSetBackup\n"));
            parts.map(|part| serde_saphyr::from_str(part).unwrap()).collect()
        };
        let problem = |mut object: Value| {
            let name = object["metadata"]["name"].clone();
            object["metadata"] = meta();
            object["metadata"]["name"] = name;
            let object = read(object);
            let Subject::Backup(policy) = object.subject else { unreachable!() };
            object.problem.or(policy.problem)
        };
        for object in documents(include_str!("../../tests/cluster/data/good-objects.yaml")) {
            assert_eq!(problem(object.clone()), None, "{object}");
        }
        let mut judged = 0;
        for object in documents(include_str!("../../tests/cluster/data/bad-objects.yaml")) {
            let Ok(whole) = serde_json::from_value::<crate::api::backup::StatefulSetBackup>(object.clone()) else {
                continue;
            };
            let ours = [
                "schedule",
                "timeZone",
                "startingDeadline",
                "timeoutSeconds",
                "ReadyTimeout",
                "maxFreeze",
                "HistoryLimit",
                "retentionPolicy",
            ];
            let about = |text: &String| ours.iter().any(|word| text.contains(word));
            if let Some(found) = whole.problems().into_iter().find(about) {
                judged += 1;
                assert!(problem(object).is_some(), "{found}");
            }
        }
        assert!(judged > 20, "{judged}");
    }
}
