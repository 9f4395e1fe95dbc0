//! The scripts of `conformance.txt`, sent to whatever is at the other end of a client; what is answered, as text.
//!
//! Shared with the tests on the real cluster: so it knows neither the double nor the cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

const TEXT: &str = include_str!("conformance.txt");

/// Whoever asks: an administrator, and an account with the runner's role.
pub struct Both {
    pub admin: Client,
    pub runner: Client,
    pub namespace: String,
}

const ADMISSION: &str = "apis/admissionregistration.k8s.io/v1";

/// Short names of resources: path of the API, resource, kind.
const SHORT: [(&str, &str, &str, &str); 14] = [
    ("jobs", "apis/batch/v1", "jobs", "Job"),
    ("leases", "apis/coordination.k8s.io/v1", "leases", "Lease"),
    ("backups", "apis/backup.sts-backup.io/v1alpha1", "statefulsetbackups", "StatefulSetBackup"),
    ("snapshots", "apis/snapshot.storage.k8s.io/v1", "volumesnapshots", "VolumeSnapshot"),
    ("claims", "api/v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("pods", "api/v1", "pods", "Pod"),
    ("sets", "apis/apps/v1", "statefulsets", "StatefulSet"),
    ("events", "apis/events.k8s.io/v1", "events", "Event"),
    ("volumes", "api/v1", "persistentvolumes", "PersistentVolume"),
    ("namespaces", "api/v1", "namespaces", "Namespace"),
    ("policies", ADMISSION, "validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    ("bindings", ADMISSION, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
    ("elsewhere", "apis/coordination.k8s.io/v1", "leases", "Lease"),
    ("nothing", "apis/backup.sts-backup.io/v1alpha1", "statefulsetnothings", "Nothing"),
];

/// How many scripts there are, and what was answered to each line.
pub async fn speak(both: &Both) -> (usize, String) {
    let (mut said, mut count) = (String::new(), 0);
    for script in TEXT.split("\n\n").filter(|script| !script.starts_with('#')) {
        let mut lines = script.lines();
        writeln!(said, "{}", lines.next().unwrap_or_default()).unwrap();
        count += 1;
        let mut memory: BTreeMap<&str, String> = BTreeMap::new();
        for line in lines {
            let answer = say(both, line, &mut memory).await;
            writeln!(said, "  {answer}").unwrap();
        }
    }
    (count, said)
}

async fn say(both: &Both, line: &str, memory: &mut BTreeMap<&'static str, String>) -> String {
    let mut line = line.replace("$ns", &both.namespace);
    for (name, value) in memory.iter() {
        line = line.replace(name, value);
    }
    let (asked, show) = line.split_once(" => ").unwrap_or((&line, ""));
    let (client, asked) = match asked.strip_prefix("RUNNER ") {
        Some(asked) => (&both.runner, asked),
        None => (&both.admin, asked),
    };
    let words: Vec<&str> = asked.splitn(3, ' ').collect();
    if words[0] == "WATCH" {
        return watch(client, words[1].parse().unwrap(), &url(both, words[2]).0, show).await;
    }
    let (path, kind) = url(both, words[1]);
    let request = request(words[0], &path, kind, words.get(2).copied().unwrap_or_default());
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let before = memory.get("$rv").cloned().unwrap_or_default();
    remember(&body, memory);
    let mut answer = format!("{code} {}", text(&body["reason"]));
    let name = words[1].split(['/', '?']).next().unwrap_or_default();
    if code < 300 || (name == "events" && code == 201) {
        answer = code.to_string();
        for field in show.split_whitespace() {
            write!(answer, " {field}: {}", shown(&body, field, &before)).unwrap();
        }
    }
    answer.trim_end().replace(&both.namespace, "NAMESPACE")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn remember(body: &Value, memory: &mut BTreeMap<&'static str, String>) {
    let meta = &body["metadata"];
    if let Some(token) = meta["continue"].as_str() {
        memory.insert("$token", token.to_owned());
    }
    if let (Some(uid), Some(version)) = (meta["uid"].as_str(), meta["resourceVersion"].as_str()) {
        memory.insert("$uid", uid.to_owned());
        memory.entry("$first").or_insert_with(|| version.to_owned());
        if let Some(before) = memory.insert("$rv", version.to_owned()).filter(|before| before != version) {
            memory.insert("$old", before);
        }
    }
}

/// The path of what a line names, and its kind.
fn url(both: &Both, what: &str) -> (String, (&'static str, &'static str, String)) {
    let (what, query) = what.split_once('?').unwrap_or((what, ""));
    let (resource, rest) = what.split_once('/').unwrap_or((what, ""));
    let (short, api, plural, kind) = SHORT.into_iter().find(|(short, ..)| *short == resource).unwrap();
    let space = match short {
        "volumes" | "namespaces" | "policies" | "bindings" => String::new(),
        "elsewhere" => "namespaces/no-such-namespace/".to_owned(),
        _ => format!("namespaces/{}/", both.namespace),
    };
    (format!("/{api}/{space}{plural}/{rest}?{query}"), (api, kind, rest.to_owned()))
}

fn request(method: &str, path: &str, (api, kind, name): (&str, &str, String), body: &str) -> Request<Body> {
    let (method, content) = match method {
        "MERGE" => ("PATCH", "application/merge-patch+json"),
        "JSON" => ("PATCH", "application/json-patch+json"),
        "APPLY" => ("PATCH", "application/apply-patch+yaml"),
        method => (method, "application/json"),
    };
    let mut path = path.replace("/?", "?");
    let mut sent = body.to_owned();
    let makes = method == "POST" || content == "application/apply-patch+yaml";
    if let (true, Ok(mut body)) = (makes, serde_json::from_str::<Value>(body)) {
        let name = name.split('/').next().unwrap_or_default();
        let defaults =
            [("apiVersion", json!(api.split_once('/').map_or("", |(_, version)| version))), ("kind", json!(kind))];
        for (field, value) in defaults {
            if body[field].is_null() {
                body[field] = value;
            }
        }
        body["metadata"]["name"] = json!(name);
        sent = body.to_string();
    }
    if method == "POST" {
        let name = name.split('/').next().unwrap_or_default();
        path = path.replacen(&format!("/{name}?"), "?", 1);
    }
    let request = Request::builder().method(method).uri(path).header("content-type", content);
    request.body(Body::from(sent.into_bytes())).unwrap()
}

fn shown(body: &Value, field: &str, before: &str) -> String {
    let meta = &body["metadata"];
    match field {
        "rv" => if meta["resourceVersion"] == before { "same" } else { "new" }.to_owned(),
        "deleting" => meta["deletionTimestamp"].is_string().to_string(),
        "more" => (!text(&meta["continue"]).is_empty()).to_string(),
        "names" => {
            let items = body["items"].as_array().into_iter().flatten();
            items.map(|item| text(&item["metadata"]["name"])).collect::<Vec<_>>().join(",")
        }
        path => body.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null).to_string(),
    }
}

/// The first changes that a watch tells.
async fn watch(client: &Client, count: usize, path: &str, show: &str) -> String {
    let path = path.replace("/?", "?");
    let request = Request::get(format!("{path}&watch=true&timeoutSeconds=20")).body(Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let (mut answer, mut body) = (response.status().as_u16().to_string(), response.into_body());
    let (mut seen, mut buffer) = (0, String::new());
    while seen < count {
        let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
        let Ok(Some(Ok(frame))) = frame else { break };
        buffer.push_str(&String::from_utf8_lossy(frame.data_ref().map_or(&[], |data| data)));
        while let Some((line, rest)) = buffer.split_once('\n').map(|(line, rest)| (line.to_owned(), rest.to_owned())) {
            buffer = rest;
            let change: Value = serde_json::from_str(&line).unwrap();
            seen += 1;
            for field in show.split_whitespace() {
                let of = if field == "type" { &change } else { &change["object"] };
                write!(answer, " {field}: {}", shown(of, field, "")).unwrap();
            }
        }
    }
    answer
}
