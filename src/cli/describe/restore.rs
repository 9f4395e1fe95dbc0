//! A StatefulSetRestore: what was asked for, where it stands, and for each claim which volume went and which came.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;

use super::{Field, conditions, fields, indented, instant, section, told};
use crate::api::annotation;
use crate::api::restore::{ReplacedClaim, RestorePhase, StatefulSetRestore, StatefulSetRestoreStatus};

/// The whole text.
pub fn restore(object: &StatefulSetRestore, events: Option<&[Event]>, now: Timestamp) -> String {
    let status = object.status.clone().unwrap_or_default();
    let mut text = fields(&[spec(object), state(object, &status)].concat());
    conditions(&mut text, &status.conditions, now);
    if let Some(run) = &status.run {
        let seconds = |yes: Option<bool>| if yes == Some(true) { "yes" } else { "no" };
        text += "Open Run:\n";
        text += &indented(&fields(&[
            ("Goal", run.goal.map_or("-".into(), |goal| format!("{} volumes", goal.as_str().to_lowercase()))),
            ("Reached", run.reached.map_or("-".into(), |phase| phase.to_string())),
            ("Pods Were Ready", format!("{} (on restored volumes)", seconds(run.served))),
            ("Attempt", run.attempt.unwrap_or(1).to_string()),
            ("Holder", run.holder.clone().unwrap_or_default()),
        ]));
    }
    claims(&mut text, &status);
    told(&mut text, events, now);
    text
}

fn spec(object: &StatefulSetRestore) -> Vec<Field> {
    let spec = &object.spec;
    let own = object.namespace().unwrap_or_default();
    let target = spec.stateful_set_ref.namespace_or(&own);
    let which = match (&spec.run_id, spec.point_in_time, spec.snapshot_names.as_slice()) {
        (Some(run), _, _) => format!("run {run}"),
        (_, Some(at), _) => format!("the newest complete run cut at or before {at}"),
        (_, _, []) => "the newest complete run".to_owned(),
        (_, _, names) => format!("VolumeSnapshots {}", names.join(", ")),
    };
    let of = spec.backup_name.as_ref().map(|backup| format!(" of StatefulSetBackup {own}/{backup}"));
    let mut all = vec![
        ("Kind", "StatefulSetRestore".to_owned()),
        ("Name", object.name_any()),
        ("Namespace", own.clone()),
        ("Created", instant(object.metadata.creation_timestamp.as_ref(), "-")),
        ("StatefulSet", format!("{target}/{}", spec.stateful_set_ref.name)),
        ("Asked For", which + &of.unwrap_or_default()),
    ];
    if spec.source_stateful_set() != spec.stateful_set_ref.name {
        all.push(("Taken Of", format!("{target}/{}", spec.source_stateful_set())));
    }
    all.extend([
        ("Strategy", spec.strategy().to_string()),
        ("Uncovered", spec.uncovered().to_string()),
        ("On Failure", spec.on_failure().to_string()),
        ("Undo Window", format!("{} s, then {}", spec.undo_window_seconds(), spec.release_old_volumes())),
    ]);
    all
}

fn state(object: &StatefulSetRestore, status: &StatefulSetRestoreStatus) -> Vec<Field> {
    let held = status.phase == Some(RestorePhase::Failed) && status.run.is_some();
    let phase = status.phase.map_or("New".into(), |phase| phase.to_string());
    let mut all = vec![
        ("Phase", if held { format!("{phase} (Held)") } else { phase }),
        ("Message", status.message.clone().unwrap_or_default()),
        ("Run", status.plan.as_ref().and_then(|plan| plan.run_id.clone()).unwrap_or_else(|| "-".into())),
        ("Started", instant(status.start_time.as_ref(), "-")),
        ("Completed", instant(status.completion_time.as_ref(), "-")),
        ("Downtime", status.downtime_seconds.map_or("-".into(), |seconds| format!("{seconds:.1} s"))),
        ("Kept Until", instant(status.undo_deadline.as_ref(), "-")),
    ];
    all.extend(status.warnings.iter().map(|warning| ("Warning", warning.clone())));
    if let Some(replicas) = status.original_replicas {
        all.push(("Replicas", format!("{replicas} before")));
    }
    if let Some(asked) = object.annotations().get(annotation::UNDO) {
        let answered = status.last_request.as_ref() == Some(asked);
        all.push(("Undo Asked", format!("{asked}{}", if answered { "" } else { ", not answered yet" })));
    }
    let more = [("Job", &status.job_name), ("Managed By", &status.managed_by)];
    all.extend(more.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    all
}

/// Old volume, snapshot, new volume.
fn claims(text: &mut String, status: &StatefulSetRestoreStatus) {
    let all = status.plan.iter().flat_map(|plan| &plan.claims);
    let or = |cell: Option<&String>, none: &str| cell.cloned().unwrap_or_else(|| none.to_owned());
    let row = |claim: &ReplacedClaim| {
        let new = status.staged.iter().find(|staged| staged.pvc == claim.pvc).and_then(|staged| staged.pv.as_ref());
        let old = or(claim.old_pv.as_ref(), "none");
        vec![claim.pvc.clone(), old, or(claim.snapshot.as_ref(), "none: empty"), or(new, "not made yet")]
    };
    section(text, "Claims", &["CLAIM", "OLD VOLUME", "SNAPSHOT", "NEW VOLUME"], all.map(row));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_tells_spec_state_volumes_and_events() {
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        let claim = |ordinal: u32| {
            json!({ "pvc": format!("data-pg-{ordinal}"), "oldPv": format!("pv-old-{ordinal}"),
            "snapshot": format!("nightly-data-20261127-010000-{ordinal}") })
        };
        let held = json!({
            "metadata": { "name": "back", "namespace": "shop", "creationTimestamp": "2026-11-27T11:50:00Z",
                "annotations": { annotation::UNDO: "please" } },
            "spec": { "statefulSetRef": { "name": "pg" }, "backupName": "nightly", "sourceStatefulSet": "old",
                "pointInTime": "2026-11-27T02:00:00Z", "onFailure": "Hold" },
            "status": { "phase": "Failed", "message": "ReadyTimeout: pod pg-1 was not ready", "originalReplicas": 2,
                "startTime": "2026-11-27T11:50:01Z", "completionTime": "2026-11-27T11:59:00Z", "downtimeSeconds": 4.25,
                "undoDeadline": "2026-11-28T11:59:00Z", "jobName": "restore-back-0123456789",
                "conditions": [{ "type": "Undoable", "status": "True", "reason": "Held", "message": "",
                    "lastTransitionTime": "2026-11-27T11:59:00Z" }],
                "run": { "goal": "New", "reached": "ScalingUp", "served": true, "attempt": 2, "holder": "restore/shop/back/x" },
                "plan": { "format": "1", "runId": "20261127-010000", "claims": [claim(0), claim(1),
                    { "pvc": "data-pg-2" }] },
                "staged": [{ "pvc": "data-pg-0", "pv": "pv-new-0" }] },
        });
        let event = json!({ "metadata": { "name": "e" }, "eventTime": "2026-11-27T11:59:00.000000Z", "type": "Warning",
            "reason": "RestoreFailed", "note": "Held: ReadyTimeout" });
        let event = serde_json::from_value(event).unwrap();
        let fresh = json!({ "metadata": { "name": "new", "namespace": "shop" },
            "spec": { "statefulSetRef": { "name": "pg" }, "snapshotNames": ["a", "b"] } });
        let full = restore(&serde_json::from_value(held).unwrap(), Some(&[event]), now);
        let bare = restore(&serde_json::from_value(fresh).unwrap(), None, now);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!("describe_restore", format!("{full}\n---\n{bare}")));
    }
}
