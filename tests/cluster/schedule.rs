//! The API server's own CronJob is the reference of our schedules: both accept the same ones, and the same zones.

use std::fmt::Debug;

use futures::StreamExt;
use futures::stream::iter;
use k8s_openapi::api::batch::v1::CronJob;
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::{API_VERSION, NAME_MAX};
use sts_backup::plan::schedule::{Schedule, zone};

const ROWS: &str = include_str!("../data/cron-vectors.jsonl");
/// Not here: `posixrules` and `posix/UTC`, which are files of the API server's machine and no names of the database.
const ZONES: &[&str] = &[
    "Etc/UTC",
    "UTC",
    "utc",
    "GMT",
    "Europe/Berlin",
    "europe/berlin",
    "Europe/Kiev",
    "Europe/Kyiv",
    "US/Eastern",
    "America/Argentina/Buenos_Aires",
    "Etc/GMT+1",
    "Etc/GMT-14",
    "EST5EDT",
    "CET",
    "CEST",
    "Local",
    "local",
    "LOCAL",
    "Mars/Olympus",
    "Etc/Unknown",
    "Factory",
    "Europe/",
    "/Europe/Berlin",
    "../UTC",
    "Europe/../UTC",
    "+01:00",
    "-01:00",
    "UTC ",
    "",
    "Europe",
    "zone.tab",
];

/// Whether the API server would take it; nothing is stored.
async fn accepts<K>(client: &Client, object: Value) -> bool
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    match Api::<K>::namespaced(client.clone(), "default").create(&dry, &object).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 422 => false,
        Err(error) => panic!("{error}"),
    }
}

fn cron_job(schedule: &str, time_zone: &str) -> Value {
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "a", "image": "a" }] });
    let job = json!({ "spec": { "template": { "spec": pod } } });
    json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "a".repeat(NAME_MAX) },
        "spec": { "schedule": schedule, "timeZone": time_zone, "jobTemplate": job } })
}

fn backup(schedule: &str, time_zone: &str) -> Value {
    let target = json!({ "name": "web" });
    json!({ "apiVersion": API_VERSION, "kind": "StatefulSetBackup", "metadata": { "name": "a".repeat(NAME_MAX) },
        "spec": { "schedule": schedule, "timeZone": time_zone, "statefulSetRef": target } })
}

#[tokio::test]
async fn cron_job_and_we_accept_the_same_schedules() {
    let Some(client) = crate::api::cluster().await else { return };
    let texts =
        ROWS.lines().map(|row| serde_json::from_str::<Value>(row).unwrap()["expr"].as_str().unwrap().to_owned());
    let asked = iter(texts).map(|text| {
        let client = &client;
        async move {
            let theirs = accepts::<CronJob>(client, cron_job(&text, "Etc/UTC")).await;
            let schema = accepts::<StatefulSetBackup>(client, backup(&text, "Etc/UTC")).await;
            (text, theirs, schema)
        }
    });
    let answers: Vec<_> = asked.buffer_unordered(8).collect().await;
    assert_eq!(answers.len(), 2300);
    for (text, theirs, schema) in answers {
        let ours = Schedule::parse(&text, "Etc/UTC");
        assert_eq!(ours.is_ok(), theirs, "{text:?}: {ours:?}, CronJob: {theirs}");
        // The schema counts fields and leaves the rest to us.
        assert!(schema || ours.is_err(), "{text:?} is refused by the schema alone");
    }
}

#[tokio::test]
async fn cron_job_and_we_accept_the_same_zones() {
    let Some(client) = crate::api::cluster().await else { return };
    let mut differ = Vec::new();
    for name in ZONES {
        let theirs = accepts::<CronJob>(&client, cron_job("@daily", name)).await;
        let schema = accepts::<StatefulSetBackup>(&client, backup("@daily", name)).await;
        let ours = zone(name).map(drop);
        if ours.is_ok() != theirs || (ours.is_ok() && !schema) {
            differ.push(format!("{name:?}: CronJob {theirs}, schema {schema}, {ours:?}"));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}
