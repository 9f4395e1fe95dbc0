//! Snapshots and a Lease that somebody else has written, with all the marks that ours bear: made by hand, copied, put
//! under names of runs to come. They count for nothing, push nothing out, and nothing of ours goes for them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sts_backup::api::condition::Reason;
use sts_backup::api::{LOCK_POLICY, MARKS_POLICY, annotation, label};
use sts_backup::plan::flow::Exit;
use sts_backup::plan::name::ClaimKey;
use sts_backup::plan::noun::Outcome;
use sts_backup::plan::roll::{Entry, Roll};
use sts_backup::step::clock::Clock;
use tokio::time::sleep;

use crate::apiserver::ApiServer;
use crate::apiserver::apply::Apply;
use crate::apiserver::fault::Class;
use crate::apiserver::kind::Key;
use crate::apiserver::store::Store;
use crate::shop::{self, NAMESPACE, POLICY};
use crate::{truth, wire};

/// By which a process knows what it has made.
const TOKEN: &str = "backup.sts-backup.io/token";

fn snapshot(name: &str) -> Key {
    Key::new("volumesnapshots", NAMESPACE, name)
}

/// The double, with a policy that keeps the last N runs.
fn keeping(hooks: bool, last: u32) -> (ApiServer, Clock) {
    let (server, clock) = wire::world(&wire::Case::of(hooks));
    server.act(|state| {
        state.store.change(&shop::object(POLICY), false, |object| {
            object["spec"]["retentionPolicy"] = json!({ "keepLast": last });
        });
    });
    (server, clock)
}

/// A run that succeeds; the names of its snapshots.
async fn good(server: &ApiServer, clock: Clock, slot: &'static str) -> BTreeSet<String> {
    let before = names(&server.look().store);
    let exit = Box::pin(wire::process(server, clock, POLICY, slot)).await;
    let said = truth::record(&server.look().store, POLICY).unwrap().status.message;
    assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "{said:?}");
    sleep(Duration::from_mins(2)).await; // what is being deleted goes
    names(&server.look().store).difference(&before).cloned().collect()
}

fn names(store: &Store) -> BTreeSet<String> {
    store.all("volumesnapshots").map(|(key, _)| key.name.clone()).collect()
}

/// Somebody makes a snapshot like this one, changed.
fn forge(server: &ApiServer, like: &str, name: &str, change: impl FnOnce(&mut Value)) {
    server.act(|state| {
        let mut object = state.store.get(&snapshot(like)).unwrap().clone();
        let meta = json!({ "labels": object["metadata"]["labels"], "annotations": object["metadata"]["annotations"] });
        object["metadata"] = meta;
        change(&mut object);
        let status = object["status"].clone();
        state.store.create(&snapshot(name), object, false).unwrap();
        state.store.change(&snapshot(name), true, |object| object["status"] = status);
    });
}

/// Marks and name of another ordinal, whose claim does not exist.
fn extra(server: &ApiServer, like: &str) -> String {
    let name = format!("{}-7", like.rsplit_once('-').unwrap().0);
    forge(server, like, &name, |object| {
        object["metadata"]["labels"][label::ORDINAL] = "7".into();
        object["spec"]["source"]["persistentVolumeClaimName"] = "data-web-7".into();
    });
    name
}

#[test]
fn one_snapshot_made_by_hand_deletes_no_good_run() {
    for innocent in [true, false] {
        wire::runtime().block_on(async {
            let (server, clock) = keeping(false, 30);
            let mut all = BTreeSet::new();
            for slot in ["one", "two"] {
                let run = good(&server, clock, slot).await;
                assert_eq!(run.len(), 4);
                let like = run.first().unwrap();
                all.insert(if innocent {
                    let name = format!("copy-of-{like}");
                    forge(&server, like, &name, |_| {});
                    name
                } else {
                    extra(&server, like)
                });
                all.extend(run);
            }
            all.extend(good(&server, clock, "three").await);
            let left = names(&server.look().store);
            assert_eq!(all.difference(&left).collect::<Vec<_>>(), Vec::<&String>::new(), "deleted");
            let said = truth::record(&server.look().store, POLICY).unwrap().status.message.unwrap_or_default();
            assert_eq!(said.contains("bears the labels of a run that it does not belong to"), innocent, "{said}");
        });
    }
}

/// `kubectl get -o yaml`, delete, and apply again: the names and marks of a run, and the data of two hours later.
#[test]
fn a_dump_that_is_applied_again_is_taken_for_no_run() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(false, 30);
        let run = good(&server, clock, "one").await;
        sleep(Duration::from_hours(2)).await;
        server.act(|state| {
            for name in &run {
                let mut object = state.store.get(&snapshot(name)).unwrap().clone();
                let meta = object["metadata"].take();
                object["metadata"] = json!({ "labels": meta["labels"], "annotations": meta["annotations"] });
                object.as_object_mut().unwrap().remove("status");
                state.store.purge(&snapshot(name));
                state.store.create(&snapshot(name), object, false).unwrap();
            }
        });
        sleep(Duration::from_mins(2)).await; // cut and ready
        let ready = |name: &String| server.look().store.get(&snapshot(name)).unwrap()["status"]["readyToUse"] == true;
        assert!(run.iter().all(ready));
        good(&server, clock, "two").await;
        assert!(run.is_subset(&names(&server.look().store)), "they are left alone");
        let said = truth::record(&server.look().store, POLICY).unwrap().status.message.unwrap_or_default();
        assert!(said.contains("(and 3 more) was cut at 2027-01-15T10:"), "{said}");
        let all: Vec<_> = server.look().store.all("volumesnapshots").map(|(_, object)| object.clone()).collect();
        let all: Vec<_> = all.into_iter().map(|object| serde_json::from_value(object).unwrap()).collect();
        let runs = sts_backup::plan::catalog::runs(&all);
        assert_eq!(runs.iter().filter(|run| run.complete).count(), 1, "{runs:?}");
        assert_eq!(runs.iter().filter(|run| run.message.is_some()).count(), 4, "{runs:?}");
    });
}

/// Who may create snapshots can cut the real claims, under the right names of a run of just now.
#[test]
fn runs_that_are_not_on_record_push_no_good_run_out() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(false, 2);
        let (one, two) = (good(&server, clock, "one").await, good(&server, clock, "two").await);
        for n in 1..=5 {
            let now = clock.now() + SignedDuration::from_secs(n);
            forge_run(&server, &two, &now.strftime("%Y%m%d-%H%M%S").to_string());
        }
        sleep(Duration::from_secs(10)).await;
        let three = good(&server, clock, "three").await;
        let left = names(&server.look().store);
        assert!(two.is_subset(&left) && three.is_subset(&left), "a good run was pushed out by forged ones");
        assert!(one.is_disjoint(&left), "keepLast: 2 keeps two");
    });
}

/// All snapshots of a run once more, with another id, and with the cut that the storage will tell.
fn forge_run(server: &ApiServer, like: &BTreeSet<String>, id: &str) {
    for like in like {
        let old = server.look().store.get(&snapshot(like)).unwrap()["metadata"]["labels"][label::RUN].clone();
        let name = like.replace(old.as_str().unwrap(), id);
        let now = server.look().store.clock.now();
        let pace = server.look().nature.pace.cut;
        forge(server, like, &name, |object| {
            object["metadata"]["labels"][label::RUN] = id.into();
            object["metadata"]["annotations"][annotation::CUT] = (now + pace).as_nanosecond().to_string().into();
            object["status"]["creationTime"] = (now + pace).strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        });
    }
}

#[test]
fn ids_that_lie_far_ahead_move_none_of_ours_and_push_nothing_out() {
    for id in ["20300101-000000", "99991230-220000"] {
        wire::runtime().block_on(async {
            let (server, clock) = keeping(false, 2);
            let one = good(&server, clock, "one").await;
            forge_run(&server, &one, id);
            let two = good(&server, clock, "two").await;
            let three = good(&server, clock, "three").await;
            let left = names(&server.look().store);
            assert!(two.is_subset(&left) && three.is_subset(&left), "{id}: a good run was pushed out");
            let last = truth::record(&server.look().store, POLICY).unwrap().status.last_run.unwrap().id.unwrap();
            assert!(last.starts_with("20270115-08"), "{id} has moved our ids to {last}");
        });
    }
}

/// The names of the runs of these seconds are taken.
fn squat(server: &ApiServer, from: Timestamp, seconds: i64) -> BTreeSet<String> {
    let id = |n| (from + SignedDuration::from_secs(n)).strftime("%Y%m%d-%H%M%S").to_string();
    let before = names(&server.look().store);
    (0..seconds).for_each(|n| server.act(|state| shop::squat(&mut state.store, &id(n))));
    names(&server.look().store).difference(&before).cloned().collect()
}

#[test]
fn names_that_are_taken_cost_three_freezes_at_most() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(true, 2);
        // Whoever watches status learns each id before its first snapshot is made.
        server.act(|state| state.nature.squats = true);
        let exit = Box::pin(wire::process(&server, clock, POLICY, "one")).await;
        let state = server.look();
        let Some(Exit::Done(Outcome::Failed(refusal))) = exit else { panic!("{exit:?}") };
        assert_eq!(refusal.reason, Reason::Foreign, "{}", refusal.message);
        assert!(refusal.message.contains(&format!("VolumeSnapshot {NAMESPACE}/{POLICY}-data-")), "{}", refusal.message);
        assert_eq!(state.nature.thaws, 3 * 2, "two pods, three freezes");
        assert_eq!(truth::frozen(&state), 0);
        let gone = state.store.log.iter().filter(|change| change.key.kind.resource == "volumesnapshots");
        let ours = |object: &Value| object["metadata"]["annotations"][TOKEN].is_string();
        let lost: Vec<_> = gone.filter(|change| change.object["metadata"]["deletionTimestamp"].is_string()).collect();
        assert!(!lost.is_empty(), "what was made beside it went");
        assert!(lost.iter().all(|change| ours(&change.object)), "deleted what it had not made");
        assert!(truth::snaps(&state.store).values().all(|snap| !snap.sealed));
    });
}

/// It was cut before the freeze: a backup that took it for its own would be none.
#[test]
fn a_snapshot_that_was_there_before_is_never_taken_for_our_own() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(true, 2);
        let taken = squat(&server, clock.now() + SignedDuration::from_secs(1), 20);
        sleep(Duration::from_secs(2)).await;
        let exit = Box::pin(wire::process(&server, clock, POLICY, "one")).await;
        assert_eq!(exit, Some(Exit::Done(Outcome::Succeeded)), "behind the last of them a name is free");
        let state = server.look();
        let sealed: BTreeSet<_> =
            truth::snaps(&state.store).into_iter().filter(|(_, snap)| snap.sealed).map(|(name, _)| name).collect();
        assert_eq!((sealed.len(), sealed.is_disjoint(&taken)), (4, true), "{sealed:?}");
    });
}

#[test]
fn transitions_at_their_maximum_break_no_run() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(true, 2);
        server.act(|state| {
            let spec = json!({ "leaseTransitions": i32::MAX, "renewTime": "2027-01-15T08:00:00.000000Z" });
            state.store.create(&shop::lease(), json!({ "metadata": {}, "spec": spec }), false).unwrap();
        });
        for slot in ["one", "two"] {
            good(&server, clock, slot).await;
            let epoch = truth::lease(&server.look().store).unwrap().epoch;
            assert!((1..=2).contains(&epoch), "{epoch}");
        }
    });
}

/// What is on record, and what bears our marks, is worth what guards them.
#[test]
fn nothing_is_pruned_in_a_pod_where_marks_or_lock_are_not_guarded() {
    for missing in [MARKS_POLICY, LOCK_POLICY] {
        wire::runtime().block_on(async {
            let (server, clock) = keeping(false, 1);
            let one = good(&server, clock, "one").await;
            server.act(|state| {
                let binding = Key::new("validatingadmissionpolicybindings", "", missing);
                state.store.change(&binding, false, |object| object["spec"]["validationActions"] = json!(["Audit"]));
            });
            let two = good(&server, clock, "two").await;
            assert!(one.union(&two).all(|name| names(&server.look().store).contains(name)), "{missing}");
            let said = truth::record(&server.look().store, POLICY).unwrap().status.message.unwrap_or_default();
            assert!(said.contains("retention was skipped: PolicyMissing") && said.contains(missing), "{said}");
            let warned = |event: &Value| event["reason"] == "RetentionSkipped" && event["type"] == "Warning";
            let about = |event: &Value| event["regarding"]["kind"] == "StatefulSetBackup";
            let count = server.look().store.all("events").filter(|(_, event)| warned(event) && about(event)).count();
            assert_eq!(count, 1, "{missing}: one Event");
            server.act(|state| {
                let binding = Key::new("validatingadmissionpolicybindings", "", missing);
                state.store.change(&binding, false, |object| object["spec"]["validationActions"] = json!(["Deny"]));
            });
            let three = good(&server, clock, "three").await;
            let left = names(&server.look().store);
            assert!(one.union(&two).all(|name| !left.contains(name)) && three.is_subset(&left), "{missing}");
        });
    }
}

/// Who may patch snapshots, where nothing guards their marks, or did not when it was done.
#[test]
fn marks_taken_off_a_run_that_is_on_record_delete_nothing() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(false, 2);
        let (one, two) = (good(&server, clock, "one").await, good(&server, clock, "two").await);
        let spoil = |name: &String, key: &'static str, word: Option<&str>| {
            server.act(|state| {
                state.store.change(&snapshot(name), false, |object| {
                    let notes = object["metadata"]["annotations"].as_object_mut().unwrap();
                    notes.remove(key);
                    notes.extend(word.map(|word| (key.to_owned(), word.into())));
                });
            });
        };
        spoil(one.first().unwrap(), annotation::TRANSITIONS, Some("99"));
        one.iter().chain(&two).for_each(|name| spoil(name, annotation::CUT, None));
        let three = good(&server, clock, "three").await;
        let left = names(&server.look().store);
        assert!(two.union(&three).all(|name| left.contains(name)), "a run that is on record went as partial");
        let four = good(&server, clock, "four").await;
        let left = names(&server.look().store);
        let gone = one.union(&two).all(|name| !left.contains(name));
        assert!(gone && three.union(&four).all(|name| left.contains(name)), "they count as they did");
    });
}

/// The record is gone (an upgrade, a Lease that was deleted), and somebody has made runs while it was not there.
#[test]
fn what_is_imported_into_a_new_record_pushes_no_good_run_out() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(false, 2);
        let (one, two) = (good(&server, clock, "one").await, good(&server, clock, "two").await);
        let now = clock.now();
        let forged = |n: i64| (now + SignedDuration::from_secs(n)).strftime("%Y%m%d-%H%M%S").to_string();
        (1..=3).for_each(|n| forge_run(&server, &two, &forged(n)));
        server.act(|state| {
            state.store.change(&shop::lease(), false, |object| {
                object["metadata"]["annotations"].as_object_mut().unwrap().remove(annotation::RUNS);
            });
        });
        sleep(Duration::from_secs(10)).await;
        let three = good(&server, clock, "three").await;
        let left = names(&server.look().store);
        assert!(two.union(&three).all(|name| left.contains(name)), "a good run was pushed out by what was imported");
        assert!(one.is_disjoint(&left), "status remembers one and two: keepLast: 2 keeps two and three");
        good(&server, clock, "four").await;
        let left = names(&server.look().store);
        let imported = |name: &&String| (1..=3).any(|n| name.contains(&forged(n)));
        assert_eq!(left.iter().filter(imported).count(), 0, "beside two that are known nobody wants them");
    });
}

/// A record that has no room for one run more is no reason to try without end.
#[test]
fn a_full_record_ends_no_run_and_is_not_written_without_end() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(false, 2);
        good(&server, clock, "one").await;
        // All later than any run to come, so that the new one is the oldest.
        let claim =
            ClaimKey { ordinal: 0, template: "a-rather-long-name-of-a-template-of-claims-so-that-it-fills".into() };
        let entry = Entry::new([&claim], ["uid"]);
        let mut roll = Roll::default();
        let from = clock.now() + SignedDuration::from_hours(1);
        for n in 0..4000 {
            let id = (from + SignedDuration::from_secs(n)).strftime("%Y%m%d-%H%M%S").to_string();
            roll.put("somebody", id.parse().unwrap(), entry.clone());
        }
        let text = roll.text();
        server.act(|state| {
            state.store.change(&shop::lease(), false, |object| {
                object["metadata"]["annotations"][annotation::RUNS] = text.into();
            });
        });
        let writes = server.look().faults.count(Class::Write);
        let two = good(&server, clock, "two").await;
        assert_eq!(two.len(), 4);
        let writes = server.look().faults.count(Class::Write) - writes;
        assert!(writes < 40, "{writes} writes");
    });
}

/// Status by another manager: an apply leaves alone what it does not send, and whoever reads it would take it for a run.
#[test]
fn what_others_have_put_into_a_status_goes_with_the_next_run() {
    wire::runtime().block_on(async {
        let (server, clock) = keeping(false, 30);
        good(&server, clock, "one").await;
        server.act(|state| {
            let kubectl = Apply { manager: "kubectl", force: true, status: true, dry: false };
            let body = json!({ "apiVersion": "backup.sts-backup.io/v1alpha1", "kind": "StatefulSetBackup",
                "metadata": { "name": POLICY, "namespace": NAMESPACE }, "status": { "run": { "served": true } } });
            state.store.apply(&shop::object(POLICY), &kubectl, &body).unwrap();
        });
        good(&server, clock, "two").await;
        let store = &server.look().store;
        assert_eq!(store.get(&shop::object(POLICY)).unwrap()["status"].get("run"), None);
    });
}
