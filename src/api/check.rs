//! What is wrong with an object by the rules of its schema, said without the API server.
//!
//! Role: for manifests that never meet the API server (`run-once backup -f`) and for objects that it stored before the
//! rules existed: these are reported and never acted on. The same objects that the API server refuses have problems
//! here, in the same words where the words are ours. Must stay in step with `rules` and the bounds on the types: the
//! tests of both read the same tables of good and bad objects.

use jiff::Timestamp;

use super::backup::{DeletionPolicy, Hook, RetentionPolicy, StatefulSetBackup};
use super::restore::{OnFailure, ReleaseOldVolumes, StatefulSetRestore, Strategy, Uncovered};
use super::shared::StatefulSetRef;
use super::{NAME_MAX, rules};

const DAY: i64 = 86_400;

/// Sentences, in the order of the fields.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn unless(&mut self, good: bool, sentence: &str) {
        if !good {
            self.0.push(sentence.to_owned());
        }
    }

    fn range(&mut self, field: &str, value: Option<impl Into<i64>>, least: i64, most: i64) {
        let Some(value) = value.map(Into::into) else { return };
        if value < least {
            self.0.push(format!("{field} is {value}, it must be at least {least}"));
        } else if value > most {
            self.0.push(format!("{field} is {value}, it must be at most {most}"));
        }
    }

    fn known(&mut self, field: &str, known: bool) {
        if !known {
            self.0.push(format!("{field} is a word that this version does not know"));
        }
    }

    fn names(&mut self, field: &str, names: &[String], is_name: fn(&str) -> bool, sentence: &str) {
        self.unless(names.iter().all(|name| is_name(name)), sentence);
        let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
        if let Some((_, name)) = twice {
            self.0.push(format!("{field} names {name} twice"));
        }
    }

    fn object_name(&mut self, name: Option<&str>) {
        self.unless(name.is_none_or(|name| name.chars().count() <= NAME_MAX), rules::OBJECT_NAME);
    }

    fn target(&mut self, target: &StatefulSetRef) {
        self.unless(is_stateful_set(&target.name), &rules::stateful_set_message("statefulSetRef.name"));
        let namespace = target.namespace.as_deref().unwrap_or_default();
        self.unless(namespace.is_empty() || is_label(namespace), rules::NAMESPACE);
    }

    fn schedule(&mut self, text: &str) {
        self.unless(text.chars().count() <= 1024, "schedule is longer than 1024 characters");
        self.unless(!text.contains("TZ"), rules::SCHEDULE_ZONE);
        let alone = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
        let descriptor = text.strip_prefix('@').is_some_and(|word| alone(word.strip_prefix("every ").unwrap_or(word)));
        let five = !text.starts_with('@') && text.split_whitespace().count() == 5;
        let five = text.is_empty() || descriptor || five;
        self.unless(five || text.contains("TZ"), rules::SCHEDULE_FIELDS);
    }

    fn time_zone(&mut self, zone: &str) {
        self.unless(!zone.is_empty(), rules::ZONE_EMPTY);
        self.unless(!zone.eq_ignore_ascii_case("local"), rules::ZONE_LOCAL);
        self.unless(zone.is_empty() || zone.split('/').all(is_zone_part), rules::ZONE_NAME);
        self.unless(zone.chars().count() <= 100, "timeZone is longer than 100 characters");
    }

    fn retention(&mut self, policy: &RetentionPolicy) {
        let numbers = policy.numbers();
        self.unless(numbers.iter().any(|(_, number)| number.is_some()), rules::RETENTION);
        for (field, number) in numbers {
            self.range(&format!("retentionPolicy.{field}"), number, 1, i64::MAX);
        }
    }

    fn hook(&mut self, field: &str, hook: Option<&Hook>) {
        let Some(hook) = hook else { return };
        let program = hook.command.first().is_some_and(|program| !program.is_empty());
        self.unless(program, &format!("{field}.{}", rules::COMMAND));
        let size: usize = hook.command.iter().map(|part| part.chars().count()).sum();
        self.unless(size <= rules::COMMAND_MAX, &format!("{field}.{}", rules::COMMAND_SIZE));
        self.unless(hook.command.len() <= 1024, &format!("{field}.command has more than 1024 items"));
        let container = hook.container_name();
        self.unless(container.is_none_or(is_label), &format!("{field}.{}", rules::CONTAINER));
        self.range(&format!("{field}.timeoutSeconds"), hook.timeout_seconds, 1, DAY);
    }
}

/// What decides when a run is due and how long it may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing<'a> {
    pub schedule: Option<&'a str>,
    pub time_zone: Option<&'a str>,
    pub starting_deadline_seconds: Option<i64>,
    pub snapshot_ready_timeout_seconds: Option<i64>,
    pub max_freeze_seconds: Option<i64>,
    /// timeoutSeconds of preBackupHook and postBackupHook.
    pub hooks: [Option<i64>; 2],
    /// Of succeeded and of failed runs.
    pub history_limits: [Option<i64>; 2],
    pub retention: Option<&'a RetentionPolicy>,
}

/// The part of [`StatefulSetBackup::problems`] that the watcher goes by, which never has the whole object.
#[must_use]
pub fn timing_problems(spec: &Timing) -> Vec<String> {
    let mut found = Problems::default();
    found.schedule(spec.schedule.unwrap_or_default());
    if let Some(zone) = spec.time_zone {
        found.time_zone(zone);
    }
    found.range("startingDeadlineSeconds", spec.starting_deadline_seconds, 0, i64::MAX);
    if let Some(policy) = spec.retention {
        found.retention(policy);
    }
    for (field, seconds) in ["preBackupHook", "postBackupHook"].into_iter().zip(spec.hooks) {
        found.range(&format!("{field}.timeoutSeconds"), seconds, 1, DAY);
    }
    found.range("snapshotReadyTimeoutSeconds", spec.snapshot_ready_timeout_seconds, 1, 30 * DAY);
    found.range("maxFreezeSeconds", spec.max_freeze_seconds, 1, 30 * DAY);
    for (field, limit) in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"].into_iter().zip(spec.history_limits)
    {
        found.range(field, limit, 0, i64::MAX);
    }
    found.0
}

impl StatefulSetBackup {
    /// The part of [`problems`](Self::problems) that concerns what retention goes by.
    #[must_use]
    pub fn retention_problems(&self) -> Vec<String> {
        let mut found = Problems::default();
        if let Some(zone) = &self.spec.time_zone {
            found.time_zone(zone);
        }
        if let Some(policy) = &self.spec.retention_policy {
            found.retention(policy);
        }
        found.0
    }

    /// Why the API server would refuse this object, one sentence each; empty if it would not.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Problems::default();
        let spec = &self.spec;
        found.object_name(self.metadata.name.as_deref());
        found.target(&spec.stateful_set_ref);
        found.schedule(spec.schedule().unwrap_or_default());
        if let Some(zone) = &spec.time_zone {
            found.time_zone(zone);
        }
        found.range("startingDeadlineSeconds", spec.starting_deadline_seconds, 0, i64::MAX);
        if let Some(policy) = &spec.retention_policy {
            found.retention(policy);
        }
        found.unless(spec.volume_snapshot_class_name().is_none_or(is_subdomain), rules::SNAPSHOT_CLASS);
        found.hook("preBackupHook", spec.pre_backup_hook.as_ref());
        found.hook("postBackupHook", spec.post_backup_hook.as_ref());
        found.range("snapshotReadyTimeoutSeconds", spec.snapshot_ready_timeout_seconds, 1, 30 * DAY);
        found.range("maxFreezeSeconds", spec.max_freeze_seconds, 1, 30 * DAY);
        found.names("claimTemplates", &spec.claim_templates, is_label, rules::CLAIM_TEMPLATES);
        found.known("deletionPolicy", spec.deletion_policy() != DeletionPolicy::Unknown);
        found.range("successfulJobsHistoryLimit", spec.successful_jobs_history_limit, 0, i64::MAX);
        found.range("failedJobsHistoryLimit", spec.failed_jobs_history_limit, 0, i64::MAX);
        found.0
    }
}

impl StatefulSetRestore {
    /// Why the API server would refuse this object, one sentence each; empty if it would not.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Problems::default();
        let spec = &self.spec;
        found.object_name(self.metadata.name.as_deref());
        found.target(&spec.stateful_set_ref);
        self.choice(&mut found);
        let source = spec.source_stateful_set.as_deref();
        found.unless(source.is_none_or(is_stateful_set), &rules::stateful_set_message("sourceStatefulSet"));
        found.known("strategy", spec.strategy() != Strategy::Unknown);
        found.range("pvcDeletionTimeoutSeconds", spec.pvc_deletion_timeout_seconds, 1, DAY);
        found.known("uncovered", spec.uncovered() != Uncovered::Unknown);
        found.range("stopTimeoutSeconds", spec.stop_timeout_seconds, 1, 7 * DAY);
        found.range("stageTimeoutSeconds", spec.stage_timeout_seconds, 1, 7 * DAY);
        found.range("readyTimeoutSeconds", spec.ready_timeout_seconds, 1, DAY);
        found.known("onFailure", spec.on_failure() != OnFailure::Unknown);
        found.range("undoWindowSeconds", spec.undo_window_seconds, 0, 30 * DAY);
        found.known("releaseOldVolumes", spec.release_old_volumes() != ReleaseOldVolumes::Unknown);
        found.0
    }

    /// Which run or snapshots.
    fn choice(&self, found: &mut Problems) {
        let spec = &self.spec;
        let (run, instant) = (spec.run_id.as_deref(), spec.point_in_time);
        let (backup, snapshots) = (spec.backup_name.as_deref(), !spec.snapshot_names.is_empty());
        found.unless(backup.is_some() || snapshots, rules::CHOICE);
        found.unless(backup.is_none_or(is_subdomain), rules::BACKUP_NAME);
        found.unless(!snapshots || (run.is_none() && instant.is_none()), rules::SNAPSHOTS_EXCLUDE);
        found.unless(run.is_none() || instant.is_none(), rules::RUN_EXCLUDES);
        found.unless(run.is_none() || backup.is_some(), rules::RUN_NEEDS);
        found.unless(run.is_none_or(is_run_id), rules::RUN_ID);
        found.unless(instant.is_none() || backup.is_some(), rules::INSTANT_NEEDS);
        let since_2000 = |instant: Timestamp| instant.as_second() >= 946_684_800;
        found.unless(instant.is_none_or(since_2000), rules::POINT_IN_TIME);
        found.names("snapshotNames", &spec.snapshot_names, is_subdomain, rules::SNAPSHOT_NAMES);
    }
}

/// One part of a DNS name: lower-case letters, digits and '-', a letter or digit at both ends.
fn is_part(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(inner)
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_stateful_set(text: &str) -> bool {
    text.len() <= 63 && is_subdomain(text)
}

fn is_zone_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let climbs = part == "." || part == "..";
    !climbs && !part.starts_with('-') && (1..=14).contains(&part.len()) && part.chars().all(allowed)
}

fn is_run_id(text: &str) -> bool {
    let digits = |part: &str, count| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('-').is_some_and(|(day, time)| digits(day, 8) && digits(time, 6))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const BAD: &str = include_str!("../../tests/cluster/data/bad-objects.yaml");
    const GOOD: &str = include_str!("../../tests/cluster/data/good-objects.yaml");

    /// Case and problems of each document; an object that cannot be read at all has that as its problem.
    fn judge(yaml: &str) -> Vec<(String, Vec<String>)> {
        let parts = yaml.split("\n---\n").filter(|part| part.contains("\nkind:"));
        let judged = parts.map(|part| {
            let case = part.lines().find_map(|line| line.strip_prefix("# ")).unwrap().to_owned();
            let object: Value = serde_saphyr::from_str(part).unwrap();
            let problems = if object["kind"] == "StatefulSetBackup" {
                serde_json::from_value(object).map(|object: StatefulSetBackup| object.problems())
            } else {
                serde_json::from_value(object).map(|object: StatefulSetRestore| object.problems())
            };
            (case, problems.unwrap_or_else(|error| vec![error.to_string()]))
        });
        judged.collect()
    }

    #[test]
    fn what_the_api_server_refuses_has_a_problem() {
        let judged = judge(BAD);
        assert!(judged.len() > 100);
        let missed: Vec<_> = judged.iter().filter(|(_, problems)| problems.is_empty()).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }

    #[test]
    fn a_command_has_a_bound_in_all_and_in_items() {
        let problems = |command: Vec<String>| {
            let mut object = StatefulSetBackup::default();
            object.spec.stateful_set_ref.name = "web".into();
            object.spec.post_backup_hook = Some(Hook { command, ..Hook::default() });
            object.problems()
        };
        let halves = |size: usize| vec!["ü".repeat(size), "x".repeat(size)];
        assert_eq!(problems(halves(16_384)), Vec::<String>::new());
        let long = problems(halves(16_385));
        assert!(
            matches!(&long[..], [one] if one.contains("postBackupHook.command must not have more than 32768")),
            "{long:?}"
        );
        assert_eq!(problems(vec!["x".into(); 1024]).len(), 0);
        assert_eq!(problems(vec!["x".into(); 1025]).len(), 1);
    }

    #[test]
    fn what_the_api_server_accepts_has_none() {
        let judged = judge(GOOD);
        assert!(judged.len() > 25);
        let wronged: Vec<_> = judged.iter().filter(|(_, problems)| !problems.is_empty()).collect();
        assert!(wronged.is_empty(), "{wronged:?}");
    }
}
