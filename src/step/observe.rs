//! One read, one GET or LIST, facts. An object that does not exist is a fact; a request that failed is not one.
//! What only a restore looks at stands in `step/look.rs`.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::call;
use super::cluster::Cluster;
use super::lens::{pod, target, volume};
use super::page::list;
use super::trim::Keep;
use super::{Fault, look, record, stock};
use crate::api::lean::{PersistentVolume, PersistentVolumeClaim, StatefulSet};
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotClass};
use crate::api::{POLICY_FORMAT, annotation, label, lean};
use crate::error::{or_absent, sentence};
use crate::plan::backup::Backup;
use crate::plan::flow::{Row, Step, Verb};
use crate::plan::guard::Guard;
use crate::plan::known::{Snapshot, SnapshotClass};
use crate::plan::noun::{Pod, Snap, Want};
use crate::plan::restore::sight::Quota;
use crate::plan::view::{Fact, Read, Seen};

/// What reading needs of a role.
pub const VERBS: &[Verb] = &[
    ("backup.sts-backup.io", "statefulsetbackups", "get"),
    ("coordination.k8s.io", "leases", "get"),
    ("apps", "statefulsets", "get"),
    ("", "namespaces", "get"),
    ("", "pods", "get"),
    ("", "persistentvolumeclaims", "list"),
    ("", "resourcequotas", "list"),
    ("", "persistentvolumes", "get"),
    ("snapshot.storage.k8s.io", "volumesnapshotclasses", "list"),
    ("snapshot.storage.k8s.io", "volumesnapshots", "list"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents", "get"),
    ("backup.sts-backup.io", "statefulsetrestores", "list"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "get"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "get"),
];

pub async fn read(c: &Cluster, read: &Read) -> Result<Vec<Fact>, Fault> {
    let want = &c.want;
    let namespace = &want.statefulset_namespace;
    Ok(vec![match read {
        Read::Record => return record::read(c).await,
        Read::Lease => c.lock.see(get(c.lock.api(), c.lock.name(), &c.lock.path()).await?.as_ref()),
        Read::Target => {
            let api: Api<StatefulSet> = Api::namespaced(c.client.clone(), namespace);
            let path = format!("statefulset/{namespace}/{}", want.statefulset);
            let found = get(&api, &want.statefulset, &path).await?.as_ref().map(target);
            c.saw_set(found.as_ref().map(|found| found.uid.clone()));
            Fact::Target(found)
        }
        Read::Grant => {
            let api: Api<Namespace> = Api::all(c.client.clone());
            let found = get(&api, namespace, &format!("namespace/{namespace}")).await?;
            Fact::Grant(found.as_ref().map(grant).unwrap_or_default())
        }
        Read::Guard(policy) => Fact::Guard(policy, guard(c, policy).await?),
        Read::Pod(name) => Fact::Pod(name.clone(), pod_of(c, name).await?),
        Read::Proof(name) => Fact::Proof(name.clone(), pod_of(c, name).await?),
        Read::Claims => {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(c.client.clone(), namespace);
            let keep = Keep::of(c);
            let kept = |object: PersistentVolumeClaim| Some((object.name_any(), keep.claim(&object)));
            let all = list(&api, ListParams::default(), &format!("persistentvolumeclaims/{namespace}"), kept).await?;
            Fact::Claims(all.into_iter().collect())
        }
        Read::Volume(name) => {
            let api: Api<PersistentVolume> = Api::all(c.client.clone());
            let found = get(&api, name, &format!("persistentvolume/{name}")).await?;
            Fact::Volume(name.clone(), found.as_ref().map(volume))
        }
        Read::Classes => {
            let api: Api<VolumeSnapshotClass> = Api::all(c.client.clone());
            let kept = |object| Some(SnapshotClass::of(&object));
            Fact::Classes(list(&api, ListParams::default(), "volumesnapshotclasses", kept).await?)
        }
        Read::Snaps => {
            let api: Api<VolumeSnapshot> = Api::namespaced(c.client.clone(), namespace);
            let params = ListParams::default().labels(&selector(c));
            let kept = |object: VolumeSnapshot| Some((object.name_any(), snap(&object, c.clock.now())?));
            let all = list(&api, params, &format!("volumesnapshots/{namespace}"), kept).await?;
            Fact::Snaps(Seen::Known(all.into_iter().collect()))
        }
        Read::Restore(look) => return look::look(c, look).await,
        Read::Quotas => Fact::Quotas(c.clock.now(), quotas(c).await?),
        Read::Rights => Fact::Rights(c.clock.now(), look::missing(c, freeze_needs(want)).await?),
        Read::Stock | Read::Content(_) | Read::Restores => Fact::Prune(stock::read(c, read).await?),
    }])
}

/// Who may not read them goes on without: then it is a snapshot that is refused.
async fn quotas(c: &Cluster) -> Result<Vec<Quota>, Fault> {
    match look::quotas(c).await {
        Err(Fault::Denied(_) | Fault::Refused(_)) => Ok(vec![]),
        seen => seen,
    }
}

/// The rights that only a freeze uses.
fn freeze_needs(want: &Want) -> BTreeSet<Verb> {
    let hooks = !want.backup.hooks.is_empty();
    let needs = |row: &&Row| ["Snapshot", "Delete"].contains(&row.name) || hooks && ["Mark", "Pre"].contains(&row.name);
    Backup::TABLE.iter().filter(needs).flat_map(|row| row.verbs).copied().collect()
}

/// The snapshots of the `StatefulSet`, whoever's.
pub fn selector(c: &Cluster) -> String {
    format!("{}={}", label::STATEFULSET, c.want.statefulset)
}

/// How long one request of a read may take: a connection that is open proves nothing, and nobody else would end it.
const ANSWER: Duration = Duration::from_secs(15);

/// What was answered in that time, an error included.
pub async fn answered<T>(
    verb: &str,
    path: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, Fault> {
    timeout(ANSWER, request).await.map_err(|_| {
        let message = format!("no answer within {} s", ANSWER.as_secs());
        tracing::warn!(verb, object = path, outcome = "unknown", message);
        Fault::Lost
    })
}

pub(super) async fn get<K>(api: &Api<K>, name: &str, path: &str) -> Result<Option<K>, Fault>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    or_absent(answered("get", path, api.get(name)).await?).map_err(|error| fault(&error, "get", path))
}

pub(super) fn fault(error: &kube::Error, verb: &str, path: &str) -> Fault {
    tracing::warn!(verb, object = path, outcome = "unknown", message = sentence(error));
    call::fault(error, &format!("{verb} {path}"))
}

/// The policy and the binding of its name, as far as they stand.
async fn guard(c: &Cluster, name: &'static str) -> Result<Guard, Fault> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(c.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(c.client.clone());
    let policy = get(&policies, name, &format!("validatingadmissionpolicy/{name}")).await?;
    let binding = get(&bindings, name, &format!("validatingadmissionpolicybinding/{name}")).await?;
    Ok(guard_of(name, policy.as_ref(), binding.as_ref()))
}

/// What the policy of that name and its binding say.
pub fn guard_of(
    name: &str,
    policy: Option<&ValidatingAdmissionPolicy>,
    binding: Option<&ValidatingAdmissionPolicyBinding>,
) -> Guard {
    let written = |policy: &ValidatingAdmissionPolicy| -> Option<u32> {
        policy.annotations().get(annotation::FORMAT)?.parse().ok()
    };
    // Absent means Fail.
    let fails = |policy: &ValidatingAdmissionPolicy| {
        policy.spec.as_ref().and_then(|spec| spec.failure_policy.as_ref()).is_none_or(|policy| policy == "Fail")
    };
    let bound = binding.map(|binding| &binding.spec).filter(|spec| spec.policy_name == name);
    Guard {
        fails: policy.map(fails),
        actions: bound.map(|spec| spec.validation_actions.clone()),
        outdated: policy.is_some_and(|policy| written(policy) < POLICY_FORMAT.parse().ok()),
        unread: None,
    }
}

/// The namespaces that this one's annotation lets in.
fn grant(namespace: &Namespace) -> Vec<String> {
    let text = namespace.annotations().get(annotation::ALLOW_FROM).map_or("", String::as_str);
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
}

async fn pod_of(c: &Cluster, name: &str) -> Result<Option<Pod>, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let api: Api<lean::Pod> = Api::namespaced(c.client.clone(), namespace);
    Ok(get(&api, name, &format!("pod/{namespace}/{name}")).await?.as_ref().map(|object| pod(object, c.clock.now())))
}

/// A snapshot as it describes itself; none when it is no member of a run, or lacks what every one of ours carries.
/// `now`: since when a complaint of the driver is known to this process.
pub fn snap(object: &VolumeSnapshot, now: Timestamp) -> Option<Snap> {
    Snapshot::of(object).snap(now)
}
