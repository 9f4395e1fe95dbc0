//! The product installed by its chart, beside the namespace that it serves and no other: so many tests at once have
//! watchers of their own, and each of them proves the roles of a namespace.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::label;
use tokio::process::Command;

use super::{Scene, kubeconfig, skipped, until};

/// What `just image` makes.
pub const IMAGE: &str = "localhost/sts-backup:dev";
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sts-backup");

/// A program of the cluster's own, or the one that is installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("SSB_CLUSTER_CACHE").map(|cache| Path::new(&cache).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    cache.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// None, with a sentence, where there is none.
pub fn helm() -> Option<PathBuf> {
    let found = tool("helm");
    if found.is_none() {
        skipped("there is no helm");
    }
    found
}

/// What `helm` says with these arguments; it must succeed.
pub async fn run_helm(helm: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = try_helm(helm, arguments).await;
    assert!(status.success(), "helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

pub async fn try_helm(helm: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(helm);
    if let Some(kubeconfig) = kubeconfig() {
        command.env("KUBECONFIG", kubeconfig);
    }
    command.args(arguments).stdin(Stdio::null()).output().await.unwrap()
}

/// A release of the chart.
pub struct Release<'a> {
    scene: &'a Scene,
    helm: PathBuf,
    pub namespace: String,
    /// Of the release, and of all that it makes.
    pub name: String,
}

impl Scene {
    /// Installs it for our namespace, with these values (`NAME=VALUE`), and waits until the watcher is ready. None where
    /// helm is missing.
    pub async fn install(&self, values: &[&str]) -> Option<Release<'_>> {
        let helm = helm()?;
        let namespace = self.another_namespace("sys", &[]).await;
        let restricted = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        namespaces.patch(&namespace, &PatchParams::default(), &Patch::Merge(restricted)).await.unwrap();
        let release = Release { scene: self, helm, name: self.namespace.clone(), namespace };
        release.set("install", values).await;
        Some(release)
    }
}

impl Release<'_> {
    /// `helm install` or `helm upgrade`.
    pub async fn set(&self, verb: &str, values: &[&str]) {
        let (repository, tag) = IMAGE.rsplit_once(':').unwrap();
        let ours = [
            format!("fullnameOverride={}", self.name),
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            "image.pullPolicy=Never".to_owned(),
            // The kinds and the policies belong to the cluster, and are there.
            "crds.install=false".to_owned(),
            "policies.install=false".to_owned(),
            "rbac.aggregate=false".to_owned(),
            format!("watchNamespaces={{{}}}", self.scene.namespace),
        ];
        let mut arguments =
            vec![verb, &self.name, CHART, "--namespace", &self.namespace, "--wait", "--timeout", "180s"];
        for value in ours.iter().map(String::as_str).chain(values.iter().copied()) {
            arguments.extend(["--set", value]);
        }
        run_helm(&self.helm, &arguments).await;
    }

    pub async fn uninstall(&self) {
        run_helm(&self.helm, &["uninstall", &self.name, "--namespace", &self.namespace, "--wait"]).await;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.scene.client.clone(), &self.namespace)
    }

    /// The watcher's pods.
    pub async fn watchers(&self) -> Vec<Pod> {
        let watchers = ListParams::default().labels("app.kubernetes.io/component=watcher");
        self.api::<Pod>().list(&watchers).await.unwrap().items
    }

    /// So many, ready; without any the objects are left alone.
    pub async fn scale(&self, replicas: i32) {
        let api = self.api::<Deployment>();
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        api.patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
        until("the watcher's pods", 120, async || {
            let ready = api.get(&self.name).await.unwrap().status.and_then(|status| status.ready_replicas);
            let pods = self.watchers().await.len();
            let whole = ready.unwrap_or(0) == replicas && i32::try_from(pods) == Ok(replicas);
            whole.then_some(()).ok_or_else(|| format!("{ready:?} ready of {pods}"))
        })
        .await;
    }

    /// Ends the watcher's pods with no grace.
    pub async fn kill_watchers(&self) {
        for pod in self.watchers().await {
            let _ = self.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        }
    }

    /// The Jobs of an object, oldest first.
    pub async fn jobs(&self, kind: &str, name: &str) -> Vec<Job> {
        let of = format!("{}={kind},{}={name}", label::KIND, label::NAME);
        let mut jobs = self.api::<Job>().list(&ListParams::default().labels(&of)).await.unwrap().items;
        jobs.sort_by_key(|job| (job.creation_timestamp(), job.name_any()));
        jobs
    }

    /// The pods of a Job.
    pub async fn pods(&self, job: &str) -> Vec<Pod> {
        let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        self.api::<Pod>().list(&of).await.unwrap().items
    }

    /// The log of a Job's newest pod, line by line.
    pub async fn log(&self, job: &str) -> Vec<Value> {
        let mut pods = self.pods(job).await;
        pods.sort_by_key(ResourceExt::creation_timestamp);
        let name = pods.last().unwrap_or_else(|| panic!("{job} has no pod")).name_any();
        let text = self.api::<Pod>().logs(&name, &LogParams::default()).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }
}
