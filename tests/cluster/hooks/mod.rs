//! Hooks on real pods: frozen only for the cut, thawed whatever happens.
//!
//! Every hook of these tests writes down its own instants, in nanoseconds, in the first volume of its pod; the driver
//! writes down those of its cuts. Whether an application stands still, a file beside it says.

mod cut_off;
mod failing;
mod frozen;
mod killed;
mod restarted;
mod session;
mod together;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::driver::{Driver, TWO};
use crate::harness::make::App;
use crate::harness::product::Running;
use crate::harness::{Scene, With, until};

/// `ns` prints this instant in nanoseconds: the pod's busybox knows microseconds.
const NS: &str = "ns() { echo | ts %.s | tr -d '. ' | sed 's/$/000/'; }; at=$(ns)";

/// A hook of the shell. `$at` is the instant at which it began.
pub fn sh(script: &str) -> Value {
    json!({ "command": ["sh", "-c", format!("{NS}; {script}")], "timeoutSeconds": 10 })
}

/// Freezes, and never what is frozen already: with exit code 9 then. What it writes down is when all was still.
pub const FREEZE: &str = "[ ! -e /run/lock-app/frozen ] || exit 9; freeze; ns >> /a/pre";
/// Writes down when it began, and thaws.
pub const THAW: &str = "echo $at >> /a/post; thaw";

/// A storage slow enough to be struck in the cut; most tests share it.
pub fn slow() -> With {
    With::Alike(TWO, json!({ "cutDelay": "5s" }))
}

/// Both hooks in a policy's spec.
pub fn hooks() -> Value {
    json!({ "preBackupHook": sh(FREEZE), "postBackupHook": sh(THAW) })
}

/// The same and more.
pub fn hooks_and(more: &Value) -> Value {
    let mut spec = hooks();
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    spec
}

/// An application with one volume in each replica.
pub fn small<'a>(name: &'a str, replicas: u32, templates: &'a [(&'a str, &'a str)]) -> App<'a> {
    App { name, replicas, start: 0, templates }
}

/// One volume `a` of that driver.
pub fn one(driver: Driver) -> [(&'static str, &'static str); 1] {
    [("a", driver.class)]
}

impl Scene {
    /// The instants that a hook has written down in a pod.
    pub async fn instants(&self, pod: &str, hook: &str) -> Vec<i64> {
        let text = self.exec(pod, &format!("cat /a/{hook} 2> /dev/null || true")).await;
        text.lines().map(|line| line.trim().parse().unwrap_or_else(|_| panic!("{pod} {hook}: {text:?}"))).collect()
    }

    /// Whether `freeze` holds the application of the pod.
    pub async fn is_frozen(&self, pod: &str) -> bool {
        self.exec(pod, "test -e /run/lock-app/frozen && echo frozen || true").await.trim() == "frozen"
    }

    /// No application stands still, and every one counts on.
    pub async fn runs_free(&self, statefulset: &str) {
        for pod in self.pods(statefulset).await.iter().map(ResourceExt::name_any) {
            assert!(!self.is_frozen(&pod).await, "{pod} was left frozen");
            let counter = async || self.exec(&pod, "cat /a/counter").await;
            let before = counter().await;
            until(&format!("{pod} to go on"), 30, async || {
                let now = counter().await;
                (now > before).then_some(()).ok_or(now)
            })
            .await;
        }
    }

    /// Kills the container's first process by its own hand; the kubelet starts it anew.
    pub async fn restart(&self, pod: &str) {
        let restarts = async || {
            let status = self.api::<Pod>().get(pod).await.unwrap().status.unwrap_or_default();
            let one = status.container_statuses.unwrap_or_default().pop().unwrap();
            (one.restart_count, one.state.and_then(|state| state.running).is_some())
        };
        let (before, _) = restarts().await;
        self.exec(pod, "kill 1").await;
        until(&format!("{pod} to be restarted"), 120, async || {
            let (now, runs) = restarts().await;
            (now > before && runs).then_some(()).ok_or_else(|| format!("{now} restarts, runs: {runs}"))
        })
        .await;
    }
}

impl Running {
    /// Waits until it has written so many audit lines of the step: a repeated thaw takes its minutes.
    pub async fn reaches(&self, step: &str, count: usize) {
        until(&format!("{count} lines of {step}"), 400, async || {
            let lines = self.log.audit();
            let there = lines.iter().filter(|line| line.step == step).count();
            (there >= count).then_some(()).ok_or_else(|| format!("{there} of {} lines", lines.len()))
        })
        .await;
    }
}
