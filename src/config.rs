//! Settings of the deployment: `SSB_*` in the environment, read once and turned into types here. Per-run choices
//! are flags, and live in `cli`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::GROUP;
use crate::error::{Error, Result};
use crate::plan::job::Template;
use crate::plan::launch::Feed;

/// What a runner may be told by its Job. Everything is optional: by hand nothing is set.
#[derive(Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Settings {
    /// `SSB_JOB_NAME`: the Job that this process runs in, for `status.lastRun.jobName`.
    pub job_name: Option<String>,
    /// `SSB_POD_NAME`: the pod, for the Lease's holderIdentity. Default: the host's name.
    pub pod_name: Option<String>,
    /// `SSB_ALLOW_WITHOUT_POLICY`: in a pod, carry out hooks and restores although the author policies do not stand.
    pub allow_without_policy: bool,
}

impl Settings {
    pub fn from_env() -> Result<Settings> {
        read(environment())
    }

    /// Who runs this, for people who look at the Lease.
    pub fn host(&self) -> String {
        let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let host = self.pod_name.clone().or_else(kernel).unwrap_or_default();
        let host: String =
            host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
        if host.is_empty() { "unknown-host".into() } else { host }
    }
}

/// What the watcher may be told by its Deployment, as it stands in the environment.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct RawWatching {
    image: Option<String>,
    image_pull_policy: Option<String>,
    image_pull_secrets: Vec<String>,
    namespace: Option<String>,
    deployment: Option<String>,
    pod_name: Option<String>,
    leader_election: bool,
    runner_service_account: Option<String>,
    runner_resources: Option<String>,
    runner_node_selector: Option<String>,
    runner_tolerations: Option<String>,
    runner_priority_class: Option<String>,
    runner_pod_labels: Option<String>,
    runner_pod_annotations: Option<String>,
    allow_without_policy: bool,
    watch_namespaces: Vec<String>,
    max_concurrent_runs: Option<usize>,
    max_concurrent_restores: Option<usize>,
    jitter_seconds: Option<u32>,
    metrics_address: Option<String>,
    health_address: Option<String>,
}

/// Settings of the watcher.
#[derive(Debug, Clone, PartialEq)]
pub struct Watching {
    /// `SSB_NAMESPACE`: where the Jobs are made. Default: the pod's namespace, or the context's.
    pub namespace: String,
    /// `NAMESPACE/` and `SSB_DEPLOYMENT` (default: sts-backup): the name of this installation in `status.managedBy`.
    pub install: String,
    /// `SSB_LEADER_ELECTION`: of several watchers of this installation one works. Default: false.
    pub leader: bool,
    /// `SSB_POD_NAME`. Default: the host's name.
    pub pod: String,
    /// `SSB_IMAGE`, `SSB_IMAGE_PULL_POLICY`, `SSB_IMAGE_PULL_SECRETS`, `SSB_RUNNER_SERVICE_ACCOUNT`, and as JSON
    /// `SSB_RUNNER_RESOURCES`, `SSB_RUNNER_NODE_SELECTOR`, `SSB_RUNNER_TOLERATIONS`, `SSB_RUNNER_POD_LABELS`,
    /// `SSB_RUNNER_POD_ANNOTATIONS`.
    pub template: Template,
    /// `SSB_WATCH_NAMESPACES`, comma-separated. Default: all.
    pub namespaces: Vec<String>,
    /// `SSB_MAX_CONCURRENT_RUNS`. Default: 10.
    pub max_concurrent_runs: usize,
    /// `SSB_MAX_CONCURRENT_RESTORES`. Default: 10.
    pub max_concurrent_restores: usize,
    /// `SSB_JITTER_SECONDS`: runs of a slot begin spread over so long. Default: 0.
    pub jitter_seconds: u32,
    /// `SSB_METRICS_ADDRESS`. Default: 0.0.0.0:8080; `off` for none.
    pub metrics: String,
    /// `SSB_HEALTH_ADDRESS`. Default: 0.0.0.0:8081; `off` for none.
    pub health: String,
}

impl Watching {
    /// `namespace`: the one of the pod's account, or of the context.
    pub fn from_env(namespace: &str) -> Result<Watching> {
        Self::from_raw(read(environment())?, namespace)
    }

    fn from_raw(raw: RawWatching, namespace: &str) -> Result<Watching> {
        let namespace = raw.namespace.unwrap_or_else(|| namespace.to_owned());
        let needed = |value: Option<String>, name: &str, what: &str| {
            value.ok_or_else(|| Error::Config(format!("{name} is not set: {what}")))
        };
        Ok(Watching {
            install: format!("{namespace}/{}", raw.deployment.as_deref().unwrap_or("sts-backup")),
            leader: raw.leader_election,
            pod: Settings { pod_name: raw.pod_name, ..Settings::default() }.host(),
            template: Template {
                namespace: namespace.clone(),
                image: needed(raw.image, "SSB_IMAGE", "name the image that the Jobs are to run, the watcher's own")?,
                pull_policy: raw.image_pull_policy.unwrap_or_else(|| "IfNotPresent".into()),
                pull_secrets: raw.image_pull_secrets,
                service_account: needed(
                    raw.runner_service_account,
                    "SSB_RUNNER_SERVICE_ACCOUNT",
                    "name the ServiceAccount of the Jobs",
                )?,
                resources: json(raw.runner_resources, "SSB_RUNNER_RESOURCES")?,
                node_selector: json(raw.runner_node_selector, "SSB_RUNNER_NODE_SELECTOR")?,
                tolerations: json(raw.runner_tolerations, "SSB_RUNNER_TOLERATIONS")?,
                priority_class: raw.runner_priority_class,
                pod_labels: not_ours(json(raw.runner_pod_labels, "SSB_RUNNER_POD_LABELS")?, "SSB_RUNNER_POD_LABELS")?,
                pod_annotations: not_ours(
                    json(raw.runner_pod_annotations, "SSB_RUNNER_POD_ANNOTATIONS")?,
                    "SSB_RUNNER_POD_ANNOTATIONS",
                )?,
                allow_without_policy: raw.allow_without_policy,
            },
            namespaces: raw.watch_namespaces,
            max_concurrent_runs: raw.max_concurrent_runs.unwrap_or(10).max(1),
            max_concurrent_restores: raw.max_concurrent_restores.unwrap_or(10).max(1),
            jitter_seconds: raw.jitter_seconds.unwrap_or(0),
            metrics: raw.metrics_address.unwrap_or_else(|| "0.0.0.0:8080".into()),
            health: raw.health_address.unwrap_or_else(|| "0.0.0.0:8081".into()),
            namespace,
        })
    }

    pub fn feeds(&self) -> Vec<Feed> {
        Feed::of(&self.namespaces)
    }
}

fn json<T: DeserializeOwned + Default>(text: Option<String>, name: &str) -> Result<T> {
    let Some(text) = text else { return Ok(T::default()) };
    serde_json::from_str(&text)
        .map_err(|error| Error::Config(format!("{name} is not the JSON that it should be: {error}")))
}

/// Keys of our group are marks, which only we write.
fn not_ours(keys: BTreeMap<String, String>, name: &str) -> Result<BTreeMap<String, String>> {
    match keys.keys().find(|key| key.starts_with(&format!("{GROUP}/"))) {
        Some(key) => Err(Error::Config(format!("{name} has the key {key}: keys of {GROUP} are sts-backup's own"))),
        None => Ok(keys),
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

fn read<T: DeserializeOwned>(vars: impl IntoIterator<Item = (String, String)>) -> Result<T> {
    let set = vars.into_iter().filter(|(_, value)| !value.is_empty());
    envy::prefixed("SSB_").from_iter(set).map_err(|error| Error::Config(format!("in the environment (SSB_*): {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_are_unset_and_strangers_ignored() {
        let vars =
            [("SSB_JOB_NAME", "backup-x"), ("SSB_POD_NAME", ""), ("SSB_PORT", "tcp://10.0.0.1"), ("PATH", "/bin")];
        let settings: Settings = read(vars.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        assert_eq!(settings, Settings { job_name: Some("backup-x".into()), ..Settings::default() });
        let settings: Settings = read([("SSB_ALLOW_WITHOUT_POLICY".to_owned(), "true".to_owned())]).unwrap();
        assert!(settings.allow_without_policy);
    }

    #[test]
    fn a_watcher_needs_its_image_and_the_account_of_its_jobs() {
        let of = |vars: &[(&str, &str)]| {
            let vars: Vec<_> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            read(vars).and_then(|raw| Watching::from_raw(raw, "default"))
        };
        let both = [("SSB_IMAGE", "localhost/sts-backup:dev"), ("SSB_RUNNER_SERVICE_ACCOUNT", "runner")];
        assert!(of(&both[..1]).unwrap_err().to_string().contains("SSB_RUNNER_SERVICE_ACCOUNT"));
        assert!(of(&both[1..]).unwrap_err().to_string().contains("SSB_IMAGE"));
        let told = of(&both).unwrap();
        assert_eq!(
            (told.install.as_str(), told.max_concurrent_runs, told.feeds().len()),
            ("default/sts-backup", 10, 3)
        );
        assert_eq!(told.max_concurrent_restores, 10);
        let some = [("SSB_MAX_CONCURRENT_RUNS", "3"), ("SSB_MAX_CONCURRENT_RESTORES", "0")];
        let told = of(&[both.as_slice(), &some].concat()).unwrap();
        assert_eq!((told.max_concurrent_runs, told.max_concurrent_restores), (3, 1), "none at all would be no watcher");
        let more = [("SSB_RUNNER_RESOURCES", r#"{"limits":{"memory":"64Mi"}}"#), ("SSB_WATCH_NAMESPACES", "a,b")];
        let told = of(&[both.as_slice(), &more].concat()).unwrap();
        assert_eq!(told.template.resources.limits.as_ref().unwrap()["memory"].0, "64Mi");
        assert_eq!(told.feeds().len(), 5);
        let wrong = of(&[both.as_slice(), &[("SSB_RUNNER_TOLERATIONS", "{")]].concat());
        assert!(wrong.unwrap_err().to_string().contains("SSB_RUNNER_TOLERATIONS"));
        let mark = r#"{"mesh": "off", "backup.sts-backup.io/uid": "x"}"#;
        let marked = of(&[both.as_slice(), &[("SSB_RUNNER_POD_LABELS", mark)]].concat());
        let said = marked.unwrap_err().to_string();
        assert!(said.contains("SSB_RUNNER_POD_LABELS has the key backup.sts-backup.io/uid"), "{said}");
    }
}
