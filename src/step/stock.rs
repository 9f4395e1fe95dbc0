//! What retention reads: the snapshots with whose they are, their contents, and which restores are still open.

use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::Fault;
use super::cluster::Cluster;
use super::look;
use super::observe::{get, selector, snap};
use super::page::list;
use super::source::pins;
use crate::api::lean::Restore;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::api::{annotation, label};
use crate::plan::member::{self, Standing};
use crate::plan::noun::RETAIN;
use crate::plan::prune::{Content, Fact};
use crate::plan::stock::{Piece, Policy, Stock};
use crate::plan::view::{Read, Seen};

pub async fn read(c: &Cluster, read: &Read) -> Result<Fact, Fault> {
    Ok(match read {
        Read::Content(name) => {
            let api: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
            let found = get(&api, name, &format!("volumesnapshotcontent/{name}")).await?;
            Fact::Content(name.clone(), Ok(found.as_ref().map(content)))
        }
        Read::Restores => {
            let open = |object: Restore| if look::has_ended(&object) { None } else { object.metadata.uid };
            Fact::Restores(Ok(look::restores(c, open).await?.into_iter().collect()))
        }
        _ => Fact::Stock(Seen::Known(Ok(all(c).await?))),
    })
}

pub(super) async fn all(c: &Cluster) -> Result<Stock, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let api: Api<VolumeSnapshot> = Api::namespaced(c.client.clone(), namespace);
    let params = ListParams::default().labels(&selector(c));
    let kept = |object: VolumeSnapshot| Some((object.name_any(), piece(&object, c.clock.now())));
    let all = list(&api, params, &format!("volumesnapshots/{namespace}"), kept).await?;
    Ok(all.into_iter().collect())
}

pub fn stock(objects: &[VolumeSnapshot], now: Timestamp) -> Stock {
    objects.iter().map(|object| (object.name_any(), piece(object, now))).collect()
}

/// A snapshot as retention sees it: whatever is missing in it, whose it is stays to be told.
pub fn piece(object: &VolumeSnapshot, now: Timestamp) -> Piece {
    let label = |key| object.labels().get(key).cloned().unwrap_or_default();
    let meta = &object.metadata;
    let standing = member::standing(object);
    let written = meta.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    let instants = written.chain(&meta.creation_timestamp).chain(&meta.deletion_timestamp).map(|time| time.0);
    Piece {
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        policy: Policy {
            namespace: label(label::POLICY_NAMESPACE),
            name: label(label::POLICY),
            uid: label(label::POLICY_UID),
        },
        stranger: if let Standing::Stranger(odd) = standing { Some(odd) } else { None },
        run: standing.run(),
        claim: standing.claim(),
        created: meta.creation_timestamp.as_ref().map_or(now, |time| time.0),
        snap: snap(object, now),
        pins: pins(object).into_iter().collect(),
        leaving: meta.deletion_timestamp.as_ref().map(|time| time.0),
        touched: instants.max().unwrap_or_default(),
        content: object.status.as_ref().and_then(|status| status.bound_volume_snapshot_content_name.clone()),
        class: object.spec.volume_snapshot_class_name.clone(),
        consistency: object.annotations().get(annotation::CONSISTENCY).and_then(|word| word.parse().ok()),
    }
}

pub fn content(object: &VolumeSnapshotContent) -> Content {
    Content {
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        snapshot: object.spec.volume_snapshot_ref.uid.clone(),
        retains: object.spec.deletion_policy == RETAIN,
    }
}
