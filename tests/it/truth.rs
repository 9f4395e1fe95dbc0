//! What is really stored, as the planner's own nouns: looked at after every write.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sts_backup::api::annotation;
use sts_backup::api::backup::StatefulSetBackup;
use sts_backup::plan::invariant::{self, Stored};
use sts_backup::plan::journal::{Journal, Record};
use sts_backup::plan::noun::{Holder, Lease, Open, Snaps};
use sts_backup::plan::roll::Roll;
use sts_backup::step::{observe, record};

use crate::apiserver::State;
use crate::apiserver::fault::Strike;
use crate::apiserver::store::{Store, What, text};
use crate::shop;

pub fn record(store: &Store, name: &str) -> Option<Record> {
    let object: StatefulSetBackup = decode(store.get(&shop::object(name))?);
    Some(record::record(&object, ""))
}

fn decode<T: serde::de::DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap()
}

pub fn lease(store: &Store) -> Option<Lease> {
    let object = store.get(&shop::lease())?;
    let holder = Some(text(object, "/spec/holderIdentity").to_owned()).filter(|holder| !holder.is_empty());
    let open = object["metadata"]["annotations"][annotation::OPEN].as_str();
    Some(Lease {
        holder: holder.map(Holder),
        gone: false,
        fence: None,
        restored: vec![],
        roll: object["metadata"]["annotations"][annotation::RUNS].as_str().map(Roll::read),
        epoch: object["spec"]["leaseTransitions"].as_i64().unwrap_or_default(),
        version: String::new(),
        open: open.map(|open| serde_json::from_str::<Open>(open).unwrap()),
    })
}

pub fn snaps(store: &Store) -> Snaps {
    let all = store.all("volumesnapshots");
    let now = store.clock.now();
    all.filter_map(|(key, object)| Some((key.name.clone(), observe::snap(&decode(object), now)?))).collect()
}

/// Somebody holds the lock and has renewed it within its duration.
pub fn is_renewed(store: &Store) -> bool {
    let Some(object) = store.get(&shop::lease()) else { return false };
    let renewed: Result<Timestamp, _> = text(object, "/spec/renewTime").parse();
    let fresh = renewed.is_ok_and(|at| store.clock.now().duration_since(at) < SignedDuration::from_secs(30));
    fresh && !text(object, "/spec/holderIdentity").is_empty()
}

/// Pods that are frozen now.
pub fn frozen(state: &State) -> usize {
    shop::containers(&state.store).iter().filter(|id| state.nature.is_locked(id)).count()
}

pub fn check(state: &mut State) {
    let (lease, snaps) = (lease(&state.store), snaps(&state.store));
    let forbidden = state.faults.strikes.values().any(|strike| matches!(strike, Strike::Say(no) if no.code == 403));
    if frozen(state) > 0 && !forbidden && lease.as_ref().is_none_or(|lease| lease.open.is_none()) {
        state.violations.push("frozen, and the Lease does not say so".into());
    }
    let names: Vec<String> = state.store.all("statefulsetbackups").map(|(key, _)| key.name.clone()).collect();
    for name in names {
        let Some(record) = record(&state.store, &name) else { continue };
        let broken = invariant::broken(&Stored { record: &record, lease: lease.as_ref(), snaps: &snaps });
        for what in broken {
            if !state.violations.contains(&what) {
                state.violations.push(what);
            }
        }
    }
}

/// Every entry of every journal followed from the one before it.
pub fn passages(state: &State) -> Vec<String> {
    let mut last: BTreeMap<String, Journal> = BTreeMap::new();
    let mut bad = vec![];
    let ours = |kind: &str| kind == "statefulsetbackups";
    for change in state.store.log.iter().filter(|change| ours(change.key.kind.resource) && change.what != What::Deleted)
    {
        let now = record::record(&decode(&change.object), "").journal;
        let before = last.insert(text(&change.object, "/metadata/uid").to_owned(), now.clone());
        let before = before.unwrap_or(Journal::Idle);
        if !invariant::is_passage(&before, &now) {
            bad.push(format!("journal went from {before:?} to {now:?}"));
        }
    }
    bad
}
