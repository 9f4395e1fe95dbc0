//! What could be forged by way of a subresource: the journals in status, owners and finalizers behind the fence, labels.

use serde_json::{Value, json};

use super::matrix::{Act, Deed, create, delete, patch, tag};
use super::stage::{Stage, restored};
use crate::harness::Scene;

const AT: &str = "2026-01-01T00:00:00Z";

fn by(sub: &'static str, text: &'static str, object: &Value, patch: Value) -> Deed {
    Deed { text, object: object.clone(), act: Act::Sub(sub, patch) }
}

fn status(text: &'static str, object: &Value, status: Value) -> Deed {
    let mut patch = json!({});
    patch["status"] = status;
    by("status", text, object, patch)
}

/// A journal whose freeze is so far.
pub fn run(phase: &str, more: Value) -> Value {
    let mut intent = json!({ "phase": phase, "epoch": 7, "since": AT, "size": 1 });
    if let (Value::Object(intent), Value::Object(more)) = (&mut intent, more) {
        intent.extend(more);
    }
    json!({ "run": { "id": "20260101-000000", "slot": AT, "attempt": 1, "holder": "x", "intent": intent } })
}

pub fn frozen() -> Value {
    let pod = json!({ "name": "web-0", "uid": "u", "ordinal": 0, "container": "main", "containerID": "c", "restartCount": 0 });
    json!({ "pods": [pod], "postHook": recorded("b") })
}

fn recorded(word: &str) -> Value {
    json!({ "command": [word], "timeoutSeconds": 5 })
}

fn condition() -> Value {
    json!([{ "type": "Waiting", "status": "True", "reason": "NoPlace", "message": "m", "lastTransitionTime": AT }])
}

pub fn deeds(s: &Scene, other: &str, on: &Stage) -> Vec<Deed> {
    let mut all = backups(other, on);
    all.extend(restores(on));
    all.extend(owners(on));
    all.extend(behind_the_fence(on));
    all.extend(labels(s, on));
    all
}

fn backups(other: &str, on: &Stage) -> Vec<Deed> {
    let (plain, full, going, asked) = (&on.plain, &on.full, &on.frozen, &on.asked);
    let told = json!({ "nextScheduleTime": AT, "lastScheduleTime": AT, "lastRequest": "now", "managedBy": "a/b",
        "phase": "Failed", "message": "m", "conditions": condition() });
    let failed = json!({ "phase": "Failed", "message": "m", "lastAttemptTime": AT,
        "lastRun": { "slot": AT, "outcome": "Failed" }, "history": [{ "id": "", "outcome": "Failed" }] });
    let unended = |slot: &str| json!({ "lastRun": { "slot": slot, "outcome": null } });
    let succeeded = json!({ "id": "20260101-000000", "outcome": "Succeeded" });
    let over = &on.timed.over;
    let there = json!({ "spec": { "statefulSetRef": { "name": "web", "namespace": other } } });
    let both = json!({ "spec": { "preBackupHook": null, "postBackupHook": null } });
    let zone = json!({ "spec": { "timeZone": "Asia/Kolkata" } });
    let another = json!({ "run": { "intent": { "postHook": recorded("x") } } });
    let pre = json!({ "preHook": recorded("x") });
    vec![
        patch("backup: post hook removed", full, json!({ "spec": { "postBackupHook": null } })),
        patch("backup: both hooks removed", full, both),
        patch("backup: with keepDaily, time zone changed", &on.daily, zone.clone()),
        patch("backup: with keepLast, time zone changed", full, zone),
        patch("backup: turned to another namespace while its pods are frozen", going, there),
        status("backup status: what the watcher writes", plain, told.clone()),
        status("backup status of another namespace's: what the watcher writes", &on.there, told),
        status("backup status: a request said to be handled", asked, json!({ "lastRequest": "then" })),
        status("backup status: a request with hooks and retention forgotten", asked, json!({ "lastRequest": "never" })),
        status("backup status: the same by removing the field", asked, json!({ "lastRequest": null })),
        status("backup status: a run told to have failed", plain, failed),
        status("backup status: with hooks and retention, the newest run said to have no end", over, unended("then")),
        status("backup status: the same of another run", over, unended("again")),
        status("backup status: plain one, a run said to have no end", plain, unended("then")),
        status("backup status: the newest run told to have succeeded", over, json!({ "lastRun": succeeded })),
        status("backup status: another run told to have succeeded", plain, json!({ "history": [succeeded] })),
        status("backup status: history forgotten", over, json!({ "history": null, "lastRun": null })),
        status("backup status: a run put in", plain, run("Frozen", json!({}))),
        status("backup status: a run declared void", plain, run("Void", json!({}))),
        status("backup status: a run with a hook put in", plain, run("Frozen", frozen())),
        status("backup status: a run with a pre hook put in", plain, run("Frozen", pre)),
        status("backup status of another namespace's: a run put in", &on.there, run("Frozen", json!({}))),
        status("backup status of another namespace's: a run with a hook put in", &on.there, run("Frozen", frozen())),
        status("backup status: hook of a frozen run changed", going, another),
        status("backup status: a frozen run said to be cut", going, json!({ "run": { "intent": { "phase": "Cut" } } })),
        status("backup status: a frozen run taken out", going, json!({ "run": null })),
    ]
}

fn restores(on: &Stage) -> Vec<Deed> {
    let (held, fresh, far) = (&on.held, &on.fresh, &on.far);
    let told = json!({ "lastRequest": "then", "managedBy": "a/b", "message": "m", "conditions": condition() });
    let failed = json!({ "phase": "Failed", "startTime": AT, "completionTime": AT, "message": "m" });
    let new = "2027-01-01T00:00:00Z";
    vec![
        status("restore status: what the watcher writes", held, told.clone()),
        status("restore status of another namespace's: what the watcher writes", far, told),
        status("restore status: an undo forgotten", held, json!({ "lastRequest": "never" })),
        status("restore status: of one that has not begun, Failed", fresh, failed.clone()),
        status("restore status: of one that has not begun, Completed", fresh, json!({ "phase": "Completed" })),
        status("restore status: of one that has not begun, all that a run has", fresh, restored()),
        status("restore status: run put in", held, json!({ "run": { "goal": "Old" } })),
        status("restore status: plan changed", held, json!({ "plan": { "claims": [] } })),
        status("restore status: undoPlan put in", held, json!({ "undoPlan": { "format": "1" } })),
        status("restore status: staged changed", held, json!({ "staged": [{ "pvc": "a-web-0", "pv": "x" }] })),
        status("restore status: madeClaims changed", held, json!({ "madeClaims": { "a-web-0": "x" } })),
        status("restore status: phase changed", held, json!({ "phase": "ScalingDown" })),
        status("restore status: said to have failed", held, failed),
        status("restore status: undoDeadline changed", held, json!({ "undoDeadline": new })),
        status("restore status: originalReplicas changed", held, json!({ "originalReplicas": 9 })),
        by("status", "restore status: wiped", held, json!({ "status": null })),
        status("restore status of another namespace's: undoDeadline changed", far, json!({ "undoDeadline": new })),
        status("restore status of another namespace's: run put in", far, json!({ "run": { "goal": "Old" } })),
        delete("restore of another namespace: deleted while it keeps volumes", far),
        patch("restore of another namespace: finalizer taken off", far, json!({ "metadata": { "finalizers": null } })),
    ]
}

/// The same uid under another name: the garbage collector takes the owner for gone.
fn owners(on: &Stage) -> Vec<Deed> {
    let renamed = |object: &Value| {
        let mut owners = object["metadata"]["ownerReferences"].clone();
        owners[0]["name"] = "gone".into();
        json!({ "metadata": { "ownerReferences": owners } })
    };
    vec![
        patch("backup: its owner given another name", &on.daily, renamed(&on.daily)),
        patch("restore: its owner given another name", &on.held, renamed(&on.held)),
        patch("lock: its owner given another name", &on.recorded, renamed(&on.recorded)),
        patch("StatefulSet behind the fence: its owner given another name", &on.asleep, renamed(&on.asleep)),
    ]
}

fn behind_the_fence(on: &Stage) -> Vec<Deed> {
    let gone = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "dead" }]);
    let set = &on.asleep;
    vec![
        patch("StatefulSet behind the fence: scaled up", set, json!({ "spec": { "replicas": 1 } })),
        patch("StatefulSet behind the fence: labelled", set, json!({ "metadata": { "labels": { "team": "a" } } })),
        by(
            "status",
            "StatefulSet behind the fence: given an owner by way of its status",
            set,
            json!({ "metadata": { "ownerReferences": gone } }),
        ),
        by(
            "status",
            "StatefulSet behind the fence: given a finalizer by way of its status",
            set,
            json!({ "metadata": { "finalizers": ["a.example/b"] } }),
        ),
        status(
            "StatefulSet behind the fence: its pods counted",
            set,
            json!({ "observedGeneration": 1, "replicas": 0 }),
        ),
    ]
}

fn labels(s: &Scene, on: &Stage) -> Vec<Deed> {
    let binding = |text, key: &str| {
        let marks = json!({ key: "u" });
        let object = json!({ "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": "bare", "namespace": s.namespace, "annotations": marks },
            "target": { "kind": "Node", "name": "nowhere" } });
        create(text, object)
    };
    let plain = json!({ "metadata": { "labels": { "team": "a" } }, "status": { "message": "m" } });
    vec![
        patch("pod: labelled as of a verification", &on.pod, tag("verify", "u")),
        by("status", "pod: the same by way of its status", &on.pod, tag("verify", "u")),
        by("status", "pod: status written, and another's label", &on.pod, plain),
        binding("pod: bound with the annotation of a verification", "backup.sts-backup.io/verify"),
        binding("pod: bound with another's annotation", "a.example/b"),
        by("status", "claim: labelled as of a restore by way of its status", &on.claim, tag("restore", "u")),
        by("status", "volume: labelled as of a restore by way of its status", &on.volume, tag("role", "old")),
    ]
}
