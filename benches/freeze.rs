//! How long the application stands still, against the least that it could: the same hooks around a bare parallel cut,
//! made by hand with the same client. The bar: 1.2 times as long, with 3 and with 9 claims.
//!
//! Needs `SSB_TEST_KUBECONFIG` and the test driver (`just bench`). Prints the ratios, and fails above the bar.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unused_imports, missing_docs)]

#[path = "../tests/cluster/harness/mod.rs"]
mod harness;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use sts_backup::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

use crate::harness::driver::TWO;
use crate::harness::make::App;
use crate::harness::{Scene, With, scene};

/// What the harness asks for of the tests around it: our kinds, as the program generates them.
mod api {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{Patch, PatchParams};
    use kube::runtime::wait::{await_condition, conditions};
    use kube::{Api, Client};
    use serde_json::Value;

    pub async fn install(client: &Client, definition: &Value) {
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let name = definition["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("sts-backup/tests").force();
        api.patch(name, &params, &Patch::Apply(definition)).await.unwrap();
        await_condition(api, name, conditions::is_crd_established()).await.unwrap();
    }
}

const BAR: f64 = 1.2;
const ROUNDS: usize = 5;
const REPLICAS: u32 = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ratios = RefCell::new(Vec::new());
    runtime.block_on(async {
        // Much less than any real storage takes, so that our own share shows.
        let quick = With::Faulty(TWO, json!({ "cutDelay": "1s" }));
        scene("bench", &[quick], async |s| {
            for templates in [&["a"][..], &["a", "b", "c"]] {
                let ratio = compare(s, templates).await;
                ratios.borrow_mut().push(ratio);
            }
        })
        .await;
    });
    let above = ratios.take().into_iter().any(|ratio| ratio > BAR);
    assert!(!above, "above the bar of {BAR}");
}

/// Medians of both, taken in turn on the same pods.
async fn compare(s: &Scene, templates: &[&str]) -> f64 {
    let claims = templates.len() * usize::try_from(REPLICAS).unwrap();
    let name = format!("web{claims}");
    let classes: Vec<_> = templates.iter().map(|template| (*template, TWO.class)).collect();
    s.app(&App { name: &name, replicas: REPLICAS, start: 0, templates: &classes }).await;
    let hooks = json!({ "preBackupHook": { "command": ["freeze"] }, "postBackupHook": { "command": ["thaw"] } });
    s.policy(&name, &name, &hooks).await;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bare.push(by_hand(s, &name, templates, round).await.as_secs_f64());
        s.backup(&name, &[]).await.expect(0);
        ours.push(s.get(&name).await.status.unwrap().last_run.unwrap().freeze_seconds.unwrap());
    }
    let (ours, bare) = (median(ours), median(bare));
    println!("{claims} claims: freeze {ours:.3} s, bare cut with the same hooks {bare:.3} s, ratio {:.3}", ours / bare);
    ours / bare
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Pod by pod frozen, every claim cut at once, pod by pod thawed; nothing is recorded, locked or proved.
async fn by_hand(s: &Scene, app: &str, templates: &[&str], round: usize) -> Duration {
    let pods: Vec<_> = (0..REPLICAS).map(|ordinal| format!("{app}-{ordinal}")).collect();
    let contents: Api<VolumeSnapshotContent> = Api::all(s.client.clone());
    let mut cuts = pin!(watcher(contents, watcher::Config::default()).touched_objects());
    let begin = Instant::now();
    for pod in &pods {
        s.exec(pod, "freeze").await;
    }
    let claims = pods.iter().flat_map(|pod| templates.iter().map(move |template| format!("{template}-{pod}")));
    let made = join_all(claims.map(|claim| async move {
        let source = json!({ "persistentVolumeClaimName": claim });
        let object = json!({ "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": { "name": format!("bare-{claim}-{round}") },
            "spec": { "volumeSnapshotClassName": TWO.class, "source": source } });
        s.create::<VolumeSnapshot>(&serde_json::from_value(object).unwrap()).await.uid().unwrap()
    }));
    let mut missing: BTreeSet<String> = made.await.into_iter().collect();
    while !missing.is_empty() {
        let content = cuts.try_next().await.unwrap().unwrap();
        let status = content.status.unwrap_or_default();
        if status.creation_time.is_some() && status.snapshot_handle.is_some() {
            missing.remove(content.spec.volume_snapshot_ref.uid.as_deref().unwrap_or_default());
        }
    }
    for pod in &pods {
        s.exec(pod, "thaw").await;
    }
    begin.elapsed()
}
