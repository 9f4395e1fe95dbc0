//! Accounts: a ServiceAccount that may do exactly what the product's steps, reads and feeds declare, so that every
//! test also proves the declarations; and one that may do nothing.

use std::path::{Path, PathBuf};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sts_backup::generate::rbac;

/// The ServiceAccount and the ClusterRole of the product in tests.
pub const RUNNER: &str = "sts-backup-tests";

/// The product's account in a namespace, with its rights in the whole cluster; a kubeconfig that uses it.
pub async fn runner(client: &Client, namespace: &str) -> PathBuf {
    let path = account(client, namespace, RUNNER).await;
    let params = PatchParams::apply("sts-backup/tests").force();
    let roles: Api<ClusterRole> = Api::all(client.clone());
    roles.patch(RUNNER, &params, &Patch::Apply(role())).await.unwrap();
    // It is the namespace's: it goes when the namespace goes.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let owner = namespaces.get(namespace).await.unwrap();
    let name = format!("{RUNNER}-{namespace}");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name, "ownerReferences": [
            { "apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": owner.uid() },
        ] },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": RUNNER },
        "subjects": [{ "kind": "ServiceAccount", "name": RUNNER, "namespace": namespace }],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.patch(&name, &params, &Patch::Apply(binding)).await.unwrap();
    path
}

/// What `sts-backup generate rbac` grants, under a name of the tests' own.
fn role() -> Value {
    let mut role = whole();
    role["metadata"]["name"] = RUNNER.into();
    role
}

/// The runner's rights, in namespaces and out of them, as one role.
pub fn whole() -> Value {
    let [mut role, cluster] = rbac::runner();
    for more in [cluster, rbac::purge()] {
        role.rules.get_or_insert_default().extend(more.rules.unwrap_or_default());
    }
    json!(role)
}

/// A ServiceAccount without any right, and a kubeconfig that uses it.
pub async fn account(client: &Client, namespace: &str, name: &str) -> PathBuf {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let object = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    token(client, namespace, name).await
}

/// A kubeconfig that uses a ServiceAccount which is there.
pub async fn token(client: &Client, namespace: &str, name: &str) -> PathBuf {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(7200), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    let reply = api.create_token_request(name, &PostParams::default(), &request).await.unwrap();
    write_kubeconfig(&format!("{namespace}-{name}"), |config| {
        config["users"] = json!([{ "name": name, "user": { "token": reply.status.unwrap().token } }]);
        config["contexts"][0]["context"]["user"] = name.into();
        config["current-context"] = config["contexts"][0]["name"].clone();
    })
}

/// The kubeconfig of the cluster under test, changed, as a file of its own. Its first context must be the one in use.
pub fn write_kubeconfig(name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    copy_kubeconfig(&super::kubeconfig().unwrap(), name, change)
}

/// The same of another one.
pub fn copy_kubeconfig(path: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    change(&mut config);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.kubeconfig"));
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// What the product's account changed in the cluster, as the API server's own audit log has it: `verb kind/ns/name`.
/// None where that log is not to be had.
pub fn mutations(scene: &super::Scene) -> Option<Vec<String>> {
    let log = PathBuf::from(std::env::var_os("SSB_CLUSTER_DIR")?).join("log/audit.log");
    let text = std::fs::read_to_string(log).ok()?;
    let user = format!("system:serviceaccount:{}:{RUNNER}", scene.namespace);
    let ours = text.lines().filter(|line| line.contains(&user));
    let request = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (verb, object) = (text(&line["verb"]), &line["objectRef"]);
        let mutating = ["create", "update", "patch", "delete", "deletecollection"].contains(&verb.as_str());
        let kind = text(&object["resource"]).trim_end_matches('s').to_owned();
        let (namespace, name) = (text(&object["namespace"]), text(&object["name"]));
        (mutating && line["user"]["username"] == user.as_str()).then(|| format!("{verb} {kind}/{namespace}/{name}"))
    };
    Some(ours.filter_map(request).collect())
}
