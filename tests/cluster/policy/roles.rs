//! The authors of the matrix: what each of them may do.

use std::path::Path;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use sts_backup::generate::rbac;

use crate::harness::account::account;
use crate::harness::{Scene, until};

/// Group, resource, verb.
pub type Right = (&'static str, &'static str, &'static str);

pub struct Role {
    pub name: &'static str,
    /// What it may do, for the reader.
    pub has: String,
    pub user: String,
    pub client: Client,
}

pub const SNAPSHOTS: Right = ("snapshot.storage.k8s.io", "volumesnapshots", "create");
pub const DROP: Right = ("snapshot.storage.k8s.io", "volumesnapshots", "delete");
pub const PURGE: Right = ("snapshot.storage.k8s.io", "volumesnapshotcontents", "patch");
pub const EXEC: Right = ("", "pods/exec", "create");
pub const CLAIMS: Right = ("", "persistentvolumeclaims", "delete");
pub const SCALE: Right = ("apps", "statefulsets/scale", "update");
pub const BACKUPS: Right = ("backup.sts-backup.io", "statefulsetbackups/status", "patch");
/// What comes with a wildcard, the status among it.
pub const OURS: Right = ("backup.sts-backup.io", "*", "*");
pub const RESTORES: Right = ("backup.sts-backup.io", "statefulsetrestores/status", "patch");

/// What nearly all of them may do: the requests of the matrix, and no more.
const WRITER: &[Right] = &[
    ("backup.sts-backup.io", "statefulsetbackups", "create"),
    ("backup.sts-backup.io", "statefulsetbackups", "patch"),
    ("backup.sts-backup.io", "statefulsetbackups", "get"),
    ("backup.sts-backup.io", "statefulsetrestores", "create"),
    ("backup.sts-backup.io", "statefulsetrestores", "patch"),
    ("backup.sts-backup.io", "statefulsetrestores", "get"),
    ("backup.sts-backup.io", "statefulsetrestores", "delete"),
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "patch"),
    ("coordination.k8s.io", "leases", "delete"),
    ("snapshot.storage.k8s.io", "volumesnapshots", "patch"),
    ("", "persistentvolumeclaims", "create"),
    ("", "persistentvolumeclaims", "patch"),
    ("snapshot.storage.k8s.io", "volumesnapshots/status", "patch"),
    ("", "persistentvolumeclaims/status", "patch"),
    ("", "pods", "create"),
    ("", "pods", "patch"),
    ("", "pods/status", "patch"),
    ("", "bindings", "create"),
    ("apps", "statefulsets", "patch"),
    ("apps", "statefulsets/status", "patch"),
];
/// A right of somebody who does nothing else.
const IDLE: Right = ("", "persistentvolumes/status", "patch");
const VOLUMES: Right = ("", "persistentvolumes", "patch");
const DELETE: Right = ("backup.sts-backup.io", "statefulsetbackups", "delete");

/// Beside what every writer may do.
const AUTHORS: &[(&str, &[Right], &[Right])] = &[
    ("writer", &[], &[]),
    ("deleter", &[DELETE], &[]),
    ("snapper", &[SNAPSHOTS, DELETE], &[]),
    ("hooker", &[SNAPSHOTS, EXEC, DELETE], &[]),
    ("pruner", &[SNAPSHOTS, DROP, DELETE], &[]),
    ("purger", &[SNAPSHOTS, DROP, PURGE, DELETE], &[]),
    ("owner", &[SNAPSHOTS, DROP, EXEC, CLAIMS, SCALE, DELETE], &[]),
    ("claimer", &[CLAIMS, DELETE], &[]),
    ("scaler", &[SCALE, DELETE], &[]),
    ("restorer", &[CLAIMS, SCALE, DELETE], &[]),
    ("elsewhere", &[DELETE], &[SNAPSHOTS, DROP, EXEC, CLAIMS, SCALE, BACKUPS, RESTORES]),
    ("both", &[SNAPSHOTS, EXEC, CLAIMS, SCALE, DELETE], &[SNAPSHOTS, CLAIMS, SCALE]),
    ("backup-status", &[BACKUPS, DELETE], &[]),
    ("restore-status", &[RESTORES, DELETE], &[]),
    ("wildcard", &[OURS], &[]),
    ("two-wildcards", &[OURS], &[OURS]),
    ("dropper", &[OURS, SNAPSHOTS, DROP], &[]),
    ("replacer", &[OURS, CLAIMS, SCALE], &[]),
    ("operator", &[OURS, SNAPSHOTS, DROP, EXEC, CLAIMS, SCALE], &[]),
    ("operator-of-both", &[OURS, SNAPSHOTS, DROP, EXEC, CLAIMS, SCALE], &[OURS, SNAPSHOTS, DROP, EXEC, CLAIMS, SCALE]),
];

fn rules(rights: &[Right]) -> Value {
    let rule =
        |(group, resource, verb): &Right| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] });
    rights.iter().map(rule).collect()
}

/// What is made for a namespace goes with it.
async fn owner(s: &Scene) -> Value {
    let namespace = Api::<Namespace>::all(s.client.clone()).get(&s.namespace).await.unwrap();
    json!([{ "apiVersion": "v1", "kind": "Namespace", "name": s.namespace, "uid": namespace.uid() }])
}

/// A ClusterRole of these rules, bound to a user: in these namespaces, or (none) everywhere.
pub async fn grant(s: &Scene, name: &str, user: &str, rules: &Value, namespaces: &[&str]) {
    let (name, owner) = (format!("{}-{name}", s.namespace), owner(s).await);
    let meta = json!({ "name": name, "ownerReferences": owner });
    let apply = PatchParams::apply("sts-backup/tests").force();
    let api = "rbac.authorization.k8s.io/v1";
    let role = json!({ "apiVersion": api, "kind": "ClusterRole", "metadata": meta, "rules": rules });
    Api::<ClusterRole>::all(s.client.clone()).patch(&name, &apply, &Patch::Apply(role)).await.unwrap();
    bind(s, &name, user, &name, namespaces).await;
}

async fn bind(s: &Scene, name: &str, user: &str, role: &str, namespaces: &[&str]) {
    let apply = PatchParams::apply("sts-backup/tests").force();
    let api = "rbac.authorization.k8s.io/v1";
    let mut binding = json!({ "apiVersion": api, "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }] });
    for namespace in namespaces {
        binding["kind"] = "RoleBinding".into();
        let bindings: Api<RoleBinding> = Api::namespaced(s.client.clone(), namespace);
        bindings.patch(name, &apply, &Patch::Apply(&binding)).await.unwrap();
    }
    if namespaces.is_empty() {
        (binding["kind"], binding["metadata"]["ownerReferences"]) = ("ClusterRoleBinding".into(), owner(s).await);
        let bindings: Api<ClusterRoleBinding> = Api::all(s.client.clone());
        bindings.patch(name, &apply, &Patch::Apply(&binding)).await.unwrap();
    }
}

/// A right that was granted takes a moment to be known.
pub async fn known(s: &Scene, user: &str, (group, resource, verb): Right, namespace: Option<&str>) {
    let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let ask = json!({ "group": group, "resource": resource, "subresource": sub, "verb": verb, "namespace": namespace });
    let groups = ["system:serviceaccounts", "system:authenticated"];
    let review = json!({ "spec": { "user": user, "groups": groups, "resourceAttributes": ask } });
    let review: SubjectAccessReview = serde_json::from_value(review).unwrap();
    let api: Api<SubjectAccessReview> = Api::all(s.client.clone());
    until(&format!("{user} to have {verb} {resource}"), 30, async || {
        let status = api.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
        status.allowed.then_some(()).ok_or_else(|| format!("{status:?}"))
    })
    .await;
}

async fn login(path: &Path) -> Client {
    let file = Kubeconfig::read_from(path).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

/// As the administrator, in the name of somebody else.
pub async fn in_the_name_of(user: &str) -> Client {
    let mut file = Kubeconfig::read_from(crate::harness::kubeconfig().unwrap()).unwrap();
    file.auth_infos[0].auth_info.as_mut().unwrap().impersonate = Some(user.to_owned());
    Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

fn say(rights: &[Right]) -> String {
    let say = |right: &Right| match *right {
        OURS => "everything on our kinds".to_owned(),
        (_, resource, verb) => format!("{verb} {resource}"),
    };
    if rights.is_empty() { "nothing more".into() } else { rights.iter().map(say).collect::<Vec<_>>().join(", ") }
}

/// The roles of `docs/ci.md`, as they stand there.
pub fn of_the_docs(kind: &str) -> Value {
    let text = include_str!("../../../docs/ci.md");
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let objects = blocks.flat_map(|block| block.split("---\n")).filter_map(|text| serde_saphyr::from_str(text).ok());
    let found: Vec<Value> = objects.filter(|object: &Value| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind} in docs/ci.md");
    found[0]["rules"].clone()
}

/// All of them, each with a login of its own, and their rights known to the API server.
pub async fn roles(s: &Scene, other: &str) -> Vec<Role> {
    let mut all = vec![];
    for (name, here, there) in AUTHORS {
        let user = format!("system:serviceaccount:{}:{name}", s.namespace);
        let path = account(&s.client, &s.namespace, name).await;
        let home: Vec<Right> = WRITER.iter().chain(*here).copied().filter(|right| *right != PURGE).collect();
        let wide: Vec<Right> = here.iter().copied().filter(|right| *right == PURGE).chain([VOLUMES, IDLE]).collect();
        grant(s, &format!("{name}-home"), &user, &rules(&home), &[&s.namespace]).await;
        grant(s, &format!("{name}-wide"), &user, &rules(&wide), &[]).await;
        if !there.is_empty() {
            grant(s, &format!("{name}-there"), &user, &rules(there), &[other]).await;
        }
        for right in home {
            known(s, &user, right, Some(&s.namespace)).await;
        }
        for right in *there {
            known(s, &user, *right, Some(other)).await;
        }
        for right in wide {
            known(s, &user, right, None).await;
        }
        let here: Vec<Right> = here.iter().copied().filter(|right| *right != DELETE).collect();
        let there = if there.is_empty() { String::new() } else { format!("; in OTHER: {}", say(there)) };
        let client = login(&path).await;
        all.push(Role { name, has: format!("a writer with {}{there}", say(&here)), user, client });
    }
    all.extend(installed(s, other).await);
    all.extend(others(s).await);
    all
}

/// The accounts of an installation, with the roles that it binds to them.
async fn installed(s: &Scene, other: &str) -> Vec<Role> {
    let [home, wide] = rbac::runner();
    let mut all = vec![];
    for (name, has, home, wide) in [
        ("runner", "the account of the Jobs", Some(home), wide),
        ("watcher", "the account of the watcher", None, rbac::watcher()),
    ] {
        let user = format!("system:serviceaccount:{}:{name}", s.namespace);
        let path = account(&s.client, &s.namespace, name).await;
        if let Some(home) = home {
            grant(s, &format!("{name}-home"), &user, &json!(home.rules), &[&s.namespace, other]).await;
            known(s, &user, SNAPSHOTS, Some(other)).await;
        }
        grant(s, &format!("{name}-wide"), &user, &json!(wide.rules), &[]).await;
        known(s, &user, RESTORES, Some(&s.namespace)).await;
        all.push(Role { name, has: has.into(), user, client: login(&path).await });
    }
    all
}

/// The pipeline of `docs/ci.md`, an editor of the namespace, and those who pass by their names.
async fn others(s: &Scene) -> Vec<Role> {
    let mut all = vec![];
    let user = format!("system:serviceaccount:{}:ci", s.namespace);
    let path = account(&s.client, &s.namespace, "ci").await;
    grant(s, "ci", &user, &of_the_docs("Role"), &[&s.namespace]).await;
    grant(s, "ci-wide", &user, &of_the_docs("ClusterRole"), &[]).await;
    known(s, &user, ("", "persistentvolumes", "get"), None).await;
    known(s, &user, SNAPSHOTS, Some(&s.namespace)).await;
    all.push(Role { name: "ci", has: "the account of docs/ci.md".into(), user, client: login(&path).await });

    let user = format!("system:serviceaccount:{}:editor", s.namespace);
    let path = account(&s.client, &s.namespace, "editor").await;
    bind(s, "editor", &user, "edit", &[&s.namespace]).await;
    let ours = json!([{ "apiGroups": ["backup.sts-backup.io"], "resources": ["statefulsetbackups", "statefulsetrestores"],
        "verbs": ["create", "delete", "deletecollection", "patch", "update", "get", "list", "watch"] }]);
    grant(s, "editor-ours", &user, &ours, &[&s.namespace]).await;
    known(s, &user, EXEC, Some(&s.namespace)).await;
    known(s, &user, ("backup.sts-backup.io", "statefulsetbackups", "patch"), Some(&s.namespace)).await;
    let has = "Kubernetes' own role edit, with ours".into();
    all.push(Role { name: "editor", has, user, client: login(&path).await });

    for (name, user) in [
        ("collector", "system:serviceaccount:kube-system:generic-garbage-collector"),
        ("namespaces", "system:serviceaccount:kube-system:namespace-controller"),
        ("controllers", "system:kube-controller-manager"),
    ] {
        let rights: Vec<Right> = WRITER.iter().copied().chain([DELETE]).collect();
        grant(s, name, user, &rules(&rights), &[&s.namespace]).await;
        known(s, user, DELETE, Some(&s.namespace)).await;
        known(s, user, ("", "pods", "create"), Some(&s.namespace)).await;
        let client = in_the_name_of(user).await;
        all.push(Role { name, has: format!("a writer as {user}"), user: user.into(), client });
    }
    all
}
