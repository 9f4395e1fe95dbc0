//! From objects to data: what the user of an installation does, and all that he does. No command of ours is typed.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use sts_backup::api::annotation;
use sts_backup::api::backup::{BackupPhase, StatefulSetBackup};
use sts_backup::api::restore::{RestorePhase, StatefulSetRestore};

use crate::harness::driver::SIM;
use crate::harness::install::Release;
use crate::harness::make::App;
use crate::harness::run::{runs, whole};
use crate::harness::{Scene, With, kubeconfig, scene, until};

const WEB: App = App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class), ("b", SIM.class)] };

#[tokio::test]
async fn objects_are_carried_out_by_jobs_under_the_generated_roles() {
    scene("story", &[With::Healthy(SIM)], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        s.app(&WEB).await;
        s.paint("web", "one").await;
        first_run(s, &release).await;
        on_request(s, &release).await;
        typed(s, &release).await;
        without_and_with_two(s, &release).await;
        there_and_back(s, &release).await;
        given_up(s, &release).await;
        release.uninstall().await;
    })
    .await;
}

/// Ended well, so many times.
pub async fn done(s: &Scene, policy: &str, times: usize) {
    until(&format!("{times} runs of {policy}"), 120, async || {
        let status = s.get(policy).await.status.unwrap_or_default();
        let ended = status.history.len() == times && status.run.is_none() && status.phase == Some(BackupPhase::Ready);
        ended.then_some(()).ok_or_else(|| format!("{:?}, {} runs", status.message, status.history.len()))
    })
    .await;
}

async fn annotate<K>(s: &Scene, name: &str, key: &str, value: &str)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { key: value } } }));
    s.api::<K>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Asks for a run.
pub async fn annotated(s: &Scene, policy: &str, value: &str) {
    annotate::<StatefulSetBackup>(s, policy, annotation::REQUESTED_AT, value).await;
}

async fn first_run(s: &Scene, release: &Release<'_>) {
    let hooks = json!({
        "preBackupHook": { "command": ["/bin/freeze"] }, "postBackupHook": { "command": ["/bin/thaw"] },
    });
    s.policy("nightly", "web", &hooks).await;
    done(s, "nightly", 1).await;
    let jobs = release.jobs("backup", "nightly").await;
    assert_eq!(jobs.len(), 1);
    let log = release.log(&jobs[0].name_any()).await;
    let hooks: Vec<_> = log.iter().filter(|line| line["argv"].is_string()).collect();
    assert_eq!(hooks.len(), 4, "two pods are frozen and thawed: {log:#?}");
    let summary = &log.last().unwrap()["summary"];
    let last = json!(s.get("nightly").await.status.unwrap().last_run.unwrap());
    assert_eq!(*summary, last, "the log ends with what status says");
    assert_eq!((&last["trigger"], &last["jobName"]), (&json!("first"), &json!(jobs[0].name_any())));
    s.runs_free("web").await;
}

/// Two requests are two runs, and the same one written again is none.
async fn on_request(s: &Scene, release: &Release<'_>) {
    annotated(s, "nightly", "now").await;
    done(s, "nightly", 2).await;
    s.paint("web", "two").await;
    annotated(s, "nightly", "and again").await;
    done(s, "nightly", 3).await;
    annotated(s, "nightly", "and again").await;
    // The watcher's word, written beside the runner's.
    let status = until("the request to be handled", 60, async || {
        let status = s.get("nightly").await.status.unwrap();
        if status.last_request.as_deref() == Some("and again") {
            Ok(status)
        } else {
            Err(format!("{:?}", status.last_request))
        }
    })
    .await;
    assert_eq!(json!(status.last_run)["trigger"], "manual");
    assert_eq!(release.jobs("backup", "nightly").await.len(), 3);
    whole(s, "nightly", 3).await;
}

/// The same from the command line, with the rights of a person.
async fn typed(s: &Scene, release: &Release<'_>) {
    let person = kubeconfig().unwrap();
    let say =
        async |arguments: &[&str]| s.start_as(&person, &[&["-n", &s.namespace], arguments].concat()).ended().await;
    let ended = say(&["backup", "nightly", "--wait"]).await.expect(0);
    assert!(ended.stdout[0].ends_with("/nightly backup requested"), "{:?}", ended.stdout);
    assert!(ended.stderr.contains("snapshots ready"), "it tells what happens: {}", ended.stderr);
    let last = json!(s.get("nightly").await.status.unwrap().last_run);
    assert_eq!((&last["trigger"], &last["outcome"]), (&json!("manual"), &json!("Succeeded")));
    let log = say(&["logs", "nightly"]).await.expect(0);
    assert_eq!(log.summary(), last, "the newest Job's");
    assert!(log.stderr.contains(&format!("pod {}/", release.namespace)));
    let all = say(&["logs", "nightly", "--all"]).await.expect(0);
    let summaries = all.stdout.iter().filter(|line| line.contains("\"summary\"")).count();
    assert_eq!(summaries, release.jobs("backup", "nightly").await.len());
    say(&["wait", "nightly", "--timeout", "60s"]).await.expect(0);
    // Who may read the object may not for that read the operator's namespace.
    let refused = s.run(&["logs", &format!("{}/nightly", s.namespace)]).await.expect(10);
    for words in ["you may not list Jobs", &release.namespace, "sts-backup describe"] {
        assert!(refused.stderr.contains(words), "{words} is not in {}", refused.stderr);
    }
    let missing = say(&["logs", "other"]).await.expect(10);
    assert!(missing.stderr.contains("other") && missing.stderr.contains("nightly"), "{}", missing.stderr);
}

/// What is asked for while no watcher is there is not lost, and two that come at once do it once.
async fn without_and_with_two(s: &Scene, release: &Release<'_>) {
    let before = s.get("nightly").await.status.unwrap().history.len();
    release.scale(0).await;
    annotated(s, "nightly", "while nobody watches").await;
    release.scale(2).await;
    done(s, "nightly", before + 1).await;
    whole(s, "nightly", before + 1).await;
    assert_eq!(json!(s.get("nightly").await.status.unwrap().last_run)["slot"], "while nobody watches");
    // As many Jobs as the history limit leaves, each of a slot of its own.
    let slots = release.jobs("backup", "nightly").await;
    let slots: Vec<_> = slots.iter().map(|job| job.annotations()[annotation::SLOT].clone()).collect();
    let distinct: std::collections::BTreeSet<_> = slots.iter().collect();
    assert_eq!(distinct.len(), slots.len(), "{slots:?}");
}

pub async fn phase(s: &Scene, name: &str, wanted: RestorePhase) {
    until(&format!("{name} to be {wanted}"), 180, async || {
        let status = s.restored(name).await;
        (status.phase == Some(wanted)).then_some(()).ok_or_else(|| format!("{:?} {:?}", status.phase, status.message))
    })
    .await;
}

async fn there_and_back(s: &Scene, release: &Release<'_>) {
    let oldest = runs(s, "nightly").await.into_keys().next().unwrap();
    s.request("back", "web", &json!({ "runId": oldest })).await;
    phase(s, "back", RestorePhase::Completed).await;
    s.all_say("web", "one").await;
    annotate::<StatefulSetRestore>(s, "back", annotation::UNDO, "please").await;
    phase(s, "back", RestorePhase::Undone).await;
    s.all_say("web", "two").await;
    let log = release.log(&release.jobs("undo", "back").await[0].name_any()).await;
    assert_eq!(log.last().unwrap()["summary"]["phase"], "Undone");
}

/// Whoever deletes the object gives the old volumes up: a Job of its own lets them go, and the object with them.
async fn given_up(s: &Scene, release: &Release<'_>) {
    s.api::<StatefulSetRestore>().delete("back", &DeleteParams::default()).await.unwrap();
    until("the object to go", 120, async || match s.api::<StatefulSetRestore>().get_opt("back").await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.metadata.finalizers)),
    })
    .await;
    assert_eq!(s.tidy("web").await, [""; 0], "nothing is kept");
    let ended = |job: &Job| {
        json!(job.status)["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one: &Value| one["type"] == "Complete"))
    };
    until("the release's Job to end", 60, async || {
        let jobs = release.jobs("release", "back").await;
        jobs.iter().any(ended).then_some(()).ok_or_else(|| format!("{} Jobs", jobs.len()))
    })
    .await;
}
