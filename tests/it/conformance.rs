//! The double answers the scripts as a real API server does: what it says is committed, and the tests on the cluster
//! compare a real server's answers with the same file.

use std::collections::BTreeSet;

use serde_json::json;
use sts_backup::generate::rbac;

use crate::apiserver::kind::Key;
use crate::script::{Both, speak};
use crate::watcher;
use crate::wire::{Case, judge, runtime, world};

#[test]
fn the_double_speaks_as_the_api_server_does() {
    runtime().block_on(async {
        let (server, _) = world(&Case::of(false));
        server.act(|state| {
            state.store.create(&Key::new("namespaces", "", "talk"), json!({ "metadata": {} }), false).unwrap()
        });
        let (admin, runner) = (server.client(None).0, server.client(Some(rbac::runner_verbs())).0);
        let (count, said) = speak(&Both { admin, runner, namespace: "talk".into() }).await;
        println!("{count} scripts");
        assert!(count >= 60, "{count} scripts are too few");
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("conformance", said));
    });
}

/// Verb, patch and resource of each request in a log.
fn kinds<'a>(lines: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let kind = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let patch = words.get(1).filter(|word| word.starts_with('(')).copied().unwrap_or_default();
        let resource = words.iter().skip(1).find(|word| !word.starts_with('(')).copied().unwrap_or_default();
        format!("{} {patch} {resource}", words[0])
    };
    lines.filter(|line| !line.starts_with("--")).map(kind).collect()
}

#[test]
fn every_kind_of_request_that_a_run_or_a_watcher_makes_is_in_a_script() {
    let asked = kinds(judge(&Case::of(true)).log.iter().chain(&watcher::requests()));
    let spoken = runtime().block_on(async {
        let (server, _) = world(&Case::of(false));
        server.act(|state| {
            state.store.create(&Key::new("namespaces", "", "talk"), json!({ "metadata": {} }), false).unwrap()
        });
        let admin = server.client(None).0;
        speak(&Both { admin: admin.clone(), runner: admin, namespace: "talk".into() }).await;
        kinds(server.look().log.iter())
    });
    // A kind of request: the verb and, of a patch, its type and part. Which resource it is for makes no difference to
    // the double but where the table of kinds says so.
    let form = |kind: &String| {
        let (verb, rest) = kind.split_once(' ').unwrap();
        let part = rest.split_once('/').map_or("", |(_, part)| part);
        format!("{verb} {} {part}", rest.split_once(' ').map_or("", |(patch, _)| patch))
    };
    let (asked, spoken): (BTreeSet<_>, BTreeSet<_>) =
        (asked.iter().map(form).collect(), spoken.iter().map(form).collect());
    let silent: Vec<_> = asked.iter().filter(|kind| !spoken.contains(*kind) && !kind.starts_with("exec")).collect();
    assert!(silent.is_empty(), "no script asks {silent:?}");
    assert!(asked.len() >= 6, "{asked:?}");
}
