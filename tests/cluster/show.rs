//! What the program shows of a real cluster: lists, a description, its version; and what it says to typing mistakes.

use kube::api::DeleteParams;
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::label;
use sts_backup::api::snapshot::VolumeSnapshot;

use crate::harness::driver::SIM;
use crate::harness::make::App;
use crate::harness::product::Ended;
use crate::harness::{Scene, With, kubeconfig, scene};

/// With the rights of the person who types.
async fn typed(s: &Scene, arguments: &[&str]) -> Ended {
    s.start_as(&kubeconfig().unwrap(), &[&["-n", &s.namespace], arguments].concat()).ended().await
}

async fn shown(s: &Scene, arguments: &[&str]) -> String {
    typed(s, arguments).await.expect(0).stdout.join("\n")
}

async fn json(s: &Scene, arguments: &[&str]) -> Value {
    serde_json::from_str(&shown(s, &[arguments, &["-o", "json"]].concat()).await).unwrap()
}

#[tokio::test]
async fn lists_and_descriptions_tell_what_is_there_and_whose_it_is() {
    scene("show", &[With::Healthy(SIM)], async |s| {
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("nightly", "web", &json!({ "preBackupHook": { "command": ["true"] } })).await;
        s.backup("nightly", &["--slot", "one"]).await.expect(0);
        s.backup("nightly", &["--slot", "two"]).await.expect(0);
        let last = s.get("nightly").await.status.unwrap().last_run.unwrap().id.unwrap();

        let runs = json(s, &["list", "runs"]).await;
        assert_eq!(runs.as_array().unwrap().len(), 2);
        let expected = json!({ "id": last, "policy": "nightly", "namespace": s.namespace, "statefulSet": "web",
            "complete": true, "consistency": "CrashPerVolume", "claims": ["a-web-0"], "keptBy": [] });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&runs[0][key], value, "newest first: {key}");
        }
        assert!(runs[0]["cutTime"].is_string() && runs[0]["origin"].is_null());
        let backups = json(s, &["list"]).await;
        assert_eq!((&backups["kind"], &backups["items"][0]["metadata"]["name"]), (&"List".into(), &"nightly".into()));
        let name = shown(s, &["list", "backups", "-o", "name"]).await;
        assert_eq!(name, "statefulsetbackup.backup.sts-backup.io/nightly");
        let everywhere = s.start_as(&kubeconfig().unwrap(), &["list", "runs", "-A"]).ended().await.expect(0).stdout;
        assert!(everywhere[0].starts_with("NAMESPACE") && everywhere.iter().any(|line| line.contains(&last)));
        let described = shown(s, &["describe", "nightly"]).await;
        for words in
            [&last, "Succeeded (BackupCompleted)", "[\"true\"], 60 s at most", "History:", "BackupStarted", "a-web-0"]
        {
            assert!(described.contains(words), "{words} is not in\n{described}");
        }
        let restores = typed(s, &["list", "restores"]).await.expect(0);
        assert_eq!((restores.stdout.len(), restores.stderr.as_str()), (0, "no restores in this namespace"));

        mistakes(s).await;
        gone_and_old(s).await;
    })
    .await;
}

async fn mistakes(s: &Scene) {
    let absent = typed(s, &["describe", "nigthly"]).await.expect(10).stderr;
    assert_eq!(
        absent,
        format!(
            "error: there is no StatefulSetBackup or StatefulSetRestore {0}/nigthly; in namespace {0} there are: nightly",
            s.namespace
        )
    );
    for (arguments, says) in [
        (&["list", "rnus"][..], "tip: a similar value exists: 'runs'"),
        (&["lst"], "tip: a similar subcommand exists: 'list'"),
        (&["list", "-o", "jsn"], "[possible values: table, json, yaml, name]"),
        (&["describe"], "<[NAMESPACE/]NAME>"),
    ] {
        let said = typed(s, arguments).await.expect(64).stderr;
        assert!(said.contains(says), "{arguments:?}: {says:?} is not in {said}");
    }
}

/// Runs whose object is gone, and snapshots from before there were runs.
async fn gone_and_old(s: &Scene) {
    s.api::<StatefulSetBackup>().delete("nightly", &DeleteParams::default()).await.unwrap();
    let old = json!({ "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": { "name": "old", "labels": { label::STATEFULSET: "web", label::POLICY: "nightly" } },
        "spec": { "volumeSnapshotClassName": SIM.class, "source": { "persistentVolumeClaimName": "a-web-0" } } });
    s.create::<VolumeSnapshot>(&serde_json::from_value(old).unwrap()).await;
    let runs = json(s, &["list", "runs"]).await;
    let mut origins: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["origin"].as_str().unwrap()).collect();
    origins.sort_unstable();
    assert_eq!(origins, ["legacy", "orphaned", "orphaned"]);
    let legacy = runs.as_array().unwrap().iter().find(|run| run["origin"] == "legacy").unwrap();
    assert_eq!((&legacy["id"], &legacy["snapshots"]), (&Value::Null, &json!(["old"])));
}

#[tokio::test]
async fn the_version_needs_no_cluster() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sts-backup"));
    let output = command.args(["version", "-o", "json"]).env("KUBECONFIG", "/nowhere").output().await.unwrap();
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for key in ["commit", "kubernetes", "tzdb"] {
        assert!(version[key].as_str().is_some_and(|word| !word.is_empty()), "{key}: {version}");
    }
}
