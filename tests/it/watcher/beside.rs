//! Beside another installation: what that one managed says so when it is gone, and is handed over; while it lives nothing
//! of it is touched.

use sts_backup::run::handover::{self, Managed, Proof};

use super::*;

const NAME: &str = "other";
const OLD: &str = "old/sts-backup";

fn status(server: &ApiServer) -> Value {
    server.look().store.get(&shop::object(NAME)).map(|object| object["status"].clone()).unwrap_or_default()
}

fn waiting(server: &ApiServer) -> Value {
    let status = status(server);
    let found = status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Waiting").cloned();
    found.unwrap_or_default()
}

fn events(server: &ApiServer) -> Vec<String> {
    let state = server.look();
    let all = state.store.all("events").filter(|(_, event)| event["regarding"]["name"] == NAME);
    all.map(|(_, event)| format!("{} {}", text(event, "/type"), text(event, "/reason"))).collect()
}

/// With that Lease of the other installation, if it has one.
fn start(lease: Option<&str>) -> ApiServer {
    let (server, clock) = undisturbed();
    server.act(|state| {
        state.store.create(&Key::new("namespaces", "", "old"), json!({ "metadata": {} }), false).unwrap();
        state.store.change(&shop::object(NAME), true, |object| object["status"] = json!({ "managedBy": OLD }));
        if let Some(holder) = lease {
            let spec = json!({ "holderIdentity": holder, "renewTime": "2027-01-15T08:00:00.000000Z" });
            state.store.create(&leader(), json!({ "metadata": {}, "spec": spec }), false).unwrap();
        }
    });
    at_work(&server, clock);
    server
}

fn leader() -> Key {
    Key::new("leases", "old", "leader-sts-backup")
}

async fn renews(server: ApiServer) {
    for n in 0.. {
        sleep(Duration::from_secs(20)).await;
        let at = format!("2027-01-15T08:00:00.{n:06}Z");
        server
            .act(|state| state.store.change(&leader(), false, |lease| lease["spec"]["renewTime"] = at.as_str().into()));
    }
}

#[test]
fn what_an_installation_that_is_gone_managed_says_so_and_is_handed_over() {
    LocalSet::new().block_on(&runtime(), async {
        let server = start(None);
        sleep(Duration::from_secs(30)).await;
        let told = waiting(&server);
        assert_eq!((text(&told, "/status"), text(&told, "/reason")), ("True", "ManagedByAnother"), "{told}");
        assert!(text(&told, "/message").contains("doctor --take-over shop/other"), "{told}");
        assert_eq!(status(&server)["managedBy"], OLD, "it is still that one's");
        assert_eq!(events(&server), ["Warning ManagedByAnother"]);
        sleep(MINUTE * 5).await;
        assert!(status(&server)["lastRun"].is_null(), "nobody acts on it");
        assert_eq!(events(&server).len(), 1, "told once");

        let (admin, _) = server.client(None);
        assert_eq!(handover::prove(&admin, OLD).await.unwrap(), Proof::Gone);
        let installs = handover::installs(&admin, None).await.unwrap();
        let object = Managed { kind: "StatefulSetBackup", namespace: shop::NAMESPACE.into(), name: NAME.into() };
        assert_eq!(installs[&Some(OLD.to_owned())], std::slice::from_ref(&object));
        assert_eq!(installs[&Some(INSTALL.to_owned())].len(), SCHEDULES.len() - 1);
        assert!(!handover::release(&admin, "else/where", &object).await.unwrap(), "it is not that one's");
        assert!(handover::release(&admin, OLD, &object).await.unwrap());
        sleep(MINUTE).await;
        let after = status(&server);
        assert_eq!(after["managedBy"], INSTALL, "{after}");
        assert_eq!(after["lastRun"]["outcome"], "Succeeded", "{after}");
        assert_ne!(text(&waiting(&server), "/status"), "True");
        server.act(|state| assert_eq!(state.violations, [] as [String; 0]));
    });
}

#[test]
fn what_an_installation_that_lives_manages_is_left_alone() {
    LocalSet::new().block_on(&runtime(), async {
        let server = start(Some("pod"));
        spawn_local(renews(server.clone()));
        sleep(MINUTE * 5).await;
        assert_eq!(status(&server), json!({ "managedBy": OLD }), "nothing is written");
        assert_eq!(events(&server), ["Normal ManagedByAnother"]);
        let (admin, _) = server.client(None);
        let Proof::Lives(why) = handover::prove(&admin, OLD).await.unwrap() else { panic!("it lives") };
        assert!(why.contains("has just renewed Lease old/leader-sts-backup"), "{why}");
    });
}

#[test]
fn a_lease_that_falls_silent_and_a_deployment_that_is_left() {
    LocalSet::new().block_on(&runtime(), async {
        let server = start(Some("pod"));
        sleep(MINUTE * 2).await;
        assert_eq!(text(&waiting(&server), "/reason"), "ManagedByAnother");
        let (admin, _) = server.client(None);
        let begun = tokio::time::Instant::now();
        assert_eq!(handover::prove(&admin, OLD).await.unwrap(), Proof::Gone);
        assert!(begun.elapsed() >= MINUTE, "it is watched for as long as a watcher may keep silent");
        let key = Key::new("deployments", "old", "sts-backup");
        let of = |replicas: u32| json!({ "metadata": {}, "spec": { "replicas": replicas } });
        server.act(|state| state.store.create(&key, of(1), false).unwrap());
        let Proof::Lives(why) = handover::prove(&admin, OLD).await.unwrap() else { panic!("it may come back") };
        assert!(why.contains("scale deployment sts-backup --replicas=0"), "{why}");
        server.act(|state| state.store.change(&key, false, |object| object["spec"]["replicas"] = 0.into()));
        assert_eq!(handover::prove(&admin, OLD).await.unwrap(), Proof::Gone);
        // Who may read neither has no proof.
        let (blind, _) = server.client(Some(vec![]));
        assert!(matches!(handover::prove(&blind, OLD).await.unwrap(), Proof::Hidden(_)));
    });
}
