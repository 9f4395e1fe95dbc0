//! `doctor --lift-fence`: a Held restore is ended as it stands, marks without an object go, and nothing is taken from a
//! run that lives.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use sts_backup::api::restore::{OnFailure, RestorePhase};
use sts_backup::api::{annotation, label};
use sts_backup::client::Connection;
use sts_backup::config::Settings;
use sts_backup::generate::rbac;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::Outcome;
use sts_backup::plan::restore::{self, lift, release};
use sts_backup::plan::view::View;
use sts_backup::run::lift::{Found, look, prepare};
use sts_backup::step::clock::ServerClock;
use sts_backup::step::cluster::Cluster;
use sts_backup::step::drive;

use super::apiserver::ApiServer;
use super::apiserver::kind::Key;
use super::restore::process::Process;
use super::restore::sweep as restore_sweep;
use super::restore::sweep::{BLOWS, Blows, STAGED, pause, run, want};
use super::restore::world::{Blow, Odd, Setting, World, keys};
use super::{shop, wire};

/// A restore whose pods are not Ready on what was restored: it is Held.
async fn held() -> Rc<RefCell<World>> {
    let world = Rc::new(RefCell::new(World::new(&[], Setting { odd: Odd::Broken, ..STAGED })));
    let mut want = want(&world.borrow(), "restore", 1);
    want.restore.on_failure = OnFailure::Hold;
    let process = Process::start(&world, want.clone());
    let (exit, _) = drive(&process, restore::next, View::new(want)).await;
    assert!(matches!(exit, Exit::Done(Outcome::Failed(_))), "{exit:?}");
    assert!(world.borrow().status.run.is_some() && world.borrow().lease.open.is_some());
    world
}

/// Lifted under these blows, and after the undo window released.
async fn lifted(blows: &Blows) -> (usize, Vec<String>) {
    let world = held().await;
    let first = world.borrow().writes;
    world.borrow_mut().blows = blows.iter().map(|(k, blow)| (k + first, *blow)).collect();
    run(&world, "restore", lift::held).await;
    let writes = world.borrow().writes - first;
    pause(&world, 8).await;
    let mut bad = world.borrow().violations.clone();
    let mut check = |wrong: bool, what: &str| {
        if wrong {
            bad.push(what.to_owned());
        }
    };
    {
        let world = world.borrow();
        let (status, lease) = (&world.status, &world.lease);
        check(status.phase != Some(RestorePhase::Failed) || status.run.is_some(), "not ended");
        check(status.undo_deadline.is_none(), "no window runs");
        check(!status.message.as_ref().is_some_and(|said| said.contains("--lift-fence")), "status does not say how");
        check(lease.open.is_some() || lease.fence.is_some() || lease.holder.is_some(), "mark, fence or holder is left");
        check(world.own_contents().values().any(|content| !content.starts_with("new")), "a claim lost what it had");
        check(world.own_disks().count() != 2 * keys().len(), "a volume went before its day");
        let kept = world.own_disks().filter(|disk| disk.volume.marks.deadline.is_some()).count();
        check(kept != keys().len(), "the old volumes do not say until when they stay");
    }
    tokio::time::sleep(Duration::from_hours(25)).await;
    world.borrow_mut().released = true;
    run(&world, "release", release::next).await;
    pause(&world, 8).await;
    check(world.borrow().own_disks().count() != keys().len(), "the old volumes were not released");
    check(!world.borrow().finalizers.is_empty(), "finalizer left");
    (writes, bad)
}

#[test]
fn a_held_restore_is_ended_as_it_stands_after_every_blow_and_its_window_runs() {
    let rt = restore_sweep::runtime();
    let (writes, bad) = rt.block_on(lifted(&[]));
    assert!(bad.is_empty() && writes >= 5, "{writes} writes: {bad:?}");
    for k in 0..writes {
        for blow in BLOWS.into_iter().filter(|blow| *blow != Blow::Refuse) {
            let (_, bad) = rt.block_on(lifted(&[(k, blow)]));
            assert!(bad.is_empty(), "{k} {blow:?}: {bad:?}");
        }
    }
}

#[test]
fn a_held_restore_with_a_claim_that_has_no_volume_is_left_as_it_is() {
    restore_sweep::runtime().block_on(async {
        let world = held().await;
        world.borrow_mut().claims.remove("data-web-0");
        let want = want(&world.borrow(), "restore", 2);
        let process = Process::start(&world, want.clone());
        let lift = drive(&process, lift::held, View::new(want));
        let (exit, _) = tokio::time::timeout(Duration::from_hours(1), lift).await.expect("it never ends");
        let Exit::Refused(refusal) = exit else { panic!("{exit:?}") };
        assert!(
            refusal.message.contains("claim data-web-0 has no volume now; sts-backup undo shop/back"),
            "{refusal:?}"
        );
        assert!(world.borrow().lease.open.is_some() && world.borrow().lease.holder.is_none());
    });
}

const MARK: &str = r#"{"kind":"StatefulSetRestore","namespace":"shop","name":"back","uid":"gone","run":"r","pods":[]}"#;

fn put(server: &ApiServer, holder: &str, mark: &str) {
    let (open, user) = (annotation::OPEN, annotation::FENCE_USER);
    let meta = json!({ "labels": { label::FENCE: label::FENCE_VALUE }, "annotations": { open: mark, user: "runner" } });
    let spec = json!({ "holderIdentity": holder, "leaseTransitions": 4, "renewTime": "2027-01-15T08:00:00.000000Z" });
    server.act(|state| {
        state.store.purge(&shop::lease());
        state.store.create(&shop::lease(), json!({ "metadata": meta, "spec": spec }), false).unwrap();
    });
}

fn lease(server: &ApiServer) -> Value {
    server.look().store.get(&shop::lease()).unwrap().clone()
}

fn connection(server: &ApiServer) -> Connection {
    let client = server.client(Some(rbac::runner_verbs())).0;
    Connection { client, namespace: shop::NAMESPACE.into(), server: ServerClock::default(), in_pod: false }
}

#[test]
fn marks_without_an_object_go_once_nobody_renews_them() {
    wire::runtime().block_on(async {
        let (server, clock) = wire::world(&wire::Case::of(false));
        let lift = async || {
            let connection = connection(&server);
            let found = look(&connection, shop::NAMESPACE, shop::SET).await.unwrap();
            assert!(matches!(&found, Found::Orphan(Some(open)) if open.name == "back"), "{found:?}");
            let (next, want) =
                prepare(&found, &Settings::default(), (shop::NAMESPACE, shop::SET), clock.now()).unwrap();
            let cluster = Cluster::new(connection.client, want.clone(), clock);
            Box::pin(drive(&cluster, next, View::new(want))).await.0
        };
        for holder in ["", "restore/shop/back/dead"] {
            put(&server, holder, MARK);
            assert_eq!(lift().await, Exit::Done(Outcome::Succeeded), "{holder}");
            let (meta, spec) = (lease(&server)["metadata"].clone(), lease(&server)["spec"].clone());
            assert!(meta["labels"].get(label::FENCE).is_none(), "{meta}");
            for key in [annotation::OPEN, annotation::FENCE_USER] {
                assert!(meta["annotations"].get(key).is_none(), "{meta}");
            }
            assert_eq!((spec["leaseTransitions"].as_i64(), spec["holderIdentity"].as_str()), (Some(5), None));
        }
        put(&server, "restore/shop/back/alive", MARK);
        let renews = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                let now = clock.now().to_string();
                server.act(|state| {
                    state.store.change(&shop::lease(), false, |lease| lease["spec"]["renewTime"] = now.as_str().into());
                });
            }
        };
        let exit = tokio::select! { exit = lift() => exit, () = renews => unreachable!() };
        let Exit::Refused(refusal) = exit else { panic!("{exit:?}") };
        assert!(refusal.message.contains("restore/shop/back/alive holds the lock"), "{refusal:?}");
        assert_eq!(lease(&server)["metadata"]["annotations"][annotation::OPEN], MARK);
    });
}

#[test]
fn whose_object_is_there_and_not_held_keeps_its_marks() {
    wire::runtime().block_on(async {
        let (server, _) = wire::world(&wire::Case::of(true));
        let uid_of = |server: &ApiServer, key: &Key| server.look().store.get(key).unwrap()["metadata"]["uid"].clone();
        let said = async || look(&connection(&server), shop::NAMESPACE, shop::SET).await;
        assert!(matches!(said().await, Ok(Found::Nothing)), "there is no Lease");
        let mark = |kind: &str, name: &str, uid: &Value| {
            json!({ "kind": kind, "namespace": "shop", "name": name, "uid": uid, "run": "r" }).to_string()
        };
        put(&server, "", &mark("StatefulSetBackup", shop::POLICY, &uid_of(&server, &shop::object(shop::POLICY))));
        let why = said().await.unwrap_err().to_string();
        assert!(why.contains("StatefulSetBackup shop/nightly has the freeze of run r open"), "{why}");
        let key = Key::new("statefulsetrestores", shop::NAMESPACE, "back");
        let spec = json!({ "statefulSetRef": { "name": shop::SET }, "backupName": shop::POLICY });
        server.act(|state| state.store.create(&key, json!({ "metadata": {}, "spec": spec }), false).unwrap());
        put(&server, "", &mark("StatefulSetRestore", "back", &uid_of(&server, &key)));
        let run = json!({ "goal": "New", "slot": "" });
        for (status, held) in [
            (json!({ "phase": "Restoring", "run": run }), None),
            (json!({ "phase": "Failed", "run": run }), Some(true)),
            (json!({ "phase": "Failed" }), Some(false)),
        ] {
            server.act(|state| state.store.change(&key, true, |object| object["status"] = status.clone()));
            match (said().await, held) {
                (Err(error), None) => {
                    let why = error.to_string();
                    assert!(
                        why.contains("StatefulSetRestore shop/back is under way (Restoring) and not Held"),
                        "{why}"
                    );
                }
                (Ok(Found::Held(_)), Some(true)) | (Ok(Found::Orphan(Some(_))), Some(false)) => {}
                other => panic!("{status}: {other:?}"),
            }
        }
    });
}
