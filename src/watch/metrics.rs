//! `/metrics` in the text format of Prometheus, all of it from the index: what status tells outlives the watcher, so no
//! pusher and no history is needed. Labels are the object's kind, namespace and name, and reasons of a closed set: there
//! are as many series as objects, and as reasons that an object has had, however many runs there were.
//! `docs/watcher.md` has the whole list.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};

use super::State;
use super::decode::SCHEDULE_MAX;
use crate::api::backup::TIME_ZONE;
use crate::api::restore::RestorePhase;
use crate::api::shared::Outcome;
use crate::plan::launch::entry::{Manager, Object, Policy, Restore, Subject, Uid};
use crate::plan::launch::{Entry, Index};
use crate::plan::schedule::Schedule;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Objects per piece.
const PIECE: usize = 200;

/// The longest of the intervals to come, for the family of that name.
pub(super) fn interval(schedule: Option<&str>, zone: Option<&str>, next: Option<Timestamp>) -> Option<u32> {
    let (text, next) = (schedule.filter(|text| text.len() <= SCHEDULE_MAX)?, next?);
    let zone = zone.filter(|zone| !zone.is_empty()).unwrap_or(TIME_ZONE);
    Schedule::parse(text, zone).ok()?.longest_interval(next)?.as_secs().try_into().ok()
}

/// What a family shows, and of which objects.
enum Value {
    Backup(fn(&Policy, Timestamp) -> Option<f64>),
    Restore(fn(&Restore, &Object) -> Option<f64>),
    /// With the kind, and a reason where there is one.
    Any(fn(&Entry) -> Option<String>),
}

struct Family {
    name: &'static str,
    help: &'static str,
    value: Value,
}

const fn family(name: &'static str, help: &'static str, value: Value) -> Family {
    Family { name, help, value }
}

const FAMILIES: &[Family] = &[
    family(
        "sts_backup_last_success_timestamp_seconds",
        "Unix time at which the snapshots of the last successful run were taken.",
        Value::Backup(|p, _| seconds(p.succeeded)),
    ),
    family(
        "sts_backup_last_run_success",
        "Whether the most recent finished run succeeded.",
        Value::Backup(|p, _| p.last.as_ref()?.outcome.map(|outcome| flag(outcome == Outcome::Succeeded))),
    ),
    family(
        "sts_backup_last_run_duration_seconds",
        "Duration of the most recent finished run.",
        Value::Backup(|p, _| {
            let last = p.last.as_ref()?;
            Some(last.ended?.duration_since(last.started?).as_secs_f64())
        }),
    ),
    family(
        "sts_backup_last_run_freeze_seconds",
        "From the first pre hook of the newest run to the end of its last post hook.",
        Value::Backup(|p, _| p.last.as_ref()?.freeze_seconds),
    ),
    family(
        "sts_backup_last_run_snapshots",
        "VolumeSnapshots of the newest run.",
        Value::Backup(|p, _| p.last.as_ref().and_then(|last| u32::try_from(last.snapshots).ok()).map(f64::from)),
    ),
    family(
        "sts_backup_next_run_timestamp_seconds",
        "The next scheduled time.",
        Value::Backup(|p, _| seconds(p.owned.next)),
    ),
    family(
        "sts_backup_interval_seconds",
        "From the next scheduled time to the one after it.",
        Value::Backup(|p, _| p.interval.map(f64::from)),
    ),
    family(
        "sts_backup_due_lag_seconds",
        "How long the next run has been due without having begun.",
        Value::Backup(|p, now| p.owned.next.map(|next| now.duration_since(next).as_secs_f64().max(0.0))),
    ),
    family("sts_backup_run_active", "Whether a run is open.", Value::Backup(|p, _| Some(flag(p.run.is_some())))),
    family("sts_backup_suspended", "Whether spec.suspend is set.", Value::Backup(|p, _| Some(flag(p.suspend)))),
    family(
        "sts_backup_restore_active",
        "Whether the restore, its undo or its rollback is under way.",
        Value::Restore(|r, _| Some(flag(r.run.is_some() && !r.is_held()))),
    ),
    family(
        "sts_backup_restore_fenced",
        "Whether the pods are stopped behind the fence while volumes are swapped.",
        Value::Restore(|r, _| {
            let swaps = matches!(r.phase, Some(RestorePhase::ScalingDown | RestorePhase::Restoring));
            Some(flag(swaps && r.run.is_some()))
        }),
    ),
    family(
        "sts_backup_restore_failed",
        "Whether the restore has failed.",
        Value::Restore(|r, _| Some(flag(r.phase == Some(RestorePhase::Failed)))),
    ),
    family(
        "sts_backup_restore_held",
        "Whether the restore has failed and waits, as it is, for a decision.",
        Value::Restore(|r, _| Some(flag(r.is_held()))),
    ),
    family(
        "sts_backup_restore_volumes_set_aside",
        "Volumes that are kept for an undo.",
        Value::Restore(|r, o| Some(if o.held { f64::from(r.aside.0) } else { 0.0 })),
    ),
    family(
        "sts_backup_restore_bytes_set_aside",
        "What the claims of these volumes ask for.",
        Value::Restore(|r, o| Some(if o.held { bytes(r.aside.1) } else { 0.0 })),
    ),
    family(
        "sts_backup_restore_undo_deadline_timestamp_seconds",
        "Until when they are kept.",
        Value::Restore(|r, o| seconds(r.undo_deadline.filter(|_| o.held))),
    ),
    family(
        "sts_backup_objects_invalid",
        "Objects whose spec cannot be acted on, one series each.",
        Value::Any(|entry| entry.is_invalid().then(String::new)),
    ),
    family(
        "sts_backup_waiting",
        "Objects whose condition Waiting is True, one series each, with its reason.",
        Value::Any(|entry| {
            let waiting = entry.object.owned().waiting.as_ref()?;
            Some(format!(",reason=\"{}\"", waiting.why?))
        }),
    ),
];

/// Exact up to 8 PiB.
#[allow(clippy::cast_precision_loss, reason = "a sample is a float")]
fn bytes(count: u64) -> f64 {
    count as f64
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

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
            if let Some((labels, value)) = sample(family, &entry, now) {
                let _ = writeln!(text, "{}{{{labels}}} {value}", family.name);
            }
        }
        if count < PIECE {
            (self.family, self.after) = (self.family + 1, None);
        }
        Some(text)
    }
}

fn sample(family: &Family, entry: &Entry, now: Timestamp) -> Option<(String, f64)> {
    let object = &entry.object;
    match (&family.value, &object.subject) {
        (Value::Backup(value), Subject::Backup(policy)) => Some((labels(object), value(policy, now)?)),
        (Value::Restore(value), Subject::Restore(restore)) => Some((labels(object), value(restore, object)?)),
        (Value::Any(more), _) => Some((format!("kind=\"{}\",{}{}", object.kind(), labels(object), more(entry)?), 1.0)),
        _ => None,
    }
}

fn labels(object: &Object) -> String {
    format!("namespace=\"{}\",name=\"{}\"", object.namespace, object.name)
}

/// Failed runs and restores, by object and reason.
fn failures(index: &Index) -> Vec<(String, String)> {
    let of = |object: &Object| format!("kind=\"{}\",{}", object.kind(), labels(object));
    let known = index.failures().iter().filter_map(|(uid, all)| Some((of(&index.get(*uid)?.object), all)));
    let line = |of: &str, reason, count: &u64| (format!("{{{of},reason=\"{reason}\"}}"), count.to_string());
    known.flat_map(|(of, all)| all.iter().map(move |(reason, count)| line(&of, reason, count))).collect()
}

fn common(state: &State) -> String {
    let index = state.index.borrow();
    let [(taken, queued), (restores_taken, restores_queued)] = index.places();
    let (mut backups, mut restores, mut passed) = (0, 0, 0);
    for (_, entry) in index.after(None) {
        match entry.object.subject {
            Subject::Backup(_) => backups += 1,
            Subject::Restore(_) => restores += 1,
        }
        passed += u32::from(matches!(entry.object.manager, Manager::Another(_)));
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
    let help = "Objects that another installation manages.";
    family("sts_backup_objects_passed_over", "gauge", help, &one(passed.to_string()));
    family("sts_backup_active_runs", "gauge", "Backup Jobs that take a place.", &one(taken.to_string()));
    family("sts_backup_waiting_runs", "gauge", "Due runs that wait for a place.", &one(queued.to_string()));
    let taken = restores_taken.to_string();
    family("sts_backup_active_restores", "gauge", "Jobs of restores that take a place.", &one(taken));
    let queued = restores_queued.to_string();
    family("sts_backup_waiting_restores", "gauge", "Restores, undos and releases that wait for a place.", &one(queued));
    let troubles = state.troubles.borrow().len().to_string();
    family("sts_backup_watches_failing", "gauge", "Watches that do not work now.", &one(troubles));
    let silence = SignedDuration::try_from(state.ear.silence()).unwrap_or_default();
    let heard = seconds(state.now().wall.checked_sub(silence).ok()).unwrap_or_default();
    let help = "When the API server was heard last, by an answer or a piece of a watch.";
    family("sts_backup_last_heard_timestamp_seconds", "gauge", help, &one(heard.to_string()));
    family(
        "sts_backup_failures_total",
        "counter",
        "Runs and restores seen to fail, by object and reason.",
        &failures(&index),
    );
    text
}

#[cfg(test)]
mod tests {
    /// What a page is there for is to be looked up: each metric has its line.
    #[test]
    fn every_metric_is_documented() {
        let docs = include_str!("../../docs/watcher.md");
        let source = include_str!("metrics.rs").split("mod tests").next().unwrap_or_default();
        let names = source.split('"').filter(|text| text.starts_with("sts_backup_") && !text.contains(' '));
        let names: std::collections::BTreeSet<_> = names.collect();
        assert!(names.len() > 25, "{names:?}");
        for name in names {
            assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/watcher.md");
        }
    }

    /// Whoever is woken by an alert finds what to do; and no alert goes by a metric that there is not.
    #[test]
    fn every_alert_is_in_the_runbook_and_goes_by_metrics_that_there_are() {
        let rules = include_str!("../../charts/sts-backup/files/alerts.yaml");
        let (runbook, docs) = (include_str!("../../docs/runbook.md"), include_str!("../../docs/watcher.md"));
        let after = |text: &'static str, word: &'static str| {
            text.lines().filter_map(move |line| line.trim().strip_prefix(word))
        };
        let alerts: Vec<_> = after(rules, "- alert: ").collect();
        assert_eq!(alerts, after(runbook, "## ").collect::<Vec<_>>(), "the alerts, and the runbook's sections");
        let said: Vec<_> = after(rules, "runbook: ").map(|text| text.trim_matches('\'')).collect();
        assert_eq!(said, alerts.iter().map(|alert| format!("docs/runbook.md, {alert}")).collect::<Vec<_>>());
        let is_part = |c: char| !(c.is_ascii_lowercase() || c == '_');
        let names = rules.split(is_part).filter(|word| word.starts_with("sts_backup_"));
        for name in names {
            assert!(docs.contains(&format!("`{name}`")), "{name} is no metric");
        }
    }
}
