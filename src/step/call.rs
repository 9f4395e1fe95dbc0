//! One mutating request: timed, audited, and its answer told apart by what may be done about it.

use std::future::Future;
use std::time::Instant;

use super::Fault;
use super::cluster::Cluster;
use crate::api::condition::Reason;
use crate::error::{is_absent, is_definite, may_pass, sentence};
use crate::plan::noun::{Denial, Refusal};
use crate::telemetry::Audit;

/// What is asked of whom.
#[derive(Debug)]
pub struct Call<'a> {
    pub step: &'static str,
    pub verb: &'static str,
    /// `kind/namespace/name`
    pub object: String,
    pub uid: Option<&'a str>,
    pub message: Option<String>,
}

/// Why there is no success.
#[derive(Debug)]
pub enum No {
    /// 404, and it names what is not there.
    Absent,
    /// 409 on a create: an object of that name is there.
    Exists,
    /// 409 on a precondition: what we knew is stale.
    Stale,
    /// The server does not do it now.
    Denied(Denial),
    /// The server will not do it.
    Refused(Refusal),
    /// No answer, or none that tells whether it was done.
    Unknown,
}

impl No {
    /// The answer of most steps: a definite no is one, anything else must be looked at again.
    pub fn fault(self) -> Fault {
        match self {
            No::Denied(denial) => Fault::Denied(denial),
            No::Refused(refusal) => Fault::Refused(refusal),
            No::Absent | No::Exists | No::Stale | No::Unknown => Fault::Lost,
        }
    }
}

/// Sends the request and writes its audit line.
pub async fn call<T>(
    cluster: &Cluster,
    call: Call<'_>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, No> {
    let begun = Instant::now();
    let reply = request.await;
    let error = reply.as_ref().err();
    let code = error.map_or(Some(200), |error| match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    });
    let no = error.map(|error| no(error, &call.object));
    Audit {
        run: cluster.run(),
        step: call.step,
        verb: call.verb,
        object: &call.object,
        uid: call.uid,
        outcome: match &no {
            None => "ok",
            Some(No::Exists) => "exists",
            Some(No::Denied(_) | No::Refused(_)) => "refused",
            Some(No::Absent | No::Stale) => "error",
            Some(No::Unknown) => "unknown",
        },
        code,
        duration: begun.elapsed(),
        message: error.map(|error| told(error, no.as_ref())).or(call.message),
    }
    .write();
    reply.map_err(|_| no.unwrap_or(No::Unknown))
}

/// A conflict is no mishap: two have written, and the one that came second looks again.
fn told(error: &kube::Error, no: Option<&No>) -> String {
    let said = sentence(error);
    let routine = said.starts_with("Operation cannot be fulfilled") || said == TEST_FAILED;
    match no {
        Some(No::Stale) if routine => "it has changed meanwhile, and is read again".to_owned(),
        _ => said,
    }
}

/// All that the API server says of a `test` in a JSON patch that does not hold.
const TEST_FAILED: &str = "the server rejected our request due to an error in our request";

fn no(error: &kube::Error, object: &str) -> No {
    if let kube::Error::Api(status) = error {
        match (status.code, status.reason.as_str()) {
            (404, _) if is_absent(error) => return No::Absent,
            (409, "AlreadyExists") => return No::Exists,
            (409, _) => return No::Stale,
            (422, _) if status.message == TEST_FAILED => return No::Stale,
            _ => {}
        }
    }
    match fault(error, object) {
        Fault::Denied(denial) => No::Denied(denial),
        Fault::Refused(refusal) => No::Refused(refusal),
        Fault::Lost => No::Unknown,
    }
}

/// What an error means that is no absence and no conflict.
pub fn fault(error: &kube::Error, object: &str) -> Fault {
    let refusal = || refusal(error, object);
    let judged = matches!(error, kube::Error::Api(status) if status.code == 403);
    match () {
        () if may_pass(error) => Fault::Denied(Denial { refusal: refusal(), judged: false }),
        () if judged => Fault::Denied(Denial { refusal: refusal(), judged: true }),
        () if is_definite(error) => Fault::Refused(refusal()),
        () => Fault::Lost,
    }
}

/// The reason of a definite no, and the server's own sentence.
pub fn refusal(error: &kube::Error, object: &str) -> Refusal {
    let said = sentence(error);
    let reason = match error {
        kube::Error::Api(status) if status.code == 403 && said.contains("exceeded quota") => Reason::QuotaTooSmall,
        kube::Error::Api(status) if matches!(status.code, 401 | 403) || may_pass(error) => Reason::Forbidden,
        // Only a restore asks anything of these.
        _ if ["persistentvolume", "statefulset/", "pod/"].iter().any(|kind| object.contains(kind)) => {
            Reason::PreflightRefused
        }
        _ => Reason::SnapshotFailed,
    };
    let remedy = if reason == Reason::Forbidden { unserved(&said) } else { None };
    Refusal::new(reason, format!("{object}: {said}{}", remedy.unwrap_or_default()))
}

/// What else may be wrong where an account lacks a right in a namespace: the installation does not serve it.
fn unserved(said: &str) -> Option<String> {
    let (who, what) = said.split_once("User \"")?.1.split_once("\" cannot ")?;
    let namespace = what.split_once(" in the namespace \"")?.1.split('"').next()?;
    who.starts_with("system:serviceaccount:").then(|| {
        format!(
            ". If the installation does not serve namespace {namespace}, add it to the chart value watchNamespaces; otherwise bind \
             the roles that sts-backup generate rbac prints"
        )
    })
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn an_account_without_a_right_in_a_namespace_is_told_how_the_installation_serves_it() {
        let of = |message: &str| {
            let error = kube::Error::Api(Box::new(Status::failure(message, "Forbidden").with_code(403)));
            refusal(&error, "statefulset/far/web").message
        };
        let lacks = |who: &str, place: &str| {
            format!(
                "statefulsets \"web\" is forbidden: User \"{who}\" cannot get resource \"statefulsets\" in API group \"apps\" {place}"
            )
        };
        let far = "in the namespace \"far\"";
        let runner = "system:serviceaccount:sts-backup:sts-backup-runner";
        let said = of(&lacks(runner, far));
        assert!(said.contains("chart value watchNamespaces") && said.contains("namespace far"), "{said}");
        for other in [
            lacks("jane", far),
            lacks(runner, "at the cluster scope"),
            "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no".to_owned(),
        ] {
            assert!(!of(&other).contains("watchNamespaces"), "{other}");
        }
    }
}
