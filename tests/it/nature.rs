//! The world beside the double: snapshot controller and driver, StatefulSet controller, volume binder, protection,
//! garbage collector and kubelet, each with its delay on the virtual clock; and the lock in each container.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sts_backup::api::label;

pub use crate::act::Act;
use crate::apiserver::kind::Key;
use crate::apiserver::store::{Change, Store, What, text, words};
use crate::apiserver::{ApiServer, State};
use crate::restore::double::storage::Storage;
pub use crate::shop::Deed;
use crate::shop::{self, NAMESPACE, SET};

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";

/// What a driver complains of.
pub const SICK: &str = "rpc error: the pool is busy";

/// What is yet to come of a change.
#[derive(Debug, Clone)]
enum Due {
    /// The controller makes a content for the snapshot of this uid.
    Content(String),
    Cut(String),
    /// The controller tells of the cut on the snapshot.
    Told(String),
    Ready(String),
    /// The content of a snapshot that is gone goes.
    Forgotten(String),
    /// The snapshot of this uid, which is being deleted, is let go.
    Gone(String),
    Bound(Key),
    Pod(u32),
    /// Somebody takes a name of the run of this id.
    Squat(String),
    Strike(fn(&mut State)),
    Collect,
}

/// How it was when a snapshot was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub all_frozen: bool,
    /// Thaws that had found a frozen pod by then.
    pub thaws: u32,
}

/// How long the world takes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub cut: SignedDuration,
    pub ready: SignedDuration,
    pub hook: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            cut: SignedDuration::from_millis(300),
            ready: SignedDuration::from_secs(60),
            hook: Duration::from_millis(10),
        }
    }
}

#[derive(Debug, Default)]
pub struct Nature {
    pub hooks: bool,
    /// Somebody takes names of each run as soon as its id is known.
    pub squats: bool,
    /// Who runs has rights of their own, and looks at no policy.
    pub by_hand: bool,
    /// What happens right after a snapshot was made, before it is cut.
    pub strike: Option<fn(&mut State)>,
    pub pace: Pace,
    agenda: BTreeMap<(Timestamp, u64), Due>,
    count: u64,
    seen: u64,
    /// By containerID.
    pub locks: BTreeMap<String, bool>,
    /// The driver takes no snapshot before then, and complains of each that it is asked for.
    pub sick_until: Option<Timestamp>,
    /// By the uid of the snapshot.
    pub evidence: BTreeMap<String, Evidence>,
    pub thaws: u32,
    pub alarm: Option<Timestamp>,
    /// From SIGTERM to the first thaw after it, where a pod was frozen.
    pub answered: Option<SignedDuration>,
    /// What a command does, by pod and first word, where it is not what it should.
    pub scripts: BTreeMap<(String, String), Act>,
    /// The world of a restore: other controllers are at work in it, and none of these.
    pub storage: Option<Storage>,
}

/// The clockwork: whatever is due takes place, and then what follows from it.
pub async fn live(server: ApiServer) {
    let mut changes = server.changes();
    loop {
        let next = server.look().nature.next();
        let now = server.look().store.clock.now();
        let wait = next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => server.act(|_| {}),
            news = changes.changed() => if news.is_err() { return },
        }
    }
}

impl Nature {
    pub fn new(hooks: bool, pace: Pace) -> Nature {
        Nature { hooks, pace, ..Nature::default() }
    }

    /// In the world of a restore.
    pub fn of_restore() -> Nature {
        Nature { storage: Some(Storage::default()), ..Nature::default() }
    }

    fn next(&self) -> Option<Timestamp> {
        self.storage.as_ref().map_or_else(|| self.agenda.keys().next().map(|(at, _)| *at), Storage::next)
    }

    pub fn settle(state: &mut State) {
        if let Some(storage) = state.nature.storage.take() {
            state.nature.storage = Some(storage.settle(state));
            return;
        }
        loop {
            let now = state.store.clock.now();
            let from = state.store.log.partition_point(|change| change.version <= state.nature.seen);
            let fresh: Vec<Change> = state.store.log[from..].to_vec();
            state.nature.seen = state.store.version();
            for change in &fresh {
                state.nature.react(change, now);
            }
            let Some(key) = state.nature.agenda.keys().next().copied().filter(|(at, _)| *at <= now) else {
                if fresh.is_empty() {
                    return;
                }
                continue;
            };
            let due = state.nature.agenda.remove(&key).unwrap();
            due.take_place(state);
        }
    }

    /// Something that happens by itself.
    pub fn later(&mut self, at: Timestamp, strike: fn(&mut State)) {
        self.plan(at, Due::Strike(strike));
    }

    fn after(&mut self, now: Timestamp, ms: i64, due: Due) {
        self.plan(now + SignedDuration::from_millis(ms), due);
    }

    fn plan(&mut self, at: Timestamp, due: Due) {
        self.count += 1;
        self.agenda.insert((at, self.count), due);
    }

    fn react(&mut self, change: &Change, now: Timestamp) {
        let uid = text(&change.object, "/metadata/uid").to_owned();
        let leaving = change.object["metadata"]["deletionTimestamp"].is_string();
        match (change.key.kind.resource, change.what) {
            ("volumesnapshots", What::Added) => {
                self.after(now, 10, Due::Content(uid));
                if let Some(strike) = self.strike {
                    self.after(now, 5, Due::Strike(strike));
                }
            }
            ("volumesnapshots", What::Modified) if leaving => self.after(now, 300, Due::Gone(uid)),
            ("volumesnapshots", What::Deleted) => self.after(now, 300, Due::Forgotten(uid)),
            ("statefulsetbackups", What::Modified) if self.squats => {
                let id = text(&change.object, "/status/run/id").to_owned();
                self.after(now, 0, Due::Squat(id));
            }
            ("persistentvolumeclaims", What::Added) => self.after(now, 100, Due::Bound(change.key.clone())),
            ("persistentvolumeclaims", What::Modified) if leaving => self.after(now, 500, Due::Collect),
            ("statefulsets", What::Added) => {
                let replicas = change.object["spec"]["replicas"].as_u64().unwrap_or(1);
                let ordinals = 0..u32::try_from(replicas).unwrap();
                ordinals.for_each(|ordinal| self.after(now, 1000, Due::Pod(ordinal)));
            }
            ("pods", What::Deleted) => {
                let ordinal = change.key.name.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok());
                if let Some(ordinal) = ordinal {
                    self.after(now, 1000, Due::Pod(ordinal));
                }
                self.after(now, 500, Due::Collect);
            }
            (_, What::Deleted) => self.after(now, 500, Due::Collect),
            _ => {}
        }
    }

    pub fn is_locked(&self, container: &str) -> bool {
        self.locks.get(container).copied().unwrap_or_default()
    }

    pub fn unlock(&mut self, container: &str) {
        self.thaws += u32::from(self.locks.insert(container.to_owned(), false) == Some(true));
    }

    /// The process is told to end.
    pub fn alarm(&mut self, now: Timestamp) {
        self.alarm = self.locks.values().any(|locked| *locked).then_some(now);
        self.answered = None;
    }
}

/// The snapshot of this uid, if it is there and stays.
fn snapshot(store: &Store, uid: &str) -> Option<(Key, Value)> {
    let (key, object) = store.by_uid(uid)?;
    (!object["metadata"]["deletionTimestamp"].is_string()).then(|| (key.clone(), object.clone()))
}

fn content(uid: &str) -> Key {
    Key::new("volumesnapshotcontents", "", &format!("snapcontent-{uid}"))
}

impl Due {
    fn take_place(self, state: &mut State) {
        match self {
            Due::Content(uid) => make_content(state, &uid),
            Due::Cut(uid) => cut(state, &uid),
            Due::Told(uid) => tell(state, &uid, false),
            Due::Ready(uid) => {
                state.store.change(&content(&uid), true, |object| object["status"]["readyToUse"] = true.into());
                tell(state, &uid, true);
            }
            Due::Forgotten(uid) => state.store.purge(&content(&uid)),
            Due::Gone(uid) => {
                state.store.purge(&content(&uid));
                let Some(key) = state.store.by_uid(&uid).map(|(key, _)| key.clone()) else { return };
                state.store.change(&key, false, |object| object["metadata"]["finalizers"] = json!([]));
            }
            Due::Bound(key) => state.store.change(&key, true, |object| object["status"] = json!({ "phase": "Bound" })),
            Due::Pod(ordinal) => shop::pod(state, ordinal),
            Due::Strike(strike) => strike(state),
            Due::Squat(id) => shop::squat(&mut state.store, &id),
            Due::Collect => collect(state),
        }
    }
}

fn make_content(state: &mut State, uid: &str) {
    let Some((key, object)) = snapshot(&state.store, uid) else { return };
    let now = state.store.clock.now();
    let claim = text(&object, "/spec/source/persistentVolumeClaimName").to_owned();
    let claim = state.store.get(&Key::new("persistentvolumeclaims", &key.namespace, &claim)).cloned();
    let Some(claim) = claim.filter(|claim| claim["status"]["phase"] == "Bound") else {
        let error = json!({ "error": { "message": "the claim is not bound" }, "readyToUse": false });
        state.store.change(&key, true, |object| object["status"] = error);
        state.nature.after(now, 5000, Due::Content(uid.to_owned()));
        return;
    };
    let body = json!({
        "metadata": {},
        "spec": {
            "driver": shop::DRIVER, "deletionPolicy": "Delete",
            "source": { "volumeHandle": claim["spec"]["volumeName"] },
            "volumeSnapshotClassName": object["spec"]["volumeSnapshotClassName"],
            "volumeSnapshotRef": { "name": key.name, "namespace": key.namespace, "uid": uid },
        },
    });
    let _ = state.store.create(&content(uid), body, false);
    state.store.change(&key, false, |object| object["metadata"]["finalizers"] = json!([BOUND]));
    let ordinal: i64 = object["metadata"]["labels"][label::ORDINAL].as_str().and_then(|o| o.parse().ok()).unwrap_or(0);
    let cut = now + state.nature.pace.cut + SignedDuration::from_millis(50 * ordinal);
    state.nature.plan(cut, Due::Cut(uid.to_owned()));
}

fn cut(state: &mut State, uid: &str) {
    if snapshot(&state.store, uid).is_none() {
        return;
    }
    let (now, running) = (state.store.clock.now(), shop::containers(&state.store));
    if state.nature.sick_until.is_some_and(|until| now < until) {
        complain(state, uid);
        state.nature.after(now, 2000, Due::Cut(uid.to_owned()));
        return;
    }
    let all_frozen = !running.is_empty() && running.iter().all(|id| state.nature.is_locked(id));
    state.nature.evidence.insert(uid.to_owned(), Evidence { all_frozen, thaws: state.nature.thaws });
    let nanoseconds = i64::try_from(now.as_nanosecond()).unwrap();
    let status = json!({ "snapshotHandle": format!("handle-{uid}"), "creationTime": nanoseconds, "readyToUse": false });
    state.store.change(&content(uid), true, |object| object["status"] = status);
    state.nature.after(now, 700, Due::Told(uid.to_owned()));
    let ready = now + state.nature.pace.ready;
    state.nature.plan(ready, Due::Ready(uid.to_owned()));
}

/// As the sidecar does it, which tries again by itself.
fn complain(state: &mut State, uid: &str) {
    let Some((key, _)) = snapshot(&state.store, uid) else { return };
    let status = json!({ "error": { "message": SICK }, "readyToUse": false });
    state.store.change(&content(uid), true, |object| object["status"] = status.clone());
    state.store.change(&key, true, |object| object["status"] = status.clone());
}

fn tell(state: &mut State, uid: &str, ready: bool) {
    let Some((key, _)) = snapshot(&state.store, uid) else { return };
    let at = state.store.get(&content(uid)).and_then(|content| content["status"]["creationTime"].as_i64());
    let at = Timestamp::from_nanosecond(at.unwrap_or_default().into()).unwrap();
    let mut status = json!({
        "boundVolumeSnapshotContentName": content(uid).name, "readyToUse": ready,
        "creationTime": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    if ready {
        status["restoreSize"] = "1Gi".into();
    }
    state.store.change(&key, true, |object| object["status"] = status);
}

/// What has lost its owners goes, and claims that no pod uses any more.
fn collect(state: &mut State) {
    let is_orphan = |object: &Value| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|owners| {
            !owners.is_empty() && owners.iter().all(|owner| state.store.by_uid(text(owner, "/uid")).is_none())
        })
    };
    let all = ["pods", "volumesnapshots", "persistentvolumeclaims"].into_iter();
    let objects = all.flat_map(|resource| state.store.all(resource));
    let orphans: Vec<Key> = objects.filter(|(_, object)| is_orphan(object)).map(|(key, _)| key.clone()).collect();
    for key in orphans {
        if key.kind.resource == "pods" {
            state.store.purge(&key);
        } else {
            let _ = state.store.delete(&key, &crate::apiserver::store::Preconditions::default(), false);
        }
    }
    let used = |name: &str| {
        let ordinal = name.rsplit_once('-').map_or("", |(_, ordinal)| ordinal);
        state.store.get(&Key::new("pods", NAMESPACE, &format!("{SET}-{ordinal}"))).is_some()
    };
    let free = state.store.all("persistentvolumeclaims").filter(|(key, object)| {
        object["metadata"]["deletionTimestamp"].is_string()
            && words(object, "/metadata/finalizers") == [CLAIM_PROTECTION]
            && !used(&key.name)
    });
    let free: Vec<Key> = free.map(|(key, _)| key.clone()).collect();
    for key in &free {
        state.store.change(key, false, |object| object["metadata"]["finalizers"] = json!([]));
    }
}
