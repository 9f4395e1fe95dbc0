//! The sentence for a hook that fails a run: which command, in which container of which pod, and what it said.

use jiff::SignedDuration;

use super::flow::Lost;
use super::hook::{End, Exec, Place, Which};
use super::noun::Refusal;
use super::text::head;
use crate::api::condition::Reason;

/// Bytes of a command, and of what a runtime says of it, that a sentence repeats.
const COMMAND: usize = 1024;

/// Hexadecimal digits that are an id, at the least.
const ID: usize = 32;

/// A command as a sentence shows it.
pub fn command(argv: &[String]) -> String {
    head(&format!("{argv:?}"), COMMAND).into_owned()
}

/// Which hook, with its command, container and pod.
pub fn what(exec: &Exec) -> String {
    let Place { pod, container, .. } = &exec.place;
    format!("{} {} in container {container} of pod {pod}", exec.which.name(), command(&exec.argv))
}

/// Those who hand on why a command was not started; each puts its own words in front.
const HANDED_ON: [&str; 13] = [
    "Internal error occurred",
    "error sending request",
    "error executing command in container",
    "failed to exec in container",
    "failed to start exec",
    "failed to create exec",
    "OCI runtime exec failed",
    "exec failed",
    "unable to start container process",
    "unable to upgrade connection",
    "error dialing backend",
    "rpc error",
    "unknown",
];

/// What the last of them says: without the words of the others, and without ids that nobody can look up.
pub fn reason(said: &str) -> String {
    let parts: Vec<String> = said.trim().split(": ").map(named).collect();
    let handed_on = |part: &String| HANDED_ON.contains(&part.as_str()) || part.is_empty();
    let first = parts.iter().position(|part| !handed_on(part)).unwrap_or_default();
    let last = parts.iter().rposition(|part| !handed_on(part)).unwrap_or(parts.len() - 1);
    head(&parts[first..=last].join(": "), COMMAND).into_owned()
}

/// Without ids of containers and processes, and without the code of the call that failed.
fn named(part: &str) -> String {
    let part = part.strip_prefix("code = ").and_then(|part| part.split_once(" desc = ")).map_or(part, |(_, part)| part);
    let is_id = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        word.len() >= ID && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !part.split(' ').any(|word| is_id(&word)) {
        return part.to_owned();
    }
    part.split(' ').filter(|word| !is_id(word)).collect::<Vec<_>>().join(" ")
}

/// Why a pre hook that nobody was reached to start fails the run.
pub fn never_started(exec: &Exec, why: &str, timeout: SignedDuration) -> Refusal {
    let (what, seconds, why) = (what(exec), timeout.as_secs(), reason(why));
    let message = format!("{what} could not be started within its timeoutSeconds ({seconds} s): {why}");
    Refusal::new(Reason::HookFailed, message)
}

/// Why a hook that ended so fails the run. `quiet`: what it has said stands in the log alone.
pub fn refusal(exec: &Exec, end: &End, timeout: SignedDuration, quiet: bool) -> Option<Refusal> {
    let what = what(exec);
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
        End::NotStarted(why) | End::Refused(why) => {
            Refusal::new(failed, format!("{what} could not be started: {}", reason(why)))
        }
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

    #[test]
    fn a_reason_stands_first_and_without_those_who_handed_it_on() {
        let id = "8c1b5b24d9a4a1f0b7f6c2a39b6d3f7f21fb07e0a7f5f4f0b9d3e8a6c5d4b3a2";
        let runc = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"no\": executable file \
                    not found in $PATH";
        let reason_of = |said: &str| reason(&said.replace("ID", id));
        let absent = "exec: \"no\": executable file not found in $PATH";
        for said in [
            format!(
                "Internal error occurred: Internal error occurred: error executing command in container: failed to exec in \
                 container: failed to start exec \"ID\": {runc}: unknown"
            ),
            format!("Internal error occurred: error executing command in container: {runc}: unknown"),
            format!(
                "rpc error: code = Unknown desc = failed to exec in container: failed to start exec \"ID\": {runc}"
            ),
            absent.to_owned(),
        ] {
            assert_eq!(reason_of(&said), absent);
        }
        assert_eq!(
            reason_of("Internal error occurred: unable to upgrade connection: container not found (\"app\")"),
            "container not found (\"app\")"
        );
        assert_eq!(reason_of("failed to exec in container: container ID is not running"), "container is not running");
        assert_eq!(
            reason_of(
                "Internal error occurred: error dialing backend: dial tcp 10.0.0.7:10250: connect: connection refused"
            ),
            "dial tcp 10.0.0.7:10250: connect: connection refused"
        );
        for whole in ["", "unknown", "Internal error occurred: unknown", ": "] {
            assert!(reason(whole).len() <= whole.len(), "{whole}");
        }
    }
}
