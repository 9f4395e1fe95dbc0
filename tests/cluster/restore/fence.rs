//! While the volumes are swapped nobody starts a pod: not who scales, not who applies, not who replaces.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use serde_json::json;

use super::WEB;
use crate::harness::driver::SIM;
use crate::harness::{Scene, With, scene};

/// Ten times as fast as anybody writes.
const PACE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn no_pod_starts_before_the_data_is_in_place_whoever_writes() {
    scene("fenced", &[With::Healthy(SIM)], async |s| {
        s.app(&WEB).await;
        let born = s.api::<StatefulSet>().get("web").await.unwrap().uid();
        s.policy("nightly", "web", &json!({})).await;
        s.paint("web", "good").await;
        s.backup("nightly", &[]).await.expect(0);
        s.paint("web", "bad").await;
        let before: BTreeSet<_> = s.pod_uids("web").await.into_values().collect();

        let (over, denied) = (AtomicBool::new(false), Denied::default());
        let restored = async {
            let ended = s.restore("back", "web", &json!({})).await;
            s.ready("web").await;
            over.store(true, Ordering::Relaxed);
            ended
        };
        let (ended, seen, ..) = tokio::join!(
            restored,
            pods(s, &over),
            scale(s, &over, &denied),
            apply(s, &over, &denied),
            replace(s, &over, &denied)
        );
        ended.expect(0);
        s.all_say("web", "good").await;
        let set = s.api::<StatefulSet>().get("web").await.unwrap();
        assert_eq!((set.uid(), set.spec.replicas), (born, Some(2)), "the StatefulSet survives, with its replicas");
        let after: BTreeSet<_> = s.pod_uids("web").await.into_values().collect();
        assert_eq!(seen, before.union(&after).cloned().collect(), "no pod between the old ones and the new ones");
        for (who, count) in [("scale", &denied.scale), ("apply", &denied.apply), ("replace", &denied.replace)] {
            let count = count.load(Ordering::Relaxed);
            println!("{who}: denied {count} times");
            assert!(count > 0, "{who} was never denied: was there a fence?");
        }
        s.tidy("web").await;
    })
    .await;
}

#[derive(Default)]
struct Denied {
    scale: AtomicUsize,
    apply: AtomicUsize,
    replace: AtomicUsize,
}

fn count<T>(answer: &kube::Result<T>, denied: &AtomicUsize) {
    if let Err(kube::Error::Api(status)) = answer
        && status.message.contains("kept at 0 replicas")
    {
        denied.fetch_add(1, Ordering::Relaxed);
    }
}

/// The uids of all pods that there ever were.
async fn pods(s: &Scene, over: &AtomicBool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut objects = watcher(s.api::<Pod>(), Config::default()).touched_objects().boxed();
    while !over.load(Ordering::Relaxed) {
        if let Ok(Some(Ok(pod))) = tokio::time::timeout(PACE, objects.next()).await {
            seen.extend(pod.uid());
        }
    }
    seen
}

async fn scale(s: &Scene, over: &AtomicBool, denied: &Denied) {
    let two = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    while !over.load(Ordering::Relaxed) {
        count(&s.api::<StatefulSet>().patch_scale("web", &PatchParams::default(), &two).await, &denied.scale);
        tokio::time::sleep(PACE).await; // the pace of the writer
    }
}

async fn apply(s: &Scene, over: &AtomicBool, denied: &Denied) {
    let mut object = serde_json::to_value(WEB.manifest()).unwrap();
    (object["apiVersion"], object["kind"]) = ("apps/v1".into(), "StatefulSet".into());
    let params = PatchParams::apply("somebody").force();
    while !over.load(Ordering::Relaxed) {
        count(&s.api::<StatefulSet>().patch("web", &params, &Patch::Apply(&object)).await, &denied.apply);
        tokio::time::sleep(PACE).await; // the pace of the writer
    }
}

/// Deletes the StatefulSet as `kubectl replace --force` does, while it is at 0: by that very version, so that it cannot
/// be the one that the restore has just scaled up.
async fn replace(s: &Scene, over: &AtomicBool, denied: &Denied) {
    let api = s.api::<StatefulSet>();
    while !over.load(Ordering::Relaxed) {
        let set = api.get("web").await.unwrap();
        if set.spec.replicas == Some(0) {
            let only = Preconditions { uid: None, resource_version: set.resource_version() };
            let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
            count(&api.delete("web", &params).await, &denied.replace);
        }
        tokio::time::sleep(PACE).await; // the pace of the writer
    }
}
