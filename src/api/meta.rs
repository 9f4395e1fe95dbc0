//! Metadata as it is read: cut down while it is, since managedFields and what others annotate outweigh all the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{GROUP, foreign};

/// Which labels and annotations are kept.
pub trait Keys {
    fn keeps(key: &str) -> bool;
}

/// A map of strings without what nobody asks for.
pub struct Few<K>(pub BTreeMap<String, String>, PhantomData<K>);

impl<'de, K: Keys> Deserialize<'de> for Few<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Few<K>, D::Error> {
        struct Reader<K>(PhantomData<K>);
        impl<'de, K: Keys> Visitor<'de> for Reader<K> {
            type Value = Few<K>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Few<K>, A::Error> {
                let mut few = BTreeMap::new();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if K::keeps(&key) {
                        few.insert(key.into_owned(), map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Few(few, PhantomData))
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// What a run reads: our own keys, and those of others that decide something.
struct Read;

impl Keys for Read {
    fn keeps(key: &str) -> bool {
        let others = [foreign::PROVISIONED_BY, foreign::SELECTED_NODE, foreign::DEFAULT_CONTAINER];
        key.split_once('/').is_some_and(|(domain, _)| domain == GROUP) || others.contains(&key)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<M> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
    labels: Option<M>,
    annotations: Option<M>,
    managed_fields: Option<Vec<Written>>,
}

/// Of what was written, when.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Written {
    time: Option<Time>,
}

impl<M> Meta<M> {
    /// Of managedFields the newest time stays.
    fn with(self, map: impl Fn(M) -> BTreeMap<String, String>) -> ObjectMeta {
        let newest = self.managed_fields.into_iter().flatten().filter_map(|entry| entry.time).max();
        ObjectMeta {
            name: self.name,
            namespace: self.namespace,
            uid: self.uid,
            resource_version: self.resource_version,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp,
            deletion_timestamp: self.deletion_timestamp,
            finalizers: self.finalizers,
            owner_references: self.owner_references,
            labels: self.labels.map(&map),
            annotations: self.annotations.map(&map),
            managed_fields: newest.map(|time| vec![ManagedFieldsEntry { time: Some(time), ..Default::default() }]),
            ..ObjectMeta::default()
        }
    }
}

/// With the labels and annotations that a run reads.
pub fn thin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Ok(Meta::<Few<Read>>::deserialize(deserializer)?.with(|few| few.0))
}

/// With all labels and annotations: what is recorded of an object.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Ok(Meta::<BTreeMap<String, String>>::deserialize(deserializer)?.with(|all| all))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_asks_for_is_not_kept() {
        let meta = json!({
            "name": "a", "uid": "u", "deletionTimestamp": "2026-11-25T01:26:43Z", "finalizers": ["x/y"],
            "labels": { "app": "pg", "backup.sts-backup.io/run": "r" },
            "annotations": { "example.com/note": "long", "pv.kubernetes.io/provisioned-by": "csi" },
            "managedFields": [
                { "manager": "x", "time": "2026-11-25T01:26:42Z", "fieldsV1": { "f:a": {} } },
                { "manager": "y", "time": "2026-11-25T01:26:41Z" }, { "manager": "z" },
            ],
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "o" }],
            "selfLink": 5,
        });
        let mut read = thin(meta.clone()).unwrap();
        let written = read.managed_fields.take().unwrap();
        assert_eq!(written.len(), 1);
        assert!(written[0].fields_v1.is_none() && written[0].manager.is_none());
        assert_eq!(written[0].time.as_ref().unwrap().0.to_string(), "2026-11-25T01:26:42Z");
        let mut expected = meta.clone();
        for gone in ["managedFields", "selfLink"] {
            expected.as_object_mut().unwrap().remove(gone);
        }
        let mut few = expected.clone();
        few["labels"].as_object_mut().unwrap().remove("app");
        few["annotations"].as_object_mut().unwrap().remove("example.com/note");
        assert_eq!(json!(read), few);
        let mut read = whole(meta).unwrap();
        assert_eq!(read.managed_fields.take().map(|all| all.len()), Some(1));
        assert_eq!(json!(read), expected);
        assert_eq!(thin(json!({ "labels": null })).unwrap(), ObjectMeta::default());
    }
}
