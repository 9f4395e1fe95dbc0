//! An API server whose objects are all big: what it sends it makes as it is asked for, and keeps nothing.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

/// Objects of each kind.
pub const MANY: usize = 80;
/// An object's annotations may have 256 KiB together.
const BYTES: usize = 255_000;
/// Where they stand, unless the environment says otherwise.
pub const NOTE: &str = "example.com/note";
/// What stands beside them may be more than that.
const REST: usize = 100_000;

static SERVED: AtomicUsize = AtomicUsize::new(0);
static KEY: LazyLock<String> = LazyLock::new(|| std::env::var("SSB_LEAN_KEY").unwrap_or_else(|_| NOTE.into()));
/// A list of words, as good as any text.
static BIG: LazyLock<Bytes> = LazyLock::new(|| "xyz,".repeat(BYTES / 4).into());
static FIELDS: LazyLock<Bytes> = LazyLock::new(|| {
    let fields: Vec<String> = (0..REST / 16).map(|n| format!("\"f:x{n:06}\":{{}}")).collect();
    fields.join(",").into()
});

/// So many objects were sent.
pub fn served() -> usize {
    SERVED.load(Ordering::Relaxed)
}

type Chunks = StreamBody<BoxStream<'static, Result<Frame<Bytes>, BoxError>>>;

pub fn client() -> Client {
    LazyLock::force(&BIG);
    LazyLock::force(&FIELDS);
    let service = tower::service_fn(|request: Request<Body>| async move { Ok::<_, BoxError>(answer(request.uri())) });
    Client::new(service, "default")
}

fn answer(uri: &http::Uri) -> Response<Chunks> {
    let query: Vec<(&str, &str)> =
        uri.query().unwrap_or_default().split('&').filter_map(|of| of.split_once('=')).collect();
    let of = |key: &str| query.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    if of("watch").is_some() {
        return Response::new(StreamBody::new(stream::pending().boxed()));
    }
    let number = |key: &str| of(key).and_then(|text| text.parse::<usize>().ok());
    let from = number("continue").unwrap_or(0);
    let to = number("limit").map_or(MANY, |limit| (from + limit).min(MANY));
    let mut meta = json!({ "resourceVersion": "7" });
    if to < MANY {
        meta["continue"] = to.to_string().into();
    }
    let kind = uri.path().rsplit('/').next().unwrap().to_owned();
    let head = format!("{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{meta},\"items\":[");
    let items = (from..to).flat_map(move |n| {
        SERVED.fetch_add(1, Ordering::Relaxed);
        let comma = if n > from { "," } else { "" };
        std::iter::once(Bytes::from(comma)).chain(pieces(&object(&kind, n)))
    });
    let all = std::iter::once(Bytes::from(head)).chain(items).chain([Bytes::from("]}")]);
    Response::new(StreamBody::new(stream::iter(all.map(|bytes| Ok(Frame::data(bytes)))).boxed()))
}

/// With the big parts in their places, which are one and the same memory for all.
fn pieces(object: &Value) -> Vec<Bytes> {
    let text = object.to_string();
    let (front, rest) = text.split_once("@BIG@").unwrap();
    let (middle, back) = rest.split_once("\"@FIELDS@\":0").unwrap();
    vec![front.to_owned().into(), BIG.clone(), middle.to_owned().into(), FIELDS.clone(), back.to_owned().into()]
}

fn object(kind: &str, n: usize) -> Value {
    let name = if kind == "pods" { format!("web-{n}") } else { format!("other-{n}") };
    let meta = json!({
        "name": name, "namespace": "shop", "uid": format!("uid-{n}"), "resourceVersion": "7",
        "creationTimestamp": "2026-11-25T01:26:40Z",
        "labels": { "backup.sts-backup.io/statefulset": "web" },
        "annotations": { KEY.as_str(): "@BIG@" },
        "managedFields": [{ "manager": "x", "operation": "Update", "time": "2026-11-25T01:26:40Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "@FIELDS@": 0 } }],
    });
    let mut object = match kind {
        "pods" => json!({ "spec": { "containers": [{ "name": "app" }] } }),
        "persistentvolumeclaims" => json!({ "spec": { "accessModes": ["ReadWriteOnce"] } }),
        "volumesnapshots" => json!({ "spec": { "source": { "persistentVolumeClaimName": format!("other-{n}") } } }),
        "volumesnapshotcontents" => json!({ "spec": { "driver": "csi", "deletionPolicy": "Delete",
            "volumeSnapshotRef": {}, "source": { "volumeHandle": format!("handle-{n}") } } }),
        "volumesnapshotclasses" => json!({ "driver": "csi", "deletionPolicy": "Delete" }),
        "statefulsetrestores" => json!({ "spec": { "statefulSetRef": { "name": "other" } } }),
        "storageclasses" => json!({ "provisioner": "csi" }),
        "nodes" | "persistentvolumes" | "resourcequotas" => json!({ "spec": {} }),
        "csinodes" => json!({ "spec": { "drivers": [] } }),
        "volumeattachments" => json!({ "spec": { "attacher": "csi", "nodeName": "n1",
            "source": { "persistentVolumeName": format!("pv-{n}") } } }),
        "horizontalpodautoscalers" => json!({ "spec": { "maxReplicas": 1,
            "scaleTargetRef": { "kind": "StatefulSet", "name": "other" } } }),
        "events" => json!({ "involvedObject": {}, "message": "no room" }),
        other => panic!("{other}"),
    };
    object["metadata"] = meta;
    object
}
