//! What becomes of Jobs in the double: each gets a pod, in which the real runner carries out the run, until its backoff
//! limit is used up or the Job is gone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use sts_backup::generate::rbac;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::Outcome;
use sts_backup::run::Request;
use sts_backup::step::clock::Clock;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::apiserver::ApiServer;
use crate::apiserver::kind::Key;
use crate::apiserver::store::{text, words};
use crate::wire;

/// From the Job to a pod that is Ready.
const START: Duration = Duration::from_secs(2);
/// Before the pod that follows a failed one.
const PAUSE: Duration = Duration::from_secs(10);
/// backoffLimit.
const RETRIES: usize = 6;

/// What befalls a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Deleted before its pod begins.
    Vanishes,
    /// Deleted while its pod is at work.
    Torn,
    /// Its pod ends without a word while it is at work, and there is no other.
    Fails,
}

pub const FATES: [Fate; 3] = [Fate::Vanishes, Fate::Torn, Fate::Fails];

/// How long a pod is at work when its fate meets it: nothing is frozen by then. (Whoever takes up a run that was lost in
/// its freeze ends it, Failed: `sweep.rs`, and `watcher/lost.rs` on the cluster.)
const WORK: Duration = Duration::from_millis(150);

#[derive(Clone)]
pub struct Jobs {
    server: ApiServer,
    clock: Clock,
    fates: Rc<BTreeMap<usize, Fate>>,
    /// Names of all Jobs that there ever were, each as often as it was made.
    pub made: Rc<RefCell<Vec<String>>>,
}

impl Jobs {
    pub fn new(server: ApiServer, clock: Clock, fates: BTreeMap<usize, Fate>) -> Jobs {
        Jobs { server, clock, fates: Rc::new(fates), made: Rc::default() }
    }

    /// The controller. Needs a `LocalSet`.
    pub async fn control(self) {
        let (mut changes, mut known) = (self.server.changes(), BTreeSet::new());
        loop {
            let all: Vec<(Key, Value)> =
                self.server.look().store.all("jobs").map(|(key, job)| (key.clone(), job.clone())).collect();
            for (key, job) in all {
                if known.insert(text(&job, "/metadata/uid").to_owned()) {
                    let fate = self.fates.get(&self.made.borrow().len()).copied();
                    self.made.borrow_mut().push(key.name.clone());
                    spawn_local(self.clone().live(key, job, fate));
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn live(self, key: Key, job: Value, fate: Option<Fate>) {
        sleep(START).await;
        if fate == Some(Fate::Vanishes) {
            return self.server.act(|state| {
                state.log.push(format!("-- Job {} vanishes", key.name));
                state.store.purge(&key);
            });
        }
        self.tell(&key, &json!({ "active": 1, "ready": 1 }));
        let end = tokio::select! {
            biased;
            () = self.gone(text(&job, "/metadata/uid")) => return,
            () = self.meet(&key, fate) => json!([condition(self.clock, "Failed", "BackoffLimitExceeded")]),
            end = self.work(&job) => end,
        };
        self.tell(&key, &json!({ "conditions": end, "completionTime": format!("{:.0}", self.clock.now()) }));
    }

    /// One pod after the other.
    async fn work(&self, job: &Value) -> Value {
        let request = request(job);
        for _ in 0..=RETRIES {
            let (client, life) = self.server.client(Some(rbac::runner_verbs()));
            life.bystander.store(true, Ordering::Relaxed);
            let exit = Box::pin(wire::carry_out(&self.server, self.clock, &request, (client, life))).await;
            match exit {
                Some(Exit::Done(Outcome::Succeeded) | Exit::Waits(_)) => {
                    return json!([condition(self.clock, "Complete", "CompletionsReached")]);
                }
                Some(Exit::Done(_) | Exit::Refused(_) | Exit::Superseded(_)) => {
                    return json!([condition(self.clock, "Failed", "PodFailurePolicy")]);
                }
                Some(Exit::Again(_)) | None => sleep(PAUSE).await,
            }
        }
        json!([condition(self.clock, "Failed", "BackoffLimitExceeded")])
    }

    async fn meet(&self, key: &Key, fate: Option<Fate>) {
        let Some(fate) = fate else { return std::future::pending().await };
        sleep(WORK).await;
        if fate == Fate::Torn {
            self.server.act(|state| {
                state.log.push(format!("-- Job {} is deleted", key.name));
                state.store.purge(key);
            });
        }
    }

    async fn gone(&self, uid: &str) {
        let mut changes = self.server.changes();
        while self.server.look().store.by_uid(uid).is_some() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn tell(&self, key: &Key, status: &Value) {
        self.server.act(|state| state.store.change(key, true, |job| job["status"] = status.clone()));
    }
}

fn condition(clock: Clock, kind: &str, reason: &str) -> Value {
    json!({ "type": kind, "status": "True", "reason": reason, "lastTransitionTime": format!("{:.0}", clock.now()) })
}

/// What the kubelet makes of an argument: `$(NAME)` is a variable of the container, `$$` is `$`.
fn expand(text: &str, container: &Value) -> String {
    let variables = container["env"].as_array().into_iter().flatten();
    let names: BTreeSet<&str> = variables.filter_map(|variable| variable["name"].as_str()).collect();
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let name = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        rest = match (after.strip_prefix('$'), name) {
            (Some(after), _) => {
                out += "$";
                after
            }
            (None, Some((name, after))) if names.contains(name) => {
                out = out + "value of " + name;
                after
            }
            _ => {
                out += "$";
                after
            }
        };
    }
    out + rest
}

/// What the Job's arguments say.
fn request(job: &Value) -> Request {
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<_> = words(container, "/args").iter().map(|arg| expand(arg, container)).collect();
    let after = |flag: &str| args.iter().skip_while(|arg| *arg != flag).nth(1).cloned();
    let (namespace, name) = args[2].split_once('/').unwrap();
    Request {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        slot: after("--slot"),
        trigger: after("--trigger").unwrap().parse().unwrap(),
        attempt: after("--attempt").map(|attempt| attempt.parse().unwrap()),
    }
}
