//! What only a restore looks at: one look, facts. Nothing here changes anything; what is sent to be refused is a dry
//! run. `step/source.rs` and `step/lens.rs` say what the objects tell.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Namespace, Node as NodeObject, ResourceQuota};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass as StorageClassObject};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

use super::cluster::Cluster;
use super::lens::{quota, storage_class};
use super::observe::{answered, get};
use super::page::list;
use super::trim::{self, Keep};
use super::{Fault, call, claim, fence, record};
use crate::api::condition::Reason;
use crate::api::label;
use crate::api::lean::{PersistentVolume, Pod, Restore as Other, VolumeAttachment};
use crate::api::restore::RestorePhase;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::plan::flow::{Step, Verb};
use crate::plan::known::Content;
use crate::plan::known::snapshot::recorded;
use crate::plan::noun::{Denial, Refusal};
use crate::plan::restore::Restore;
use crate::plan::restore::sight::{Look, Peer, Quota, Sight};
use crate::plan::text::{SAID, head};
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
    let everywhere = ListParams::default;
    let sight = match look {
        Look::Record => return record::read_restore(c).await,
        Look::Pods => return Ok(vec![pods(c).await?]),
        Look::Sources => {
            let kept = |object| trim::snapshot(&c.want, &object);
            Sight::Sources(snapshots(c, everywhere(), kept).await?.into_iter().collect())
        }
        Look::Recorded(name) => {
            let named = everywhere().fields(&format!("metadata.name={name}"));
            let found = snapshots(c, named, |object| recorded(&object)).await?;
            Sight::Recorded(name.clone(), found.into_iter().next())
        }
        Look::Content(name) => {
            let api: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
            let found = get(&api, name, &format!("volumesnapshotcontent/{name}")).await?;
            Sight::Content(name.clone(), found.as_ref().map(Content::of))
        }
        Look::Handles(asked) => Sight::Handles(handles(c, asked).await?),
        Look::StorageClasses => {
            let api: Api<StorageClassObject> = Api::all(c.client.clone());
            let kept = |object| Some(storage_class(&object));
            Sight::StorageClasses(list(&api, everywhere(), "storageclasses", kept).await?)
        }
        Look::Nodes => Sight::Nodes(nodes(c).await?),
        Look::Quotas => Sight::Quotas(quotas(c).await?),
        Look::Rights => Sight::Rights(rights(c).await?),
        Look::Trial(new) => claim::trial(c, new).await?,
        Look::Peers => Sight::Peers(peers(c).await?),
        Look::Attached => Sight::Attached(attached(c).await?),
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

async fn pods(c: &Cluster) -> Result<Fact, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let (api, keep): (Api<Pod>, _) = (Api::namespaced(c.client.clone(), namespace), Keep::of(c));
    let kept = |object: Pod| Some((object.name_any(), keep.pod(&object)?));
    let all = list(&api, ListParams::default(), &format!("pods/{namespace}"), kept).await?;
    Ok(Fact::Pods(all.into_iter().collect()))
}

async fn snapshots<T>(
    c: &Cluster,
    params: ListParams,
    keep: impl FnMut(VolumeSnapshot) -> Option<T>,
) -> Result<Vec<T>, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let api: Api<VolumeSnapshot> = Api::namespaced(c.client.clone(), namespace);
    list(&api, params, &format!("volumesnapshots/{namespace}"), keep).await
}

/// How many contents were cut of each of these volumes.
async fn handles(c: &Cluster, asked: &BTreeSet<String>) -> Result<BTreeMap<String, usize>, Fault> {
    let api: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
    let handle = |object: VolumeSnapshotContent| object.spec.source.volume_handle.filter(|of| asked.contains(of));
    Ok(count(list(&api, ListParams::default(), "volumesnapshotcontents", handle).await?))
}

async fn attached(c: &Cluster) -> Result<BTreeSet<String>, Fault> {
    let api: Api<VolumeAttachment> = Api::all(c.client.clone());
    let volume = |object: VolumeAttachment| object.spec.source.persistent_volume_name;
    Ok(list(&api, ListParams::default(), "volumeattachments", volume).await?.into_iter().collect())
}

pub(super) async fn quotas(c: &Cluster) -> Result<Vec<Quota>, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let api: Api<ResourceQuota> = Api::namespaced(c.client.clone(), namespace);
    list(&api, ListParams::default(), &format!("resourcequotas/{namespace}"), |object| Some(quota(&object))).await
}

fn count(names: Vec<String>) -> BTreeMap<String, usize> {
    names.into_iter().fold(BTreeMap::new(), |mut all, name| {
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
    let of = |object: CSINode| {
        let name = object.name_any();
        Some((name, object.spec.drivers.into_iter().map(|driver| driver.name).collect::<Vec<_>>()))
    };
    let drivers: BTreeMap<_, _> = list(&csi, ListParams::default(), "csinodes", of).await?.into_iter().collect();
    let ready = |object: &NodeObject| {
        let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|of| of.type_ == "Ready" && of.status == "True")
    };
    let node = |object: NodeObject| {
        Some(Node {
            name: object.name_any(),
            ready: ready(&object),
            schedulable: !object.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
            labels: object.labels().clone(),
            drivers: drivers.get(&object.name_any()).cloned().unwrap_or_default(),
        })
    };
    list(&nodes, ListParams::default(), "nodes", node).await
}

/// What a restore needs from its plan on and we may not do: one question each, all at once.
async fn rights(c: &Cluster) -> Result<Vec<String>, Fault> {
    let verbs: BTreeSet<Verb> = Restore::TABLE.iter().flat_map(|row| row.verbs).chain(LATER).copied().collect();
    missing(c, verbs).await
}

/// What of these we may not do.
pub(super) async fn missing(c: &Cluster, verbs: BTreeSet<Verb>) -> Result<Vec<String>, Fault> {
    let answers = join_all(verbs.into_iter().map(|verb| may(c, verb))).await;
    let missing: Result<Vec<Option<String>>, Fault> = answers.into_iter().collect();
    Ok(missing?.into_iter().flatten().collect())
}

/// As the API server is asked whether somebody may do it. `namespace`: none for what lies in no namespace.
pub fn attributes((group, resource, verb): Verb, namespace: Option<String>) -> ResourceAttributes {
    let (kind, subresource) = resource.split_once('/').map_or((resource, None), |(kind, sub)| (kind, Some(sub)));
    ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(kind.to_owned()),
        subresource: subresource.map(ToOwned::to_owned),
        verb: Some(verb.to_owned()),
        namespace,
        ..ResourceAttributes::default()
    }
}

/// None: we may.
async fn may(c: &Cluster, (group, resource, verb): Verb) -> Result<Option<String>, Fault> {
    let namespace = match group {
        "backup.sts-backup.io" => Some(c.want.namespace.clone()),
        _ if ["persistentvolumes", "volumeattachments"].contains(&resource) => None,
        _ => Some(c.want.statefulset_namespace.clone()),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes((group, resource, verb), namespace.clone())),
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

/// What `keep` takes of each restore; who may not look everywhere looks in the object's namespace and in the StatefulSet's.
pub(super) async fn restores<T>(c: &Cluster, keep: impl Fn(Other) -> Option<T>) -> Result<Vec<T>, Fault> {
    let (own, target) = (&c.want.namespace, &c.want.statefulset_namespace);
    let all: Api<Other> = Api::all(c.client.clone());
    Ok(match list(&all, ListParams::default(), "statefulsetrestores", &keep).await {
        Ok(found) => found,
        Err(Fault::Lost) => return Err(Fault::Lost),
        Err(Fault::Refused(_) | Fault::Denied(_)) => {
            let mut found = vec![];
            for namespace in BTreeSet::from([own, target]) {
                let api: Api<Other> = Api::namespaced(c.client.clone(), namespace);
                found.extend(
                    list(&api, ListParams::default(), &format!("statefulsetrestores/{namespace}"), &keep).await?,
                );
            }
            found
        }
    })
}

/// The restores of the same `StatefulSet`.
async fn peers(c: &Cluster) -> Result<Vec<Peer>, Fault> {
    let target = &c.want.statefulset_namespace;
    let its = |object: Other| {
        let of = &object.spec.stateful_set_ref;
        let namespace = of.namespace.clone().or_else(|| object.namespace());
        (of.name == c.want.statefulset && namespace.as_ref() == Some(target)).then(|| peer(&object))
    };
    restores(c, its).await
}

/// Nothing more is done for it.
pub(super) fn has_ended(object: &Other) -> bool {
    object.status.phase.is_some_and(RestorePhase::is_end)
}

fn peer(object: &Other) -> Peer {
    let status = &object.status;
    Peer {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        created: object.creation_timestamp().map(|time| time.0).unwrap_or_default(),
        began: status.start_time,
        planned: status.plan.is_some(),
        ended: has_ended(object),
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
    let its = |object: HorizontalPodAutoscaler| {
        let of = &object.spec.scale_target_ref;
        let is_its = of.kind == "StatefulSet" && of.name == c.want.statefulset;
        is_its.then(|| format!("HorizontalPodAutoscaler {}", object.name_any()))
    };
    match list(&api, ListParams::default(), &format!("horizontalpodautoscalers/{namespace}"), its).await {
        Ok(all) => Ok(all),
        Err(Fault::Lost) => Err(Fault::Lost),
        Err(Fault::Refused(_) | Fault::Denied(_)) => Ok(vec![]),
    }
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
    let mut newest = (None, None);
    let newer = |event: Event| -> Option<()> {
        let at = event.last_timestamp.map(|time| time.0);
        if at >= newest.0 {
            newest = (at, event.message.map(|message| head(&message, SAID).into_owned()));
        }
        None
    };
    match list(&api, ListParams::default().fields(&about), &format!("events/{namespace}"), newer).await {
        Ok(_) => Ok(newest.1),
        Err(Fault::Lost) => Err(Fault::Lost),
        Err(Fault::Refused(_) | Fault::Denied(_)) => Ok(None),
    }
}

/// Volumes that bear our label or are reserved for or bound to a staging claim of ours.
async fn kin(c: &Cluster) -> Result<BTreeSet<String>, Fault> {
    let api: Api<PersistentVolume> = Api::all(c.client.clone());
    let staged = |object: &PersistentVolume| {
        let of = object.spec.claim_ref.as_ref();
        of.is_some_and(|of| of.namespace == c.want.statefulset_namespace && of.name.ends_with(&c.want.uid))
    };
    let ours = |object: &PersistentVolume| object.labels().get(label::RESTORE) == Some(&c.want.uid) || staged(object);
    let name = |object: PersistentVolume| ours(&object).then(|| object.name_any());
    Ok(list(&api, ListParams::default(), "persistentvolumes", name).await?.into_iter().collect())
}
