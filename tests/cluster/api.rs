//! The CRDs on a real API server: accepted without a warning, bad objects refused each with its sentence, good ones
//! kept whole.

mod stored;

use std::time::Duration;

use kube::Client;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Request, ValidationDirective};
use serde_json::{Value, json};
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::api::restore::StatefulSetRestore;
use sts_backup::api::{API_VERSION, GROUP};
use sts_backup::generate;

const BAD: &str = include_str!("data/bad-objects.yaml");
const GOOD: &str = include_str!("data/good-objects.yaml");
const BACKUPS: &str = "statefulsetbackups";
const RESTORES: &str = "statefulsetrestores";

/// What the API server answered.
struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

impl Answer {
    /// The refusal, one line for each cause; "accepted" if it was none.
    fn refusal(&self) -> String {
        if self.code < 300 {
            return "accepted".to_owned();
        }
        let causes = self.body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let lines = causes.iter().map(|c| format!("{}: {}", text(&c["field"]), text(&c["message"])));
        // The API server adds this to every refusal that comes before the rules.
        let lines: Vec<_> = lines.filter(|line| !line.contains("some validation rules were not checked")).collect();
        if lines.is_empty() { text(&self.body["message"]).to_owned() } else { lines.join("\n") }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A client of a cluster that serves our kinds.
pub async fn cluster() -> Option<Client> {
    let client = crate::harness::client().await?;
    for definition in generate::definitions() {
        install(&client, &definition).await;
    }
    Some(client)
}

/// Applies a CRD and waits until it is served. No warning may come with it.
pub async fn install(client: &Client, definition: &Value) {
    let crds = Request::new("/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
    let name = text(&definition["metadata"]["name"]);
    let apply = PatchParams { field_validation: Some(ValidationDirective::Strict), ..force() };
    let answer = send(client, crds.patch(name, &apply, &Patch::Apply(definition)).unwrap()).await;
    assert!(answer.code < 300, "{name}: {}", answer.body);
    assert_eq!(answer.warnings, Vec::<String>::new(), "{name}");
    for _ in 0..100 {
        let crd = send(client, crds.get(name, &GetParams::default()).unwrap()).await.body;
        let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is = |kind: &str, status: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == status);
        assert!(!is("NonStructuralSchema", "True"), "{name}: {conditions:?}");
        if is("Established", "True") && is("NamesAccepted", "True") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} was not established in 10 s");
}

fn force() -> PatchParams {
    PatchParams::apply("sts-backup/tests").force()
}

async fn send(client: &Client, request: http::Request<Vec<u8>>) -> Answer {
    let response = client.send(request.map(Into::into)).await.unwrap();
    let code = response.status().as_u16();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|w| w.to_str().unwrap_or("?").to_owned()).collect();
    let body = response.into_body().collect_bytes().await.unwrap();
    Answer { code, warnings, body: serde_json::from_slice(&body).unwrap() }
}

fn documents(yaml: &str) -> Vec<(String, Value)> {
    let parts = yaml.split("\n---\n").filter(|part| part.contains("\nkind:"));
    let named = parts.map(|part| {
        let case = part.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
        (case.to_owned(), serde_saphyr::from_str(part).unwrap())
    });
    named.collect()
}

fn examples() -> Vec<(String, Value)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut named: Vec<_> = files
        .map(|path| {
            let case = path.file_name().unwrap().to_string_lossy().into_owned();
            (case, serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap())
        })
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

fn collection(group: &str, plural: &str) -> Request {
    Request::new(format!("/apis/{group}/v1alpha1/namespaces/default/{plural}"))
}

fn plural_of(object: &Value) -> &'static str {
    if object["kind"] == "StatefulSetBackup" { BACKUPS } else { RESTORES }
}

/// What the API server would make of a new object.
async fn dry_create(client: &Client, object: &Value) -> Answer {
    let mut object = object.clone();
    object["metadata"]["namespace"] = "default".into();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let body = serde_json::to_vec(&object).unwrap();
    send(client, collection(GROUP, plural_of(&object)).create(&dry, body).unwrap()).await
}

async fn create(client: &Client, group: &str, object: &Value) -> Value {
    let all = collection(group, plural_of(object));
    delete(client, group, object).await;
    let answer = send(client, all.create(&PostParams::default(), serde_json::to_vec(object).unwrap()).unwrap()).await;
    assert!(answer.code < 300, "{}", answer.body);
    answer.body
}

async fn delete(client: &Client, group: &str, object: &Value) {
    let all = collection(group, plural_of(object));
    send(client, all.delete(text(&object["metadata"]["name"]), &DeleteParams::default()).unwrap()).await;
}

fn backup(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": "StatefulSetBackup", "metadata": { "name": name }, "spec": spec })
}

fn restore(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": "StatefulSetRestore", "metadata": { "name": name }, "spec": spec })
}

/// Decodes into our type and encodes again.
fn there_and_back(object: &Value) -> Value {
    if object["kind"] == "StatefulSetBackup" {
        serde_json::to_value(serde_json::from_value::<StatefulSetBackup>(object.clone()).unwrap()).unwrap()
    } else {
        serde_json::to_value(serde_json::from_value::<StatefulSetRestore>(object.clone()).unwrap()).unwrap()
    }
}

pub fn assert_snapshot(name: &str, content: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, content));
}

#[tokio::test]
async fn crds_apply_without_a_warning_and_are_established() {
    cluster().await;
}

#[tokio::test]
async fn bad_objects_are_refused_each_with_its_sentence() {
    let Some(client) = cluster().await else { return };
    let cases = documents(BAD);
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut answers = Vec::new();
    for (case, object) in &cases {
        let refusal = dry_create(&client, object).await.refusal();
        assert_ne!(refusal, "accepted", "{case}");
        answers.push(format!("{case}\n    {}", refusal.replace('\n', "\n    ")));
    }
    assert_snapshot("bad_objects", &answers.join("\n"));
}

#[tokio::test]
async fn good_objects_are_accepted_and_keep_everything() {
    let Some(client) = cluster().await else { return };
    for (case, object) in documents(GOOD).into_iter().chain(examples()) {
        let answer = dry_create(&client, &object).await;
        assert_eq!(answer.refusal(), "accepted", "{case}");
        let unknown = case.contains("unknown fields");
        assert_eq!(!answer.warnings.is_empty(), unknown, "{case}: {:?}", answer.warnings);
        assert!(!answer.body["spec"].to_string().contains("null"), "{case}: {}", answer.body["spec"]);
        let mut whole = answer.body.clone();
        whole["spec"].as_object_mut().unwrap().retain(|_, value| *value != json!([]));
        if let Some(instant) = whole["spec"]["pointInTime"].as_str() {
            // The same instant, without its offset.
            whole["spec"]["pointInTime"] = instant.parse::<jiff::Timestamp>().unwrap().to_string().into();
        }
        assert_eq!(there_and_back(&answer.body), whole, "{case}");
    }
}

#[tokio::test]
async fn defaults_are_the_documented_ones() {
    let Some(client) = cluster().await else { return };
    let least = json!({ "statefulSetRef": { "name": "web" }, "preBackupHook": { "command": ["sync"] },
        "retentionPolicy": { "keepLast": 1 } });
    let spec = &dry_create(&client, &backup("least", &least)).await.body["spec"];
    let expected = json!({
        "statefulSetRef": { "name": "web" }, "timeZone": "Etc/UTC", "suspend": false,
        "preBackupHook": { "command": ["sync"], "timeoutSeconds": 60 },
        "retentionPolicy": { "keepLast": 1, "purgeRetained": false, "makeRoom": false },
        "snapshotReadyTimeoutSeconds": 86400, "maxFreezeSeconds": 300, "deletionPolicy": "Retain",
        "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
    });
    assert_eq!(*spec, expected);
    let least = json!({ "statefulSetRef": { "name": "web" }, "backupName": "nightly" });
    let spec = &dry_create(&client, &restore("least", &least)).await.body["spec"];
    let expected = json!({
        "statefulSetRef": { "name": "web" }, "backupName": "nightly", "strategy": "Staged", "scaleDown": true,
        "pvcDeletionTimeoutSeconds": 60, "uncovered": "Refuse", "stageTimeoutSeconds": 3600,
        "readyTimeoutSeconds": 600, "onFailure": "Rollback", "undoWindowSeconds": 86400, "releaseOldVolumes": "Auto",
    });
    assert_eq!(*spec, expected);
}
