//! An upgrade in the middle of a run: the older runner finishes it, and the newer watcher understands what it left.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use serde_json::json;
use sts_backup::api::annotation;
use tokio::process::Command;

use super::lost::frozen;
use super::story::{annotated, done};
use crate::harness::driver::TWO;
use crate::harness::install::{IMAGE, Release, tool};
use crate::harness::make::App;
use crate::harness::run::whole;
use crate::harness::{Scene, With, scene, skipped, until};

const WEB: App = App { name: "web", replicas: 2, start: 0, templates: &[("a", TWO.class)] };

/// The tag under which the same image is the newer version.
const NEXT: &str = "next";

/// Gives the image its second name; none, with a sentence, where containerd is not ours.
async fn tag(name: &str) -> Option<()> {
    let Some(ctr) = tool("ctr") else {
        skipped("there is no ctr");
        return None;
    };
    let arguments = ["--namespace", "k8s.io", "images", "tag", "--force", IMAGE, name];
    let said = Command::new(ctr).args(arguments).output().await.unwrap();
    if !said.status.success() {
        skipped(&format!("ctr cannot tag: {}", String::from_utf8_lossy(&said.stderr)));
        return None;
    }
    Some(())
}

fn image(spec: Option<&PodSpec>) -> String {
    spec.and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default()
}

fn image_of_job(job: &Job) -> String {
    image(job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()))
}

/// The watcher's pods are those of the image, and no other is left.
async fn watched_by(release: &Release<'_>, name: &str) {
    until(&format!("a watcher of {name}"), 120, async || {
        let images: Vec<_> = release.watchers().await.iter().map(|pod| image(pod.spec.as_ref())).collect();
        (images == [name]).then_some(()).ok_or_else(|| format!("{images:?}"))
    })
    .await;
}

/// The one Job that there is, and its one pod.
async fn at_work(release: &Release<'_>) -> (Job, Pod) {
    let (mut jobs, mut pods) = (release.jobs("backup", "nightly").await, vec![]);
    for job in &jobs {
        pods.extend(release.pods(&job.name_any()).await);
    }
    assert_eq!((jobs.len(), pods.len()), (1, 1), "neither doubled nor killed");
    (jobs.remove(0), pods.remove(0))
}

async fn under_way(s: &Scene) -> serde_json::Value {
    let run = json!(s.get("nightly").await.status.unwrap().run);
    assert!(run.is_object(), "the run is open");
    run
}

#[tokio::test]
async fn an_older_runner_finishes_under_a_newer_watcher() {
    let next = format!("{}:{NEXT}", IMAGE.rsplit_once(':').unwrap().0);
    // The freeze lasts until the upgrade is over.
    let slow = json!({ "cutDelay": "45s" });
    scene("upgrade", &[With::Faulty(TWO, slow)], async |s| {
        let (Some(()), Some(release)) = (tag(&next).await, s.install(&[]).await) else { return };
        watched_by(&release, IMAGE).await;
        s.app(&WEB).await;
        let hooks = json!({
            "preBackupHook": { "command": ["/bin/freeze"] }, "postBackupHook": { "command": ["/bin/thaw"] },
        });
        s.policy("nightly", "web", &hooks).await;
        frozen(s).await;
        let (job, pod) = at_work(&release).await;
        let run = under_way(s).await;

        release.set("upgrade", &[&format!("image.tag={NEXT}")]).await;
        watched_by(&release, &next).await;
        let (same, still) = at_work(&release).await;
        assert_eq!((same.uid(), still.uid()), (job.uid(), pod.uid()), "nobody touched it");
        assert_eq!(image_of_job(&same), IMAGE);
        assert_eq!(under_way(s).await["id"], run["id"], "and it is not over");
        frozen(s).await;

        // What is asked for meanwhile waits for it, and is the newer watcher's.
        annotated(s, "nightly", "after the upgrade").await;
        done(s, "nightly", 2).await;
        s.runs_free("web").await;
        whole(s, "nightly", 2).await;
        let jobs = release.jobs("backup", "nightly").await;
        let images: Vec<_> = jobs.iter().map(image_of_job).collect();
        assert_eq!(images, [IMAGE, next.as_str()]);
        assert!(jobs.iter().all(|job| job.annotations()[annotation::ATTEMPT] == "1"), "each at the first attempt");
        assert_eq!((jobs[0].uid(), release.pods(&jobs[0].name_any()).await.len()), (job.uid(), 1));
        let summary = release.log(&jobs[0].name_any()).await.pop().unwrap()["summary"].take();
        assert_eq!((&summary["outcome"], &summary["id"]), (&json!("Succeeded"), &run["id"]), "{summary}");
        release.uninstall().await;
    })
    .await;
}
