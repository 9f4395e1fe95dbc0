//! What a command does in a container, and what is heard of it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::apiserver::State;
use crate::nature::Nature;

#[derive(Debug, Clone, Default)]
pub struct Act {
    pub takes: Duration,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// The connection ends without a status.
    pub cut: bool,
    /// The sentence of whoever could not start it, in the place of an exit code: nothing is run.
    pub unstarted: Option<String>,
    /// It is so until then.
    pub until: Option<Timestamp>,
    container: String,
    freezes: Option<bool>,
}

impl Nature {
    /// What comes of a command that begins now, and freezes or thaws this container.
    pub fn play(&mut self, now: Timestamp, pod: &str, container: &str, argv: &[String]) -> Act {
        let word = argv.first().cloned().unwrap_or_default();
        let usual = Act { takes: self.pace.hook, ..Act::default() };
        let script = self.scripts.get(&(pod.to_owned(), word.clone()));
        let act = script.filter(|act| act.until.is_none_or(|until| now < until)).cloned().unwrap_or(usual);
        let freezes = match word.as_str() {
            "freeze" => Some(true),
            "thaw" => Some(false),
            _ => None,
        };
        if let Some(alarm) = self.alarm.take_if(|_| freezes == Some(false)) {
            self.answered = Some(now.duration_since(alarm));
        }
        Act { container: container.to_owned(), freezes, ..act }
    }
}

impl Act {
    /// It does nothing and says so.
    pub fn failing(code: i32, stderr: &str) -> Act {
        Act { code, stderr: stderr.to_owned(), ..Act::default() }
    }

    /// It is not started, and somebody on the way says why.
    pub fn unstarted(why: &str, until: Option<Timestamp>) -> Act {
        Act { unstarted: Some(why.to_owned()), until, ..Act::default() }
    }

    pub fn take_effect(&self, state: &mut State) {
        let nature = &mut state.nature;
        let locked = nature.is_locked(&self.container);
        match self.freezes {
            _ if self.code != 0 || self.unstarted.is_some() => {}
            Some(true) if locked => state.violations.push("pre hook on a frozen pod".into()),
            Some(true) => drop(nature.locks.insert(self.container.clone(), true)),
            Some(false) => {
                nature.unlock(&self.container);
            }
            None => {}
        }
    }

    /// The last word on the connection: an exit code, or what an API server makes of an error behind it.
    pub fn status(&self) -> Value {
        match (&self.unstarted, self.code) {
            (Some(why), _) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {why}"), "details": { "causes": [{ "message": why }] },
            }),
            (None, 0) => json!({ "metadata": {}, "status": "Success" }),
            (None, code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
        }
    }
}
