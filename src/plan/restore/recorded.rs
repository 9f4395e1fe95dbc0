//! What a plan has recorded of the StatefulSet.

use serde_json::Value;

use super::journal::Plan;
use crate::plan::noun::Retention;

impl Plan {
    fn at(&self, pointer: &str) -> Option<&Value> {
        self.statefulset.as_ref()?.pointer(pointer)
    }

    /// spec.persistentVolumeClaimRetentionPolicy as it was.
    pub fn retention(&self) -> Retention {
        let word = |field: &str| {
            let found = self.at(&format!("/spec/persistentVolumeClaimRetentionPolicy/{field}")).and_then(Value::as_str);
            found.map(ToOwned::to_owned)
        };
        let default = Retention::default();
        Retention {
            scaled: word("whenScaled").unwrap_or(default.scaled),
            deleted: word("whenDeleted").unwrap_or(default.deleted),
        }
    }

    /// Names of its volumeClaimTemplates.
    pub fn templates(&self) -> Vec<String> {
        let all = self.at("/spec/volumeClaimTemplates").and_then(Value::as_array);
        let name = |template: &Value| Some(template.pointer("/metadata/name")?.as_str()?.to_owned());
        all.into_iter().flatten().filter_map(name).collect()
    }

    /// Uid of the `StatefulSet`.
    pub fn uid(&self) -> Option<&str> {
        self.at("/metadata/uid").and_then(Value::as_str)
    }

    /// podManagementPolicy: its pods stop all at once, not one after the other.
    pub fn is_parallel(&self) -> bool {
        self.at("/spec/podManagementPolicy").and_then(Value::as_str) == Some("Parallel")
    }

    /// terminationGracePeriodSeconds of its pods.
    pub fn grace(&self) -> i64 {
        self.at("/spec/template/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30)
    }
}
