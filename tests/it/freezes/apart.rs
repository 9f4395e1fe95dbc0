//! Hooks in two containers: what the one has frozen is frozen still when the other one is restarted.

use jiff::SignedDuration;
use serde_json::{Value, json};
use sts_backup::api::condition::Reason;

use super::{ONLY, run, seen};
use crate::apiserver::State;
use crate::apiserver::kind::Key;
use crate::shop::{self, POLICY};
use crate::truth;
use crate::wire::{Case, process, runtime, to_the_end, world};

fn tool(id: &str, restarts: u32, runs: bool) -> Value {
    let state = if runs { json!({ "running": {} }) } else { json!({ "waiting": { "reason": "CrashLoopBackOff" } }) };
    json!({ "name": "tool", "containerID": id, "restartCount": restarts, "state": state })
}

/// Each pod has a second container, in which the post hook runs.
fn with_tools(state: &mut State) {
    for ordinal in 0..shop::REPLICAS {
        let name = format!("{}-{ordinal}", shop::SET);
        let both = json!([{ "name": "app" }, { "name": "tool" }]);
        state.store.change(&Key::new("pods", shop::NAMESPACE, &name), false, |pod| pod["spec"]["containers"] = both);
        change_tool(state, &name, &tool(&format!("sim://tool-{ordinal}"), 0, true));
    }
    state.store.change(&shop::object(POLICY), false, |object| {
        object["spec"]["postBackupHook"]["containerName"] = "tool".into();
    });
}

fn change_tool(state: &mut State, pod: &str, tool: &Value) {
    let key = Key::new("pods", shop::NAMESPACE, pod);
    state.store.change(&key, true, |object| {
        let all = object["status"]["containerStatuses"].as_array_mut().unwrap();
        all.truncate(1);
        all.push(tool.clone());
    });
}

fn restart_tool(state: &mut State) {
    state.nature.strike = None;
    change_tool(state, "web-0", &tool("sim://tool-again", 1, true));
}

/// What the pre hook has frozen in one container is frozen still when the other one was restarted.
#[test]
fn the_post_hook_s_own_container_may_restart_and_the_frozen_one_is_thawed() {
    let seen = run(|state| {
        with_tools(state);
        state.nature.strike = Some(restart_tool);
    });
    assert_eq!((seen.good, seen.state.frozen), (true, 0), "{}", seen.message);
    assert_eq!((seen.state.ids().len(), seen.state.thaws), (2, 4));
}

#[test]
fn a_post_hook_s_container_that_is_down_for_a_while_is_waited_for() {
    let seen = run(|state| {
        with_tools(state);
        state.nature.strike = Some(|state| {
            state.nature.strike = None;
            change_tool(state, "web-0", &tool("sim://tool-again", 1, false));
            state.nature.later(state.store.clock.now() + SignedDuration::from_secs(15), |state| {
                change_tool(state, "web-0", &tool("sim://tool-later", 2, true));
            });
        });
    });
    assert_eq!((seen.good, seen.state.frozen), (true, 0), "{}", seen.message);
    assert_eq!((seen.state.thaws, seen.state.violations), (4, vec![]));
}

#[test]
fn a_post_hook_s_container_that_never_comes_back_is_told_of() {
    let seen = run(|state| {
        with_tools(state);
        state.nature.strike = Some(|state| change_tool(state, "web-0", &tool("sim://tool-again", 1, false)));
    });
    assert_eq!((seen.reason, seen.state.frozen), (Some(Reason::ThawUnproven), 1), "{}", seen.message);
    let said = "container tool of pod web-0";
    assert!(seen.message.contains(said) && seen.message.contains("container app"), "{}", seen.message);
}

/// The same of a process that died, and its successor.
#[test]
fn a_successor_thaws_the_frozen_container_through_the_other_one_as_it_is_now() {
    let seen = runtime().block_on(async {
        let (server, clock) = world(&Case::of(true));
        server.act(with_tools);
        server.act(|state| state.faults.deadly = 1);
        let begun = clock.now();
        assert_eq!(Box::pin(process(&server, clock, POLICY, "one")).await, None);
        server.act(restart_tool);
        assert_eq!(truth::frozen(&server.look()), 2);
        Box::pin(to_the_end(&server, clock, ONLY)).await;
        seen(&server, clock, begun)
    });
    assert_eq!((seen.good, seen.state.frozen), (true, 0), "{}", seen.message);
    assert_eq!((seen.state.ids().len(), seen.state.thaws), (2, 4));
}
