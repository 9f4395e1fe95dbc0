//! The main job: three PostgreSQL servers under load, one backup, and every snapshot of it is a database that recovers
//! to one instant, with all its sums right and all its indexes whole.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::ResourceExt;
use kube::api::LogParams;
use serde_json::json;
use sts_backup::api::snapshot::VolumeSnapshot;

use crate::harness::driver::SIM;
use crate::harness::make::is_ready;
use crate::harness::{Scene, With, scene, until};

pub const MANIFEST: &str = include_str!("../../manifests/demo/postgres.yaml");
const PODS: [&str; 3] = ["pg-0", "pg-1", "pg-2"];

/// pgbench adds one number to an account, a teller and a branch, and writes it down, in one transaction.
const SUMS: &str = "psql -At -d bench -c \"select (select sum(abalance) from pgbench_accounts), \
    (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches), \
    (select coalesce(sum(delta), 0) from pgbench_history), (select count(*) from pgbench_history)\"";

#[tokio::test]
async fn databases_under_load_are_whole_in_every_snapshot() {
    scene("pg", &[With::Healthy(SIM)], async |s| {
        let (service, set) = MANIFEST.split_once("\n---\n").unwrap();
        s.create::<Service>(&serde_saphyr::from_str(service).unwrap()).await;
        let set: StatefulSet = serde_saphyr::from_str(set).unwrap();
        s.create(&set).await;
        s.ready("pg").await;
        let make = "createdb bench && pgbench -q -i -s 5 bench && psql -d bench -c 'create extension amcheck'";
        join_all(PODS.map(|pod| s.exec(pod, make))).await;
        let checkpoint = json!({ "command": ["psql", "-c", "CHECKPOINT"] });
        s.policy("nightly", "pg", &json!({ "preBackupHook": checkpoint })).await;

        let load = join_all(PODS.map(|pod| load(s, pod)));
        let backup = async {
            until("transactions everywhere", 180, async || {
                let counts = join_all(PODS.map(|pod| transactions(s, pod))).await;
                counts.iter().all(|count| *count > 100).then_some(()).ok_or_else(|| format!("{counts:?}"))
            })
            .await;
            let ended = s.backup("nightly", &[]).await.expect(0);
            join_all(PODS.map(|pod| unload(s, pod))).await;
            ended
        };
        let (_, ended) = tokio::join!(load, backup);
        let hooks = ended.audit.iter().filter(|line| line.step == "Pre" && line.exit_code == Some(0));
        let said: Vec<_> = hooks.filter_map(|line| line.stdout.as_deref()).map(str::trim).collect();
        assert_eq!(said, ["CHECKPOINT"; PODS.len()], "a checkpoint in every pod, before the cut");
        let snapshots = s.snapshots().await;
        assert_eq!(snapshots.len(), PODS.len());
        assert!(snapshots.iter().all(is_ready));
        join_all(snapshots.iter().map(|snapshot| recovers(s, &set, snapshot))).await;
    })
    .await;
}

/// Transactions until `unload`.
pub async fn load(s: &Scene, pod: &str) {
    s.exec(pod, "pgbench -n -c 4 -T 300 bench > /tmp/pgbench 2>&1 & echo $! > /tmp/load; wait; true").await;
}

/// Ends the load after one transaction more.
pub async fn unload(s: &Scene, pod: &str) {
    let before = transactions(s, pod).await;
    until("another transaction", 60, async || match transactions(s, pod).await {
        more if more > before => Ok(()),
        same => Err(format!("{same}")),
    })
    .await;
    s.exec(pod, "kill $(cat /tmp/load)").await;
}

/// Sums by account, teller, branch and history; transactions.
async fn sums(s: &Scene, pod: &str) -> Vec<i64> {
    s.exec(pod, SUMS).await.trim().split('|').map(|number| number.parse().unwrap()).collect()
}

pub async fn transactions(s: &Scene, pod: &str) -> i64 {
    s.exec(pod, "psql -At -d bench -c 'select count(*) from pgbench_history'").await.trim().parse().unwrap()
}

/// A server on a volume made from the snapshot; its pod.
pub async fn clone_of(s: &Scene, set: &StatefulSet, snapshot: &VolumeSnapshot) -> String {
    let claim = snapshot.spec.source.persistent_volume_claim_name.clone().unwrap();
    let source = claim.strip_prefix("data-").unwrap();
    let name = format!("clone-of-{source}");
    let pvc = json!({ "metadata": { "name": name }, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": SIM.class,
        "resources": { "requests": { "storage": "1Gi" } },
        "dataSource": { "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot.name_any() },
    } });
    s.create::<PersistentVolumeClaim>(&serde_json::from_value(pvc).unwrap()).await;
    let mut pod = json!({ "metadata": { "name": name }, "spec": set.spec.template.spec });
    pod["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": name } }]);
    s.create::<Pod>(&serde_json::from_value(pod).unwrap()).await;
    until(&format!("{name} to serve"), 120, async || {
        let status = s.api::<Pod>().get(&name).await.unwrap().status.unwrap_or_default();
        let ready = |c: &k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready" && c.status == "True";
        status.conditions.iter().flatten().any(ready).then_some(()).ok_or_else(|| format!("{status:?}"))
    })
    .await;
    name
}

async fn recovers(s: &Scene, set: &StatefulSet, snapshot: &VolumeSnapshot) {
    let name = clone_of(s, set, snapshot).await;
    let source = name.strip_prefix("clone-of-").unwrap();
    let log = s.api::<Pod>().logs(&name, &LogParams::default()).await.unwrap();
    assert!(log.contains("redo starts at") && log.contains("redo done at"), "{name} had nothing to recover:\n{log}");
    let (cut, end) = (sums(s, &name).await, sums(s, source).await);
    let [accounts, tellers, branches, history, transactions] = cut[..] else { panic!("{cut:?}") };
    assert!([accounts, tellers, branches].iter().all(|sum| *sum == history), "{name}: half a transaction: {cut:?}");
    assert!(0 < transactions && transactions < end[4], "{name}: cut under load: {transactions} of {}", end[4]);
    s.exec(&name, "pg_amcheck -d bench --heapallindexed --parent-check").await;
    println!("{name}: {transactions} of {} transactions, sums {history}, indexes whole", end[4]);
}
