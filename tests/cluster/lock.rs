//! One at a time: what a stop leaves of the lock, and who waits for whom.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::driver::{Entry, SIM};
use crate::harness::make::App;
use crate::harness::product::Ended;
use crate::harness::run::{runs, whole};
use crate::harness::{Scene, With, scene, until};

#[tokio::test]
async fn a_run_that_is_told_to_stop_in_the_cut_gives_the_lock_back_and_is_finished_later() {
    let slow = With::Faulty(SIM, json!({ "cutDelay": "5s" }));
    scene("stopped", &[slow], async |s| {
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class), ("b", SIM.class)] }).await;
        s.policy("nightly", "web", &json!({})).await;
        let command = ["--slot", "tonight"];
        let run = s.start_backup("nightly", &command);
        until("both snapshots, none of them cut", 60, async || {
            let made = s.snapshots().await.len();
            (made == 2).then_some(()).ok_or_else(|| format!("{made} made"))
        })
        .await;
        let begin = Instant::now();
        run.signal("TERM").await;
        let ended: Ended = run.ended().await.expect(20);
        assert!(begin.elapsed() < Duration::from_secs(5), "it does not wait for the cut");
        assert!(ended.stderr.contains("the same command takes it up"), "{}", ended.stderr);
        assert_eq!(s.holder("web").await, Some(None), "the lock is given back, nobody has to wait for it");
        let phase = s.get("nightly").await.status.unwrap().run.unwrap().intent.unwrap().phase;
        assert_eq!(phase, sts_backup::api::shared::IntentPhase::Void);

        s.backup("nightly", &command).await.expect(0);
        whole(s, "nightly", 1).await;
    })
    .await;
}

#[tokio::test]
async fn two_processes_on_one_policy_make_one_run() {
    let slow = With::Faulty(SIM, json!({ "cutDelay": "2s", "readyDelay": "2s" }));
    scene("twins", &[slow], async |s| {
        s.app(&App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("nightly", "web", &json!({})).await;
        let command = ["--slot", "tonight"];
        let (one, two) = (s.start_backup("nightly", &command), s.start_backup("nightly", &command));
        let (one, two) = (one.ended().await, two.ended().await);
        println!("twins: {:?} and {:?}: {} {}", one.code, two.code, one.stderr, two.stderr);
        for ended in [&one, &two] {
            assert!(matches!(ended.code, Some(0 | 30)), "{ended:?}");
        }
        assert!([one.code, two.code].contains(&Some(0)), "one of them finishes it");
        whole(s, "nightly", 1).await;
    })
    .await;
}

#[tokio::test]
async fn two_policies_on_one_statefulset_are_cut_one_after_the_other() {
    let slow = With::Faulty(SIM, json!({ "cutDelay": "2s", "readyDelay": "2s" }));
    scene("rivals", &[slow], async |s| {
        s.app(&App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class), ("b", SIM.class)] }).await;
        for policy in ["hourly", "nightly"] {
            s.policy(policy, "web", &json!({})).await;
        }
        let (one, two) = (s.start_backup("hourly", &[]), s.start_backup("nightly", &[]));
        let (one, two) = (one.ended().await.expect(0), two.ended().await.expect(0));
        assert!(one.audit.iter().chain(&two.audit).all(|line| line.step != "Delete"), "no cut was in vain");
        whole(s, "hourly", 1).await;
        whole(s, "nightly", 1).await;
        let cuts = SIM.cuts(&s.volumes().await);
        let (hourly, nightly) = (window(s, "hourly", &cuts).await, window(s, "nightly", &cuts).await);
        assert!(hourly.1 < nightly.0 || nightly.1 < hourly.0, "both were cut at once: {hourly:?} {nightly:?}");
    })
    .await;
}

/// From the first begin of a policy's cuts to their last end.
async fn window(s: &Scene, policy: &str, cuts: &[Entry]) -> (i64, i64) {
    let mut handles = Vec::new();
    for snapshot in runs(s, policy).await.into_values().flatten() {
        handles.push(s.content(&snapshot).await.unwrap().status.unwrap().snapshot_handle.unwrap());
    }
    let ours = || cuts.iter().filter(|cut| handles.contains(&cut.snapshot));
    assert_eq!(ours().count(), 4);
    (ours().map(|cut| cut.begin).min().unwrap(), ours().map(|cut| cut.end).max().unwrap())
}
