//! The chart, by the real helm.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sts_backup::generate;

use crate::harness::install::{CHART, helm, run_helm, try_helm};

type Objects = BTreeMap<(String, String, String), Value>;

/// Objects by kind, namespace and name, without what only helm says of them.
fn objects(text: &str) -> Objects {
    let parsed = text.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap_or_default());
    let objects = parsed.filter(Value::is_object);
    objects.map(|object| (key(&object), bare(object))).collect()
}

fn key(object: &Value) -> (String, String, String) {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &object["metadata"];
    (word(&object["kind"]), word(&meta["namespace"]), word(&meta["name"]))
}

fn bare(mut object: Value) -> Value {
    let of_helm =
        ["helm.sh/chart", "helm.sh/resource-policy", "app.kubernetes.io/instance", "app.kubernetes.io/version"];
    let places =
        ["/metadata/labels", "/metadata/annotations", "/spec/selector/matchLabels", "/spec/template/metadata/labels"];
    for place in places {
        if let Some(words) = object.pointer_mut(place).and_then(Value::as_object_mut) {
            words.retain(|key, value| !of_helm.contains(&key.as_str()) && value != "Helm");
        }
    }
    let meta = object["metadata"].as_object_mut().unwrap();
    meta.retain(|_, value| *value != json!({}));
    object
}

#[tokio::test]
async fn the_chart_makes_what_install_generates() {
    let Some(helm) = helm() else { return };
    let arguments = ["template", "sts-backup", CHART, "--namespace", generate::install::NAMESPACE];
    let chart = objects(&run_helm(&helm, &arguments).await);
    let generated = objects(&generate::install(generate::install::NAMESPACE, generate::install::IMAGE));
    // helm makes the namespace itself, with --create-namespace.
    let generated: Objects = generated.into_iter().filter(|((kind, ..), _)| kind != "Namespace").collect();
    assert_eq!(chart.keys().collect::<Vec<_>>(), generated.keys().collect::<Vec<_>>());
    for (key, object) in &generated {
        assert_eq!(&chart[key], object, "{key:?}");
    }
}

#[tokio::test]
async fn values_are_rendered_or_refused() {
    let Some(helm) = helm() else { return };
    let template = ["template", "x", CHART, "--namespace", "ops"];
    let set = |values: &[&'static str]| -> Vec<&str> {
        template.into_iter().chain(values.iter().flat_map(|value| ["--set", *value])).collect()
    };
    let all = run_helm(
        &helm,
        &set(&[
            "watchNamespaces={a,b}",
            "metrics.enabled=false",
            "health.port=9000",
            "imagePullSecrets[0].name=one",
            "imagePullSecrets[1].name=two",
            "runner.tolerations[0].key=spot",
            "runner.podLabels.team=db",
            "policies.allowWithout=true",
            "crds.install=false",
            "policies.install=false",
            "policies.accounts=false",
        ]),
    )
    .await;
    let all = objects(&all);
    let watcher = &all[&("Deployment".into(), "ops".into(), "x-sts-backup".into())]["spec"]["template"]["spec"];
    let container = &watcher["containers"][0];
    let env: BTreeMap<_, _> =
        container["env"].as_array().unwrap().iter().map(|one| (one["name"].as_str().unwrap(), &one["value"])).collect();
    assert_eq!(env["SSB_WATCH_NAMESPACES"], "a,b");
    assert_eq!(env["SSB_METRICS_ADDRESS"], "off");
    assert_eq!(env["SSB_HEALTH_ADDRESS"], "0.0.0.0:9000");
    assert_eq!(env["SSB_IMAGE_PULL_SECRETS"], "one,two");
    assert_eq!(env["SSB_RUNNER_TOLERATIONS"], r#"[{"key":"spot"}]"#);
    assert_eq!(env["SSB_RUNNER_POD_LABELS"], r#"{"team":"db"}"#);
    assert_eq!(env["SSB_ALLOW_WITHOUT_POLICY"], "true");
    assert_eq!(container["ports"], json!([{ "name": "health", "containerPort": 9000 }]));
    // Rights on what lies in a namespace are given in these only.
    let kinds = |kind: &str| all.keys().filter(|key| key.0 == kind).map(|key| key.1.as_str()).collect::<Vec<_>>();
    assert_eq!(kinds("RoleBinding"), ["a", "a", "b", "b", "ops"]);
    let wide: Vec<_> = all.keys().filter(|key| key.0 == "ClusterRoleBinding").map(|key| key.2.as_str()).collect();
    let named = ["runner-cluster", "runner-leave", "watcher-leave"].map(|role| format!("x-sts-backup-{role}"));
    assert_eq!(wide, named, "what belongs to no namespace, and what lets an object go");
    let [runner, watcher] = generate::rbac::leave();
    for (name, role) in [("runner-leave", runner), ("watcher-leave", watcher)] {
        let made = &all[&("ClusterRole".into(), String::new(), format!("x-sts-backup-{name}"))];
        assert_eq!(made["rules"], serde_json::to_value(&role.rules).unwrap(), "{name}");
    }
    assert_eq!(kinds("CustomResourceDefinition").len() + kinds("ValidatingAdmissionPolicy").len(), 0);

    for (value, words) in [
        ("serviceAccount.create=false", "serviceAccount.name: name an account"),
        ("runner.serviceAccount.create=false", "runner.serviceAccount.name: name an account"),
        ("maxConcurrentRuns=0", "maxConcurrentRuns"),
        ("maxConcurrentRestores=0", "maxConcurrentRestores"),
        ("policies.actions={Deny,Warn}", "actions"),
        ("policies.actions={Refuse}", "actions"),
        ("replicas=2", "replicas"),
        ("metrics.port=http", "port"),
    ] {
        let refused = try_helm(&helm, &set(&[value])).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(words), "{value}: {said}");
    }
}

/// A trial of the policies, and what the users of a namespace are given beside.
#[tokio::test]
async fn policies_can_be_tried_and_snapshots_be_given_to_the_editors() {
    let Some(helm) = helm() else { return };
    let template = ["template", "x", CHART, "--namespace", "ops", "--set", "policies.actions={Warn,Audit}"];
    let more = ["--set", "rbac.aggregateSnapshots=true", "--set", "image.repository=ours", "--set", "image.tag=one"];
    let all = objects(&run_helm(&helm, &[&template[..], &more[..]].concat()).await);
    let bindings: Vec<_> = all.iter().filter(|(key, _)| key.0 == "ValidatingAdmissionPolicyBinding").collect();
    assert_eq!(bindings.len(), 7);
    for (key, binding) in bindings {
        assert_eq!(binding["spec"]["validationActions"], json!(["Warn", "Audit"]), "{key:?}");
        assert!(all.contains_key(&("ValidatingAdmissionPolicy".into(), String::new(), key.2.clone())), "{key:?}");
    }
    let of = |kind: &str, name: &str| all[&(kind.to_owned(), String::new(), name.to_owned())].clone();
    let jobs = of("ValidatingAdmissionPolicy", "x-sts-backup.jobs.backup.sts-backup.io").to_string();
    for words in ["'x-sts-backup-runner'", "system:serviceaccount:ops:x-sts-backup'", "'ours:one'"] {
        assert!(jobs.contains(words), "{words} is not in {jobs}");
    }
    let role = |name: &str| of("ClusterRole", &format!("x-sts-backup-snapshots-{name}"));
    let labels = |name: &str| role(name)["metadata"]["labels"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let to = |role: &str| format!("rbac.authorization.k8s.io/aggregate-to-{role}");
    assert_eq!(labels("view")[1..], [to("admin"), to("edit"), to("view")]);
    assert_eq!(labels("edit")[1..], [to("admin"), to("edit")]);
    assert_eq!(role("edit")["rules"][0]["verbs"], json!(["create", "delete"]));
    let plain = objects(&run_helm(&helm, &["template", "x", CHART]).await);
    assert!(!plain.keys().any(|key| key.2.contains("snapshots")), "nobody is given anything unless it is asked for");
}
