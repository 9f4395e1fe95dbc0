//! A run of many volumes: what it asks for at once has a bound, and its cuts are told all the same.

use serde_json::{Value, json};
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::Outcome;

use super::apiserver::kind::Key;
use super::wire::{Case, process, runtime, world};
use super::{shop, truth};

const TEMPLATES: usize = 40;

#[test]
fn a_run_of_many_volumes_opens_few_connections_and_hears_of_every_cut() {
    for hooks in [true, false] {
        runtime().block_on(async {
            let (server, clock) = world(&Case::of(hooks));
            server.act(|state| {
                let names: Vec<String> = (0..TEMPLATES).map(|n| format!("t{n:02}")).collect();
                let templates: Vec<Value> = names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
                let set = Key::new("statefulsets", shop::NAMESPACE, shop::SET);
                state.store.change(&set, false, |object| object["spec"]["volumeClaimTemplates"] = json!(templates));
                for name in names.iter().flat_map(|name| (0..2).map(move |n| format!("{name}-{}-{n}", shop::SET))) {
                    shop::claim(&mut state.store, &name);
                }
                state.faults.crowd = 100_000;
            });
            let exit = Box::pin(process(&server, clock, shop::POLICY, "one")).await;
            assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "hooks {hooks}");
            let state = server.look();
            let last = truth::record(&state.store, shop::POLICY).unwrap().status.last_run.unwrap();
            assert_eq!(last.snapshots.len(), 2 * TEMPLATES);
            let (watches, creates) =
                (state.crowd.most("watch", "volumesnapshotcontents"), state.crowd.most("create", "volumesnapshots"));
            assert!((1..=16).contains(&watches), "hooks {hooks}: {watches} watches of contents at once");
            assert!((2..=32).contains(&creates), "hooks {hooks}: {creates} snapshots asked for at once");
        });
    }
}
