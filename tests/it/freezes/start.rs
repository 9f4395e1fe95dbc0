//! What is certain about a hook that was not started: nothing is thawed for it, and it is asked for again.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use sts_backup::api::condition::Reason;

use super::{in_seconds, run};
use crate::act::Act;
use crate::apiserver::answer::No;
use crate::apiserver::fault::{self, Class, Strike};
use crate::shop::POLICY;
use crate::truth;
use crate::wire::{Case, judge, process, runtime, world};

/// An answer before the upgrade that says for certain that no kubelet was asked.
fn certain() -> Vec<Option<No>> {
    let dialing = "error dialing backend: dial tcp 10.0.0.7:10250: connect: connection refused";
    vec![
        None,
        Some(fault::unavailable()),
        Some(fault::busy()),
        Some(fault::unknown_user()),
        Some(No::new(403, "Forbidden", "pods \"web-0\" is forbidden: RBAC: clusterrole \"runner\" not found")),
        Some(No::new(500, "", dialing)),
        Some(No::new(500, "InternalError", dialing)),
        Some(No::new(500, "InternalError", "Internal error occurred: failed calling webhook \"x\": no endpoints")),
        Some(No::new(500, "InternalError", "etcdserver: leader changed")),
    ]
}

#[test]
fn an_exec_that_the_api_server_refused_is_tried_again_and_nothing_is_thawed_for_it() {
    for no in certain() {
        let seen = run(|state| state.faults.exec = Some((in_seconds(state, 4), no.clone())));
        let all = &seen.state;
        assert!(seen.good, "{no:?}: {}", seen.message);
        assert_eq!((all.ids().len(), all.execs("freeze") >= 2, all.thaws), (1, true, 2), "{no:?}");
        assert_eq!((all.frozen, &all.violations), (0, &vec![]), "{no:?}");
        assert!(all.took < SignedDuration::from_secs(90), "{no:?}: {}", all.took);
    }
}

/// The same, of a kubelet whom the API server could not reach after the upgrade, which is its own.
#[test]
fn a_kubelet_that_cannot_be_reached_has_started_nothing() {
    let why = "error sending request: Post \"https://10.0.0.7:10250/exec/shop/web-0/app?command=freeze\": dial tcp \
               10.0.0.7:10250: connect: connection refused";
    let seen = run(|state| {
        let act = Act::unstarted(why, Some(in_seconds(state, 4)));
        state.nature.scripts.insert(("web-1".into(), "freeze".into()), act);
    });
    assert!(seen.good, "{}", seen.message);
    assert_eq!((seen.state.thaws, seen.state.frozen, seen.state.ids().len()), (2, 0, 1));
}

#[test]
fn an_exec_that_is_refused_for_as_long_as_the_hook_may_take_fails_the_run() {
    for no in certain() {
        let seen = run(|state| state.faults.exec = Some((in_seconds(state, 3600), no.clone())));
        assert_eq!(seen.reason, Some(Reason::HookFailed), "{no:?}: {}", seen.message);
        assert!(seen.message.contains("could not be started within its timeoutSeconds (5 s)"), "{}", seen.message);
        assert_eq!((seen.state.execs("thaw"), seen.state.frozen), (0, 0), "{no:?}");
        assert!(seen.state.took < SignedDuration::from_secs(60), "{no:?}: {}", seen.state.took);
    }
}

/// Nobody knows how far these came: the hook may be at work.
#[test]
fn an_exec_whose_refusal_proves_nothing_is_thawed() {
    let text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    for no in [
        fault::broken(),
        fault::late(),
        No::new(502, "", "Bad Gateway"),
        No::new(503, "", text),
        No::new(504, "", "Gateway Timeout"),
        No::new(500, "InternalError", "Internal error occurred: error executing command in container: EOF"),
    ] {
        let seen = run(|state| state.faults.exec = Some((in_seconds(state, 1), Some(no.clone()))));
        assert!(!seen.good && seen.state.execs("thaw") > 5, "{no:?}: {} {:?}", seen.message, seen.state.log);
        assert_eq!((seen.reason, seen.state.frozen), (Some(Reason::ThawUnproven), 0), "{no:?}: {}", seen.message);
    }
}

/// The look at the pod before a hook is a read: one that is never answered has started nothing.
#[test]
fn a_look_before_a_hook_that_gets_no_answer_is_asked_again() {
    let reads = judge(&Case::of(true)).reads;
    let mut told = 0;
    for (k, strike) in (0..reads).flat_map(|k| [(k, Strike::Hang), (k, Strike::Mute)]) {
        let seen = run(|state| drop(state.faults.strikes.insert((Class::Read, k), strike.clone())));
        told += usize::from(seen.state.log.iter().any(|line| line.starts_with("-- Read")));
        assert!(seen.good, "read {k} {strike:?}: {}", seen.message);
        assert_eq!(seen.state.frozen, 0, "read {k}");
    }
    assert!(told > 10, "{told}");
}

const NO_COMMAND: &str = "Internal error occurred: error executing command in container: failed to exec in container: \
                          failed to start exec \"8c1b5b24d9a4a1f0b7f6c2a39b6d3f7f21fb07e0a7f5f4f0b9d3e8a6c5d4b3a2\": OCI \
                          runtime exec failed: exec failed: unable to start container process: exec: \"no\": executable \
                          file not found in $PATH: unknown";

#[test]
fn a_hook_that_is_not_started_says_why_first_and_once() {
    let seen = run(|state| {
        state.nature.scripts.insert(("web-0".into(), "freeze".into()), Act::unstarted(NO_COMMAND, None));
    });
    assert_eq!(seen.reason, Some(Reason::HookFailed));
    let end = "could not be started: exec: \"no\": executable file not found in $PATH";
    assert!(seen.message.ends_with(end), "{}", seen.message);
    assert_eq!(seen.state.thaws, 0);
}

#[test]
fn a_post_hook_that_was_not_started_is_tried_again() {
    for why in [NO_COMMAND, "error dialing backend: EOF", "unable to upgrade connection: container not found (\"app\")"]
    {
        let seen = run(|state| {
            let act = Act::unstarted(why, Some(in_seconds(state, 8)));
            state.nature.scripts.insert(("web-1".into(), "thaw".into()), act);
        });
        assert_eq!((seen.good, seen.state.frozen), (true, 0), "{why}: {}", seen.message);
        assert_eq!(seen.state.ids().len(), 1, "the cut is as good as before");
    }
}

#[test]
fn a_post_hook_that_is_never_started_fails_the_run_after_five_minutes() {
    let seen = run(|state| {
        state.nature.scripts.insert(("web-1".into(), "thaw".into()), Act::unstarted(NO_COMMAND, None));
    });
    assert_eq!((seen.reason, seen.state.frozen), (Some(Reason::ThawFailed), 1), "{}", seen.message);
    assert!(seen.message.contains("pod web-1 could not be started: exec: \"no\""), "{}", seen.message);
    let (thaws, took) = (seen.state.execs("thaw"), seen.state.took);
    assert!((25..60).contains(&thaws), "{thaws}");
    assert!(SignedDuration::from_secs(300) <= took && took < SignedDuration::from_secs(340), "{took}");
}

#[test]
fn a_post_hook_that_does_not_exist_is_told_at_once_and_once() {
    let (server, early) = runtime().block_on(async {
        let (server, clock) = world(&Case::of(true));
        server.act(|state| {
            for pod in ["web-0", "web-1"] {
                state.nature.scripts.insert((pod.into(), "thaw".into()), Act::unstarted(NO_COMMAND, None));
            }
        });
        let early = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            truth::record(&server.look().store, POLICY).unwrap().status.message.unwrap_or_default()
        };
        let (_, early) = tokio::join!(Box::pin(process(&server, clock, POLICY, "one")), early);
        (server.clone(), early)
    });
    let state = server.look();
    for word in ["post hook", "pod web-0", "could not be started: exec: \"no\"", "may be frozen", "for 5 minutes"] {
        assert!(early.contains(word), "{word}: {early}");
    }
    let messages = state.store.log.iter().map(|change| change.object["status"]["message"].to_string());
    let told: BTreeSet<_> = messages.filter(|message| message.contains("for 5 minutes")).collect();
    assert_eq!((told.len(), truth::frozen(&state)), (1, 2), "{told:?}");
}
