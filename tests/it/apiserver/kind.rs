//! The kinds that the double knows, and what a URL asks for.

use std::collections::BTreeMap;

/// One resource of the API.
#[expect(clippy::struct_field_names, reason = "kind is the word of the API")]
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    /// It has a status subresource, and a write to the object itself leaves the status alone.
    pub status: bool,
    /// metadata.generation counts the changes of its spec.
    pub generation: bool,
    /// The finalizer that every new object gets.
    pub finalizer: Option<&'static str>,
}

const BASE: Kind = Kind {
    group: "",
    version: "v1",
    resource: "",
    kind: "",
    namespaced: true,
    status: false,
    generation: false,
    finalizer: None,
};
const SNAPSHOT: Kind = Kind { group: "snapshot.storage.k8s.io", status: true, generation: true, ..BASE };
const OURS: Kind = Kind { group: "backup.sts-backup.io", version: "v1alpha1", status: true, generation: true, ..BASE };

const WIDE: Kind = Kind { namespaced: false, ..BASE };
const STORAGE: Kind = Kind { group: "storage.k8s.io", ..WIDE };
const ADMISSION: Kind = Kind { group: "admissionregistration.k8s.io", namespaced: false, generation: true, ..BASE };

/// Who asks, and what they may: answered, never stored.
pub const USER_REVIEW: &str = "selfsubjectreviews";
pub const ACCESS_REVIEW: &str = "selfsubjectaccessreviews";

pub static KINDS: &[Kind] = &[
    Kind { resource: "namespaces", kind: "Namespace", namespaced: false, status: true, ..BASE },
    Kind { resource: "pods", kind: "Pod", status: true, ..BASE },
    Kind {
        resource: "persistentvolumeclaims",
        kind: "PersistentVolumeClaim",
        status: true,
        finalizer: Some("kubernetes.io/pvc-protection"),
        ..BASE
    },
    Kind {
        resource: "persistentvolumes",
        kind: "PersistentVolume",
        namespaced: false,
        status: true,
        finalizer: Some("kubernetes.io/pv-protection"),
        ..BASE
    },
    Kind { group: "apps", resource: "statefulsets", kind: "StatefulSet", status: true, generation: true, ..BASE },
    Kind { group: "apps", resource: "deployments", kind: "Deployment", status: true, generation: true, ..BASE },
    Kind { group: "batch", resource: "jobs", kind: "Job", status: true, generation: true, ..BASE },
    Kind { group: "coordination.k8s.io", resource: "leases", kind: "Lease", ..BASE },
    Kind { group: "events.k8s.io", resource: "events", kind: "Event", ..BASE },
    Kind { resource: "volumesnapshots", kind: "VolumeSnapshot", ..SNAPSHOT },
    Kind { resource: "volumesnapshotcontents", kind: "VolumeSnapshotContent", namespaced: false, ..SNAPSHOT },
    Kind {
        resource: "volumesnapshotclasses",
        kind: "VolumeSnapshotClass",
        namespaced: false,
        status: false,
        ..SNAPSHOT
    },
    Kind { resource: "validatingadmissionpolicies", kind: "ValidatingAdmissionPolicy", status: true, ..ADMISSION },
    Kind { resource: "validatingadmissionpolicybindings", kind: "ValidatingAdmissionPolicyBinding", ..ADMISSION },
    Kind { resource: "events", kind: "Event", ..BASE },
    Kind { resource: "nodes", kind: "Node", status: true, ..WIDE },
    Kind { resource: "resourcequotas", kind: "ResourceQuota", status: true, ..BASE },
    Kind { resource: "storageclasses", kind: "StorageClass", ..STORAGE },
    Kind { resource: "csinodes", kind: "CSINode", ..STORAGE },
    Kind { resource: "volumeattachments", kind: "VolumeAttachment", status: true, ..STORAGE },
    Kind {
        group: "autoscaling",
        version: "v2",
        resource: "horizontalpodautoscalers",
        kind: "HorizontalPodAutoscaler",
        status: true,
        ..BASE
    },
    Kind { group: "authentication.k8s.io", resource: USER_REVIEW, kind: "SelfSubjectReview", ..WIDE },
    Kind { group: "authorization.k8s.io", resource: ACCESS_REVIEW, kind: "SelfSubjectAccessReview", ..WIDE },
    Kind { resource: "statefulsetbackups", kind: "StatefulSetBackup", ..OURS },
    Kind { resource: "statefulsetrestores", kind: "StatefulSetRestore", ..OURS },
];

impl Kind {
    pub fn of(resource: &str) -> &'static Kind {
        KINDS.iter().find(|kind| kind.resource == resource).unwrap()
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `resource.group`, as sentences name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: &'static Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: &str, namespace: &str, name: &str) -> Key {
        Key { kind: Kind::of(resource), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What a URL names: a collection (no name), an object, or a part of one.
#[derive(Debug, Clone)]
pub struct Place {
    pub kind: &'static Kind,
    pub namespace: String,
    pub name: Option<String>,
    pub part: Option<String>,
}

/// None: no such resource here.
pub fn place(path: &str) -> Option<Place> {
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let (group, version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, resource, rest @ ..] if *resource != "status" => {
            (*namespace, [&[*resource], rest].concat())
        }
        rest => ("", rest.to_vec()),
    };
    let resource = rest.first()?;
    let kind = KINDS.iter().find(|kind| {
        (kind.group, kind.version, kind.resource) == (group, version, resource)
            && (kind.namespaced || namespace.is_empty())
    })?;
    let word = |n: usize| rest.get(n).map(|word| (*word).to_owned());
    Some(Place { kind, namespace: namespace.to_owned(), name: word(1), part: word(2) })
}

/// The parameters of a query in their order; a key may come more than once.
pub fn query(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        all.entry(decode(key)).or_default().push(decode(value));
    }
    all
}

fn decode(text: &str) -> String {
    let (mut bytes, mut out) = (text.bytes(), vec![]);
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default()];
                u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}
