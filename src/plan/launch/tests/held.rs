//! What failed and is left as it is for people to decide: nothing is launched before somebody asks, and then what they
//! ask for.

use super::*;

const AT: &str = "2026-03-05T13:00:00Z";

/// Held, by the restore itself or by an undo, at its attempt.
fn held(slot: &str, attempt: u32, undo: Option<&str>) -> Object {
    let run = OpenRun { slot: slot.into(), attempt, stage: Stage::Other };
    let undo = undo.map(Into::into);
    let phase = Some(RestorePhase::Failed);
    Object {
        held: true,
        ..restore(Restore { phase, run: Some(run), undo, undoing: !slot.is_empty(), ..Restore::default() })
    }
}

fn failed(n: u128, kind: Kind, slot: &str) -> Job {
    job(n, kind, slot, Trigger::Manual, State::Failed { refused: true })
}

/// Rested, long after its Job has ended, with the Lease seen free: is anything made?
fn later(index: &mut Index) -> Vec<What> {
    let first = plan(index, AT);
    if first != [What::Look] {
        return first;
    }
    index.answer(UID, Answer::Lease(Lease::default()), now(AT));
    plan(index, "2026-03-05T14:00:00Z")
}

#[test]
fn a_restore_that_is_held_is_left_alone_until_its_undo_is_asked_for() {
    let mut index = with(held("", 1, None));
    index.see_job(UID, failed(9, Kind::Restore, ""));
    assert_eq!(later(&mut index), [], "no further attempt");
    index.see(UID, Object { version: "2".into(), ..held("", 1, Some("please")) });
    let undo = Some((Kind::Undo, "please".to_owned(), 1, Trigger::Manual));
    assert_eq!(made(&mut index, "2026-03-05T15:00:00Z"), undo);
}

#[test]
fn an_undo_that_is_held_is_left_alone_until_another_is_asked_for() {
    let mut index = with(held("please", 2, Some("please")));
    index.see_job(UID, failed(9, Kind::Undo, "please"));
    let handled = Owned { request: Some("please".into()), ..Owned::default() };
    assert_eq!(plan(&mut index, AT), [What::Status(handled.clone())], "it is answered");
    let answered = |object: Object, version: &str| {
        let Subject::Restore(mut of) = object.subject else { unreachable!() };
        of.owned = handled.clone();
        Object { version: version.into(), subject: Subject::Restore(of), ..object }
    };
    index.answer(UID, Answer::Status(Some(Box::new(answered(held("please", 2, Some("please")), "2")))), now(AT));
    assert_eq!(later(&mut index), []);
    index.see(UID, answered(held("please", 2, Some("once more")), "3"));
    let undo = Some((Kind::Undo, "once more".to_owned(), 1, Trigger::Manual));
    assert_eq!(made(&mut index, "2026-03-05T15:00:00Z"), undo);
}

/// As the messages say: its deletion puts the old volumes back.
#[test]
fn a_restore_that_is_held_goes_on_when_its_object_is_deleted() {
    for (slot, kind) in [("", Kind::Restore), ("please", Kind::Undo)] {
        let mut index = with(Object { leaving: Some(at("2026-03-05T12:00:00Z")), ..held(slot, 1, None) });
        index.see_job(UID, failed(9, kind, slot));
        let what = later(&mut index);
        assert_eq!(launched(&what).map(|run| (run.kind, run.attempt)), Some((kind, 2)), "{what:?}");
    }
}

/// By hand, while the watcher still has an older request before it.
#[test]
fn a_request_is_not_answered_over_another_that_is_under_way() {
    let run = OpenRun { slot: "by hand".into(), attempt: 1, stage: Stage::Other };
    let owned = Owned { request: Some("by hand".into()), ..Owned::default() };
    let (undo, phase) = (Some("refused".into()), Some(RestorePhase::Restoring));
    let mut index = with(restore(Restore { phase, run: Some(run), undo, undoing: true, owned, ..Restore::default() }));
    index.see_job(UID, failed(9, Kind::Undo, "refused"));
    let what = plan(&mut index, AT);
    assert!(!matches!(what[..], [What::Status(_)]), "{what:?}");
}

#[test]
fn a_restore_that_fails_is_counted_when_it_does_and_not_again() {
    let mut version = 1;
    let mut see = |index: &mut Index, phase, failed| {
        version += 1;
        let object = restore(Restore { phase: Some(phase), failed, ..Restore::default() });
        index.see(UID, Object { version: version.to_string().into(), ..object });
        index.failures().get(&UID).map(|all| all.clone().into_iter().collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut index = with(restore(Restore { phase: Some(RestorePhase::Restoring), ..Restore::default() }));
    let (held, other) = (Some(Reason::SnapshotFailed), Some(Reason::Forbidden));
    assert_eq!(see(&mut index, RestorePhase::Failed, held), [(Reason::SnapshotFailed, 1)]);
    assert_eq!(see(&mut index, RestorePhase::Failed, other), [(Reason::SnapshotFailed, 1)], "it has not begun again");
    assert_eq!(see(&mut index, RestorePhase::Restoring, None), [(Reason::SnapshotFailed, 1)]);
    let both = [(Reason::SnapshotFailed, 1), (Reason::Forbidden, 1)];
    let mut seen = see(&mut index, RestorePhase::Failed, other);
    seen.sort_by_key(|(reason, _)| *reason != Reason::SnapshotFailed);
    assert_eq!(seen, both);
    let mut index = with(restore(Restore { phase: Some(RestorePhase::Failed), failed: held, ..Restore::default() }));
    assert_eq!(see(&mut index, RestorePhase::Failed, held), [], "it had failed before we came");
}
