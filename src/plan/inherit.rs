//! What a freeze leaves to the process that takes it up: with what to thaw, and which of its containers may be entered.
//!
//! Others can write to what tells of it: people change a spec, also that of an object that is being deleted, and a mark
//! on a Lease may be anybody's. So what thaws is what was recorded before the freeze, and nothing is run in a container
//! that is not of a pod of the `StatefulSet`.

use super::freeze::is_same;
use super::hook::{Pair, Place};
use super::journal::{self, Freeze, Journal};
use super::noun::{Open, Refusal};
use super::resolve::is_member;
use super::view::{Read, View};
use crate::api::FILE_UID;
use crate::api::condition::{self, ConditionType, Reason};

/// What the Lease says of a freeze while it is open.
pub fn mark(v: &View, f: &Freeze) -> Open {
    let want = &v.want;
    // With what to thaw is not read from a Lease, and not written to it.
    let frozen = || Journal::Frozen(Freeze { hooks: None, ..f.clone() });
    let journal = (want.uid == FILE_UID).then(|| journal::write(&frozen(), &want.slot, want.attempt, &want.me));
    Open {
        kind: "StatefulSetBackup".into(),
        namespace: v.want.namespace.clone(),
        name: v.want.name.clone(),
        uid: v.want.uid.clone(),
        run: f.id.to_string(),
        pods: f.pods.iter().map(|place| place.pod.clone()).collect(),
        hooks: f.hooks.as_ref().map(Pair::digest),
        journal: journal.flatten().map(Box::new),
    }
}

/// The hooks of the freeze, as they were when it began: our own, those of the file, or those that were recorded. Where
/// none were recorded (an earlier version): those of a spec that is the same still. None: nobody knows with what to thaw.
pub fn hooks<'a>(v: &'a View, f: &'a Freeze) -> Option<&'a Pair> {
    let ours = f.holder == v.want.me || v.want.uid == FILE_UID;
    match &f.hooks {
        _ if ours => Some(&v.want.backup.hooks),
        Some(recorded) => is_believed(v, f, recorded).then_some(recorded),
        None => is_as_it_was(v).then_some(&v.want.backup.hooks),
    }
}

/// A status is written by whoever may write there. So what it says of the hooks must agree with the mark on the Lease, or
/// with the spec, whose author was asked for the right to enter pods.
fn is_believed(v: &View, f: &Freeze, recorded: &Pair) -> bool {
    match v.mark_of(&f.id.to_string()) {
        Some(Some(digest)) => *digest == recorded.digest(),
        // Of an earlier version.
        Some(None) => true,
        None => recorded.digest() == v.want.backup.hooks.digest(),
    }
}

fn is_as_it_was(v: &View) -> bool {
    let Ok(record) = v.record() else { return false };
    let begun = condition::get(&record.status.conditions, ConditionType::Reconciling);
    !record.leaving && begun.and_then(|begun| begun.observed_generation) == Some(v.want.generation)
}

/// Why something that may be frozen still is not thawed; none: all that is left of it can be.
pub fn left_alone(v: &View, f: &Freeze) -> Result<Option<Refusal>, Read> {
    if hooks(v, f).is_some_and(|hooks| hooks.post.is_none()) {
        return Ok(None); // nothing is owed to any
    }
    for place in &f.pods {
        if let Some(refusal) = stranger(v, place)? {
            return Ok(Some(refusal));
        }
        if hooks(v, f).is_none() && is_same(v.pod(&place.pod)?, Some(place)) {
            let why = match f.hooks {
                None => {
                    "was frozen by an earlier version, which did not record its post hook, and spec has changed since"
                }
                Some(_) => {
                    "is recorded as frozen, with hooks that are neither those of spec nor those of which the lock's Lease tells"
                }
            };
            return Ok(Some(unproven(place, why)));
        }
    }
    Ok(None)
}

/// Why no hook enters a container that the journal calls frozen; none: it is of a pod of the `StatefulSet`, or is not
/// there any more.
pub fn stranger(v: &View, place: &Place) -> Result<Option<Refusal>, Read> {
    let set = format!("{}/{}", v.want.statefulset_namespace, v.want.statefulset);
    let refuse = |why: &str| Ok(Some(unproven(place, &format!("{why} StatefulSet {set}"))));
    if place.pod != format!("{}-{}", v.want.statefulset, place.ordinal) {
        return refuse("is recorded as frozen and does not bear the name of a pod of");
    }
    match v.pod(&place.pod)?.filter(|pod| is_same(Some(pod), Some(place))) {
        Some(pod) if !is_member(pod, v.target()?) => refuse("is recorded as frozen and is not controlled by"),
        _ => Ok(None),
    }
}

fn unproven(place: &Place, why: &str) -> Refusal {
    let Place { pod, container, .. } = place;
    let message = format!(
        "pod {pod} {why}: nothing was run in its container {container}; look whether it is frozen, and thaw it by hand"
    );
    Refusal::new(Reason::ThawUnproven, message)
}
