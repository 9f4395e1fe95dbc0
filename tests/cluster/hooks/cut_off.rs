//! A connection that ends without a word of the hook's end: the process in the container may be at work still, so the
//! pod is thawed at once and again.

use serde_json::json;
use sts_backup::api::condition::Reason;

use super::{FREEZE, hooks_and, one, sh, small};
use crate::harness::driver::SIM;
use crate::harness::product::Running;
use crate::harness::proxy::Proxy;
use crate::harness::run::whole;
use crate::harness::{Scene, With, is_long, scene, until};

const COMMAND: [&str; 2] = ["--slot", "tonight"];

/// A run whose connections are all cut while the pre hook is at work. The hook freezes later, on its own.
async fn cut_off(s: &Scene, proxy: &Proxy) -> Running {
    s.app(&small("web", 1, &one(SIM))).await;
    let pre = sh(&format!("echo $at >> /a/begun; sleep 4; {FREEZE}"));
    s.policy("nightly", "web", &hooks_and(&json!({ "preBackupHook": pre }))).await;
    let target = format!("{}/nightly", s.namespace);
    let run = s.start_as(&proxy.kubeconfig, &[&["run-once", "backup", &target], &COMMAND[..]].concat());
    until("the pre hook to be at work", 60, async || {
        let begun = s.instants("web-0", "begun").await.len();
        (begun == 1).then_some(()).ok_or_else(|| "it has not begun".into())
    })
    .await;
    proxy.cut();
    run
}

#[tokio::test]
async fn a_pod_whose_pre_hook_got_lost_is_thawed_again_until_nothing_can_freeze_it_any_more() {
    scene("lost", &[With::Healthy(SIM)], async |s| {
        let proxy = Proxy::new(s).await;
        let run = cut_off(s, &proxy).await;
        run.reaches("Post", 1).await;
        let lines = run.log.audit();
        let pre = lines.iter().find(|line| line.step == "Pre").unwrap();
        assert_eq!(pre.outcome, "unknown", "{pre:?}");
        until("the lost hook to freeze the pod", 60, async || {
            let frozen = s.instants("web-0", "pre").await.len();
            (frozen == 1).then_some(()).ok_or_else(|| "it has not".into())
        })
        .await;
        run.reaches("Post", 2).await;
        s.runs_free("web").await;
        run.signal("TERM").await;
        let ended = run.ended().await.expect(20);
        assert!(ended.audit.iter().all(|line| line.step != "Snapshot"), "nothing is cut in a freeze nobody is sure of");
        assert!(
            s.get("nightly").await.metadata.finalizers.is_some(),
            "the freeze is open until it is over for certain"
        );
        s.backup("nightly", &COMMAND).await.expect(0);
        whole(s, "nightly", 1).await;
        s.runs_free("web").await;
    })
    .await;
}

#[tokio::test]
async fn a_pre_hook_whose_end_is_never_known_fails_the_run_as_unproven() {
    if !is_long() {
        return;
    }
    scene("unproven", &[With::Healthy(SIM)], async |s| {
        let proxy = Proxy::new(s).await;
        let run = cut_off(s, &proxy).await;
        run.reaches("Post", 20).await;
        run.reaches("Unlock", 1).await;
        let ended = run.ended().await.expect(10);
        let sentence = &ended.stderr;
        assert!(
            sentence.starts_with("ThawUnproven: ") && sentence.contains("container app of pod web-0"),
            "{sentence}"
        );
        assert!(sentence.contains("may still be at work") && sentence.contains("sleep 4"), "{sentence}");
        let status = s.get("nightly").await.status.unwrap();
        assert_eq!(status.last_run.unwrap().reason, Some(Reason::ThawUnproven));
        assert!(s.snapshots().await.is_empty());
        s.runs_free("web").await;
    })
    .await;
}
