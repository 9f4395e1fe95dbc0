//! What an answer tells of a hook: that it has ended, that it was certainly not started, or neither.
//!
//! A command that may have been started must be thawed after, for as long as it may be at work; one that was not must not
//! cost that. So only what nobody but the API server itself can have said, before it asked anybody else, counts as a
//! refusal; and whatever is not known to be one counts as started.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use crate::error::{is_definite, may_pass, sentence};
use crate::plan::hook::End;

/// How runtimes, and kubelets that did not upgrade, say that they have not started a command.
const NOT_STARTED: [&str; 5] = [
    "failed to start exec",
    "OCI runtime exec failed",
    "executable file not found",
    "container not found",
    "unable to upgrade connection",
];

/// The API server has no connection to the kubelet, so that nothing can have been sent on it.
const UNREACHED: [&str; 2] = ["error dialing backend", ": dial tcp "];

/// What an API server does before it asks the kubelet: admission, and reading the pod.
const BEFORE: [&str; 3] = ["error dialing backend: ", "failed calling webhook ", "etcdserver: "];

/// How the client names the reason of an answer that no API server has given.
const NOT_SPOKEN: &str = "Failed to parse error data";

/// The connection was not upgraded. `Err`: why nobody can tell whether the command was started.
pub fn before(error: &kube::Error) -> Result<End, String> {
    let said = sentence(error);
    match error {
        _ if may_pass(error) || is_unconnected(error) || is_refusal(error) => Ok(End::Refused(said)),
        _ if is_definite(error) => Ok(End::NotStarted(said)),
        _ => Err(said),
    }
}

/// Nobody listened: the request was carried nowhere.
fn is_unconnected(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// It was turned away at the door, and may be let in later. A proxy says 503 also of a server that it lost on the way, and
/// 502 and 504 of nothing else; 500 is said of anything.
fn is_refusal(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let said = status.message.trim_start_matches("Internal error occurred: ");
    match status.code {
        429 => true,
        503 => status.reason != NOT_SPOKEN,
        500 => BEFORE.iter().any(|say| said.starts_with(say)),
        _ => false,
    }
}

/// What the last word of the connection says of the process.
///
/// A status that is neither success nor an exit code comes from the runtime, which could not start the command, or
/// from anybody between it and us whose connection broke, while the command goes on. Only the former's own words
/// tell them apart; in doubt it was started.
pub fn after(status: Option<Status>, tail: &str) -> Result<End, String> {
    let Some(status) = status else { return Err("the connection ended without a status".to_owned()) };
    if status.status.as_deref() == Some("Success") {
        return Ok(End::Exit(0, String::new()));
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.clone()).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let message = status.message.unwrap_or_else(|| "no reason was given".into());
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match (status.reason.as_deref(), code.and_then(|cause| cause.message.as_ref()?.parse().ok())) {
        (Some("NonZeroExitCode"), Some(code)) => Ok(End::Exit(code, tail.to_owned())),
        _ if says(&UNREACHED) => Ok(End::Refused(message)),
        _ if says(&NOT_STARTED) => Ok(End::NotStarted(message)),
        _ => Err(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_is_neither_success_nor_failure() {
        assert!(after(None, "").is_err());
        let ok = Status { status: Some("Success".into()), ..Status::default() };
        assert_eq!(after(Some(ok), ""), Ok(End::Exit(0, String::new())));
    }

    fn failure(message: &str) -> Status {
        Status {
            status: Some("Failure".into()),
            reason: Some("InternalError".into()),
            message: Some(message.into()),
            ..Status::default()
        }
    }

    #[test]
    fn only_the_runtime_s_own_words_say_that_nothing_was_started() {
        let absent = "error executing command in container: failed to exec in container: failed to start exec \"1\": OCI \
                      runtime exec failed: exec failed: unable to start container process: exec: \"no\": executable file \
                      not found in $PATH: unknown";
        assert_eq!(after(Some(failure(absent)), ""), Ok(End::NotStarted(absent.to_owned())));
        for broken in ["error reading from error stream: connection reset by peer", "unexpected EOF"] {
            assert_eq!(after(Some(failure(broken)), ""), Err(broken.to_owned()));
        }
        let away =
            "error sending request: Post \"https://10.0.0.7:10250/exec/x\": dial tcp 10.0.0.7:10250: i/o timeout";
        assert_eq!(after(Some(failure(away)), ""), Ok(End::Refused(away.to_owned())));
        let broken = "error sending request: Post \"https://10.0.0.7:10250/exec/x\": EOF";
        assert!(after(Some(failure(broken)), "").is_err(), "it was on its way");
    }

    fn api(code: u16, message: &str, spoken: bool) -> kube::Error {
        let reason = if spoken { "InternalError" } else { NOT_SPOKEN };
        kube::Error::Api(Box::new(kube::core::Status::failure(message, reason).with_code(code)))
    }

    #[test]
    fn an_answer_is_certain_only_if_nobody_but_the_api_server_can_have_given_it() {
        let dialing = "error dialing backend: dial tcp 10.0.0.7:10250: connect: connection refused";
        for (code, message, spoken) in [
            (429, "too many", true),
            (429, "slow down", false),
            (503, "apiserver not ready", true),
            (401, "Unauthorized", true),
            (500, dialing, true),
            (500, "etcdserver: leader changed", true),
            (500, "Internal error occurred: failed calling webhook \"x\": no endpoints", true),
        ] {
            assert!(matches!(before(&api(code, message, spoken)), Ok(End::Refused(_))), "{code} {message}");
        }
        for (code, message) in [(400, "container x is not valid for pod web-0"), (413, ""), (422, "invalid")] {
            assert!(matches!(before(&api(code, message, true)), Ok(End::NotStarted(_))), "{code} {message}");
        }
        for (code, message, spoken) in [
            (503, "upstream connect error or disconnect/reset before headers", false),
            (502, "Bad Gateway", false),
            (504, "request did not complete within the requested timeout", true),
            (500, "an error on the server has prevented the request from succeeding", true),
            (500, "Internal error occurred: error executing command in container: EOF", true),
        ] {
            assert!(before(&api(code, message, spoken)).is_err(), "{code} {message}");
        }
        let io = |kind| kube::Error::Service(std::io::Error::from(kind).into());
        assert!(matches!(before(&io(std::io::ErrorKind::ConnectionRefused)), Ok(End::Refused(_))));
        assert!(before(&io(std::io::ErrorKind::ConnectionReset)).is_err());
    }
}
