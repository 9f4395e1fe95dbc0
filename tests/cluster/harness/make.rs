//! What tests put on the cluster: StatefulSets of the counting application, policies, plain snapshots; and looking
//! at them.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::label;
use sts_backup::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};

use super::{Scene, until};

/// A StatefulSet that is made of parts.
#[derive(Debug, Clone)]
pub struct App<'a> {
    pub name: &'a str,
    pub replicas: u32,
    pub start: u32,
    /// Name and storage class of each volumeClaimTemplate.
    pub templates: &'a [(&'a str, &'a str)],
}

impl App<'_> {
    /// The application that counts up in a file of each volume.
    pub fn manifest(&self) -> StatefulSet {
        let dirs: Vec<_> = self.templates.iter().map(|(name, _)| format!("/{name}")).collect();
        let mounts = self.templates.iter().map(|(name, _)| json!({ "name": name, "mountPath": format!("/{name}") }));
        let claims = self.templates.iter().map(|(name, class)| claim(name, class));
        let container = json!({
            "name": "app", "image": "localhost/app:1", "imagePullPolicy": "IfNotPresent", "args": dirs,
            "volumeMounts": mounts.collect::<Vec<_>>(),
        });
        let pod = json!({ "terminationGracePeriodSeconds": 0, "containers": [container] });
        self.with(&pod, &claims.collect::<Vec<_>>())
    }

    /// The same, but no pod of it is ever placed: its claims are there, and nothing holds them.
    pub fn placeless(&self) -> StatefulSet {
        let mut object = self.manifest();
        let spec = &mut object.spec;
        spec.pod_management_policy = Some("OrderedReady".into());
        let pod = spec.template.spec.as_mut().unwrap();
        pod.node_selector = Some([("no".to_owned(), "where".to_owned())].into());
        object
    }

    fn with(&self, pod: &Value, claims: &[Value]) -> StatefulSet {
        let labels = json!({ "app": self.name });
        let spec = json!({
            "replicas": self.replicas,
            "ordinals": { "start": self.start },
            "serviceName": self.name,
            "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
            "volumeClaimTemplates": claims,
        });
        serde_json::from_value(json!({ "metadata": { "name": self.name }, "spec": spec })).unwrap()
    }
}

pub fn claim(name: &str, class: &str) -> Value {
    let request = json!({ "requests": { "storage": "10Mi" } });
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": request });
    json!({ "metadata": { "name": name }, "spec": spec })
}

/// A policy for the StatefulSet of that name, with more in its spec.
pub fn policy(name: &str, statefulset: &str, more: &Value) -> StatefulSetBackup {
    let mut spec = json!({ "statefulSetRef": { "name": statefulset } });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    serde_json::from_value(json!({
        "apiVersion": sts_backup::api::API_VERSION, "kind": "StatefulSetBackup",
        "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

impl Scene {
    /// The application, and every replica of it ready.
    pub async fn app(&self, app: &App<'_>) {
        self.app_of(&app.manifest()).await;
    }

    /// The same of a changed manifest.
    pub async fn app_of(&self, manifest: &StatefulSet) {
        self.create(manifest).await;
        self.ready(&manifest.name_any()).await;
    }

    pub async fn patch_app(&self, name: &str, patch: &Value) {
        self.api::<StatefulSet>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The claim has its volume.
    pub async fn bound(&self, claim: &str) {
        until(&format!("{claim} to be bound"), 60, async || {
            let found = self.api::<PersistentVolumeClaim>().get_opt(claim).await.unwrap();
            let phase = found.and_then(|claim| claim.status?.phase).unwrap_or_default();
            (phase == "Bound").then_some(()).ok_or(phase)
        })
        .await;
    }

    pub async fn policy(&self, name: &str, statefulset: &str, more: &Value) -> StatefulSetBackup {
        self.create(&policy(name, statefulset, more)).await
    }

    /// Every replica that is asked for is ready, and no other pod is there.
    pub async fn ready(&self, name: &str) {
        let look = async || {
            let object = self.api::<StatefulSet>().get(name).await.unwrap();
            let (spec, status) = (object.spec, object.status.unwrap_or_default());
            let (wanted, ready) = (spec.replicas.unwrap_or(1), status.ready_replicas.unwrap_or(0));
            let pods = self.pods(name).await.len();
            let whole = ready == wanted && usize::try_from(wanted) == Ok(pods);
            whole.then_some(()).ok_or_else(|| format!("{ready} of {wanted} ready, {pods} pods"))
        };
        until(&format!("the pods of {name}"), 180, look).await;
    }

    pub async fn pods(&self, statefulset: &str) -> Vec<Pod> {
        let of = ListParams::default().labels(&format!("app={statefulset}"));
        self.api::<Pod>().list(&of).await.unwrap().items
    }

    /// The volumes of our claims, as the driver names them.
    pub async fn volumes(&self) -> Vec<String> {
        let claims = self.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap();
        claims.items.into_iter().filter_map(|claim| claim.spec?.volume_name).collect()
    }

    pub async fn get(&self, policy: &str) -> StatefulSetBackup {
        self.api::<StatefulSetBackup>().get(policy).await.unwrap()
    }

    /// All VolumeSnapshots of our namespace.
    pub async fn snapshots(&self) -> Vec<VolumeSnapshot> {
        self.api::<VolumeSnapshot>().list(&ListParams::default()).await.unwrap().items
    }

    pub async fn content(&self, snapshot: &VolumeSnapshot) -> Option<VolumeSnapshotContent> {
        let api: kube::Api<VolumeSnapshotContent> = kube::Api::all(self.client.clone());
        api.get_opt(&format!("snapcontent-{}", snapshot.uid().unwrap())).await.unwrap()
    }

    /// Who holds the lock of the StatefulSet; `None`: there is no Lease.
    pub async fn holder(&self, statefulset: &str) -> Option<Option<String>> {
        let lease = self.api::<Lease>().get_opt(&format!("sts-backup-{statefulset}")).await.unwrap()?;
        Some(lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
    }

    /// Reasons and notes of the product's events on an object.
    pub async fn events(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let all = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let about = |event: &Event| {
            event.reporting_controller.as_deref() == Some("sts-backup.io/runner")
                && event
                    .regarding
                    .as_ref()
                    .is_some_and(|r| r.kind.as_deref() == Some(kind) && r.name.as_deref() == Some(name))
        };
        let mut found: Vec<_> = all.into_iter().filter(about).collect();
        found.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
        found.into_iter().map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
    }
}

/// A snapshot's label or annotation; empty when it has none.
pub fn word<'a>(snapshot: &'a VolumeSnapshot, key: &str) -> &'a str {
    let all = if [label::MANAGED_BY, label::STATEFULSET, label::POLICY, label::POLICY_NAMESPACE, label::POLICY_UID]
        .contains(&key)
        || [label::RUN, label::CLAIM_TEMPLATE, label::ORDINAL].contains(&key)
    {
        snapshot.labels()
    } else {
        snapshot.annotations()
    };
    all.get(key).map_or("", String::as_str)
}

pub fn is_ready(snapshot: &VolumeSnapshot) -> bool {
    snapshot.status.as_ref().and_then(|status| status.ready_to_use) == Some(true)
}
