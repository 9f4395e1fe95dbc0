//! The freeze itself: every cut lies inside every pod's own freeze, and no pod waits for an upload.

use std::time::Duration;

use futures::future::join_all;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use sts_backup::api::annotation;
use sts_backup::api::shared::{Consistency, IntentPhase};
use sts_backup::api::snapshot::VolumeSnapshotClass;

use super::{hooks, hooks_and, one, sh, slow, small};
use crate::harness::driver::{Entry, SIM, TWO};
use crate::harness::make::{App, is_ready, word};
use crate::harness::run::whole;
use crate::harness::{Scene, With, scene, until};

const PODS: [&str; 3] = ["web-0", "web-1", "web-2"];

#[tokio::test]
async fn every_cut_lies_inside_every_pods_freeze_and_no_pod_waits_for_readiness() {
    let slow = With::Faulty(TWO, json!({ "cutDelay": "2s", "readyDelay": "30s" }));
    scene("frozen", &[slow], async |s| {
        let templates = [("a", TWO.class), ("b", TWO.class), ("c", TWO.class)];
        s.app(&App { name: "web", replicas: 3, start: 0, templates: &templates }).await;
        s.policy("nightly", "web", &hooks()).await;
        let run = s.start_backup("nightly", &[]);
        until("the record of the cut", 120, async || {
            let run = s.get("nightly").await.status.and_then(|status| status.run?.intent);
            let phase = run.map(|intent| intent.phase);
            (phase == Some(IntentPhase::Cut)).then_some(()).ok_or_else(|| format!("{phase:?}"))
        })
        .await;
        let snapshots = s.snapshots().await;
        assert_eq!(snapshots.len(), 9);
        assert!(!snapshots.iter().any(is_ready), "the application stood still until a snapshot was ready");
        let cuts = TWO.cuts(&s.volumes().await);
        assert_eq!(cuts.len(), 9);
        let windows = join_all(PODS.map(|pod| window(s, pod))).await;
        enclosed(&cuts, &windows);
        for pod in PODS {
            assert!(!s.is_frozen(pod).await, "{pod} is thawed as soon as all is cut");
        }

        run.ended().await.expect(0);
        whole(s, "nightly", 1).await;
        let last = s.get("nightly").await.status.unwrap().last_run.unwrap();
        assert_eq!(last.consistency, Some(Consistency::Frozen));
        let longest = windows.iter().map(|(_, post)| post).max().unwrap() - windows.iter().map(|w| w.0).min().unwrap();
        let told = last.freeze_seconds.unwrap();
        assert!(told >= std::time::Duration::from_nanos(longest.unsigned_abs()).as_secs_f64(), "{told} < {longest} ns");
        assert!(told < 30.0, "no freeze lasts until readiness: {told}");
        for snapshot in s.snapshots().await {
            assert_eq!(word(&snapshot, annotation::CONSISTENCY), "Frozen");
        }
        println!("frozen for {told:.2} s, cut within {:.3} s", last.skew_seconds.unwrap());
        same_content(s).await;
    })
    .await;
}

/// The one freeze of the pod: from when it stood still to when its thaw began.
pub async fn window(s: &Scene, pod: &str) -> (i64, i64) {
    let (pre, post) = (s.instants(pod, "pre").await, s.instants(pod, "post").await);
    assert_eq!((pre.len(), post.len()), (1, 1), "{pod}: one freeze, one thaw");
    (pre[0], post[0])
}

pub fn enclosed(cuts: &[Entry], windows: &[(i64, i64)]) {
    for cut in cuts {
        for (pod, (pre, post)) in windows.iter().enumerate() {
            assert!(*pre < cut.begin && cut.end < *post, "pod {pod} was frozen from {pre} to {post}, but {cut:?}");
        }
    }
}

/// What lies in the snapshots: the three volumes of a pod have the same number, which nothing but a freeze can do.
async fn same_content(s: &Scene) {
    let mut numbers: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for snapshot in s.snapshots().await {
        let handle = s.content(&snapshot).await.unwrap().status.unwrap().snapshot_handle.unwrap();
        let number = std::fs::read_to_string(TWO.snapshot(&handle).join("counter")).unwrap();
        numbers.entry(word(&snapshot, sts_backup::api::label::ORDINAL).to_owned()).or_default().push(number);
    }
    for (ordinal, numbers) in numbers {
        assert!(numbers.iter().all(|number| *number == numbers[0]), "pod {ordinal}: {numbers:?}");
    }
}

#[tokio::test]
async fn hooks_enter_the_container_that_is_asked_for_and_the_default_one_else() {
    scene("container", &[With::Healthy(SIM)], async |s| {
        let mut app = small("web", 1, &one(SIM)).manifest();
        let pod = app.spec.template.spec.as_mut().unwrap();
        let first = pod.containers[0].clone();
        for name in ["second", "third"] {
            let mut other = first.clone();
            other.name = name.into();
            other.command =
                Some(vec!["sh".into(), "-c".into(), "trap 'exit 0' TERM; while :; do sleep 1; done".into()]);
            pod.containers.push(other);
        }
        let mut beside = first.clone();
        beside.name = "beside".into();
        beside.restart_policy = Some("Always".into());
        beside.command = Some(vec!["sh".into(), "-c".into(), "trap 'exit 0' TERM; while :; do sleep 1; done".into()]);
        pod.init_containers = Some(vec![beside]);
        pod.volumes = Some(vec![
            serde_json::from_value(json!({ "name": "shared", "persistentVolumeClaim": { "claimName": "shared" } }))
                .unwrap(),
        ]);
        let meta = app.spec.template.metadata.as_mut().unwrap();
        let default = ("kubectl.kubernetes.io/default-container".to_owned(), "second".to_owned());
        meta.annotations = Some([default].into());
        s.create::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(
            &serde_json::from_value(crate::harness::make::claim("shared", SIM.class)).unwrap(),
        )
        .await;
        s.app_of(&app).await;
        let named = |name: &str| json!({ "command": ["true"], "containerName": name });
        s.policy("default", "web", &json!({ "preBackupHook": { "command": ["true"] } })).await;
        s.policy("named", "web", &json!({ "preBackupHook": named("third"), "postBackupHook": named("app") })).await;
        s.policy("sidecar", "web", &json!({ "preBackupHook": named("beside") })).await;
        for (policy, expected) in
            [("default", "Pre second"), ("named", "Pre third, Post app"), ("sidecar", "Pre beside")]
        {
            let ended = s.backup(policy, &[]).await.expect(0);
            let hooks = ended.audit.iter().filter(|line| line.verb == "exec");
            let entered: Vec<_> =
                hooks.map(|line| format!("{} {}", line.step, line.container.as_deref().unwrap())).collect();
            assert_eq!(entered.join(", "), expected);
        }
        let message = s.get("default").await.status.unwrap().message.unwrap();
        assert!(message.contains("claim shared, which the pods mount outside volumeClaimTemplates"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_freeze_ends_after_its_longest_time() {
    scene("longest", &[slow()], async |s| {
        let templates = one(TWO);
        s.app(&small("cut", 1, &templates)).await;
        s.app(&small("pre", 2, &templates)).await;
        s.policy("cut", "cut", &hooks_and(&json!({ "maxFreezeSeconds": 3 }))).await;
        let patient = sh(&format!("{}; sleep 4", super::FREEZE));
        s.policy("pre", "pre", &hooks_and(&json!({ "maxFreezeSeconds": 3, "preBackupHook": patient }))).await;
        let (cut, pre) = futures::join!(s.backup("cut", &[]), s.backup("pre", &[]));
        for (ended, what) in [(&cut, "was not cut"), (&pre, "the pre hook of pod pre-0 had not ended")] {
            assert_eq!(ended.code, Some(10), "{ended:?}");
            let sentence = &ended.stderr;
            assert!(sentence.starts_with("FreezeTooLong: ") && sentence.contains(what), "{sentence}");
            assert!(sentence.contains("within spec.maxFreezeSeconds (3 s)"), "{sentence}");
        }
        assert!(s.instants("pre-1", "pre").await.is_empty(), "no other pod is frozen after that");
        for app in ["cut", "pre"] {
            s.runs_free(app).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_class_that_asks_for_it_keeps_the_pods_frozen_until_its_snapshots_are_ready() {
    const DELAY: i64 = 5;
    let slow = With::Faulty(TWO, json!({ "readyDelay": format!("{DELAY}s") }));
    scene("thaw-at", &[slow], async |s| {
        s.app(&small("web", 1, &one(TWO))).await;
        let class = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": { "name": s.namespace, "annotations": { annotation::THAW_AT: "Ready" } },
            "driver": TWO.name, "deletionPolicy": "Delete",
        });
        let api: Api<VolumeSnapshotClass> = Api::all(s.client.clone());
        api.patch(&s.namespace, &PatchParams::apply("sts-backup/tests"), &Patch::Apply(class)).await.unwrap();
        s.policy("nightly", "web", &hooks_and(&json!({ "volumeSnapshotClassName": s.namespace }))).await;
        s.backup("nightly", &[]).await.expect(0);
        api.delete(&s.namespace, &DeleteParams::default()).await.unwrap();
        let cuts = TWO.cuts(&s.volumes().await);
        assert_eq!(cuts.len(), 1);
        let (_, post) = window(s, "web-0").await;
        let after = Duration::from_nanos((post - cuts[0].cut).unsigned_abs());
        assert!(
            post > cuts[0].cut && after >= Duration::from_secs(DELAY.unsigned_abs()),
            "thawed {after:?} after the cut"
        );
        whole(s, "nightly", 1).await;
        s.runs_free("web").await;
    })
    .await;
}
