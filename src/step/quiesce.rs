//! Hooks: a command in a running container, over a websocket.
//!
//! The connection is kept when the run gives up waiting, because its end is the only witness of the process's end:
//! no request can kill what an exec has started. stdout and stderr are drained all the time (an unread stream stops
//! the whole connection) and kept up to a bound; a connection that ends without a status tells nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{FusedFuture, FutureExt, Shared, pending};
use futures::stream::{self, Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep, timeout};

use super::Fault;
use super::clock::Clock;
use super::cluster::Cluster;
use super::observe;
use crate::api::lean::Pod;
use crate::error::{is_definite, sentence};
use crate::plan::flow::{Lost, Row, When};
use crate::plan::freeze;
use crate::plan::hook::{End, Exec, Place, Tried, Which};
use crate::plan::name::RunId;
use crate::plan::view::Fact;
use crate::telemetry::{Audit, Hook};

/// Bytes of stdout and of stderr that are logged.
const KEPT: usize = 64 * 1024;
/// Bytes of stderr that a failure's sentence repeats.
const TAIL: usize = 512;
/// After the status: what is on its way still.
const DRAIN: Duration = Duration::from_millis(200);

/// Between two looks at a pod, when the API server does not answer.
const AGAIN: Duration = Duration::from_millis(200);

type Ending = Shared<Pin<Box<dyn Future<Output = Vec<Fact>>>>>;

/// The hooks that were started and whose end may still come.
#[derive(Default)]
pub(super) struct Hooks(RefCell<BTreeMap<(RunId, u32), Ending>>);

impl Hooks {
    /// Post: the hook's end, also when it comes after everybody has stopped waiting for it.
    pub async fn run(&self, c: &Cluster, row: &'static Row, exec: &Exec) -> Result<Vec<Fact>, Fault> {
        let wanted = Wanted::default();
        let ending: Pin<Box<dyn Future<Output = Vec<Fact>>>> =
            Box::pin(witness(Scene::of(c, &wanted), c.run(), row.name, exec.clone()));
        let ending = ending.shared();
        if exec.which == Which::Pre {
            self.0.borrow_mut().insert((exec.run, exec.place.ordinal), ending.clone());
        }
        Ok(ending.await)
    }

    /// The end of a pre hook that was given up, if it was started.
    pub fn end(&self, run: RunId, ordinal: u32) -> impl Stream<Item = Vec<Fact>> + use<> {
        stream::iter(self.0.borrow().get(&(run, ordinal)).cloned()).then(|ending| ending)
    }
}

/// What a hook needs of the process: it outlives the step that began it.
struct Scene {
    client: kube::Client,
    namespace: String,
    clock: Clock,
    given_up: Rc<Cell<bool>>,
}

impl Scene {
    fn of(c: &Cluster, wanted: &Wanted) -> Scene {
        let (client, namespace) = (c.client.clone(), c.want.statefulset_namespace.clone());
        Scene { client, namespace, clock: c.clock, given_up: wanted.0.clone() }
    }
}

/// While it lives somebody waits for the hook. A hook that nobody waits for is not begun any more.
#[derive(Default)]
struct Wanted(Rc<Cell<bool>>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

async fn witness(scene: Scene, run: Option<String>, step: &'static str, exec: Exec) -> Vec<Fact> {
    let (namespace, clock) = (scene.namespace.clone(), scene.clock);
    let (begun, timer) = (clock.now(), Instant::now());
    let seen = attach(scene, &exec).await;
    let (outcome, code) = match &seen.end {
        End::Exit(0, _) => ("ok", Some(0)),
        End::Exit(code, _) => ("error", Some(*code)),
        End::NotStarted(_) | End::Gone => ("refused", None),
        End::Lost(_) => ("unknown", None),
    };
    let message = match &seen.end {
        End::NotStarted(why) => Some(why.clone()),
        End::Lost(_) => Some("the connection ended without a status: whether the command ran is not known".to_owned()),
        End::Gone => Some("the container of the intent is not there any more".to_owned()),
        End::Exit(..) => None,
    };
    let object = format!("pod/{namespace}/{}", exec.place.pod);
    let hook = Hook {
        pod: &exec.place.pod,
        container: &exec.place.container,
        argv: &format!("{:?}", exec.argv),
        exit_code: code,
        stdout: &seen.stdout.text(),
        stderr: &seen.stderr.text(),
    };
    let line = Audit {
        run,
        step,
        verb: "exec",
        object: &object,
        uid: Some(&exec.place.uid),
        outcome,
        code: None,
        duration: timer.elapsed(),
        message,
    };
    line.write_hook(&hook);
    let when = When { begun, ended: clock.now() };
    let strayed = seen.entered.map(|place| Fact::Strayed(exec.run, place));
    [Fact::Hook(Box::new(exec), Tried { when, end: seen.end })].into_iter().chain(strayed).collect()
}

struct Seen {
    end: End,
    stdout: Kept,
    stderr: Kept,
    /// Not the container that was meant.
    entered: Option<Place>,
}

impl Seen {
    fn nothing(end: End) -> Seen {
        Seen { end, stdout: Kept::default(), stderr: Kept::default(), entered: None }
    }
}

async fn attach(scene: Scene, exec: &Exec) -> Seen {
    let api: Api<Pod> = Api::namespaced(scene.client, &scene.namespace);
    match look(&api, &exec.place.pod, &scene.given_up).await {
        Ok(pod) if !is_in(exec, pod.as_ref()) => return Seen::nothing(End::Gone),
        Ok(_) => {}
        Err(error) => return Seen::nothing(End::NotStarted(sentence(&error))),
    }
    let params = AttachParams::default().container(&exec.place.container).stdin(false).stdout(true).stderr(true);
    let mut process = match api.exec(&exec.place.pod, &exec.argv, &params).await {
        Ok(process) => process,
        Err(error) if is_definite(&error) => return Seen::nothing(End::NotStarted(sentence(&error))),
        Err(_) => return Seen::nothing(End::Lost(Lost::Reply)),
    };
    let entered = entered(&api, exec).await;
    let (stdout, stderr) = (Rc::new(RefCell::new(Kept::default())), Rc::new(RefCell::new(Kept::default())));
    let drains =
        futures::future::join(drain(process.stdout(), stdout.clone()), drain(process.stderr(), stderr.clone()));
    let mut drains = Box::pin(drains.fuse());
    let status = match process.take_status() {
        Some(status) => tokio::select! {
            status = status => status,
            never = async { drains.as_mut().await; pending().await } => never,
        },
        None => None,
    };
    // On a connection that was cut the streams never end: they are given a moment, no more.
    if !drains.is_terminated() {
        let _ = timeout(DRAIN, drains).await;
    }
    process.abort();
    let (stdout, stderr) = (stdout.take(), stderr.take());
    Seen { end: end(status, &stderr.tail(TAIL)), stdout, stderr, entered }
}

/// Until there is an answer: nothing has been started yet, so to ask again costs nothing but the hook's own time.
async fn look(api: &Api<Pod>, name: &str, given_up: &Cell<bool>) -> kube::Result<Option<Pod>> {
    loop {
        let answer = api.get_opt(name).await;
        if given_up.get() {
            return Ok(None);
        }
        match answer {
            Err(error) if !is_definite(&error) => sleep(AGAIN).await,
            answer => return answer,
        }
    }
}

/// A container that is replaced between the look and the exec: the pre hook has frozen its successor.
async fn entered(api: &Api<Pod>, exec: &Exec) -> Option<Place> {
    if exec.which == Which::Post {
        return None;
    }
    let pod = api.get_opt(&exec.place.pod).await.ok()??;
    if is_in(exec, Some(&pod)) {
        return None;
    }
    let pod = observe::pod(&pod);
    let container = pod.containers.into_iter().find(|container| container.name == exec.place.container)?;
    let (container_id, restarts) = (container.id?, container.restarts);
    Some(Place { uid: pod.uid, container_id, restarts, ..exec.place.clone() })
}

/// Exec has no precondition: so the container is looked at right before.
fn is_in(exec: &Exec, pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| freeze::is_same(Some(&observe::pod(pod)), Some(&exec.place)))
}

/// What the kubelet's last word says of the process.
fn end(status: Option<Status>, tail: &str) -> End {
    let Some(status) = status else { return End::Lost(Lost::Reply) };
    if status.status.as_deref() == Some("Success") {
        return End::Exit(0, String::new());
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.clone()).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match (status.reason.as_deref(), code.and_then(|cause| cause.message.as_ref()?.parse().ok())) {
        (Some("NonZeroExitCode"), Some(code)) => End::Exit(code, tail.to_owned()),
        _ => End::NotStarted(status.message.unwrap_or_else(|| "the kubelet gave no reason".into())),
    }
}

async fn drain(stream: Option<impl AsyncRead + Unpin>, kept: Rc<RefCell<Kept>>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        kept.borrow_mut().add(&buffer[..count]);
    }
}

/// The beginning of a stream, its last bytes, and how much there was.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    all: usize,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        self.all += bytes.len();
        let room = KEPT.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.head).into_owned();
        match self.all - self.head.len() {
            0 => text,
            more => format!("{text}\n[{more} more bytes left out]"),
        }
    }

    fn tail(&self, most: usize) -> String {
        let from = self.tail.len().saturating_sub(most);
        String::from_utf8_lossy(&self.tail[from..]).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_up_to_a_bound_with_a_mark_and_its_tail() {
        let mut kept = Kept::default();
        for chunk in 0..200_u8 {
            kept.add(&[b'a' + chunk % 26; 1000]);
        }
        kept.add(b"the end");
        assert_eq!(kept.head.len(), KEPT);
        assert!(kept.text().ends_with(&format!("[{} more bytes left out]", 200_007 - KEPT)));
        assert!(kept.tail(TAIL).ends_with("the end"));
        assert_eq!(kept.tail.len(), TAIL);
    }

    #[test]
    fn no_status_is_neither_success_nor_failure() {
        assert_eq!(end(None, ""), End::Lost(Lost::Reply));
        let ok = Status { status: Some("Success".into()), ..Status::default() };
        assert_eq!(end(Some(ok), ""), End::Exit(0, String::new()));
        let odd = Status { status: Some("Failure".into()), reason: Some("InternalError".into()), ..Status::default() };
        assert!(matches!(end(Some(odd), ""), End::NotStarted(_)));
    }
}
