//! The one table of what can go wrong outside a flow, where nothing is a fact yet: settings, files, the first
//! contact with the cluster. Inside a flow what goes wrong is a fact that the planner answers.

use std::fmt;

use crate::plan::noun::Refusal;

#[derive(Debug)]
pub enum Error {
    /// A request that the API server or the way to it did not fulfil.
    Api { verb: &'static str, object: String, source: Box<kube::Error> },
    /// The kubeconfig, the pod's credentials or a setting cannot be used.
    Config(String),
    /// The command line asks for what cannot be.
    Usage(String),
    /// A definite no, with its reason.
    Refused(Refusal),
    /// The API server was silent, or we were told to stop: worth another try.
    Unanswered(String),
    /// What was asked for does not exist.
    Absent(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn api(verb: &'static str, object: impl Into<String>, source: kube::Error) -> Error {
        Error::Api { verb, object: object.into(), source: Box::new(source) }
    }

    /// Exit codes of the command line: see the table in `docs/exit-codes.md`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 64,
            Error::Config(_) | Error::Refused(_) | Error::Absent(_) => 10,
            Error::Api { source, .. } if is_definite(source) => 10,
            Error::Api { .. } | Error::Unanswered(_) => 20,
        }
    }
}

/// The server has understood the request and will not fulfil it, however often it is sent; or it could not even be
/// made, so that nothing was sent.
pub fn is_definite(error: &kube::Error) -> bool {
    match error {
        kube::Error::BuildRequest(_) => true,
        kube::Error::Api(status) => {
            matches!(status.code, 400 | 401 | 403 | 404 | 405 | 413 | 414 | 422 | 431) || is_too_large(&status.message)
        }
        _ => false,
    }
}

/// What the API server says, with code 500, when its store does not take an object of that size.
fn is_too_large(message: &str) -> bool {
    ["etcdserver: request is too large", "trying to send message larger than max"]
        .iter()
        .any(|say| message.contains(say))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Api { verb, object, source } => write!(f, "cannot {verb} {object}: {}", sentence(source)),
            Error::Config(message) | Error::Usage(message) | Error::Unanswered(message) | Error::Absent(message) => {
                f.write_str(message)
            }
            Error::Refused(Refusal { reason, message }) => write!(f, "{reason}: {message}"),
        }
    }
}

impl std::error::Error for Error {}

/// What the server said, else the innermost cause: the outer ones only say that a request failed.
pub fn sentence(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    root(error)
}

/// The innermost cause of an error.
pub fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use kube::api::AttachParams;
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_does_not_fit_is_definite() {
        let api = |code, message: &str| kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)));
        for code in [413, 414, 431] {
            assert!(is_definite(&api(code, "too long")), "{code}");
        }
        assert!(is_definite(&api(500, "rpc error: etcdserver: request is too large")));
        assert!(is_definite(&api(500, "grpc: trying to send message larger than max (2300000 vs. 2097152)")));
        for (code, message) in
            [(500, "etcdserver: request timed out"), (429, "wait"), (504, "timeout"), (409, "Conflict")]
        {
            assert!(!is_definite(&api(code, message)), "{message}");
        }
        let pods = kube::core::Request::new("/api/v1/namespaces/shop/pods");
        let unsent = pods.exec("web-0", ["x".repeat(600_000)], &AttachParams::default()).unwrap_err();
        assert!(is_definite(&kube::Error::BuildRequest(unsent)));
    }
}
