//! A restore that is Held because the API server said no gets further Jobs, ever more slowly.

use super::*;

fn held(try_again: bool) -> Object {
    let run = OpenRun { slot: "".into(), attempt: 1, stage: Stage::Other };
    let phase = Some(RestorePhase::Failed);
    Object { held: true, ..restore(Restore { phase, run: Some(run), try_again, ..Restore::default() }) }
}

/// Seconds from the beginning to each Job; each of them ends at once, refused.
fn launches(object: Object) -> Vec<i64> {
    let (mut index, begin, mut all) = (with(object), at("2026-03-03T12:00:00Z"), vec![]);
    for second in 0..4 * 3600 {
        let time = begin + jiff::SignedDuration::from_secs(second);
        let now = now(&time.to_string());
        for Act { uid, what } in index.plan(now) {
            match what {
                What::Launch { run, .. } => {
                    all.push(second);
                    let (n, ended) = (Uid(u128::from(run.attempt)), Some(time));
                    let state = State::Failed { refused: true };
                    let job = Job::new(n, run.kind, run.slot.into(), run.attempt, run.trigger, state, ended);
                    index.answer(uid, Answer::Launched(Some(job)), now);
                }
                What::Look => index.answer(uid, Answer::Lease(Lease::default()), now),
                What::Tell(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    all
}

#[test]
fn what_is_held_because_it_was_denied_is_tried_again_after_1_to_30_minutes() {
    let all = launches(held(true));
    let pauses: Vec<i64> =
        std::iter::once(all[0]).chain(all.windows(2).map(|two| (two[1] - two[0]) / 60 * 60)).collect();
    assert_eq!(pauses[..7], [60, 120, 240, 480, 960, 1800, 1800], "{all:?}");
}

#[test]
fn what_is_held_for_people_is_left_to_them() {
    assert_eq!(launches(held(false)), [0_i64; 0]);
    let going = Object { leaving: Some(at("2026-03-03T11:00:00Z")), ..held(false) };
    assert!(!launches(going).is_empty(), "its object goes");
}

/// A release that was refused rests for a day; but when another object of its namespace goes, and perhaps all of it, it is
/// looked at at once.
#[test]
fn what_is_held_in_a_namespace_is_roused_when_something_of_it_goes() {
    let going = |name: &str, leaving: Option<&str>| {
        let over = Restore { phase: Some(RestorePhase::Completed), ..Restore::default() };
        Object { name: name.into(), held: true, leaving: leaving.map(at), ..restore(over) }
    };
    let (begin, second) = (at("2026-03-03T12:00:00Z"), jiff::SignedDuration::from_secs);
    let mut index = with(going("first", Some("2026-03-03T11:59:00Z")));
    let (other, mut made) = (Uid(9 << 64), vec![]);
    index.see(other, going("other", None));
    for n in 0..7200 {
        let time = begin + second(n);
        let now = now(&time.to_string());
        if n == 3600 {
            index.see(other, Object { version: "2".into(), ..going("other", Some("2026-03-03T13:00:00Z")) });
        }
        for Act { uid, what } in index.plan(now) {
            match what {
                What::Launch { run, .. } => {
                    made.push((uid, n));
                    let state = State::Failed { refused: true };
                    let job = Uid(u128::from(run.attempt) + uid.0);
                    let job = Job::new(job, run.kind, run.slot.into(), run.attempt, run.trigger, state, Some(time));
                    index.answer(uid, Answer::Launched(Some(job)), now);
                }
                What::Look => index.answer(uid, Answer::Lease(Lease::default()), now),
                What::Tell(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let of = |uid| made.iter().filter(|(of, _)| *of == uid).map(|(_, n)| *n).collect::<Vec<_>>();
    // The Lease is looked at once more before.
    assert_eq!(of(UID), [0, 3601], "not every second, and not only after a day");
    assert_eq!(of(other), [3600]);
}
