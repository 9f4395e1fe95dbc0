//! The watcher's pages, as a kubelet and a Prometheus read them; and its end, as a kubelet has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Stdio;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::Role;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::story::done;
use crate::harness::driver::SIM;
use crate::harness::install::{Release, tool};
use crate::harness::make::App;
use crate::harness::{Scene, With, is_long, scene, skipped, until};

const WEB: App = App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class)] };

/// Status code, head and body of a page of the watcher's only pod; by the name of the port.
pub async fn page(release: &Release<'_>, port: &str, path: &str) -> Result<(u16, String, String), String> {
    let pods = release.watchers().await;
    let pod = pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none()).ok_or("no pod")?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).ok_or("no address")?;
    let ports = pod.spec.as_ref().unwrap().containers[0].ports.iter().flatten();
    let port = ports.clone().find(|one| one.name.as_deref() == Some(port)).unwrap().container_port;
    let address = SocketAddr::new(ip.parse().unwrap(), port.try_into().unwrap());
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let text = talk.await.map_err(|error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("half a page")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status")?;
    Ok((code, head.to_owned(), body.to_owned()))
}

type Labels = BTreeMap<String, String>;

/// Every sample of a page: its family, its labels, its value.
fn samples(page: &str) -> Vec<(String, Labels, f64)> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (family, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (key, value) = label.split_once('=').unwrap();
            (key.to_owned(), value.trim_matches('"').to_owned())
        };
        (family.to_owned(), labels.map(label).collect(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// What Prometheus itself has to say of it: nothing.
async fn lint(page: &str) {
    let Some(promtool) = tool("promtool") else {
        return skipped("there is no promtool: the page is not checked by it");
    };
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
    let said = check.wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.is_empty(), "promtool: {text}\n{page}");
}

#[tokio::test]
async fn the_pages_say_what_status_says() {
    scene("pages", &[With::Healthy(SIM)], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        s.app(&WEB).await;
        let hooks = json!({
            "schedule": "0 0 1 1 *",
            "preBackupHook": { "command": ["/bin/freeze"] }, "postBackupHook": { "command": ["/bin/thaw"] },
        });
        s.policy("yearly", "web", &hooks).await;
        s.policy("nowhere", "none", &json!({})).await;
        done(s, "yearly", 1).await;
        until("the other to fail", 60, async || {
            let last = json!(s.get("nowhere").await.status.unwrap_or_default().last_run);
            last["outcome"].is_string().then_some(()).ok_or(last.to_string())
        })
        .await;
        for path in ["/healthz", "/readyz"] {
            let (code, _, body) = page(&release, "health", path).await.unwrap();
            assert_eq!((code, body.as_str()), (200, "ok\n"), "{path}");
        }
        assert_eq!(page(&release, "health", "/metrics").await.unwrap().0, 404, "each page at its port");
        let text = until("the page to be up to date", 60, async || {
            let (code, head, text) = page(&release, "metrics", "/metrics").await?;
            assert_eq!(code, 200);
            assert!(head.contains("text/plain; version=0.0.4"), "{head}");
            let all = text.contains("sts_backup_active_runs 0") && text.contains("sts_backup_failures_total{");
            if all { Ok(text) } else { Err(text) }
        })
        .await;
        lint(&text).await;
        shows(s, &text).await;
        bounded(s, &text);
        release.uninstall().await;
    })
    .await;
}

/// Each figure is the one of the object's status.
async fn shows(s: &Scene, text: &str) {
    let samples = samples(text);
    let of = |family: &str, name: &str| {
        let family = format!("sts_backup_{family}");
        let found = samples.iter().find(|(f, labels, _)| *f == family && labels.get("name").is_none_or(|n| n == name));
        found.unwrap_or_else(|| panic!("no {family} of {name}:\n{text}")).2
    };
    let status = s.get("yearly").await.status.unwrap();
    let last = json!(status.last_run);
    let seconds = |text: &serde_json::Value| {
        text.as_str().unwrap().parse::<Timestamp>().unwrap().duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
    };
    let same = |family: &str, wanted: f64| {
        let found = of(family, "yearly");
        assert!((found - wanted).abs() < 1e-3, "{family}: {found}, and {wanted} in status");
    };
    same("last_success_timestamp_seconds", seconds(&json!(status.last_backup_time)));
    same("last_run_duration_seconds", seconds(&last["completionTime"]) - seconds(&last["startTime"]));
    same("last_run_freeze_seconds", last["freezeSeconds"].as_f64().unwrap());
    same("last_run_snapshots", 2.0);
    same("last_run_success", 1.0);
    same("next_run_timestamp_seconds", seconds(&json!(status.next_schedule_time)));
    same("due_lag_seconds", 0.0);
    same("run_active", 0.0);
    assert!(of("last_run_freeze_seconds", "yearly") > 0.0);
    assert!(of("last_run_success", "nowhere") < 0.5);
    let reason = json!(s.get("nowhere").await.status.unwrap().last_run)["reason"].as_str().unwrap().to_owned();
    let failed = |(family, labels, _): &&(String, Labels, f64)| {
        family == "sts_backup_failures_total" && labels.get("reason") == Some(&reason)
    };
    let failed = samples.iter().find(failed).unwrap_or_else(|| panic!("no failure of {reason}:\n{text}"));
    assert!(failed.2 >= 1.0, "{failed:?}");
    assert!(of("active_runs", "") < 0.5);
}

/// There are as many series as objects and reasons, however many runs there were: no label tells of a run.
fn bounded(s: &Scene, text: &str) {
    let mut names = BTreeSet::new();
    for (family, labels, _) in samples(text) {
        for (key, value) in &labels {
            let is_word = value.chars().all(|c| c.is_ascii_alphabetic());
            let bounded = match key.as_str() {
                "namespace" => *value == s.namespace,
                "name" => ["yearly", "nowhere"].contains(&value.as_str()),
                "kind" => value.starts_with("StatefulSet"),
                "reason" => is_word,
                "version" => value == env!("CARGO_PKG_VERSION"),
                _ => false,
            };
            assert!(bounded, "{family}: {key}={value}");
        }
        assert!(names.insert((family.clone(), labels.clone())), "{family} {labels:?} is there twice");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_until_it_is_back() {
    scene("ready", &[], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        let name = format!("{}-watcher", release.name);
        let role = s.api::<Role>().get(&name).await.unwrap();
        s.api::<Role>().delete(&name, &DeleteParams::default()).await.unwrap();
        // A watch that stands is not asked again for its rights before it ends, which is within five minutes.
        let patience = if is_long() { 360 } else { 60 };
        if !is_long() {
            release.kill_watchers().await;
        }
        let text = until("the page to name the right", patience, async || {
            let (code, _, text) = page(&release, "health", "/readyz").await?;
            if code == 503 && text.contains("statefulsetbackups") { Ok(text) } else { Err(format!("{code} {text}")) }
        })
        .await;
        let right = "the right to list and watch statefulsetbackups.backup.sts-backup.io is missing";
        let line = text.lines().find(|line| line.contains(right)).unwrap_or_else(|| panic!("{right}: {text}"));
        assert!(line.contains(&format!("statefulsetbackups.backup.sts-backup.io in {}:", s.namespace)), "{line}");
        // Restores are seen everywhere, so that they can go with their namespace.
        let there = ["jobs.batch", "statefulsetrestores"].iter().all(|kind| !text.contains(kind));
        assert!(there, "these rights are there: {text}");
        assert_eq!(page(&release, "health", "/healthz").await.unwrap().0, 200, "a restart would not help");
        until("the pod not to be ready", 60, async || {
            let ready = release.watchers().await.iter().map(is_ready).collect::<Vec<_>>();
            (ready == [false]).then_some(()).ok_or_else(|| format!("{ready:?}"))
        })
        .await;
        let metadata = json!({ "name": name, "labels": role.labels() });
        let again = serde_json::from_value(json!({ "metadata": metadata, "rules": role.rules })).unwrap();
        s.api::<Role>().create(&PostParams::default(), &again).await.unwrap();
        until("it to be ready again", 120, async || {
            let (code, _, text) = page(&release, "health", "/readyz").await?;
            (code == 200).then_some(()).ok_or(text)
        })
        .await;
        until("the pod to be ready", 60, async || {
            let ready = release.watchers().await.iter().map(is_ready).collect::<Vec<_>>();
            (ready == [true]).then_some(()).ok_or_else(|| format!("{ready:?}"))
        })
        .await;
        release.uninstall().await;
    })
    .await;
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// More than any pod gets: who did not hear would be killed only then.
const GRACE: u32 = 120;

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    scene("sigterm", &[], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        let name = release.watchers().await[0].name_any();
        let pods = release.api::<Pod>();
        // It is kept until its end has been looked at.
        let kept = |by: serde_json::Value| Patch::Merge(json!({ "metadata": { "finalizers": by } }));
        pods.patch(&name, &PatchParams::default(), &kept(json!(["sts-backup.io/tests"]))).await.unwrap();
        pods.delete(&name, &DeleteParams::default().grace_period(GRACE)).await.unwrap();
        let (told, end) = until("the container to end", u64::from(GRACE) + 60, async || {
            let pod = pods.get(&name).await.unwrap();
            let told = pod.metadata.deletion_timestamp.as_ref().unwrap().0 - SignedDuration::from_secs(GRACE.into());
            let status = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            let end = status.into_iter().next().and_then(|one| one.state?.terminated);
            end.map(|end| (told, end)).ok_or_else(|| "it runs".into())
        })
        .await;
        pods.patch(&name, &PatchParams::default(), &kept(json!(null))).await.unwrap();
        assert_eq!((end.exit_code, end.reason.as_deref()), (0, Some("Completed")));
        let took = end.finished_at.unwrap().0.duration_since(told);
        println!("it ended {took:#} after it was told, with a grace of {GRACE} s");
        // The kubelet's part is most of it.
        assert!(took * 10 < SignedDuration::from_secs(GRACE.into()), "{took:#}");
        release.uninstall().await;
    })
    .await;
}
