//! `undo`: asks for the volumes that a restore has replaced to be put back under their claims.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;

use super::{Global, Target, block_on, describe, follow};
use crate::api::annotation;
use crate::api::condition::{self, ConditionType, Reason};
use crate::api::restore::{RestorePhase, StatefulSetRestore};
use crate::api::shared::Goal;
use crate::client;
use crate::error::{Error, Result};
use crate::plan::noun::Refusal;
use crate::plan::restore::journal::End;
use crate::plan::restore::undo::nothing;

#[derive(Args, Debug)]
pub struct Undo {
    /// The StatefulSetRestore
    #[arg(value_name = "[NAMESPACE/]NAME")]
    target: Target,
    /// Undo although replicas have come since the restore: their claims stay as they are
    #[arg(long)]
    force: bool,
    /// Follow the undo to its end, and end with its exit code
    #[arg(long)]
    wait: bool,
}

/// What stands in the annotation, or what is to stand there.
#[derive(Debug, PartialEq, Eq)]
enum Ask {
    /// A request that is not answered yet.
    Pending(String),
    New,
    Refused(String),
}

pub fn run(global: &Global, asked: &Undo) -> Result<ExitCode> {
    block_on(async {
        let connection = client::connect(&global.access()).await?;
        let (namespace, name) = asked.target.resolve(global, &connection.namespace)?;
        let object: StatefulSetRestore = describe::find(&connection.client, &namespace, &name).await?;
        let value = match ask(&object, asked.force) {
            Ask::Refused(why) => {
                let message = format!("restore {namespace}/{name} cannot be undone: {why}");
                return Err(Error::Refused(Refusal::new(Reason::UndoRefused, message)));
            }
            Ask::Pending(value) => value,
            Ask::New if asked.force => format!("{:.3} {}", Timestamp::now(), annotation::FORCED),
            Ask::New => format!("{:.3}", Timestamp::now()),
        };
        follow::ask(global, &connection.client, &object, &value, asked.wait).await
    })
}

/// By what status says; the undo itself looks at the volumes.
fn ask(object: &StatefulSetRestore, force: bool) -> Ask {
    let status = object.status.clone().unwrap_or_default();
    let refuse = |why: &str| Ask::Refused(why.to_owned());
    if object.metadata.deletion_timestamp.is_some() {
        return refuse("it is being deleted");
    }
    let undoing = status.run.as_ref().is_some_and(|run| run.slot.as_ref().is_some_and(|slot| !slot.is_empty()));
    let back = status.run.as_ref().is_some_and(|run| run.goal == Some(Goal::Old));
    match status.phase.unwrap_or_default() {
        RestorePhase::Undone => refuse(nothing(&End::Undone)),
        RestorePhase::Failed if status.run.is_none() => {
            let ready = condition::get(&status.conditions, ConditionType::Ready);
            let reason = ready.and_then(|ready| ready.reason.parse().ok()).unwrap_or(Reason::RestoreFailed);
            refuse(nothing(&End::Failed(Refusal::new(reason, ""))))
        }
        RestorePhase::Completed if status.undo_deadline.is_none() => {
            let undoable = condition::get(&status.conditions, ConditionType::Undoable);
            let released = undoable.is_some_and(|one| one.reason == Reason::OldVolumesReleased.as_str());
            refuse(if released {
                "its undo window is over, the old volumes are released"
            } else {
                "no old volume is kept"
            })
        }
        RestorePhase::Completed | RestorePhase::Failed => {
            let pending =
                object.annotations().get(annotation::UNDO).filter(|value| Some(*value) != status.last_request.as_ref());
            let enough = pending.filter(|value| !force || value.ends_with(annotation::FORCED));
            enough.cloned().map_or(Ask::New, Ask::Pending)
        }
        RestorePhase::Unknown => refuse("its phase is a word of a newer version"),
        _ if undoing => refuse("an undo is under way already"),
        _ if back => refuse("it is rolling back already"),
        phase => refuse(&format!(
            "it is under way ({phase}). Wait until it has ended; to stop it now, delete it: what it has replaced is put back"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(status: &Value, annotations: &Value) -> Ask {
        let object = json!({ "metadata": { "name": "r", "annotations": annotations },
            "spec": { "statefulSetRef": { "name": "pg" } }, "status": status });
        ask(&serde_json::from_value(object).unwrap(), false)
    }

    #[test]
    fn what_can_be_undone_is_asked_for() {
        let kept = json!({ "phase": "Completed", "undoDeadline": "2026-11-26T00:00:00Z", "lastRequest": "a" });
        let held = json!({ "phase": "Failed", "run": { "goal": "New" } });
        assert_eq!(asked(&kept, &json!({})), Ask::New);
        assert_eq!(asked(&held, &json!({})), Ask::New);
        let pending = |value: &str| json!({ annotation::UNDO: value });
        assert_eq!(asked(&kept, &pending("a")), Ask::New, "that one is answered");
        assert_eq!(asked(&kept, &pending("b")), Ask::Pending("b".into()));
    }

    #[test]
    fn every_state_in_which_it_cannot_be_has_a_sentence() {
        let released = json!({ "phase": "Completed", "conditions": [{ "type": "Undoable", "status": "False",
            "reason": "OldVolumesReleased", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] });
        for (status, says) in [
            (json!({ "phase": "Undone" }), "undone already"),
            (json!({ "phase": "Failed" }), "it failed, and what was under the claims"),
            (released, "undo window is over"),
            (json!({ "phase": "Completed" }), "no old volume is kept"),
            (json!({}), "under way (New)"),
            (json!({ "phase": "Restoring", "run": { "goal": "New" } }), "under way (Restoring)"),
            (json!({ "phase": "Restoring", "run": { "goal": "Old" } }), "rolling back already"),
            (json!({ "phase": "Restoring", "run": { "goal": "Old", "slot": "now" } }), "undo is under way"),
            (json!({ "phase": "Later" }), "newer version"),
        ] {
            let Ask::Refused(why) = asked(&status, &json!({})) else { panic!("{status} was not refused") };
            assert!(why.contains(says), "{status}: {why}");
        }
    }
}
