//! What the watcher writes into a status beside its own fields, and what the runner's next status makes of it.

use super::*;
use crate::apiserver::store::Store;

fn status(store: &Store, name: &str) -> Value {
    store.get(&shop::object(name)).map(|object| object["status"].clone()).unwrap_or_default()
}

fn condition(status: &Value, kind: &str) -> (String, String, i64) {
    let all = status["conditions"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null);
    let generation = found["observedGeneration"].as_i64().unwrap_or_default();
    (text(found, "/status").to_owned(), text(found, "/reason").to_owned(), generation)
}

/// The edit of a policy that was Ready, and its mending; then a run, whose status has no trace of it.
#[test]
fn a_spec_that_cannot_be_acted_on_says_so_until_it_is_mended() {
    const NAME: &str = "other";
    let rt = runtime();
    LocalSet::new().block_on(&rt, async {
        let (server, clock) = undisturbed();
        at_work(&server, clock);
        let look = |schedule: Option<&str>| {
            server.act(|state| {
                if let Some(schedule) = schedule {
                    state
                        .store
                        .change(&shop::object(NAME), false, |object| object["spec"]["schedule"] = schedule.into());
                }
            });
        };
        sleep(Duration::from_secs(30)).await;
        let before = status(&server.look().store, NAME);
        assert_eq!(before["phase"], "Ready", "its first run is over: {before}");

        look(Some("61 3 * * *"));
        sleep(Duration::from_secs(5)).await;
        let generation =
            server.look().store.get(&shop::object(NAME)).unwrap()["metadata"]["generation"].as_i64().unwrap();
        let bad = status(&server.look().store, NAME);
        assert_eq!(bad["phase"], "Failed", "{bad}");
        assert!(text(&bad, "/message").contains("61"), "{bad}");
        assert_eq!(condition(&bad, "Ready"), ("False".into(), "InvalidSpec".into(), generation));
        assert_eq!(condition(&bad, "Stalled"), ("True".into(), "InvalidSpec".into(), generation));
        assert_eq!(bad["lastRun"], before["lastRun"], "what the runner wrote is there");
        assert!(bad["nextScheduleTime"].is_null(), "{bad}");

        look(Some("*/2 * * * *"));
        sleep(Duration::from_secs(5)).await;
        let sound = status(&server.look().store, NAME);
        assert_eq!(sound["phase"], "Ready", "{sound}");
        assert_eq!(condition(&sound, "Ready").0, "True");
        assert_eq!(condition(&sound, "Stalled").0, "False");
        assert!(text(&sound, "/message").contains("accepted again"), "{sound}");

        sleep(MINUTE * 2).await;
        let after = status(&server.look().store, NAME);
        assert_ne!(after["lastRun"]["slot"], before["lastRun"]["slot"], "it has run since: {after}");
        assert_eq!(condition(&after, "Ready"), ("True".into(), "BackupCompleted".into(), generation + 1));
        assert!(!text(&after, "/message").contains("accepted again"), "{after}");
        server.act(|state| assert_eq!(state.violations, [] as [String; 0]));
    });
}

/// Whoever may patch the status can say that a run of the year 2099 has been: no slot is skipped for it.
#[test]
fn a_last_schedule_time_that_cannot_be_true_is_not_gone_by() {
    const NAME: &str = "other";
    let rt = runtime();
    LocalSet::new().block_on(&rt, async {
        let (server, clock) = undisturbed();
        at_work(&server, clock);
        for far in ["2099-01-01T00:00:00Z", "1999-01-01T00:00:00Z"] {
            sleep(Duration::from_secs(30)).await;
            let last = |store: &Store| text(&status(store, NAME), "/lastRun/slot").to_owned();
            let before = last(&server.look().store);
            server.act(|state| {
                state.store.change(&shop::object(NAME), true, |object| {
                    object["status"]["lastScheduleTime"] = far.into();
                    object["status"]["nextScheduleTime"] = far.into();
                });
            });
            sleep(MINUTE * 4).await;
            let after = last(&server.look().store);
            assert!(after > before, "a slot of each four minutes has run: {before}, {after}");
            assert_eq!(text(&status(&server.look().store, NAME), "/lastScheduleTime"), after);
            let state = server.look();
            let told: Vec<_> =
                state.store.all("events").filter(|(_, event)| event["reason"] == "ScheduleTimeDoubted").collect();
            let said = |event: &Value| text(event, "/note").contains(far) || text(event, "/message").contains(far);
            assert_eq!(told.iter().filter(|(_, event)| said(event)).count(), 1, "{told:?}");
        }
        server.act(|state| assert_eq!(state.violations, [] as [String; 0]));
    });
}

/// `kubectl describe` asks for what bears the uid.
#[test]
fn events_on_the_statefulset_bear_its_uid() {
    LocalSet::new().block_on(&runtime(), async {
        let (server, clock) = undisturbed();
        at_work(&server, clock);
        sleep(Duration::from_secs(30)).await;
        let state = server.look();
        let set = state.store.get(&Key::new("statefulsets", shop::NAMESPACE, shop::SET)).unwrap();
        let uid = text(set, "/metadata/uid").to_owned();
        let about = state.store.all("events").map(|(_, event)| &event["regarding"]);
        let of: Vec<_> = about.filter(|about| about["kind"] == "StatefulSet").collect();
        assert!(of.len() >= SCHEDULES.len(), "each policy has had a run: {of:?}");
        assert!(!uid.is_empty() && of.iter().all(|about| about["uid"] == *uid), "{uid}: {of:?}");
    });
}

fn waiting(server: &ApiServer, name: &str) -> (String, String) {
    let (status, reason, _) = condition(&status(&server.look().store, name), "Waiting");
    (status, reason)
}

#[test]
fn what_is_suspended_says_so_while_it_is() {
    const NAME: &str = "other";
    LocalSet::new().block_on(&runtime(), async {
        let (server, clock) = undisturbed();
        at_work(&server, clock);
        let suspend = |on: bool| {
            server.act(|state| {
                state.store.change(&shop::object(NAME), false, |object| object["spec"]["suspend"] = on.into());
            });
        };
        sleep(MINUTE).await;
        assert_eq!(waiting(&server, NAME).0, "");
        suspend(true);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(waiting(&server, NAME), ("True".into(), "Suspended".into()));
        let before = status(&server.look().store, NAME);
        assert!(before["nextScheduleTime"].is_null(), "{before}");
        sleep(MINUTE * 10).await;
        assert_eq!(status(&server.look().store, NAME)["lastRun"], before["lastRun"], "nothing runs");
        suspend(false);
        sleep(Duration::from_secs(5)).await;
        assert_ne!(waiting(&server, NAME).0, "True");
    });
}

/// Somebody who works by hand has the lock, and renews it.
#[test]
fn a_job_that_waits_for_the_lock_names_who_holds_it() {
    LocalSet::new().block_on(&runtime(), async {
        let (server, clock) = undisturbed();
        let holder = "backup/shop/by-hand/laptop";
        let renewed = move |server: &ApiServer| {
            let now = format!("{:.6}", server.look().store.clock.now());
            let spec = json!({ "holderIdentity": holder, "leaseTransitions": 1, "renewTime": now,
                "leaseDurationSeconds": 30 });
            server.act(|state| {
                if state.store.get(&shop::lease()).is_none() {
                    state.store.create(&shop::lease(), json!({ "metadata": {}, "spec": spec }), false).unwrap();
                } else {
                    state.store.change(&shop::lease(), false, |lease| lease["spec"]["renewTime"] = now.as_str().into());
                }
            });
        };
        renewed(&server);
        let keeps = server.clone();
        let keeper = spawn_local(async move {
            loop {
                sleep(Duration::from_secs(10)).await;
                renewed(&keeps);
            }
        });
        at_work(&server, clock);
        sleep(Duration::from_secs(40)).await;
        for (name, _) in SCHEDULES {
            assert_eq!(waiting(&server, name), ("True".into(), "LockHeld".into()), "{name}");
            let status = status(&server.look().store, name);
            assert!(status["conditions"].to_string().contains(holder), "{status}");
        }
        keeper.abort();
        server.act(|state| state.store.purge(&shop::lease()));
        sleep(MINUTE).await;
        for (name, _) in SCHEDULES {
            assert_ne!(waiting(&server, name).0, "True", "{name}");
        }
    });
}
