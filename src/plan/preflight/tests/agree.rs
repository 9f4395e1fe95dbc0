//! Whether a run is whole: lists, restores, retention and the record of sealed runs say the same of random snapshots, and
//! the same as a naive reading of their JSON.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::cluster;
use crate::api::snapshot::VolumeSnapshot;
use crate::api::{annotation, label};
use crate::plan::known::{self, Record, Snapshot, Snapshots, State};
use crate::plan::noun::Lease;
use crate::plan::schedule::properties::Chance;
use crate::plan::{catalog, roll};

const FIRST: i64 = 1_795_570_000;

fn id(run: i64) -> String {
    Timestamp::from_second(FIRST + run * 86_400).unwrap().strftime("%Y%m%d-%H%M%S").to_string()
}

/// As the run seals it.
fn sealed(run: i64, ordinal: u64, size: u64) -> Value {
    let at = Timestamp::from_second(FIRST + run * 86_400).unwrap();
    let cut = at + SignedDuration::from_millis(100);
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {
            "name": format!("nightly-data-{}-{ordinal}", id(run)), "namespace": "shop", "uid": format!("{run}-{ordinal}"),
            "creationTimestamp": at, "resourceVersion": "1",
            "labels": {
                label::STATEFULSET: "web", label::POLICY: "nightly", label::POLICY_NAMESPACE: "shop",
                label::POLICY_UID: "policy", label::RUN: id(run), label::CLAIM_TEMPLATE: "data",
                label::ORDINAL: ordinal.to_string(),
            },
            "annotations": {
                annotation::RUN_SIZE: size.to_string(), annotation::TRANSITIONS: "7", annotation::FORMAT: "1",
                annotation::CUT: cut.as_nanosecond().to_string(), annotation::CONSISTENCY: "Frozen",
            },
        },
        "spec": { "source": { "persistentVolumeClaimName": format!("data-web-{ordinal}") } },
        "status": { "readyToUse": true, "restoreSize": "1Gi", "creationTime": at },
    })
}

/// One thing about it is otherwise.
fn spoil(chance: &mut Chance, one: &mut Value) {
    let at = one["metadata"]["creationTimestamp"].clone();
    let notes = one["metadata"]["annotations"].as_object_mut().unwrap();
    let mut set = |key: &str, value: &str| drop(notes.insert(key.into(), value.into()));
    match chance.below(13) {
        0 => set(annotation::FORMAT, "2"),
        1 => set(annotation::FORMAT, "newest"),
        2 => drop(notes.remove(annotation::FORMAT)), // one of the first ones
        3 => drop(notes.remove(annotation::TRANSITIONS)),
        4 => set(annotation::TRANSITIONS, "8"),
        5 => drop(notes.remove(annotation::CUT)),
        6 => set(annotation::CUT, "yesterday"),
        7 => drop(notes.remove(annotation::RUN_SIZE)),
        8 => set(annotation::RUN_SIZE, "4"),
        9 => one["status"]["readyToUse"] = false.into(),
        10 => one["metadata"]["deletionTimestamp"] = at,
        11 => one["status"]["error"] = json!({ "message": "at first it would not" }),
        _ => drop(one["metadata"]["labels"].as_object_mut().unwrap().remove(label::POLICY_UID)),
    }
}

/// A few runs; snapshots of some are missing, spoilt, or joined by others that somebody has made later.
fn stock(chance: &mut Chance) -> Vec<Value> {
    let mut all = vec![];
    for run in 0..=chance.below(3).cast_signed() {
        let size = 1 + chance.below(3);
        let mut its: Vec<_> = (0..size).map(|ordinal| sealed(run, ordinal, size)).collect();
        if chance.below(4) == 0 {
            its.pop();
        }
        if chance.below(4) == 0 {
            let mut more = sealed(run, 7, size);
            let later = Timestamp::from_second(FIRST + run * 86_400 + 60).unwrap();
            more["metadata"]["creationTimestamp"] = json!(later);
            more["metadata"]["annotations"][annotation::CUT] = later.as_nanosecond().to_string().into();
            more["status"]["creationTime"] = json!(later);
            its.push(more);
        }
        if chance.below(4) == 0 {
            its.extend(its.first().cloned().map(|mut copy| {
                copy["metadata"]["name"] = format!("copy-{run}").into();
                copy
            }));
        }
        if chance.below(2) == 0 && !its.is_empty() {
            let at = usize::try_from(chance.below(its.len() as u64)).unwrap();
            spoil(chance, &mut its[at]);
        }
        all.extend(its);
    }
    all
}

/// The second opinion, on the objects as they stand.
fn is_whole(all: &[Value], run: i64) -> bool {
    let note = |one: &Value, key: &str| one["metadata"]["annotations"][key].as_str().map(ToOwned::to_owned);
    let mut its: Vec<_> = all
        .iter()
        .filter(|one| one["metadata"]["name"].as_str().unwrap().starts_with(&format!("nightly-data-{}-", id(run))))
        .filter(|one| one["metadata"]["labels"][label::POLICY_UID] == "policy")
        .collect();
    its.sort_by_key(|one| one["metadata"]["creationTimestamp"].as_str().unwrap().to_owned());
    let Some(size) = its.iter().find_map(|one| note(one, annotation::RUN_SIZE)?.parse::<usize>().ok()) else {
        return false;
    };
    its.truncate(size);
    let claims: BTreeSet<_> =
        its.iter().map(|one| &one["spec"]["source"]["persistentVolumeClaimName"]).map(Value::as_str).collect();
    let sound = |one: &&Value| {
        note(one, annotation::FORMAT).is_none_or(|format| format == "1")
            && note(one, annotation::RUN_SIZE) == Some(size.to_string())
            && note(one, annotation::TRANSITIONS).is_some()
            && note(one, annotation::TRANSITIONS) == note(its[0], annotation::TRANSITIONS)
            && note(one, annotation::CUT).is_some_and(|cut| cut.parse::<i128>().is_ok())
            && one["status"]["readyToUse"] == true
            && one["metadata"]["deletionTimestamp"].is_null()
    };
    claims.len() == size && its.iter().all(sound)
}

#[test]
fn all_who_judge_a_run_say_the_same() {
    let (mut whole, mut broken) = (0, 0);
    for seed in 0..200 {
        let all = stock(&mut Chance(seed));
        let objects: Vec<VolumeSnapshot> = all.iter().map(|one| serde_json::from_value(one.clone()).unwrap()).collect();
        let snapshots: Snapshots = objects.iter().map(|one| (one.name_any(), Snapshot::of(one))).collect();
        let record = roll::sealed(&snapshots, |_, _| true);
        let listed: BTreeMap<_, _> = catalog::runs(&objects)
            .into_iter()
            .filter(|run| run.maker.uid == "policy" && run.origin.is_none())
            .map(|run| (run.id.unwrap(), run.complete))
            .collect();
        for run in 0..3 {
            let (wanted, id) = (is_whole(&all, run), id(run));
            let counted = known::runs(&snapshots, Some(&record))
                .into_iter()
                .filter(|one| one.id.to_string() == id && one.maker.uid == "policy")
                .any(|one| one.counted("web").complete);
            let mut cluster = cluster();
            cluster.sources.clone_from(&snapshots);
            cluster.want.run_id = Some(id.clone());
            let named = cluster.chosen().is_ok();
            cluster.want.run_id = None;
            cluster.lease = Lease { roll: Some(record.clone()), ..Lease::default() };
            let newest = cluster.chosen().ok().and_then(|chosen| chosen.run).map(|run| run.to_string());
            let said = [listed.get(&id) == Some(&true), named, counted];
            assert_eq!(said, [wanted; 3], "seed {seed}, run {id}: list, restore, retention\n{all:#?}");
            let best = (0..3).filter(|run| is_whole(&all, *run)).max().map(self::id);
            assert_eq!(newest, best, "seed {seed}: the newest");
            let is_there = all.iter().any(|one| one["metadata"]["labels"][label::RUN] == id.as_str());
            whole += usize::from(wanted);
            broken += usize::from(is_there && !wanted);
        }
        // Whatever is on record is whole but for what may become ready yet.
        for run in known::runs(&snapshots, Some(&record)).iter().filter(|run| run.record != Record::None) {
            assert!(matches!(run.state, State::Complete | State::Uploading), "seed {seed}: {run:?}");
        }
    }
    assert!(whole > 100 && broken > 60, "{whole} whole runs and {broken} others are not enough of each");
}
