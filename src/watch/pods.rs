//! What is the matter with a Job whose pod is not at work: one or two reads, when it has taken long.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::State;
use crate::plan::flow::Verb;
use crate::plan::job::CONTAINER;
use crate::plan::launch::entry::Uid;
use crate::plan::launch::plight::Plight;

/// In its own namespace.
pub const VERBS: &[Verb] = &[("", "pods", "list"), ("", "events", "list")];

/// Pods of one Job that are looked at, and Events of it.
const SOME: u32 = 20;

pub async fn plight(state: &State, name: &str, job: Uid) -> kube::Result<Plight> {
    let namespace = &state.settings.namespace;
    let pods: Api<Pod> = Api::namespaced(state.client.clone(), namespace);
    let of = ListParams::default().labels(&format!("batch.kubernetes.io/controller-uid={job}")).limit(SOME);
    let mut found = pods.list(&of).await?.items;
    found.sort_by_key(ResourceExt::creation_timestamp);
    if let Some(newest) = found.pop() {
        return Ok(of_pod(name, &newest));
    }
    let events: Api<Event> = Api::namespaced(state.client.clone(), namespace);
    let of = ListParams::default().fields(&format!("involvedObject.uid={job},reason=FailedCreate")).limit(SOME);
    let mut found = events.list(&of).await?.items;
    found.sort_by_key(|event| event.last_timestamp.clone());
    let said = found.pop().and_then(|event| event.message);
    Ok(said.map_or(Plight::None, |said| {
        let why = said.strip_prefix("Error creating: ").unwrap_or(&said);
        Plight::Rejected(format!("Job {name} gets no pod: {why}"))
    }))
}

fn of_pod(job: &str, pod: &Pod) -> Plight {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.container_statuses.unwrap_or_default();
    let runner = all.iter().find(|one| one.name == CONTAINER);
    let ended = runner.and_then(|one| one.state.as_ref()?.terminated.as_ref());
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if let Some(ended) = ended {
        // Of a pod that is over the Job is told by its controller.
        return if over { Plight::None } else { Plight::Ended(ended.exit_code) };
    }
    let pod = format!("pod {} of Job {job} waits", pod.name_any());
    let unscheduled =
        status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(why) = unscheduled {
        let why = said(why.reason.as_deref(), why.message.as_deref());
        return Plight::Pending(format!("{pod}: {why}"));
    }
    let inits = status.init_container_statuses.unwrap_or_default();
    let stuck = inits.iter().chain(&all).find_map(|one| Some((one, waits(one)?)));
    stuck.map_or(Plight::None, |(one, why)| Plight::Pending(format!("{pod}, container {}: {why}", one.name)))
}

/// Why a container does not begin; none: it does, or the kubelet is at it.
fn waits(container: &ContainerStatus) -> Option<String> {
    let Some(ContainerState { waiting: Some(waiting), .. }) = &container.state else { return None };
    let usual = matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"));
    (!usual).then(|| said(waiting.reason.as_deref(), waiting.message.as_deref()))
}

fn said(reason: Option<&str>, message: Option<&str>) -> String {
    [reason, message].into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(status: &Value) -> Plight {
        let pod = json!({ "metadata": { "name": "backup-x-1" }, "status": status });
        of_pod("backup-x", &serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_says_why_it_does_not_run() {
        let scheduled = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory." }]);
        let pending = of(&json!({ "phase": "Pending", "conditions": scheduled }));
        let text =
            "pod backup-x-1 of Job backup-x waits: Unschedulable: 0/1 nodes are available: 1 Insufficient memory.";
        assert_eq!(pending, Plight::Pending(text.into()));

        let waiting = |reason: &str| {
            let state = json!({ "waiting": { "reason": reason, "message": "no such image" } });
            let status = json!({ "name": "runner", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": state });
            of(&json!({ "phase": "Pending", "containerStatuses": [status] }))
        };
        let text = "pod backup-x-1 of Job backup-x waits, container runner: ErrImagePull: no such image";
        assert_eq!(waiting("ErrImagePull"), Plight::Pending(text.into()));
        assert_eq!(waiting("ContainerCreating"), Plight::None);
    }

    #[test]
    fn a_runner_that_has_ended_beside_a_sidecar_is_told_from_a_pod_that_is_over() {
        let container = |name: &str, state: Value| json!({ "name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state });
        let ended = container("runner", json!({ "terminated": { "exitCode": 10 } }));
        let beside = container("proxy", json!({ "running": {} }));
        let all = json!([beside, ended]);
        assert_eq!(of(&json!({ "phase": "Running", "containerStatuses": all })), Plight::Ended(10));
        assert_eq!(of(&json!({ "phase": "Failed", "containerStatuses": all })), Plight::None);
        let runs = json!([beside, container("runner", json!({ "running": {} }))]);
        assert_eq!(of(&json!({ "phase": "Running", "containerStatuses": runs })), Plight::None);
    }
}
