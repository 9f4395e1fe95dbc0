//! What befalls them.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use sts_backup::api::label;
use sts_backup::api::restore::StatefulSetRestore;
use tokio::process::Command;

use super::{Hour, Shape};

/// What one of them suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The newest pod of its Jobs is killed.
    KillRunner,
    /// Its newest Job is deleted.
    DeleteJob,
    /// A pod of the application is deleted.
    DeletePod,
    /// One replica more.
    ScaleUp,
    /// The template of its pods changes: they are replaced.
    RollOut,
    /// The restore object is deleted.
    DeleteRestore,
}

const DEEDS: [Deed; 8] = [
    Deed::KillRunner,
    Deed::KillRunner,
    Deed::KillRunner,
    Deed::DeleteJob,
    Deed::DeletePod,
    Deed::ScaleUp,
    Deed::RollOut,
    Deed::DeleteRestore,
];

impl Deed {
    pub fn any(hour: &Hour<'_>) -> Deed {
        DEEDS[usize::try_from(hour.draw(DEEDS.len() as u64)).unwrap()]
    }
}

/// Does it to the StatefulSet of that shape, and to the object that is at work on it. What the API server refuses (a
/// scale behind the fence, a pod that is gone) does not happen.
pub async fn deed(hour: &Hour<'_>, shape: &Shape, object: &str, deed: Deed) {
    let _calm = hour.calm.read().await;
    let (s, now) = (hour.s, DeleteParams::default().grace_period(0));
    let name = shape.app.name;
    let done = match deed {
        Deed::KillRunner => {
            let of = format!("{}={object}", label::NAME);
            let mut pods = hour.release.api::<Pod>().list(&ListParams::default().labels(&of)).await.unwrap().items;
            pods.retain(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"));
            match pods.pop() {
                Some(pod) => hour.release.api::<Pod>().delete(&pod.name_any(), &now).await.is_ok(),
                None => false,
            }
        }
        Deed::DeleteJob => {
            let of = format!("{}={object}", label::NAME);
            let jobs = hour.release.api::<Job>().list(&ListParams::default().labels(&of)).await.unwrap().items;
            match jobs.iter().max_by_key(|job| (job.creation_timestamp(), job.name_any())) {
                Some(job) => {
                    let gone = DeleteParams::background();
                    hour.release.api::<Job>().delete(&job.name_any(), &gone).await.is_ok()
                }
                None => false,
            }
        }
        Deed::DeletePod => match s.pods(name).await.first() {
            Some(pod) => s.api::<Pod>().delete(&pod.name_any(), &now).await.is_ok(),
            None => false,
        },
        Deed::ScaleUp => patch(hour, name, &json!({ "spec": { "replicas": shape.app.replicas + 1 } })).await,
        Deed::RollOut => {
            let when = hour.draw(1_000_000).to_string();
            let template = json!({ "metadata": { "annotations": { "example.com/rolled": when } } });
            patch(hour, name, &json!({ "spec": { "template": template } })).await
        }
        Deed::DeleteRestore => s.api::<StatefulSetRestore>().delete(object, &DeleteParams::default()).await.is_ok(),
    };
    hour.saw(format!("{deed:?}{}", if done { "" } else { ", not possible" }));
}

async fn patch(hour: &Hour<'_>, name: &str, patch: &serde_json::Value) -> bool {
    hour.s.api::<StatefulSet>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok()
}

/// What befalls all of them, until the hour is over.
pub async fn of_all(hour: &Hour<'_>) {
    while !hour.is_over() {
        hour.some_time(40).await;
        match hour.draw(4) {
            0 => api_server(hour).await,
            1 => watchers(hour).await,
            _ => rights(hour).await,
        }
    }
}

/// Killed, and started again. Who asks while it comes up is told 401, 403, 404 or 503.
async fn api_server(hour: &Hour<'_>) {
    let _alone = hour.calm.write().await;
    for verb in ["kill", "start"] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/box/api-server.sh");
        let output = Command::new("bash").args([script, verb]).output().await.unwrap();
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        hour.some_time(6).await;
    }
    super::until("the API server", 120, async || {
        let request = http::Request::get("/readyz").body(vec![]).unwrap();
        hour.s.client.request_text(request).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    hour.saw("the API server is killed");
}

async fn watchers(hour: &Hour<'_>) {
    let _calm = hour.calm.read().await;
    hour.release.kill_watchers().await;
    hour.saw("the watcher is killed");
}

/// For a few seconds the product has no right in any namespace.
async fn rights(hour: &Hour<'_>) {
    let api: Api<ClusterRoleBinding> = Api::all(hour.s.client.clone());
    // Nobody takes the API server away meanwhile: then this would be no matter of seconds.
    let _calm = hour.calm.read().await;
    let mut bindings = vec![];
    for account in ["watcher", "runner"] {
        bindings.push(api.get(&format!("{}-{account}", hour.release.name)).await.unwrap());
    }
    for binding in &bindings {
        api.delete(&binding.name_any(), &DeleteParams::default()).await.unwrap();
    }
    hour.some_time(5).await;
    for mut binding in bindings {
        binding.metadata.resource_version = None;
        binding.metadata.uid = None;
        api.create(&PostParams::default(), &binding).await.unwrap();
    }
    hour.saw("rights are taken away for seconds");
}
