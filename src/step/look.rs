//! What only a restore looks at: one look, facts. Nothing here changes anything; what is sent to be refused is a dry
//! run. `step/source.rs` and `step/lens.rs` say what the objects tell.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Namespace, Node as NodeObject, ResourceQuota};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass as StorageClassObject, VolumeAttachment};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

use super::cluster::Cluster;
use super::lens::{pod, quota, storage_class};
use super::observe::{answered, get, list};
use super::source::{content, snapshot_class, source};
use super::{Fault, call, claim, fence, record};
use crate::api::condition::Reason;
use crate::api::label;
use crate::api::lean::{PersistentVolume, Pod};
use crate::api::restore::{RestorePhase, StatefulSetRestore};
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use crate::plan::flow::{Step, Verb};
use crate::plan::noun::{Denial, Refusal};
use crate::plan::restore::Restore;
use crate::plan::restore::sight::{Look, Peer, Sight};
use crate::plan::topology::Node;
use crate::plan::view::Fact;

/// What looking needs of a role. Who we are and what we may do everybody may ask.
pub const VERBS: &[Verb] = &[
    ("backup.sts-backup.io", "statefulsetrestores", "get"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents", "list"),
    ("storage.k8s.io", "storageclasses", "list"),
    ("storage.k8s.io", "csinodes", "list"),
    ("storage.k8s.io", "volumeattachments", "list"),
    ("", "persistentvolumeclaims", "get"),
    ("", "nodes", "list"),
    ("", "resourcequotas", "list"),
    ("", "events", "list"),
    ("autoscaling", "horizontalpodautoscalers", "list"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "get"),
];

/// What a restore reads and watches for the first time when its plan is written already. Without it a watch says
/// nothing, and the pods would stand still until a deadline.
const LATER: &[Verb] = &[
    ("", "persistentvolumeclaims", "watch"),
    ("", "persistentvolumes", "list"),
    ("", "persistentvolumes", "watch"),
    ("", "pods", "watch"),
    ("apps", "statefulsets", "list"),
    ("apps", "statefulsets", "watch"),
    ("storage.k8s.io", "volumeattachments", "list"),
    ("storage.k8s.io", "volumeattachments", "watch"),
];

pub async fn look(c: &Cluster, look: &Look) -> Result<Vec<Fact>, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let everywhere = ListParams::default;
    let sight = match look {
        Look::Record => return record::read_restore(c).await,
        Look::Pods => {
            let api: Api<Pod> = Api::namespaced(c.client.clone(), namespace);
            let all = list(&api, everywhere(), &format!("pods/{namespace}")).await?;
            let now = c.clock.now();
            return Ok(vec![Fact::Pods(all.iter().map(|object| (object.name_any(), pod(object, now))).collect())]);
        }
        Look::Sources => {
            let api: Api<VolumeSnapshot> = Api::namespaced(c.client.clone(), namespace);
            let all = list(&api, everywhere(), &format!("volumesnapshots/{namespace}")).await?;
            Sight::Sources(all.iter().map(|object| (object.name_any(), source(object))).collect())
        }
        Look::Content(name) => {
            let api: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
            let found = get(&api, name, &format!("volumesnapshotcontent/{name}")).await?;
            Sight::Content(name.clone(), found.as_ref().map(content))
        }
        Look::Handles => {
            let api: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
            let all = list(&api, everywhere(), "volumesnapshotcontents").await?;
            Sight::Handles(count(all.into_iter().filter_map(|object| object.spec.source.volume_handle)))
        }
        Look::StorageClasses => {
            let api: Api<StorageClassObject> = Api::all(c.client.clone());
            Sight::StorageClasses(list(&api, everywhere(), "storageclasses").await?.iter().map(storage_class).collect())
        }
        Look::SnapshotClasses => {
            let api: Api<VolumeSnapshotClass> = Api::all(c.client.clone());
            let all = list(&api, everywhere(), "volumesnapshotclasses").await?;
            Sight::SnapshotClasses(all.iter().map(snapshot_class).collect())
        }
        Look::Nodes => Sight::Nodes(nodes(c).await?),
        Look::Quotas => {
            let api: Api<ResourceQuota> = Api::namespaced(c.client.clone(), namespace);
            let all = list(&api, everywhere(), &format!("resourcequotas/{namespace}")).await?;
            Sight::Quotas(all.iter().map(quota).collect())
        }
        Look::Rights => Sight::Rights(rights(c).await?),
        Look::Trial(new) => claim::trial(c, new).await?,
        Look::Peers => Sight::Peers(peers(c).await?),
        Look::Attached => {
            let api: Api<VolumeAttachment> = Api::all(c.client.clone());
            let all = list(&api, everywhere(), "volumeattachments").await?;
            Sight::Attached(all.into_iter().filter_map(|one| one.spec.source.persistent_volume_name).collect())
        }
        Look::Scalers => Sight::Scalers(scalers(c).await?),
        Look::Fence => fence::probe(c).await?,
        Look::User => Sight::User(user(c).await?),
        Look::Trouble(name) => Sight::Trouble(name.clone(), trouble(c, name).await?),
        Look::Ending => Sight::Ending(is_ending(c, &c.want.namespace).await?),
        Look::Closing => Sight::Closing(closing(c).await?),
        Look::Kin => Sight::Kin(kin(c).await?),
    };
    Ok(vec![Fact::Restore(Box::new(sight))])
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    names.fold(BTreeMap::new(), |mut all, name| {
        *all.entry(name).or_default() += 1;
        all
    })
}

/// Who may not look takes it for staying: the API server makes nothing in one that goes.
async fn closing(c: &Cluster) -> Result<bool, Fault> {
    match is_ending(c, &c.want.statefulset_namespace).await {
        Err(Fault::Refused(_) | Fault::Denied(_)) => Ok(false),
        seen => seen,
    }
}

async fn is_ending(c: &Cluster, namespace: &str) -> Result<bool, Fault> {
    let api: Api<Namespace> = Api::all(c.client.clone());
    let found = get(&api, namespace, &format!("namespace/{namespace}")).await?;
    Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// Nodes, with the drivers that are registered on them.
async fn nodes(c: &Cluster) -> Result<Vec<Node>, Fault> {
    let nodes: Api<NodeObject> = Api::all(c.client.clone());
    let csi: Api<CSINode> = Api::all(c.client.clone());
    let mut drivers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in list(&csi, ListParams::default(), "csinodes").await? {
        let of = object.spec.drivers.iter().map(|driver| driver.name.clone()).collect();
        drivers.insert(object.name_any(), of);
    }
    let ready = |object: &NodeObject| {
        let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|of| of.type_ == "Ready" && of.status == "True")
    };
    let all = list(&nodes, ListParams::default(), "nodes").await?;
    Ok(all
        .iter()
        .map(|object| Node {
            name: object.name_any(),
            ready: ready(object),
            schedulable: !object.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
            labels: object.labels().clone(),
            drivers: drivers.remove(&object.name_any()).unwrap_or_default(),
        })
        .collect())
}

/// What a restore needs from its plan on and we may not do: one question each, all at once.
async fn rights(c: &Cluster) -> Result<Vec<String>, Fault> {
    let verbs: BTreeSet<Verb> = Restore::TABLE.iter().flat_map(|row| row.verbs).chain(LATER).copied().collect();
    let answers = join_all(verbs.into_iter().map(|verb| may(c, verb))).await;
    let missing: Result<Vec<Option<String>>, Fault> = answers.into_iter().collect();
    Ok(missing?.into_iter().flatten().collect())
}

/// None: we may.
async fn may(c: &Cluster, (group, resource, verb): Verb) -> Result<Option<String>, Fault> {
    let namespace = match group {
        "backup.sts-backup.io" => Some(c.want.namespace.clone()),
        _ if ["persistentvolumes", "volumeattachments"].contains(&resource) => None,
        _ => Some(c.want.statefulset_namespace.clone()),
    };
    let (kind, subresource) = resource.split_once('/').map_or((resource, None), |(kind, sub)| (kind, Some(sub)));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(kind.to_owned()),
                subresource: subresource.map(ToOwned::to_owned),
                verb: Some(verb.to_owned()),
                namespace: namespace.clone(),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(c.client.clone());
    let (about, post) = ("selfsubjectaccessreview", PostParams::default());
    let answer = answered("create", about, api.create(&post, &review)).await?;
    let answer = answer.map_err(|error| call::fault(&error, about))?;
    let place = namespace.map(|name| format!(" in namespace {name}")).unwrap_or_default();
    let dot = if group.is_empty() { String::new() } else { format!(".{group}") };
    let right = format!("{verb} {resource}{dot}{place}");
    let Some(status) = answer.status else { return Err(Fault::Lost) };
    match status.evaluation_error {
        // It does not know all roles, or not yet.
        Some(error) if !status.allowed => {
            let message = format!("whether the runner may {right} cannot be told: {error}");
            Err(Fault::Denied(Denial { refusal: Refusal::new(Reason::Forbidden, message), judged: false }))
        }
        _ => Ok((!status.allowed).then_some(right)),
    }
}

/// All restores; who may not look everywhere looks in the object's namespace and in the StatefulSet's.
pub(super) async fn restores(c: &Cluster) -> Result<Vec<StatefulSetRestore>, Fault> {
    let (own, target) = (&c.want.namespace, &c.want.statefulset_namespace);
    let all: Api<StatefulSetRestore> = Api::all(c.client.clone());
    Ok(match list(&all, ListParams::default(), "statefulsetrestores").await {
        Ok(found) => found,
        Err(Fault::Lost) => return Err(Fault::Lost),
        Err(Fault::Refused(_) | Fault::Denied(_)) => {
            let mut found = vec![];
            for namespace in BTreeSet::from([own, target]) {
                let api: Api<StatefulSetRestore> = Api::namespaced(c.client.clone(), namespace);
                found.extend(list(&api, ListParams::default(), &format!("statefulsetrestores/{namespace}")).await?);
            }
            found
        }
    })
}

/// The restores of the same `StatefulSet`.
async fn peers(c: &Cluster) -> Result<Vec<Peer>, Fault> {
    let target = &c.want.statefulset_namespace;
    let mut found = restores(c).await?;
    found.retain(|object| {
        let of = &object.spec.stateful_set_ref;
        let namespace = of.namespace.clone().or_else(|| object.namespace());
        of.name == c.want.statefulset && namespace.as_ref() == Some(target)
    });
    Ok(found.iter().map(peer).collect())
}

fn peer(object: &StatefulSetRestore) -> Peer {
    let status = object.status.clone().unwrap_or_default();
    Peer {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        created: object.creation_timestamp().map(|time| time.0).unwrap_or_default(),
        began: status.start_time.map(|time| time.0),
        planned: status.plan.is_some(),
        ended: object.has_ended(),
        stands: match status.phase.unwrap_or_default() {
            RestorePhase::Undone => false,
            RestorePhase::Failed => status.run.is_some(),
            _ => status.plan.is_some(),
        },
    }
}

/// A warning rests on it, no more: who may not look sees none.
async fn scalers(c: &Cluster) -> Result<Vec<String>, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(c.client.clone(), namespace);
    let all = match list(&api, ListParams::default(), &format!("horizontalpodautoscalers/{namespace}")).await {
        Ok(all) => all,
        Err(Fault::Lost) => return Err(Fault::Lost),
        Err(Fault::Refused(_) | Fault::Denied(_)) => return Ok(vec![]),
    };
    let is_its = |object: &&HorizontalPodAutoscaler| {
        let of = &object.spec.scale_target_ref;
        of.kind == "StatefulSet" && of.name == c.want.statefulset
    };
    let its = all.iter().filter(is_its);
    Ok(its.map(|object| format!("HorizontalPodAutoscaler {}", object.name_any())).collect())
}

async fn user(c: &Cluster) -> Result<String, Fault> {
    let api: Api<SelfSubjectReview> = Api::all(c.client.clone());
    let (post, review) = (PostParams::default(), SelfSubjectReview::default());
    let review = answered("create", "selfsubjectreview", api.create(&post, &review)).await?.map_err(|_| Fault::Lost)?;
    review.status.and_then(|status| status.user_info?.username).ok_or(Fault::Lost)
}

/// The newest complaint; a sentence rests on it, no more: who may not look hears none.
async fn trouble(c: &Cluster, claim: &str) -> Result<Option<String>, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let api: Api<Event> = Api::namespaced(c.client.clone(), namespace);
    let about = format!(
        "involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim},reason=ProvisioningFailed,type=Warning"
    );
    let all = match list(&api, ListParams::default().fields(&about), &format!("events/{namespace}")).await {
        Ok(all) => all,
        Err(Fault::Lost) => return Err(Fault::Lost),
        Err(Fault::Refused(_) | Fault::Denied(_)) => return Ok(None),
    };
    let newest = all.into_iter().max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    Ok(newest.and_then(|event| event.message))
}

/// Volumes that bear our label or are reserved for or bound to a staging claim of ours.
async fn kin(c: &Cluster) -> Result<BTreeSet<String>, Fault> {
    let api: Api<PersistentVolume> = Api::all(c.client.clone());
    let staged = |object: &PersistentVolume| {
        let of = object.spec.claim_ref.as_ref();
        of.is_some_and(|of| of.namespace == c.want.statefulset_namespace && of.name.ends_with(&c.want.uid))
    };
    let ours = |object: &&PersistentVolume| object.labels().get(label::RESTORE) == Some(&c.want.uid) || staged(object);
    let all = list(&api, ListParams::default(), "persistentvolumes").await?;
    Ok(all.iter().filter(ours).map(ResourceExt::name_any).collect())
}
