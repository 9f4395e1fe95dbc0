//! What is stored: objects with their versions, and the log of changes that watches read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sts_backup::step::clock::Clock;

use super::answer::{No, deleted};
use super::apply::{Owners, defaults};
use super::kind::{Key, Kind};
use super::select::Selector;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Added,
    Modified,
    Deleted,
}

#[derive(Debug, Clone)]
pub struct Change {
    pub version: u64,
    pub what: What,
    pub key: Key,
    pub object: Value,
    pub before: Option<Value>,
}

/// The rest of a list that was read in pages, as it was when the first page was read.
struct Rest {
    items: Vec<Value>,
    version: u64,
}

pub struct Store {
    pub clock: Clock,
    objects: BTreeMap<Key, Value>,
    pub(super) owners: BTreeMap<Key, Owners>,
    version: u64,
    uids: u64,
    pub log: Vec<Change>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    rests: BTreeMap<String, Rest>,
}

/// What a deletion asks for.
#[derive(Debug, Clone, Default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub version: Option<String>,
}

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn words(object: &Value, pointer: &str) -> Vec<String> {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// What stands beside metadata and status.
fn spec(object: &Value) -> Map<String, Value> {
    let mut spec = object.as_object().cloned().unwrap_or_default();
    for key in ["metadata", "status", "apiVersion", "kind"] {
        spec.remove(key);
    }
    spec
}

impl Store {
    pub fn new(clock: Clock) -> Store {
        Store {
            clock,
            objects: BTreeMap::new(),
            owners: BTreeMap::new(),
            version: 100,
            uids: 0,
            log: vec![],
            forgotten: 0,
            rests: BTreeMap::new(),
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub fn find(&self, key: &Key) -> Result<&Value, No> {
        self.get(key).ok_or_else(|| No::absent(key.kind, &key.name))
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Of one kind, in the order of namespace and name.
    pub fn all(&self, resource: &str) -> impl Iterator<Item = (&Key, &Value)> {
        let kind = Kind::of(resource);
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    /// The one with this uid, of any kind.
    pub fn by_uid(&self, uid: &str) -> Option<(&Key, &Value)> {
        self.objects.iter().find(|(_, object)| text(object, "/metadata/uid") == uid)
    }

    pub fn list(&self, kind: &'static Kind, namespace: &str, selector: &Selector) -> Vec<Value> {
        let inside = |key: &Key| key.kind == kind && (namespace.is_empty() || key.namespace == namespace);
        let found = self.objects.iter().filter(|(key, object)| inside(key) && selector.holds(object));
        found.map(|(_, object)| object.clone()).collect()
    }

    /// One page: `limit` items of what there was when the first page was read.
    pub fn page(&mut self, all: impl FnOnce(&Store) -> Vec<Value>, limit: usize, token: &str) -> Result<Value, No> {
        let gone = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";
        let mut rest = match token {
            "" => Rest { items: all(self), version: self.version },
            token => self.rests.remove(token).ok_or_else(|| No::expired(gone))?,
        };
        let mut meta = json!({ "resourceVersion": rest.version.to_string() });
        let later = if limit == 0 { vec![] } else { rest.items.split_off(limit.min(rest.items.len())) };
        if !later.is_empty() {
            let token = format!("{}-{}", rest.version, later.len());
            meta["continue"] = token.clone().into();
            meta["remainingItemCount"] = later.len().into();
            self.rests.insert(token, Rest { items: later, version: rest.version });
        }
        Ok(json!({ "metadata": meta, "items": rest.items }))
    }

    /// Forgets the changes so far and the lists under way, as a server that compacts its store.
    pub fn forget(&mut self) {
        self.forgotten = self.version;
        self.rests.clear();
    }

    fn now(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn put(&mut self, key: &Key, mut object: Value, before: Option<Value>) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let meta = &object["metadata"];
        let grace = meta["deletionGracePeriodSeconds"].as_u64().unwrap_or_default();
        let gone =
            words(&object, "/metadata/finalizers").is_empty() && meta["deletionTimestamp"].is_string() && grace == 0;
        let what = match (&before, gone) {
            (_, true) => What::Deleted,
            (None, _) => What::Added,
            (Some(_), _) => What::Modified,
        };
        if gone {
            self.objects.remove(key);
            self.owners.remove(key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        self.log.push(Change { version: self.version, what, key: key.clone(), object: object.clone(), before });
        object
    }

    pub fn create(&mut self, key: &Key, mut object: Value, dry: bool) -> Result<Value, No> {
        if key.kind.namespaced && self.get(&Key::new("namespaces", "", &key.namespace)).is_none() {
            return Err(No::absent(Kind::of("namespaces"), &key.namespace));
        }
        if self.objects.contains_key(key) {
            return Err(No::exists(key));
        }
        let meta = &mut object["metadata"];
        for read_only in ["resourceVersion", "deletionTimestamp", "managedFields"] {
            meta.as_object_mut().unwrap().remove(read_only);
        }
        meta["name"] = key.name.clone().into();
        if key.kind.namespaced {
            meta["namespace"] = key.namespace.clone().into();
        }
        self.uids += 1;
        meta["uid"] = format!("00000000-0000-4000-8000-{:012x}", self.uids).into();
        meta["creationTimestamp"] = self.now().into();
        if key.kind.generation {
            meta["generation"] = 1.into();
        }
        if let Some(finalizer) = key.kind.finalizer {
            let mut all = words(&object, "/metadata/finalizers");
            all.push(finalizer.to_owned());
            object["metadata"]["finalizers"] = json!(all);
        }
        if key.kind.status {
            object.as_object_mut().unwrap().remove("status");
        }
        object["apiVersion"] = key.kind.api_version().into();
        object["kind"] = key.kind.kind.into();
        defaults(key.kind.kind, &mut object);
        // A dataSource is repeated as dataSourceRef.
        if key.kind.kind == "PersistentVolumeClaim" && object["spec"]["dataSource"].is_object() {
            object["spec"]["dataSourceRef"] = object["spec"]["dataSource"].clone();
        }
        drop_empty(&mut object);
        valid(key, &object)?;
        Ok(if dry { object } else { self.put(key, object, None) })
    }

    /// `new` is what the request makes of the object; `status`: through the status subresource.
    pub fn update(&mut self, key: &Key, mut new: Value, status: bool, dry: bool) -> Result<Value, No> {
        let old = self.find(key)?.clone();
        let asked = text(&new, "/metadata/resourceVersion").to_owned();
        if !asked.is_empty() && asked != text(&old, "/metadata/resourceVersion") {
            return Err(No::stale(key));
        }
        if text(&new, "/metadata/uid") != text(&old, "/metadata/uid") {
            return Err(No::invalid(key, "metadata.uid: Invalid value: field is immutable"));
        }
        if status {
            let mut whole = old.clone();
            whole["status"] = new["status"].clone();
            new = whole;
        } else if key.kind.status {
            new["status"] = old["status"].clone();
        }
        if new["status"].is_null() {
            new.as_object_mut().unwrap().remove("status");
        }
        for kept in ["name", "namespace", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"] {
            match old["metadata"].get(kept) {
                Some(value) => new["metadata"][kept] = value.clone(),
                None => drop(new["metadata"].as_object_mut().unwrap().remove(kept)),
            }
        }
        let leaving = old["metadata"]["deletionTimestamp"].is_string();
        let before: BTreeSet<_> = words(&old, "/metadata/finalizers").into_iter().collect();
        if leaving && words(&new, "/metadata/finalizers").iter().any(|name| !before.contains(name)) {
            let why = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted";
            return Err(No::invalid(key, why));
        }
        defaults(key.kind.kind, &mut new);
        drop_empty(&mut new);
        if key.kind.generation && spec(&new) != spec(&old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = (generation + 1).into();
        }
        valid(key, &new)?;
        if dry || new == old {
            return Ok(new);
        }
        Ok(self.put(key, new, Some(old)))
    }

    /// A controller's or a test's own write; a refusal is a mistake of theirs.
    pub fn change(&mut self, key: &Key, status: bool, change: impl FnOnce(&mut Value)) {
        let Some(mut object) = self.get(key).cloned() else { return };
        change(&mut object);
        self.update(key, object, status, false).unwrap();
    }

    /// The object, if it is the one that was asked for.
    fn doomed(&self, key: &Key, asked: &Preconditions) -> Result<Value, No> {
        let old = self.find(key)?.clone();
        for (what, pointer, asked) in
            [("UID", "/metadata/uid", &asked.uid), ("ResourceVersion", "/metadata/resourceVersion", &asked.version)]
        {
            let is = text(&old, pointer);
            if let Some(asked) = asked.as_ref().filter(|asked| *asked != is) {
                let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}");
                return Err(No::conflict(key, &why));
            }
        }
        Ok(old)
    }

    /// A pod is given its time: it goes when its kubelet says so.
    pub fn terminate(&mut self, key: &Key, asked: &Preconditions) -> Result<Value, No> {
        let old = self.doomed(key, asked)?;
        if old["metadata"]["deletionTimestamp"].is_string() {
            return Ok(old);
        }
        let mut new = old.clone();
        new["metadata"]["deletionTimestamp"] = self.now().into();
        new["metadata"]["deletionGracePeriodSeconds"] =
            old["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30).into();
        Ok(self.put(key, new, Some(old)))
    }

    pub fn delete(&mut self, key: &Key, asked: &Preconditions, dry: bool) -> Result<Value, No> {
        let old = self.doomed(key, asked)?;
        let uid = text(&old, "/metadata/uid").to_owned();
        if words(&old, "/metadata/finalizers").is_empty() {
            if !dry {
                let mut last = old.clone();
                last["metadata"]["deletionTimestamp"] = self.now().into();
                last["metadata"].as_object_mut().unwrap().remove("deletionGracePeriodSeconds");
                self.put(key, last, Some(old));
            }
            return Ok(deleted(key, &uid));
        }
        if old["metadata"]["deletionTimestamp"].is_string() {
            return Ok(old);
        }
        let mut new = old.clone();
        new["metadata"]["deletionTimestamp"] = self.now().into();
        new["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        if key.kind.generation {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = (generation + 1).into();
        }
        Ok(if dry { new } else { self.put(key, new, Some(old)) })
    }

    /// Takes the object away, whatever holds it.
    pub fn purge(&mut self, key: &Key) {
        self.change(key, false, |object| drop(object["metadata"].as_object_mut().unwrap().remove("finalizers")));
        if self.get(key).is_some() {
            self.delete(key, &Preconditions::default(), false).unwrap();
        }
    }
}

/// What is empty in the metadata is not there.
fn drop_empty(object: &mut Value) {
    let meta = object["metadata"].as_object_mut().unwrap();
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = meta.get(field).is_some_and(|value| match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            value => value.is_null(),
        });
        if empty {
            meta.remove(field);
        }
    }
}

/// Names and label values, as the API server wants them.
fn valid(key: &Key, object: &Value) -> Result<(), No> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edge = |name: &str| name.starts_with(plain) && name.ends_with(plain);
    if key.name.len() > 253 || !edge(&key.name) || !key.name.chars().all(|c| plain(c) || c == '-' || c == '.') {
        return Err(No::invalid(key, "metadata.name: Invalid value: a lowercase RFC 1123 subdomain is wanted"));
    }
    for (_, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("?");
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let edges = [value.chars().next(), value.chars().last()].into_iter().flatten();
        let sound = edges.into_iter().all(|c| c.is_ascii_alphanumeric());
        if value.len() > 63 || !value.chars().all(good) || !sound {
            return Err(No::invalid(key, "metadata.labels: Invalid value: not a label value"));
        }
    }
    Ok(())
}
