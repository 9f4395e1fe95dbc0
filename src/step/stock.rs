//! What retention reads: the snapshots with whose they are, their contents, and which restores are still open.

use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::Fault;
use super::cluster::Cluster;
use super::look;
use super::observe::{get, selector};
use super::page::list;
use crate::api::lean::Restore;
use crate::api::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use crate::plan::known::{Content, Snapshot, Snapshots};
use crate::plan::prune::Fact;
use crate::plan::view::{Read, Seen};

pub async fn read(c: &Cluster, read: &Read) -> Result<Fact, Fault> {
    Ok(match read {
        Read::Content(name) => {
            let api: Api<VolumeSnapshotContent> = Api::all(c.client.clone());
            let found = get(&api, name, &format!("volumesnapshotcontent/{name}")).await?;
            Fact::Content(name.clone(), Ok(found.as_ref().map(Content::of)))
        }
        Read::Restores => {
            let open = |object: Restore| if look::has_ended(&object) { None } else { object.metadata.uid };
            Fact::Restores(Ok(look::restores(c, open).await?.into_iter().collect()))
        }
        _ => Fact::Stock(Seen::Known(Ok(all(c).await?))),
    })
}

pub(super) async fn all(c: &Cluster) -> Result<Snapshots, Fault> {
    let namespace = &c.want.statefulset_namespace;
    let api: Api<VolumeSnapshot> = Api::namespaced(c.client.clone(), namespace);
    let params = ListParams::default().labels(&selector(c));
    let kept = |object: VolumeSnapshot| Some((object.name_any(), Snapshot::of(&object)));
    let all = list(&api, params, &format!("volumesnapshots/{namespace}"), kept).await?;
    Ok(all.into_iter().collect())
}
