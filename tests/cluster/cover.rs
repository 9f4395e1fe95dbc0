//! Which claims a run covers, and with which class: several drivers, ordinals that do not begin at 0, StatefulSets
//! that sleep, chosen templates, and what deleting the policy does to its snapshots.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::label;

use crate::harness::driver::{SIM, TWO};
use crate::harness::make::{App, word};
use crate::harness::{Scene, With, scene, until};

#[tokio::test]
async fn each_claim_gets_the_default_class_of_its_own_driver() {
    scene("drivers", &[With::Healthy(SIM), With::Healthy(TWO)], async |s| {
        let (late, late_two) = (SIM.late(), TWO.late());
        let templates = [("a", late.as_str()), ("b", late_two.as_str()), ("c", SIM.class)];
        s.app(&App { name: "web", replicas: 2, start: 0, templates: &templates }).await;
        s.policy("nightly", "web", &json!({})).await;
        s.backup("nightly", &[]).await.expect(0);
        let classes: BTreeMap<_, _> = s
            .snapshots()
            .await
            .into_iter()
            .map(|snapshot| (claim(&snapshot), snapshot.spec.volume_snapshot_class_name.clone().unwrap()))
            .collect();
        let expected = [("a-0", "csi"), ("a-1", "csi"), ("b-0", "two"), ("b-1", "two"), ("c-0", "csi"), ("c-1", "csi")];
        assert_eq!(classes, expected.map(|(key, class)| (key.to_owned(), class.to_owned())).into());
        let volumes = s.volumes().await;
        assert_eq!((SIM.cuts(&volumes).len(), TWO.cuts(&volumes).len()), (4, 2), "each driver cut its own volumes");
    })
    .await;
}

fn claim(snapshot: &sts_backup::api::snapshot::VolumeSnapshot) -> String {
    format!("{}-{}", word(snapshot, label::CLAIM_TEMPLATE), word(snapshot, label::ORDINAL))
}

/// The claims that a policy has snapshots of.
async fn covered(s: &Scene, policy: &str) -> Vec<String> {
    let all = s.snapshots().await;
    let mut claims: Vec<_> = all.iter().filter(|snapshot| word(snapshot, label::POLICY) == policy).map(claim).collect();
    claims.sort();
    claims
}

#[tokio::test]
async fn ordinals_templates_and_sleeping_replicas_are_covered_as_they_are() {
    scene("cover", &[With::Healthy(SIM)], async |s| {
        s.app(&App { name: "web", replicas: 2, start: 5, templates: &[("a", SIM.class), ("b", SIM.class)] }).await;
        s.policy("all", "web", &json!({})).await;
        s.backup("all", &[]).await.expect(0);
        assert_eq!(covered(s, "all").await, ["a-5", "a-6", "b-5", "b-6"]);

        s.policy("some", "web", &json!({ "claimTemplates": ["b"] })).await;
        s.backup("some", &[]).await.expect(0);
        assert_eq!(covered(s, "some").await, ["b-5", "b-6"]);

        let asleep = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
        s.api::<StatefulSet>().patch("web", &PatchParams::default(), &asleep).await.unwrap();
        s.ready("web").await;
        s.policy("asleep", "web", &json!({})).await;
        s.backup("asleep", &[]).await.expect(0);
        assert_eq!(covered(s, "asleep").await, ["a-5", "a-6", "b-5", "b-6"], "claims without pods are data as well");
    })
    .await;
}

#[tokio::test]
async fn deleting_a_policy_takes_its_snapshots_along_only_if_asked() {
    scene("owned", &[With::Healthy(SIM)], async |s| {
        s.app(&App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("keeps", "web", &json!({})).await;
        s.policy("takes", "web", &json!({ "deletionPolicy": "Delete" })).await;
        s.backup("keeps", &[]).await.expect(0);
        s.backup("takes", &[]).await.expect(0);
        let uid = s.get("takes").await.uid();
        for snapshot in s.snapshots().await {
            let owners: Vec<_> = snapshot.owner_references().iter().map(|owner| owner.uid.clone()).collect();
            let expected = (word(&snapshot, label::POLICY) == "takes").then(|| uid.clone().unwrap());
            assert_eq!(owners, Vec::from_iter(expected), "{}", snapshot.name_any());
        }
        for name in ["keeps", "takes"] {
            s.api::<StatefulSetBackup>().delete(name, &DeleteParams::background()).await.unwrap();
        }
        until("the owned snapshot's end", 60, async || match covered(s, "takes").await {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
        assert_eq!(covered(s, "keeps").await, ["a-0"], "Retain keeps the snapshots of a policy that is gone");
        let keeps = s.snapshots().await;
        assert!(keeps[0].metadata.deletion_timestamp.is_none());
    })
    .await;
}
