//! Edits after which a run is due that was not: of the schedule, its time zone, and how late a run may be.

use serde_json::{Value, json};

use super::matrix::{Deed, patch};
use super::stage::{HOOK, Stage, backup};
use crate::harness::Scene;

/// Objects with hooks and retention.
pub struct Timed {
    /// Its first run has not been.
    pub late: Value,
    /// The same with a schedule that nobody can make sense of, so that nothing is done for it.
    pub broken: Value,
    /// Its first run has been, and slots come.
    pub nightly: Value,
    /// Its first run has been, and no other comes.
    pub over: Value,
    /// What its hooks say is nobody's but the log's.
    pub silent: Value,
}

impl Timed {
    pub fn new(s: &Scene) -> Timed {
        let of = |name: &str, more: Value| {
            let mut spec = json!({ "preBackupHook": HOOK("a"), "retentionPolicy": { "keepLast": 30 },
                "startingDeadlineSeconds": 10 });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            backup(s, name, spec)
        };
        Timed {
            late: of("late", json!({})),
            broken: of("broken", json!({ "schedule": "61 3 * * *" })),
            nightly: of("nightly", json!({ "schedule": "0 2 * * *" })),
            over: of("over", json!({})),
            silent: of("silent", json!({ "hooks": { "outputInStatus": false } })),
        }
    }

    pub fn all(&self) -> [&Value; 5] {
        [&self.late, &self.broken, &self.nightly, &self.over, &self.silent]
    }
}

/// What has been written once the first run has been, and has failed.
pub fn served() -> Value {
    let run = json!({ "slot": "then", "trigger": "first", "outcome": "Failed" });
    json!({ "lastScheduleTime": "2026-01-01T00:00:00Z", "lastRun": run })
}

pub fn deeds(on: &Stage) -> Vec<Deed> {
    let Timed { late, broken, nightly, over, silent } = &on.timed;
    let deadline = |seconds: Value| json!({ "spec": { "startingDeadlineSeconds": seconds } });
    let zone = json!({ "spec": { "timeZone": "Asia/Kolkata" } });
    let none = json!({ "spec": { "schedule": null } });
    vec![
        patch("backup: late for its first run, startingDeadlineSeconds raised", late, deadline(json!(100_000))),
        patch("backup: the same by removing the field", late, deadline(Value::Null)),
        patch("backup: late for a slot, startingDeadlineSeconds raised", nightly, deadline(json!(100_000))),
        patch("backup: the same by removing the field, of one with a schedule", nightly, deadline(Value::Null)),
        patch("backup: startingDeadlineSeconds lowered", nightly, deadline(json!(5))),
        patch("backup: startingDeadlineSeconds raised, but no run comes", over, deadline(json!(100_000))),
        patch("backup: with hooks and a schedule, time zone changed", nightly, zone.clone()),
        patch("backup: time zone changed, but no run comes", over, zone),
        patch("backup: a schedule removed that nobody could make sense of, before the first run", broken, none.clone()),
        patch("backup: a schedule removed after the first run", nightly, none),
        patch(
            "backup: output of hooks let into status",
            silent,
            json!({ "spec": { "hooks": { "outputInStatus": true } } }),
        ),
        patch("backup: the same by removing the fields", silent, json!({ "spec": { "hooks": null } })),
        patch(
            "backup: output of hooks kept out of status",
            late,
            json!({ "spec": { "hooks": { "outputInStatus": false } } }),
        ),
    ]
}
