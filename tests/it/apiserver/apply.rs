//! Patches: JSON merge, JSON patch, and server-side apply of what the product applies: a status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value};
use sts_backup::generate;

use super::answer::No;
use super::kind::Key;
use super::store::{Store, text};

/// A path to a value that somebody owns; `=KEY` is the item of that key in a list of a map's kind.
type Path = Vec<String>;

/// Who applied what.
pub type Owners = BTreeMap<String, BTreeSet<Path>>;

pub fn merge(old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    json_patch::merge(&mut new, patch);
    new
}

pub fn json(old: &Value, patch: &Value) -> Result<Value, No> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|error| No::bad(error.to_string()))?;
    let mut new = old.clone();
    match json_patch::patch(&mut new, &patch) {
        Ok(()) => Ok(new),
        // A real one does not say which test it was.
        Err(_) => Err(No::new(422, "Invalid", "the server rejected our request due to an error in our request")),
    }
}

/// Derived once: it takes longer than many a case.
static CRDS: LazyLock<[Value; 2]> = LazyLock::new(generate::definitions);

/// The schema of our kinds, from which follows what is owned as a whole and what has a default.
fn schema(kind: &str) -> Option<&'static Value> {
    let crd = CRDS.iter().find(|crd| text(crd, "/spec/names/kind") == kind)?;
    Some(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
}

/// Puts in what the schema has a default for.
pub fn defaults(kind: &str, object: &mut Value) {
    if let Some(schema) = schema(kind) {
        fill(object, schema);
    }
}

fn fill(value: &mut Value, schema: &Value) {
    let (Some(fields), Some(known)) = (value.as_object_mut(), schema["properties"].as_object()) else { return };
    for (name, schema) in known {
        if let (None, Some(default)) = (fields.get(name), schema.get("default")) {
            fields.insert(name.clone(), default.clone());
        }
        if let Some(value) = fields.get_mut(name) {
            fill(value, schema);
        }
    }
}

pub struct Apply<'a> {
    pub manager: &'a str,
    pub force: bool,
    pub status: bool,
    pub dry: bool,
}

impl Store {
    pub fn apply(&mut self, key: &Key, how: &Apply, body: &Value) -> Result<Value, No> {
        let known = ["apiVersion", "kind", "metadata", "status"];
        let metadata = ["name", "namespace", "uid", "resourceVersion"];
        let only = |value: &Value, known: &[&str]| {
            value.as_object().is_some_and(|fields| fields.keys().all(|field| known.contains(&field.as_str())))
        };
        if !how.status || !only(body, &known) || !only(&body["metadata"], &metadata) || has_null(&body["status"]) {
            return Err(No::unknown("this kind of server-side apply"));
        }
        let old = self.find(key)?.clone();
        let schema = schema(key.kind.kind).map_or(&Value::Null, |schema| &schema["properties"]["status"]);
        let mut new = old.clone();
        // The version is a precondition; a uid is none when a status is applied.
        if let Some(version) = body["metadata"].get("resourceVersion") {
            new["metadata"]["resourceVersion"] = version.clone();
        }
        let mut owners = self.owners.get(key).cloned().unwrap_or_default();
        let mine = leaves(&body["status"], schema);
        let before = owners.remove(how.manager).unwrap_or_default();
        let mut status = match new["status"].take() {
            Value::Null => Value::Object(Map::new()),
            status => status,
        };
        for path in &mine {
            let value = at(&body["status"], path).cloned();
            let same = at(&status, path) == value.as_ref();
            for (other, theirs) in owners.iter_mut().filter(|_| !same) {
                if theirs.contains(path) && !how.force {
                    let why = format!("Apply failed with 1 conflict: conflict with \"{other}\"");
                    return Err(No::new(409, "Conflict", why));
                }
                theirs.remove(path);
            }
            if let Some(value) = value {
                set(&mut status, path, value);
            }
        }
        let others: BTreeSet<&Path> = owners.values().flatten().collect();
        for path in before.iter().filter(|path| !mine.contains(*path) && !others.contains(path)).rev() {
            remove(&mut status, path);
        }
        new["status"] = status;
        owners.insert(how.manager.to_owned(), mine);
        let stored = self.update(key, new, true, how.dry)?;
        if !how.dry {
            self.owners.insert(key.clone(), owners);
        }
        Ok(stored)
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        _ => false,
    }
}

fn leaves(value: &Value, schema: &Value) -> BTreeSet<Path> {
    let mut all = BTreeSet::new();
    walk(value, schema, &mut vec![], &mut all);
    all
}

fn walk(value: &Value, schema: &Value, path: &mut Path, all: &mut BTreeSet<Path>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && schema["x-kubernetes-map-type"] != "atomic" => {
            for (name, value) in fields {
                path.push(name.clone());
                let of = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                walk(value, of, path, all);
                path.pop();
            }
        }
        Value::Array(items) if schema["x-kubernetes-list-type"] == "map" => {
            for item in items {
                path.push(format!("={}", text(item, "/type")));
                walk(item, &schema["items"], path, all);
                path.pop();
            }
        }
        _ => drop(all.insert(path.clone())),
    }
}

fn is_item(item: &Value, key: &str) -> bool {
    key.strip_prefix('=') == Some(text(item, "/type"))
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    match value {
        Value::Array(items) => at(items.iter().find(|item| is_item(item, first))?, rest),
        value => at(value.get(first)?, rest),
    }
}

fn set(value: &mut Value, path: &[String], to: Value) {
    let Some((first, rest)) = path.split_first() else {
        *value = to;
        return;
    };
    if let Some(key) = first.strip_prefix('=') {
        if !value.is_array() {
            *value = Value::Array(vec![]);
        }
        let items = value.as_array_mut().unwrap();
        let found = items.iter().position(|item| is_item(item, first)).unwrap_or_else(|| {
            items.push(serde_json::json!({ "type": key }));
            items.len() - 1
        });
        set(&mut items[found], rest, to);
    } else {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        set(&mut value[first], rest, to);
    }
}

/// With whatever holds nothing more without it.
fn remove(value: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let empty = |value: &Value| match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(items) => {
            let Some(found) = items.iter().position(|item| is_item(item, first)) else { return };
            // The key of an item goes with the item.
            if rest == ["type"] || {
                remove(&mut items[found], rest);
                empty(&items[found])
            } {
                items.remove(found);
            }
        }
        Value::Object(fields) => {
            let left = fields.get_mut(first).filter(|_| !rest.is_empty()).is_some_and(|inner| {
                remove(inner, rest);
                !empty(inner)
            });
            if !left {
                fields.remove(first);
            }
        }
        _ => {}
    }
}
