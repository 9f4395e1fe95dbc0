//! The annotation `/claim` of a snapshot: what its claim would be made from again, when the claim is gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lean::PersistentVolumeClaim;

/// A claim's restorable manifest, JSON. Annotations of Kubernetes itself say how the old claim was bound and
/// served: they do not belong to the next one.
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
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
            labels: labels.into_iter().filter(|(key, _)| !is_ours(key)).collect(),
            annotations: annotations.into_iter().filter(|(key, _)| is_users(key)).collect(),
        }
    }
}

/// What a restore said of the claim is of that claim alone.
fn is_ours(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| domain == super::GROUP)
}

/// Not of us, not of Kubernetes, and not of kubectl's last apply (which would bring the whole old object back).
fn is_users(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    !is_ours(key) && !["kubernetes.io", "k8s.io"].iter().any(|of| domain == *of || domain.ends_with(&format!(".{of}")))
}

#[cfg(test)]
mod tests {
    use super::is_users;

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
