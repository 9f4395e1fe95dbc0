//! The admission policies on a real API server: nobody asks us for what he may not do himself, and while the fence
//! stands no pod of its StatefulSet starts, whoever writes. All sentences are in `snapshots/policies.snap` and, for each
//! role and change, in `snapshots/authority.snap`.

mod accounts;
mod byway;
mod ci;
mod controllers;
mod forged;
mod matrix;
mod roles;
mod stage;
mod timing;
mod trial;

use std::cell::RefCell;
use std::fmt::Write;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::label;
use sts_backup::api::restore::StatefulSetRestore;
use sts_backup::api::{BACKUP_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY, RESTORE_POLICY, annotation};

use crate::api::assert_snapshot;
use crate::harness::account::account;
use crate::harness::driver::SIM;
use crate::harness::make::{App, policy};
use crate::harness::{Scene, With, scene, until};

const ASLEEP: App = App { name: "web", replicas: 0, start: 0, templates: &[("a", SIM.class)] };

/// Group, resource, verb.
type Right = (&'static str, &'static str, &'static str);

/// A user with these rights in each of these namespaces.
async fn user(s: &Scene, name: &str, rights: &[(&str, &[Right])]) -> Client {
    let path = account(&s.client, &s.namespace, name).await;
    for (namespace, verbs) in rights {
        let granted: Vec<Value> = verbs
            .iter()
            .map(|(group, resource, verb)| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }))
            .collect();
        let role = json!({ "metadata": { "name": name }, "rules": granted });
        let binding = json!({ "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": s.namespace }] });
        let params = PostParams::default();
        let roles: Api<Role> = Api::namespaced(s.client.clone(), namespace);
        roles.create(&params, &serde_json::from_value(role).unwrap()).await.unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(s.client.clone(), namespace);
        bindings.create(&params, &serde_json::from_value(binding).unwrap()).await.unwrap();
    }
    let file = Kubeconfig::read_from(path).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

/// What a policy said no with; `None`: it was done. The rights of a new account take a moment to be known.
async fn denial<T>(what: &str, attempt: impl AsyncFn() -> kube::Result<T>) -> Option<String> {
    until(what, 30, async || match attempt().await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => {
            Ok(Some(status.message.clone()))
        }
        Err(error) => Err(error.to_string()),
    })
    .await
}

const DRY: fn() -> PostParams = || PostParams { dry_run: true, ..PostParams::default() };
const BACKUPS: Right = ("backup.sts-backup.io", "statefulsetbackups", "create");
const RESTORES: Right = ("backup.sts-backup.io", "statefulsetrestores", "create");
const SNAPSHOTS: Right = ("snapshot.storage.k8s.io", "volumesnapshots", "create");
const EXEC: Right = ("", "pods/exec", "create");
const CLAIMS: Right = ("", "persistentvolumeclaims", "delete");
const SCALE: Right = ("apps", "statefulsets/scale", "update");

#[tokio::test]
async fn nobody_asks_for_what_he_may_not_do_himself() {
    scene("author", &[], async |s| {
        let other = s.another_namespace("other", &[]).await;
        let (home, other) = (s.namespace.as_str(), other.as_str());
        let said = RefCell::new(String::new());
        let backups = async |case: &str, client: &Client, spec: &Value, allowed: bool| {
            let api: Api<StatefulSetBackup> = Api::namespaced(client.clone(), home);
            let object: StatefulSetBackup =
                serde_json::from_value(json!({ "apiVersion": "backup.sts-backup.io/v1alpha1",
                "kind": "StatefulSetBackup", "metadata": { "name": "b" }, "spec": spec }))
                .unwrap();
            let answer = denial(case, async || api.create(&DRY(), &object).await).await;
            tell(s, &said, case, answer, allowed);
        };
        let plain = json!({ "statefulSetRef": { "name": "web" } });
        let hooks = json!({ "statefulSetRef": { "name": "web" }, "preBackupHook": { "command": ["sync"] } });
        let there = json!({ "statefulSetRef": { "name": "web", "namespace": other } });
        let taken = json!({ "statefulSetRef": { "name": "web", "namespace": other }, "deletionPolicy": "Delete" });
        let author = user(s, "author", &[(home, &[BACKUPS])]).await;
        backups("a backup without the right to snapshots", &author, &plain, false).await;
        let snapper = user(s, "snapper", &[(home, &[BACKUPS, SNAPSHOTS]), (other, &[EXEC])]).await;
        backups("a backup without hooks", &snapper, &plain, true).await;
        backups("hooks without the right to exec, which he has elsewhere", &snapper, &hooks, false).await;
        backups("a StatefulSet where he has no right to snapshots", &snapper, &there, false).await;
        let full = user(s, "full", &[(home, &[BACKUPS, SNAPSHOTS, EXEC]), (other, &[SNAPSHOTS])]).await;
        backups("hooks with the right to exec", &full, &hooks, true).await;
        backups("a StatefulSet elsewhere", &full, &there, true).await;
        backups("snapshots owned from another namespace", &full, &taken, false).await;

        let restores = async |case: &str, client: &Client, allowed: bool| {
            let api: Api<StatefulSetRestore> = Api::namespaced(client.clone(), home);
            let object: StatefulSetRestore =
                serde_json::from_value(json!({ "apiVersion": "backup.sts-backup.io/v1alpha1",
                "kind": "StatefulSetRestore", "metadata": { "name": "r" },
                "spec": { "statefulSetRef": { "name": "web" }, "backupName": "b" } }))
                .unwrap();
            let answer = denial(case, async || api.create(&DRY(), &object).await).await;
            tell(s, &said, case, answer, allowed);
        };
        let weak = user(s, "weak", &[(home, &[RESTORES, SCALE])]).await;
        restores("a restore without the right to delete claims", &weak, false).await;
        let weaker = user(s, "weaker", &[(home, &[RESTORES, CLAIMS])]).await;
        restores("a restore without the right to scale", &weaker, false).await;
        let able = user(s, "able", &[(home, &[RESTORES, CLAIMS, SCALE])]).await;
        restores("a restore with both", &able, true).await;
        assert_snapshot("policies", &said.take());
    })
    .await;
}

#[track_caller]
fn tell(s: &Scene, said: &RefCell<String>, case: &str, answer: Option<String>, allowed: bool) {
    assert_eq!(answer.is_none(), allowed, "{case}: {answer:?}");
    let sentence = answer.map_or("allowed".into(), |answer| answer.replace(&s.namespace, "NS"));
    let sentence = sentence.split_once("denied request: ").map_or(sentence.clone(), |(_, said)| said.to_owned());
    writeln!(said.borrow_mut(), "{case}\n    {sentence}").unwrap();
}

/// The lock of `web` with the fence up for this user, as a restore sets it.
fn fenced(user: &str) -> Lease {
    let open =
        json!({ "kind": "StatefulSetRestore", "namespace": "shop", "name": "back", "uid": "u", "run": "", "pods": [] });
    serde_json::from_value(json!({
        "metadata": { "name": "sts-backup-web", "labels": { label::FENCE: label::FENCE_VALUE },
            "annotations": { annotation::FENCE_USER: user, annotation::OPEN: open.to_string() } },
        "spec": { "holderIdentity": "restore" },
    }))
    .unwrap()
}

#[tokio::test]
async fn behind_the_fence_no_writer_starts_a_pod_and_the_statefulset_survives() {
    scene("fence", &[With::Healthy(SIM)], async |s| {
        let sets = s.api::<StatefulSet>();
        let manifest = ASLEEP.manifest();
        let born = s.create(&manifest).await.uid();
        let other = s.create(&App { name: "other", ..ASLEEP }.manifest()).await;
        let rights: &[Right] = &[("apps", "statefulsets/scale", "patch"), ("apps", "statefulsets", "delete")];
        let runner = user(s, "runner", &[(&s.namespace, rights)]).await;
        s.create(&fenced(&format!("system:serviceaccount:{}:runner", s.namespace))).await;
        let two = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let theirs: Api<StatefulSet> = Api::namespaced(runner.clone(), &s.namespace);
        until("the fence to stand for the runner's own dry run", 30, async || {
            let answer = denial("a dry run", async || theirs.patch_scale("web", &dry, &two).await).await;
            answer.map(drop).ok_or_else(|| "it passes".into())
        })
        .await;

        writers(s, &manifest).await;
        let web = sets.get("web").await.unwrap();
        assert_eq!((web.uid(), web.spec.replicas), (born, Some(0)), "the StatefulSet survives, asleep");
        assert!(s.pods("web").await.is_empty());
        let zero = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "replicas": 0 } }));
        sets.patch("web", &PatchParams::default(), &zero).await.expect("what keeps it asleep passes");
        let beside = Patch::Merge(json!({ "spec": { "replicas": 0 }, "metadata": { "labels": { "a": "b" } } }));
        sets.patch(&other.name_any(), &PatchParams::default(), &beside).await.expect("others are not fenced");
        sets.delete("other", &DeleteParams::default()).await.expect("others are not fenced");

        locked(s).await;
        theirs.patch_scale("web", &PatchParams::default(), &two).await.expect("the runner itself passes");
        s.ready("web").await;
    })
    .await;
}

/// Everybody at once, as fast as they can, for as many rounds as a restore has steps.
async fn writers(s: &Scene, manifest: &StatefulSet) {
    let sets = s.api::<StatefulSet>();
    let writer = |replicas| {
        let mut object = manifest.clone();
        object.spec.replicas = Some(replicas);
        object
    };
    let apply = PatchParams::apply("somebody").force();
    let typed = |object: &StatefulSet| {
        let mut value = serde_json::to_value(object).unwrap();
        (value["apiVersion"], value["kind"]) = ("apps/v1".into(), "StatefulSet".into());
        value
    };
    let gone = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "dead" }]);
    let owned = Patch::Merge(json!({ "metadata": { "ownerReferences": gone } }));
    let mut said = vec![];
    for _ in 0..20 {
        let one = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
        said.push(denial("scale", async || sets.patch_scale("web", &PatchParams::default(), &one).await).await);
        let object = typed(&writer(3));
        said.push(denial("apply", async || sets.patch("web", &apply, &Patch::Apply(&object)).await).await);
        said.push(denial("delete", async || sets.delete("web", &DeleteParams::default()).await).await);
        let ours = ListParams::default().fields("metadata.name=web");
        said.push(denial("delete all", async || sets.delete_collection(&DeleteParams::default(), &ours).await).await);
        said.push(denial("patch", async || sets.patch("web", &PatchParams::default(), &one).await).await);
        said.push(denial("owner", async || sets.patch("web", &PatchParams::default(), &owned).await).await);
    }
    let expected = format!(
        "StatefulSet {}/web is kept at 0 replicas by StatefulSetRestore shop/back while its volumes are swapped; if that \
         restore is Held or gone: sts-backup doctor --lift-fence {}/web",
        s.namespace, s.namespace
    );
    for answer in said {
        let answer = answer.expect("a write passed the fence");
        assert!(answer.ends_with(&expected), "{answer}");
    }
}

/// The Lease that is the fence: an editor of the namespace neither lowers it nor takes it away.
async fn locked(s: &Scene) {
    let rights: &[Right] = &[
        ("coordination.k8s.io", "leases", "patch"),
        ("coordination.k8s.io", "leases", "delete"),
        ("coordination.k8s.io", "leases", "create"),
        ("coordination.k8s.io", "leases", "deletecollection"),
    ];
    let editor = user(s, "editor", &[(&s.namespace, rights)]).await;
    let leases: Api<Lease> = Api::namespaced(editor, &s.namespace);
    let lower = Patch::Merge(json!({ "metadata": { "labels": { label::FENCE: null } } }));
    let take_over = Patch::Merge(json!({ "metadata": { "annotations": { annotation::FENCE_USER: "me" } } }));
    let label = Patch::Merge(json!({ "metadata": { "labels": { "team": "a" } } }));
    let mut second = fenced("me");
    second.metadata.name = Some("sts-backup-other".into());
    let params = PatchParams::default();
    for (what, answer) in [
        ("lower", denial("lower", async || leases.patch("sts-backup-web", &params, &lower).await).await),
        ("user", denial("user", async || leases.patch("sts-backup-web", &params, &take_over).await).await),
        ("create", denial("create", async || leases.create(&PostParams::default(), &second).await).await),
        ("delete", denial("delete", async || leases.delete("sts-backup-web", &DeleteParams::default()).await).await),
    ] {
        assert!(answer.is_some(), "{what} passed");
    }
    leases.patch("sts-backup-web", &params, &label).await.expect("what leaves the lock alone passes");
    let all = leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    let said = all.map(drop).unwrap_err().to_string();
    assert!(said.contains("denied request: deleting Lease"), "{said}");
    assert!(s.api::<Lease>().get("sts-backup-web").await.is_ok(), "deleted among all");
}

/// The API server has checked the types of all expressions of the policy, and complains of none.
pub async fn well_typed(client: &Client, name: &str) {
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let checked = until(&format!("{name} to be checked"), 60, async || {
        let policy = api.get(name).await.unwrap();
        let status = policy.status.unwrap_or_default();
        let done = status.observed_generation == policy.metadata.generation && status.type_checking.is_some();
        if done { Ok(status.type_checking) } else { Err(format!("{status:?}")) }
    })
    .await;
    let warnings = checked.and_then(|checked| checked.expression_warnings).unwrap_or_default();
    assert!(warnings.is_empty(), "{name}: {warnings:?}");
}

#[tokio::test]
async fn every_policy_is_well_typed() {
    scene("typed", &[], async |s| {
        for name in [BACKUP_POLICY, RESTORE_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY] {
            well_typed(&s.client, name).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_goes_with_its_fences() {
    scene("going", &[With::Healthy(SIM)], async |s| {
        let going = s.another_namespace("gone", &[]).await;
        let sets: Api<StatefulSet> = Api::namespaced(s.client.clone(), &going);
        sets.create(&PostParams::default(), &ASLEEP.manifest()).await.unwrap();
        let leases: Api<Lease> = Api::namespaced(s.client.clone(), &going);
        leases.create(&PostParams::default(), &fenced("nobody")).await.unwrap();
        let mut recorded = fenced("nobody");
        recorded.metadata.name = Some("sts-backup-other".into());
        recorded.annotations_mut().insert("backup.sts-backup.io/runs".into(), "a record".into());
        leases.create(&PostParams::default(), &recorded).await.unwrap();
        let owning = policy("owning", "web", &json!({ "deletionPolicy": "Delete" }));
        let backups: Api<StatefulSetBackup> = Api::namespaced(s.client.clone(), &going);
        backups.create(&PostParams::default(), &owning).await.unwrap();
        let all: Api<Namespace> = Api::all(s.client.clone());
        all.delete(&going, &DeleteParams::default()).await.unwrap();
        until("the end of the namespace", 120, async || match all.get_opt(&going).await.unwrap() {
            None => Ok(()),
            Some(left) => Err(format!("{:?}", left.status)),
        })
        .await;
    })
    .await;
}
