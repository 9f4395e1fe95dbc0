//! The Job of a run, whole: (kind, object, slot, attempt, settings) → Job. Its name is a function of what it is for, so
//! creating it is the lock: whoever asks for the same run asks for the same object, and 409 is success.
//!
//! Nothing is left to the defaults of a server that may be older or newer than we think. Must not decide whether a run
//! is due.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, EnvVarSource, LocalObjectReference, ObjectFieldSelector, PodSecurityContext,
    PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::shared::Trigger;
use crate::api::{annotation, label};

/// How many characters of the object's name a Job's name shows.
const SHOWN: usize = 30;
/// Retries of one Job, as Kubernetes counts them by default; a further attempt is a Job of its own.
const BACKOFF_LIMIT: i32 = 6;
/// Exit codes of `run-once` after which another try of the same Job would be in vain, see `docs/exit-codes.md`.
const FINAL: [i32; 3] = [10, 30, 64];
/// A finished Job and its log stay for a day.
const TTL_SECONDS: i32 = 86_400;
/// User and group of the image.
const USER: i64 = 65_532;
/// The one container.
pub const CONTAINER: &str = "runner";

/// What a Job carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Backup,
    Restore,
    Undo,
    Release,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Backup, Kind::Restore, Kind::Undo, Kind::Release];

    /// The word in the Job's name and label, and the subcommand of `run-once`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Backup => "backup",
            Kind::Restore => "restore",
            Kind::Undo => "undo",
            Kind::Release => "release",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Kind, ()> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// One attempt at one run of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub kind: Kind,
    /// Namespace, name and uid of the object that is served.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub statefulset: String,
    /// RFC 3339; of a manual trigger or an undo the annotation's value; of a restore empty.
    pub slot: String,
    /// From 1.
    pub attempt: u32,
    /// Why it runs; told to backups only.
    pub trigger: Trigger,
    /// What a stop may take: the thaw.
    pub grace_seconds: i64,
    /// Backups only: nothing in the cluster may end a restore half-way.
    pub deadline_seconds: Option<i64>,
}

/// What all Jobs of one installation have in common: its settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Template {
    pub namespace: String,
    pub image: String,
    pub pull_policy: String,
    pub pull_secrets: Vec<String>,
    pub service_account: String,
    pub resources: ResourceRequirements,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub priority_class: Option<String>,
    /// What others (a mesh, an autoscaler, the bill) look for on the pods; what we write ourselves outweighs it.
    pub pod_labels: BTreeMap<String, String>,
    pub pod_annotations: BTreeMap<String, String>,
    /// The value of `SSB_ALLOW_WITHOUT_POLICY`, handed on.
    pub allow_without_policy: bool,
}

fn over(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    theirs.iter().chain(ours).map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Run {
    /// The Job's name: `{kind}-{the object's name in short}-{hash}`, at most 49 characters.
    pub fn job_name(&self) -> String {
        job_name(self.kind, &self.name, &self.uid, &self.slot, self.attempt)
    }

    pub fn job(&self, template: &Template) -> Job {
        let name = self.job_name();
        let labels = self.labels();
        let annotations = [(annotation::SLOT, self.slot.clone()), (annotation::ATTEMPT, self.attempt.to_string())];
        let annotations: BTreeMap<_, _> = annotations.map(|(key, value)| (key.to_owned(), value)).into();
        let pod = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(over(&template.pod_labels, &labels)),
                annotations: Some(over(&template.pod_annotations, &annotations)),
                ..ObjectMeta::default()
            }),
            spec: Some(self.pod(&name, template)),
        };
        Job {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(template.namespace.clone()),
                labels: Some(labels),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(JobSpec {
                active_deadline_seconds: self.deadline_seconds,
                backoff_limit: Some(BACKOFF_LIMIT),
                completion_mode: Some("NonIndexed".into()),
                completions: Some(1),
                parallelism: Some(1),
                pod_failure_policy: Some(failure_policy()),
                pod_replacement_policy: Some("Failed".into()),
                suspend: Some(false),
                template: pod,
                ttl_seconds_after_finished: Some(TTL_SECONDS),
                ..JobSpec::default()
            }),
            status: None,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let labels = [
            ("app.kubernetes.io/component", "runner"),
            ("app.kubernetes.io/name", "sts-backup"),
            (label::MANAGED_BY, label::MANAGED_BY_VALUE),
            (label::KIND, self.kind.as_str()),
            (label::NAME, &self.name),
            (label::NAMESPACE, &self.namespace),
            (label::STATEFULSET, &self.statefulset),
            (label::UID, &self.uid),
        ];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn args(&self) -> Vec<String> {
        let target = format!("{}/{}", self.namespace, self.name);
        let mut args = vec!["run-once", self.kind.as_str(), &target];
        if self.kind == Kind::Backup {
            args.extend(["--slot", &self.slot, "--trigger", self.trigger.as_str()]);
        }
        let attempt = self.attempt.to_string();
        args.extend(["--attempt", &attempt]);
        args.into_iter().map(literal).collect()
    }

    fn pod(&self, job: &str, template: &Template) -> PodSpec {
        let secrets = template.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
        PodSpec {
            automount_service_account_token: Some(true),
            containers: vec![self.container(job, template)],
            dns_policy: Some("ClusterFirst".into()),
            enable_service_links: Some(false),
            image_pull_secrets: some(secrets.collect()),
            node_selector: Some(template.node_selector.clone()).filter(|selector| !selector.is_empty()),
            priority_class_name: template.priority_class.clone(),
            restart_policy: Some("Never".into()),
            security_context: Some(PodSecurityContext {
                fs_group: Some(USER),
                run_as_group: Some(USER),
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                seccomp_profile: Some(seccomp()),
                ..PodSecurityContext::default()
            }),
            service_account_name: Some(template.service_account.clone()),
            termination_grace_period_seconds: Some(self.grace_seconds),
            tolerations: some(template.tolerations.clone()),
            ..PodSpec::default()
        }
    }

    fn container(&self, job: &str, template: &Template) -> Container {
        Container {
            name: CONTAINER.into(),
            image: Some(template.image.clone()),
            image_pull_policy: Some(template.pull_policy.clone()),
            args: Some(self.args()),
            env: Some(environment(job, template)),
            resources: Some(template.resources.clone()),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".into()]) }),
                privileged: Some(false),
                read_only_root_filesystem: Some(true),
                run_as_non_root: Some(true),
                seccomp_profile: Some(seccomp()),
                ..SecurityContext::default()
            }),
            // What the end of the log says is what `kubectl describe pod` shows.
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            ..Container::default()
        }
    }
}

/// Injective in all but the name, which the uid determines: NUL is in none of the three.
pub fn job_name(kind: Kind, object: &str, uid: &str, slot: &str, attempt: u32) -> String {
    let hash = Sha256::digest(format!("{uid}\0{slot}\0{attempt}"));
    let hex = super::name::hex(&hash[..5]);
    let shown: String = object.chars().take(SHOWN).map(|c| if c == '.' { '-' } else { c }).collect();
    format!("{kind}-{shown}-{hex}")
}

/// A definite no is not tried again; a pod that its node drove out costs no try; all else counts towards the limit.
fn failure_policy() -> PodFailurePolicy {
    let codes = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(CONTAINER.into()),
        operator: "In".into(),
        values: FINAL.into(),
    };
    let driven_out =
        PodFailurePolicyOnPodConditionsPattern { status: Some("True".into()), type_: "DisruptionTarget".into() };
    let rule = |action: &str| PodFailurePolicyRule { action: action.into(), ..PodFailurePolicyRule::default() };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule { on_exit_codes: Some(codes), ..rule("FailJob") },
            PodFailurePolicyRule { on_pod_conditions: Some(vec![driven_out]), ..rule("Ignore") },
        ],
    }
}

/// The kubelet expands `$(NAME)` in arguments and values, and makes `$` of `$$`: so that the process gets just this text.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn environment(job: &str, template: &Template) -> Vec<EnvVar> {
    let value = |name: &str, value: &str| EnvVar { name: name.into(), value: Some(literal(value)), value_from: None };
    let field = |name: &str, path: &str| {
        let field_ref = ObjectFieldSelector { api_version: Some("v1".into()), field_path: path.into() };
        let from = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
        EnvVar { name: name.into(), value: None, value_from: Some(from) }
    };
    let mut all = vec![
        value("SSB_JOB_NAME", job),
        field("SSB_NAMESPACE", "metadata.namespace"),
        field("SSB_POD_NAME", "metadata.name"),
        field("SSB_POD_UID", "metadata.uid"),
    ];
    if template.allow_without_policy {
        all.push(value("SSB_ALLOW_WITHOUT_POLICY", "true"));
    }
    all
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { localhost_profile: None, type_: "RuntimeDefault".into() }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}
