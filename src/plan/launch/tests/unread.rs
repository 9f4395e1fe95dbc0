//! A restore whose plan a newer version has written.

use super::*;

const AT: &str = "2026-03-05T13:00:00Z";

#[test]
fn what_this_version_cannot_read_is_told_in_status_and_bars_no_backup() {
    let run = OpenRun { slot: "".into(), attempt: 1, stage: Stage::Other };
    let (phase, unread) = (Some(RestorePhase::Restoring), Some("2".into()));
    let of =
        |owned| restore(Restore { phase, run: Some(run.clone()), unread: unread.clone(), owned, ..Restore::default() });
    let mut index = with(of(Owned::default()));
    let what = plan(&mut index, AT);
    let [What::Status(Owned { waiting: Some(waiting), .. })] = &what[..] else { panic!("{what:?}") };
    let Waiting { why, message, .. } = waiting.as_ref();
    assert_eq!(*why, Some(Reason::FormatUnknown));
    assert!(message.contains("format \"2\"") && message.contains("newer"), "{message}");

    let told = Object { version: "2".into(), ..of(Owned { waiting: Some(waiting.clone()), ..Owned::default() }) };
    index.answer(UID, Answer::Status(Some(Box::new(told))), now(AT));
    assert_eq!(plan(&mut index, "2026-03-05T14:00:00Z"), [], "once");

    index.see(Uid(8 << 64), object(Subject::Backup(Box::new(settled()))));
    assert!(made(&mut index, "2026-03-05T14:00:00Z").is_some(), "a backup of the same StatefulSet is due");
}
