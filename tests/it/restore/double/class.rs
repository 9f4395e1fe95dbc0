//! A run outlives the StorageClass of its claims: what can read its snapshots is their driver.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use sts_backup::api::annotation;
use sts_backup::api::restore::RestorePhase;
use tokio::time::sleep;

use super::before::{self, CLASS, claim_key, claims};
use super::{STAGED, What, command, completed, truth, world};
use crate::apiserver::State;
use crate::apiserver::kind::Key;
use crate::apiserver::store::text;
use crate::shop::DRIVER;
use crate::wire::runtime;

/// What all claims of the run are on, and the class that they name.
fn under(state: &State) -> BTreeSet<(String, String)> {
    let contents = truth::contents(state);
    let on = |pvc: &String| contents[pvc].split(' ').next().unwrap_or_default().to_owned();
    let class = |pvc: &String| text(state.store.get(&claim_key(pvc)).unwrap(), "/spec/storageClassName").to_owned();
    claims().iter().map(|pvc| (on(pvc), class(pvc))).collect()
}

/// The class of the claims is made again for another driver; their own has got another name.
#[test]
fn a_run_whose_class_was_replaced_is_restored_and_undone_on_the_wire() {
    runtime().block_on(async {
        let (server, clock) = world(STAGED).await;
        server.act(|state| {
            state.store.purge(&Key::new("storageclasses", "", CLASS));
            for (name, driver) in [(CLASS, "other.example.com"), ("swift", DRIVER)] {
                let class =
                    json!({ "metadata": {}, "provisioner": driver, "volumeBindingMode": "WaitForFirstConsumer" });
                state.store.create(&Key::new("storageclasses", "", name), class, false).unwrap();
            }
        });
        command(&server, clock, What::Restore).await;
        sleep(Duration::from_secs(10)).await;
        server.act(completed);
        let both = |on: &str, class: &str| BTreeSet::from([(on.to_owned(), class.to_owned())]);
        assert_eq!(server.act(|state| under(state)), both("new", "swift"));
        let warnings = server.act(|state| truth::status(&state.store).unwrap().warnings);
        assert!(warnings.iter().any(|said| said.starts_with("ClassReplaced: ")), "{warnings:?}");
        server.act(|state| {
            let asked =
                |object: &mut serde_json::Value| object["metadata"]["annotations"][annotation::UNDO] = "please".into();
            state.store.change(&before::object(), false, asked);
        });
        command(&server, clock, What::Undo).await;
        sleep(Duration::from_secs(10)).await;
        server.act(|state| {
            assert_eq!(truth::status(&state.store).unwrap().phase, Some(RestorePhase::Undone));
            assert_eq!(under(state), both("old", CLASS));
            assert_eq!(state.violations, Vec::<String>::new());
        });
    });
}
