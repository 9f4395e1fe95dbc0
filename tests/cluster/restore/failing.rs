//! What fails after the plan: the old volumes come back, or, where people want to look first, nothing more is changed.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sts_backup::api::condition::{self, ConditionType};
use sts_backup::api::restore::RestorePhase;

use super::WEB;
use crate::harness::driver::SIM;
use crate::harness::{Scene, With, scene, until};

/// Pods that are Ready as long as the data is not the one that was backed up.
async fn picky(s: &Scene) {
    let mut manifest = WEB.manifest();
    let container = &mut manifest.spec.template.spec.as_mut().unwrap().containers[0];
    let probe = json!({ "exec": { "command": ["sh", "-c", "! grep -q old /a/word"] }, "periodSeconds": 1 });
    container.readiness_probe = Some(serde_json::from_value(probe).unwrap());
    s.app_of(&manifest).await;
    s.policy("nightly", "web", &json!({})).await;
    // Backed up with a word that will never be Ready: no hooks, so that nobody minds.
    s.paint("web", "old").await;
    s.backup("nightly", &[]).await.expect(0);
    s.paint("web", "new").await;
    s.ready("web").await;
}

async fn failed(s: &Scene, name: &str, more: Value, reason: &str) -> String {
    let ended = s.restore(name, "web", &more).await.expect(10);
    let status = s.restored(name).await;
    assert_eq!(status.phase, Some(RestorePhase::Failed));
    let ready = condition::get(&status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, reason, "{status:?}");
    ended.stderr
}

#[tokio::test]
async fn pods_that_never_become_ready_turn_it_back_or_are_held() {
    scene("notready", &[With::Healthy(SIM)], async |s| {
        picky(s).await;
        let before = s.claims().await;
        let said = failed(s, "back", json!({ "readyTimeoutSeconds": 20 }), "ReadyTimeout").await;
        assert!(said.contains("web-0") && said.contains("spec.readyTimeoutSeconds"), "{said}");
        s.ready("web").await;
        s.all_say("web", "new").await;
        let volumes = |claims: &crate::harness::restore::Claims| {
            claims.iter().map(|(name, (_, volume))| (name.clone(), volume.clone())).collect::<Vec<_>>()
        };
        assert_eq!(volumes(&s.claims().await), volumes(&before), "the old volumes are back");
        assert_eq!(s.tidy("web").await.len(), 4, "the restored ones are kept for a look");
        let events = s.events("StatefulSetRestore", "back").await;
        assert_eq!(events.last().unwrap().0, "RolledBack");

        let more = json!({ "readyTimeoutSeconds": 20, "onFailure": "Hold" });
        let said = failed(s, "held", more, "Held").await;
        assert!(said.contains(&format!("sts-backup undo {}/held", s.namespace)), "the exact command: {said}");
        // Whoever asks for another run meanwhile is told who bars it.
        let barred = s.restore("other", "web", &json!({ "snapshotNames": [] })).await.expect(10);
        assert!(barred.stderr.starts_with("LockedByOpenRun: "), "{}", barred.stderr);
        assert!(barred.stderr.contains("held"), "{}", barred.stderr);
        s.carry_out("undo", "held").await.expect(0);
        s.ready("web").await;
        s.all_say("web", "new").await;
        assert_eq!(volumes(&s.claims().await), volumes(&before));
        s.tidy("web").await;
    })
    .await;
}

#[tokio::test]
async fn pods_that_do_not_stop_and_claims_that_do_not_go_lose_nothing() {
    scene("stuck", &[With::Healthy(SIM)], async |s| {
        s.app(&WEB).await;
        s.policy("nightly", "web", &json!({})).await;
        s.paint("web", "old").await;
        s.backup("nightly", &[]).await.expect(0);
        s.paint("web", "new").await;
        let before = s.claims().await;

        let hold = |on: bool| {
            Patch::Merge(
                json!({ "metadata": { "finalizers": if on { json!(["example.com/hold"]) } else { json!(null) } } }),
            )
        };
        let pods = s.api::<Pod>();
        pods.patch("web-1", &PatchParams::default(), &hold(true)).await.unwrap();
        let said = failed(s, "pods", json!({ "stopTimeoutSeconds": 6 }), "StopTimeout").await;
        assert!(said.contains("web-1") && said.contains("spec.stopTimeoutSeconds"), "{said}");
        assert_eq!(s.claims().await, before, "no claim went");
        pods.patch("web-1", &PatchParams::default(), &hold(false)).await.unwrap();
        s.ready("web").await;
        assert_eq!(s.api::<StatefulSet>().get("web").await.unwrap().spec.replicas, Some(2));
        s.all_say("web", "new").await;
        s.tidy("web").await;

        // A claim that somebody takes hold of in the midst: it is waited for, never forced.
        s.request("claims", "web", &json!({ "pvcDeletionTimeoutSeconds": 4 })).await;
        let run = s.start_restore("restore", "claims", &[]);
        until("the pods stop", 90, async || {
            let phase = s.restored("claims").await.phase;
            if phase == Some(RestorePhase::ScalingDown) { Ok(()) } else { Err(format!("{phase:?}")) }
        })
        .await;
        let claims = s.api::<PersistentVolumeClaim>();
        let both = json!({ "metadata": { "finalizers": ["kubernetes.io/pvc-protection", "example.com/hold"] } });
        claims.patch("a-web-0", &PatchParams::default(), &Patch::Merge(both)).await.unwrap();
        until("it turns back", 120, async || {
            let status = s.restored("claims").await;
            let reason = status.run.and_then(|run| run.reason).map(|reason| reason.to_string());
            if reason.as_deref() == Some("PvcDeletionTimeout") { Ok(()) } else { Err(format!("{:?}", status.phase)) }
        })
        .await;
        let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        claims.patch("a-web-0", &PatchParams::default(), &free).await.unwrap();
        let ended = run.ended().await.expect(10);
        assert!(ended.stderr.contains("a-web-0"), "{}", ended.stderr);
        s.ready("web").await;
        s.all_say("web", "new").await;
        s.tidy("web").await;
    })
    .await;
}
