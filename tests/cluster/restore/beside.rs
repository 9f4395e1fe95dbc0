//! A restore beside other runs: a backup waits for it, a second restore is told who is at it, and how long the clones
//! take does not lengthen the time that the application is down.

use serde_json::json;

use crate::harness::driver::TWO;
use crate::harness::make::{App, word};
use crate::harness::{With, is_long, scene, until};

#[tokio::test]
async fn a_slow_clone_does_not_lengthen_the_downtime_and_others_wait() {
    slow_clone("slow", 25).await;
}

#[tokio::test]
async fn a_minute_of_cloning_does_not_lengthen_the_downtime() {
    if is_long() {
        slow_clone("slower", 60).await;
    }
}

async fn slow_clone(name: &str, seconds: u32) {
    let slow = With::Faulty(TWO, json!({ "cloneDelay": format!("{seconds}s") }));
    scene(name, &[slow], async |s| {
        s.app(&App { name: "web", replicas: 2, start: 0, templates: &[("a", TWO.class)] }).await;
        s.policy("nightly", "web", &json!({ "retentionPolicy": { "keepLast": 1 } })).await;
        s.paint("web", "good").await;
        let pinned = s.backup("nightly", &[]).await.expect(0).summary()["id"].as_str().unwrap().to_owned();
        s.paint("web", "bad").await;
        s.request("back", "web", &json!({ "runId": pinned })).await;
        let restore = s.start_restore("restore", "back", &[]);
        until("the plan", 60, async || {
            let planned = s.restored("back").await.plan.is_some();
            if planned { Ok(()) } else { Err("none".into()) }
        })
        .await;
        let backup = s.start_backup("nightly", &[]);
        let second = s.restore("second", "web", &json!({})).await.expect(10);
        assert!(second.stderr.starts_with("LockedByOpenRun: "), "{}", second.stderr);
        assert!(second.stderr.contains("back"), "it names the restore: {}", second.stderr);
        // The application runs on all the while.
        s.all_say("web", "bad").await;
        let ended = restore.ended().await.expect(0);
        s.all_say("web", "good").await;
        let down = ended.summary()["downtimeSeconds"].as_f64().unwrap();
        println!("clones took {seconds} s, the application was down for {down:.1} s");
        assert!(down < f64::from(seconds), "down for {down} s");
        // The backup waited, and is of the restored data. Only then the run that was restored from may go.
        let run = backup.ended().await.expect(0).summary()["id"].as_str().unwrap().to_owned();
        let kept: Vec<_> =
            s.snapshots().await.iter().map(|one| word(one, sts_backup::api::label::RUN).to_owned()).collect();
        assert!(kept.contains(&run) && run > pinned, "{kept:?}");
        s.tidy("web").await;
    })
    .await;
}
