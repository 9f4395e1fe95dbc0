use serde_json::{Value, json};

use super::*;
use crate::cli::doctor::authors::{self, Author, Authority, Who};
use crate::cli::doctor::needs::Kind;

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn backup(change: impl FnOnce(&mut Value)) -> StatefulSetBackup {
    let mut object = json!({
        "apiVersion": "backup.sts-backup.io/v1alpha1", "kind": "StatefulSetBackup",
        "metadata": { "name": "nightly", "namespace": "shop" },
        "spec": { "statefulSetRef": { "name": "pg" }, "schedule": "0 2 * * *" },
    });
    change(&mut object);
    read(object)
}

fn rights(object: &StatefulSetBackup) -> Vec<(String, Option<String>)> {
    let text = |need: Need| (format!("{} {}", need.right.2, need.right.1), need.place);
    needs::of_backup(object).into_iter().map(text).collect()
}

#[test]
fn an_object_asks_for_the_rights_of_the_author_policy() {
    let shop = || Some("shop".to_owned());
    let plain = vec![("create volumesnapshots".to_owned(), shop())];
    assert_eq!(rights(&backup(|_| {})), plain);
    let all = backup(|object| {
        object["spec"]["postBackupHook"] = json!({ "command": ["sync"] });
        object["spec"]["retentionPolicy"] = json!({ "keepLast": 3, "purgeRetained": true });
        object["spec"]["statefulSetRef"]["namespace"] = "db".into();
    });
    let db = || Some("db".to_owned());
    let asked = [
        ("create volumesnapshots".to_owned(), db()),
        ("create pods/exec".into(), db()),
        ("delete volumesnapshots".into(), db()),
        ("patch volumesnapshotcontents".into(), None),
    ];
    assert_eq!(rights(&all), asked);
    let deletes = ("delete volumesnapshots".to_owned(), shop());
    for change in ["adopt", "deletionPolicy"] {
        let object = backup(|object| match change {
            "adopt" => object["metadata"]["annotations"] = json!({ "backup.sts-backup.io/adopt": "uid" }),
            _ => object["spec"]["deletionPolicy"] = "Delete".into(),
        });
        assert!(rights(&object).contains(&deletes), "{change}");
    }
}

#[test]
fn what_is_refused_whoever_sends_it_is_told() {
    assert_eq!(needs::refused(&backup(|_| {})), []);
    let object = backup(|object| {
        object["spec"]["deletionPolicy"] = "Delete".into();
        object["spec"]["statefulSetRef"]["namespace"] = "db".into();
        object["spec"]["maxFreezeSeconds"] = 0.into();
    });
    let said: Vec<_> = needs::refused(&object).into_iter().map(|line| line.message).collect();
    assert!(
        said.len() == 2 && said[0].contains("another namespace") && said[1].contains("maxFreezeSeconds"),
        "{said:?}"
    );
}

fn roles() -> Authority {
    let allow = |resources: &[&str], verbs: &[&str]| json!({ "apiGroups": ["backup.sts-backup.io"], "resources": resources, "verbs": verbs });
    let role = |kind: &str, name: &str, namespace: Option<&str>, rules: Vec<Value>| json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": name, "namespace": namespace }, "rules": rules });
    let binding = |kind: &str, of: &str, name: &str, namespace: Option<&str>, subjects: Value| {
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": "b", "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": of, "name": name }, "subjects": subjects })
    };
    let user = |name: &str| json!([{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name }]);
    let account = |name: &str, namespace: Option<&str>| json!([{ "kind": "ServiceAccount", "name": name, "namespace": namespace }]);
    let everything = json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] });
    Authority {
        cluster_roles: vec![
            read(role("ClusterRole", "edit", None, vec![allow(&["statefulsetbackups"], &["get", "create"])])),
            read(role("ClusterRole", "look", None, vec![allow(&["statefulsetbackups"], &["get", "list", "delete"])])),
            read(role("ClusterRole", "all", None, vec![everything])),
            read(role(
                "ClusterRole",
                "runner",
                None,
                vec![allow(&["statefulsetbackups"], &["patch"]), allow(&["statefulsetbackups/status"], &["patch"])],
            )),
        ],
        roles: vec![read(role("Role", "edit", Some("crm"), vec![allow(&["statefulsetrestores"], &["patch"])]))],
        cluster_bindings: vec![
            read(binding("ClusterRoleBinding", "ClusterRole", "all", None, user("admin"))),
            read(binding("ClusterRoleBinding", "ClusterRole", "all", None, user("system:kube-controller-manager"))),
            read(binding("ClusterRoleBinding", "ClusterRole", "runner", None, account("runner", Some("ops")))),
        ],
        bindings: vec![
            read(binding("RoleBinding", "ClusterRole", "edit", Some("shop"), user("jane"))),
            read(binding("RoleBinding", "ClusterRole", "look", Some("shop"), user("joe"))),
            read(binding("RoleBinding", "Role", "edit", Some("crm"), account("gitops", None))),
            read(binding("RoleBinding", "Role", "edit", Some("shop"), user("of another namespace"))),
        ],
    }
}

#[test]
fn authors_are_those_whose_roles_let_them_change_our_objects() {
    let of = |who, kind, namespace: Option<&str>| Author { who, kind, namespace: namespace.map(Into::into) };
    let admin = || Who::User("admin".into());
    let expected: BTreeSet<_> = [
        of(Who::User("jane".into()), Kind::Backup, Some("shop")),
        of(admin(), Kind::Backup, None),
        of(admin(), Kind::Restore, None),
        of(Who::ServiceAccount("crm".into(), "gitops".into()), Kind::Restore, Some("crm")),
    ]
    .into();
    assert_eq!(roles().authors(), expected);
    let needs = needs::of_backup(&backup(|_| {}));
    let asked: Vec<_> = authors::asked(&roles(), &needs).into_iter().map(|(author, _)| author.who).collect();
    assert_eq!(asked, [admin(), Who::User("jane".into())], "not those of another namespace or kind");
}

fn policies(change: impl Fn(&mut Value)) -> Level {
    let name = BACKUP_POLICY;
    let mut policy = json!({ "metadata": { "name": name, "annotations": { "backup.sts-backup.io/format": crate::api::POLICY_FORMAT } },
        "spec": { "failurePolicy": "Fail" } });
    let mut both = json!({ "policy": policy.take(), "binding": { "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Deny"] } } });
    change(&mut both);
    let part = |part: &str| Some(both[part].clone()).filter(|part| !part.is_null());
    let (policy, binding) = (part("policy").map(read), part("binding").map(read));
    line_of(name, &observe::guard_of(name, policy.as_ref(), binding.as_ref()), INSTALL).level
}

#[test]
fn a_policy_on_trial_is_a_warning_and_one_that_does_not_guard_a_problem() {
    assert_eq!(policies(|_| {}), Level::Ok);
    let newer = (crate::api::POLICY_FORMAT.parse::<u32>().unwrap() + 1).to_string();
    let format = |both: &mut Value, format: &str| {
        both["policy"]["metadata"]["annotations"]["backup.sts-backup.io/format"] = format.into();
    };
    assert_eq!(policies(|both| format(both, &newer)), Level::Ok, "in the midst of an upgrade: it guards more");
    assert_eq!(policies(|both| format(both, "3")), Level::Problem);
    assert_eq!(policies(|both| format(both, "latest")), Level::Problem);
    assert_eq!(
        policies(|both| both["binding"]["spec"]["validationActions"] = json!(["Warn", "Audit"])),
        Level::Warning
    );
    for change in ["missing", "unbound", "older", "fails open", "no action", "older on trial"] {
        let level = policies(|both| match change {
            "missing" => both["policy"] = Value::Null,
            "unbound" => both["binding"] = Value::Null,
            "older" => both["policy"]["metadata"]["annotations"] = json!({}),
            "fails open" => both["policy"]["spec"]["failurePolicy"] = "Ignore".into(),
            "no action" => both["binding"]["spec"]["validationActions"] = json!([]),
            _ => {
                both["policy"]["metadata"]["annotations"] = json!({});
                both["binding"]["spec"]["validationActions"] = json!(["Warn"]);
            }
        });
        assert_eq!(level, Level::Problem, "{change}");
    }
}

/// A snapshot as a run seals it.
fn snapshot(run: &str, uid: &str, name: Option<&str>) -> VolumeSnapshot {
    let name = name.map_or_else(|| format!("nightly-data-{run}-0"), ToOwned::to_owned);
    let second: jiff::civil::DateTime = jiff::fmt::strtime::parse("%Y%m%d-%H%M%S", run).unwrap().to_datetime().unwrap();
    let made = second.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
    let (cut, made) = (made.as_nanosecond().to_string(), made.to_string());
    let key = |key: &str| format!("backup.sts-backup.io/{key}");
    read(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "creationTimestamp": made, "resourceVersion": "1",
            "labels": {
                label::STATEFULSET: "pg", label::POLICY: "nightly", label::POLICY_NAMESPACE: "shop", label::POLICY_UID: "p",
                label::RUN: run, label::CLAIM_TEMPLATE: "data", label::ORDINAL: "0",
            },
            "annotations": {
                key("run-size"): "1", key("transitions"): "1", key("format"): "1", key("cut"): cut,
                key("consistency"): "CrashPerVolume",
            },
        },
        "spec": { "source": { "persistentVolumeClaimName": "data-pg-0" } },
        "status": { "readyToUse": true, "creationTime": made, "boundVolumeSnapshotContentName": uid },
    }))
}

#[test]
fn runs_that_are_not_on_record_are_named() {
    let objects = [
        snapshot("20260301-020000", "a", None),
        snapshot("20260302-020000", "b", None),
        snapshot("20260303-020000", "c", None),
        snapshot("20260303-020000", "d", Some("copy-of-it")),
    ];
    let stock = objects.iter().map(|one| (one.name_any(), Snapshot::of(one))).collect();
    let digest = |uid: &str| crate::plan::roll::digest([uid]);
    let roll = format!(
        r#"{{"p": {{"20260301-020000": "data:0 {}", "20260302-020000": "data:0 {} imported"}}}}"#,
        digest("a"),
        digest("b")
    );
    let said = |roll: Option<&str>| {
        let lines = off_record("runs", &stock, roll.map(Roll::read).as_ref());
        lines.into_iter().map(|line| line.message).collect::<Vec<_>>()
    };
    let known = said(Some(&roll));
    assert_eq!(known.len(), 3, "{known:?}");
    for (run, words) in [
        ("20260303-020000", "complete and not on record"),
        ("20260302-020000", "nobody knows who made them"),
        ("copy-of-it", "do not belong to"),
    ] {
        assert!(known.iter().any(|text| text.starts_with(run) && text.contains(words)), "{run}: {known:?}");
    }
    let none = said(None);
    assert!(none[0].starts_with("20260301-020000, 20260302-020000, 20260303-020000 are complete"), "{none:?}");
    let other = said(Some(&roll.replace(&digest("a"), "0")));
    assert!(other.iter().any(|text| text.contains("other snapshots than those on record")), "{other:?}");
}

#[test]
fn a_line_says_what_to_do() {
    let objects: BTreeSet<_> = (1..=5).map(|n| format!("shop/policy-{n}")).collect();
    let line = authors::line(&Who::User("jane".into()), ("", "pods/exec", "create"), Some("shop"), &objects);
    let text = "may change shop/policy-1, shop/policy-2, shop/policy-3 and 2 more, and may not create pods/exec in \
                namespace shop: what needs that is refused";
    assert_eq!((line.level, &*line.about, &*line.message), (Level::Warning, "User jane", text));
    assert!(table(&[line]).starts_with("warning   User jane   may change"));
}
