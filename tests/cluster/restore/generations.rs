//! Back to each of three generations, and to where we were: never a mixture.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use sts_backup::api::condition::{self, ConditionType};
use sts_backup::api::restore::{RestorePhase, StatefulSetRestore};
use sts_backup::api::{FINALIZER, annotation, label};

use super::WEB;
use crate::harness::driver::SIM;
use crate::harness::make::word;
use crate::harness::{Scene, With, scene, until};
use crate::postgres::MANIFEST;

const PODS: [&str; 3] = ["pg-0", "pg-1", "pg-2"];

/// All accounts of a database, and how often it was changed.
const SUM: &str = "psql -At -d bench -c \"select md5(string_agg(aid || ':' || abalance, ',' order by aid)), \
    (select count(*) from pgbench_history) from pgbench_accounts\"";

async fn sums(s: &Scene) -> BTreeMap<String, String> {
    let all = join_all(PODS.map(|pod| async move { (pod.to_owned(), s.exec(pod, SUM).await.trim().to_owned()) })).await;
    all.into_iter().collect()
}

/// Another generation: every database is changed, each otherwise. What was cut, and the run.
async fn generation(s: &Scene) -> (BTreeMap<String, String>, String) {
    join_all(PODS.map(|pod| s.exec(pod, "pgbench -n -t 50 bench 2> /dev/null && psql -c CHECKPOINT"))).await;
    let before = sums(s).await;
    let ended = s.backup("nightly", &[]).await.expect(0);
    (before, ended.summary()["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn databases_go_back_to_each_of_three_generations_and_on_again() {
    scene("gens", &[With::Healthy(SIM)], async |s| {
        let (service, set) = MANIFEST.split_once("\n---\n").unwrap();
        s.create::<Service>(&serde_saphyr::from_str(service).unwrap()).await;
        s.create::<StatefulSet>(&serde_saphyr::from_str(set).unwrap()).await;
        s.ready("pg").await;
        join_all(PODS.map(|pod| s.exec(pod, "createdb bench && pgbench -q -i -s 1 bench"))).await;
        s.policy("nightly", "pg", &json!({})).await;
        let mut generations = vec![];
        for _ in 0..3 {
            generations.push(generation(s).await);
        }
        let distinct: std::collections::BTreeSet<_> = generations.iter().flat_map(|(sums, _)| sums.values()).collect();
        assert_eq!(distinct.len(), 9, "three databases, three generations, no two alike");
        join_all(PODS.map(|pod| s.exec(pod, "psql -d bench -c 'drop table pgbench_history'"))).await;

        for (n, (wanted, run)) in generations.iter().enumerate() {
            let name = format!("to-{n}");
            s.restore(&name, "pg", &json!({ "runId": run })).await.expect(0);
            assert_eq!(&sums(s).await, wanted, "generation {n}, run {run}, in every database");
            let status = s.restored(&name).await;
            assert_eq!(status.plan.as_ref().and_then(|plan| plan.run_id.as_ref()), Some(run));
            println!("{run}: down for {:.1} s", status.downtime_seconds.unwrap());
        }
        // The third one is undone: the second again. Nothing of what was set aside meanwhile is lost.
        s.carry_out("undo", "to-2").await.expect(0);
        assert_eq!(sums(s).await, generations[1].0, "what was there before the last restore");
        s.tidy("pg").await;
    })
    .await;
}

#[tokio::test]
async fn a_restore_says_what_it_did_and_is_undone_and_released() {
    scene("told", &[With::Healthy(SIM)], async |s| {
        s.app(&WEB).await;
        s.policy("nightly", "web", &json!({})).await;
        s.paint("web", "one").await;
        let note = Patch::Merge(json!({ "metadata": {
            "labels": { "team": "shop" }, "annotations": { "example.com/owner": "shop" } } }));
        s.api::<PersistentVolumeClaim>().patch("a-web-0", &PatchParams::default(), &note).await.unwrap();
        s.backup("nightly", &[]).await.expect(0);
        s.paint("web", "two").await;
        let before = s.claims().await;

        let ended = s.restore("back", "web", &json!({})).await.expect(0);
        s.all_say("web", "one").await;
        let status = s.restored("back").await;
        assert_eq!(status.phase, Some(RestorePhase::Completed));
        assert_eq!(ended.summary()["phase"], "Completed");
        assert_eq!(status.restored_snapshots.len(), 4);
        for (claim, snapshot) in &status.restored_snapshots {
            let all = s.snapshots().await;
            let snapshot = all.iter().find(|one| one.name_any() == *snapshot).unwrap();
            assert_eq!(snapshot.spec.source.persistent_volume_claim_name.as_ref(), Some(claim));
            assert_eq!(Some(word(snapshot, label::RUN)), status.plan.as_ref().unwrap().run_id.as_deref());
        }
        assert_eq!(status.original_replicas, Some(2));
        let undoable = condition::get(&status.conditions, ConditionType::Undoable).unwrap();
        assert_eq!(undoable.status, "True");
        let (down, whole) = (status.downtime_seconds.unwrap(), status.completion_time.unwrap().0);
        assert!(0.0 < down && down <= whole.duration_since(status.start_time.unwrap().0).as_secs_f64() + 1.0);
        let object = s.api::<StatefulSetRestore>().get("back").await.unwrap();
        assert_eq!(object.finalizers(), [FINALIZER]);
        let events = s.events("StatefulSetRestore", "back").await;
        let reasons: Vec<_> = events.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(reasons, ["RestoreStarted", "RestoreCompleted"]);
        assert_eq!(s.events("StatefulSet", "web").await.last(), events.last(), "the same on the StatefulSet");

        // The claims are the same to their users; under them are other volumes; the old ones are set aside.
        let claim = s.api::<PersistentVolumeClaim>().get("a-web-0").await.unwrap();
        assert_eq!(claim.labels().get("team").map(String::as_str), Some("shop"));
        assert_eq!(claim.annotations().get("example.com/owner").map(String::as_str), Some("shop"));
        let after = s.claims().await;
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        let mut old: Vec<_> = before.values().map(|(_, volume)| volume.clone()).collect();
        old.sort();
        assert_eq!(sorted(s.tidy("web").await), old);

        again(s).await;
        s.carry_out("undo", "back").await.expect(0);
        s.all_say("web", "two").await;
        assert_eq!(s.restored("back").await.phase, Some(RestorePhase::Undone));
        let mut new: Vec<_> = after.values().map(|(_, volume)| volume.clone()).collect();
        new.sort();
        assert_eq!(sorted(s.tidy("web").await), new, "now the restored ones are set aside");
        let refused = s.carry_out("undo", "back").await.expect(10);
        assert!(refused.stderr.starts_with("UndoRefused: "), "{}", refused.stderr);
        release(s, &new).await;
    })
    .await;
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// The same object once more, and one that was created anew, roll nothing back.
async fn again(s: &Scene) {
    let before = s.claims().await;
    s.carry_out("restore", "back").await.expect(0);
    assert_eq!(s.claims().await, before, "a restore runs once");
    let object = s.api::<StatefulSetRestore>().get("back").await.unwrap();
    let spec = serde_json::to_value(&object.spec).unwrap();
    let other = s.another_namespace("gitops", &[]).await;
    // By another name it is another request, and by this one in another namespace as well; here only a dead one of
    // the same name and spec can be meant.
    let twin: kube::Api<StatefulSetRestore> = kube::Api::namespaced(s.client.clone(), &other);
    let mut elsewhere = super::super::harness::restore::restore("back", "web", &spec);
    elsewhere.spec.stateful_set_ref.namespace = Some(s.namespace.clone());
    twin.create(&kube::api::PostParams::default(), &elsewhere).await.unwrap();
    let ended = s.run(&["run-once", "restore", &format!("{other}/back")]).await.expect(10);
    assert!(ended.stderr.starts_with("NotGranted: "), "{}", ended.stderr);
    assert_eq!(s.claims().await, before);
}

/// At its deadline what was set aside goes, with its data, and the finalizer with it.
async fn release(s: &Scene, aside: &[String]) {
    let restores = s.api::<StatefulSetRestore>();
    restores.delete("back", &kube::api::DeleteParams::default()).await.unwrap();
    s.carry_out("release", "back").await.expect(0);
    until("the end of the object", 30, async || {
        restores.get_opt("back").await.unwrap().map_or(Ok(()), |left| Err(format!("{:?}", left.metadata)))
    })
    .await;
    // It has seen them go; what its provisioner has kept it names.
    let left: Vec<_> = s.own_volumes().await.iter().map(ResourceExt::name_any).collect();
    let left: Vec<_> = left.iter().filter(|name| aside.contains(name)).collect();
    let events = s.events("StatefulSetRestore", "back").await;
    assert!(left.is_empty(), "{left:?} are still there: {events:?}");
    let claims = s.api::<PersistentVolumeClaim>().list(&kube::api::ListParams::default()).await.unwrap().items;
    let bears = |claim: &&PersistentVolumeClaim| {
        claim.labels().contains_key(label::RESTORE) || claim.annotations().contains_key(annotation::RESTORED_BY)
    };
    assert_eq!(claims.iter().find(bears).map(ResourceExt::name_any), None, "its claims are as any others");
    s.all_say("web", "two").await;
    // Created anew, as GitOps does: it was carried out before.
    let ended = s.restore("back", "web", &json!({})).await.expect(10);
    assert!(ended.stderr.starts_with("AlreadyRestored: "), "{}", ended.stderr);
    s.all_say("web", "two").await;
    assert!(s.lease("web").await.annotations().contains_key(annotation::RESTORED_BY));
}
