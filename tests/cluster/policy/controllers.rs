//! The controllers of Kubernetes go on working under the policies: what an owner takes along, what is orphaned, what a
//! StatefulSet's controller makes of its templates; and whole collections are judged one by one.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::restore::StatefulSetRestore;
use sts_backup::api::snapshot::VolumeSnapshot;
use sts_backup::api::{API_VERSION, FINALIZER, label};

use super::roles::{grant, in_the_name_of};
use crate::harness::driver::SIM;
use crate::harness::make::{App, policy};
use crate::harness::{Scene, With, scene, until};

async fn gone<K>(s: &Scene, name: &str)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    until(&format!("{name} to be gone"), 60, async || match s.api::<K>().get_opt(name).await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.meta())),
    })
    .await;
}

/// A snapshot of a run of that backup, which goes with it.
async fn snapshot(s: &Scene, name: &str, of: &StatefulSetBackup) {
    let owner =
        json!([{ "apiVersion": API_VERSION, "kind": "StatefulSetBackup", "name": of.name_any(), "uid": of.uid() }]);
    let object = json!({ "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": { "name": name, "ownerReferences": owner, "labels": { label::RUN: "20260101-000000" } },
        "spec": { "source": { "volumeSnapshotContentName": "none-of-these" } } });
    s.create::<VolumeSnapshot>(&serde_json::from_value(object).unwrap()).await;
}

fn owned_by(owner: &ConfigMap) -> Value {
    json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid() }])
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner_and_what_is_orphaned_stays() {
    scene("owned", &[], async |s| {
        let owner =
            s.create::<ConfigMap>(&serde_json::from_value(json!({ "metadata": { "name": "owner" } })).unwrap()).await;
        let mut backup = policy("owned", "web", &json!({ "deletionPolicy": "Delete" }));
        backup.metadata.owner_references = serde_json::from_value(owned_by(&owner)).unwrap();
        let backup = s.create(&backup).await;
        snapshot(s, "of-owned", &backup).await;
        let restore = json!({ "apiVersion": API_VERSION, "kind": "StatefulSetRestore",
            "metadata": { "name": "owned", "ownerReferences": owned_by(&owner) },
            "spec": { "statefulSetRef": { "name": "web" }, "backupName": "owned" } });
        s.create::<StatefulSetRestore>(&serde_json::from_value(restore).unwrap()).await;
        let orphaned = s.policy("orphaned", "web", &json!({ "deletionPolicy": "Delete" })).await;
        snapshot(s, "of-orphaned", &orphaned).await;

        s.api::<ConfigMap>().delete("owner", &DeleteParams::background()).await.unwrap();
        gone::<StatefulSetBackup>(s, "owned").await;
        gone::<VolumeSnapshot>(s, "of-owned").await;
        gone::<StatefulSetRestore>(s, "owned").await;

        s.api::<StatefulSetBackup>().delete("orphaned", &DeleteParams::orphan()).await.unwrap();
        gone::<StatefulSetBackup>(s, "orphaned").await;
        let left = s.api::<VolumeSnapshot>().get("of-orphaned").await.unwrap();
        assert!(left.owner_references().is_empty() && left.labels().contains_key(label::RUN), "{:?}", left.metadata);
    })
    .await;
}

/// Nobody is asked by name: each object is judged all the same.
#[tokio::test]
async fn a_whole_collection_is_judged_one_by_one() {
    scene("all", &[], async |s| {
        let user = format!("system:serviceaccount:{}:sweeper", s.namespace);
        let all = json!([{ "apiGroups": ["backup.sts-backup.io"], "resources": ["*"], "verbs": ["deletecollection", "list"] }]);
        grant(s, "sweeper", &user, &all, &[&s.namespace]).await;
        let spec = json!({ "statefulSetRef": { "name": "web" }, "backupName": "b" });
        let held = json!({ "apiVersion": API_VERSION, "kind": "StatefulSetRestore", "spec": spec,
            "metadata": { "name": "held", "finalizers": [FINALIZER] } });
        s.create::<StatefulSetRestore>(&serde_json::from_value(held).unwrap()).await;
        s.policy("owning", "web", &json!({ "deletionPolicy": "Delete" })).await;
        let theirs = in_the_name_of(&user).await;
        let (restores, backups): (Api<StatefulSetRestore>, Api<StatefulSetBackup>) =
            (Api::namespaced(theirs.clone(), &s.namespace), Api::namespaced(theirs, &s.namespace));
        let said = until("the policies to be asked", 30, async || {
            let (params, every) = (DeleteParams::default(), ListParams::default());
            let of_restores = restores.delete_collection(&params, &every).await.map(drop).unwrap_err();
            let of_backups = backups.delete_collection(&params, &every).await.map(drop).unwrap_err();
            let said = [of_restores.to_string(), of_backups.to_string()];
            if said.iter().all(|said| said.contains("denied request")) { Ok(said) } else { Err(said.join("; ")) }
        })
        .await;
        assert!(said[0].contains("deleting a StatefulSetRestore that is under way"), "{said:?}");
        assert!(said[1].contains("deleting a StatefulSetBackup with deletionPolicy Delete"), "{said:?}");
        let left = s.api::<StatefulSetRestore>().get("held").await.unwrap();
        assert!(left.metadata.deletion_timestamp.is_none() && s.get("owning").await.metadata.deletion_timestamp.is_none());
        let bare = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        s.api::<StatefulSetRestore>().patch("held", &PatchParams::default(), &bare).await.unwrap();
    })
    .await;
}

/// A mark in a template would be forged by the controller: it is denied the claim, and says what is wrong where people look.
#[tokio::test]
async fn a_statefulset_whose_template_has_our_mark_says_so() {
    scene("template", &[With::Healthy(SIM)], async |s| {
        let app = App { name: "web", replicas: 1, start: 0, templates: &[("a", SIM.class)] };
        let mut manifest = app.manifest();
        let template = &mut manifest.spec.volume_claim_templates.as_mut().unwrap()[0];
        template.metadata.labels = Some([(label::RESTORE.to_owned(), "u".to_owned())].into());
        s.api::<k8s_openapi::api::apps::v1::StatefulSet>().create(&PostParams::default(), &manifest).await.unwrap();
        until("an Event that names the label", 60, async || {
            let notes: Vec<_> = s.api::<Event>().list(&ListParams::default()).await.unwrap().items;
            let notes: Vec<_> = notes.into_iter().filter_map(|event| event.note).collect();
            let says = |note: &String| note.contains(label::RESTORE) && note.contains("is managed by sts-backup");
            notes.iter().any(says).then_some(()).ok_or_else(|| format!("{notes:?}"))
        })
        .await;
        let claims = s.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
        assert!(claims.is_empty(), "{claims:?}");
    })
    .await;
}
