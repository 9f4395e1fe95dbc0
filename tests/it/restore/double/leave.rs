//! A namespace that is being deleted and has taken the runner's rights in it with it, as RoleBindings go: with what is left
//! its object goes, and no volume stays reserved.

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};
use sts_backup::generate::rbac;
use sts_backup::plan::flow::Verb;

use super::*;
use crate::apiserver::kind::Key;
use crate::apiserver::store::Preconditions;

/// What it may still do: what the cluster has bound.
fn left(roles: &[ClusterRole]) -> Vec<Verb> {
    let all = rbac::runner_verbs().into_iter();
    let grants = |(group, resource, verb): &Verb| {
        roles.iter().flat_map(|role| role.rules.iter().flatten()).any(|rule| {
            let has = |all: &Option<Vec<String>>, one: &str| all.iter().flatten().any(|of| of == one);
            has(&rule.api_groups, group) && has(&rule.resources, resource) && rule.verbs.iter().any(|of| of == verb)
        })
    };
    all.filter(grants).collect()
}

/// Its deletion has begun, and that of our object.
fn ends(server: &ApiServer) {
    server.act(|state| {
        let namespace = Key::new("namespaces", "", shop::NAMESPACE);
        state.store.change(&namespace, false, |object| object["metadata"]["finalizers"] = json!(["kubernetes"]));
        state.store.delete(&namespace, &Preconditions::default(), false).unwrap();
        state.store.delete(&before::object(), &Preconditions::default(), false).unwrap();
    });
}

/// Volumes that a claim made anew in a namespace of that name would take.
fn reserved(server: &ApiServer) -> Vec<String> {
    let is_free = |volume: &Value| {
        let of = &volume["spec"]["claimRef"];
        of.is_object() && of["uid"].as_str().unwrap_or_default().is_empty()
    };
    let state = server.look();
    let volumes = state.store.all("persistentvolumes").filter(|(_, volume)| is_free(volume));
    volumes.map(|(key, _)| key.name.clone()).collect()
}

/// The process dies at write k, then the namespace goes with its RoleBindings, and somebody takes it up.
async fn after(k: usize, roles: &[ClusterRole]) -> (ApiServer, Vec<String>) {
    let (server, clock) = world(STAGED).await;
    let case = Case::of(STAGED, What::Restore).with(Blow::Strike(Class::Write, k, Strike::DieAfter));
    server.act(|state| state.faults = case.faults());
    process(&server, clock, Flow::Restore).await;
    let before = reserved(&server);
    sleep(Duration::from_mins(1)).await;
    ends(&server);
    let over = truth::status(&server.look().store).is_some_and(|status| status.run.is_none());
    let flow = if over { Flow::Release } else { Flow::Restore };
    process_with(&server, clock, flow, left(roles)).await;
    sleep(Duration::from_mins(1)).await;
    (server, before)
}

#[test]
fn an_object_goes_although_its_namespace_took_the_rights_along() {
    let [_, cluster] = rbac::runner();
    let [leave, _] = rbac::leave();
    let (mut met, mut all) = (0, 0);
    for k in (3..80).step_by(7) {
        runtime().block_on(async {
            let (server, before) = after(k, &[cluster.clone(), leave.clone()]).await;
            met += usize::from(!before.is_empty());
            all += 1;
            let state = server.look();
            let log = state.log.join("\n");
            assert!(state.store.get(&before::object()).is_none(), "write {k}: it holds the namespace\n{log}");
            drop(state);
            assert_eq!(reserved(&server), Vec::<String>::new(), "write {k}: {before:?} before\n{log}");
        });
    }
    assert!(met > 0 && all > 9, "{met} of {all} had something reserved");
}

#[test]
fn without_that_role_it_holds_its_namespace() {
    let [_, cluster] = rbac::runner();
    runtime().block_on(async {
        let (server, _) = after(40, &[cluster]).await;
        assert!(server.look().store.get(&before::object()).is_some());
    });
}
