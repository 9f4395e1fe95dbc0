//! A request, taken apart and carried out on the store.

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

use super::answer::No;
use super::apply::{self, Apply};
use super::kind::{Key, Place, place, query};
use super::select::Selector;
use super::store::{Preconditions, Store, text};

#[derive(Debug, Clone)]
pub struct Ask {
    pub verb: &'static str,
    pub place: Place,
    query: std::collections::BTreeMap<String, Vec<String>>,
    patch: Option<Patch>,
    pub body: Value,
    /// Of a websocket's handshake.
    pub key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patch {
    Merge,
    Json,
    Apply,
}

impl Ask {
    pub fn word(&self, key: &str) -> &str {
        self.query.get(key).and_then(|all| all.first()).map_or("", String::as_str)
    }

    pub fn words(&self, key: &str) -> &[String] {
        self.query.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn key(&self) -> Key {
        let Place { kind, namespace, name, .. } = self.place.clone();
        Key { kind, namespace, name: name.unwrap_or_else(|| text(&self.body, "/metadata/name").to_owned()) }
    }

    pub fn mutates(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }

    /// Without preconditions.
    pub fn blind(mut self) -> Ask {
        if let Some(options) = self.body.as_object_mut().filter(|_| self.verb == "delete") {
            options.remove("preconditions");
        }
        self
    }

    pub fn is_dry(&self) -> bool {
        self.word("dryRun") == "All" || self.body["dryRun"] == json!(["All"])
    }

    pub fn selector(&self) -> Result<Selector, No> {
        Selector::parse(self.word("labelSelector"), self.word("fieldSelector"))
    }

    /// For the log: verb, patch type, resource, name.
    pub fn line(&self) -> String {
        let part = self.place.part.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
        let how = self.patch.map(|patch| format!(" ({patch:?})")).unwrap_or_default();
        let command = if self.verb == "exec" { format!(" {:?}", self.words("command")) } else { String::new() };
        format!("{}{how} {}{part} {}{command}", self.verb, self.place.kind.resource, self.key().name)
    }
}

fn hex(word: &str) -> bool {
    matches!(word, "true" | "1")
}

/// The outer error is the connection's, the inner one an answer.
pub async fn parse(request: Request<Body>) -> Result<Result<Ask, No>, BoxError> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect_bytes().await?;
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(place) = place(parts.uri.path()) else {
        return Ok(Err(No::new(404, "", "404 page not found")));
    };
    let query = query(parts.uri.query().unwrap_or_default());
    let watch = query.get("watch").is_some_and(|all| all.iter().any(|word| hex(word)));
    let kind = header("content-type").split(';').next().unwrap_or_default();
    let patch = match kind {
        "application/merge-patch+json" => Some(Patch::Merge),
        "application/json-patch+json" => Some(Patch::Json),
        "application/apply-patch+yaml" => Some(Patch::Apply),
        _ => None,
    };
    let upgrade = !header("upgrade").is_empty();
    let verb = match (parts.method.as_str(), place.name.is_some(), patch) {
        ("GET", true, _) if upgrade && place.part.as_deref() == Some("exec") => "exec",
        ("GET", true, _) if place.part.is_none() => "get",
        ("GET", false, _) if watch => "watch",
        ("GET", false, _) => "list",
        ("POST", false, _) => "create",
        ("PATCH", true, Some(_)) if is_part(&place) => "patch",
        ("DELETE", true, _) if place.part.is_none() => "delete",
        (method, ..) => return Ok(Err(No::unknown(format!("{method} {} as {kind}", parts.uri.path())))),
    };
    let body = match serde_json::from_slice(&bytes) {
        Ok(body) => body,
        Err(_) if bytes.is_empty() => Value::Null,
        Err(error) => return Ok(Err(No::bad(error.to_string()))),
    };
    let key = upgrade.then(|| header("sec-websocket-key").to_owned());
    Ok(Ok(Ask { verb, place, query, patch, body, key }))
}

/// The object itself, its status, or of a StatefulSet its scale.
fn is_part(place: &Place) -> bool {
    match place.part.as_deref() {
        None | Some("status") => true,
        Some(part) => part == "scale" && place.kind.resource == "statefulsets",
    }
}

/// The code of a success, and its body.
pub fn carry_out(store: &mut Store, ask: &Ask) -> Result<(u16, Value), No> {
    let key = ask.key();
    match ask.verb {
        "get" => Ok((200, store.find(&key)?.clone())),
        "list" => list(store, ask),
        "create" => create(store, ask, &key),
        "patch" => patch(store, ask, &key),
        "delete" => delete(store, ask, &key),
        verb => Err(No::unknown(verb)),
    }
}

fn list(store: &mut Store, ask: &Ask) -> Result<(u16, Value), No> {
    let (kind, selector) = (ask.place.kind, ask.selector()?);
    if !matches!(ask.word("resourceVersion"), "" | "0") {
        return Err(No::unknown("a list at a resourceVersion"));
    }
    let limit = ask.word("limit").parse().unwrap_or(0);
    let all = |store: &Store| store.list(kind, &ask.place.namespace, &selector);
    let mut page = store.page(all, limit, ask.word("continue"))?;
    page["apiVersion"] = kind.api_version().into();
    page["kind"] = format!("{}List", kind.kind).into();
    Ok((200, page))
}

fn create(store: &mut Store, ask: &Ask, key: &Key) -> Result<(u16, Value), No> {
    if key.name.is_empty() {
        return Err(No::unknown("generateName"));
    }
    let namespace = text(&ask.body, "/metadata/namespace");
    if !namespace.is_empty() && namespace != key.namespace {
        return Err(No::bad("the namespace of the provided object does not match the namespace sent on the request"));
    }
    let (version, kind) = (text(&ask.body, "/apiVersion"), text(&ask.body, "/kind"));
    if version != key.kind.api_version() || kind != key.kind.kind {
        return Err(No::bad(format!("{version}, Kind={kind} is not what is made here")));
    }
    Ok((201, store.create(key, ask.body.clone(), ask.is_dry())?))
}

fn patch(store: &mut Store, ask: &Ask, key: &Key) -> Result<(u16, Value), No> {
    let status = ask.place.part.is_some();
    let old = store.find(key)?.clone();
    if ask.place.part.as_deref() == Some("scale") {
        return scale(store, ask, key, &old);
    }
    let new = match ask.patch {
        Some(Patch::Merge) => apply::merge(&old, &ask.body),
        Some(Patch::Json) => apply::json(&old, &ask.body)?,
        Some(Patch::Apply) => {
            let (manager, force) = (ask.word("fieldManager"), hex(ask.word("force")));
            if manager.is_empty() {
                return Err(No::new(422, "Invalid", "PatchOptions is invalid: fieldManager: Required value"));
            }
            let how = Apply { manager, force, status, dry: ask.is_dry() };
            return Ok((200, store.apply(key, &how, &ask.body)?));
        }
        None => return Err(No::unknown("this content type")),
    };
    Ok((200, store.update(key, new, status, ask.is_dry())?))
}

fn to_scale(set: &Value) -> Value {
    let meta = &set["metadata"];
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": { "replicas": set["spec"]["replicas"] },
        "status": { "replicas": set["status"]["replicas"].as_u64().unwrap_or_default() },
    })
}

/// The uid is a precondition here, as the resourceVersion is.
fn scale(store: &mut Store, ask: &Ask, key: &Key, old: &Value) -> Result<(u16, Value), No> {
    if ask.patch != Some(Patch::Merge) {
        return Err(No::unknown("this patch of a scale"));
    }
    let new = apply::merge(&to_scale(old), &ask.body);
    let (asked, is) = (text(&new, "/metadata/uid"), text(old, "/metadata/uid"));
    if asked != is {
        let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {is}");
        return Err(No::conflict(key, &why));
    }
    let mut set = old.clone();
    set["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"].clone();
    set["spec"]["replicas"] = new["spec"]["replicas"].clone();
    Ok((200, to_scale(&store.update(key, set, false, ask.is_dry())?)))
}

fn delete(store: &mut Store, ask: &Ask, key: &Key) -> Result<(u16, Value), No> {
    let graceful = ["namespaces", "statefulsets"].contains(&key.kind.resource);
    let policy = text(&ask.body, "/propagationPolicy");
    if graceful || !matches!(policy, "" | "Background") {
        return Err(No::unknown(format!("{policy} deletion of {}", key.kind.resource)));
    }
    let word = |pointer: &str| Some(text(&ask.body, pointer).to_owned()).filter(|word| !word.is_empty());
    let asked = Preconditions { uid: word("/preconditions/uid"), version: word("/preconditions/resourceVersion") };
    if key.kind.resource == "pods" && !ask.is_dry() {
        return Ok((200, store.terminate(key, &asked)?));
    }
    Ok((200, store.delete(key, &asked, ask.is_dry())?))
}
