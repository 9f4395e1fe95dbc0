//! What fits into no request is refused at once, and what a hook has said forges nothing: on the wire.

use serde_json::{Value, json};
use sts_backup::api::condition::Reason;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::Outcome;

use super::apiserver::State;
use super::apiserver::answer::No;
use super::apiserver::fault::{Class, Strike};
use super::nature::Act;
use super::wire::{Case, process, runtime, world};
use super::{shop, truth};

/// One run of the object as `change` leaves it: how it ended, and the world after it.
fn run<T>(case: &Case, change: impl FnOnce(&mut State), look: impl FnOnce(&mut State, Option<Exit>) -> T) -> T {
    runtime().block_on(async {
        let (server, clock) = world(case);
        server.act(change);
        let exit = Box::pin(process(&server, clock, shop::POLICY, "one")).await;
        server.act(|state| look(state, exit))
    })
}

fn spec(state: &mut State, change: impl FnOnce(&mut Value)) {
    state.store.change(&shop::object(shop::POLICY), false, |object| change(&mut object["spec"]));
}

/// Reason, message, and how often a command of ours was started.
fn told(state: &State) -> (Option<Reason>, String, usize) {
    let status = truth::record(&state.store, shop::POLICY).unwrap().status;
    let execs = state.log.iter().filter(|line| line.starts_with("exec")).count();
    (status.last_run.unwrap().reason, status.message.unwrap_or_default(), execs)
}

#[test]
fn a_command_that_fits_into_no_request_is_refused_before_the_lock() {
    for (hook, command) in [
        ("preBackupHook", "x".repeat(600_000)),
        ("postBackupHook", "x".repeat(600_000)),
        ("postBackupHook", "\n".repeat(30_000)), // 90 kB in a URL
    ] {
        let bad = json!({ "command": ["freeze", command] });
        run(
            &Case::of(true),
            |state| spec(state, |spec| spec[hook] = bad),
            |state, exit| {
                let (reason, message, execs) = told(state);
                assert_eq!((reason, execs), (Some(Reason::InvalidSpec), 0), "{message}");
                assert!(message.contains(hook) && message.len() < 500, "{message}");
                assert!(state.store.get(&shop::lease()).is_none(), "{:?}", state.log);
                assert_eq!(exit.map(|exit| exit.code()), Some(10));
            },
        );
    }
}

#[test]
fn a_hook_that_is_refused_for_its_size_was_not_started() {
    for code in [413, 414, 431] {
        let strike = Strike::Say(No::new(code, "", "too large"));
        let hit = |k: &usize| {
            let struck = |line: &String| line.starts_with("exec") && line.contains("struck");
            let case = Case::of(true).strike(Class::Write, *k, &strike);
            run(&case, |_| {}, |state, _| state.log.iter().any(struck))
        };
        let first = (0..20).find(hit).unwrap();
        run(
            &Case::of(true).strike(Class::Write, first, &strike),
            |_| {},
            |state, _| {
                let (reason, message, execs) = told(state);
                assert_eq!((reason, execs), (Some(Reason::HookFailed), 1), "{code}: {message}");
                assert!(message.contains("could not be started") && message.contains("too large"), "{message}");
                assert_eq!(truth::frozen(state), 0);
            },
        );
    }
}

#[test]
fn a_status_that_the_server_does_not_take_ends_the_process_and_frees_the_lock() {
    let intent = 1; // after the lock and before anything else, of a run without hooks
    let strike = Strike::Say(No::new(500, "InternalError", "etcdserver: request is too large"));
    run(
        &Case::of(false).strike(Class::Write, intent, &strike),
        |_| {},
        |state, exit| {
            let struck = |line: &&String| line.contains("statefulsetbackups/status");
            assert_eq!(state.log.iter().filter(struck).count(), 1, "{:?}", state.log);
            assert!(matches!(exit, Some(Exit::Refused(_))), "{exit:?}");
            assert!(truth::lease(&state.store).unwrap().holder.is_none(), "the lock is given back");
        },
    );
}

#[test]
fn a_run_whose_status_would_not_fit_is_refused_before_anything_is_frozen() {
    let many = |state: &mut State| {
        let set = |object: &mut Value| object["spec"]["replicas"] = json!(2);
        let names: Vec<String> = (0..1100).map(|n| format!("t{n:04}-{}", "x".repeat(50))).collect();
        let templates: Vec<Value> = names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
        let key = super::apiserver::kind::Key::new("statefulsets", shop::NAMESPACE, shop::SET);
        state.store.change(&key, false, |object| {
            set(object);
            object["spec"]["volumeClaimTemplates"] = json!(templates);
        });
        for name in names.iter().flat_map(|name| (0..2).map(move |n| format!("{name}-{}-{n}", shop::SET))) {
            shop::claim(&mut state.store, &name);
        }
        state.faults.crowd = 100_000;
    };
    run(&Case::of(true), many, |state, _| {
        let (reason, message, execs) = told(state);
        assert_eq!((reason, execs), (Some(Reason::InvalidSpec), 0), "{message}");
        assert!(message.contains("2200 volumes would take 1"), "{message}");
        assert!(truth::lease(&state.store).unwrap().holder.is_none());
    });
}

/// What a hook writes, and where it comes to stand.
fn said_by_a_hook(outputs: Option<bool>, stderr: &str) -> (String, Vec<String>) {
    let prepare = |state: &mut State| {
        let key = ("web-1".to_owned(), "freeze".to_owned());
        state.nature.scripts.insert(key, Act::failing(3, stderr));
        if let Some(on) = outputs {
            spec(state, |spec| spec["hooks"] = json!({ "outputInStatus": on }));
        }
    };
    run(&Case::of(true), prepare, |state, exit| {
        let Some(Exit::Done(Outcome::Failed(why))) = exit else { panic!("{exit:?}") };
        assert_eq!(why.reason, Reason::HookFailed);
        let object = state.store.get(&shop::object(shop::POLICY)).unwrap();
        let events = state.store.all("events").map(|(_, event)| event["note"].as_str().unwrap().to_owned());
        (object["status"].to_string() + &why.message, events.collect())
    })
}

#[test]
fn the_output_of_a_hook_is_cut_escaped_and_left_out_on_request() {
    let forged = "boom\n{\"time\":\"2026-01-01T00:00:00.000Z\",\"outcome\":\"ok\"}\n\u{1b}[2J\u{202e}";
    let (status, events) = said_by_a_hook(None, forged);
    assert!(status.contains("boom") && events.iter().any(|note| note.contains("boom")), "{status} {events:?}");
    let is_bad = sts_backup::plan::text::is_control;
    assert!(!status.contains(is_bad) && !events.iter().any(|note| note.contains(is_bad)), "{status} {events:?}");
    // A status in JSON shows a line's end as two characters: the message itself has none.
    assert!(!status.contains("boom\\n{\\\"time"), "{status}");

    let (status, events) = said_by_a_hook(Some(true), &"漢".repeat(5000));
    assert!(status.matches('漢').count() > 100 && status.matches('漢').count() < 171 * 6, "{status}");
    assert!(events.iter().all(|note| note.len() <= 1024), "{events:?}");
    assert!(events.iter().any(|note| note.matches('漢').count() > 100), "{events:?}");

    let (status, events) = said_by_a_hook(Some(false), "the password is hunter2");
    assert!(!status.contains("hunter2") && status.contains("outputInStatus"), "{status}");
    assert!(!events.is_empty() && !events.iter().any(|note| note.contains("hunter2")), "{events:?}");
}
