//! `--wait`: follows an object until its run has ended, and ends with the exit code that the run has.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Error as WatchError, watch_object};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::Global;
use crate::api::condition::{self, ConditionType, Reason};
use crate::api::restore::{RestorePhase, StatefulSetRestore};
use crate::error::{Error, Result, is_definite};
use crate::telemetry::Format;

/// After so long without anybody at it, a word about who could be.
const PATIENCE: Duration = Duration::from_secs(30);
const DONE: u8 = 0;
const FAILED: u8 = 10;

/// One line of progress, on stderr.
#[derive(Serialize, Debug, PartialEq, Eq)]
struct Line {
    time: String,
    phase: String,
    message: String,
}

fn say(format: Format, line: &Line) {
    match format {
        Format::Json => eprintln!("{}", serde_json::to_string(line).unwrap_or_default()),
        Format::Text => eprintln!("{}: {}", line.phase, line.message),
    }
}

/// A restore, or with the value that asks for it its undo.
pub async fn restore(
    global: &Global,
    client: &Client,
    object: &StatefulSetRestore,
    undo: Option<&str>,
) -> Result<ExitCode> {
    let natural = || if std::io::stderr().is_terminal() { Format::Text } else { Format::Json };
    let format = global.log_format.unwrap_or_else(natural);
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<StatefulSetRestore> = Api::namespaced(client.clone(), &namespace);
    let states = watch_object(api, &name).default_backoff();
    pin_mut!(states);
    let verb = if undo.is_some() { "undo" } else { "restore" };
    let (mut told, mut hint) = (None, true);
    loop {
        let state = tokio::select! {
            state = states.next() => state,
            () = tokio::time::sleep(PATIENCE), if hint => {
                hint = false;
                eprintln!(
                    "nobody has begun it so far: a watcher would make a Job for it; here and now it is carried out by: \
                     sts-backup run-once {verb} {namespace}/{name}"
                );
                continue;
            }
        };
        let seen = match state {
            Some(Ok(Some(seen))) if seen.uid() == object.uid() => seen,
            Some(Ok(_)) | None => {
                return Err(Error::Absent(format!("StatefulSetRestore {namespace}/{name} was deleted meanwhile")));
            }
            Some(Err(WatchError::InitialListFailed(error) | WatchError::WatchStartFailed(error)))
                if is_definite(&error) =>
            {
                return Err(Error::api("watch", format!("StatefulSetRestore {namespace}/{name}"), error));
            }
            Some(Err(_)) => continue,
        };
        let news = line(&seen, undo);
        hint &= news.is_none();
        if let Some((phase, message)) = news.filter(|news| told.as_ref() != Some(news)) {
            let time = format!("{:.3}", Timestamp::now());
            say(format, &Line { time, phase: phase.clone(), message: message.clone() });
            told = Some((phase, message));
        }
        if let Some(code) = over(&seen, undo) {
            return Ok(ExitCode::from(code));
        }
    }
}

/// What is told of it; none before anybody is at it.
fn line(object: &StatefulSetRestore, undo: Option<&str>) -> Option<(String, String)> {
    let status = object.status.as_ref().filter(|_| is_begun(object, undo))?;
    let phase = status.phase?.to_string();
    let refused = condition::get(&status.conditions, ConditionType::Undoable).filter(|_| was_refused(object, undo));
    let message = refused.map(|refused| refused.message.clone()).or_else(|| status.message.clone());
    Some((phase, message.unwrap_or_default()))
}

fn is_begun(object: &StatefulSetRestore, undo: Option<&str>) -> bool {
    let last = object.status.as_ref().and_then(|status| status.last_request.as_deref());
    undo.is_none_or(|undo| last == Some(undo))
}

fn was_refused(object: &StatefulSetRestore, undo: Option<&str>) -> bool {
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let undoable = condition::get(conditions, ConditionType::Undoable);
    undo.is_some() && undoable.is_some_and(|one| one.reason == Reason::UndoRefused.as_str())
}

/// The exit code, once it is over.
fn over(object: &StatefulSetRestore, undo: Option<&str>) -> Option<u8> {
    if !is_begun(object, undo) {
        return None;
    }
    match (object.status.as_ref()?.phase?, undo) {
        (_, Some(_)) if was_refused(object, undo) => Some(FAILED),
        (RestorePhase::Undone, Some(_)) | (RestorePhase::Completed, None) => Some(DONE),
        (RestorePhase::Failed, _) | (RestorePhase::Undone, None) => Some(FAILED),
        // Of an undo the answer is still to come.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::restore::StatefulSetRestoreSpec;

    fn object(phase: &str, last: Option<&str>, undoable: &str) -> StatefulSetRestore {
        let condition = json!({ "type": "Undoable", "status": "True", "reason": undoable, "message": "no",
            "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let status = json!({ "phase": phase, "message": "words", "lastRequest": last, "conditions": [condition] });
        let spec = json!({ "statefulSetRef": { "name": "pg" } });
        serde_json::from_value(json!({ "metadata": { "name": "r" }, "spec": spec, "status": status })).unwrap()
    }

    #[test]
    fn a_restore_ends_with_its_phase() {
        for (phase, code) in [
            ("New", None),
            ("ScalingUp", None),
            ("Completed", Some(DONE)),
            ("Failed", Some(FAILED)),
            ("Undone", Some(FAILED)),
        ] {
            assert_eq!(over(&object(phase, None, "RestoreStarted"), None), code, "{phase}");
        }
        let fresh = StatefulSetRestore::new("r", StatefulSetRestoreSpec::default());
        assert_eq!((over(&fresh, None), line(&fresh, None)), (None, None));
    }

    #[test]
    fn an_undo_ends_when_its_own_request_is_answered() {
        let undo = Some("now");
        for (phase, last, reason, code) in [
            ("Completed", None, "RestoreCompleted", None),
            ("Completed", Some("before"), "UndoRefused", None),
            ("Completed", Some("now"), "UndoRefused", Some(FAILED)),
            ("ScalingDown", Some("now"), "UndoRequested", None),
            ("Undone", Some("now"), "Undone", Some(DONE)),
            ("Failed", Some("now"), "Held", Some(FAILED)),
        ] {
            assert_eq!(over(&object(phase, last, reason), undo), code, "{phase} {last:?} {reason}");
        }
        let refused = line(&object("Completed", Some("now"), "UndoRefused"), undo);
        assert_eq!(refused, Some(("Completed".into(), "no".into())));
        assert_eq!(line(&object("Completed", Some("before"), "Undone"), undo), None);
    }
}
