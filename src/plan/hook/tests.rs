//! What is owed to a pod after each history of its hooks.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn run() -> RunId {
    RunId::after(None, at(0))
}

fn ok() -> End {
    End::Exit(0, String::new())
}

/// What is owed after these hooks, each a second long: which, begun, how it ended.
fn owed(hooks: &[(Which, i64, End)], own: bool, hurry: bool, now: i64) -> Owed {
    let pre = HookSpec { argv: vec!["freeze".into()], container: None, timeout: SignedDuration::from_secs(60) };
    let mut history = History::default();
    for (which, begun, end) in hooks {
        let when = When { begun: at(*begun), ended: at(begun + 1) };
        history.add(run(), 0, *which, Tried { when, end: end.clone() });
    }
    history.owed(run(), 0, Debt { pre: Some(&pre), own, hurry, time: pre.timeout, elsewhere: false }, at(now))
}

#[test]
fn what_was_not_started_is_owed_nothing_and_all_else_is_thawed() {
    use Which::{Post, Pre};
    let not = End::NotStarted("no such command".into());
    assert_eq!(owed(&[], true, false, 0), Owed::Nothing, "ours, and not begun");
    assert_eq!(owed(&[], false, false, 0), Owed::Now, "another's: who knows");
    assert_eq!(owed(&[(Pre, 0, not)], true, false, 1), Owed::Nothing);
    assert_eq!(owed(&[(Pre, 0, End::Gone)], true, false, 1), Owed::Nothing);
    let failed = End::Exit(1, String::new());
    for end in [ok(), failed.clone(), End::Lost(Lost::Reply), End::Lost(Lost::Stopped), End::Late(String::new())] {
        assert_eq!(owed(&[(Pre, 0, end.clone())], true, false, 1), Owed::Now, "{end:?}");
    }
    assert_eq!(owed(&[(Pre, 0, ok()), (Post, 1, ok())], true, false, 2), Owed::Nothing);
    assert_eq!(owed(&[(Pre, 0, ok()), (Post, 1, failed)], true, false, 2), Owed::Nothing, "it has had its say");
    assert_eq!(owed(&[(Pre, 0, ok()), (Post, 1, End::Gone)], true, false, 2), Owed::Nothing);
}

#[test]
fn until_the_pre_hook_is_known_to_have_ended_the_pod_is_thawed_again() {
    use Which::{Post, Pre};
    let late = || (Pre, 0, End::Late(String::new()));
    assert_eq!(owed(&[late(), (Post, 1, ok())], true, false, 2), Owed::At(at(12)));
    assert_eq!(owed(&[late(), (Post, 1, ok())], true, false, 12), Owed::Now);
    assert_eq!(owed(&[late(), (Post, 1, ok())], true, true, 2), Owed::Nothing, "in a hurry once must do");
    let heard = (Pre, 4, ok());
    assert_eq!(owed(&[late(), (Post, 1, ok()), heard.clone()], true, false, 5), Owed::Now, "it froze after the thaw");
    assert_eq!(owed(&[late(), (Post, 1, ok()), heard, (Post, 5, ok())], true, false, 6), Owed::Nothing);
    let posts = (0..31).map(|n| (Post, 1 + 10 * n, ok()));
    let all: Vec<_> = std::iter::once(late()).chain(posts).collect();
    assert_eq!(owed(&all[..31], true, false, 310), Owed::Now, "five minutes are not over");
    assert_eq!(owed(&all, true, false, 310), Owed::Unproven);
}

#[test]
fn a_thaw_without_an_answer_is_tried_again_soon_but_not_by_a_process_that_must_go() {
    use Which::{Post, Pre};
    let hooks = |end: End| [(Pre, 0, ok()), (Post, 1, end)];
    assert_eq!(owed(&hooks(End::Lost(Lost::Reply)), true, false, 2), Owed::At(at(3)));
    assert_eq!(owed(&hooks(End::Lost(Lost::Reply)), true, true, 3), Owed::Now);
    assert_eq!(owed(&hooks(End::Late(String::new())), true, false, 3), Owed::Now);
    assert_eq!(owed(&hooks(End::Late(String::new())), true, true, 3), Owed::Nothing, "it has had all its time");
    let not = || End::NotStarted("no".into());
    assert_eq!(owed(&hooks(not()), true, false, 2), Owed::At(at(3)), "nor was it started");
    assert_eq!(owed(&[(Pre, 0, ok()), (Post, 1, not()), (Post, 3, ok())], true, false, 5), Owed::Nothing);
    let never: Vec<_> = std::iter::once((Pre, 0, ok())).chain((0..31).map(|n| (Post, 1 + 10 * n, not()))).collect();
    assert_eq!(owed(&never[..31], true, false, 301), Owed::At(at(302)), "it pauses for ten seconds at most");
    assert_eq!(owed(&never, true, false, 400), Owed::Unproven);
    assert_eq!(owed(&never[..4], true, true, 40), Owed::Now);
    assert_eq!(owed(&never[..8], true, true, 80), Owed::Nothing, "the next process goes on");
}

#[test]
fn a_refused_pre_hook_was_not_begun_and_is_asked_for_again() {
    let mut history = History::default();
    let mut tried = |begun, end| {
        let when = When { begun: at(begun), ended: at(begun) };
        history.add(run(), 0, Which::Pre, Tried { when, end });
        (history.of(run(), 0, Which::Pre).len(), history.refused(run(), 0).map(Refused::due))
    };
    let no = || End::Refused("no".into());
    assert_eq!(tried(0, no()), (0, Some(at(1))));
    assert_eq!(tried(1, no()), (0, Some(at(2))));
    assert_eq!(tried(20, no()), (0, Some(at(25))), "a quarter of the time that it has lasted");
    assert_eq!(tried(100, no()), (0, Some(at(110))));
    assert_eq!(tried(110, ok()), (1, None));
}

#[test]
fn a_thaw_that_found_its_own_container_gone_is_owed_while_another_one_is_frozen() {
    use Which::{Post, Pre};
    let pre = HookSpec { argv: vec!["freeze".into()], container: None, timeout: SignedDuration::from_secs(60) };
    let mut history = History::default();
    for (which, begun, end) in [(Pre, 0, ok()), (Post, 1, End::Gone)] {
        history.add(run(), 0, which, Tried { when: When { begun: at(begun), ended: at(begun + 1) }, end });
    }
    let owed = |elsewhere, hurry, now| {
        history.owed(run(), 0, Debt { pre: Some(&pre), own: true, hurry, time: pre.timeout, elsewhere }, at(now))
    };
    assert_eq!(owed(false, false, 2), Owed::Nothing);
    assert_eq!(owed(true, false, 2), Owed::At(at(3)));
    assert_eq!(owed(true, true, 3), Owed::Now);
}

#[test]
fn another_process_s_pre_hook_is_given_its_own_time() {
    use Which::Post;
    assert_eq!(owed(&[(Post, 0, ok())], false, false, 1), Owed::At(at(11)));
    assert_eq!(owed(&[(Post, 0, ok()), (Post, 50, ok())], false, false, 51), Owed::At(at(60)));
    assert_eq!(owed(&[(Post, 0, ok()), (Post, 60, ok())], false, false, 61), Owed::Nothing);
}
