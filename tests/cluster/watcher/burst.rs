//! A thousand slots at one instant: how late the last of their Jobs are made, beside the CronJob controller's for as
//! many CronJobs at the same instant on the same API server.

use std::collections::BTreeMap;

use futures::stream::{StreamExt, iter};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PartialObjectMeta};
use serde_json::json;
use sts_backup::api::annotation;
use sts_backup::api::backup::StatefulSetBackup;

use super::beside::{SCHEDULED, cron_job};
use super::pages::page;
use crate::harness::install::Release;
use crate::harness::many::AT_ONCE;
use crate::harness::{Scene, is_long, scene, until};
use crate::kill::setting;

/// Longer than it takes to make all the objects before the slot.
const AHEAD: SignedDuration = SignedDuration::from_mins(4);

type Made = BTreeMap<String, Timestamp>;

/// When the Jobs of the slot were made, by name of what they are for.
async fn made(api: &kube::Api<Job>, slot: Timestamp, at: &str, of: impl Fn(&ObjectMeta) -> String) -> Made {
    let jobs = api.list_metadata(&ListParams::default()).await.unwrap().items;
    let mut made = Made::new();
    for PartialObjectMeta { metadata, .. } in jobs {
        let found = metadata.annotations.as_ref().and_then(|all| all.get(at)?.parse::<Timestamp>().ok());
        if found == Some(slot) {
            let twice = made.insert(of(&metadata), metadata.creation_timestamp.as_ref().unwrap().0);
            assert!(twice.is_none(), "a slot has one Job: {:?}", metadata.name);
        }
    }
    made
}

/// Seconds from the slot to each Job, in order. The API server's times are whole seconds, rounded down.
fn lags(made: &Made, slot: Timestamp) -> Vec<i64> {
    let mut lags: Vec<_> = made.values().map(|at| at.duration_since(slot).as_secs()).collect();
    lags.sort_unstable();
    lags
}

/// The smallest lag that 99 of 100 do not exceed.
fn p99(lags: &[i64]) -> i64 {
    lags[(lags.len() * 99).div_ceil(100) - 1]
}

#[tokio::test]
async fn a_thousand_slots_at_one_instant_are_jobs_long_before_the_cron_jobs_are() {
    if !is_long() {
        return;
    }
    let _load = super::LOAD.write().await;
    scene("burst", &[], async |s| {
        let count: usize = setting("SSB_SLOTS", 1000);
        // A pod that no node takes costs nothing. Three runs of a namespace may wait for theirs.
        let spaces: Vec<_> = iter(0..count.div_ceil(3))
            .map(async |n| s.another_namespace(&n.to_string(), &[]).await)
            .buffered(AT_ONCE)
            .collect()
            .await;
        let values = ["maxConcurrentRuns=2000", "runner.nodeSelector.no=where"];
        let Some(release) = s.install(&values).await else { return };
        release.scale(0).await;
        let slot = (Timestamp::now() + AHEAD).as_second() / 60 * 60;
        let slot = Timestamp::from_second(slot).unwrap();
        let berlin = slot.to_zoned(jiff::tz::TimeZone::get("Europe/Berlin").unwrap());
        let schedule = berlin.strftime("%-M %-H %-d %-m *").to_string();
        let fields =
            json!({ "managedBy": format!("{}/{}", release.namespace, release.name), "nextScheduleTime": slot });
        let cron_jobs = iter(0..count).map(|n| {
            let schedule = &schedule;
            async move { drop(s.create(&cron_job(&format!("cron-{n:05}"), schedule, "Europe/Berlin")).await) }
        });
        let cron_jobs = cron_jobs.buffer_unordered(AT_ONCE).for_each(async |()| {});
        tokio::join!(s.many_among(&spaces, 0..count, &schedule, false, &fields), cron_jobs);
        release.scale(1).await;
        let wanted = format!("sts_backup_objects{{kind=\"StatefulSetBackup\"}} {count}\n");
        until("all policies to be seen", 60, async || {
            let (_, _, text) = page(&release, "metrics", "/metrics").await?;
            text.contains(&wanted).then_some(()).ok_or(text.lines().take(9).collect())
        })
        .await;
        let left = slot.duration_since(Timestamp::now());
        assert!(left > SignedDuration::from_secs(10), "making them took too long: {left:#} left");
        let before = release.api::<Job>().list_metadata(&ListParams::default()).await.unwrap().items.len();
        assert_eq!(before, 0, "nothing is due before the slot");
        measure(s, &release, slot, count).await;
        clear(s, &release, &spaces).await;
        release.uninstall().await;
    })
    .await;
}

/// As many Jobs are there. It is asked so that the answer costs the API server little.
async fn there(api: &kube::Api<Job>, count: usize, seconds: u64) {
    until("all Jobs to be made", seconds, async || {
        let some = api.list_metadata(&ListParams::default().limit(1)).await.unwrap();
        let more = some.metadata.remaining_item_count.unwrap_or(0);
        let seen = some.items.len() + usize::try_from(more).unwrap();
        (seen >= count).then_some(()).ok_or_else(|| seen.to_string())
    })
    .await;
}

async fn measure(s: &Scene, release: &Release<'_>, slot: Timestamp, count: usize) {
    let (ours, theirs) = (release.api::<Job>(), s.api::<Job>());
    there(&ours, count, 600).await;
    there(&theirs, count, 900).await;
    let name = |meta: &ObjectMeta| meta.labels.as_ref().unwrap()["backup.sts-backup.io/name"].clone();
    let ours = made(&ours, slot, annotation::SLOT, name).await;
    let name = |meta: &ObjectMeta| meta.owner_references.as_ref().unwrap()[0].name.clone();
    let theirs = made(&theirs, slot, SCHEDULED, name).await;
    assert_eq!((ours.len(), theirs.len()), (count, count), "of the slot");
    let (ours, theirs) = (lags(&ours, slot), lags(&theirs, slot));
    for (who, lags) in [("sts-backup", &ours), ("CronJob controller", &theirs)] {
        let (first, last) = (lags[0], lags[lags.len() - 1]);
        println!("{who}: {count} Jobs, first {first} s, p99 {} s, last {last} s after the slot", p99(lags));
    }
    // Ours is taken a second longer than was seen, for the rounding.
    assert!((p99(&ours) + 1) * 10 <= p99(&theirs), "{} s and {} s", p99(&ours), p99(&theirs));
}

async fn clear(s: &Scene, release: &Release<'_>, spaces: &[String]) {
    release.scale(0).await;
    let (how, all) = (DeleteParams::background(), ListParams::default());
    s.api::<CronJob>().delete_collection(&how, &all).await.unwrap();
    for space in spaces {
        let api: kube::Api<StatefulSetBackup> = kube::Api::namespaced(s.client.clone(), space);
        api.delete_collection(&how, &all).await.unwrap();
    }
    for api in [s.api::<Job>(), release.api::<Job>()] {
        api.delete_collection(&how, &all).await.unwrap();
    }
    until("the Jobs to go", 300, async || {
        let left = release.api::<Job>().list_metadata(&all).await.unwrap().items;
        left.is_empty().then_some(()).ok_or_else(|| format!("{} and {}", left.len(), left[0].name_any()))
    })
    .await;
}
