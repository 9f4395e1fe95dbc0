//! Hooks: a command in a running container, over a websocket.
//!
//! The connection is kept when the run gives up waiting, because its end is the only witness of the process's end:
//! no request can kill what an exec has started. stdout and stderr are drained all the time (an unread stream stops
//! the whole connection) and kept up to a bound; a connection that ends without a status tells nothing. What an answer
//! tells: `quiesce/answer.rs`.

mod answer;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{FusedFuture, FutureExt, Shared, join, pending};
use futures::stream::{self, Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep, timeout};

use super::clock::Clock;
use super::cluster::Cluster;
use super::lens;
use super::{Fault, Io};
use crate::api::lean::Pod;
use crate::error::{is_definite, may_pass, or_absent, sentence};
use crate::plan::flow::{Lost, Row, When};
use crate::plan::freeze;
use crate::plan::hook::{End, Exec, Place, Tried, Which};
use crate::plan::name::RunId;
use crate::plan::text;
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
/// The first of them is given up after so long, each further one after twice the time.
const LOOK: Duration = Duration::from_secs(2);

type Ending = Shared<Pin<Box<dyn Future<Output = Vec<Fact>>>>>;

/// The hooks that were started and whose end may still come.
#[derive(Default)]
pub(super) struct Hooks(RefCell<BTreeMap<(RunId, u32), Ending>>);

impl Hooks {
    /// Post: the hook's end, or that nobody waits for it any more. It is kept and may be heard of later.
    pub async fn run(&self, c: &Cluster, row: &'static Row, exec: &Exec) -> Result<Vec<Fact>, Fault> {
        let session = Session {
            namespace: c.want.statefulset_namespace.clone(),
            run: c.run(),
            step: row.name,
            exec: exec.clone(),
            begun: c.clock.now(),
            clock: c.clock,
            timer: Instant::now(),
            stdout: Rc::default(),
            stderr: Rc::default(),
            given_up: Rc::default(),
            sent: Rc::default(),
        };
        let _wanted = Wanted(session.given_up.clone());
        let ending: Pin<Box<dyn Future<Output = Vec<Fact>>>> = Box::pin(witness(c.client.clone(), session.clone()));
        let ending = ending.shared();
        let key = (exec.run, exec.place.ordinal);
        if exec.which == Which::Pre {
            self.0.borrow_mut().insert(key, ending.clone());
        }
        let end = tokio::select! {
            biased;
            facts = ending => return Ok(facts),
            () = c.stopped(), if row.yields => End::Lost(Lost::Stopped),
            () = c.sleep(exec.until) => End::Late(session.stderr.borrow().tail()),
        };
        if exec.which == Which::Pre && !session.sent.get() {
            self.0.borrow_mut().remove(&key);
            let why = "the API server did not say in time whether the pod is there";
            return Ok(vec![session.over(End::Refused(why.to_owned()), None)]);
        }
        Ok(vec![session.over(end, Some("given up, and perhaps at work still".to_owned()))])
    }

    /// The end of a pre hook that was given up, if it was started.
    pub fn end(&self, run: RunId, ordinal: u32) -> impl Stream<Item = Vec<Fact>> + use<> {
        stream::iter(self.0.borrow().get(&(run, ordinal)).cloned()).then(|ending| ending)
    }
}

/// A hook under way, with what it has said so far.
#[derive(Clone)]
struct Session {
    namespace: String,
    run: Option<String>,
    step: &'static str,
    exec: Exec,
    begun: Timestamp,
    clock: Clock,
    timer: Instant,
    stdout: Rc<RefCell<Kept>>,
    stderr: Rc<RefCell<Kept>>,
    given_up: Rc<Cell<bool>>,
    /// The command may have been started.
    sent: Rc<Cell<bool>>,
}

/// While it lives somebody waits for the hook. A hook that nobody waits for is not begun any more.
struct Wanted(Rc<Cell<bool>>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

impl Session {
    /// Writes the audit line, which ends what is told of the hook, and makes the fact.
    fn over(&self, end: End, message: Option<String>) -> Fact {
        let Session { exec, .. } = self;
        let (outcome, code) = match &end {
            End::Exit(0, _) => ("ok", Some(0)),
            End::Exit(code, _) => ("error", Some(*code)),
            End::NotStarted(_) | End::Refused(_) | End::Gone => ("refused", None),
            End::Lost(_) | End::Late(_) => ("unknown", None),
        };
        let message = message.or_else(|| match &end {
            End::NotStarted(why) | End::Refused(why) => Some(why.clone()),
            End::Gone => Some("the container of the intent is not there any more".to_owned()),
            _ => None,
        });
        let hook = Hook {
            pod: &exec.place.pod,
            container: &exec.place.container,
            argv: &format!("{:?}", exec.argv),
            exit_code: code,
            stdout: &self.stdout.borrow().text(),
            stderr: &self.stderr.borrow().text(),
        };
        let line = Audit {
            run: self.run.clone(),
            step: self.step,
            verb: "exec",
            object: &format!("pod/{}/{}", self.namespace, exec.place.pod),
            uid: Some(&exec.place.uid),
            outcome,
            code: None,
            duration: self.timer.elapsed(),
            message,
        };
        line.write_hook(&hook);
        let when = When { begun: self.begun, ended: self.clock.now() };
        Fact::Hook(Box::new(exec.clone()), Tried { when, end })
    }
}

async fn witness(client: kube::Client, session: Session) -> Vec<Fact> {
    let mut strayed = None;
    let hook = match attach(client, &session, &mut strayed).await {
        Ok(end) => session.over(end, None),
        Err(why) => session.over(End::Lost(Lost::Reply), Some(format!("{why}: whether the command ran is not known"))),
    };
    let strayed = strayed.map(|place| Fact::Strayed(session.exec.run, place));
    [hook].into_iter().chain(strayed).collect()
}

/// How it ended; `Err` says why nobody can tell.
async fn attach(client: kube::Client, session: &Session, strayed: &mut Option<Place>) -> Result<End, String> {
    let exec = &session.exec;
    let api: Api<Pod> = Api::namespaced(client, &session.namespace);
    match look(&api, &exec.place.pod, &session.given_up).await {
        Ok(pod) if !is_in(exec, pod.as_ref(), session.clock.now()) => return Ok(End::Gone),
        Ok(_) => {}
        Err(error) => return Ok(End::NotStarted(sentence(&error))),
    }
    let params = AttachParams::default().container(&exec.place.container).stdin(false).stdout(true).stderr(true);
    session.sent.set(true);
    let process = match api.exec(&exec.place.pod, &exec.argv, &params).await {
        Ok(process) => process,
        Err(error) => return answer::before(&error),
    };
    let ended = ended(process, session);
    let (status, place) = join(ended, entered(&api, exec, session)).await;
    *strayed = place;
    answer::after(status, &session.stderr.borrow().tail())
}

/// The last word on the connection; none: it was cut.
async fn ended(mut process: AttachedProcess, session: &Session) -> Option<Status> {
    let drains = join(drain(process.stdout(), session.stdout.clone()), drain(process.stderr(), session.stderr.clone()));
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
    status
}

/// Until there is an answer: nothing has been started yet, so to ask again costs nothing but the hook's own time.
async fn look(api: &Api<Pod>, name: &str, given_up: &Cell<bool>) -> kube::Result<Option<Pod>> {
    let mut patience = LOOK;
    loop {
        let answer = timeout(patience, api.get(name)).await;
        if given_up.get() {
            return Ok(None);
        }
        let Ok(answer) = answer.map(or_absent) else {
            patience *= 2;
            continue;
        };
        match answer {
            Err(error) if !is_definite(&error) || may_pass(&error) => sleep(AGAIN).await,
            answer => return answer,
        }
    }
}

/// A container that is replaced between the look and the exec: the pre hook has frozen its successor.
async fn entered(api: &Api<Pod>, exec: &Exec, session: &Session) -> Option<Place> {
    if exec.which == Which::Post {
        return None;
    }
    let pod = look(api, &exec.place.pod, &session.given_up).await.ok()??;
    let now = session.clock.now();
    if is_in(exec, Some(&pod), now) {
        return None;
    }
    exec.place.in_pod(&lens::pod(&pod, now))
}

/// Exec has no precondition: so the container is looked at right before.
fn is_in(exec: &Exec, pod: Option<&Pod>, now: Timestamp) -> bool {
    pod.is_some_and(|pod| freeze::is_same(Some(&lens::pod(pod, now)), Some(&exec.place)))
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

    /// In one line, since it comes to stand in sentences.
    fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        text::tail(&text::escape(text.trim()), TAIL).to_owned()
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
        assert!(kept.tail().ends_with("the end"));
        assert_eq!(kept.tail.len(), TAIL);
    }

    #[test]
    fn the_tail_is_one_line_of_at_most_512_bytes_whatever_was_written() {
        for hostile in ["no\n{\"time\":\"now\"}\n\x1b[2J", "ü", "漢字\r\n", "\u{202e}", "\u{1f389}\0"] {
            for odd in 0..8 {
                let mut kept = Kept::default();
                kept.add(&b"x".repeat(odd));
                kept.add(hostile.repeat(300).as_bytes());
                let tail = kept.tail();
                assert!(tail.len() <= TAIL && tail.len() > TAIL / 2, "{} bytes", tail.len());
                assert!(!tail.contains(text::is_control), "{tail:?}");
            }
        }
        let mut kept = Kept::default();
        kept.add(&[0xff; 2000]);
        assert!(kept.tail().len() <= TAIL, "each is shown as three");
    }
}
