//! The annotation `/claim` of a snapshot: what its claim would be made from again, when the claim is gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::lean::PersistentVolumeClaim;

/// A claim's restorable manifest, JSON. Annotations of Kubernetes itself say how the old claim was bound and
/// served: they do not belong to the next one. A snapshot or a status may have been written by anyone: what it records
/// is cut down to the same when it is read.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordedClaim {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    pub access_modes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// The request, a Quantity.
    pub storage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_attributes_class_name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
}

fn labels<'de, D: Deserializer<'de>>(read: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(kept(BTreeMap::deserialize(read)?, |key| !is_ours(key)))
}

fn annotations<'de, D: Deserializer<'de>>(read: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(kept(BTreeMap::deserialize(read)?, is_users))
}

fn kept(all: BTreeMap<String, String>, keep: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    all.into_iter().filter(|(key, _)| keep(key)).collect()
}

impl RecordedClaim {
    pub fn of(claim: &PersistentVolumeClaim) -> RecordedClaim {
        let spec = &claim.spec;
        let annotations = claim.metadata.annotations.clone().unwrap_or_default();
        let labels = claim.metadata.labels.clone().unwrap_or_default();
        RecordedClaim {
            storage_class_name: spec.storage_class_name.clone(),
            access_modes: spec.access_modes.clone(),
            volume_mode: spec.volume_mode.clone(),
            storage: spec.resources.requests.get("storage").cloned().unwrap_or_default(),
            volume_attributes_class_name: spec.volume_attributes_class_name.clone(),
            labels: kept(labels, |key| !is_ours(key)),
            annotations: kept(annotations, is_users),
        }
    }
}

/// What a restore said of the claim is of that claim alone.
fn is_ours(key: &str) -> bool {
    domain(key) == super::GROUP
}

/// Case is no way around: the API server takes both.
fn domain(key: &str) -> String {
    key.split_once('/').map_or("", |(domain, _)| domain).to_ascii_lowercase()
}

/// Not of us, not of Kubernetes, and not of kubectl's last apply (which would bring the whole old object back).
fn is_users(key: &str) -> bool {
    let domain = domain(key);
    !is_ours(key) && !["kubernetes.io", "k8s.io"].iter().any(|of| domain == *of || domain.ends_with(&format!(".{of}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_steers_neither_binding_nor_deletion() {
        let forged = serde_json::json!({
            "storage": "1Gi",
            "volumeName": "pv-of-another",
            "finalizers": ["x/y"],
            "ownerReferences": [{ "kind": "Pod", "name": "gone" }],
            "dataSource": { "kind": "PersistentVolumeClaim", "name": "another" },
            "labels": { "app": "pg", "backup.sts-backup.io/restore": "uid" },
            "annotations": {
                "pv.kubernetes.io/bind-completed": "yes",
                "PV.kubernetes.io/bound-by-controller": "yes",
                "volume.kubernetes.io/selected-node": "n1",
                "backup.sts-backup.io/restored-by": "shop/back@abc",
                "example.com/team": "db",
            },
        });
        let read: RecordedClaim = serde_json::from_value(forged).unwrap();
        let honest = RecordedClaim {
            storage: "1Gi".into(),
            labels: [("app".to_owned(), "pg".to_owned())].into(),
            annotations: [("example.com/team".to_owned(), "db".to_owned())].into(),
            ..RecordedClaim::default()
        };
        assert_eq!(read, honest);
    }

    #[test]
    fn annotations_of_kubernetes_stay_behind() {
        for theirs in [
            "pv.kubernetes.io/bind-completed",
            "volume.kubernetes.io/selected-node",
            "kubectl.kubernetes.io/x",
            "k8s.io/x",
            "kubernetes.io/x",
            "backup.sts-backup.io/restored-by",
        ] {
            assert!(!is_users(theirs), "{theirs}");
        }
        for users in ["plain", "example.com/team", "notkubernetes.io/x"] {
            assert!(is_users(users), "{users}");
        }
    }
}
