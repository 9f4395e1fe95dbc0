//! What is broken or gone is restored all the same: pods that are not Ready, claims that are not there, a StatefulSet
//! that is not there; in place where a driver cannot do otherwise; into another StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::restore::RestorePhase;

use super::WEB;
use crate::harness::driver::{SIM, TWO};
use crate::harness::make::App;
use crate::harness::{Scene, With, scene, until};

async fn gone(s: &Scene, statefulset: &str) {
    until(&format!("no pod of {statefulset}"), 90, async || {
        let left = s.pods(statefulset).await.len();
        if left == 0 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
}

#[tokio::test]
async fn a_database_that_does_not_become_ready_is_restored() {
    scene("unready", &[With::Healthy(SIM)], async |s| {
        let late = SIM.late();
        let app = App { templates: &[("a", SIM.class), ("b", &late)], ..WEB };
        let mut manifest = app.manifest();
        manifest.spec.pod_management_policy = Some("OrderedReady".into());
        let container = &mut manifest.spec.template.spec.as_mut().unwrap().containers[0];
        let probe = json!({ "exec": { "command": ["sh", "-c", "! grep -q bad /a/word"] }, "periodSeconds": 1 });
        container.readiness_probe = Some(serde_json::from_value(probe).unwrap());
        s.app_of(&manifest).await;
        s.policy("nightly", "web", &json!({})).await;
        s.paint("web", "good").await;
        s.backup("nightly", &[]).await.expect(0);
        s.paint("web", "bad").await;
        until("no pod is ready", 60, async || {
            let status = s.api::<StatefulSet>().get("web").await.unwrap().status.unwrap_or_default();
            let ready = status.ready_replicas.unwrap_or_default();
            if ready == 0 { Ok(()) } else { Err(format!("{ready} ready")) }
        })
        .await;
        let ended = s.restore("back", "web", &json!({})).await.expect(0);
        assert!(ended.audit.iter().any(|line| line.step == "Evict"), "OrderedReady would wait for ever");
        s.ready("web").await;
        s.all_say("web", "good").await;
        s.tidy("web").await;
    })
    .await;
}

#[tokio::test]
async fn what_is_gone_is_made_anew_from_the_snapshots_alone() {
    scene("lost", &[With::Faulty(TWO, json!({ "restoreSizeExtra": 10_485_760 }))], async |s| {
        let app = App { templates: &[("a", TWO.class), ("b", TWO.class)], ..WEB };
        s.app(&app).await;
        s.policy("nightly", "web", &json!({})).await;
        s.paint("web", "good").await;
        s.backup("nightly", &[]).await.expect(0);

        // A claim, with its volume.
        s.patch_app("web", &json!({ "spec": { "replicas": 0 } })).await;
        gone(s, "web").await;
        lose(s, |name| name == "a-web-0").await;
        s.restore("claim", "web", &json!({})).await.expect(0);
        assert_eq!(s.restored("claim").await.original_replicas, Some(0));
        s.patch_app("web", &json!({ "spec": { "replicas": 2 } })).await;
        s.ready("web").await;
        s.all_say("web", "good").await;
        let claim = s.api::<PersistentVolumeClaim>().get("a-web-0").await.unwrap();
        let capacity = claim.status.unwrap().capacity.unwrap()["storage"].0.clone();
        assert_eq!(capacity, "20Mi", "as large as the snapshot needs");

        // All of it: StatefulSet, claims, policy.
        s.api::<StatefulSet>().delete("web", &DeleteParams::default()).await.unwrap();
        gone(s, "web").await;
        lose(s, |_| true).await;
        s.api::<StatefulSetBackup>().delete("nightly", &DeleteParams::default()).await.unwrap();
        s.restore("all", "web", &json!({})).await.expect(0);
        let status = s.restored("all").await;
        assert_eq!(status.phase, Some(RestorePhase::Completed));
        assert!(status.message.unwrap().contains("does not exist"), "it says that no StatefulSet is there");
        s.app(&app).await;
        s.all_say("web", "good").await;
        assert_eq!(s.snapshots().await.len(), 4, "the snapshots are all still there");
    })
    .await;
}

/// Deletes claims, and waits until their volumes are gone as well.
async fn lose(s: &Scene, which: impl Fn(&str) -> bool) {
    let claims = s.api::<PersistentVolumeClaim>();
    for claim in claims.list(&ListParams::default()).await.unwrap().items {
        if which(&claim.name_any()) {
            claims.delete(&claim.name_any(), &DeleteParams::default()).await.unwrap();
        }
    }
    until("the claims are gone", 90, async || {
        let left: Vec<_> = s.claims().await.into_keys().filter(|name| which(name)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn in_place_and_into_another_statefulset() {
    scene("inplace", &[With::Healthy(SIM)], async |s| {
        s.app(&WEB).await;
        s.policy("nightly", "web", &json!({})).await;
        s.paint("web", "good").await;
        s.backup("nightly", &[]).await.expect(0);
        s.paint("web", "bad").await;
        let ended = s.restore("here", "web", &json!({ "strategy": "InPlace" })).await.expect(0);
        assert!(!ended.audit.iter().any(|line| line.step == "Stage"), "nothing is staged in place");
        s.all_say("web", "good").await;
        s.carry_out("undo", "here").await.expect(0);
        s.ready("web").await;
        s.all_say("web", "bad").await;
        s.tidy("web").await;

        let copy = App { name: "copy", ..WEB };
        s.app(&copy).await;
        s.paint("copy", "empty").await;
        s.restore("copied", "copy", &json!({ "sourceStatefulSet": "web" })).await.expect(0);
        s.all_say("copy", "good").await;
        s.all_say("web", "bad").await;
        s.tidy("copy").await;
    })
    .await;
}
