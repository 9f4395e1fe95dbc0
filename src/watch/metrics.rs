//! `/metrics` in the text format of Prometheus, all of it from the index: what status tells outlives the watcher, so no
//! pusher and no history is needed. Labels are the object's namespace and name, and reasons of a closed set.

use std::fmt::Write;

use jiff::Timestamp;

use super::State;
use crate::api::shared::Outcome;
use crate::plan::launch::entry::{Object, Policy, Subject, Uid};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Policies per piece.
const PIECE: usize = 200;

type Value = fn(&Policy, Timestamp) -> Option<f64>;

struct Family {
    name: &'static str,
    help: &'static str,
    value: Value,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "sts_backup_last_success_timestamp_seconds",
        help: "When the newest successful run was cut.",
        value: |p, _| seconds(p.succeeded),
    },
    Family {
        name: "sts_backup_last_run_success",
        help: "Whether the newest run that has ended succeeded.",
        value: |p, _| p.last.as_ref()?.outcome.map(|outcome| f64::from(u8::from(outcome == Outcome::Succeeded))),
    },
    Family {
        name: "sts_backup_last_run_duration_seconds",
        help: "From the begin of the newest run to its end.",
        value: |p, _| {
            let last = p.last.as_ref()?;
            Some(last.ended?.duration_since(last.started?).as_secs_f64())
        },
    },
    Family {
        name: "sts_backup_last_run_freeze_seconds",
        help: "From the first pre hook of the newest run to the end of its last post hook.",
        value: |p, _| p.last.as_ref()?.freeze_seconds,
    },
    Family {
        name: "sts_backup_last_run_snapshots",
        help: "VolumeSnapshots of the newest run.",
        value: |p, _| p.last.as_ref().and_then(|last| u32::try_from(last.snapshots).ok()).map(f64::from),
    },
    Family {
        name: "sts_backup_next_run_timestamp_seconds",
        help: "The next slot.",
        value: |p, _| seconds(p.owned.next),
    },
    Family {
        name: "sts_backup_due_lag_seconds",
        help: "How long the next slot has been due without its run having begun.",
        value: |p, now| p.owned.next.map(|next| now.duration_since(next).as_secs_f64().max(0.0)),
    },
    Family {
        name: "sts_backup_run_active",
        help: "Whether a run is open.",
        value: |p, _| Some(f64::from(u8::from(p.run.is_some()))),
    },
];

fn seconds(at: Option<Timestamp>) -> Option<f64> {
    at.map(|at| at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64())
}

/// The page, piece by piece.
#[derive(Default)]
pub struct Pages {
    begun: bool,
    family: usize,
    after: Option<Uid>,
}

impl Pages {
    pub fn next(&mut self, state: &State) -> Option<String> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(common(state));
        }
        let family = FAMILIES.get(self.family)?;
        let mut text = String::new();
        if self.after.is_none() {
            let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} gauge", family.name, family.help);
        }
        let (index, now) = (state.index.borrow(), state.now().wall);
        let mut count = 0;
        for (uid, entry) in index.after(self.after).take(PIECE) {
            count += 1;
            self.after = Some(uid);
            if let Some((value, object)) = value(family, &entry.object, now) {
                let labels = format!("namespace=\"{}\",name=\"{}\"", object.namespace, object.name);
                let _ = writeln!(text, "{}{{{labels}}} {value}", family.name);
            }
        }
        if count < PIECE {
            (self.family, self.after) = (self.family + 1, None);
        }
        Some(text)
    }
}

fn value<'a>(family: &Family, object: &'a Object, now: Timestamp) -> Option<(f64, &'a Object)> {
    let Subject::Backup(policy) = &object.subject else { return None };
    Some(((family.value)(policy, now)?, object))
}

fn common(state: &State) -> String {
    let index = state.index.borrow();
    let [(taken, queued), (restores_taken, restores_queued)] = index.places();
    let (mut backups, mut restores, mut invalid) = (0, 0, 0);
    for (_, entry) in index.after(None) {
        match entry.object.subject {
            Subject::Backup(_) => backups += 1,
            Subject::Restore(_) => restores += 1,
        }
        invalid += u32::from(entry.is_invalid());
    }
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, values: &[(String, String)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: String| vec![(String::new(), value)];
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    family("sts_backup_build_info", "gauge", "The version that runs.", &[(version, "1".into())]);
    let kinds = [("StatefulSetBackup", backups), ("StatefulSetRestore", restores)];
    let kinds = kinds.map(|(kind, count): (&str, u32)| (format!("{{kind=\"{kind}\"}}"), count.to_string()));
    family("sts_backup_objects", "gauge", "Objects that are seen.", &kinds);
    family("sts_backup_objects_invalid", "gauge", "Objects that cannot be acted on.", &one(invalid.to_string()));
    family("sts_backup_active_runs", "gauge", "Backup Jobs that take a place.", &one(taken.to_string()));
    family("sts_backup_waiting_runs", "gauge", "Due runs that wait for a place.", &one(queued.to_string()));
    let taken = restores_taken.to_string();
    family("sts_backup_active_restores", "gauge", "Jobs of restores that take a place.", &one(taken));
    let queued = restores_queued.to_string();
    family("sts_backup_waiting_restores", "gauge", "Restores, undos and releases that wait for a place.", &one(queued));
    let troubles = state.troubles.borrow().len().to_string();
    family("sts_backup_watches_failing", "gauge", "Watches that do not work now.", &one(troubles));
    let failures = index.failures().iter();
    let failures: Vec<_> = failures.map(|(r, n)| (format!("{{reason=\"{r}\"}}"), n.to_string())).collect();
    family("sts_backup_failures_total", "counter", "Runs seen to fail, by reason.", &failures);
    text
}
