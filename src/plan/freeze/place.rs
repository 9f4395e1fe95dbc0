//! Which container of a pod is frozen, and in which it is thawed: two, where the hooks name two. What is frozen is in the
//! pre hook's; the post hook's may be restarted meanwhile, and is entered as it is then.

use super::is_same;
use crate::plan::hook::{End, Place, Which};
use crate::plan::journal::Freeze;
use crate::plan::view::{Read, View};

/// The container that the pre hook is meant for.
pub fn meant(f: &Freeze, ordinal: u32) -> Option<&Place> {
    f.pods.iter().find(|place| place.ordinal == ordinal)
}

/// The one that it has frozen: that which was meant, or the one that it strayed into.
pub fn frozen<'a>(v: &'a View, f: &'a Freeze, ordinal: u32) -> Option<&'a Place> {
    v.hooks.strayed(f.id, ordinal).or_else(|| meant(f, ordinal))
}

/// The post hook's own container, where it is another one.
fn other(f: &Freeze, ordinal: u32) -> Option<&Place> {
    let first = meant(f, ordinal)?;
    f.pods.iter().rfind(|place| place.ordinal == ordinal).filter(|last| last.container != first.container)
}

/// The container that the post hook enters.
pub fn thawed(v: &View, f: &Freeze, ordinal: u32) -> Option<Place> {
    let frozen = frozen(v, f, ordinal)?;
    let Some(other) = other(f, ordinal) else { return Some(frozen.clone()) };
    let pod = v.proof(&other.pod).or_else(|_| v.pod(&other.pod)).ok().flatten();
    let now = pod.filter(|pod| pod.uid == frozen.uid).and_then(|pod| other.in_pod(pod));
    Some(now.unwrap_or_else(|| other.clone()))
}

/// The last post hook did not find its own container, and what is frozen in the other one is there still.
pub fn is_elsewhere(v: &View, f: &Freeze, ordinal: u32) -> Result<bool, Read> {
    let gone = v.hooks.of(f.id, ordinal, Which::Post).last().is_some_and(|tried| tried.end == End::Gone);
    match frozen(v, f, ordinal).filter(|_| gone && other(f, ordinal).is_some()) {
        Some(frozen) => Ok(is_same(v.proof(&frozen.pod)?, Some(frozen))),
        None => Ok(false),
    }
}
