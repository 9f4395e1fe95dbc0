//! The report of a failed test: all that is in its namespace, and what the product wrote.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::Scene;

/// Kinds of a namespace, by their paths.
const KINDS: &[(&str, &str)] = &[
    ("/apis/backup.sts-backup.io/v1alpha1", "statefulsetbackups"),
    ("/apis/backup.sts-backup.io/v1alpha1", "statefulsetrestores"),
    ("/apis/coordination.k8s.io/v1", "leases"),
    ("/apis/snapshot.storage.k8s.io/v1", "volumesnapshots"),
    ("/apis/apps/v1", "statefulsets"),
    ("/apis/batch/v1", "jobs"),
    ("/api/v1", "persistentvolumeclaims"),
    ("/api/v1", "pods"),
];

/// No object is printed longer.
const LONGEST: usize = 6000;

pub async fn dump(scene: &Scene) {
    for log in scene.logs.borrow().iter() {
        eprintln!("--- sts-backup {}", log.command);
        for line in log.stdout.lock().unwrap().iter().chain(log.stderr.lock().unwrap().iter()) {
            eprintln!("{line}");
        }
    }
    let others = scene.others.borrow().clone();
    for namespace in [scene.namespace.clone()].iter().chain(&others) {
        for (path, plural) in KINDS {
            for object in list(scene, &format!("{path}/namespaces/{namespace}/{plural}")).await {
                print(plural, &object);
            }
        }
        events(scene, namespace).await;
        logs(scene, namespace).await;
        for object in list(scene, "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents").await {
            if object["spec"]["volumeSnapshotRef"]["namespace"] == namespace.as_str() {
                print("volumesnapshotcontents", &object);
            }
        }
    }
}

async fn list(scene: &Scene, path: &str) -> Vec<Value> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match scene.client.request::<Value>(request).await {
        Ok(list) => list["items"].as_array().cloned().unwrap_or_default(),
        Err(error) => {
            eprintln!("--- {path}: {error}");
            vec![]
        }
    }
}

fn print(plural: &str, object: &Value) {
    let mut object = object.clone();
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    let text: String = object.to_string().chars().take(LONGEST).collect();
    eprintln!("--- {plural} {}\n{text}", object["metadata"]["name"]);
}

async fn events(scene: &Scene, namespace: &str) {
    eprintln!("--- events");
    for event in list(scene, &format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")).await {
        let (about, reason, note) = (&event["regarding"]["name"], &event["reason"], &event["note"]);
        eprintln!("{} {about} {reason} {note}", event["metadata"]["creationTimestamp"]);
    }
}

async fn logs(scene: &Scene, namespace: &str) {
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), namespace);
    for pod in pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
        let tail = LogParams { tail_lines: Some(40), ..LogParams::default() };
        let log = pods.logs(&pod.name_any(), &tail).await.unwrap_or_else(|error| error.to_string());
        eprintln!("--- log of pod {}\n{log}", pod.name_any());
    }
}
