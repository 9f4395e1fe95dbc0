//! How long the application stands still, against the least that it could: the same hooks around a bare parallel cut,
//! made by hand with the same client. Nobody's own figure is believed: when a pod was frozen and thawed its hooks have
//! written down by the pod's clock, and when a volume was cut stands in the driver's journal.
//!
//! With 3 and with 9 claims, on a storage that cuts at once and on one that takes 2 s. The bar is 1.2 times as long where a
//! cut takes 2 s; where it takes none, what is left is our own share, and it is printed.
//!
//! Needs `SSB_TEST_KUBECONFIG` and the test driver (`just bench`).

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unused_imports, missing_docs)]

#[path = "../tests/cluster/harness/mod.rs"]
mod harness;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

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

const ROUNDS: usize = 5;
const REPLICAS: u32 = 3;
/// How long the driver takes for a cut, and how many times as long as bare a freeze may be then.
const STORAGES: [(&str, Option<f64>); 2] = [("0s", None), ("2s", Some(1.2))];

/// Each hook writes down this instant in nanoseconds; the pod's busybox knows microseconds.
const NS: &str = "echo | ts %.s | tr -d '. ' | sed 's/$/000/'";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let above = RefCell::new(Vec::new());
    runtime.block_on(async {
        for (n, (delay, bar)) in STORAGES.into_iter().enumerate() {
            scene(&format!("bench{n}"), &[With::Faulty(TWO, json!({ "cutDelay": delay }))], async |s| {
                for templates in [&["a"][..], &["a", "b", "c"]] {
                    let ratio = compare(s, templates, delay).await;
                    if bar.is_some_and(|bar| ratio > bar) {
                        above.borrow_mut().push(format!("{delay}: {ratio:.3}"));
                    }
                }
            })
            .await;
        }
    });
    assert!(above.borrow().is_empty(), "above the bar: {}", above.borrow().join(", "));
}

fn freeze() -> String {
    format!("freeze && {NS} >> /a/pre")
}

fn thaw() -> String {
    format!("{NS} >> /a/post; thaw")
}

/// What one freeze was, in seconds: from when the first pod stood still until the last one's thaw began, and from the
/// first volume's cut to the last one's.
#[derive(Debug, Clone, Copy)]
struct Freeze {
    still: f64,
    skew: f64,
}

/// Medians of both, taken in turn on the same pods: the ratio of the freezes.
async fn compare(s: &Scene, templates: &[&str], delay: &str) -> f64 {
    let claims = templates.len() * usize::try_from(REPLICAS).unwrap();
    let name = format!("web{claims}");
    let classes: Vec<_> = templates.iter().map(|template| (*template, TWO.class)).collect();
    s.app(&App { name: &name, replicas: REPLICAS, start: 0, templates: &classes }).await;
    let hook = |script: &str| json!({ "command": ["sh", "-c", script] });
    s.policy(&name, &name, &json!({ "preBackupHook": hook(&freeze()), "postBackupHook": hook(&thaw()) })).await;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        by_hand(s, &name, templates, round).await;
        bare.push(measured(s, &name, claims).await);
        s.backup(&name, &[]).await.expect(0);
        ours.push(measured(s, &name, claims).await);
    }
    let of = |all: &[Freeze], part: fn(&Freeze) -> f64| median(all.iter().map(part).collect());
    let (still, least) = (of(&ours, |one| one.still), of(&bare, |one| one.still));
    println!(
        "cuts of {delay}, {claims} claims: freeze {still:.3} s, bare {least:.3} s, ratio {:.3}; the cuts lie {:.3} s apart, bare {:.3} s",
        still / least,
        of(&ours, |one| one.skew),
        of(&bare, |one| one.skew),
    );
    still / least
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The newest freeze, by the pods' clocks and the driver's journal.
async fn measured(s: &Scene, app: &str, claims: usize) -> Freeze {
    let (mut pre, mut post) = (vec![], vec![]);
    for ordinal in 0..REPLICAS {
        let pod = format!("{app}-{ordinal}");
        let last =
            async |file: &str| s.exec(&pod, &format!("tail -n 1 /a/{file}")).await.trim().parse::<i64>().unwrap();
        pre.push(last("pre").await);
        post.push(last("post").await);
    }
    let (begin, end) = (*pre.iter().min().unwrap(), *post.iter().max().unwrap());
    let cuts: Vec<_> = TWO.cuts(&s.volumes().await).iter().map(|cut| cut.cut).filter(|cut| *cut > begin).collect();
    assert_eq!(cuts.len(), claims, "each volume was cut once in it");
    assert!(cuts.iter().all(|cut| *cut < end), "each of them in the freeze");
    Freeze { still: seconds(end - begin), skew: seconds(cuts.iter().max().unwrap() - cuts.iter().min().unwrap()) }
}

fn seconds(nanoseconds: i64) -> f64 {
    Duration::from_nanos(nanoseconds.unsigned_abs()).as_secs_f64()
}

/// Pod by pod frozen, every claim cut at once, pod by pod thawed; nothing is recorded, locked or proved.
async fn by_hand(s: &Scene, app: &str, templates: &[&str], round: usize) {
    let pods: Vec<_> = (0..REPLICAS).map(|ordinal| format!("{app}-{ordinal}")).collect();
    let contents: Api<VolumeSnapshotContent> = Api::all(s.client.clone());
    let mut cuts = pin!(watcher(contents, watcher::Config::default()).touched_objects());
    for pod in &pods {
        s.exec(pod, &freeze()).await;
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
        s.exec(pod, &thaw()).await;
    }
}
