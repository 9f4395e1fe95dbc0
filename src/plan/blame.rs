//! The sentence for a hook that fails a run: which command, in which container of which pod, and what it said.

use jiff::SignedDuration;

use super::flow::Lost;
use super::hook::{End, Exec, Place, Which};
use super::noun::Refusal;
use super::text::head;
use crate::api::condition::Reason;

/// Bytes of a command, and of what a runtime says of it, that a sentence repeats.
const COMMAND: usize = 1024;

/// A command as a sentence shows it.
pub fn command(argv: &[String]) -> String {
    head(&format!("{argv:?}"), COMMAND).into_owned()
}

/// Why a hook that ended so fails the run. `quiet`: what it has said stands in the log alone.
pub fn refusal(exec: &Exec, end: &End, timeout: SignedDuration, quiet: bool) -> Option<Refusal> {
    let Place { pod, container, .. } = &exec.place;
    let what = format!("{} {} in container {container} of pod {pod}", exec.which.name(), command(&exec.argv));
    let post = exec.which == Which::Post;
    let said = |tail: &str| match tail {
        _ if quiet => "its output is in the log alone (spec.hooks.outputInStatus: false)".to_owned(),
        "" => "nothing on stderr".to_owned(),
        tail => format!("stderr: {tail}"),
    };
    let failed = if post { Reason::ThawFailed } else { Reason::HookFailed };
    Some(match end {
        End::Exit(0, _) | End::Gone | End::Lost(Lost::Stopped | Lost::Reply) => return None,
        End::Exit(code, tail) => Refusal::new(failed, format!("{what} ended with exit code {code}; {}", said(tail))),
        End::NotStarted(why) => Refusal::new(failed, format!("{what} could not be started: {}", head(why, COMMAND))),
        End::Late(_) | End::Lost(Lost::Late) => {
            let reason = if post { Reason::ThawFailed } else { Reason::HookTimeout };
            let (seconds, tail) = (timeout.as_secs(), if let End::Late(tail) = end { said(tail) } else { said("") });
            Refusal::new(reason, format!("{what} did not end within its timeoutSeconds ({seconds} s); {tail}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::plan::name::RunId;

    #[test]
    fn a_refusal_names_pod_container_command_and_the_tail_of_stderr() {
        let place = Place {
            ordinal: 0,
            pod: "pg-0".into(),
            uid: String::new(),
            container: "db".into(),
            container_id: String::new(),
            restarts: 0,
        };
        let argv = vec!["psql".into(), "-c".into(), "CHECKPOINT".into()];
        let exec = |which| Exec {
            run: RunId::after(None, Timestamp::UNIX_EPOCH),
            which,
            place: place.clone(),
            argv: argv.clone(),
            until: Timestamp::UNIX_EPOCH,
        };
        let said = |which, end: End| {
            let refusal = refusal(&exec(which), &end, SignedDuration::from_secs(60), false).unwrap();
            format!("{}: {}", refusal.reason, refusal.message)
        };
        let what = "hook [\"psql\", \"-c\", \"CHECKPOINT\"] in container db of pod pg-0";
        let code = End::Exit(2, "FATAL: no".into());
        assert_eq!(
            said(Which::Pre, code.clone()),
            format!("HookFailed: pre {what} ended with exit code 2; stderr: FATAL: no")
        );
        assert_eq!(
            said(Which::Post, code),
            format!("ThawFailed: post {what} ended with exit code 2; stderr: FATAL: no")
        );
        assert_eq!(
            said(Which::Pre, End::Late("waiting".into())),
            format!("HookTimeout: pre {what} did not end within its timeoutSeconds (60 s); stderr: waiting")
        );
        let minute = SignedDuration::from_secs(60);
        assert!(refusal(&exec(Which::Pre), &End::Exit(0, String::new()), minute, false).is_none());
        for end in [End::Exit(1, "secret".into()), End::Late("secret".into())] {
            let message = refusal(&exec(Which::Pre), &end, minute, true).unwrap().message;
            assert!(!message.contains("secret") && message.contains("outputInStatus"), "{message}");
        }
        let long = Exec { argv: vec!["x".repeat(30_000)], ..exec(Which::Pre) };
        let message = refusal(&long, &End::NotStarted("y".repeat(30_000)), minute, false).unwrap().message;
        assert!(message.len() < 2200 && message.contains("could not be started: yyy"), "{message}");
    }
}
