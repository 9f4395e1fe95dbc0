//! The policies of one installation, as the chart renders them: which Jobs and pods may use the runner's account, and what
//! that account may change on volumes. All answers are in `snapshots/accounts.snap`.

use std::fmt::Write;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::shared::Trigger;
use sts_backup::plan::job::{Kind, Run, Template};

use super::roles::{RESTORES, grant, in_the_name_of};
use crate::api::assert_snapshot;
use crate::harness::install::{CHART, helm, run_helm};
use crate::harness::{Scene, policy_of, scene, until};

const JOB_CONTROLLER: &str = "system:serviceaccount:kube-system:job-controller";

/// The two policies of a release whose watcher's account is called like the namespace, gone with that.
async fn policies(s: &Scene, helm: &std::path::Path) {
    let ours = [
        format!("fullnameOverride={}", s.namespace),
        "policies.install=false".into(),
        "image.repository=ours".into(),
        "image.tag=one".into(),
    ];
    let mut arguments = vec!["template", "x", CHART, "--namespace", &s.namespace, "-s", "templates/policies.yaml"];
    for value in &ours {
        arguments.extend(["--set", value]);
    }
    let namespace = Api::<Namespace>::all(s.client.clone()).get(&s.namespace).await.unwrap();
    let owner = json!([{ "apiVersion": "v1", "kind": "Namespace", "name": s.namespace, "uid": namespace.uid() }]);
    let mut count = 0;
    for text in run_helm(helm, &arguments).await.split("\n---\n") {
        let mut object: Value = serde_saphyr::from_str(text).unwrap();
        object["metadata"]["ownerReferences"] = owner.clone();
        policy_of(&s.client, &object).await;
        count += 1;
    }
    assert_eq!(count, 4);
}

struct Cast {
    watcher: Client,
    tenant: Client,
    runner: Client,
    storage: Client,
    jobs: Client,
    replicas: Client,
}

async fn cast(s: &Scene) -> Cast {
    let user = |name: &str| format!("system:serviceaccount:{}:{name}", s.namespace);
    let verbs = json!(["create", "patch", "get"]);
    let makes = json!([
        { "apiGroups": ["batch"], "resources": ["jobs", "jobs/status"], "verbs": verbs },
        { "apiGroups": [""], "resources": ["pods", "pods/status", "pods/ephemeralcontainers"], "verbs": verbs },
    ]);
    let (watcher, tenant, runner) = (user(&s.namespace), user("tenant"), user(&format!("{}-runner", s.namespace)));
    let replicas = "system:serviceaccount:kube-system:replicaset-controller";
    for (name, user) in
        [("watcher", watcher.as_str()), ("tenant", &tenant), ("jobs", JOB_CONTROLLER), ("replicas", replicas)]
    {
        grant(s, name, user, &makes, &[&s.namespace]).await;
    }
    let (group, resource, verb) = RESTORES;
    let status = json!([{ "apiGroups": [group], "resources": [resource], "verbs": [verb] }]);
    grant(s, "runner-status", &runner, &status, &[&s.namespace]).await;
    let volumes = json!([{ "apiGroups": [""], "resources": ["persistentvolumes"], "verbs": verbs }]);
    grant(s, "runner", &runner, &volumes, &[]).await;
    grant(s, "storage", "storage", &volumes, &[]).await;
    Cast {
        watcher: in_the_name_of(&watcher).await,
        tenant: in_the_name_of(&tenant).await,
        runner: in_the_name_of(&runner).await,
        storage: in_the_name_of("storage").await,
        jobs: in_the_name_of(JOB_CONTROLLER).await,
        replicas: in_the_name_of(replicas).await,
    }
}

/// As the product makes it.
fn job(s: &Scene, kind: Kind) -> Job {
    let run = Run {
        kind,
        namespace: "shop".into(),
        name: "nightly".into(),
        uid: "u".into(),
        statefulset: "pg".into(),
        slot: "2026-03-29T01:30:00Z".into(),
        attempt: 1,
        trigger: Trigger::Schedule,
        grace_seconds: 30,
        deadline_seconds: None,
    };
    run.job(&Template {
        namespace: s.namespace.clone(),
        image: "ours:one".into(),
        pull_policy: "Never".into(),
        service_account: format!("{}-runner", s.namespace),
        ..Template::default()
    })
}

/// The same, changed at this place.
fn but<K: serde::Serialize + serde::de::DeserializeOwned>(object: &K, path: &str, value: Value) -> K {
    let mut object = serde_json::to_value(object).unwrap();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    match (parent, key) {
        (Value::Array(list), _) => list.push(value),
        (map, key) => map[key] = value,
    }
    serde_json::from_value(object).unwrap()
}

/// The pod that the Job controller makes of it.
fn pod(job: &Job) -> Pod {
    let template = job.spec.clone().unwrap().template;
    let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    pod.metadata.name = Some("of-a-job".into());
    // It is not to be placed anywhere.
    pod.spec.as_mut().unwrap().node_selector = Some([("no".to_owned(), "where".to_owned())].into());
    pod
}

struct Told<'a> {
    s: &'a Scene,
    text: String,
}

impl Told<'_> {
    fn say<T>(&mut self, case: &str, reply: kube::Result<T>) {
        let said = match reply {
            Ok(_) => "allowed".to_owned(),
            Err(kube::Error::Api(status)) => {
                let said = status.message.replace(&self.s.namespace, "NS");
                said.split_once("denied request: ").unwrap_or_else(|| panic!("{case}: {said}")).1.to_owned()
            }
            Err(error) => panic!("{case}: {error}"),
        };
        writeln!(self.text, "{case}\n    {said}").unwrap();
    }
}

async fn creates(s: &Scene, cast: &Cast, told: &mut Told<'_>) {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let good = job(s, Kind::Backup);
    let api = |client: &Client| Api::<Job>::namespaced(client.clone(), &s.namespace);
    for kind in Kind::ALL {
        let reply = api(&cast.watcher).create(&dry, &job(s, kind)).await;
        told.say(&format!("the watcher makes a Job of kind {kind}"), reply);
    }
    told.say("the administrator makes that Job", api(&s.client).create(&dry, &good).await);
    told.say("a tenant makes that Job", api(&cast.tenant).create(&dry, &good).await);
    let spec = "/spec/template/spec";
    let other = but(&good, &format!("{spec}/serviceAccountName"), json!("default"));
    told.say("a tenant makes it under another account, with our labels", api(&cast.tenant).create(&dry, &other).await);
    let plain = but(&other, "/metadata/labels", json!({ "app": "x" }));
    told.say("a tenant makes it under another account", api(&cast.tenant).create(&dry, &plain).await);
    let container = format!("{spec}/containers/0");
    for (case, path, value) in [
        ("another image", format!("{container}/image"), json!("theirs:one")),
        ("a command", format!("{container}/command"), json!(["sh"])),
        ("args of another kind", format!("{container}/args"), json!(["run-once", "undo", "shop/nightly"])),
        ("args of another object", format!("{container}/args"), json!(["run-once", "backup", "shop/other"])),
        ("another subcommand", format!("{container}/args"), json!(["watch"])),
        ("one more container", format!("{spec}/containers/-"), json!({ "name": "x", "image": "theirs:one" })),
        ("an init container", format!("{spec}/initContainers"), json!([{ "name": "x", "image": "ours:one" }])),
        ("a volume", format!("{spec}/volumes"), json!([{ "name": "x", "secret": { "secretName": "x" } }])),
        ("the network of its node", format!("{spec}/hostNetwork"), json!(true)),
    ] {
        told.say(
            &format!("the watcher makes a Job with {case}"),
            api(&cast.watcher).create(&dry, &but(&good, &path, value)).await,
        );
    }
    let pods = |client: &Client| Api::<Pod>::namespaced(client.clone(), &s.namespace);
    let good = pod(&good);
    told.say("the Job controller makes the pod of a Job", pods(&cast.jobs).create(&dry, &good).await);
    let mesh = but(&good, "/spec/containers/-", json!({ "name": "mesh", "image": "mesh:one" }));
    told.say("the same with a container that a mesh has put in", pods(&cast.jobs).create(&dry, &mesh).await);
    let command = but(&good, "/spec/containers/0/command", json!(["sh"]));
    told.say("the same with a command", pods(&cast.jobs).create(&dry, &command).await);
    told.say("a tenant makes that pod", pods(&cast.tenant).create(&dry, &good).await);
    let bare = but(&good, "/metadata/labels", json!({}));
    told.say("a tenant makes a pod with the runner's account", pods(&cast.tenant).create(&dry, &bare).await);
    told.say("a Deployment of a tenant makes that pod", pods(&cast.replicas).create(&dry, &bare).await);
    let plain = but(&bare, "/spec/serviceAccountName", json!("default"));
    told.say("a tenant makes a pod with another account", pods(&cast.tenant).create(&dry, &plain).await);
}

async fn changes(s: &Scene, cast: &Cast, told: &mut Told<'_>) {
    let asleep = but(&job(s, Kind::Backup), "/spec/suspend", json!(true));
    let (jobs, pods): (Api<Job>, Api<Pod>) =
        (Api::namespaced(cast.tenant.clone(), &s.namespace), Api::namespaced(cast.tenant.clone(), &s.namespace));
    let name = Api::<Job>::namespaced(cast.watcher.clone(), &s.namespace).create(&PostParams::default(), &asleep).await;
    let name = name.unwrap().name_any();
    let made: Api<Pod> = Api::namespaced(cast.jobs.clone(), &s.namespace);
    made.create(&PostParams::default(), &pod(&asleep)).await.unwrap();
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let label = |key: &str, value: Value| Patch::Merge(json!({ "metadata": { "labels": { key: value } } }));
    let ours = label("backup.sts-backup.io/name", json!("other"));
    told.say("a tenant turns a Job to another object by its label", jobs.patch(&name, &dry, &ours).await);
    let none = label("backup.sts-backup.io/kind", Value::Null);
    told.say("a tenant takes our label off a Job", jobs.patch(&name, &dry, &none).await);
    told.say("a tenant takes it off by way of the Job's status", jobs.patch_status(&name, &dry, &none).await);
    told.say("a tenant puts a label of his own on it", jobs.patch(&name, &dry, &label("team", json!("a"))).await);
    let team = label("team", json!("a"));
    told.say("a tenant does so by way of its status", jobs.patch_status(&name, &dry, &team).await);
    let awake = Patch::Merge(json!({ "spec": { "suspend": false } }));
    told.say("a tenant lets a Job go on that is suspended", jobs.patch(&name, &dry, &awake).await);
    told.say("a tenant takes our label off a pod", pods.patch("of-a-job", &dry, &none).await);
    told.say("a tenant takes it off by way of the pod's status", pods.patch_status("of-a-job", &dry, &none).await);
    let ours = label("backup.sts-backup.io/kind", json!("undo"));
    told.say("a tenant changes it so", pods.patch_status("of-a-job", &dry, &ours).await);
    told.say("a tenant puts a label of his own on it so", pods.patch_status("of-a-job", &dry, &team).await);
    told.say("a tenant puts a label of his own on it", pods.patch("of-a-job", &dry, &label("team", json!("a"))).await);
    let image = Patch::Strategic(json!({ "spec": { "containers": [{ "name": "runner", "image": "theirs:one" }] } }));
    told.say("a tenant changes the image of a pod", pods.patch("of-a-job", &dry, &image).await);
    let more = json!({ "spec": { "ephemeralContainers": [{ "name": "x", "image": "theirs:one" }] } });
    let reply = pods.patch_ephemeral_containers("of-a-job", &dry, &Patch::Strategic(more)).await;
    told.say("a tenant puts an ephemeral container into a pod", reply);
}

async fn volumes(s: &Scene, cast: &Cast, told: &mut Told<'_>) {
    let namespace = Api::<Namespace>::all(s.client.clone()).get(&s.namespace).await.unwrap();
    let owner = json!([{ "apiVersion": "v1", "kind": "Namespace", "name": s.namespace, "uid": namespace.uid() }]);
    let name = format!("{}-runners", s.namespace);
    let volume = json!({ "metadata": { "name": name, "ownerReferences": owner, "labels": { "team": "a" } },
        "spec": { "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "none-of-these",
            "persistentVolumeReclaimPolicy": "Retain", "csi": { "driver": "none.example", "volumeHandle": "x" },
            "claimRef": { "kind": "PersistentVolumeClaim", "namespace": s.namespace, "name": "none", "uid": "dead" } } });
    let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
    Api::<PersistentVolume>::all(s.client.clone()).create(&PostParams::default(), &volume).await.unwrap();
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let [runner, storage] = [&cast.runner, &cast.storage].map(|client| Api::<PersistentVolume>::all(client.clone()));
    let affinity = json!({ "required": { "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["x"] }] }] } });
    for (case, patch) in [
        ("reclaim policy", json!({ "spec": { "persistentVolumeReclaimPolicy": "Delete" } })),
        ("claim", json!({ "spec": { "claimRef": { "name": "other", "uid": null } } })),
        ("our label", json!({ "metadata": { "labels": { "backup.sts-backup.io/role": "old" } } })),
        ("our annotation", json!({ "metadata": { "annotations": { "backup.sts-backup.io/undo-deadline": "x" } } })),
        ("claim of another namespace", json!({ "spec": { "claimRef": { "namespace": "kube-system" } } })),
        ("another's label", json!({ "metadata": { "labels": { "team": "b" } } })),
        ("another's label, taken off", json!({ "metadata": { "labels": { "team": null } } })),
        (
            "another's annotation",
            json!({ "metadata": { "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" } } }),
        ),
        ("finalizers", json!({ "metadata": { "finalizers": null } })),
        ("owners", json!({ "metadata": { "ownerReferences": null } })),
        ("capacity", json!({ "spec": { "capacity": { "storage": "2Mi" } } })),
        ("access modes", json!({ "spec": { "accessModes": ["ReadWriteMany"] } })),
        ("mount options", json!({ "spec": { "mountOptions": ["suid"] } })),
        ("storage class", json!({ "spec": { "storageClassName": "another" } })),
        ("node affinity", json!({ "spec": { "nodeAffinity": affinity } })),
    ] {
        let patch = Patch::Merge(patch);
        told.say(&format!("the runner changes of a volume: {case}"), runner.patch(&name, &dry, &patch).await);
        if case == "another's label" {
            told.say("an administrator of storage changes the same", storage.patch(&name, &dry, &patch).await);
        }
    }
    let mut another = volume;
    another.metadata.name = Some(format!("{name}-new"));
    let params = PostParams { dry_run: true, ..PostParams::default() };
    told.say("the runner makes a volume", runner.create(&params, &another).await);
}

/// Policies and rights take a moment to be known.
async fn effective(s: &Scene, cast: &Cast) {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let (pod, name) = (pod(&job(s, Kind::Backup)), format!("{}-probe", s.namespace));
    let [tenants, ours] = [&cast.tenant, &cast.jobs].map(|client| Api::<Pod>::namespaced(client.clone(), &s.namespace));
    let volumes = Api::<PersistentVolume>::all(cast.runner.clone());
    let volume = json!({ "metadata": { "name": name }, "spec": { "capacity": { "storage": "1Mi" },
        "accessModes": ["ReadWriteOnce"], "csi": { "driver": "none.example", "volumeHandle": "x" } } });
    let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
    until("the policies and the rights to be known", 30, async || {
        ours.create(&dry, &pod).await.map_err(|error| error.to_string())?;
        for denied in [tenants.create(&dry, &pod).await.map(drop), volumes.create(&dry, &volume).await.map(drop)] {
            let said = denied.map_or_else(|error| error.to_string(), |()| "allowed".into());
            said.contains("denied request").then_some(()).ok_or(said)?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn nobody_but_the_watcher_uses_the_runners_account_and_that_changes_little() {
    let Some(helm) = helm() else { return };
    scene("accounts", &[], async |s| {
        let accounts = s.api::<ServiceAccount>();
        for name in [s.namespace.clone(), format!("{}-runner", s.namespace)] {
            let account = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
            accounts.create(&PostParams::default(), &account).await.unwrap();
        }
        until("the default account", 30, async || {
            accounts.get_opt("default").await.unwrap().map(drop).ok_or_else(|| "it is not there".into())
        })
        .await;
        policies(s, &helm).await;
        for kind in ["volumes", "jobs"] {
            super::well_typed(&s.client, &format!("{}.{kind}.backup.sts-backup.io", s.namespace)).await;
        }
        let cast = cast(s).await;
        effective(s, &cast).await;
        let mut told = Told { s, text: String::new() };
        Box::pin(creates(s, &cast, &mut told)).await;
        changes(s, &cast, &mut told).await;
        volumes(s, &cast, &mut told).await;
        assert_snapshot("accounts", &told.text);
    })
    .await;
}
