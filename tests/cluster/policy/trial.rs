//! `doctor --policies` on a real API server: who lacks what is the API server's answer, not ours.

use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::{BACKUP_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY, RESTORE_POLICY};

use super::{BACKUPS, EXEC, SNAPSHOTS, user};
use crate::harness::account::{RUNNER, token};
use crate::harness::{kubeconfig, scene, until};

#[tokio::test]
async fn the_authors_that_deny_would_stop_are_listed_before_it_does() {
    scene("trial", &[], async |s| {
        let hooked: StatefulSetBackup = serde_json::from_value(json!({
            "apiVersion": "backup.sts-backup.io/v1alpha1", "kind": "StatefulSetBackup",
            "metadata": { "name": "hooked", "namespace": s.namespace },
            "spec": { "statefulSetRef": { "name": "web" }, "suspend": true, "preBackupHook": { "command": ["sync"] } },
        }))
        .unwrap();
        s.create(&hooked).await;
        user(s, "snapper", &[(&s.namespace, &[BACKUPS, SNAPSHOTS])]).await;
        user(s, "hooker", &[(&s.namespace, &[BACKUPS, SNAPSHOTS, EXEC])]).await;
        user(s, "nobody", &[(&s.namespace, &[EXEC])]).await;
        let arguments = ["-n", &s.namespace, "doctor", "--policies", "-o", "json"];
        let ended = s.start_as(&kubeconfig().unwrap(), &arguments).ended().await;
        let lines: Vec<Value> = serde_json::from_str(&ended.stdout.join("\n")).unwrap();
        let of = |about: &str| lines.iter().filter(|line| line["about"] == about).collect::<Vec<_>>();
        for policy in [BACKUP_POLICY, RESTORE_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY] {
            let about = format!("ValidatingAdmissionPolicy {policy}");
            assert!(matches!(of(&about)[..], [line] if line["level"] == "ok"), "{policy}: {lines:#?}");
        }
        let account = |name: &str| of(&format!("ServiceAccount {}/{name}", s.namespace));
        let [lacks] = account("snapper")[..] else { panic!("{lines:#?}") };
        let said = format!("may change {}/hooked, and may not create pods/exec in namespace {0}", s.namespace);
        assert!(lacks["level"] == "warning" && lacks["message"].as_str().unwrap().starts_with(&said), "{lacks}");
        for name in ["hooker", "nobody", RUNNER] {
            assert!(account(name).is_empty(), "{name}: {lines:#?}");
        }
    })
    .await;
}

/// Who may list our objects and nothing else sees what concerns these.
#[tokio::test]
async fn what_may_not_be_seen_is_a_line_of_its_own() {
    scene("blinded", &[], async |s| {
        let list = |resource: &'static str| ("backup.sts-backup.io", resource, "list");
        let rights = [list("statefulsetbackups"), list("statefulsetrestores")];
        user(s, "viewer", &[(&s.namespace, &rights)]).await;
        let login = token(&s.client, &s.namespace, "viewer").await;
        let arguments = ["-n", &s.namespace, "doctor", "--policies"];
        let lines = until("the rights of a new account to be known", 30, async || {
            let ended = s.start_as(&login, &arguments).ended().await;
            if ended.code == Some(0) { Ok(ended.stdout) } else { Err(ended.stderr) }
        })
        .await;
        for what in ["policies", "authors", "runs"] {
            let said = |line: &&String| {
                let words: Vec<_> = line.split_whitespace().take(8).collect();
                words == ["warning", what, "were", "not", "looked", "at:", "cannot", "list"]
            };
            assert_eq!(lines.iter().filter(said).count(), 1, "{what}: {lines:#?}");
        }
    })
    .await;
}
