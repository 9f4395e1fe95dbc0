//! What is done: one request for each act, and what came of it. A reply that is lost is a failure here and no more:
//! what was done shows, and doing it again is harmless.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, PostParams, Preconditions, PropagationPolicy, Request};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{State, decode, pods};
use crate::api::slim::{SlimJob, SlimLease};
use crate::api::{API_VERSION, manager};
use crate::error::{is_definite, sentence};
use crate::plan::flow::Verb;
use crate::plan::job::Run;
use crate::plan::launch::entry::{Manager, Object, Subject, Uid};
use crate::plan::launch::pace::Lease;
use crate::plan::launch::plight::Plight;
use crate::plan::launch::rival::{self, Sight};
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
                What::Status(owned) => {
                    let owned = &owned;
                    // Of another's object all stays as it is, but for what is said of it.
                    let install = match &object.manager {
                        Manager::Another(install) => install,
                        _ => &*state.settings.install,
                    };
                    let fields = record::Watched { object: &object, uid: act.uid, owned, install };
                    status(state, &object, &Fields::Watched(fields)).await
                }
                What::Judge(verdict) => {
                    let fields = record::Judged { object: &object, uid: act.uid, verdict: &verdict };
                    status(state, &object, &Fields::Judged(fields)).await
                }
                What::Launch { run, .. } => launch(state, &run).await,
                What::Look => look(state, &object).await,
                What::Sight(install) => Answer::Sighted(install.clone(), sight(state, &install).await),
                What::Prune { name, job } => {
                    let why = format!("beyond the history limits of {}/{}", object.namespace, object.name);
                    remove(state, ("Prune", &why), &name, job).await
                }
                What::Inspect { name, job } => Answer::Inspected(
                    job,
                    match pods::plight(state, &name, job).await {
                        Ok(plight) => plight,
                        Err(_) => Plight::None,
                    },
                ),
                What::Remove { name, job } => {
                    let why = "its runner has ended, and another container of its pod has not";
                    remove(state, ("Remove", why), &name, job).await
                }
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

/// One of our two writes of a status.
enum Fields<'a> {
    Watched(record::Watched<'a>),
    Judged(record::Judged<'a>),
}

impl Fields<'_> {
    async fn write<K>(&self, state: &State, object: &Object) -> kube::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let (client, kind) = (state.client.clone(), object.kind());
        let path = format!("{}/{}/{}", kind.to_lowercase(), object.namespace, object.name);
        match self {
            Fields::Watched(fields) => {
                audited("Status", "patch", path, None, record::watched(client, fields, kind)).await
            }
            Fields::Judged(fields) => {
                let message = Some(fields.verdict.message.clone());
                audited("Judge", "patch", path, message, record::judged(client, fields, kind)).await
            }
        }
    }
}

async fn status(state: &State, object: &Object, fields: &Fields<'_>) -> Answer {
    let install = &state.settings.install;
    let reply = match &object.subject {
        Subject::Backup(_) => fields.write(state, object).await.map(|o| decode::backup(install, o)),
        Subject::Restore(_) => fields.write(state, object).await.map(|o| decode::restore(install, o)),
    };
    let found = match reply {
        Ok(found) => found.map(|(_, object)| Box::new(object)),
        Err(error) if is(404, &error) => None,
        Err(_) => return Answer::Failed,
    };
    match fields {
        Fields::Watched(_) => Answer::Status(found),
        Fields::Judged(_) => Answer::Judged(found),
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
        Err(error) if is_definite(&error) => return Answer::Rejected(format!("no Job {name}: {}", sentence(&error))),
        Err(_) => return Answer::Failed,
    };
    let job = found.and_then(|job| decode::job(&job)).map(|(_, job)| job);
    Answer::Launched(job)
}

async fn look(state: &State, object: &Object) -> Answer {
    let (namespace, statefulset) = object.target();
    match lease(state, namespace, &name::lease(statefulset)).await {
        Ok(lease) => Answer::Lease(lease),
        Err(_) => Answer::Failed,
    }
}

async fn lease(state: &State, namespace: &str, name: &str) -> kube::Result<Lease> {
    let api: Api<SlimLease> = Api::namespaced(state.client.clone(), namespace);
    let spec = api.get_opt(name).await?.map(|lease| lease.spec).unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    Ok(Lease { holder, renewed: spec.renew_time })
}

/// What the Lease of another installation's watchers tells; none: no answer.
async fn sight(state: &State, install: &str) -> Option<Sight> {
    let (namespace, name) = rival::lease(install)?;
    match timeout(LIMIT / 2, lease(state, namespace, &name)).await.ok()? {
        Ok(lease) => Some(Sight::Lease(lease)),
        Err(error) if is(403, &error) => Some(Sight::Hidden),
        Err(_) => None,
    }
}

async fn remove(state: &State, (step, why): (&'static str, &str), name: &str, job: Uid) -> Answer {
    let api: Api<SlimJob> = Api::namespaced(state.client.clone(), &state.settings.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(job.to_string()), resource_version: None }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    let path = format!("job/{}/{name}", state.settings.namespace);
    match audited(step, "delete", path, Some(why.to_owned()), api.delete(name, &params)).await {
        Ok(_) => Answer::Pruned(job),
        // Gone, or another of its name.
        Err(error) if is(404, &error) || is(409, &error) => Answer::Pruned(job),
        Err(_) => Answer::Failed,
    }
}

async fn tell(state: &State, uid: Uid, object: &Object, note: Note) {
    let kind = object.kind();
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
