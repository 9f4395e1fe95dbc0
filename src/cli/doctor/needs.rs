//! What an object asks of whoever makes it or changes it, as the author policies have it, and what they refuse anyway.

use kube::{Resource, ResourceExt};

use super::policies::Line;
use crate::api::annotation;
use crate::api::backup::{DeletionPolicy, StatefulSetBackup};
use crate::api::restore::StatefulSetRestore;
use crate::api::shared::StatefulSetRef;
use crate::plan::flow::Verb;

const CREATE_SNAPSHOTS: Verb = ("snapshot.storage.k8s.io", "volumesnapshots", "create");
const DELETE_SNAPSHOTS: Verb = ("snapshot.storage.k8s.io", "volumesnapshots", "delete");
const PATCH_CONTENTS: Verb = ("snapshot.storage.k8s.io", "volumesnapshotcontents", "patch");
const EXEC: Verb = ("", "pods/exec", "create");
const DELETE_CLAIMS: Verb = ("", "persistentvolumeclaims", "delete");
const SCALE: Verb = ("apps", "statefulsets/scale", "update");

/// Whose authors are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Backup,
    Restore,
}

impl Kind {
    pub fn resource(self) -> &'static str {
        match self {
            Kind::Backup => "statefulsetbackups",
            Kind::Restore => "statefulsetrestores",
        }
    }
}

/// A right that an object asks of its authors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub kind: Kind,
    /// Namespace and name of the object.
    pub namespace: String,
    pub name: String,
    pub right: Verb,
    /// Where: the namespace of the StatefulSet; none for what lies in no namespace.
    pub place: Option<String>,
}

pub fn of_backup(object: &StatefulSetBackup) -> Vec<Need> {
    let spec = &object.spec;
    let hooks = spec.pre_backup_hook.is_some() || spec.post_backup_hook.is_some();
    let deletes = spec.retention_policy.is_some()
        || spec.deletion_policy() == DeletionPolicy::Delete
        || object.annotations().contains_key(annotation::ADOPT);
    let purges = spec.retention_policy.as_ref().is_some_and(|policy| policy.purge_retained == Some(true));
    let asked = [(true, CREATE_SNAPSHOTS), (hooks, EXEC), (deletes, DELETE_SNAPSHOTS), (purges, PATCH_CONTENTS)];
    needs(
        Kind::Backup,
        object,
        &spec.stateful_set_ref,
        asked.into_iter().filter(|(asks, _)| *asks).map(|(_, right)| right),
    )
}

pub fn of_restore(object: &StatefulSetRestore) -> Vec<Need> {
    needs(Kind::Restore, object, &object.spec.stateful_set_ref, [DELETE_CLAIMS, SCALE])
}

fn needs(
    kind: Kind,
    object: &impl ResourceExt,
    of: &StatefulSetRef,
    rights: impl IntoIterator<Item = Verb>,
) -> Vec<Need> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let target = of.namespace_or(&namespace).to_owned();
    let need = |right: Verb| Need {
        kind,
        namespace: namespace.clone(),
        name: name.clone(),
        right,
        place: (right != PATCH_CONTENTS).then(|| target.clone()),
    };
    rights.into_iter().map(need).collect()
}

/// What is refused of this object whoever sends it.
pub fn refused(object: &StatefulSetBackup) -> Vec<Line> {
    let own = object.namespace().unwrap_or_default();
    let foreign = object.spec.stateful_set_ref.namespace_or(&own) != own;
    let deletes = foreign && object.spec.deletion_policy() == DeletionPolicy::Delete;
    let about = || format!("StatefulSetBackup {own}/{}", object.name_any());
    let crossing = deletes.then(|| {
        let message = "has deletionPolicy Delete and a StatefulSet in another namespace, which is refused";
        Line::warning(about(), message, "set deletionPolicy to Retain, or move the object to that namespace")
    });
    crossing.into_iter().chain(invalid(object, &object.problems())).collect()
}

/// That it breaks the rules of its kind: an older CRD has let it in.
pub fn invalid<K: Resource<DynamicType = ()>>(object: &K, problems: &[String]) -> Option<Line> {
    let (first, more) = problems.split_first()?;
    let about = format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
    let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
    Some(Line::warning(about, format!("{first}{more}"), "no run of it begins until its spec is mended"))
}
