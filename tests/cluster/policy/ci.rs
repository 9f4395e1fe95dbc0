//! A pipeline with the account of `docs/ci.md`, word for word, and nothing more: its runs, one that was killed among them.

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use serde_json::json;
use sts_backup::api::{annotation, label};

use super::roles::{DROP, EXEC, SNAPSHOTS, grant, known, of_the_docs};
use crate::harness::account::account;
use crate::harness::driver::SIM;
use crate::harness::make::{App, word};
use crate::harness::run::runs;
use crate::harness::{With, scene, until};

#[tokio::test]
async fn the_account_of_the_docs_makes_prunes_and_resumes_backups() {
    scene("pipeline", &[With::Healthy(SIM)], async |s| {
        s.app(&App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class)] }).await;
        let user = format!("system:serviceaccount:{}:ci-backup", s.namespace);
        let login = account(&s.client, &s.namespace, "ci-backup").await;
        grant(s, "ci-backup", &user, &of_the_docs("Role"), &[&s.namespace]).await;
        grant(s, "ci-backup-wide", &user, &of_the_docs("ClusterRole"), &[]).await;
        for right in [SNAPSHOTS, DROP, EXEC] {
            known(s, &user, right, Some(&s.namespace)).await;
        }
        known(s, &user, ("snapshot.storage.k8s.io", "volumesnapshotcontents", "list"), None).await;
        let manifest = json!({
            "apiVersion": sts_backup::api::API_VERSION, "kind": "StatefulSetBackup",
            "metadata": { "name": "ci", "namespace": s.namespace },
            "spec": { "statefulSetRef": { "name": "web" }, "retentionPolicy": { "keepLast": 1 },
                "preBackupHook": { "command": ["sleep", "2"] }, "postBackupHook": { "command": ["true"] } },
        });
        let path = s.kubeconfig.with_extension("pipeline.yaml");
        std::fs::write(&path, manifest.to_string()).unwrap();
        let start = || s.start_as(&login, &["run-once", "backup", "-f", path.to_str().unwrap()]);

        let first = start().ended().await.expect(0).summary();
        assert_eq!((&first["outcome"], &first["consistency"]), (&json!("Succeeded"), &json!("Frozen")));
        let run = start();
        until("the mark of its freeze", 60, async || {
            let lease = s.api::<Lease>().get("sts-backup-web").await.unwrap();
            lease.annotations().contains_key(annotation::OPEN).then_some(()).ok_or_else(|| format!("{lease:?}"))
        })
        .await;
        run.signal("KILL").await;
        run.ended().await;
        let last = start().ended().await.expect(0);
        let refused: Vec<_> = last.audit.iter().filter(|line| line.code == Some(403)).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let id = last.summary()["id"].as_str().unwrap().to_owned();
        assert_eq!(runs(s, "ci").await.into_keys().collect::<Vec<_>>(), [id], "keepLast: 1");
        assert!(s.snapshots().await.iter().all(|one| word(one, label::POLICY_UID) == "file"));
    })
    .await;
}
