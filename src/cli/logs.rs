//! `logs`: what the Jobs of an object have written, which is the audit trail of its runs: of the newest run all of its
//! Jobs, as text on a terminal.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};

use super::describe::{Either, either};
use super::{Global, Target, block_on, output};
use crate::api::{annotation, label};
use crate::error::{Error, Result};
use crate::plan::job::CONTAINER;
use crate::telemetry::{Format, translate};
use crate::{client, error};

/// Between two looks for a pod that has begun.
const PACE: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub struct Logs {
    /// The StatefulSetBackup, or else the StatefulSetRestore
    #[arg(value_name = "[NAMESPACE/]NAME")]
    target: Target,
    /// Of every run whose Jobs are still there, oldest first, not only of the newest
    #[arg(long)]
    all: bool,
    /// Go on until the run has ended, through retries and further attempts
    #[arg(short, long, conflicts_with = "all")]
    follow: bool,
}

/// Where the Jobs of an object are.
struct Place {
    /// Kind and name, for sentences.
    object: String,
    uid: String,
    /// `NAMESPACE/DEPLOYMENT` of the watcher that makes them.
    managed_by: Option<String>,
    /// How its lines are shown.
    format: Format,
}

impl Place {
    /// `NAMESPACE/NAME`.
    fn path(&self) -> &str {
        self.object.split_once(' ').map_or(&self.object, |(_, path)| path)
    }
}

pub fn run(global: &Global, asked: &Logs) -> Result<ExitCode> {
    block_on(async {
        let client = client::connect(&global.access()).await?;
        let (namespace, name) = asked.target.resolve(global, &client.namespace)?;
        let client = client.client;
        let place = Place { format: Format::or_default(global.log_format), ..place(&client, &namespace, &name).await? };
        let Some((system, _)) = place.managed_by.as_deref().and_then(|install| install.split_once('/')) else {
            let message = format!(
                "{}: no watcher has taken it, so no Job has a log of it; what run-once writes by hand is on its own output",
                place.object
            );
            return Err(Error::Absent(message));
        };
        if asked.follow {
            follow(&client, system, &place).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let all = jobs(&client, system, &place).await?;
        let jobs = if asked.all { all } else { newest_run(all) };
        for job in &jobs {
            tell(&client, system, &place, job).await?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Every Job of the run that the newest one is of, by attempt.
fn newest_run(jobs: Vec<Job>) -> Vec<Job> {
    let run = |job: &Job| {
        let slot = job.annotations().get(annotation::SLOT).cloned();
        (job.labels().get(label::KIND).cloned(), slot)
    };
    let Some(newest) = jobs.last().map(run) else { return jobs };
    let attempt = |job: &Job| job.annotations().get(annotation::ATTEMPT).and_then(|text| text.parse::<u32>().ok());
    let mut jobs: Vec<_> = jobs.into_iter().filter(|job| run(job) == newest).collect();
    jobs.sort_by_key(attempt);
    jobs
}

async fn place(client: &Client, namespace: &str, name: &str) -> Result<Place> {
    let (kind, uid, managed_by) = match either(client, namespace, name).await? {
        Either::Backup(found) => ("StatefulSetBackup", found.uid(), found.status.and_then(|status| status.managed_by)),
        Either::Restore(found) => {
            ("StatefulSetRestore", found.uid(), found.status.and_then(|status| status.managed_by))
        }
    };
    Ok(Place {
        object: format!("{kind} {namespace}/{name}"),
        uid: uid.unwrap_or_default(),
        managed_by,
        format: Format::Json,
    })
}

/// Oldest first.
async fn jobs(client: &Client, system: &str, place: &Place) -> Result<Vec<Job>> {
    let api: Api<Job> = Api::namespaced(client.clone(), system);
    let of = ListParams::default().labels(&format!("{}={}", label::UID, place.uid));
    let mut jobs = api.list(&of).await.map_err(|error| barred("list Jobs", system, place, error))?.items;
    if jobs.is_empty() {
        let message = format!(
            "{}: its Jobs in namespace {system} are gone (they are kept for a day); what came of its runs: sts-backup \
             describe {}",
            place.object,
            place.path()
        );
        return Err(Error::Absent(message));
    }
    jobs.sort_by_key(|job| (job.creation_timestamp(), job.name_any()));
    Ok(jobs)
}

/// The logs are the operator's, in the operator's namespace: not everybody who has an object may read them.
fn barred(what: &'static str, system: &str, place: &Place, error: kube::Error) -> Error {
    match &error {
        kube::Error::Api(status) if status.code == 403 => Error::Config(format!(
            "{}: you may not {what} in namespace {system}, where the watcher runs: {}; what came of its runs without \
             them: sts-backup describe {}",
            place.object,
            error::sentence(&error),
            place.path()
        )),
        _ => Error::api(what, format!("of {}", place.object), error),
    }
}

/// The log of each of its pods, oldest first; a Job's retry is a pod of its own.
async fn tell(client: &Client, system: &str, place: &Place, job: &Job) -> Result<()> {
    let name = job.name_any();
    let pods = pods(client, system, place, &name).await?;
    if pods.is_empty() {
        output::say(&format!("Job {system}/{name} has no pod: kubectl -n {system} describe job {name}"));
    }
    for pod in pods {
        if let Some(why) = tell_pod(client, system, place, &pod, false).await? {
            output::say(&why);
        }
    }
    Ok(())
}

/// The newest Job's, and its retries', and the next attempt's, until a Job has ended and nothing came after it.
async fn follow(client: &Client, system: &str, place: &Place) -> Result<()> {
    let mut told = BTreeSet::new();
    loop {
        let jobs = jobs(client, system, place).await?;
        let Some(newest) = jobs.last() else { return Ok(()) };
        let mut news = false;
        for pod in pods(client, system, place, &newest.name_any()).await? {
            if !told.contains(&pod) && tell_pod(client, system, place, &pod, true).await?.is_none() {
                news |= told.insert(pod);
            }
        }
        if !news && has_ended(newest) {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

fn has_ended(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|one| ["Complete", "Failed"].contains(&one.type_.as_str()) && one.status == "True")
}

/// Oldest first.
async fn pods(client: &Client, system: &str, place: &Place, job: &str) -> Result<Vec<String>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), system);
    let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let mut pods = api.list(&of).await.map_err(|error| barred("list pods", system, place, error))?.items;
    pods.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
    Ok(pods.iter().map(ResourceExt::name_any).collect())
}

/// All that a pod has written; with `follow` until it ends. Some: why there is nothing yet.
async fn tell_pod(client: &Client, system: &str, place: &Place, pod: &str, follow: bool) -> Result<Option<String>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), system);
    let params = LogParams { container: Some(CONTAINER.into()), follow, ..LogParams::default() };
    let stream = match api.log_stream(pod, &params).await {
        Ok(stream) => stream,
        // Its container has not begun.
        Err(kube::Error::Api(status)) if status.code == 400 => return Ok(Some(status.message.clone())),
        Err(error) => return Err(barred("read the logs of pods", system, place, error)),
    };
    output::say(&format!("==> pod {system}/{pod} <=="));
    let mut lines = stream.lines();
    let lost = |error| Error::Unanswered(format!("the log of pod {system}/{pod}: {error}"));
    while let Some(line) = lines.try_next().await.map_err(lost)? {
        let line = if place.format == Format::Text { translate(&line) } else { line };
        output::print(&(line + "\n"))?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(name: &str, kind: &str, slot: &str, attempt: &str) -> Job {
        let annotations = json!({ annotation::SLOT: slot, annotation::ATTEMPT: attempt });
        let metadata = json!({ "name": name, "labels": { label::KIND: kind }, "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn a_run_has_the_logs_of_all_its_jobs_in_their_order() {
        let names = |jobs: Vec<Job>| newest_run(jobs).iter().map(ResourceExt::name_any).collect::<Vec<_>>();
        let all = vec![
            job("a", "backup", "noon", "1"),
            job("b", "backup", "night", "9"),
            job("c", "backup", "night", "10"),
            job("d", "backup", "noon", "2"),
            job("e", "backup", "night", "11"),
        ];
        assert_eq!(names(all), ["b", "c", "e"]);
        assert_eq!(names(vec![job("a", "restore", "", "1"), job("b", "undo", "x", "1")]), ["b"]);
        assert_eq!(names(vec![]), [] as [&str; 0]);
    }
}
