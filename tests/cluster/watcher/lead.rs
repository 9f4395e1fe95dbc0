//! Two watchers of one installation: one works, the other stands by and takes over.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, LogParams};

use super::story::{annotated, done};
use crate::harness::driver::SIM;
use crate::harness::install::Release;
use crate::harness::make::App;
use crate::harness::run::whole;
use crate::harness::{With, scene, until};

async fn leader(release: &Release<'_>, but: &str) -> String {
    until("a leader", 90, async || {
        let lease = release.api::<Lease>().get_opt(&format!("leader-{}", release.name)).await.unwrap();
        let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        if holder.is_empty() || holder == but { Err(format!("held by {holder:?}")) } else { Ok(holder) }
    })
    .await
}

#[tokio::test]
async fn of_two_watchers_one_works_and_the_other_takes_over() {
    scene("lead", &[With::Healthy(SIM)], async |s| {
        let Some(release) = s.install(&["replicaCount=2"]).await else { return };
        let first = leader(&release, "").await;
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("nightly", "web", &serde_json::json!({})).await;
        done(s, "nightly", 1).await;
        for pod in release.watchers().await.iter().map(ResourceExt::name_any) {
            let log = release.api::<Pod>().logs(&pod, &LogParams::default()).await.unwrap();
            assert_eq!(log.contains("\"step\":\"Launch\""), pod == first, "{pod}: {log}");
        }
        // Deleted without grace it may give the Lease back or not; then that has to run out.
        release.api::<Pod>().delete(&first, &DeleteParams::default().grace_period(0)).await.unwrap();
        annotated(s, "nightly", "again").await;
        let second = leader(&release, &first).await;
        done(s, "nightly", 2).await;
        release.api::<Pod>().delete(&second, &DeleteParams::default()).await.unwrap();
        leader(&release, &second).await;
        annotated(s, "nightly", "and again").await;
        done(s, "nightly", 3).await;
        whole(s, "nightly", 3).await;
        // Told to stop, whoever leads gives the Lease back.
        release.scale(0).await;
        let lease = release.api::<Lease>().get(&format!("leader-{}", release.name)).await.unwrap().spec.unwrap();
        assert_eq!(lease.holder_identity.unwrap_or_default(), "", "nobody has to wait until it runs out");
        release.uninstall().await;
    })
    .await;
}
