//! An API server that is away, or denies everything, for a while: on the wire. Nobody else was there meanwhile, so nothing
//! is superseded, and what may be tried again says so.

use std::time::Duration;

use sts_backup::api::condition::Reason;
use sts_backup::api::shared::Trigger;
use sts_backup::generate::rbac;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::Outcome;
use sts_backup::run::Request;

use super::apiserver::answer::No;
use super::apiserver::fault;
use super::wire::{Case, Verdict, carry_out, judge, runtime, world};
use super::{draw, shop, truth};

/// Longer than the lock lasts, and shorter than it is waited for.
const AWAY: Duration = Duration::from_secs(45);

/// Of the writes of a short sweep one in so many is struck.
const STRIDE: usize = 3;

fn struck(case: &Case) -> impl Iterator<Item = usize> {
    (0..judge(case).writes).filter(|k| k.is_multiple_of(STRIDE) || draw::is_whole())
}

/// How the processes ended before the one that ended the run.
fn before_the_end(seen: &Verdict) -> &[Option<Exit>] {
    seen.exits.split_last().map_or(&[], |(_, before)| before)
}

#[test]
fn who_was_cut_off_is_not_superseded_and_leaves_the_lock_to_the_next() {
    let mut again = 0;
    for hooks in [true, false] {
        let case = Case::of(hooks);
        for k in struck(&case) {
            let seen = judge(&case.spell(k, &fault::unavailable(), AWAY));
            assert!(seen.bad.is_empty(), "hooks {hooks}, write {k}: {:?}\n{}", seen.bad, seen.log.join("\n"));
            for exit in before_the_end(&seen) {
                let code = exit.as_ref().map(Exit::code);
                assert_eq!(code, Some(20), "hooks {hooks}, write {k}: {exit:?}\n{}", seen.log.join("\n"));
                again += 1;
            }
        }
    }
    assert!(again > 3, "only {again} processes were cut off");
}

/// What an API server says that comes up, or whose roles are being mended.
fn denials() -> [(&'static str, No); 3] {
    [("401", fault::unknown_user()), ("403", fault::forbidden()), ("404", fault::no_path())]
}

#[test]
fn what_is_denied_for_seconds_fails_no_run() {
    for hooks in [true, false] {
        let case = Case::of(hooks);
        for k in struck(&case) {
            for (what, no) in denials() {
                let seen = judge(&case.spell(k, &no, Duration::from_secs(5)));
                let line = format!("hooks {hooks}, write {k}, {what}");
                assert!(seen.bad.is_empty(), "{line}: {:?}\n{}", seen.bad, seen.log.join("\n"));
                let done = matches!(seen.exits.last(), Some(Some(Exit::Done(Outcome::Succeeded))));
                assert!(done, "{line}: {:?}\n{}", seen.exits, seen.log.join("\n"));
            }
        }
    }
}

/// A role that lacks a right which only a freeze uses: one freeze, then a minute in which nothing is frozen.
#[test]
fn a_right_that_is_missing_costs_one_freeze() {
    runtime().block_on(async {
        let (server, clock) = world(&Case::of(true));
        let is_create = |(_, resource, verb): &(&str, &str, &str)| *resource == "volumesnapshots" && *verb == "create";
        let rights = rbac::runner_verbs().into_iter().filter(|right| !is_create(right)).collect();
        let request = Request {
            namespace: shop::NAMESPACE.into(),
            name: shop::POLICY.into(),
            slot: Some("one".into()),
            trigger: Trigger::Command,
            attempt: None,
        };
        let begun = tokio::time::Instant::now();
        let exit = Box::pin(carry_out(&server, clock, &request, server.client(Some(rights)))).await;
        let state = server.look();
        let status = truth::record(&state.store, shop::POLICY).unwrap().status;
        let message = status.message.unwrap_or_default();
        assert_eq!(exit.map(|exit| exit.code()), Some(10), "{message}");
        assert_eq!(status.last_run.unwrap().reason, Some(Reason::Forbidden), "{message}");
        assert!((60..90).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        let freezes = state.log.iter().filter(|line| line.contains("\"freeze\"")).count();
        assert_eq!((freezes, truth::frozen(&state)), (shop::REPLICAS as usize, 0), "{}", state.log.join("\n"));
        assert_eq!(state.violations, Vec::<String>::new());
    });
}
