//! How much the watcher is: memory without policies, with a thousand and with ten thousand, while it lists them anew,
//! and what it does while nothing happens. It is the shipped program, in its pod, under its own rights.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use sts_backup::api::backup::StatefulSetBackup;
use tokio::time::sleep;

use super::pages::page;
use crate::harness::account::{copy_kubeconfig, token};
use crate::harness::expire::Expiry;
use crate::harness::install::{Release, tool};
use crate::harness::process::Process;
use crate::harness::{Scene, is_long, scene, skipped, until};

const MIB: u64 = 1024;
/// Policies, and the VmRSS in KiB that it must not exceed.
const BARS: [(usize, u64); 3] = [(0, 6 * MIB), (1_000, 8 * MIB), (10_000, 12 * MIB)];
/// Policies with which idling is measured, for so long.
const IDLE: (usize, Duration) = (1_000, Duration::from_mins(1));

/// The watcher that is there now, when it has read all lists and come to rest. None where its process is not to be seen.
async fn at_rest(release: &Release<'_>, policies: usize) -> Option<Process> {
    let wanted = format!("sts_backup_objects{{kind=\"StatefulSetBackup\"}} {policies}\n");
    until("all lists to be read", 300, async || {
        let (code, _, said) = page(release, "health", "/readyz").await?;
        let (_, _, text) = page(release, "metrics", "/metrics").await?;
        (code == 200 && text.contains(&wanted)).then_some(()).ok_or_else(|| format!("{code} {said}"))
    })
    .await;
    let found = Process::with(&format!("SSB_DEPLOYMENT={}", release.name));
    let Some(found) = found else {
        skipped("the processes of the cluster's containers are not to be seen from here");
        return None;
    };
    found.quiet().await;
    Some(found)
}

#[tokio::test]
async fn it_stays_small_and_idle() {
    if !is_long() {
        return;
    }
    let _load = super::LOAD.write().await;
    scene("scale", &[], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        let (mut there, mut missed) = (0, vec![]);
        for (policies, bar) in BARS {
            release.scale(0).await;
            let (begin, fields) =
                (Instant::now(), json!({ "managedBy": format!("{}/{}", release.namespace, release.name) }));
            s.many(there..policies, "0 2 * * *", true, &fields).await;
            println!("{} policies made in {:.0?}", policies - there, begin.elapsed());
            there = policies;
            release.scale(1).await;
            let Some(process) = at_rest(&release, policies).await else { return };
            let kib = |line| process.kib(line);
            let (all, own, file, peak) = (kib("VmRSS"), kib("RssAnon"), kib("RssFile"), kib("VmHWM"));
            println!("{policies} policies: VmRSS {all} KiB (RssAnon {own}, RssFile {file}), at most {peak}");
            if all > bar {
                missed.push(format!("{policies} policies: {all} KiB, the bar is {bar}"));
            }
            if policies == IDLE.0 {
                idles(&process).await;
            }
            if policies > IDLE.0 {
                lists_anew(s, &release, &process, policies).await;
            }
        }
        clear(s, &release).await;
        assert!(missed.is_empty(), "{}", missed.join("\n"));
        release.uninstall().await;
    })
    .await;
}

/// Nothing happens: it costs next to nothing to have it. The kubelet's questions are answered all the time.
async fn idles(process: &Process) {
    let (begin, before) = (Instant::now(), process.busy());
    sleep(IDLE.1).await;
    let part = process.busy().saturating_sub(before).as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("{} policies, idle: {:.4} % of a core", IDLE.0, part * 100.0);
    assert!(part <= 0.001, "{part}");
}

/// The same program under the same account, on a way on which its version can expire.
async fn lists_anew(s: &Scene, release: &Release<'_>, process: &Process, policies: usize) {
    let Some(kubectl) = tool("kubectl") else { return skipped("there is no kubectl: it is not made to list anew") };
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-shipped", s.namespace));
    process.program(&program);
    let account = token(&s.client, &release.namespace, &release.name).await;
    let way = Expiry::new(&kubectl, &account, "/statefulsetbackups?").await;
    let plain = copy_kubeconfig(&account, &format!("{}-plain", s.namespace), |config| {
        config["clusters"][0]["cluster"] = json!({ "server": way.server });
        config["users"][0]["user"] = json!({});
    });
    let environment = process.environment();
    let ours = environment.iter().filter(|one| one.starts_with("SSB_") && !one.contains("_ADDRESS="));
    let ours = ours.filter_map(|one| one.split_once('='));
    let environment: Vec<_> = ours.chain([("SSB_METRICS_ADDRESS", "off"), ("SSB_HEALTH_ADDRESS", "off")]).collect();
    let running = s.start_program(&program, &plain, &environment, &["watch"]);
    let other = Process::new(running.pid);
    let listed = async |times: usize| {
        until("the list", 120, async || (way.lists() >= times).then_some(()).ok_or_else(|| way.lists().to_string()))
            .await;
        other.quiet().await;
    };
    listed(1).await;
    let before = other.kib("VmRSS");
    other.forget_peak();
    way.expire();
    listed(2).await;
    let (after, peak) = (other.kib("VmRSS"), other.kib("VmHWM"));
    println!("{policies} policies listed anew: VmRSS {before} KiB before, {peak} at most, {after} after");
    running.signal("TERM").await;
    running.ended().await.expect(0);
    let _ = (std::fs::remove_file(program), std::fs::remove_file(plain), std::fs::remove_file(account));
    assert!(peak < before * 2, "{before} KiB became {peak}");
    assert!(way.lists() == 2, "once is enough");
}

/// At once, so that the namespaces need not look at each. The server gives up on a request after a minute, and has done a
/// part of it by then.
async fn clear(s: &Scene, release: &Release<'_>) {
    release.scale(0).await;
    let all = (DeleteParams::background(), ListParams::default());
    release.api::<Pod>().delete_collection(&all.0, &all.1).await.unwrap();
    let policies = s.api::<StatefulSetBackup>();
    until("the policies to go", 600, async || {
        let asked = policies.delete_collection(&all.0, &all.1).await;
        let left = policies.list_metadata(&ListParams::default().limit(1)).await.map_err(|error| error.to_string())?;
        left.items.is_empty().then_some(()).ok_or_else(|| format!("{:?}", asked.err()))
    })
    .await;
}
