//! The one table of what can go wrong outside a flow, where nothing is a fact yet: settings, files, the first
//! contact with the cluster. Inside a flow what goes wrong is a fact that the planner answers.

use std::fmt;

use crate::api::{LOCK_POLICY, MARKS_POLICY};
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

/// A no that an API server says as well while it comes up, before it knows who may do what and which kinds there are:
/// 401, 403, and a 404 that names no object. What admission or a quota has judged is none: they have understood it. But
/// the policies that ask for a right of whoever writes say no more than that the right is not there.
pub fn may_pass(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let judged = ["denied the request", "denied request", "exceeded quota", "is being terminated"];
    let asks = [LOCK_POLICY, MARKS_POLICY].map(|policy| format!("ValidatingAdmissionPolicy '{policy}'"));
    let says = |say: &str| status.message.contains(say);
    match status.code {
        401 => true,
        403 => !judged.iter().any(|say| says(say)) || asks.iter().any(|say| says(say)),
        404 => !is_absent(error),
        _ => false,
    }
}

/// A 404 that names what is not there. A path that is not served, or not yet, names nothing.
pub fn is_absent(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.code == 404 && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}

/// What was read by name; none: the API server says that there is no object of that name.
///
/// # Errors
/// All else, a path that is not served among it.
pub fn or_absent<K>(reply: kube::Result<K>) -> kube::Result<Option<K>> {
    match reply {
        Ok(object) => Ok(Some(object)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
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
    fn what_an_api_server_says_that_comes_up_may_pass() {
        let of = |code, message: &str, name: Option<&str>| {
            let details = name.map(|name| serde_json::from_value(serde_json::json!({ "name": name })).unwrap());
            let status = Status { details, ..Status::failure(message, "").with_code(code) };
            kube::Error::Api(Box::new(status))
        };
        let forbidden = "persistentvolumeclaims is forbidden: User \"runner\" cannot list resource: RBAC: clusterrole.rbac.\
                         authorization.k8s.io \"sts-backup-runner\" not found";
        for (error, passes, absent) in [
            (of(401, "Unauthorized", None), true, false),
            (of(403, forbidden, Some("data-web-0")), true, false),
            (of(404, "404 page not found", None), true, false),
            (of(404, "the server could not find the requested resource", Some("")), true, false),
            (of(404, "statefulsets.apps \"web\" not found", Some("web")), false, true),
            (of(403, "admission webhook \"x\" denied the request: no", None), false, false),
            (of(403, "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no", None), false, false),
            (
                of(
                    403,
                    "ValidatingAdmissionPolicy 'marks.backup.sts-backup.io' with binding 'marks.backup.sts-backup.io' \
                         denied request: its marks need the right to patch statefulsetrestores/status",
                    None,
                ),
                true,
                false,
            ),
            (of(403, "exceeded quota: small, requested: 1, used: 1, limited: 1", None), false, false),
            (
                of(403, "unable to create new content in namespace shop because it is being terminated", None),
                false,
                false,
            ),
            (of(422, "invalid", Some("web")), false, false),
            (of(503, "no", None), false, false),
        ] {
            assert_eq!((may_pass(&error), is_absent(&error)), (passes, absent), "{error}");
            assert_eq!(matches!(or_absent::<()>(Err(error)), Ok(None)), absent);
        }
    }

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
