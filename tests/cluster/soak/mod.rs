//! A random hour: StatefulSets of every shape are backed up, restored, undone and released, while pods, Jobs, watchers,
//! objects and a whole namespace are deleted under them, rights are taken away for seconds and the API server is killed.
//! In the end every object is settled or gone, every application holds one generation of its data in all its volumes,
//! and nothing is left behind.
//!
//! `SSB_SOAK`: for so many minutes; without it this is skipped.

mod lane;
mod namespace;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::{join, join_all};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use serde_json::{Value, json};
use sts_backup::api::{annotation, label};
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::harness::driver::{SIM, TWO};
use crate::harness::install::Release;
use crate::harness::make::{App, is_ready, word};
use crate::harness::run::runs;
use crate::harness::{Scene, With, scene, until};
use crate::kill::{Chance, setting};

/// What one of them is, beside its parts.
pub struct Shape {
    app: App<'static>,
    /// Merged into its manifest.
    more: fn() -> Value,
    /// With the hooks that freeze it.
    frozen: bool,
}

const fn shape(name: &'static str, replicas: u32, templates: &'static [(&'static str, &'static str)]) -> Shape {
    Shape { app: App { name, replicas, start: 0, templates }, more: || json!({}), frozen: false }
}

fn shapes() -> Vec<Shape> {
    let ordered = || json!({ "spec": { "podManagementPolicy": "OrderedReady" } });
    let deleted = || json!({ "spec": { "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Delete" } } });
    let partition = || json!({ "spec": { "updateStrategy": { "rollingUpdate": { "partition": 1 } } } });
    let slow = || json!({ "spec": { "template": { "spec": { "terminationGracePeriodSeconds": 5 } } } });
    let mut third = shape("third", 2, &[("a", SIM.class)]);
    third.app.start = 3;
    vec![
        shape("plain", 2, &[("a", SIM.class), ("b", SIM.class)]),
        Shape { more: ordered, ..shape("ordered", 3, &[("a", TWO.class)]) },
        third,
        shape("mixed", 1, &[("a", SIM.class), ("b", TWO.class)]),
        shape("late", 1, &[("a", "csi-wffc")]),
        Shape { more: deleted, ..shape("given", 2, &[("a", SIM.class)]) },
        shape("a-name-that-is-as-long-as-people-make-them", 1, &[("data-of-this-one", TWO.class)]),
        Shape { more: partition, ..shape("parted", 2, &[("a", SIM.class)]) },
        Shape { more: slow, ..shape("slow", 2, &[("a", TWO.class)]) },
        Shape { frozen: true, ..shape("frozen", 2, &[("a", SIM.class), ("b", TWO.class)]) },
    ]
}

impl Shape {
    fn manifest(&self) -> StatefulSet {
        let mut object = json!(self.app.manifest());
        merge(&mut object, &(self.more)());
        serde_json::from_value(object).unwrap()
    }

    /// Of its policy. No slot comes by itself.
    fn policy(&self) -> Value {
        let mut spec = json!({ "schedule": "0 3 1 1 *", "suspend": true, "retentionPolicy": { "keepLast": 3 } });
        if self.frozen {
            merge(
                &mut spec,
                &json!({
                    "preBackupHook": { "command": ["/bin/freeze"] }, "postBackupHook": { "command": ["/bin/thaw"] },
                }),
            );
        }
        spec
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// What all lanes share.
pub struct Hour<'a> {
    s: &'a Scene,
    release: &'a Release<'a>,
    /// Whoever looks at the cluster reads; whoever takes the API server away writes. So the test itself is not hit.
    calm: RwLock<()>,
    chance: Mutex<Chance>,
    end: Instant,
    /// What happened, and how often.
    seen: Mutex<BTreeMap<String, usize>>,
}

impl Hour<'_> {
    fn draw(&self, below: u64) -> u64 {
        self.chance.lock().unwrap().next() % below
    }

    fn saw(&self, what: impl Into<String>) {
        *self.seen.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// An instant up to so many seconds from now: not a wait for anything, it is what is drawn.
    async fn some_time(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_millis(self.draw(seconds * 1000))).await;
    }

    /// Looks while the API server is there.
    async fn until<T>(&self, what: &str, seconds: u64, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        until(what, seconds, async || {
            let _calm = self.calm.read().await;
            look().await
        })
        .await
    }
}

#[tokio::test]
async fn an_hour_of_trouble_leaves_everything_settled_and_whole() {
    let minutes: u64 = setting("SSB_SOAK", 0);
    if minutes == 0 {
        return println!("skipped: SSB_SOAK is not set (just soak)");
    }
    scene("soak", &[With::Healthy(SIM), With::Healthy(TWO)], async |s| {
        let beside = s.another_namespace("anew", &[]).await;
        // For all namespaces: rights that lie in a namespace go with it.
        let Some(release) = s.install(&["watchNamespaces=null"]).await else { return };
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = setting("SSB_SEED", u64::from(clock.subsec_nanos()));
        println!("SSB_SEED={seed} SSB_SOAK={minutes}");
        let hour = Hour {
            s,
            release: &release,
            calm: RwLock::default(),
            chance: Mutex::new(Chance(seed)),
            end: Instant::now() + Duration::from_mins(minutes),
            seen: Mutex::default(),
        };
        let shapes = shapes();
        let lanes = join_all(shapes.iter().map(|shape| lane::lane(&hour, shape)));
        let anew = namespace::anew(&hour, &beside);
        let ((kept, ()), ()) = join(join(lanes, anew), trouble::of_all(&hour)).await;
        for (what, count) in hour.seen.lock().unwrap().iter() {
            println!("{count:5} {what}");
        }
        join_all(shapes.iter().zip(kept).map(|(shape, kept)| nothing_left(&hour, shape, kept))).await;
        release.uninstall().await;
    })
    .await;
}

/// No mark, no staging claim, no partial run; no volume but those under claims, and what a restore that was deleted in its
/// midst has kept.
async fn nothing_left(hour: &Hour<'_>, shape: &Shape, kept: bool) {
    let (s, name) = (hour.s, shape.app.name);
    if kept {
        s.tidy_but_kept(name).await;
    } else {
        assert_eq!(s.tidy(name).await, [""; 0], "{name}: nothing is set aside any more");
    }
    let its = |claim: &str| claim.contains(&format!("-{name}-"));
    until(&format!("{name}: the end of what was released"), 180, async || {
        let claims = s.claims().await;
        let under: Vec<_> = claims.values().map(|(_, volume)| volume).collect();
        let of = |claim: Option<&k8s_openapi::api::core::v1::ObjectReference>| {
            claim.and_then(|claim| claim.name.clone()).is_some_and(|claim| its(&claim))
        };
        let all = s.own_volumes().await;
        let ours = all.iter().filter(|one| of(one.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref())));
        let ours = ours.filter(|one| !(kept && one.labels().contains_key(label::RESTORE)));
        let left: Vec<_> = ours.map(ResourceExt::name_any).filter(|name| !under.contains(&name)).collect();
        left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
    })
    .await;
    until(&format!("{name}: whole runs only"), 180, async || {
        let runs = runs(s, name).await;
        let whole =
            |all: &Vec<_>| all.len().to_string() == word(&all[0], annotation::RUN_SIZE) && all.iter().all(is_ready);
        let partial: Vec<_> = runs.iter().filter(|(_, all)| !whole(all)).map(|(run, _)| run).collect();
        partial.is_empty().then_some(()).ok_or_else(|| format!("{partial:?}"))
    })
    .await;
}
