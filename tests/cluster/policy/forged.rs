//! Snapshots with all the marks of ours: a tenant cannot make them, and those that are there all the same (made before the
//! policies stood, or by somebody who may) delete nothing, push nothing out and move no id.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sts_backup::api::MARKS_POLICY;
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::label;
use sts_backup::api::snapshot::VolumeSnapshot;

use super::roles::{SNAPSHOTS, grant, in_the_name_of, known};
use crate::harness::driver::SIM;
use crate::harness::make::{App, word};
use crate::harness::{Scene, With, scene};

/// A run of the policy, done: its id.
async fn run(s: &Scene) -> String {
    s.backup("nightly", &[]).await.expect(0).summary()["id"].as_str().unwrap().to_owned()
}

fn of<'a>(all: &'a [VolumeSnapshot], id: &str) -> Vec<&'a VolumeSnapshot> {
    all.iter().filter(|one| word(one, label::RUN) == id).collect()
}

async fn names(s: &Scene) -> BTreeSet<String> {
    let all = s.snapshots().await;
    all.iter().filter(|one| one.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect()
}

/// With all labels and annotations of this one.
fn like(one: &VolumeSnapshot, name: &str, claim: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": { "name": name, "labels": one.labels(), "annotations": one.annotations() },
        "spec": { "source": { "persistentVolumeClaimName": claim } },
    })
}

async fn make(s: &Scene, object: Value) {
    s.create(&serde_json::from_value::<VolumeSnapshot>(object).unwrap()).await;
}

/// Who may only create VolumeSnapshots is refused the marks, with a sentence, and nothing else.
async fn a_tenant_is_refused(s: &Scene, one: &VolumeSnapshot) {
    let user = format!("tenant-of-{}", s.namespace);
    let create = json!([{ "apiGroups": [SNAPSHOTS.0], "resources": [SNAPSHOTS.1], "verbs": [SNAPSHOTS.2] }]);
    grant(s, "tenant", &user, &create, &[&s.namespace]).await;
    known(s, &user, SNAPSHOTS, Some(&s.namespace)).await;
    let api: kube::Api<VolumeSnapshot> = kube::Api::namespaced(in_the_name_of(&user).await, &s.namespace);
    let forged = serde_json::from_value(like(one, "by-the-tenant", "a-web-0")).unwrap();
    let refused = api.create(&PostParams::default(), &forged).await.unwrap_err().to_string();
    assert!(refused.contains(MARKS_POLICY) && refused.contains(&user), "{refused}");
    let mut plain = like(one, "by-the-tenant", "a-web-0");
    plain["metadata"] = json!({ "name": "by-the-tenant" });
    api.create(&PostParams::default(), &serde_json::from_value(plain).unwrap()).await.unwrap();
}

#[tokio::test]
async fn snapshots_with_all_our_marks_delete_no_good_run_and_count_for_nothing() {
    scene("forged", &[With::Healthy(SIM)], async |s| {
        s.app(&App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class)] }).await;
        s.policy("nightly", "web", &json!({ "retentionPolicy": { "keepLast": 30 } })).await;
        let (one, two) = (run(s).await, run(s).await);
        let real = s.snapshots().await;
        a_tenant_is_refused(s, &real[0]).await;
        for id in [&one, &two] {
            let first = of(&real, id)[0];
            // Copied innocently; and on top of the run, under a name that fits, of a claim that is not there.
            make(s, like(first, &format!("copy-of-{}", first.name_any()), "no-such-claim")).await;
            let mut top = like(first, &format!("nightly-a-{id}-7"), "a-web-7");
            top["metadata"]["labels"][label::ORDINAL] = "7".into();
            make(s, top).await;
        }
        // A whole run of a year to come.
        for first in of(&real, &two) {
            let id = "20400101-000000";
            let name = first.name_any().replace(&two, id);
            let mut forged = like(first, &name, first.spec.source.persistent_volume_claim_name.as_deref().unwrap());
            forged["metadata"]["labels"][label::RUN] = id.into();
            make(s, forged).await;
        }
        let before = names(s).await;
        let three = run(s).await;
        assert!(two < three && !three.starts_with("2040"), "{three} after {two}");
        let after = names(s).await;
        assert_eq!(before.difference(&after).collect::<Vec<_>>(), Vec::<&String>::new(), "went");
        let message = s.get("nightly").await.status.unwrap().message.unwrap();
        assert!(message.contains("bears the labels of a run that it does not belong to"), "{message}");

        let change = json!({ "spec": { "retentionPolicy": { "keepLast": 2 } } });
        s.api::<StatefulSetBackup>().patch("nightly", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        let four = run(s).await;
        let left = s.snapshots().await;
        let alive = |id: &str| of(&left, id).iter().filter(|one| one.metadata.deletion_timestamp.is_none()).count();
        // Of the first two only what was put on top of them is left.
        assert_eq!([&one, &two, &three, &four].map(|id| alive(id)), [2, 2, 2, 2], "keepLast: 2 keeps two real ones");
        let whole = |id: &str| of(&left, id).iter().all(|one| !word(one, label::ORDINAL).contains('7'));
        assert!(whole(&three) && whole(&four));

        let listed = s.run(&["-n", &s.namespace, "list", "runs"]).await.expect(0).stdout;
        assert!(listed.iter().any(|line| line.contains("20400101-000000") && line.contains("foreign")), "{listed:#?}");
        let target = format!("{}/web", s.namespace);
        let asked = ["restore", "--statefulset", &target, "--backup", "nightly", "--dry-run", "-o", "json"];
        let dry = s.run(&asked).await;
        let preview: Value = serde_json::from_str(&dry.stdout.join("\n")).unwrap_or_else(|_| panic!("{dry:?}"));
        assert_eq!(preview["run"], four, "{dry:?}");
    })
    .await;
}
