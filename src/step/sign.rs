//! What a lock Lease says beside who holds it: the open mark, the fence, the restores that were done and the runs that were
//! sealed.

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use crate::api::{annotation, label};
use crate::plan::noun::Open;
use crate::plan::roll::Roll;

/// The epoch of the next taking. The API server counts to 2147483647 only: whoever has set it there breaks no run.
pub(super) fn after(epoch: i64) -> i64 {
    if (0..i64::from(i32::MAX)).contains(&epoch) { epoch + 1 } else { 1 }
}

/// The open mark.
pub fn open(object: &Lease) -> Option<Open> {
    let text = object.annotations().get(annotation::OPEN)?;
    // A mark that we cannot read still bars the way.
    Some(serde_json::from_str(text).unwrap_or_else(|_| Open { kind: "unreadable".into(), ..Open::default() }))
}

pub(super) fn text(open: Option<&Open>) -> Option<String> {
    open.and_then(|open| serde_json::to_string(open).ok())
}

/// Who may pass the fence, while its label stands.
pub(super) fn fence(object: &Lease) -> Option<String> {
    let up = object.labels().get(label::FENCE).is_some_and(|value| value == label::FENCE_VALUE);
    up.then(|| object.annotations().get(annotation::FENCE_USER).cloned().unwrap_or_default())
}

/// The annotation `/restored-by`: one entry a line.
pub(super) fn restored(object: &Lease) -> Vec<String> {
    let text = object.annotations().get(annotation::RESTORED_BY).map_or("", String::as_str);
    text.lines().map(ToOwned::to_owned).collect()
}

/// The annotation `/runs`.
pub fn roll(object: &Lease) -> Option<Roll> {
    object.annotations().get(annotation::RUNS).map(String::as_str).map(Roll::read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epochs_begin_anew_where_the_api_server_has_no_more() {
        assert_eq!([after(0), after(7), after(2_147_483_646)], [1, 8, 2_147_483_647]);
        assert_eq!([after(2_147_483_647), after(-1), after(i64::MAX)], [1, 1, 1]);
    }
}
