//! CEL rules of the schemas: what the API server refuses, and the sentence with which it does.
//!
//! Role: rule and message, side by side, one function for each field or object. A sentence names the field and the
//! remedy. Nothing about cron but the field count: the rest is the runner's to say. Every string and list in the
//! schemas has an upper bound, because the API server refuses rules whose worst case costs too much.

use serde_json::{Value, json};

/// Characters of a hook's command in all.
pub(super) const COMMAND_MAX: usize = 32_768;
/// What separates the fields of a schedule: the White_Space property of Unicode, as the CronJob controller splits.
const SPACE: &str = r"\s\v\x{85}\pZ";
/// A DNS label: names of containers, namespaces and volumeClaimTemplates.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS subdomain: most names of objects.
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// One part of an IANA time zone name, as CronJob's validation has it.
const ZONE_PART: &str = "[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}";

// The sentences; each names its field and the remedy.
pub(super) const OBJECT_NAME: &str = "metadata.name must have at most 52 characters, so that the names and labels of \
    Jobs and snapshots fit; choose a shorter name";
pub(super) const NAMESPACE: &str = "statefulSetRef.namespace must be the name of a namespace: lower-case letters, \
    digits and '-', with a letter or digit at both ends; leave it out for the namespace of this object";
pub(crate) const SCHEDULE_ZONE: &str =
    "schedule must not contain TZ or CRON_TZ; write the name of the time zone into timeZone";
pub(super) const SCHEDULE_FIELDS: &str = "schedule must have five fields (minute, hour, day of month, month, day of \
    week), such as \"30 2 * * *\", or be a descriptor such as @daily or @every 6h; leave it out for a single run";
pub(crate) const ZONE_EMPTY: &str = "timeZone must not be empty; leave it out for Etc/UTC";
pub(crate) const ZONE_LOCAL: &str =
    "timeZone must not be Local, which means another zone on every machine; write an IANA name such as Europe/Berlin";
pub(super) const ZONE_NAME: &str =
    "timeZone must be the name of a zone of the IANA time zone database, such as Europe/Berlin or Etc/UTC";
pub(super) const RETENTION: &str = "retentionPolicy must have at least one of keepLast, keepDays, keepHourly, \
    keepDaily, keepWeekly, keepMonthly and keepYearly; leave retentionPolicy out to keep every run";
pub(super) const SNAPSHOT_CLASS: &str = "volumeSnapshotClassName must be the name of a VolumeSnapshotClass: \
    lower-case letters, digits, '-' and '.'; leave it out for the default class of each claim's driver";
pub(super) const COMMAND: &str = "command must begin with the program to run; its first item must not be empty";
pub(super) const COMMAND_SIZE: &str = "command must not have more than 32768 characters in all, because it travels in \
    a URL; put a longer script into the image or a ConfigMap, and let the command call it";
pub(super) const CONTAINER: &str = "containerName must be the name of a container: lower-case letters, digits and \
    '-'; leave it out for the pod's default container";
pub(super) const CLAIM_TEMPLATES: &str = "claimTemplates must hold names of volumeClaimTemplates: lower-case \
    letters, digits and '-'; leave it out to snapshot all of them";
pub(super) const IMMUTABLE: &str = "spec of a StatefulSetRestore cannot be changed, because a restore runs once; \
    create a new StatefulSetRestore under another name";
pub(super) const CHOICE: &str = "spec must have backupName, snapshotNames or both: name the StatefulSetBackup whose \
    run to restore, or the VolumeSnapshots";
pub(super) const SNAPSHOTS_EXCLUDE: &str = "snapshotNames excludes runId and pointInTime: the named snapshots are \
    exactly what is restored; leave one of the two out";
pub(super) const RUN_EXCLUDES: &str = "runId excludes pointInTime: each chooses the run; leave one of the two out";
pub(super) const RUN_NEEDS: &str = "runId needs backupName: name the StatefulSetBackup that made the run";
pub(super) const INSTANT_NEEDS: &str =
    "pointInTime needs backupName: name the StatefulSetBackup whose runs are to be searched";
pub(super) const BACKUP_NAME: &str =
    "backupName must be the name of a StatefulSetBackup: lower-case letters, digits, '-' and '.'";
pub(super) const RUN_ID: &str = "runId must be the id of a run, YYYYMMDD-HHMMSS, as `sts-backup list runs` prints it";
pub(super) const POINT_IN_TIME: &str =
    "pointInTime must be an instant of RFC 3339 since 2000, such as 2026-03-29T00:30:00Z";
pub(super) const KEEP_OWNED: &str = "deletionPolicy cannot be changed from Delete to Retain, because the snapshots made so far \
    would still go with this object. To keep them: kubectl delete statefulsetbackup NAME --cascade=orphan, then create it \
    anew with Retain and the annotation backup.sts-backup.io/adopt: UID-OF-THE-FORMER-ONE";
pub(super) const SNAPSHOT_NAMES: &str =
    "snapshotNames must hold names of VolumeSnapshots: lower-case letters, digits, '-' and '.'";

fn rule(rule: impl Into<String>, message: &str) -> Value {
    json!({ "rule": rule.into(), "message": message })
}

fn at(path: &str, mut rule: Value) -> Value {
    rule["fieldPath"] = path.into();
    rule
}

/// Both kinds: the name must leave room in Job names and label values. Objects that are stored already stay
/// writable, so that their status can say so and their finalizers can go.
pub(crate) fn object_name() -> Value {
    let mut name = rule("oldSelf.hasValue() || self.metadata.name.size() <= 52", OBJECT_NAME);
    name["optionalOldSelf"] = true.into();
    json!([name])
}

/// The sentence for a name of a StatefulSet.
pub(super) fn stateful_set_message(field: &str) -> String {
    format!(
        "{field} must be the name of a StatefulSet: at most 63 lower-case letters, digits, '-' and '.', with a letter \
         or digit at both ends"
    )
}

/// statefulSetRef.name and sourceStatefulSet.
pub(crate) fn stateful_set_name(field: &str) -> Value {
    json!([rule(
        format!("self == '' || (self.size() <= 63 && self.matches('{SUBDOMAIN}'))"),
        &stateful_set_message(field),
    )])
}

/// statefulSetRef.namespace; `""` means none.
pub(crate) fn namespace() -> Value {
    json!([rule(format!("self == '' || self.matches('{LABEL}')"), NAMESPACE,)])
}

/// schedule; `""` means none.
pub(crate) fn schedule() -> Value {
    json!([
        rule("!self.contains('TZ')", SCHEDULE_ZONE),
        rule(
            format!(
                "self == '' || self.contains('TZ') || self.matches(r'^@(every [^{SPACE}]+|[^{SPACE}]+)$') || \
                 !self.startsWith('@') && self.matches(r'^[{SPACE}]*[^{SPACE}]+([{SPACE}]+[^{SPACE}]+){{4}}[{SPACE}]*$')"
            ),
            SCHEDULE_FIELDS
        ),
    ])
}

/// timeZone: the syntax that CronJob accepts.
pub(crate) fn time_zone() -> Value {
    json!([
        rule("self != ''", ZONE_EMPTY),
        rule("self.lowerAscii() != 'local'", ZONE_LOCAL),
        rule(
            format!(
                "self == '' || (self.matches('^{ZONE_PART}(/{ZONE_PART})*$') && !self.matches('(^|/)[.]{{1,2}}(/|$)'))"
            ),
            ZONE_NAME
        ),
    ])
}

/// retentionPolicy: an object without any rule would say nothing.
pub(crate) fn retention() -> Value {
    let any = ["Last", "Days", "Hourly", "Daily", "Weekly", "Monthly", "Yearly"].map(|n| format!("has(self.keep{n})"));
    json!([rule(any.join(" || "), RETENTION,)])
}

/// volumeSnapshotClassName; `""` means none.
pub(crate) fn snapshot_class() -> Value {
    json!([rule(format!("self == '' || self.matches('{SUBDOMAIN}')"), SNAPSHOT_CLASS,)])
}

/// A hook's command.
pub(crate) fn command() -> Value {
    json!([
        rule("self.size() == 0 || self[0].size() > 0", COMMAND),
        rule(format!("self.map(part, part.size()).sum() <= {COMMAND_MAX}"), COMMAND_SIZE),
    ])
}

/// A hook's containerName; `""` means none.
pub(crate) fn container() -> Value {
    json!([rule(format!("self == '' || self.matches('{LABEL}')"), CONTAINER,)])
}

/// claimTemplates; that no item comes twice is the list type's part.
pub(crate) fn claim_templates() -> Value {
    json!([rule(format!("self.all(name, name.matches('{LABEL}'))"), CLAIM_TEMPLATES,)])
}

/// deletionPolicy: snapshots that were made under Delete have the object as their owner, and go with it whatever the
/// field says by then.
pub(crate) fn deletion_policy() -> Value {
    json!([rule("!(oldSelf == 'Delete' && self == 'Retain')", KEEP_OWNED)])
}

/// The whole spec of a restore.
pub(crate) fn restore() -> Value {
    json!([
        rule("self == oldSelf", IMMUTABLE),
        rule("has(self.backupName) || (has(self.snapshotNames) && self.snapshotNames.size() > 0)", CHOICE),
        at(
            ".snapshotNames",
            rule(
                "!(has(self.snapshotNames) && self.snapshotNames.size() > 0 && \
                 (has(self.runId) || has(self.pointInTime)))",
                SNAPSHOTS_EXCLUDE
            )
        ),
        at(".runId", rule("!(has(self.runId) && has(self.pointInTime))", RUN_EXCLUDES)),
        at(".runId", rule("!has(self.runId) || has(self.backupName)", RUN_NEEDS)),
        at(".pointInTime", rule("!has(self.pointInTime) || has(self.backupName)", INSTANT_NEEDS)),
    ])
}

/// backupName.
pub(crate) fn backup_name() -> Value {
    json!([rule(format!("self == '' || self.matches('{SUBDOMAIN}')"), BACKUP_NAME,)])
}

/// runId.
pub(crate) fn run_id() -> Value {
    json!([rule(r"self.matches('^[0-9]{8}-[0-9]{6}$')", RUN_ID,)])
}

/// pointInTime: reading it as a time refuses what the format alone lets through.
pub(crate) fn point_in_time() -> Value {
    json!([rule("self >= timestamp('2000-01-01T00:00:00Z')", POINT_IN_TIME,)])
}

/// snapshotNames; that no item comes twice is the list type's part.
pub(crate) fn snapshot_names() -> Value {
    json!([rule(format!("self.all(name, name.matches('{SUBDOMAIN}'))"), SNAPSHOT_NAMES,)])
}
