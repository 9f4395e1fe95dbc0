//! `--wait`: follows an object until its run has ended, and ends with the exit code that the run has.

use std::fmt::Debug;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Error as WatchError, watch_object};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Global, output};
use crate::api::backup::{LastRun, StatefulSetBackup, StatefulSetBackupStatus};
use crate::api::condition::{self, ConditionType, Reason};
use crate::api::restore::{RestorePhase, StatefulSetRestore};
use crate::api::shared::{Outcome, Trigger};
use crate::api::{GROUP, annotation};
use crate::error::{Error, Result, is_definite};
use crate::plan::noun::Refusal;
use crate::plan::text::escape_json;
use crate::telemetry::Format;

/// After so long without anybody at it, a word about who could be.
const PATIENCE: Duration = Duration::from_secs(30);
const DONE: u8 = 0;
const FAILED: u8 = 10;
const SUPERSEDED: u8 = 30;

/// One line of progress, on stderr.
#[derive(Serialize, Debug, PartialEq, Eq)]
struct Line {
    time: String,
    phase: String,
    message: String,
}

fn say(format: Format, line: &Line) {
    match format {
        Format::Json => eprintln!("{}", escape_json(&serde_json::to_string(line).unwrap_or_default())),
        Format::Text => output::say(&format!("{}: {}", line.phase, line.message)),
    }
}

/// What can be followed to the end of a run. `asked`: the value of the annotation that asks for it; None for whatever is
/// under way.
pub trait Follow:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static
{
    /// The annotation that asks for a run of it, and the word for that.
    const REQUEST: (&'static str, &'static str);

    /// What is told of it; none before anybody is at it.
    fn line(&self, asked: Option<&str>) -> Option<(String, String)>;

    /// The exit code, once it is over.
    fn over(&self, asked: Option<&str>) -> Option<u8>;

    /// What is typed after `run-once` where no watcher runs.
    fn by_hand(object: &str, asked: Option<&str>) -> String;

    /// Its conditions, and the generation of its spec.
    fn conditions(&self) -> &[Condition];

    /// Why what was asked for will never come.
    fn lost(&self, _asked: Option<&str>) -> Option<String> {
        None
    }
}

/// Asks for a run by the value of the object's annotation; with `wait` until it is over.
pub async fn ask<K: Follow>(global: &Global, client: &Client, object: &K, value: &str, wait: bool) -> Result<ExitCode> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let (kind, (key, word)) = (K::kind(&()), K::REQUEST);
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    // With the uid: an object that was created anew is another one.
    let patch = json!({ "metadata": { "uid": object.uid(), "annotations": { key: value } } });
    let done = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    done.map_err(|error| Error::api("annotate", format!("{kind} {namespace}/{name}"), error))?;
    output::print(&format!("{}.{GROUP}/{name} {word} requested\n", kind.to_lowercase()))?;
    if wait { follow(global, client, object, Some(value)).await } else { Ok(ExitCode::SUCCESS) }
}

/// Until it is over; the object is the one of this uid.
pub async fn follow<K: Follow>(global: &Global, client: &Client, object: &K, asked: Option<&str>) -> Result<ExitCode> {
    let natural = || if std::io::stderr().is_terminal() { Format::Text } else { Format::Json };
    let format = global.log_format.unwrap_or_else(natural);
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let kind = K::kind(&());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let states = watch_object(api, &name).default_backoff();
    pin_mut!(states);
    let (mut told, mut hint) = (None, true);
    loop {
        let state = tokio::select! {
            state = states.next() => state,
            () = tokio::time::sleep(PATIENCE), if hint => {
                hint = false;
                output::say(&format!(
                    "nobody has begun it so far: a watcher would make a Job for it; here and now it is carried out by: \
                     sts-backup run-once {}",
                    K::by_hand(&format!("{namespace}/{name}"), asked)
                ));
                continue;
            }
        };
        let seen = match state {
            Some(Ok(Some(seen))) if seen.uid() == object.uid() => seen,
            Some(Ok(_)) | None => {
                return Err(Error::Absent(format!("{kind} {namespace}/{name} was deleted meanwhile")));
            }
            Some(Err(WatchError::InitialListFailed(error) | WatchError::WatchStartFailed(error)))
                if is_definite(&error) =>
            {
                return Err(Error::api("watch", format!("{kind} {namespace}/{name}"), error));
            }
            Some(Err(_)) => continue,
        };
        if let Some(why) = invalid(&seen) {
            return Err(Error::Refused(Refusal::new(Reason::InvalidSpec, format!("{kind} {namespace}/{name}: {why}"))));
        }
        let news = waits(&seen).or_else(|| seen.line(asked));
        hint &= news.is_none();
        if let Some((phase, message)) = news.filter(|news| told.as_ref() != Some(news)) {
            let time = format!("{:.3}", Timestamp::now());
            say(format, &Line { time, phase: phase.clone(), message: message.clone() });
            told = Some((phase, message));
        }
        if let Some(code) = seen.over(asked) {
            return Ok(ExitCode::from(code));
        }
        if let Some(why) = seen.lost(asked) {
            return Err(Error::Refused(Refusal::new(Reason::Superseded, format!("{kind} {namespace}/{name}: {why}"))));
        }
    }
}

/// Its spec as it is cannot be acted on, so nothing will come.
fn invalid<K: Follow>(object: &K) -> Option<String> {
    let stalled = condition::get(object.conditions(), ConditionType::Stalled)?;
    let now = stalled.observed_generation == object.meta().generation;
    let holds = stalled.status == "True" && stalled.reason == Reason::InvalidSpec.as_str();
    (now && holds).then(|| stalled.message.clone())
}

/// Why nobody is at it although it is due. What is suspended is carried out when somebody asks for it.
fn waits<K: Follow>(object: &K) -> Option<(String, String)> {
    let is = |one: &&Condition| one.status == "True" && one.reason != Reason::Suspended.as_str();
    let waiting = condition::get(object.conditions(), ConditionType::Waiting).filter(is)?;
    Some((waiting.type_.clone(), format!("{}: {}", waiting.reason, waiting.message)))
}

impl Follow for StatefulSetBackup {
    const REQUEST: (&'static str, &'static str) = (annotation::REQUESTED_AT, "backup");

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }

    fn line(&self, asked: Option<&str>) -> Option<(String, String)> {
        let status = self.status.as_ref().filter(|status| is_run_of(status, asked))?;
        Some((status.phase?.to_string(), status.message.clone().unwrap_or_default()))
    }

    fn over(&self, asked: Option<&str>) -> Option<u8> {
        let status = self.status.as_ref().filter(|status| is_run_of(status, asked) && status.run.is_none())?;
        let last = status.last_run.as_ref()?;
        let request = self.annotations().get(annotation::REQUESTED_AT);
        let answered = request.is_none() || request == status.last_request.as_ref() || request == last.slot.as_ref();
        // A run is still to come: it is asked for, or its Job is made and has not begun.
        let launched = status.last_schedule_time.as_ref().map(|slot| slot.0);
        let begun = last.slot.as_deref().and_then(|slot| slot.parse::<Timestamp>().ok());
        let to_come = launched.zip(begun).is_some_and(|(launched, begun)| launched > begun);
        if asked.is_none() && (!answered || to_come && !is_manual(last)) {
            return None;
        }
        Some(match last.outcome? {
            Outcome::Succeeded => DONE,
            Outcome::Superseded => SUPERSEDED,
            _ => FAILED,
        })
    }

    fn by_hand(object: &str, asked: Option<&str>) -> String {
        let slot = asked.map(|asked| format!(" --slot {asked} --trigger manual")).unwrap_or_default();
        format!("backup {object}{slot}")
    }

    fn lost(&self, asked: Option<&str>) -> Option<String> {
        let (asked, now) = (asked?, self.annotations().get(annotation::REQUESTED_AT));
        let status = self.status.as_ref();
        let handled = status.is_some_and(|status| status.last_request.as_deref() == Some(asked));
        let begun = status.is_some_and(|status| is_run_of(status, Some(asked)));
        let overwritten = now.is_none_or(|now| now != asked) && !handled && !begun;
        overwritten.then(|| "another request has taken its place before a run began for it".to_owned())
    }
}

/// Of a run that was asked for the slot is no instant of the schedule.
fn is_manual(last: &LastRun) -> bool {
    matches!(last.trigger, Some(Trigger::Manual | Trigger::Command))
}

/// The slot of a run that is asked for is what asks for it.
fn is_run_of(status: &StatefulSetBackupStatus, asked: Option<&str>) -> bool {
    let slot = status.last_run.as_ref().and_then(|last| last.slot.as_deref());
    asked.is_none_or(|asked| slot == Some(asked))
}

/// A restore, or with the value that asks for it its undo.
impl Follow for StatefulSetRestore {
    const REQUEST: (&'static str, &'static str) = (annotation::UNDO, "undo");

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }

    fn line(&self, undo: Option<&str>) -> Option<(String, String)> {
        let status = self.status.as_ref().filter(|_| is_begun(self, undo))?;
        let phase = status.phase?.to_string();
        let refused = condition::get(&status.conditions, ConditionType::Undoable).filter(|_| was_refused(self, undo));
        let message = refused.map(|refused| refused.message.clone()).or_else(|| status.message.clone());
        Some((phase, message.unwrap_or_default()))
    }

    fn over(&self, undo: Option<&str>) -> Option<u8> {
        if !is_begun(self, undo) {
            return None;
        }
        match (self.status.as_ref()?.phase?, undo) {
            (_, Some(_)) if was_refused(self, undo) => Some(FAILED),
            (RestorePhase::Undone, Some(_)) | (RestorePhase::Completed, None) => Some(DONE),
            (RestorePhase::Failed, _) | (RestorePhase::Undone, None) => Some(FAILED),
            // Of an undo the answer is still to come.
            _ => None,
        }
    }

    fn by_hand(object: &str, undo: Option<&str>) -> String {
        match undo {
            Some(value) if value.ends_with(annotation::FORCED) => format!("undo {object} {}", annotation::FORCED),
            Some(_) => format!("undo {object}"),
            None => format!("restore {object}"),
        }
    }
}

fn is_begun(object: &StatefulSetRestore, undo: Option<&str>) -> bool {
    let last = object.status.as_ref().and_then(|status| status.last_request.as_deref());
    undo.is_none_or(|undo| last == Some(undo))
}

fn was_refused(object: &StatefulSetRestore, undo: Option<&str>) -> bool {
    let undoable = condition::get(object.conditions(), ConditionType::Undoable);
    undo.is_some() && undoable.is_some_and(|one| one.reason == Reason::UndoRefused.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
            assert_eq!(object(phase, None, "RestoreStarted").over(None), code, "{phase}");
        }
        let fresh = StatefulSetRestore::new("r", StatefulSetRestoreSpec::default());
        assert_eq!((fresh.over(None), fresh.line(None)), (None, None));
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
            assert_eq!(object(phase, last, reason).over(undo), code, "{phase} {last:?} {reason}");
        }
        let refused = object("Completed", Some("now"), "UndoRefused").line(undo);
        assert_eq!(refused, Some(("Completed".into(), "no".into())));
        assert_eq!(object("Completed", Some("before"), "Undone").line(undo), None);
    }

    fn backup(request: Option<&str>, slot: &str, outcome: Option<&str>, open: bool) -> StatefulSetBackup {
        let run = open.then(|| json!({ "slot": slot, "attempt": 1 }));
        let status = json!({ "phase": "Ready", "message": "words", "run": run,
            "lastRun": { "slot": slot, "outcome": outcome } });
        let annotations: Value = request.map(|value| json!({ annotation::REQUESTED_AT: value })).unwrap_or_default();
        let spec = json!({ "statefulSetRef": { "name": "pg" } });
        let meta = json!({ "name": "b", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap()
    }

    #[test]
    fn a_backup_that_is_asked_for_ends_with_its_own_run() {
        let asked = Some("now");
        for (slot, outcome, open, code) in [
            ("before", Some("Succeeded"), false, None),
            ("now", None, true, None),
            ("now", Some("Succeeded"), true, None),
            ("now", Some("Succeeded"), false, Some(DONE)),
            ("now", Some("Failed"), false, Some(FAILED)),
            ("now", Some("Superseded"), false, Some(SUPERSEDED)),
        ] {
            assert_eq!(backup(asked, slot, outcome, open).over(asked), code, "{slot} {outcome:?} {open}");
        }
        assert_eq!(backup(asked, "before", Some("Succeeded"), false).line(asked), None);
    }

    #[test]
    fn a_spec_that_cannot_be_acted_on_is_not_waited_for_and_a_job_that_does_not_come_is_told() {
        let with = |kind: &str, reason: &str, judged: i64| {
            let mut object = backup(None, "before", Some("Succeeded"), false);
            object.metadata.generation = Some(2);
            let condition = json!({ "type": kind, "status": "True", "reason": reason, "message": "no",
                "observedGeneration": judged, "lastTransitionTime": "2026-01-01T00:00:00Z" });
            object.status.as_mut().unwrap().conditions = vec![serde_json::from_value(condition).unwrap()];
            object
        };
        assert_eq!(invalid(&with("Stalled", "InvalidSpec", 2)), Some("no".into()));
        assert_eq!(invalid(&with("Stalled", "InvalidSpec", 1)), None, "it has been edited since");
        assert_eq!(invalid(&with("Stalled", "HookFailed", 2)), None);
        let waits = waits(&with("Waiting", "JobRejected", 2));
        assert_eq!(waits, Some(("Waiting".into(), "JobRejected: no".into())));
    }

    #[test]
    fn a_request_that_another_one_has_replaced_is_not_waited_for() {
        let asked = Some("first");
        assert_eq!(backup(asked, "before", Some("Succeeded"), false).lost(asked), None);
        assert!(backup(Some("second"), "before", Some("Succeeded"), false).lost(asked).is_some());
        assert_eq!(backup(Some("second"), "first", None, true).lost(asked), None, "it has begun");
    }

    #[test]
    fn without_a_request_it_is_over_when_nothing_is_open_and_nothing_is_asked_for() {
        assert_eq!(backup(None, "slot", Some("Succeeded"), false).over(None), Some(DONE));
        assert_eq!(backup(Some("slot"), "slot", Some("Failed"), false).over(None), Some(FAILED));
        assert_eq!(backup(Some("new"), "slot", Some("Succeeded"), false).over(None), None, "a run is still to come");
        assert_eq!(backup(None, "slot", None, true).over(None), None);
    }
}
