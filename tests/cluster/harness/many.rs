//! Thousands of policies, as a cluster has them after a while: with a run behind them, and with the managedFields of
//! everyone who wrote them.

use futures::stream::{StreamExt, iter};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::manager;

use super::Scene;
use super::make::policy;

/// Requests at a time.
pub const AT_ONCE: usize = 50;

/// What stands in the policies beside the StatefulSet.
fn spec(schedule: &str, suspend: bool) -> Value {
    json!({
        "schedule": schedule, "timeZone": "Europe/Berlin", "suspend": suspend,
        "preBackupHook": { "command": ["/bin/sh", "-c", "psql -c 'CHECKPOINT' && fsfreeze -f /data"], "timeoutSeconds": 30 },
        "postBackupHook": { "command": ["/bin/sh", "-c", "fsfreeze -u /data"], "timeoutSeconds": 30 },
        "retentionPolicy": { "keepLast": 7, "keepDays": 30 },
        "volumeSnapshotClassName": "csi",
    })
}

/// A first run that went well, as its runner wrote it.
fn status(name: &str, created: Timestamp) -> Value {
    let at = |seconds| (created + SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let id = created.strftime("%Y%m%d-%H%M%S").to_string();
    let snapshot = |ordinal: u32| {
        json!({
            "name": format!("{name}-{id}-data-{ordinal}"), "pvcName": format!("data-{name}-{ordinal}"), "ordinal": ordinal,
            "claimTemplate": "data", "readyToUse": true, "restoreSize": "10Mi", "creationTime": at(2),
        })
    };
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Succeeded", "message": "3 snapshots are ready",
            "lastTransitionTime": at(4), "observedGeneration": 1,
        })
    };
    json!({
        "phase": "Ready", "message": "3 snapshots are ready", "lastBackupTime": at(2), "lastAttemptTime": at(1),
        "lastRun": {
            "id": id, "slot": at(0), "attempt": 1, "jobName": format!("backup-{name}-0123456789"), "trigger": "first",
            "startTime": at(1), "completionTime": at(4), "freezeSeconds": 0.4, "skewSeconds": 0.1,
            "consistency": "Frozen", "outcome": "Succeeded", "snapshots": (0..3).map(snapshot).collect::<Vec<_>>(),
        },
        "history": [{ "id": id, "outcome": "Succeeded", "startTime": at(1), "cutTime": at(2), "snapshots": 3 }],
        "conditions": [condition("Ready", "True"), condition("Reconciling", "False"), condition("Stalled", "False")],
    })
}

/// The policy of that number, its first run done.
async fn one(s: &Scene, namespace: &str, number: usize, schedule: &str, suspend: bool, watcher: &Value) {
    let name = format!("policy-{number:05}");
    let mut object = policy(&name, &name, &spec(schedule, suspend));
    let applied = serde_json::to_string(&object).unwrap();
    let key = "kubectl.kubernetes.io/last-applied-configuration".to_owned();
    object.metadata.annotations = Some([(key, applied)].into());
    let api: Api<StatefulSetBackup> = Api::namespaced(s.client.clone(), namespace);
    let by = PostParams { field_manager: Some("kubectl-client-side-apply".into()), ..PostParams::default() };
    let made = api.create(&by, &object).await.unwrap();
    let created = made.metadata.creation_timestamp.unwrap().0;
    let mut fields = watcher.clone();
    fields["lastScheduleTime"] = json!(created);
    let mut run = status(&name, created);
    // A suspended one is not written again by the watcher: the fields may be anybody's, which saves a request.
    let writes = if suspend {
        run.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        vec![(manager::RUNNER, run)]
    } else {
        vec![(manager::RUNNER, run), (manager::WATCHER, fields)]
    };
    for (by, status) in writes {
        let patch =
            json!({ "apiVersion": sts_backup::api::API_VERSION, "kind": "StatefulSetBackup", "status": status });
        api.patch_status(&name, &PatchParams::apply(by).force(), &Patch::Apply(patch)).await.unwrap();
    }
}

impl Scene {
    /// Policies of these numbers, whose first run is done. `watcher`: what the watcher has written
    /// to status beside the slot.
    pub async fn many(&self, numbers: std::ops::Range<usize>, schedule: &str, suspend: bool, watcher: &Value) {
        self.many_among(std::slice::from_ref(&self.namespace), numbers, schedule, suspend, watcher).await;
    }

    /// The same, spread over namespaces.
    pub async fn many_among(
        &self,
        namespaces: &[String],
        numbers: std::ops::Range<usize>,
        schedule: &str,
        suspend: bool,
        watcher: &Value,
    ) {
        let of = |number: usize| &namespaces[number % namespaces.len()];
        let all = iter(numbers).map(|number| one(self, of(number), number, schedule, suspend, watcher));
        all.buffer_unordered(AT_ONCE).for_each(async |()| {}).await;
    }
}
