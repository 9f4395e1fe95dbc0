//! What keeps a run from beginning, made on the real cluster one after the other, and what the object says of it: a person
//! who looks there must not have to guess.

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;

use super::story::{annotated, done};
use crate::harness::driver::SIM;
use crate::harness::install::Release;
use crate::harness::make::App;
use crate::harness::{Scene, With, kubeconfig, policy_of, scene, until};

const WEB: App = App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] };

#[tokio::test]
async fn whatever_keeps_a_run_from_beginning_stands_in_status() {
    scene("silence", &[With::Healthy(SIM)], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        s.app(&WEB).await;
        s.policy("nightly", "web", &json!({ "schedule": "0 3 1 1 *" })).await;
        done(s, "nightly", 1).await;
        invalid(s).await;
        never(s).await;
        rejected(s, &release).await;
        pending(s, &release).await;
        beside_a_sidecar(s, &release).await;
        of_an_installation_that_is_gone(s).await;
        release.uninstall().await;
    })
    .await;
}

/// It says that an installation manages it of which nothing is there; a person hands it over.
async fn of_an_installation_that_is_gone(s: &Scene) {
    let before = s.get("nightly").await.status.and_then(|status| status.managed_by).unwrap();
    let another = Patch::Merge(json!({ "status": { "managedBy": format!("{}/no-such-watcher", s.namespace) } }));
    s.api::<StatefulSetBackup>().patch_status("nightly", &PatchParams::default(), &another).await.unwrap();
    let told = says(s, "Waiting", "True", "ManagedByAnother").await;
    let words = told["message"].as_str().unwrap();
    assert!(words.contains(&format!("doctor --take-over {}/nightly", s.namespace)), "{words}");
    let place = format!("{}/nightly", s.namespace);
    let person = kubeconfig().unwrap();
    let doctor = s.start_as(&person, &["doctor", "--take-over", &place, "--yes"]).ended().await.expect(0);
    assert!(doctor.stdout.concat().contains("1 objects taken over"), "{:?}", doctor.stdout);
    until("the watcher to have it again", 60, async || {
        let by = s.get("nightly").await.status.and_then(|status| status.managed_by);
        if by.as_ref() == Some(&before) { Ok(()) } else { Err(format!("{by:?}")) }
    })
    .await;
    waits_no_longer(s).await;
    let refused = s.start_as(&person, &["doctor", "--take-over", &place, "--yes"]).ended().await.expect(10);
    assert!(refused.stderr.contains("has just renewed Lease"), "{}", refused.stderr);
}

async fn edit(s: &Scene, spec: &Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    s.api::<StatefulSetBackup>().patch("nightly", &PatchParams::default(), &patch).await.unwrap();
}

/// The condition as it is, once it is so.
async fn says(s: &Scene, kind: &str, status: &str, reason: &str) -> Value {
    until(&format!("{kind}={status} {reason}"), 120, async || {
        let object = s.get("nightly").await;
        let conditions = json!(object.status.as_ref().map(|status| &status.conditions));
        let found = conditions.as_array().into_iter().flatten().find(|one| one["type"] == kind).cloned();
        let is = found.as_ref().is_some_and(|one| {
            one["status"] == status
                && one["reason"] == reason
                && one["observedGeneration"] == json!(object.metadata.generation)
        });
        if is { Ok(found.unwrap()) } else { Err(format!("{conditions:#}")) }
    })
    .await
}

/// The condition is False, or is not there any more.
async fn waits_no_longer(s: &Scene) {
    until("the condition Waiting to go", 120, async || {
        let conditions = json!(s.get("nightly").await.status.map(|status| status.conditions));
        let found = conditions.as_array().into_iter().flatten().find(|one| one["type"] == "Waiting");
        if found.is_none_or(|one| one["status"] == "False") { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn invalid(s: &Scene) {
    edit(s, &json!({ "timeZone": "Berlin" })).await;
    says(s, "Stalled", "True", "InvalidSpec").await;
    let ready = says(s, "Ready", "False", "InvalidSpec").await;
    let status = json!(s.get("nightly").await.status);
    assert_eq!(status["phase"], "Failed", "{status}");
    assert_eq!(status["message"], ready["message"]);
    assert!(ready["message"].as_str().unwrap().contains("timeZone \"Berlin\" is not known"), "{ready}");
    assert_eq!(status["history"].as_array().map(Vec::len), Some(1), "what has run is still told");
    // Whoever waits is told, too, and does not wait in vain.
    let person = kubeconfig().unwrap();
    let ended = s.start_as(&person, &["-n", &s.namespace, "wait", "nightly"]).ended().await.expect(10);
    assert!(ended.stderr.contains("timeZone"), "{}", ended.stderr);
    edit(s, &json!({ "timeZone": null })).await;
    says(s, "Stalled", "False", "BackupCompleted").await;
    says(s, "Ready", "True", "BackupCompleted").await;
}

async fn never(s: &Scene) {
    edit(s, &json!({ "schedule": "0 3 30 2 *" })).await;
    let stalled = says(s, "Stalled", "True", "NeverDue").await;
    assert!(stalled["message"].as_str().unwrap().contains("never fires"), "{stalled}");
    edit(s, &json!({ "schedule": "0 3 1 1 *" })).await;
    says(s, "Stalled", "False", "BackupCompleted").await;
}

/// No pod of the Job is admitted; when there is room, the run begins by itself.
async fn rejected(s: &Scene, release: &Release<'_>) {
    let api = release.api::<ResourceQuota>();
    let quota = json!({ "metadata": { "name": "full" }, "spec": { "hard": { "pods": "1" } } });
    api.create(&kube::api::PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    until("the quota to count the watcher", 60, async || {
        let used = json!(api.get("full").await.unwrap().status)["used"]["pods"].clone();
        (used == "1").then_some(()).ok_or_else(|| used.to_string())
    })
    .await;
    annotated(s, "nightly", "with a quota").await;
    let waiting = says(s, "Waiting", "True", "JobRejected").await;
    assert!(waiting["message"].as_str().unwrap().contains("exceeded quota: full"), "{waiting}");
    until("an Event of it", 60, async || {
        let of = ListParams::default().fields("reason=JobRejected");
        let found = s.api::<k8s_openapi::api::core::v1::Event>().list(&of).await.unwrap().items;
        (!found.is_empty()).then_some(()).ok_or_else(|| "none".into())
    })
    .await;
    api.delete("full", &DeleteParams::default()).await.unwrap();
    done(s, "nightly", 2).await;
    waits_no_longer(s).await;
}

async fn pending(s: &Scene, release: &Release<'_>) {
    release.set("upgrade", &["runner.nodeSelector.no=where"]).await;
    annotated(s, "nightly", "nowhere").await;
    let waiting = says(s, "Waiting", "True", "JobPending").await;
    assert!(waiting["message"].as_str().unwrap().contains("Unschedulable: 0/1 nodes are available"), "{waiting}");
    release.set("upgrade", &[]).await;
    // One that is being stopped would make the next Job as it was told to make them before.
    until("the former watcher to go", 60, async || {
        let count = release.watchers().await.len();
        if count == 1 { Ok(()) } else { Err(format!("{count} pods")) }
    })
    .await;
    // The Job that waits was made before; its next attempt has the new settings.
    let job = release.jobs("backup", "nightly").await.pop().unwrap().name_any();
    release.api::<k8s_openapi::api::batch::v1::Job>().delete(&job, &DeleteParams::background()).await.unwrap();
    done(s, "nightly", 3).await;
    waits_no_longer(s).await;
}

/// What a service mesh does: a second container in each pod, which never ends.
async fn beside_a_sidecar(s: &Scene, release: &Release<'_>) {
    let name = format!("{}-mesh", s.namespace);
    let container = "[JSONPatch{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{name: 'proxy', \
        image: 'localhost/app:1', command: ['/bin/sleep', '86400'], imagePullPolicy: 'Never', securityContext: \
        Object.spec.containers.securityContext{allowPrivilegeEscalation: false, capabilities: \
        Object.spec.containers.securityContext.capabilities{drop: ['ALL']}}}}]";
    policy_of(&s.client, &json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": { "name": name },
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pods"] }] },
            "matchConditions": [{ "name": "jobs", "expression":
                format!("request.namespace == '{}' && has(object.metadata.labels) && \
                    'batch.kubernetes.io/job-name' in object.metadata.labels", release.namespace) }],
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": container } }],
        },
    }))
    .await;
    policy_of(
        &s.client,
        &json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": { "name": name }, "spec": { "policyName": name },
        }),
    )
    .await;
    let mut asked = 3;
    // A policy takes effect some time after it is there: what runs before is a run like any other.
    let containers = until("a pod with the sidecar", 180, async || {
        asked += 1;
        annotated(s, "nightly", &format!("beside {asked}")).await;
        done(s, "nightly", asked).await;
        let jobs = release.jobs("backup", "nightly").await;
        let pods = release.pods(&jobs.last().map(ResourceExt::name_any).unwrap_or_default()).await;
        let containers: Vec<String> = pods
            .iter()
            .flat_map(|pod| pod.spec.iter().flat_map(|spec| spec.containers.iter().map(|one| one.name.clone())))
            .collect();
        (containers.len() == 2).then(|| containers.clone()).ok_or_else(|| format!("{containers:?}"))
    })
    .await;
    assert!(containers.contains(&"proxy".to_owned()) && containers.contains(&"runner".to_owned()));
    // Its runner has ended and its proxy never will: the next run begins all the same.
    annotated(s, "nightly", "after the sidecar").await;
    done(s, "nightly", asked + 1).await;
    for kind in ["mutatingadmissionpolicybindings", "mutatingadmissionpolicies"] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{name}");
        let request = http::Request::delete(path).body(vec![]).unwrap();
        s.client.request::<Value>(request).await.unwrap();
    }
}
