//! An installation for single namespaces has its rights in each by RoleBindings, which go first when one is deleted.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use sts_backup::api::restore::RestorePhase;

use crate::harness::driver::SIM;
use crate::harness::make::App;
use crate::harness::{With, scene, until};

/// A restore that keeps its old volumes holds the namespace until it has let go: the watcher, whose rights there are gone
/// too, sees that and makes a Job.
#[tokio::test]
async fn a_namespace_goes_although_it_took_the_rights_of_its_installation_along() {
    let _load = super::LOAD.read().await;
    scene("rights-go", &[With::Healthy(SIM)], async |s| {
        let Some(release) = s.install(&[]).await else { return };
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("nightly", "web", &json!({})).await;
        s.backup("nightly", &[]).await.expect(0);
        s.request("back", "web", &json!({ "backupName": "nightly" })).await;
        until("the end of the restore", 180, async || {
            let phase = s.restored("back").await.phase;
            if phase == Some(RestorePhase::Completed) { Ok(()) } else { Err(format!("{phase:?}")) }
        })
        .await;
        let all: Api<Namespace> = Api::all(s.client.clone());
        all.delete(&s.namespace, &DeleteParams::default()).await.unwrap();
        until("the end of the namespace", 300, async || match all.get_opt(&s.namespace).await.unwrap() {
            None => Ok(()),
            Some(left) => Err(format!("{:?}", left.status)),
        })
        .await;
        release.uninstall().await;
    })
    .await;
}
