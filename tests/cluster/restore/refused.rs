//! What cannot be restored is refused before anything is touched, and what cannot be staged is given up before anything
//! is stopped: no pod stops, no claim goes, nothing is left behind. All sentences are in
//! `snapshots/restore-refusals.snap` and `snapshots/restore-staging.snap`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{LimitRange, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::restore::{RestorePhase, StatefulSetRestore};
use sts_backup::api::snapshot::VolumeSnapshot;
use sts_backup::api::{annotation, label};

use crate::api::assert_snapshot;
use crate::harness::account::{account, whole};
use crate::harness::driver::{SIM, TWO};
use crate::harness::make::{App, word};
use crate::harness::restore::Claims;
use crate::harness::{Scene, With, scene, until};

const ONE: App = App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] };

/// What was there before, and must be there after every refusal.
struct Before {
    claims: Claims,
    pods: BTreeMap<String, String>,
    volumes: usize,
    said: RefCell<String>,
    cases: RefCell<usize>,
}

impl Before {
    async fn of(s: &Scene) -> Before {
        let (claims, volumes) = (s.claims().await, s.own_volumes().await.len());
        Before { claims, pods: s.pod_uids("web").await, volumes, said: RefCell::default(), cases: RefCell::default() }
    }

    /// The restore of that spec is refused for this reason, and the world is as before. What it said.
    async fn refused(&self, s: &Scene, case: &str, reason: &str, spec: &Value) -> String {
        let name = self.next();
        s.request(&name, "web", spec).await;
        self.end(s, case, reason, &name, s.carry_out("restore", &name).await).await
    }

    fn next(&self) -> String {
        static ALL: AtomicUsize = AtomicUsize::new(1);
        *self.cases.borrow_mut() += 1;
        format!("refused-{}", ALL.fetch_add(1, Ordering::Relaxed))
    }

    async fn end(
        &self,
        s: &Scene,
        case: &str,
        reason: &str,
        name: &str,
        ended: crate::harness::product::Ended,
    ) -> String {
        let ended = ended.expect(10);
        let sentence = ended.stderr.strip_prefix(&format!("{reason}: ")).unwrap_or_else(|| panic!("{case}: {ended:?}"));
        let status = s.restored(name).await;
        assert_eq!(status.phase, Some(RestorePhase::Failed), "{case}");
        assert_eq!(status.message.as_deref(), Some(sentence), "{case}");
        assert_eq!(s.claims().await, self.claims, "{case}: no claim went");
        assert_eq!(s.pod_uids("web").await, self.pods, "{case}: no pod was stopped");
        let touched: Vec<_> =
            ended.audit.iter().filter(|line| ["Scale", "Evict", "Protect", "Retain"].contains(&&*line.step)).collect();
        assert!(touched.is_empty(), "{case}: {touched:?}");
        until(&format!("{case}: no volume is left behind"), 60, async || {
            let left: Vec<_> = s.own_volumes().await.iter().map(ResourceExt::name_any).collect();
            if left.len() == self.volumes { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        assert!(s.tidy("web").await.is_empty(), "{case}");
        let runs: Vec<_> = s.snapshots().await.iter().map(|one| word(one, label::RUN).to_owned()).collect();
        let mut plain = sentence.replace(&s.namespace, "NS").replace(name, "RESTORE");
        plain = plain.replace(&s.api::<StatefulSetRestore>().get(name).await.unwrap().uid().unwrap(), "UID");
        for run in runs.iter().filter(|run| !run.is_empty()) {
            plain = plain.replace(run.as_str(), "RUN");
        }
        for snapshot in s.snapshots().await {
            plain = plain.replace(&snapshot.uid().unwrap(), "UID");
        }
        for (uid, volume) in self.claims.values() {
            plain = plain.replace(volume, "PV").replace(uid, "UID");
        }
        writeln!(self.said.borrow_mut(), "{case}\n    {reason}: {}", plain.replace("; ", ";\n    ")).unwrap();
        sentence.to_owned()
    }
}

async fn merge<K>(api: &Api<K>, name: &str, patch: Value)
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn backed_up(s: &Scene) -> String {
    s.backup("nightly", &[]).await.expect(0).summary()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_and_nothing_is_touched() {
    scene("no-restore", &[With::Healthy(SIM)], async |s| {
        s.app(&ONE).await;
        s.policy("nightly", "web", &json!({})).await;
        let (first, second) = (backed_up(s).await, backed_up(s).await);
        let before = Before::of(s).await;
        choice(s, &before, &first, &second).await;
        snapshots(s, &before, &second).await;
        claims(s, &before).await;
        pods(s, &before).await;
        room(s, &before).await;
        rights(s, &before).await;
        println!("{} faults refused", before.cases.borrow());
        s.restore("good", "web", &json!({})).await.expect(0);
        assert_snapshot("restore-refusals", &before.said.take());
    })
    .await;
}

/// Which run.
async fn choice(s: &Scene, before: &Before, first: &str, second: &str) {
    let name = |run: &str| format!("nightly-a-{run}-0");
    before.refused(s, "no such run", "RunNotFound", &json!({ "runId": "20200101-000000" })).await;
    before.refused(s, "before the first", "RunNotFound", &json!({ "pointInTime": "2020-01-01T00:00:00Z" })).await;
    before.refused(s, "no such policy", "RunNotFound", &json!({ "backupName": "weekly" })).await;
    before.refused(s, "no such snapshot", "RunNotFound", &json!({ "snapshotNames": ["none"] })).await;
    let both = json!({ "snapshotNames": [name(first), name(second)] });
    before.refused(s, "two snapshots of one claim", "RunNotFound", &both).await;
    let other = json!({ "sourceStatefulSet": "db" });
    before.refused(s, "runs of another StatefulSet", "RunNotFound", &other).await;
}

/// Snapshots in another state than a restore needs.
async fn snapshots(s: &Scene, before: &Before, run: &str) {
    let api = s.api::<VolumeSnapshot>();
    let name = format!("nightly-a-{run}-0");
    let exactly = json!({ "runId": run });
    let set = async |key: &str, value: Value| {
        merge(&api, &name, json!({ "metadata": { "annotations": { key: value } } })).await;
    };
    set(annotation::FORMAT, "99".into()).await;
    before.refused(s, "written by a newer version", "FormatUnknown", &exactly).await;
    set(annotation::FORMAT, "1".into()).await;
    // What is on record is proved by it; without one the snapshots are taken at their word.
    let (leases, lock) = (s.api::<Lease>(), "sts-backup-web");
    let record = leases.get(lock).await.unwrap().annotations()[annotation::RUNS].clone();
    let put = async |record: Value| {
        merge(&leases, lock, json!({ "metadata": { "annotations": { annotation::RUNS: record } } })).await;
    };
    put(Value::Null).await;
    set(annotation::RUN_SIZE, "2".into()).await;
    before.refused(s, "a run that lacks a snapshot", "RunNotFound", &exactly).await;
    set(annotation::RUN_SIZE, "1".into()).await;
    let cut = word(&api.get(&name).await.unwrap(), annotation::CUT).to_owned();
    set(annotation::CUT, Value::Null).await;
    before.refused(s, "not proved to belong to one freeze", "RunNotFound", &exactly).await;
    set(annotation::CUT, cut.into()).await;
    put(record.into()).await;
    // Somebody labels a snapshot of another claim as ours.
    let stranger = json!({ "metadata": { "name": "stranger", "labels": { label::CLAIM_TEMPLATE: "a", label::ORDINAL: "0" } },
        "spec": { "volumeSnapshotClassName": SIM.class, "source": { "persistentVolumeClaimName": "none" } } });
    s.create::<VolumeSnapshot>(&serde_json::from_value(stranger).unwrap()).await;
    let named = |name: &str| json!({ "snapshotNames": [name] });
    before.refused(s, "a snapshot of another claim, whatever its labels say", "RunNotFound", &named("stranger")).await;
    api.delete("stranger", &DeleteParams::default()).await.unwrap();
    // One of the claim, by hand and never ready, would block the claim's deletion.
    let hangs = json!({ "metadata": { "name": "hangs" }, "spec": { "volumeSnapshotClassName": "no-such-class",
        "source": { "persistentVolumeClaimName": "a-web-0" } } });
    s.create::<VolumeSnapshot>(&serde_json::from_value(hangs).unwrap()).await;
    until("the controller's complaint", 60, async || {
        let status = api.get("hangs").await.unwrap().status.unwrap_or_default();
        if status.error.is_some() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let said = before.refused(s, "a snapshot that is not ready", "PreflightRefused", &named("hangs")).await;
    for part in ["is in error", "is not ready", "its VolumeSnapshotContent is gone"] {
        assert!(said.contains(part), "all at once: {said}");
    }
    before.refused(s, "another snapshot of the claim is not ready", "PreflightRefused", &json!({})).await;
    api.delete("hangs", &DeleteParams::default()).await.unwrap();
    until("no snapshot hangs on it", 60, async || {
        let left = s.snapshots().await.len();
        if left == 2 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
}

/// Claims and volumes that could not be taken out of use.
async fn claims(s: &Scene, before: &Before) {
    let (claims, volumes) = (s.api::<PersistentVolumeClaim>(), Api::<PersistentVolume>::all(s.client.clone()));
    let volume = before.claims["a-web-0"].1.clone();
    let theirs = json!({ "metadata": { "finalizers": ["kubernetes.io/pvc-protection", "example.com/mine"] } });
    merge(&claims, "a-web-0", theirs).await;
    before.refused(s, "a claim with somebody's finalizer", "PreflightRefused", &json!({})).await;
    merge(&claims, "a-web-0", json!({ "metadata": { "finalizers": ["kubernetes.io/pvc-protection"] } })).await;
    let own = volumes.get(&volume).await.unwrap().metadata.finalizers.unwrap_or_default();
    let more: Vec<_> = own.iter().cloned().chain(["example.com/mine".into()]).collect();
    merge(&volumes, &volume, json!({ "metadata": { "finalizers": more } })).await;
    before.refused(s, "a volume with somebody's finalizer", "PreflightRefused", &json!({})).await;
    merge(&volumes, &volume, json!({ "metadata": { "finalizers": own } })).await;
    let resizing = json!([{ "type": "Resizing", "status": "True" }]);
    let status = |conditions: Value| Patch::Merge(json!({ "status": { "conditions": conditions } }));
    claims.patch_status("a-web-0", &PatchParams::default(), &status(resizing)).await.unwrap();
    before.refused(s, "a claim that is being resized", "PreflightRefused", &json!({})).await;
    claims.patch_status("a-web-0", &PatchParams::default(), &status(json!([]))).await.unwrap();
}

/// Pods in the way, and replicas that the run does not know.
async fn pods(s: &Scene, before: &Before) {
    before.refused(s, "scaleDown: false while pods run", "PreflightRefused", &json!({ "scaleDown": false })).await;
    let guest = json!({ "metadata": { "name": "guest" }, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{ "name": "app", "image": "localhost/app:1", "imagePullPolicy": "IfNotPresent", "args": ["/a"],
            "volumeMounts": [{ "name": "a", "mountPath": "/a" }] }],
        "volumes": [{ "name": "a", "persistentVolumeClaim": { "claimName": "a-web-0" } }],
    } });
    s.create::<Pod>(&serde_json::from_value(guest).unwrap()).await;
    before.refused(s, "a pod of somebody else on the claim", "PreflightRefused", &json!({})).await;
    s.api::<Pod>().delete("guest", &DeleteParams::default()).await.unwrap();
    until("the guest is gone", 60, async || {
        s.api::<Pod>().get_opt("guest").await.unwrap().map_or(Ok(()), |_| Err("still there".into()))
    })
    .await;
}

/// Quota, limits, nodes.
async fn room(s: &Scene, before: &Before) {
    let quota = json!({ "metadata": { "name": "storage" }, "spec": { "hard": { "requests.storage": "15Mi",
        "persistentvolumeclaims": "1" } } });
    s.create::<ResourceQuota>(&serde_json::from_value(quota).unwrap()).await;
    until("the quota is counted", 60, async || {
        let status = s.api::<ResourceQuota>().get("storage").await.unwrap().status.unwrap_or_default();
        let used = status.used.unwrap_or_default().contains_key("requests.storage");
        if used { Ok(()) } else { Err("not counted".into()) }
    })
    .await;
    let said = before.refused(s, "a quota with room for one set", "QuotaTooSmall", &json!({})).await;
    assert!(said.contains("requests.storage") && said.contains("persistentvolumeclaims"), "all at once: {said}");
    s.api::<ResourceQuota>().delete("storage", &DeleteParams::default()).await.unwrap();
    let limit = json!({ "metadata": { "name": "small" }, "spec": { "limits": [{ "type": "PersistentVolumeClaim",
        "max": { "storage": "1Mi" } }] } });
    s.create::<LimitRange>(&serde_json::from_value(limit).unwrap()).await;
    before.refused(s, "admission would refuse the claim", "Forbidden", &json!({})).await;
    s.api::<LimitRange>().delete("small", &DeleteParams::default()).await.unwrap();
}

/// An account that lacks the rights to delete claims, to scale, and to see which volumes are still attached.
async fn rights(s: &Scene, before: &Before) {
    let path = account(&s.client, &s.namespace, "weak").await;
    let mut role = whole();
    let name = format!("weak-{}", s.namespace);
    role["metadata"] = json!({ "name": name });
    for rule in role["rules"].as_array_mut().unwrap() {
        let resources = rule["resources"].to_string();
        if resources.contains("volumeattachments") {
            rule["verbs"].as_array_mut().unwrap().retain(|verb| *verb != "watch");
        }
        if resources.contains("persistentvolumeclaims") || resources.contains("statefulsets/scale") {
            let verbs = rule["verbs"].as_array_mut().unwrap();
            verbs.retain(|verb| *verb != "delete" && (*verb != "patch" || !resources.contains("scale")));
            if verbs.is_empty() {
                verbs.push("get".into());
            }
        }
    }
    let roles: Api<ClusterRole> = Api::all(s.client.clone());
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    let binding = json!({ "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": "weak", "namespace": s.namespace }] });
    let bindings: Api<ClusterRoleBinding> = Api::all(s.client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let request = before.next();
    s.request(&request, "web", &json!({})).await;
    let target = format!("{}/{request}", s.namespace);
    let ended = s.start_as(&path, &["run-once", "restore", &target]).ended().await;
    let said = before.end(s, "an account without the rights", "Forbidden", &request, ended).await;
    let missing = ["delete persistentvolumeclaims", "patch statefulsets/scale", "watch volumeattachments"];
    assert!(missing.iter().all(|right| said.contains(right)), "{said}");
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    roles.delete(&name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn classes_that_do_not_fit_are_refused() {
    scene("no-class", &[With::Healthy(SIM)], async |s| {
        let class = format!("{}-own", s.namespace);
        own_class(s, &class, SIM.name, &json!({})).await;
        let app = App { templates: &[("a", SIM.class)], ..ONE };
        let mut manifest = app.manifest();
        let templates = manifest.spec.volume_claim_templates.as_mut().unwrap();
        templates[0].spec.as_mut().unwrap().storage_class_name = Some(class.clone());
        s.app_of(&manifest).await;
        s.policy("nightly", "web", &json!({})).await;
        backed_up(s).await;
        let before = Before::of(s).await;
        let classes: Api<StorageClass> = Api::all(s.client.clone());
        classes.delete(&class, &DeleteParams::default()).await.unwrap();
        own_class(s, &class, SIM.name, &json!({ "csi.storage.k8s.io/provisioner-secret-name": "${pvc.name}" })).await;
        before.refused(s, "a parameter with the claim's name", "PreflightRefused", &json!({})).await;
        let said = before.said.take().replace(&class, "CLASS");
        assert_snapshot("restore-classes", &said.replace("NS-own", "CLASS"));
        // Gone, or of another driver: the snapshot's driver has other classes.
        s.paint("web", "good").await;
        s.backup("nightly", &[]).await.expect(0);
        for (name, other) in [("gone", None), ("other", Some(TWO.name))] {
            classes.delete(&class, &DeleteParams::default()).await.unwrap();
            if let Some(driver) = other {
                own_class(s, &class, driver, &json!({})).await;
            }
            s.paint("web", "bad").await;
            s.restore(name, "web", &json!({})).await.expect(0);
            s.all_say("web", "good").await;
            let warnings = s.restored(name).await.warnings;
            assert!(warnings.iter().any(|one| one.starts_with("ClassReplaced: ")), "{name}: {warnings:?}");
            let claim = s.api::<PersistentVolumeClaim>().get("a-web-0").await.unwrap();
            let under = claim.spec.and_then(|spec| spec.storage_class_name).unwrap();
            assert_eq!(classes.get(&under).await.unwrap().provisioner, SIM.name, "{name}: {under}");
            if other.is_none() {
                s.carry_out("undo", name).await.expect(0);
                s.all_say("web", "bad").await;
                own_class(s, &class, SIM.name, &json!({})).await;
            }
        }
        classes.delete(&class, &DeleteParams::default()).await.unwrap();
    })
    .await;
}

/// Without what the provisioner said last, after those words. It gives a call up after 10 s, and writes its events when
/// it finds time: whether that is before the restore's own end depends on the machine.
fn without_cause(said: &str, words: &str) -> String {
    let (head, rest) = said.rsplit_once(words).unwrap_or_else(|| panic!("{said}"));
    let (_, tail) = rest.split_once(". Nothing was stopped").unwrap_or_else(|| panic!("{said}"));
    format!("{head}{words}. Nothing was stopped{tail}")
}

async fn own_class(s: &Scene, name: &str, provisioner: &str, parameters: &Value) {
    let class = json!({ "metadata": { "name": name }, "provisioner": provisioner, "parameters": parameters });
    let classes: Api<StorageClass> = Api::all(s.client.clone());
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_staged_is_given_up_and_nothing_was_stopped() {
    scene("no-stage", &[With::Faulty(TWO, json!({}))], async |s| {
        let late = TWO.late();
        let app = App { templates: &[("a", TWO.class), ("b", &late)], ..ONE };
        s.app(&app).await;
        s.policy("nightly", "web", &json!({})).await;
        backed_up(s).await;
        let before = Before::of(s).await;
        let driver = &s.drivers()[0];
        driver.control(&json!({ "notRestorable": true }));
        let bound = json!({ "stageTimeoutSeconds": 30 });
        before.refused(s, "snapshots that cannot be restored", "StageTimeout", &bound).await;
        driver.control(&json!({ "cloneDelay": "30s" }));
        let soon = json!({ "stageTimeoutSeconds": 5 });
        before.refused(s, "a clone that takes longer than it may", "StageTimeout", &soon).await;
        before.said.replace_with(|said| without_cause(said, "(5 s)"));
        let nodes = Api::<Node>::all(s.client.clone()).list(&ListParams::default()).await.unwrap().items;
        driver.control(&json!({ "exhaustedOnNode": nodes[0].name_any() }));
        let full =
            before.refused(s, "no node has room", "StagingTopology", &json!({ "stageTimeoutSeconds": 120 })).await;
        assert!(full.contains(&nodes[0].name_any()), "{full}");
        before.said.replace_with(|said| without_cause(said, "spec.strategy: InPlace"));
        // Ordinals that run now and that the run lacks.
        driver.control(&json!({}));
        s.patch_app("web", &json!({ "spec": { "replicas": 2 } })).await;
        s.ready("web").await;
        let said = before.said.take().replace(&nodes[0].name_any(), "NODE");
        let grown = Before::of(s).await;
        grown.refused(s, "replicas that the run lacks", "PreflightRefused", &json!({})).await;
        s.patch_app("web", &json!({ "spec": { "replicas": 0 } })).await;
        until("it is at 0", 60, async || {
            let left = s.pods("web").await.len();
            if left == 0 { Ok(()) } else { Err(format!("{left}")) }
        })
        .await;
        s.api::<StatefulSet>().delete("web", &DeleteParams::default()).await.unwrap();
        assert_snapshot("restore-staging", &(said + &grown.said.take()));
    })
    .await;
}
