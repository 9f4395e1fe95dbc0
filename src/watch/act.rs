//! What is done: one request for each act, and what came of it. A reply that is lost is a failure here and no more:
//! what was done shows, and doing it again is harmless.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, PostParams, Preconditions, PropagationPolicy, Request};
use kube::{Api, Resource};
use tokio::time::{Instant, timeout};

use super::{State, decode};
use crate::api::slim::{SlimJob, SlimLease};
use crate::api::{API_VERSION, manager};
use crate::error::sentence;
use crate::plan::flow::Verb;
use crate::plan::job::Run;
use crate::plan::launch::entry::{Object, Owned, Subject, Uid};
use crate::plan::launch::pace::Lease;
use crate::plan::launch::{Act, Answer, What};
use crate::plan::name;
use crate::plan::report::Note;
use crate::step::{record, tell};
use crate::telemetry::Audit;

/// What its acts need of the watcher's role.
pub const VERBS: &[Verb] = &[
    ("backup.sts-backup.io", "statefulsetbackups/status", "patch"),
    ("backup.sts-backup.io", "statefulsetrestores/status", "patch"),
    ("batch", "jobs", "create"),
    ("batch", "jobs", "get"),
    ("batch", "jobs", "delete"),
    ("coordination.k8s.io", "leases", "get"),
    ("events.k8s.io", "events", "create"),
];

const LIMIT: Duration = Duration::from_secs(30);

/// The request of an act; none for an object that is gone.
pub fn carry_out(state: &State, act: Act) -> Option<LocalBoxFuture<'_, (Uid, Answer)>> {
    let object = state.index.borrow().get(act.uid)?.object;
    let answer = async move {
        let doing = async {
            match act.what {
                What::Status(owned) => status(state, act.uid, &object, &owned).await,
                What::Launch { run, .. } => launch(state, &run).await,
                What::Look => look(state, &object).await,
                What::Prune { name, job } => prune(state, &object, &name, job).await,
                What::Tell(note) => {
                    tell(state, act.uid, &object, note).await;
                    return None;
                }
            }
            .into()
        };
        let answer = timeout(LIMIT, doing).await.unwrap_or(Some(Answer::Failed));
        (act.uid, answer.unwrap_or(Answer::Told))
    };
    Some(answer.boxed_local())
}

/// Times a request and writes its audit line.
async fn audited<T>(
    step: &'static str,
    verb: &'static str,
    object: String,
    message: Option<String>,
    request: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    let begun = Instant::now();
    let reply = request.await;
    let code = match &reply {
        Ok(_) => Some(200),
        Err(kube::Error::Api(status)) => Some(status.code),
        Err(_) => None,
    };
    Audit {
        step,
        verb,
        object: &object,
        outcome: match code {
            Some(200) => "ok",
            Some(409) if verb == "create" => "exists",
            Some(_) => "error",
            None => "unknown",
        },
        code,
        duration: begun.elapsed(),
        message: reply.as_ref().err().map(sentence).or(message),
        ..Audit::default()
    }
    .write();
    reply
}

fn is(code: u16, error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

async fn status(state: &State, uid: Uid, object: &Object, owned: &Owned) -> Answer {
    let (install, client) = (&state.settings.install, state.client.clone());
    let path = |kind: &str| format!("{kind}/{}/{}", object.namespace, object.name);
    let fields = record::Watched { object, uid, owned, install };
    let reply = match &object.subject {
        Subject::Backup(_) => {
            let request = record::watched(client, &fields, "StatefulSetBackup");
            audited("Status", "patch", path("statefulsetbackup"), None, request)
                .await
                .map(|o| decode::backup(install, o))
        }
        Subject::Restore(_) => {
            let request = record::watched(client, &fields, "StatefulSetRestore");
            audited("Status", "patch", path("statefulsetrestore"), None, request)
                .await
                .map(|o| decode::restore(install, o))
        }
    };
    match reply {
        Ok(found) => Answer::Status(found.map(|(_, object)| Box::new(object))),
        Err(error) if is(404, &error) => Answer::Status(None),
        Err(_) => Answer::Failed,
    }
}

async fn launch(state: &State, run: &Run) -> Answer {
    let job = run.job(&state.settings.template);
    let name = run.job_name();
    let path = format!("job/{}/{name}", state.settings.namespace);
    let message = format!("{} {}/{} slot {} attempt {}", run.kind, run.namespace, run.name, run.slot, run.attempt);
    let request = async {
        // The answer is decoded as lean as what the watch delivers.
        let body = serde_json::to_vec(&job).map_err(kube::Error::SerdeError)?;
        let params = PostParams { field_manager: Some(manager::WATCHER.into()), ..PostParams::default() };
        let url = Job::url_path(&(), Some(&state.settings.namespace));
        let request = Request::new(url).create(&params, body).map_err(kube::Error::BuildRequest)?;
        state.client.request::<SlimJob>(request).await
    };
    let found = match audited("Launch", "create", path, Some(message), request).await {
        Ok(job) => Some(job),
        // It is there already: whoever made it made the same.
        Err(error) if is(409, &error) => {
            let api: Api<SlimJob> = Api::namespaced(state.client.clone(), &state.settings.namespace);
            match api.get_opt(&name).await {
                Ok(found) => found,
                Err(_) => return Answer::Failed,
            }
        }
        Err(_) => return Answer::Failed,
    };
    let job = found.and_then(|job| decode::job(&job)).map(|(_, job)| job);
    Answer::Launched(job)
}

async fn look(state: &State, object: &Object) -> Answer {
    let (namespace, statefulset) = object.target();
    let api: Api<SlimLease> = Api::namespaced(state.client.clone(), namespace);
    match api.get_opt(&name::lease(statefulset)).await {
        Ok(found) => {
            let spec = found.map(|lease| lease.spec).unwrap_or_default();
            let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
            Answer::Lease(Lease { holder, renewed: spec.renew_time })
        }
        Err(_) => Answer::Failed,
    }
}

async fn prune(state: &State, object: &Object, name: &str, job: Uid) -> Answer {
    let api: Api<SlimJob> = Api::namespaced(state.client.clone(), &state.settings.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(job.to_string()), resource_version: None }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let message = format!("beyond the history limits of {}/{}", object.namespace, object.name);
    let path = format!("job/{}/{name}", state.settings.namespace);
    match audited("Prune", "delete", path, Some(message), api.delete(name, &params)).await {
        Ok(_) => Answer::Pruned(job),
        // Gone, or another of its name.
        Err(error) if is(404, &error) || is(409, &error) => Answer::Pruned(job),
        Err(_) => Answer::Failed,
    }
}

async fn tell(state: &State, uid: Uid, object: &Object, note: Note) {
    let kind = match &object.subject {
        Subject::Backup(_) => "StatefulSetBackup",
        Subject::Restore(_) => "StatefulSetRestore",
    };
    tracing::warn!(object = format!("{kind}/{}/{}", object.namespace, object.name), message = note.message);
    let regarding = ObjectReference {
        api_version: Some(API_VERSION.into()),
        kind: Some(kind.into()),
        name: Some(object.name.to_string()),
        namespace: Some(object.namespace.to_string()),
        uid: Some(uid.to_string()),
        ..ObjectReference::default()
    };
    let teller = tell::Teller {
        controller: "sts-backup.io/watcher",
        instance: &state.settings.install,
        action: "Watch",
        now: state.now().wall,
    };
    tell::publish(&state.client, &teller, &note, regarding).await;
}
