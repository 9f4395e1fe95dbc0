//! Restores: asked for, carried out, and what must be true of the cluster when none is under way.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sts_backup::api::restore::{StatefulSetRestore, StatefulSetRestoreStatus};
use sts_backup::api::{annotation, label};

use super::Scene;
use super::make::word;
use super::product::{Ended, Running};

/// A restore of the newest run of `nightly`, unless `more` says otherwise.
pub fn restore(name: &str, statefulset: &str, more: &Value) -> StatefulSetRestore {
    let mut spec = json!({ "statefulSetRef": { "name": statefulset }, "backupName": "nightly" });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    serde_json::from_value(json!({
        "apiVersion": sts_backup::api::API_VERSION, "kind": "StatefulSetRestore",
        "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

/// Which volume is under which claim, by claim name: uid of the claim, name of the volume.
pub type Claims = BTreeMap<String, (String, String)>;

impl Scene {
    pub async fn request(&self, name: &str, statefulset: &str, more: &Value) -> StatefulSetRestore {
        self.create(&restore(name, statefulset, more)).await
    }

    /// `run-once restore|undo|release NAME` in our namespace.
    pub fn start_restore(&self, flow: &str, name: &str, more: &[&str]) -> Running {
        let target = format!("{}/{name}", self.namespace);
        let arguments: Vec<_> = ["run-once", flow, &target].into_iter().chain(more.iter().copied()).collect();
        self.start(&arguments)
    }

    pub async fn carry_out(&self, flow: &str, name: &str) -> Ended {
        self.start_restore(flow, name, &[]).ended().await
    }

    /// Asked for and carried out.
    pub async fn restore(&self, name: &str, statefulset: &str, more: &Value) -> Ended {
        self.request(name, statefulset, more).await;
        self.carry_out("restore", name).await
    }

    pub async fn restored(&self, name: &str) -> StatefulSetRestoreStatus {
        self.api::<StatefulSetRestore>().get(name).await.unwrap().status.unwrap_or_default()
    }

    pub async fn claims(&self) -> Claims {
        let all = self.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
        let volume = |claim: &PersistentVolumeClaim| claim.spec.clone().unwrap_or_default().volume_name;
        all.iter().map(|one| (one.name_any(), (one.uid().unwrap(), volume(one).unwrap_or_default()))).collect()
    }

    /// Pods by name, with their uids: a pod that was stopped has another one.
    pub async fn pod_uids(&self, statefulset: &str) -> BTreeMap<String, String> {
        self.pods(statefulset).await.iter().map(|pod: &Pod| (pod.name_any(), pod.uid().unwrap())).collect()
    }

    /// The volumes that were ever bound to a claim of ours.
    pub async fn own_volumes(&self) -> Vec<PersistentVolume> {
        let all = Api::<PersistentVolume>::all(self.client.clone()).list(&ListParams::default()).await.unwrap().items;
        let of = |volume: &PersistentVolume| volume.spec.as_ref()?.claim_ref.as_ref()?.namespace.clone();
        all.into_iter().filter(|volume| of(volume).as_deref() == Some(&self.namespace)).collect()
    }

    pub async fn lease(&self, statefulset: &str) -> Lease {
        self.api::<Lease>().get(&format!("sts-backup-{statefulset}")).await.unwrap()
    }

    /// No restore is under way: no staging claim, no mark, no fence, no pin; volumes under claims have the policy that
    /// their class gave them and no mark of ours; volumes that are set aside are Retained and say until when. Their
    /// names.
    pub async fn tidy(&self, statefulset: &str) -> Vec<String> {
        self.look_around(statefulset, true).await
    }

    async fn look_around(&self, statefulset: &str, dated: bool) -> Vec<String> {
        let its = |name: &str| name.contains(&format!("-{statefulset}-"));
        let claims: Claims = self.claims().await.into_iter().filter(|(name, _)| its(name)).collect();
        let staging: Vec<_> = claims.keys().filter(|name| name.contains("-stage-")).collect();
        assert!(staging.is_empty(), "{staging:?}");
        let lease = self.lease(statefulset).await;
        assert!(!lease.annotations().contains_key(annotation::OPEN), "{:?}", lease.metadata);
        assert!(!lease.annotations().contains_key(annotation::FENCE_USER), "{:?}", lease.metadata);
        assert!(!lease.labels().contains_key(label::FENCE), "{:?}", lease.metadata);
        for snapshot in self.snapshots().await.iter().filter(|one| word(one, label::STATEFULSET) == statefulset) {
            assert!(!snapshot.annotations().contains_key(annotation::PINNED_BY), "{:?}", snapshot.metadata);
        }
        let under: Vec<_> = claims.values().map(|(_, volume)| volume.clone()).collect();
        let mut aside = vec![];
        let of = |volume: &PersistentVolume| volume.spec.as_ref()?.claim_ref.as_ref()?.name.clone();
        for volume in self.own_volumes().await.iter().filter(|one| of(one).is_some_and(|name| its(&name))) {
            let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
            let (name, marked) = (volume.name_any(), volume.labels().contains_key(label::RESTORE));
            let until = volume.annotations().contains_key(annotation::UNDO_DEADLINE);
            if under.contains(&name) {
                assert_eq!((policy.as_deref(), marked, until), (Some("Delete"), false, false), "{name}: {volume:?}");
            } else if volume.metadata.deletion_timestamp.is_none() && marked {
                assert_eq!((policy.as_deref(), until || !dated), (Some("Retain"), true), "{name}: {volume:?}");
                aside.push(name);
            } else {
                assert_eq!(policy.as_deref(), Some("Delete"), "{name} is left behind: {volume:?}");
            }
        }
        aside
    }

    /// The same after a restore that was deleted: what it had set aside is kept, Retained and labelled, without a day.
    pub async fn tidy_but_kept(&self, statefulset: &str) {
        self.look_around(statefulset, false).await;
    }

    /// Writes a word into every volume of every replica.
    pub async fn paint(&self, statefulset: &str, word: &str) {
        for pod in self.pods(statefulset).await {
            for dir in dirs(&pod) {
                self.exec(&pod.name_any(), &format!("echo {word} > {dir}/word")).await;
            }
        }
    }

    /// The words in the volumes, by pod and directory.
    pub async fn words(&self, statefulset: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for pod in self.pods(statefulset).await {
            for dir in dirs(&pod) {
                let word = self.exec(&pod.name_any(), &format!("cat {dir}/word")).await;
                all.insert(format!("{}{dir}", pod.name_any()), word.trim().to_owned());
            }
        }
        all
    }

    /// Every volume of every replica holds that word.
    pub async fn all_say(&self, statefulset: &str, word: &str) {
        let words = self.words(statefulset).await;
        assert!(!words.is_empty() && words.values().all(|one| one == word), "expected {word:?} everywhere: {words:?}");
    }

    /// Lets the namespace go: what a restore keeps for an undo would hold it, or stay behind it.
    pub async fn let_go(&self) {
        let restores = self.api::<StatefulSetRestore>();
        let bare = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        for restore in restores.list(&ListParams::default()).await.unwrap().items {
            restores.patch(&restore.name_any(), &PatchParams::default(), &bare).await.unwrap();
        }
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let gone = Patch::Merge(json!({ "spec": { "persistentVolumeReclaimPolicy": "Delete" } }));
        for volume in self.own_volumes().await {
            let retained = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
            let csi = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
            if csi && retained == Some("Retain") {
                // It may be gone by now.
                let _ = volumes.patch(&volume.name_any(), &PatchParams::default(), &gone).await;
            }
        }
    }
}

/// Where the volumes of the claims are in the application's container.
fn dirs(pod: &Pod) -> Vec<String> {
    pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap_or_default()
}
