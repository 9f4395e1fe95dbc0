//! The process is stopped, killed, or put to sleep in the freeze: no pod is left frozen, and the same command makes
//! the backup.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use super::{FREEZE, THAW, hooks_and, one, sh, slow, small};
use crate::harness::driver::TWO;
use crate::harness::product::Running;
use crate::harness::run::whole;
use crate::harness::{Scene, scene, until};

/// Where a process can be struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The intent stands, no hook has begun.
    Intent,
    /// In the first pod's pre hook.
    FirstPre,
    /// One pod is frozen, the other's pre hook is at work.
    SecondPre,
    /// Both pods are frozen, nothing is cut yet.
    Cut,
    /// One pod is being thawed, the other is frozen still.
    Post,
}

const PLACES: [(Place, &str); 5] = [
    (Place::Intent, "intent"),
    (Place::FirstPre, "first"),
    (Place::SecondPre, "second"),
    (Place::Cut, "cut"),
    (Place::Post, "post"),
];

/// Slow enough to be met at work; they say so in a file.
fn slow_hooks() -> Value {
    let pre = format!("echo $at >> /a/pre-begun; {FREEZE}; sleep 2");
    let post = format!("echo $at >> /a/post-begun; sleep 3; {THAW}");
    hooks_and(&json!({ "preBackupHook": sh(&pre), "postBackupHook": sh(&post) }))
}

async fn begun(s: &Scene, pod: &str, hook: &str) {
    until(&format!("the {hook} hook of {pod}"), 120, async || {
        let begun = s.instants(pod, &format!("{hook}-begun")).await.len();
        (begun > 0).then_some(()).ok_or_else(|| "has not begun".into())
    })
    .await;
}

impl Place {
    async fn reached(self, s: &Scene, run: &Running, app: &str) {
        let pod = |n| format!("{app}-{n}");
        match self {
            Place::Intent => run.reaches("Write", 1).await,
            Place::FirstPre => begun(s, &pod(0), "pre").await,
            Place::SecondPre => begun(s, &pod(1), "pre").await,
            Place::Cut => run.reaches("Snapshot", 2).await,
            Place::Post => begun(s, &pod(0), "post").await,
        }
    }
}

async fn stage(name: &str, test: impl AsyncFn(&Scene, Place, &'static str)) {
    scene(name, &[slow()], async |s| {
        join_all(PLACES.map(|(place, app)| {
            let test = &test;
            async move {
                s.app(&small(app, 2, &one(TWO))).await;
                s.policy(app, app, &slow_hooks()).await;
                test(s, place, app).await;
            }
        }))
        .await;
    })
    .await;
}

const COMMAND: [&str; 4] = ["--slot", "tonight", "--trigger", "manual"];

async fn is_any_frozen(s: &Scene, app: &str) -> bool {
    s.is_frozen(&format!("{app}-0")).await || s.is_frozen(&format!("{app}-1")).await
}

/// Both hooks of both pods, and nothing beside them: no freeze without its thaw.
async fn finished(s: &Scene, app: &str) {
    whole(s, app, 1).await;
    s.runs_free(app).await;
}

#[tokio::test]
async fn sigterm_thaws_every_pod_before_the_process_ends_wherever_it_comes() {
    stage("sigterm", async |s, place, app| {
        let run = s.start_backup(app, &COMMAND);
        place.reached(s, &run, app).await;
        let told = Instant::now();
        run.signal("TERM").await;
        let ended = run.ended().await;
        let took = told.elapsed();
        println!("{place:?}: exit {:?} {:.1} s after SIGTERM", ended.code, took.as_secs_f64());
        assert_eq!(ended.code, Some(20), "{place:?}: {ended:?}");
        // A Job gives the time of all post hooks and half a minute more.
        assert!(took < Duration::from_secs(2 * 10 + 30), "{place:?}: longer than its grace period");
        assert!(!is_any_frozen(s, app).await, "{place:?}: left frozen");
        assert_eq!(s.holder(app).await, Some(None), "{place:?}: the lock is given back");
        s.backup(app, &COMMAND).await.expect(0);
        finished(s, app).await;
    })
    .await;
}

#[tokio::test]
async fn after_sigkill_the_next_process_thaws_first_and_then_makes_the_backup() {
    stage("sigkill", async |s, place, app| {
        let run = s.start_backup(app, &COMMAND);
        place.reached(s, &run, app).await;
        run.signal("KILL").await;
        let dead = run.ended().await;
        assert_eq!(dead.code, None, "{place:?}: killed");
        let frozen = is_any_frozen(s, app).await;
        // A post hook that is at work goes on without its caller.
        let may_be_free = [Place::Intent, Place::Post].contains(&place);
        assert!(frozen || may_be_free, "{place:?}: the test meant to leave a pod frozen");
        let next = s.backup(app, &COMMAND).await.expect(0);
        let steps: Vec<_> = next.audit.iter().map(|line| line.step.as_str()).collect();
        let first = |step| steps.iter().position(|other| *other == step);
        println!("{place:?}: {steps:?}");
        assert!(first("Post") < first("Pre"), "{place:?}: it thaws before it freezes: {steps:?}");
        let stray = steps.iter().take(first("Post").unwrap()).find(|step| !["Lock", "Mark"].contains(*step));
        assert_eq!(stray, None, "{place:?}: the thaw comes first once the lock is held");
        finished(s, app).await;
    })
    .await;
}

#[tokio::test]
async fn a_holder_that_sleeps_in_the_freeze_is_replaced_and_harms_nothing_when_it_wakes() {
    scene("asleep", &[slow()], async |s| {
        s.app(&small("web", 2, &one(TWO))).await;
        s.policy("nightly", "web", &hooks_and(&json!({}))).await;
        let old = s.start_backup("nightly", &COMMAND);
        old.reaches("Snapshot", 2).await;
        old.signal("STOP").await;
        assert!(s.is_frozen("web-0").await && s.is_frozen("web-1").await);
        let new = s.start_backup("nightly", &COMMAND);
        new.reaches("Post", 2).await;
        assert!(!s.is_frozen("web-0").await && !s.is_frozen("web-1").await, "thawed by the new holder");
        // It wakes at the worst time, in the freeze of its successor.
        new.reaches("Snapshot", 2).await;
        assert!(s.is_frozen("web-0").await && s.is_frozen("web-1").await);
        let before = old.log.audit().len();
        old.signal("CONT").await;
        let old = old.ended().await.expect(30);
        println!("asleep: {}; {:?}", old.stderr, old.audit[before..].iter().map(|line| &line.step).collect::<Vec<_>>());
        assert!(old.audit[before..].iter().all(|line| line.verb != "exec"), "it enters no pod any more");
        let new = new.ended().await.expect(0);
        assert!(new.audit.iter().all(|line| line.verb != "exec" || line.outcome == "ok"), "{new:?}");
        whole(s, "nightly", 1).await;
        s.runs_free("web").await;
        // The second freeze was one: every cut of the run that counts lies in it, in every pod.
        let handles = super::restarted::handles(s, "nightly").await;
        let cuts: Vec<_> = TWO.cuts(&s.volumes().await);
        let cuts: Vec<_> = cuts.into_iter().filter(|cut| handles.contains(&cut.snapshot)).collect();
        assert_eq!(cuts.len(), 2);
        for pod in ["web-0", "web-1"] {
            let (pre, post) = (s.instants(pod, "pre").await, s.instants(pod, "post").await);
            // The new holder thaws at once, and once more when a straggling pre hook must have ended.
            assert_eq!((pre.len(), post.len()), (2, 3), "{pod}: two freezes, and the old holder has thawed none");
            super::frozen::enclosed(&cuts, &[(pre[1], post[2])]);
        }
    })
    .await;
}
