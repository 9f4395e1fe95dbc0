//! What a run keeps of the claims, pods and snapshots of its namespace: all of what is its `StatefulSet`'s; of the rest
//! only what it could stand in the way with. Who else writes what into it costs the run nothing.

use kube::ResourceExt;

use super::clock::Clock;
use super::cluster::Cluster;
use super::lens;
use crate::api::lean;
use crate::api::recorded::RecordedClaim;
use crate::api::snapshot::VolumeSnapshot;
use crate::plan::known::Snapshot;
use crate::plan::noun::{Claim, Pod, Want};

/// A claim of the `StatefulSet`, by its name: `{template}-{statefulset}-{ordinal}`, or one that is staged for it.
fn is_its(pvc: &str, statefulset: &str) -> bool {
    let is_claim = |name: &str| {
        let (front, ordinal) = name.rsplit_once('-').unwrap_or_default();
        let number = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
        number && front.strip_suffix(statefulset).is_some_and(|front| front.ends_with('-'))
    };
    is_claim(pvc) || pvc.rsplit_once("-stage-").is_some_and(|(name, _)| is_claim(name))
}

/// Of which `StatefulSet`.
pub struct Keep {
    statefulset: String,
    clock: Clock,
}

impl Keep {
    pub fn of(c: &Cluster) -> Keep {
        Keep { statefulset: c.want.statefulset.clone(), clock: c.clock }
    }

    pub fn claim(&self, object: &lean::PersistentVolumeClaim) -> Claim {
        let claim = lens::claim(object, self.clock.now());
        if is_its(&object.name_any(), &self.statefulset) {
            return claim;
        }
        let (finalizers, tried) = (vec![], vec![]);
        Claim { manifest: RecordedClaim::default(), finalizers, tried, node: None, restored_by: None, ..claim }
    }

    /// None: it is no pod of the `StatefulSet`, and mounts none of its claims.
    pub fn pod(&self, object: &lean::Pod) -> Option<Pod> {
        let (mut pod, name) = (lens::pod(object, self.clock.now()), object.name_any());
        pod.claims.retain(|claim| is_its(claim, &self.statefulset));
        if name.strip_prefix(self.statefulset.as_str()).is_some_and(|rest| rest.starts_with('-')) {
            return Some(pod);
        }
        (pod.containers, pod.default) = (vec![], None);
        (!pod.claims.is_empty()).then_some(pod)
    }
}

/// None: it is neither asked for nor cut of a claim of the `StatefulSet`.
pub fn snapshot(want: &Want, object: &VolumeSnapshot) -> Option<(String, Snapshot)> {
    let (name, source) = (object.name_any(), Snapshot::of(object));
    let asked =
        source.statefulset.as_ref() == Some(&want.restore.source) || want.restore.snapshot_names.contains(&name);
    let its = || source.pvc.as_ref().is_some_and(|pvc| is_its(pvc, &want.statefulset));
    (asked || its()).then_some((name, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_of_a_stateful_set_are_known_by_their_names() {
        for its in ["data-web-0", "a-b-web-17", "web-web-0", "data-web-0-stage-0b6c1a52-6a4b", "x-stage-web-0-stage-u"]
        {
            assert!(is_its(its, "web"), "{its}");
        }
        for others in
            ["web-0", "data-web", "data-web-x", "data-web-", "data-db-0", "data-myweb-0", "data-web-0-copy", "-"]
        {
            assert!(!is_its(others, "web"), "{others}");
        }
        assert!(is_its("data-a-a-0", "a-a") && is_its("data-a-a-0", "a"));
    }
}
