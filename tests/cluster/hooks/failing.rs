//! Hooks that fail, each in its own way: the run says no with all that one needs to know, nothing is snapshotted, and
//! no pod is left frozen.

use futures::future::join_all;
use serde_json::{Value, json};
use sts_backup::api::condition::Reason;

use super::{FREEZE, THAW, hooks_and, one, sh, small};
use crate::harness::driver::SIM;
use crate::harness::product::Ended;
use crate::harness::{Scene, With, scene};

/// A policy on an application of its own, and how its run has to end.
struct Case {
    name: &'static str,
    spec: Value,
    reason: Reason,
    /// What the sentence says, beside the pod.
    says: &'static [&'static str],
    /// How often the pod is thawed.
    thaws: std::ops::RangeInclusive<usize>,
}

fn cases() -> Vec<Case> {
    let short = |script: &str| {
        let mut hook = sh(script);
        hook["timeoutSeconds"] = 2.into();
        json!({ "preBackupHook": hook })
    };
    let pre = |hook: Value| json!({ "preBackupHook": hook });
    vec![
        Case {
            name: "code",
            spec: pre(sh("freeze; echo 'disk is on fire' >&2; exit 7")),
            reason: Reason::HookFailed,
            says: &["exit code 7", "disk is on fire", "freeze; echo", "container app of pod code-0"],
            thaws: 1..=1,
        },
        Case {
            name: "late",
            spec: short("freeze; echo 'still at it' >&2; sleep 6"),
            reason: Reason::HookTimeout,
            says: &["did not end within its timeoutSeconds (2 s)", "still at it", "container app of pod late-0"],
            thaws: 2..=2,
        },
        Case {
            name: "belated",
            spec: short("sleep 5; freeze; ns >> /a/pre"),
            reason: Reason::HookTimeout,
            says: &["did not end within its timeoutSeconds (2 s)", "container app of pod belated-0"],
            thaws: 2..=2,
        },
        Case {
            name: "nocommand",
            spec: pre(json!({ "command": ["no-such-command", "--now"] })),
            reason: Reason::HookFailed,
            says: &[
                r#"could not be started: exec: "no-such-command": executable file not found"#,
                r#"["no-such-command", "--now"]"#,
                "container app of pod nocommand-0",
            ],
            thaws: 0..=0,
        },
        Case {
            name: "nocontainer",
            spec: pre(json!({ "command": ["freeze"], "containerName": "db" })),
            reason: Reason::ContainerNotFound,
            says: &["nocontainer-0 has no container \"db\"", "(containerName)", "it has: app"],
            thaws: 0..=0,
        },
        Case {
            name: "thaw",
            spec: json!({ "postBackupHook": sh(&format!("{THAW}; echo 'no key' >&2; exit 3")) }),
            reason: Reason::ThawFailed,
            says: &["post hook", "exit code 3", "no key", "container app of pod thaw-0"],
            thaws: 1..=1,
        },
    ]
}

#[tokio::test]
async fn a_hook_that_fails_fails_the_run_and_leaves_no_pod_frozen() {
    scene("failing", &[With::Healthy(SIM)], async |s| {
        join_all(cases().into_iter().map(|case| async {
            let case = case;
            s.app(&small(case.name, 1, &one(SIM))).await;
            s.policy(case.name, case.name, &hooks_and(&case.spec)).await;
            let ended = s.backup(case.name, &[]).await;
            failed(s, &case, &ended).await;
        }))
        .await;
        let left: Vec<_> = s.snapshots().await;
        assert!(left.iter().all(|one| one.metadata.deletion_timestamp.is_some()), "nothing partial is left: {left:?}");
    })
    .await;
}

async fn failed(s: &Scene, case: &Case, ended: &Ended) {
    let Case { name, reason, says, thaws, .. } = case;
    assert_eq!(ended.code, Some(10), "{name}: {ended:?}");
    println!("{name}: {}", ended.stderr);
    for words in says.iter().copied().chain([reason.as_str()]) {
        assert!(ended.stderr.contains(words), "{name}: {words:?} is not in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("Internal error occurred"), "{name}: {}", ended.stderr);
    let status = s.get(name).await.status.unwrap();
    assert_eq!(status.last_run.unwrap().reason, Some(*reason));
    assert!(status.run.is_none(), "{name}: the journal is closed");
    let object = s.get(name).await;
    assert!(object.metadata.finalizers.unwrap_or_default().is_empty(), "{name}: the finalizer is gone");
    let thawed = s.instants(&format!("{name}-0"), "post").await.len();
    assert!(thaws.contains(&thawed), "{name}: thawed {thawed} times");
    for line in ended.audit.iter().filter(|line| line.verb == "exec") {
        assert!(line.pod.is_some() && line.container.is_some() && line.argv.is_some(), "{line:?}");
    }
    assert_eq!(s.holder(name).await, Some(None), "{name}: the lock is free");
    s.runs_free(name).await;
}

#[tokio::test]
async fn a_pod_that_does_not_run_has_no_hook_and_no_other_pod_is_frozen() {
    scene("idle", &[With::Healthy(SIM)], async |s| {
        s.app(&small("web", 1, &one(SIM))).await;
        // The second replica is asked for and finds no place.
        let patch = json!({ "spec": { "replicas": 2, "template": { "spec": { "nodeSelector": { "no": "where" } } },
            "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } } });
        s.patch_app("web", &patch).await;
        s.bound("a-web-1").await;
        s.policy("nightly", "web", &hooks_and(&json!({}))).await;
        let ended = s.backup("nightly", &[]).await.expect(10);
        let sentence = &ended.stderr;
        assert!(sentence.starts_with("PodNotRunning: ") && sentence.contains("web-1 is not Running"), "{sentence}");
        assert!(s.instants("web-0", "pre").await.is_empty(), "nothing was frozen");
        assert!(ended.audit.iter().all(|line| line.verb != "exec"));
        assert!(s.snapshots().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn ten_megabytes_of_output_are_read_and_64_kib_of_each_stream_are_kept() {
    scene("flood", &[With::Healthy(SIM)], async |s| {
        s.app(&small("web", 1, &one(SIM))).await;
        let flood = |c: char| format!("head -c 10000000 /dev/zero | tr '\\0' {c}");
        let pre = sh(&format!("{}; {}; {} >&2; echo; echo 'the end'", FREEZE, flood('x'), flood('y')));
        s.policy("nightly", "web", &hooks_and(&json!({ "preBackupHook": pre }))).await;
        let ended = s.backup("nightly", &[]).await.expect(0);
        let line = ended.audit.iter().find(|line| line.step == "Pre").unwrap();
        let (out, err) = (line.stdout.as_deref().unwrap(), line.stderr.as_deref().unwrap());
        let kept = |text: &str, c: char| text.chars().take_while(|other| *other == c).count();
        assert_eq!((kept(out, 'x'), kept(err, 'y')), (64 * 1024, 64 * 1024));
        assert!(err.ends_with("[9934464 more bytes left out]"), "{}", &err[64 * 1024..]);
        s.runs_free("web").await;
    })
    .await;
}
