//! The double of the API server: a service under `kube::Client`, without sockets, on the virtual clock.
//!
//! It has the real semantics of what the product uses, proven by the scripts in `conformance/`, and answers 501 to
//! anything else, so that it cannot lie. Whoever asks has the generated role and no right more.

mod admit;
pub mod answer;
pub mod apply;
pub mod crowd;
mod exec;
pub mod fault;
pub mod kind;
pub mod request;
pub mod select;
pub mod store;
mod watch;

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::pending;
use futures::stream::{self, Stream, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use sts_backup::plan::flow::Verb;
use sts_backup::step::clock::Clock;
use tokio::sync::watch as signal;
use tower::{BoxError, Service};

use self::answer::No;
use self::crowd::{Crowd, Inside};
use self::fault::{Class, Faults, Life, Strike};
use self::request::Ask;
use self::store::Store;
use super::nature::Nature;

pub type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>;
type Answer = Response<StreamBody<Chunks>>;

/// How long a request is on its way, there and back.
const WAY: Duration = Duration::from_millis(5);

/// For so many requests of the other's a write waits for its turn.
const PATIENCE: usize = 30;

/// All that there is: what is stored, what the world beside it does, and what is to go wrong.
pub struct State {
    pub store: Store,
    pub nature: Nature,
    pub faults: Faults,
    /// One line per request.
    pub log: Vec<String>,
    /// What must never be, and was.
    pub violations: Vec<String>,
    /// Looks at all that is stored after a request that was carried out.
    pub check: fn(&mut State, &Ask),
    /// Watches that began before this many cuts have lost their connection.
    pub cuts: u64,
    /// How many requests of a kind are under way at once.
    pub crowd: Crowd,
}

impl State {
    fn is_away(&self) -> bool {
        self.faults.away_until.is_some_and(|until| self.store.clock.now() < until)
    }
}

#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    changed: signal::Sender<u64>,
}

impl ApiServer {
    /// With the world beside it at work. Needs a runtime, whose end is theirs.
    pub fn start(clock: Clock, nature: Nature) -> ApiServer {
        let store = Store::new(clock);
        let check: fn(&mut State, &Ask) = |state, _| super::truth::check(state);
        let (faults, log, violations) = (Faults::default(), vec![], vec![]);
        let crowd = Crowd::default();
        let state = State { store, nature, faults, log, violations, check, cuts: 0, crowd };
        let server = ApiServer { state: Arc::new(Mutex::new(state)), changed: signal::Sender::new(0) };
        tokio::spawn(super::nature::live(server.clone()));
        server
    }

    /// Whoever holds this is alone with the world: no await while it is held.
    pub fn look(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the world, lets it react, and tells the watches.
    pub fn act<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, version) = {
            let mut state = self.look();
            Nature::settle(&mut state);
            let result = change(&mut state);
            Nature::settle(&mut state);
            (result, state.store.version() + state.cuts)
        };
        self.changed.send_replace(version);
        result
    }

    pub fn changes(&self) -> signal::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A client of one process, with these rights; all of them if none are named.
    pub fn client(&self, rights: Option<Vec<Verb>>) -> (Client, Arc<Life>) {
        let life = Arc::new(Life::default());
        let door = Door { server: self.clone(), life: life.clone(), rights: rights.map(Arc::new) };
        (Client::new(door, "default"), life)
    }
}

/// One process's way in.
#[derive(Clone)]
struct Door {
    server: ApiServer,
    life: Arc<Life>,
    rights: Option<Arc<Vec<Verb>>>,
}

impl Service<Request<Body>> for Door {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}

impl Door {
    async fn serve(self, request: Request<Body>) -> Result<Answer, BoxError> {
        let ask = request::parse(request).await?;
        tokio::time::sleep(WAY).await;
        if self.life.is_dead() {
            return pending().await;
        }
        let ask = match ask {
            Ok(ask) => ask,
            Err(no) => return Ok(refuse(&no)),
        };
        if fault::class(&ask) == Class::Write {
            self.turn().await;
        }
        let _inside = (ask.verb != "watch").then(|| Inside::enter(&self.server, ask.verb, ask.place.kind.resource));
        if self.server.look().is_away() {
            return Err(refused());
        }
        let strike = self.server.act(|state| fault::befall(state, &ask, &self.life));
        match strike {
            Some(Strike::DieBefore) => return self.life.die().await,
            Some(Strike::Straggle) => {
                let late = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(fault::STRAGGLE).await;
                    drop(late.answer(ask, None).await);
                });
                return self.life.die().await;
            }
            Some(Strike::NoConnection) => return Err(refused()),
            Some(Strike::LostBefore) => return Err("connection reset by peer".into()),
            Some(Strike::Say(no)) => {
                self.server.act(|state| state.log.push(format!("{} -> {} (struck)", ask.line(), no.code)));
                return Ok(refuse(&no));
            }
            _ => {}
        }
        if strike == Some(Strike::Twice) {
            drop(self.answer(ask.clone(), None).await);
        }
        let patched = (ask.verb == "patch" && strike == Some(Strike::Touch)).then(|| ask.line());
        let answer = self.answer(ask, strike.clone()).await;
        if let Some(line) = patched.filter(|_| answer.status().is_success()) {
            let what = format!("what somebody has just changed was changed by {line}");
            self.server.act(|state| state.violations.push(what));
        }
        match strike {
            Some(Strike::Mute) => Ok(reply(200, None, stream::pending().boxed())),
            Some(Strike::DieAfter) => self.life.die().await,
            Some(Strike::Hang) => pending().await,
            Some(Strike::LostAfter) => Err("connection reset by peer".into()),
            Some(Strike::SayAfter(no)) => Ok(refuse(&no)),
            _ => {
                tokio::time::sleep(WAY).await;
                Ok(answer)
            }
        }
    }

    /// Waits for our turn among two; who is not seen to come for a while loses it.
    async fn turn(&self) {
        for _ in 0..PATIENCE {
            if self.server.look().faults.takes_turn(self.life.second.load(Ordering::Relaxed)) {
                return;
            }
            tokio::time::sleep(2 * WAY).await;
        }
    }

    async fn answer(&self, ask: Ask, strike: Option<Strike>) -> Answer {
        let line = ask.line();
        if let Err(no) = self.may(&ask) {
            self.server.act(|state| state.log.push(format!("{line} -> 403")));
            return refuse(&no);
        }
        if let Some(said) = admit::review(&ask, self.user(), self.rights.as_deref()) {
            self.server.act(|state| state.log.push(format!("{line} -> 201")));
            return reply(201, None, once(&said));
        }
        match ask.verb {
            "watch" => match watch::open(&self.server, &ask) {
                Ok(chunks) => reply(200, None, chunks),
                Err(no) => refuse(&no),
            },
            "exec" => match exec::open(&self.server, &ask, strike).await {
                Ok(answer) => answer,
                Err(no) => refuse(&no),
            },
            _ => {
                let outcome = self.server.act(|state| {
                    let ask = if state.faults.blind { ask.blind() } else { ask };
                    let admitted = admit::fence(&state.store, &ask, self.user());
                    let outcome = admitted.and_then(|()| request::carry_out(&mut state.store, &ask));
                    let code = outcome.as_ref().map_or_else(|no| no.code, |(code, _)| *code);
                    state.log.push(format!("{line} -> {code}"));
                    if outcome.is_ok() && ask.mutates() {
                        (state.check)(state, &ask);
                    }
                    outcome
                });
                match outcome {
                    Ok((code, body)) => reply(code, None, once(&body)),
                    Err(no) => refuse(&no),
                }
            }
        }
    }

    fn user(&self) -> &'static str {
        if self.rights.is_some() { "runner" } else { "admin" }
    }

    /// The rights that a request needs; to exec takes two.
    fn may(&self, ask: &Ask) -> Result<(), No> {
        let Some(rights) = self.rights.as_ref().filter(|_| !admit::is_review(ask)) else { return Ok(()) };
        let part = ask.place.part.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
        let resource = format!("{}{part}", ask.place.kind.resource);
        let verbs: &[&str] = if ask.verb == "exec" { &["get", "create"] } else { &[ask.verb] };
        for verb in verbs {
            if !rights.contains(&(ask.place.kind.group, resource.as_str(), *verb)) {
                let name = ask.place.name.as_deref().unwrap_or_default();
                let message = format!("{resource} \"{name}\" is forbidden: User \"runner\" cannot {verb} it");
                return Err(No::new(403, "Forbidden", message));
            }
        }
        Ok(())
    }
}

/// As the client's connector has it.
fn refused() -> BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()
}

fn once(body: &Value) -> Chunks {
    let bytes = Bytes::from(body.to_string());
    stream::iter([Ok(Frame::data(bytes))]).boxed()
}

fn refuse(no: &No) -> Answer {
    match no.body() {
        // Where it is no API server that answers, or none that knows of the path.
        Value::String(text) => reply(no.code, no.retry_after, stream::iter([Ok(Frame::data(text.into()))]).boxed()),
        body => reply(no.code, no.retry_after, once(&body)),
    }
}

fn reply(code: u16, retry_after: Option<u32>, chunks: Chunks) -> Answer {
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if let Some(seconds) = retry_after {
        response = response.header("retry-after", seconds);
    }
    response.body(StreamBody::new(chunks)).unwrap()
}
