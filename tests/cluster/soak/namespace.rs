//! A namespace that is deleted while a restore is under way in it, and made again with what stood in it, as GitOps does.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference, PersistentVolume};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use sts_backup::api::{annotation, label};

use super::{Hour, shape};
use crate::harness::Scene;
use crate::harness::driver::SIM;
use crate::harness::restore::restore;

pub async fn anew(hour: &Hour<'_>, namespace: &str) {
    let s = hour.s.within(namespace);
    let mut round = 0;
    while !hour.is_over() {
        round += 1;
        lived(hour, &s, round).await;
        {
            let _calm = hour.calm.read().await;
            let all: Api<Namespace> = Api::all(s.client.clone());
            all.delete(namespace, &DeleteParams::default()).await.unwrap();
        }
        ended(hour, &s).await;
        hour.saw("a namespace is deleted during a restore");
        let _calm = hour.calm.read().await;
        let again = json!({ "metadata": { "name": namespace } });
        let all: Api<Namespace> = Api::all(s.client.clone());
        all.create(&PostParams::default(), &serde_json::from_value(again).unwrap()).await.unwrap();
    }
}

/// The application comes up empty, is backed up, and is being restored.
async fn lived(hour: &Hour<'_>, s: &Scene, round: usize) {
    let set = shape("web", 2, &[("a", SIM.class), ("b", SIM.class)]);
    let before: BTreeSet<_> = {
        let _calm = hour.calm.read().await;
        s.own_volumes().await.iter().map(ResourceExt::name_any).collect()
    };
    {
        let _calm = hour.calm.read().await;
        s.create(&set.manifest()).await;
        s.policy("nightly", "web", &set.policy()).await;
    }
    hour.until("the pods of a namespace that was made again", 180, async || {
        let pods = s.pods("web").await;
        let ready = pods.iter().filter(|pod| super::lane::is_ready(pod)).count();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} of {} ready", pods.len())) }
    })
    .await;
    {
        let _calm = hour.calm.read().await;
        let under: Vec<_> = s.claims().await.into_values().map(|(_, volume)| volume).collect();
        assert!(under.iter().all(|one| !before.contains(one)), "old volumes {before:?} came back: {under:?}");
        s.paint("web", &format!("good-{round}")).await;
        let ask = Patch::Merge(json!({ "metadata": { "annotations": { annotation::REQUESTED_AT: "now" } } }));
        let policies = s.api::<sts_backup::api::backup::StatefulSetBackup>();
        policies.patch("nightly", &PatchParams::default(), &ask).await.unwrap();
    }
    hour.until("a run in that namespace", 600, async || {
        let status = s.get("nightly").await.status.unwrap_or_default();
        let whole = status.run.is_none() && status.last_backup_time.is_some();
        whole.then_some(()).ok_or_else(|| format!("{:?} {:?}", status.phase, status.message))
    })
    .await;
    {
        let _calm = hour.calm.read().await;
        s.create(&restore("back", "web", &json!({}))).await;
    }
    // From before its Job runs until after its end.
    hour.some_time(20).await;
}

/// The namespace goes. Of its volumes those are left that were set aside: each keeps the claim of a dead uid, so none
/// binds by its claim's name.
async fn ended(hour: &Hour<'_>, s: &Scene) {
    let all: Api<Namespace> = Api::all(s.client.clone());
    hour.until("the end of the namespace", 600, async || match all.get_opt(&s.namespace).await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.status)),
    })
    .await;
    hour.until("the end of what was in use", 180, async || {
        let left = s.own_volumes().await;
        let loose: Vec<_> = left.iter().filter(|one| !is_kept(one)).map(|one| (one.name_any(), &one.spec)).collect();
        if loose.is_empty() { Ok(()) } else { Err(format!("{loose:?}")) }
    })
    .await;
    let _calm = hour.calm.read().await;
    for volume in s.own_volumes().await {
        let claim: Option<ObjectReference> = volume.spec.clone().and_then(|spec| spec.claim_ref);
        let uid = claim.and_then(|claim| claim.uid).unwrap_or_default();
        assert!(!uid.is_empty(), "{} waits for any claim of its name: {volume:?}", volume.name_any());
    }
}

/// Set aside: Retained, and marked.
fn is_kept(volume: &PersistentVolume) -> bool {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy == Some("Retain") && volume.labels().contains_key(label::RESTORE)
}
