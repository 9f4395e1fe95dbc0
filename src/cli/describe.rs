//! `describe`: all that is known of one StatefulSetBackup or StatefulSetRestore, in the manner of kubectl.

mod restore;

use std::fmt::{Debug, Write};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::{Global, Target, block_on, output};
use crate::api::backup::{Hook, LastRun, RetentionPolicy, StatefulSetBackup, StatefulSetBackupStatus};
use crate::api::restore::StatefulSetRestore;
use crate::client;
use crate::error::{Error, Result};

#[derive(Args, Debug)]
pub struct Describe {
    /// The StatefulSetBackup or StatefulSetRestore; where both have the name, both are told
    #[arg(value_name = "[NAMESPACE/]NAME")]
    target: Target,
}

pub fn run(global: &Global, describe: &Describe) -> Result<ExitCode> {
    let text = block_on(async {
        let connection = client::connect(&global.access()).await?;
        let (namespace, name) = describe.target.resolve(global, &connection.namespace)?;
        both(&connection.client, &namespace, &name).await
    })?;
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whatever kind of ours has the name. What may not be read, or is not installed, matters only if nothing is found.
async fn both(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let now = Timestamp::now();
    let (backups, restores) = futures::future::join(get(client, namespace, name), get(client, namespace, name)).await;
    let (mut texts, mut errors) = (vec![], vec![]);
    match backups {
        Ok(Some(object)) => texts.push(backup(&object, events(client, namespace, &object).await.as_deref(), now)),
        Ok(None) => {}
        Err(error) => errors.push(error),
    }
    match restores {
        Ok(Some(object)) => {
            texts.push(restore::restore(&object, events(client, namespace, &object).await.as_deref(), now));
        }
        Ok(None) => {}
        Err(error) => errors.push(error),
    }
    if !texts.is_empty() {
        return Ok(texts.join("\n"));
    }
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    let others =
        [names::<StatefulSetBackup>(client, namespace).await, names::<StatefulSetRestore>(client, namespace).await];
    Err(absent("StatefulSetBackup or StatefulSetRestore", namespace, name, &others.concat()))
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let path = format!("{} {namespace}/{name}", K::kind(&()));
    api.get_opt(name).await.map_err(|error| Error::api("get", path, error))
}

/// The names that there are. They are not worth an error.
async fn names<K>(client: &Client, namespace: &str) -> Vec<String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let all = api.list_metadata(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    all.iter().map(ResourceExt::name_any).collect()
}

fn absent(kinds: &str, namespace: &str, name: &str, others: &[String]) -> Error {
    let path = format!("{kinds} {namespace}/{name}");
    Error::Absent(match others {
        [] => format!("there is no {path}, nor any other in namespace {namespace}: sts-backup list -A shows all"),
        names => format!("there is no {path}; in namespace {namespace} there are: {}", names.join(", ")),
    })
}

/// The object; where there is none of that name, the names that there are.
pub async fn find<K>(client: &Client, namespace: &str, name: &str) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    match get(client, namespace, name).await? {
        Some(object) => Ok(object),
        None => Err(absent(&K::kind(&()), namespace, name, &names::<K>(client, namespace).await)),
    }
}

/// An object of ours, of either kind.
pub enum Either {
    Backup(Box<StatefulSetBackup>),
    Restore(Box<StatefulSetRestore>),
}

/// Whichever has the name; of two the backup, whose name is the policy's.
pub async fn either(client: &Client, namespace: &str, name: &str) -> Result<Either> {
    let absent = match find(client, namespace, name).await {
        Ok(backup) => return Ok(Either::Backup(Box::new(backup))),
        Err(Error::Absent(absent)) => absent,
        Err(error) => return Err(error),
    };
    match find(client, namespace, name).await {
        Err(Error::Absent(_)) => Err(Error::Absent(absent)),
        restore => Ok(Either::Restore(Box::new(restore?))),
    }
}

/// Newest last. None where they may not be read: they are not worth an error.
async fn events<K: Resource>(client: &Client, namespace: &str, object: &K) -> Option<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields(&format!("regarding.uid={}", object.uid().unwrap_or_default()));
    let mut all = api.list(&params).await.ok()?.items;
    all.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    Some(all)
}

/// The whole text.
pub fn backup(object: &StatefulSetBackup, events: Option<&[Event]>, now: Timestamp) -> String {
    let status = object.status.clone().unwrap_or_default();
    let mut text = fields(&[spec(object), state(&status)].concat());
    conditions(&mut text, &status.conditions, now);
    if let Some(run) = &status.run {
        let phase = run.intent.as_ref().map(|intent| intent.phase.to_string()).unwrap_or_default();
        text += "Open Run:\n";
        text += &indented(&fields(&[
            ("Id", run.id.clone().unwrap_or_default()),
            ("Slot", run.slot.clone().unwrap_or_default()),
            ("Attempt", run.attempt.unwrap_or(1).to_string()),
            ("Phase", phase),
            ("Holder", run.holder.clone().unwrap_or_default()),
        ]));
    }
    if let Some(last) = &status.last_run {
        last_run(&mut text, last);
    }
    history(&mut text, &status);
    told(&mut text, events, now);
    text
}

type Field = (&'static str, String);

fn instant(time: Option<&Time>, none: &str) -> String {
    time.map_or_else(|| none.to_owned(), |time| time.0.to_string())
}

fn spec(object: &StatefulSetBackup) -> Vec<Field> {
    let spec = &object.spec;
    let own = object.namespace().unwrap_or_default();
    let zone = spec.time_zone();
    let schedule = spec.schedule().map_or("none: one run, when the object is created".into(), |schedule| {
        format!("{schedule} ({zone}){}", if spec.suspended() { ", suspended" } else { "" })
    });
    let claims = if spec.claim_templates.is_empty() { "all templates".into() } else { spec.claim_templates.join(", ") };
    let class = spec.volume_snapshot_class_name().unwrap_or("the default one of each claim's driver");
    vec![
        ("Kind", "StatefulSetBackup".to_owned()),
        ("Name", object.name_any()),
        ("Namespace", own.clone()),
        ("Created", instant(object.metadata.creation_timestamp.as_ref(), "-")),
        ("StatefulSet", format!("{}/{}", spec.stateful_set_ref.namespace_or(&own), spec.stateful_set_ref.name)),
        ("Schedule", schedule),
        ("Claims", claims),
        ("Snapshot Class", class.to_owned()),
        ("Pre Hook", spec.pre_backup_hook.as_ref().map_or("none".into(), hook)),
        ("Post Hook", spec.post_backup_hook.as_ref().map_or("none".into(), hook)),
        ("Longest Freeze", format!("{} s", spec.max_freeze_seconds())),
        ("Ready Within", format!("{} s", spec.snapshot_ready_timeout_seconds())),
        ("Retention", spec.retention_policy.as_ref().map_or("none: every run is kept".into(), retention)),
        ("Deletion Policy", spec.deletion_policy().to_string()),
    ]
}

fn hook(hook: &Hook) -> String {
    let place = hook.container_name().map(|name| format!(" in container {name}")).unwrap_or_default();
    format!("{:?}{place}, {} s at most", hook.command, hook.timeout_seconds())
}

fn retention(policy: &RetentionPolicy) -> String {
    let RetentionPolicy {
        keep_last,
        keep_days,
        keep_hourly,
        keep_daily,
        keep_weekly,
        keep_monthly,
        keep_yearly,
        purge_retained,
        make_room,
    } = policy;
    let rules = [
        ("keepLast", keep_last),
        ("keepDays", keep_days),
        ("keepHourly", keep_hourly),
        ("keepDaily", keep_daily),
        ("keepWeekly", keep_weekly),
        ("keepMonthly", keep_monthly),
        ("keepYearly", keep_yearly),
    ];
    let rules = rules.into_iter().filter_map(|(name, n)| Some(format!("{name} {}", (*n)?)));
    let purge = (*purge_retained == Some(true)).then(|| "purgeRetained".to_owned());
    let room = (*make_room == Some(true)).then(|| "makeRoom".to_owned());
    rules.chain(purge).chain(room).collect::<Vec<_>>().join(", ")
}

fn state(status: &StatefulSetBackupStatus) -> Vec<Field> {
    let time = |time: &Option<Time>| instant(time.as_ref(), "never");
    let mut fields = vec![
        ("Phase", status.phase.map_or("Pending".into(), |phase| phase.to_string())),
        ("Message", status.message.clone().unwrap_or_default()),
        ("Last Backup", time(&status.last_backup_time)),
    ];
    if status.next_schedule_time.is_some() {
        fields.push(("Next", time(&status.next_schedule_time)));
    }
    if let Some(manager) = &status.managed_by {
        fields.push(("Managed By", manager.clone()));
    }
    fields
}

fn conditions(text: &mut String, all: &[Condition], now: Timestamp) {
    let rows = all.iter().map(|one| {
        let since = output::age(now, one.last_transition_time.0);
        vec![one.type_.clone(), one.status.clone(), since, one.reason.clone(), one.message.clone()]
    });
    section(text, "Conditions", &["TYPE", "STATUS", "FOR", "REASON", "MESSAGE"], rows);
}

fn last_run(text: &mut String, last: &LastRun) {
    let seconds = |seconds: Option<f64>| seconds.map_or("-".into(), |seconds| format!("{seconds:.3} s"));
    let time = |time: &Option<Time>| instant(time.as_ref(), "-");
    let outcome = last.outcome.map_or("under way".into(), |outcome| outcome.to_string());
    let reason = last.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let trigger = last.trigger.map(|word| word.to_string()).unwrap_or_default();
    *text += "Last Run:\n";
    let mut all = vec![
        ("Id", last.id.clone().unwrap_or_else(|| "-".into())),
        ("Outcome", outcome + &reason),
        (
            "Trigger",
            format!("{trigger}, slot {}, attempt {}", last.slot.as_deref().unwrap_or("-"), last.attempt.unwrap_or(1)),
        ),
        ("Started", time(&last.start_time)),
        ("Completed", time(&last.completion_time)),
        ("Freeze", seconds(last.freeze_seconds)),
        ("Skew", seconds(last.skew_seconds)),
        ("Consistency", last.consistency.map_or("-".into(), |word| word.to_string())),
    ];
    if let Some(job) = &last.job_name {
        all.push(("Job", job.clone()));
    }
    *text += &indented(&fields(&all));
    let rows = last.snapshots.iter().map(|one| {
        let size = one.restore_size.as_ref().map_or("-".into(), |size| size.0.clone());
        let ready = if one.ready_to_use == Some(true) { "yes" } else { "no" };
        vec![one.name.clone(), one.pvc_name.clone().unwrap_or_default(), ready.into(), size, time(&one.creation_time)]
    });
    section(text, "Snapshots", &["NAME", "CLAIM", "READY", "SIZE", "CUT"], rows);
}

fn history(text: &mut String, status: &StatefulSetBackupStatus) {
    let rows = status.history.iter().map(|one| {
        let time = |time: &Option<Time>| instant(time.as_ref(), "-");
        vec![
            if one.id.is_empty() { "-".into() } else { one.id.clone() },
            one.outcome.map_or("-".into(), |word| word.to_string()),
            one.reason.map_or("-".into(), |word| word.to_string()),
            time(&one.start_time),
            time(&one.cut_time),
            one.freeze_seconds.map_or("-".into(), |seconds| format!("{seconds:.1}s")),
            one.snapshots.unwrap_or_default().to_string(),
        ]
    });
    section(text, "History", &["RUN", "OUTCOME", "REASON", "STARTED", "CUT", "FREEZE", "SNAPSHOTS"], rows);
}

fn told(text: &mut String, events: Option<&[Event]>, now: Timestamp) {
    let Some(events) = events else {
        *text += "Events:   may not be read by this account\n";
        return;
    };
    let rows = events.iter().map(|one| {
        let at = one.event_time.as_ref().map_or("-".into(), |time| output::age(now, time.0));
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        vec![word(&one.type_), word(&one.reason), at, word(&one.note)]
    });
    section(text, "Events", &["TYPE", "REASON", "AGE", "MESSAGE"], rows);
}

pub fn section(text: &mut String, title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let head = head.iter().map(ToString::to_string).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let _ = if rows.len() == 1 {
        writeln!(text, "{title}:   none")
    } else {
        writeln!(text, "{title}:\n{}", indented(&output::table(&rows)).trim_end_matches('\n'))
    };
}

/// `Name:   value`, the values below each other.
pub fn fields(all: &[Field]) -> String {
    let rows: Vec<_> = all.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]).collect();
    output::table(&rows)
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "  " + line + "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_tells_spec_state_runs_and_events() {
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        let object = serde_json::from_value(json!({
            "metadata": { "name": "nightly", "namespace": "shop", "creationTimestamp": "2026-11-20T12:00:00Z" },
            "spec": {
                "statefulSetRef": { "name": "pg" }, "schedule": "0 2 * * *", "timeZone": "Europe/Berlin",
                "suspend": true, "retentionPolicy": { "keepLast": 3, "keepDays": 7 },
                "preBackupHook": { "command": ["psql", "-c", "CHECKPOINT"], "containerName": "db" },
            },
            "status": {
                "phase": "Ready", "message": "Run 20261127-010000: 1 snapshot ready",
                "lastBackupTime": "2026-11-27T01:00:02Z",
                "conditions": [{ "type": "Ready", "status": "True", "reason": "BackupCompleted",
                    "message": "Run 20261127-010000: 1 snapshot ready", "lastTransitionTime": "2026-11-27T01:00:30Z" }],
                "run": { "id": "20261127-115900", "slot": "by hand", "attempt": 2, "holder": "backup/shop/nightly/x",
                    "intent": { "phase": "Frozen" } },
                "lastRun": { "id": "20261127-010000", "slot": "2026-11-27T01:00:00Z", "trigger": "schedule",
                    "attempt": 1, "startTime": "2026-11-27T01:00:00Z", "completionTime": "2026-11-27T01:00:30Z",
                    "freezeSeconds": 1.25, "skewSeconds": 0.01, "consistency": "CrashPerVolume",
                    "outcome": "Succeeded", "reason": "BackupCompleted",
                    "snapshots": [{ "name": "nightly-data-20261127-010000-0", "pvcName": "data-pg-0",
                        "readyToUse": true, "restoreSize": "1Gi", "creationTime": "2026-11-27T01:00:02Z" }] },
                "history": [
                    { "id": "20261127-010000", "outcome": "Succeeded", "reason": "BackupCompleted", "freezeSeconds": 1.25,
                        "startTime": "2026-11-27T01:00:00Z", "cutTime": "2026-11-27T01:00:02Z", "snapshots": 1 },
                    { "id": "", "outcome": "Failed", "reason": "NoClaims", "startTime": "2026-11-26T01:00:00Z" },
                ],
            },
        }));
        let event = json!({ "metadata": { "name": "e" }, "eventTime": "2026-11-27T01:00:30.000000Z", "type": "Normal",
            "reason": "BackupCompleted", "note": "Run 20261127-010000: 1 snapshot ready" });
        let full = backup(&object.unwrap(), Some(&[serde_json::from_value(event).unwrap()]), now);
        let bare =
            json!({ "metadata": { "name": "b", "namespace": "shop" }, "spec": { "statefulSetRef": { "name": "db" } } });
        let bare = backup(&serde_json::from_value(bare).unwrap(), None, now);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!("describe", format!("{full}\n---\n{bare}")));
    }
}
