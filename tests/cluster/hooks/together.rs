//! Others at the same time: a second process of the run, a second run, a second policy. One freeze after the other.

use serde_json::json;

use super::{hooks, one, slow, small};
use crate::harness::driver::TWO;
use crate::harness::run::whole;
use crate::harness::scene;

#[tokio::test]
async fn whoever_comes_while_a_run_is_active_waits_or_leaves_and_freezes_nothing_meanwhile() {
    scene("together", &[slow()], async |s| {
        s.app(&small("web", 2, &one(TWO))).await;
        for policy in ["hourly", "nightly"] {
            s.policy(policy, "web", &hooks()).await;
        }
        let first = s.start_backup("nightly", &["--slot", "one"]);
        first.reaches("Snapshot", 2).await;
        let same = s.start_backup("nightly", &["--slot", "one"]);
        let next = s.start_backup("nightly", &["--slot", "two"]);
        let other = s.start_backup("hourly", &[]);
        let (first, same, next, other) = tokio::join!(first.ended(), same.ended(), next.ended(), other.ended());
        println!("same run: {:?} {}", same.code, same.stderr);
        let (first, next, other) = (first.expect(0), next.expect(0), other.expect(0));
        assert!(matches!(same.code, Some(0 | 30)), "{same:?}");
        assert!(same.audit.iter().all(|line| line.verb != "exec"), "one process freezes for one slot: {same:?}");
        for ended in [&first, &next, &other] {
            assert!(ended.audit.iter().all(|line| line.step != "Delete"), "no freeze was in vain: {ended:?}");
            assert!(ended.audit.iter().all(|line| line.verb != "exec" || line.outcome == "ok"));
        }
        whole(s, "nightly", 2).await;
        whole(s, "hourly", 1).await;
        for pod in ["web-0", "web-1"] {
            // A pre hook that meets a frozen application ends with exit code 9.
            let (pre, post) = (s.instants(pod, "pre").await, s.instants(pod, "post").await);
            assert_eq!((pre.len(), post.len()), (3, 3), "{pod}: three freezes, each thawed once");
            let inside = TWO
                .cuts(&s.volumes().await)
                .iter()
                .all(|cut| pre.iter().zip(&post).any(|(pre, post)| *pre < cut.begin && cut.end < *post));
            assert!(inside, "{pod}: a cut outside of every freeze");
        }
        s.runs_free("web").await;

        let again = s.backup("nightly", &["--slot", "two"]).await.expect(30);
        assert!(again.stderr.contains("slot two has ended already") && again.audit.is_empty(), "{again:?}");
        let late = s.backup("nightly", &["--slot", "three", "--attempt", "2"]).await;
        assert_eq!(late.code, Some(0), "an attempt of a slot that nobody has begun begins it");
    })
    .await;
}

#[tokio::test]
async fn an_earlier_attempt_and_an_earlier_slot_are_over() {
    scene("earlier", &[slow()], async |s| {
        s.app(&small("web", 1, &one(TWO))).await;
        s.policy("nightly", "web", &hooks()).await;
        let slot = |at: &'static str| ["--slot", at, "--trigger", "schedule", "--attempt"];
        let second = s.start_backup("nightly", &[&slot("2026-01-02T00:00:00Z")[..], &["2"]].concat());
        second.reaches("Snapshot", 1).await;
        let first = s.backup("nightly", &[&slot("2026-01-02T00:00:00Z")[..], &["1"]].concat()).await.expect(30);
        assert!(first.stderr.contains("a later attempt of this run has begun"), "{}", first.stderr);
        assert!(first.audit.is_empty(), "it touches nothing: {first:?}");
        second.ended().await.expect(0);
        let before = s.backup("nightly", &[&slot("2026-01-01T00:00:00Z")[..], &["1"]].concat()).await.expect(30);
        assert!(before.stderr.contains("a run for the later slot 2026-01-02T00:00:00Z has ended"), "{}", before.stderr);
        assert!(before.audit.is_empty(), "it touches nothing: {before:?}");
        assert_eq!(s.instants("web-0", "pre").await.len(), 1);
        whole(s, "nightly", 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_whose_patience_ends_before_the_lock_is_free_is_skipped() {
    scene("patience", &[slow()], async |s| {
        s.app(&small("web", 1, &one(TWO))).await;
        s.policy("nightly", "web", &hooks()).await;
        let hurried = json!({ "startingDeadlineSeconds": 1, "postBackupHook": super::sh(super::THAW) });
        s.policy("hourly", "web", &hurried).await;
        let run = s.start_backup("nightly", &[]);
        run.reaches("Snapshot", 1).await;
        let skipped = s.backup("hourly", &["--slot", "now"]).await.expect(30);
        assert!(skipped.stderr.starts_with("LockedByOpenRun: "), "{}", skipped.stderr);
        assert!(skipped.stderr.contains("StatefulSetBackup") && skipped.stderr.contains("/nightly has left run"));
        let status = s.get("hourly").await.status.unwrap();
        let last = status.last_run.unwrap();
        assert_eq!(last.outcome, Some(sts_backup::api::shared::Outcome::Superseded));
        assert_eq!((last.slot.as_deref(), status.phase), (Some("now"), None), "Superseded changes no phase");
        run.ended().await.expect(0);
        s.backup("hourly", &["--slot", "later"]).await.expect(0);
    })
    .await;
}
