//! Whoever deletes a restore in its midst gets a whole application back: the old data before a pod has served from the
//! restored volumes, these afterwards. And that although the process dies right then.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use sts_backup::api::restore::{RestorePhase, StatefulSetRestore};
use sts_backup::api::{annotation, label};

use crate::harness::driver::{SIM, TWO};
use crate::harness::make::App;
use crate::harness::product::Running;
use crate::harness::{Scene, With, kubeconfig, scene, until};

/// No restore here needs more processes.
const TRIES: usize = 6;

#[tokio::test]
async fn a_restore_that_is_deleted_in_any_phase_leaves_a_whole_application() {
    use RestorePhase::{Completed, New, Restoring, ScalingDown, ScalingUp};
    let slow = With::Faulty(TWO, json!({ "cloneDelay": "3s" }));
    scene("leaving", &[slow], async |s| {
        join_all([New, ScalingDown, Restoring, ScalingUp, Completed].map(async |phase| deleted(s, phase).await)).await;
    })
    .await;
}

async fn deleted(s: &Scene, phase: RestorePhase) {
    let name = format!("at-{}", phase.as_str().to_lowercase());
    let set = App { name: &name, replicas: 1, start: 0, templates: &[("a", TWO.class), ("b", TWO.class)] };
    s.app(&set).await;
    s.policy(&name, &name, &json!({})).await;
    s.paint(&name, "good").await;
    s.backup(&name, &[]).await.expect(0);
    s.paint(&name, "bad").await;
    s.request(&name, &name, &json!({ "backupName": name })).await;
    let run = s.start_restore("restore", &name, &[]);
    until(&format!("phase {}", phase.as_str()), 120, async || {
        let now = s.restored(&name).await.phase;
        if now >= Some(phase) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let restores = s.api::<StatefulSetRestore>();
    restores.delete(&name, &DeleteParams::default()).await.unwrap();
    run.signal("KILL").await;
    let first = run.ended().await;
    let status = s.restored(&name).await;
    println!("{name}: deleted and killed in {:?}, {} requests", status.phase, first.audit.len());
    finish(s, &name).await;
    s.ready(&name).await;
    let words = s.words(&name).await;
    let word = words.values().next().unwrap().clone();
    s.all_say(&name, &word).await;
    match phase {
        RestorePhase::Completed => assert_eq!(word, "good"),
        RestorePhase::ScalingUp => {}
        _ => assert_eq!(word, "bad", "deleted before a pod served from the restored volumes"),
    }
    s.tidy_but_kept(&name).await;
}

/// The command that it waits for.
fn next(object: &StatefulSetRestore) -> &'static str {
    if object.has_ended() { "release" } else { "restore" }
}

/// The same command, and in the end the release, until the object is gone.
async fn finish(s: &Scene, name: &str) {
    let restores = s.api::<StatefulSetRestore>();
    for _ in 0..TRIES {
        let Some(object) = restores.get_opt(name).await.unwrap() else { return };
        let flow = next(&object);
        let run: Running = s.start_restore(flow, name, &[]);
        let ended = run.ended().await;
        println!("{name}: {flow}: exit {:?} {}", ended.code, ended.stderr);
    }
    panic!("{name} is still there: {:?}", restores.get(name).await.unwrap().status);
}

#[tokio::test]
async fn a_namespace_goes_although_a_restore_is_open_in_it() {
    scene("ending", &[With::Faulty(TWO, json!({ "cloneDelay": "30s" }))], async |s| {
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", TWO.class)] }).await;
        s.policy("nightly", "web", &json!({})).await;
        s.backup("nightly", &[]).await.expect(0);
        s.request("back", "web", &json!({})).await;
        let run = s.start_restore("restore", "back", &[]);
        until("a plan", 60, async || {
            let planned = s.restored("back").await.plan.is_some();
            if planned { Ok(()) } else { Err("none".into()) }
        })
        .await;
        let all: Api<Namespace> = Api::all(s.client.clone());
        all.delete(&s.namespace, &DeleteParams::default()).await.unwrap();
        let ended = run.ended().await;
        println!("exit {:?}: {}", ended.code, ended.stderr);
        gone(s).await;
    })
    .await;
}

/// The namespace goes. The account that was at work there may have gone first: somebody else's next try takes up what is
/// left, as a watcher's Job would.
async fn gone(s: &Scene) {
    let all: Api<Namespace> = Api::all(s.client.clone());
    let (admin, target) = (kubeconfig().unwrap(), format!("{}/back", s.namespace));
    until("the end of the namespace", 180, async || {
        let Some(left) = all.get_opt(&s.namespace).await.unwrap() else { return Ok(()) };
        let object = s.api::<StatefulSetRestore>().get_opt("back").await.unwrap();
        if let Some(object) = object.filter(|object| object.metadata.deletion_timestamp.is_some()) {
            let flow = next(&object);
            let ended = s.start_as(&admin, &["run-once", flow, &target]).ended().await;
            println!("{flow}: exit {:?}: {}", ended.code, ended.stderr);
        }
        Err(format!("{:?}", left.status))
    })
    .await;
}

#[tokio::test]
async fn a_namespace_goes_with_what_its_restores_have_set_aside() {
    scene("passing", &[With::Healthy(SIM)], async |s| {
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("nightly", "web", &json!({})).await;
        s.backup("nightly", &[]).await.expect(0);
        let old = s.claims().await["a-web-0"].1.clone();
        s.restore("back", "web", &json!({})).await.expect(0);
        let all: Api<Namespace> = Api::all(s.client.clone());
        all.delete(&s.namespace, &DeleteParams::default()).await.unwrap();
        // A namespace that is deleted deletes what is in it a moment later: before, a release keeps the window.
        until("the deletion of the object", 60, async || {
            let object = s.api::<StatefulSetRestore>().get("back").await.unwrap();
            if object.metadata.deletion_timestamp.is_some() { Ok(()) } else { Err("not deleted".into()) }
        })
        .await;
        let ended = s.carry_out("release", "back").await;
        println!("release: exit {:?}: {}", ended.code, ended.stderr);
        gone(s).await;
        until("the end of the volume that was in use", 60, async || {
            let left: Vec<_> = s.own_volumes().await.iter().map(ResourceExt::name_any).collect();
            if left == [old.clone()] { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        let kept = &s.own_volumes().await[0];
        let spec = kept.spec.as_ref().unwrap();
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Retain"), "what was set aside is data");
        assert!(
            kept.labels().contains_key(label::RESTORE) && kept.annotations().contains_key(annotation::RECLAIM_POLICY)
        );
        assert_eq!(kept.status.as_ref().unwrap().phase.as_deref(), Some("Released"));
    })
    .await;
}
