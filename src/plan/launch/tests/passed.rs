//! Objects of another installation: what is said of them, and of what bars others.

use super::*;
use crate::plan::launch::rival::Sight;

const OLD: &str = "old/sts-backup";

fn theirs(subject: Subject) -> Object {
    Object { manager: Manager::Another(OLD.into()), ..object(subject) }
}

fn held(renewed: i64) -> Sight {
    Sight::Lease(Lease { holder: Some("pod".into()), renewed: Timestamp::from_second(renewed).ok() })
}

fn free() -> Sight {
    Sight::Lease(Lease::default())
}

/// All that is done at this time, with Events, its Lease looking so whenever it is looked at.
fn acts(index: &mut Index, time: &str, sight: &Sight) -> Vec<(Uid, What)> {
    let mut all = vec![];
    loop {
        let acts = index.plan(now(time));
        if acts.is_empty() {
            return all;
        }
        for Act { uid, what } in acts {
            match &what {
                What::Sight(install) => {
                    assert_eq!(**install, *OLD);
                    index.answer(uid, Answer::Sighted(install.clone(), Some(sight.clone())), now(time));
                }
                _ => all.push((uid, what)),
            }
        }
    }
}

fn events(all: &[(Uid, What)]) -> Vec<(bool, Reason)> {
    let note = |what: &What| if let What::Tell(note) = what { Some((note.warning, note.reason)) } else { None };
    all.iter().filter_map(|(_, what)| note(what)).collect()
}

fn waiting(all: &[(Uid, What)]) -> Option<Waiting> {
    let of = |what: &What| if let What::Status(owned) = what { owned.waiting.as_deref().cloned() } else { None };
    all.iter().find_map(|(_, what)| of(what))
}

fn stored(index: &mut Index, waiting: Option<Waiting>, time: &str) {
    let mut object = index.get(UID).unwrap().object;
    object.version = format!("{}", object.version.parse::<u64>().unwrap() + 1).into();
    let Subject::Backup(policy) = &mut object.subject else { unreachable!() };
    policy.owned.waiting = waiting.map(Box::new);
    index.answer(UID, Answer::Status(Some(Box::new(object))), now(time));
}

#[test]
fn an_object_whose_installation_is_gone_says_so_once_and_with_the_remedy() {
    let mut index = with(theirs(Subject::Backup(Box::new(daily()))));
    assert_eq!(acts(&mut index, "2026-03-02T12:00:00Z", &free()), [], "it may be starting");
    assert_eq!(acts(&mut index, "2026-03-02T12:00:10Z", &free()), []);
    let all = acts(&mut index, "2026-03-02T12:00:20Z", &free());
    assert_eq!(events(&all), [(true, Reason::ManagedByAnother)]);
    let told = waiting(&all).expect("a condition within 30 s");
    assert_eq!(told.why, Some(Reason::ManagedByAnother));
    assert!(told.message.contains("sts-backup doctor --take-over shop/nightly"), "{}", told.message);
    assert!(told.message.contains(OLD), "{}", told.message);
    stored(&mut index, Some(told), "2026-03-02T12:00:20Z");
    for minute in 1..59 {
        assert_eq!(acts(&mut index, &format!("2026-03-02T12:{minute:02}:30Z"), &free()), []);
    }
}

#[test]
fn one_whose_installation_lives_is_left_alone() {
    let mut index = with(theirs(Subject::Backup(Box::new(daily()))));
    let mut told = vec![];
    for second in 0..50 {
        told.extend(acts(&mut index, &format!("2026-03-02T12:00:{second:02}Z"), &held(second)));
    }
    for minute in 1..59 {
        told.extend(acts(&mut index, &format!("2026-03-02T12:{minute:02}:30Z"), &held(100 + minute)));
    }
    assert_eq!(events(&told), [(false, Reason::ManagedByAnother)], "one Event, and no write");
    assert_eq!(told.len(), 1, "{told:?}");
}

/// An older version has no Lease that would show it at work.
#[test]
fn what_somebody_takes_back_is_not_said_again() {
    let mut index = with(theirs(Subject::Backup(Box::new(daily()))));
    acts(&mut index, "2026-03-02T12:00:00Z", &free());
    let told = waiting(&acts(&mut index, "2026-03-02T12:00:20Z", &free()));
    assert!(told.is_some());
    stored(&mut index, told, "2026-03-02T12:00:20Z");
    acts(&mut index, "2026-03-02T12:00:21Z", &free());
    stored(&mut index, None, "2026-03-02T12:00:22Z");
    for minute in 1..59 {
        let all = acts(&mut index, &format!("2026-03-02T12:{minute:02}:30Z"), &free());
        assert_eq!(waiting(&all), None, "no fight");
    }
}

#[test]
fn nothing_is_written_in_a_freeze() {
    let run = Some(OpenRun { slot: "2026-03-02T12:00:00Z".into(), attempt: 1, stage: Stage::Frozen });
    let mut index = with(theirs(Subject::Backup(Box::new(Policy { run, ..daily() }))));
    acts(&mut index, "2026-03-02T12:00:00Z", &free());
    let all = acts(&mut index, "2026-03-02T12:00:20Z", &free());
    assert_eq!((events(&all).len(), waiting(&all)), (1, None));
}

#[test]
fn what_is_handed_over_is_taken_and_waits_no_longer() {
    let why = Some(Reason::ManagedByAnother);
    let waiting = Some(Box::new(Waiting { since: at("2026-03-02T12:00:20Z"), why, message: "gone".into() }));
    let policy = Policy { owned: Owned { waiting, ..Owned::default() }, ..daily() };
    let mut index = with(Object { manager: Manager::Nobody, ..object(Subject::Backup(Box::new(policy))) });
    let what = plan(&mut index, "2026-03-02T12:01:00Z");
    let [What::Status(Owned { waiting: Some(waiting), .. })] = &what[..] else { panic!("{what:?}") };
    assert_eq!(waiting.why, None, "it is said to be over");
}

/// The restore of an installation that is gone, in front of a backup of ours that is due.
fn behind(restore: Restore) -> Index {
    let mut index = with(theirs(Subject::Restore(Box::new(restore))));
    index.see(Uid(8 << 64), Object { name: "mine".into(), ..object(Subject::Backup(Box::new(daily()))) });
    index
}

#[test]
fn a_restore_that_has_not_begun_bars_nobody_when_its_installation_is_gone() {
    let mut index = behind(Restore::default());
    let launched = |all: &[(Uid, What)]| all.iter().any(|(_, what)| matches!(what, What::Launch { .. }));
    assert!(!launched(&acts(&mut index, "2026-03-02T12:00:00Z", &free())), "it may be about to begin");
    assert!(launched(&acts(&mut index, "2026-03-02T12:00:20Z", &free())));
}

#[test]
fn one_that_has_begun_bars_with_the_remedy() {
    let run = OpenRun { slot: "".into(), attempt: 1, stage: Stage::Other };
    let mut index = behind(Restore { phase: Some(RestorePhase::Restoring), run: Some(run), ..Restore::default() });
    acts(&mut index, "2026-03-02T12:00:00Z", &free());
    acts(&mut index, "2026-03-02T12:00:20Z", &free());
    let all = acts(&mut index, "2026-03-02T12:00:30Z", &free());
    let ours: Vec<_> = all.into_iter().filter(|(uid, _)| *uid != UID).collect();
    let told = waiting(&ours).expect("told");
    assert_eq!(told.why, Some(Reason::ManagedByAnother));
    assert!(told.message.contains("sts-backup doctor --take-over shop/nightly"), "{}", told.message);
}
