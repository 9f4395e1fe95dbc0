//! A lock that belongs to a database session spans two hooks when a process of its own keeps the session: the recipe
//! of `docs/hooks.md`, on PostgreSQL under load.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::harness::driver::SIM;
use crate::harness::{With, scene, until};
use crate::postgres::{MANIFEST, clone_of, load, transactions, unload};

const RECIPE: &str = include_str!("../../../docs/hooks.md");

/// The hooks as the page has them.
fn recipe() -> (Value, Value) {
    let manifest = RECIPE.split("```yaml\n").find(|block| block.contains("sts-backup-hold")).unwrap();
    let manifest = manifest.split("```").next().unwrap();
    let spec: Value = serde_saphyr::from_str(manifest).unwrap();
    (spec["spec"]["preBackupHook"].clone(), spec["spec"]["postBackupHook"].clone())
}

const COUNT: &str = "psql -At -d bench -c 'select count(*) from pgbench_history'";

#[tokio::test]
async fn a_session_that_outlives_its_hook_holds_its_lock_over_the_cut() {
    scene("session", &[With::Healthy(SIM)], async |s| {
        let (service, set) = MANIFEST.split_once("\n---\n").unwrap();
        s.create::<Service>(&serde_saphyr::from_str(service).unwrap()).await;
        let mut set: StatefulSet = serde_saphyr::from_str(set).unwrap();
        set.spec.replicas = Some(1);
        s.create(&set).await;
        s.ready("pg").await;
        s.exec("pg-0", "createdb bench && pgbench -q -i -s 1 bench && psql -d bench -c 'create extension amcheck'")
            .await;
        let (mut pre, post) = recipe();
        // What nobody can write any more is counted, and the lock held for a while: it must be there without the hook.
        let script = pre["command"][2].as_str().unwrap();
        pre["command"][2] =
            script.replace("|| exit 0", &format!("|| {{ {COUNT} > /tmp/held; sleep 2; exit 0; }}")).into();
        s.policy("nightly", "pg", &json!({ "preBackupHook": pre, "postBackupHook": post })).await;

        let load = load(s, "pg-0");
        let backup = async {
            until("transactions", 180, async || match transactions(s, "pg-0").await {
                0..100 => Err("too few".into()),
                many => Ok(many),
            })
            .await;
            let ended = s.backup("nightly", &[]).await.expect(0);
            let held: i64 = s.exec("pg-0", "cat /tmp/held").await.trim().parse().unwrap();
            unload(s, "pg-0").await; // the thaw lets transactions through again
            (ended, held)
        };
        let ((), (ended, held)) = tokio::join!(load, backup);
        assert!(ended.audit.iter().any(|line| line.step == "Post" && line.exit_code == Some(0)));
        let snapshot = s.snapshots().await.pop().unwrap();
        let name = clone_of(s, &set, &snapshot).await;
        assert_eq!(transactions(s, &name).await, held, "not one transaction between lock and cut");
        let sessions = s.exec(
            "pg-0",
            "psql -At -c \"select count(*) from pg_stat_activity where application_name = 'sts-backup-hold'\"",
        );
        assert_eq!(sessions.await.trim(), "0", "nothing is left behind");
        println!("session: {held} transactions at the lock and in the snapshot");
    })
    .await;
}
