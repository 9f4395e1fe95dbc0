//! Beside the CronJob controller: the same expressions at the same instants, whatever becomes of the watcher.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use sts_backup::api::annotation;

use super::story::done;
use crate::harness::driver::SIM;
use crate::harness::install::Release;
use crate::harness::make::App;
use crate::harness::run::runs;
use crate::harness::{Scene, With, is_long, scene, until};
use crate::kill::setting;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// What the CronJob controller writes on its Jobs.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

type Slots = BTreeSet<Timestamp>;

/// A CronJob whose Jobs never run.
pub fn cron_job(name: &str, schedule: &str, zone: &str) -> CronJob {
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "none", "image": "localhost/app:1" }] });
    let job = json!({ "spec": { "suspend": true, "template": { "spec": pod } } });
    let spec = json!({ "schedule": schedule, "timeZone": zone, "jobTemplate": job });
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
}

/// The slots of the Jobs of each CronJob.
async fn theirs(s: &Scene) -> BTreeMap<String, Slots> {
    let mut slots: BTreeMap<String, Slots> = BTreeMap::new();
    for job in s.api::<Job>().list(&ListParams::default()).await.unwrap().items {
        if let (Some(at), [owner, ..]) = (job.annotations().get(SCHEDULED), job.owner_references()) {
            slots.entry(owner.name.clone()).or_default().insert(at.parse().unwrap());
        }
    }
    slots
}

/// The slots of the Jobs of each policy, but for its first, which is the instant of its creation.
async fn ours(release: &Release<'_>) -> BTreeMap<String, Slots> {
    let mut slots: BTreeMap<String, Slots> = BTreeMap::new();
    for job in release.api::<Job>().list(&ListParams::default()).await.unwrap().items {
        let args = json!(job.spec.as_ref().unwrap().template)["spec"]["containers"][0]["args"].to_string();
        assert_eq!(job.annotations()[annotation::ATTEMPT], "1", "{}", job.name_any());
        if !args.contains("\"first\"") {
            let name = job.labels()["backup.sts-backup.io/name"].clone();
            let new = slots.entry(name).or_default().insert(job.annotations()[annotation::SLOT].parse().unwrap());
            assert!(new, "a slot has one Job");
        }
    }
    slots
}

/// Those in the window, which begins when all is there.
fn within(slots: &BTreeMap<String, Slots>, name: &str, from: Timestamp, to: Timestamp) -> Slots {
    slots.get(name).into_iter().flatten().copied().filter(|slot| (from..=to).contains(slot)).collect()
}

async fn until_minute(end: Timestamp) {
    // The instant itself is what is waited for; another quarter of a minute lets both sides make the Jobs of it.
    let late = end + SignedDuration::from_secs(15);
    while Timestamp::now() < late {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Fifty expressions that all fire, each otherwise, at least once in ten minutes.
fn expressions() -> Vec<(String, &'static str)> {
    let zones = ["Etc/UTC", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "Europe/Berlin"];
    let minutes = [
        "* * * * *",
        "*/2 * * * *",
        "1-59/2 * * * *",
        "*/3 * * * *",
        "? * ? * ?",
        "0-59/4 * * * *",
        "*/5 */1 * * *",
        "0,5,10,15,20,25,30,35,40,45,50,55 * * * *",
        "* 0-23 1-31 JAN-DEC SUN-SAT",
        "*/1 * 1,15 * 0-6",
    ];
    minutes.iter().flat_map(|text| zones.iter().map(|zone| ((*text).to_owned(), *zone))).collect()
}

#[tokio::test]
async fn fifty_schedules_fire_as_the_cron_jobs_do() {
    if !is_long() {
        return;
    }
    let _load = super::LOAD.read().await;
    scene("cronjobs", &[], async |s| {
        let Some(release) = s.install(&["maxConcurrentRuns=20"]).await else { return };
        let all = expressions();
        join_all(all.iter().enumerate().map(|(n, (schedule, zone))| async move {
            let name = format!("s{n}");
            // Without its StatefulSet a run ends in a second, refused; nothing is pruned.
            let more = json!({ "schedule": schedule, "timeZone": zone, "failedJobsHistoryLimit": 100 });
            s.policy(&name, "none", &more).await;
            s.create(&cron_job(&name, schedule, zone)).await;
        }))
        .await;
        let from = Timestamp::now();
        let to = from + MINUTE * setting::<i32>("SSB_MINUTES", 10);
        until_minute(to).await;
        until("all of the window to be launched", 120, async || {
            let (ours, theirs) = (ours(&release).await, theirs(s).await);
            let mut differ = vec![];
            for (n, (schedule, zone)) in all.iter().enumerate() {
                let name = format!("s{n}");
                let of = |slots| within(slots, &name, from, to);
                if of(&ours) != of(&theirs) {
                    differ.push(format!("{schedule} {zone}: {:?} and {:?}", of(&ours), of(&theirs)));
                }
            }
            differ.is_empty().then_some(()).ok_or_else(|| differ.join("\n"))
        })
        .await;
        let theirs = theirs(s).await;
        let count: usize = (0..all.len()).map(|n| within(&theirs, &format!("s{n}"), from, to).len()).sum();
        println!("{} schedules, {count} slots, the same", all.len());
        assert!(count > 150, "{count}");
        release.uninstall().await;
    })
    .await;
}

#[tokio::test]
async fn a_watcher_that_is_killed_all_the_time_misses_no_minute() {
    if !is_long() {
        return;
    }
    let _load = super::LOAD.read().await;
    scene("minutes", &[With::Healthy(SIM)], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        let (minutes, kills): (i32, i32) = (setting("SSB_MINUTES", 5), setting("SSB_KILLS", 20));
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("often", "web", &json!({ "schedule": "* * * * *", "successfulJobsHistoryLimit": 100 })).await;
        done(s, "often", 1).await;
        s.create(&cron_job("often", "* * * * *", "Etc/UTC")).await;
        let from = Timestamp::now();
        let to = from + MINUTE * minutes;
        for n in 0..kills {
            let at = from + SignedDuration::try_from(to - from).unwrap() * n / kills;
            // The instant of the kill is what is tested.
            while Timestamp::now() < at {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            release.kill_watchers().await;
        }
        until_minute(to).await;
        until("every minute to have its run", 180, async || {
            let of = |slots| within(slots, "often", from, to);
            let (ours, theirs) = (of(&ours(&release).await), of(&theirs(s).await));
            let whole = ours == theirs && ours.len() == usize::try_from(minutes).unwrap();
            whole.then_some(()).ok_or_else(|| format!("{ours:?} and {theirs:?}"))
        })
        .await;
        println!("{kills} kills, {minutes} minutes, the same slots");
        // Every minute there is a Job whose run has not begun yet.
        until("one run for each Job", 180, async || {
            let (runs, jobs) = (runs(s, "often").await.len(), release.jobs("backup", "often").await.len());
            (runs == jobs).then_some(()).ok_or_else(|| format!("{runs} runs, {jobs} Jobs"))
        })
        .await;
        release.api::<Job>().delete_collection(&DeleteParams::background(), &ListParams::default()).await.unwrap();
        release.uninstall().await;
    })
    .await;
}
