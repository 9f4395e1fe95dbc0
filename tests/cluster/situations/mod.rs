//! What a person sees of each situation: made on the real cluster, under an installed product, and written down in
//! `docs/situations.md`. A sentence that changes must be changed there, too: with `SSB_WRITE=1` this test does it.

mod backups;
mod restores;
mod waiting;

use std::fmt::Write;
use std::path::Path;

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::restore::StatefulSetRestore;

use crate::harness::driver::{SIM, TWO};
use crate::harness::install::Release;
use crate::harness::{Scene, With, is_long, scene, until};

/// A situation comes about by then.
const LIMIT: u64 = 400;

#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    Backup(&'a str),
    Restore(&'a str),
}

impl Object<'_> {
    fn name(self) -> String {
        let (Object::Backup(name) | Object::Restore(name)) = self;
        name.to_owned()
    }

    async fn read(self, s: &Scene) -> Value {
        match self {
            Object::Backup(name) => json!(s.api::<StatefulSetBackup>().get(name).await.unwrap()),
            Object::Restore(name) => json!(s.api::<StatefulSetRestore>().get(name).await.unwrap()),
        }
    }
}

/// A line of the table.
pub struct Row {
    what: &'static str,
    phase: String,
    conditions: String,
    events: String,
    message: String,
}

/// Waits until a condition of the object has that reason for its present spec, and there is an Event with that one (none
/// where it is empty); and reads what is there then.
pub async fn seen(s: &Scene, what: &'static str, object: Object<'_>, reason: &str, event: &str) -> Row {
    let found = until(&format!("{what}: {reason} in {object:?}"), LIMIT, async || {
        let found = object.read(s).await;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let current = |one: &Value| one["observedGeneration"] == found["metadata"]["generation"];
        let there = conditions.iter().any(|one| one["reason"] == reason && one["status"] != "False" && current(one))
            || conditions.iter().any(|one| one["type"] == "Ready" && one["reason"] == reason && current(one));
        if there { Ok(found.clone()) } else { Err(format!("{:#}", found["status"])) }
    })
    .await;
    let reasons = until(&format!("{what}: Event {event:?} of {object:?}"), LIMIT, async || {
        let reasons = events(s, &object.name()).await;
        let there = event.is_empty() || reasons.iter().any(|one| one == event);
        if there { Ok(reasons.clone()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    row(s, what, &found, reason, &reasons)
}

/// Reasons of the Events about it, in their order, each once.
async fn events(s: &Scene, name: &str) -> Vec<String> {
    let mut all = s.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    all.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
    let mut reasons: Vec<String> = vec![];
    for event in all {
        let about = event.regarding.unwrap_or_default();
        let ours = about.kind.is_some_and(|kind| kind.starts_with("StatefulSet") && kind != "StatefulSet");
        let reason = event.reason.unwrap_or_default();
        if ours && about.name.as_deref() == Some(name) && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

fn row(s: &Scene, what: &'static str, object: &Value, reason: &str, events: &[String]) -> Row {
    let status = &object["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| conditions.iter().find(|one| one["type"] == kind);
    let told = ["Ready", "Stalled", "Waiting", "Undoable"].iter().filter_map(|kind| {
        let one = of(kind)?;
        let tells = *kind == "Ready" || one["status"] != "False";
        tells.then(|| format!("{kind} {} `{}`", one["status"].as_str().unwrap(), one["reason"].as_str().unwrap()))
    });
    // What the user reads first: the message of the condition that waits, or of the status.
    let waits = of("Waiting").filter(|one| one["status"] == "True" && one["reason"] == reason);
    let message = waits.map_or(&status["message"], |one| &one["message"]).as_str().unwrap_or_default();
    Row {
        what,
        phase: status["phase"].as_str().unwrap_or_default().to_owned(),
        conditions: told.collect::<Vec<_>>().join(", "),
        events: events.iter().map(|reason| format!("`{reason}`")).collect::<Vec<_>>().join(", "),
        message: plain(s, message),
    }
}

/// Without what differs each time: names of namespaces, ids, uids, instants, and how long something took.
fn plain(s: &Scene, message: &str) -> String {
    let message = message.replace(&format!("{}-sys", s.namespace), "sts-backup").replace(&s.namespace, "shop");
    let mut words = vec![];
    for word in message.split(' ') {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        words.push(if bare.is_empty() { word.to_owned() } else { word.replace(bare, &stands_for(bare)) });
    }
    words.join(" ").replace('|', "\\|").replace('\n', " ")
}

fn stands_for(word: &str) -> String {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    if word.len() >= 20 && word.ends_with('Z') && word.contains('T') && digits >= 14 {
        return "TIME".to_owned();
    }
    let (parts, mut told, mut n) = (word.split('-').collect::<Vec<_>>(), vec![], 0);
    while n < parts.len() {
        let rest = &parts[n..];
        let (name, used) = if is_like(rest, &[8, 4, 4, 4, 12], char::is_ascii_hexdigit) {
            ("UID", 5)
        } else if is_like(rest, &[8, 6], char::is_ascii_digit) {
            ("RUN", 2)
        } else if is_like(rest, &[10], char::is_ascii_hexdigit) {
            // Of a Job, and of its pod.
            ("HASH", if is_like(rest, &[10, 5], char::is_ascii_alphanumeric) { 2 } else { 1 })
        } else {
            (rest[0], 1)
        };
        told.push(name);
        n += used;
    }
    told.join("-")
}

/// The first parts have these lengths and such characters.
fn is_like(parts: &[&str], lengths: &[usize], what: fn(&char) -> bool) -> bool {
    let fits = |(part, length): (&&str, &usize)| part.len() == *length && part.chars().all(|c| what(&c));
    parts.len() >= lengths.len() && parts.iter().zip(lengths).all(fits)
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| what is so | phase | conditions | Events | message |\n|---|---|---|---|---|\n");
    for Row { what, phase, conditions, events, message } in rows {
        writeln!(text, "| {what} | {phase} | {conditions} | {events} | {message} |").unwrap();
    }
    text
}

/// Compares the table under that heading with what was seen, or writes it.
fn compare(heading: &str, rows: &[Row]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/situations.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let begin = start + text[start..].find("| what is so").unwrap_or_else(|| panic!("no table under {heading}"));
    let end = text[begin..].find("\n\n").map_or(text.len(), |end| begin + end + 1);
    let seen = table(rows);
    if std::env::var_os("SSB_WRITE").is_some() {
        std::fs::write(&path, format!("{}{seen}{}", &text[..begin], &text[end..])).unwrap();
    } else {
        similar_asserts(&text[begin..end], &seen, heading);
    }
}

/// Line by line, so that a failure shows the one that differs.
fn similar_asserts(written: &str, seen: &str, heading: &str) {
    let differing: Vec<_> = written.lines().zip(seen.lines()).filter(|(written, seen)| written != seen).collect();
    let count = (written.lines().count(), seen.lines().count());
    assert!(
        differing.is_empty() && count.0 == count.1,
        "docs/situations.md, {heading}, is not what was seen (SSB_WRITE=1 writes it): {count:?} lines; {differing:#?}"
    );
}

/// For our namespace, and one beside it that does not consent to anything.
async fn installed(s: &Scene) -> Option<Release<'_>> {
    let far = s.another_namespace("far", &[]).await;
    s.install(&[&format!("watchNamespaces={{{},{far}}}", s.namespace)]).await
}

#[tokio::test]
async fn what_is_seen_of_backups() {
    if !is_long() {
        return;
    }
    scene("seen", &[With::Healthy(SIM), With::Faulty(TWO, json!({ "failCreateSnapshot": 100_000 }))], async |s| {
        let Some(release) = installed(s).await else { return };
        let rows = backups::all(s).await;
        let waiting = waiting::all(s, &release).await;
        compare("A backup", &rows);
        compare("A run that does not begin", &waiting);
        release.uninstall().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_seen_of_restores() {
    if !is_long() {
        return;
    }
    scene("seen-back", &[With::Healthy(SIM)], async |s| {
        let Some(release) = installed(s).await else { return };
        let rows = restores::all(s).await;
        compare("A restore", &rows);
        release.uninstall().await;
    })
    .await;
}
