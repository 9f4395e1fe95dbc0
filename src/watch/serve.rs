//! The two small pages: `/metrics`, and `/healthz` and `/readyz`. A GET for each connection and nothing more; what is
//! shown is written in pieces, so that no page of ten thousand policies is ever held in memory.
//!
//! Anyone in the cluster may connect. Nobody is kept waiting for a client that says nothing: whoever connects is heard at
//! once, and when there are too many, those that have not asked yet are left, the oldest first.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::time::timeout;

use super::{State, metrics};
use crate::error::{Error, Result};

/// A client that has not asked by then is left.
const ASK: Duration = Duration::from_secs(5);
/// A client that has not read its answer by then is left.
const LIMIT: Duration = Duration::from_secs(30);
/// With more at once one of them is left.
const CLIENTS: usize = 32;
const REQUEST_MAX: usize = 8192;
/// The loop turns at least every 15 s.
const STUCK: Duration = Duration::from_mins(1);
/// The Lease is renewed every 20 s, and each answer counts: whoever hears nothing for so long is cut off.
const DEAF: Duration = Duration::from_secs(90);

/// None: switched off.
pub async fn bind(address: &str) -> Result<Option<TcpListener>> {
    if address == "off" {
        return Ok(None);
    }
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|error| Error::Config(format!("cannot listen on {address}: {error}")))
}

/// What a path answers: the status line's end, and how to write the rest.
pub enum Page {
    Text(&'static str, String),
    Metrics,
}

pub fn metrics(_: &State, path: &str) -> Page {
    if path == "/metrics" { Page::Metrics } else { Page::Text("404 Not Found", "see /metrics\n".into()) }
}

pub fn health(state: &State, path: &str) -> Page {
    let bad = match path {
        "/healthz" if state.turned.get().elapsed() > STUCK => "the loop is stuck\n".to_owned(),
        "/healthz" => String::new(),
        "/readyz" => unready(state),
        _ => return Page::Text("404 Not Found", "see /healthz and /readyz\n".into()),
    };
    if bad.is_empty() { Page::Text("200 OK", "ok\n".into()) } else { Page::Text("503 Service Unavailable", bad) }
}

/// One line for each watch that does not work.
fn unready(state: &State) -> String {
    let silence = state.ear.silence();
    if silence > DEAF {
        return format!("nothing was heard of the API server for {} s\n", silence.as_secs());
    }
    if state.stands_by.get() {
        return String::new(); // ready to take over, which is all that is asked of it
    }
    let troubles = state.troubles.borrow();
    let line = |text: String, (feed, why): (&String, &String)| text + feed + ": " + why + "\n";
    let mut text = troubles.iter().fold(String::new(), line);
    if text.is_empty() && !state.index.borrow().is_complete() {
        text.push_str("the first lists are not read yet\n");
    }
    text
}

pub async fn serve(listener: Option<TcpListener>, state: &State, page: fn(&State, &str) -> Page) -> Infallible {
    let Some(listener) = listener else { return std::future::pending().await };
    let (mut working, mut clients) = (FuturesUnordered::new(), Clients::default());
    loop {
        select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                if clients.all.len() >= CLIENTS {
                    clients.leave_one();
                }
                let asked = Rc::new(Cell::new(false));
                let (answer, handle) = abortable(timeout(LIMIT, answer(client, state, page, asked.clone())));
                let number = clients.add(asked, handle);
                working.push(async move {
                    drop(answer.await);
                    number
                });
            } else {
                // Too many files are open, say: it would be met again at once.
                clients.leave_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
            },
            Some(number) = working.next() => drop(clients.all.remove(&number)),
        }
    }
}

/// Who is connected, by age: whether they have asked, and how they are left.
#[derive(Default)]
struct Clients {
    all: BTreeMap<u64, (Rc<Cell<bool>>, AbortHandle)>,
    next: u64,
}

impl Clients {
    fn add(&mut self, asked: Rc<Cell<bool>>, handle: AbortHandle) -> u64 {
        let number = self.next;
        self.next += 1;
        self.all.insert(number, (asked, handle));
        number
    }

    /// The oldest that has not asked, or else the oldest.
    fn leave_one(&mut self) {
        let silent = self.all.iter().find(|(_, (asked, _))| !asked.get()).map(|(number, _)| *number);
        let number = silent.or_else(|| self.all.first_key_value().map(|(number, _)| *number));
        if let Some((_, handle)) = number.and_then(|number| self.all.remove(&number)) {
            handle.abort();
        }
    }
}

/// The first line of what the client asks; none if it does not ask.
async fn request(client: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut request = vec![];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > REQUEST_MAX || client.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    }
    Ok(String::from_utf8_lossy(&request).lines().next().map(ToOwned::to_owned))
}

async fn answer(
    mut client: TcpStream,
    state: &State,
    page: fn(&State, &str) -> Page,
    asked: Rc<Cell<bool>>,
) -> std::io::Result<()> {
    let Ok(Some(line)) = timeout(ASK, request(&mut client)).await.unwrap_or(Ok(None)) else { return Ok(()) };
    asked.set(true);
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let page = match method {
        "GET" => page(state, path),
        _ => Page::Text("405 Method Not Allowed", "only GET\n".into()),
    };
    match page {
        Page::Text(status, text) => {
            client.write_all(&head(status, "text/plain; charset=utf-8")).await?;
            client.write_all(text.as_bytes()).await?;
        }
        Page::Metrics => {
            client.write_all(&head("200 OK", metrics::CONTENT_TYPE)).await?;
            let mut pages = metrics::Pages::default();
            while let Some(text) = pages.next(state) {
                client.write_all(text.as_bytes()).await?;
            }
        }
    }
    client.shutdown().await
}

fn head(status: &str, kind: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::rc::Rc;

    use jiff::Timestamp;
    use kube::Client;

    use super::*;
    use crate::config::Watching;
    use crate::plan::job::Template;

    /// As long as a probe of the chart waits.
    const PROBE: Duration = Duration::from_secs(5);

    fn state() -> State {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is there"))
        });
        let settings = Watching {
            namespace: "ops".into(),
            install: "ops/sts-backup".into(),
            leader: false,
            pod: "watcher".into(),
            template: Template::default(),
            namespaces: vec![],
            max_concurrent_runs: 10,
            max_concurrent_restores: 10,
            jitter_seconds: 0,
            metrics: "off".into(),
            health: "off".into(),
        };
        State::new(Client::new(nobody, "ops"), settings, Rc::new(Timestamp::now))
    }

    /// The status line, if it comes in time.
    async fn ask(address: SocketAddr, path: &str) -> String {
        let asking = async {
            let mut client = TcpStream::connect(address).await?;
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
            let mut answer = String::new();
            client.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer.lines().next().unwrap_or_default().to_owned())
        };
        match timeout(PROBE, asking).await {
            Ok(Ok(line)) => line,
            other => format!("{other:?}"),
        }
    }

    /// Carries out a scene before the health page on a port of its own.
    async fn before<T>(scene: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.as_ref().unwrap().local_addr().unwrap();
        let state = state();
        select! {
            never = serve(listener, &state, health) => match never {},
            told = scene(address) => told,
        }
    }

    /// A restart would not help: only readiness tells.
    #[tokio::test(start_paused = true)]
    async fn whoever_hears_nothing_is_not_ready_and_lives() {
        let state = state();
        state.stands_by.set(true);
        let code = |path: &str| match health(&state, path) {
            Page::Text(code, text) => format!("{code}: {text}"),
            Page::Metrics => String::new(),
        };
        assert_eq!(code("/readyz"), "200 OK: ok\n");
        tokio::time::sleep(DEAF + Duration::from_secs(1)).await;
        state.turned.set(tokio::time::Instant::now());
        assert_eq!(code("/readyz"), "503 Service Unavailable: nothing was heard of the API server for 91 s\n");
        assert_eq!(code("/healthz"), "200 OK: ok\n");
        state.stands_by.set(false);
        assert!(code("/readyz").starts_with("503"), "at work as well");
    }

    async fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
        let mut all = vec![];
        for _ in 0..count {
            all.push(TcpStream::connect(address).await.unwrap());
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_connects_and_says_nothing_holds_up_nobody() {
        before(async |address| {
            assert_eq!(ask(address, "/healthz").await, "HTTP/1.1 200 OK");
            for count in [8, 100, 300] {
                let silent = idle(address, count).await;
                assert_eq!(ask(address, "/healthz").await, "HTTP/1.1 200 OK", "beside {count} silent ones");
                drop(silent);
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_byte_by_byte_holds_up_nobody() {
        before(async |address| {
            let mut slow = idle(address, 40).await;
            for round in 0..4 {
                for client in &mut slow {
                    // It may have been left by now.
                    let _ = client.write_all(b"G").await;
                }
                assert_eq!(ask(address, "/healthz").await, "HTTP/1.1 200 OK", "round {round}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
        .await;
    }

    /// A silent client is left after its time, and the oldest ones before it when there are many.
    #[tokio::test(start_paused = true)]
    async fn silent_clients_are_left_the_oldest_first() {
        before(async |address| {
            let begun = tokio::time::Instant::now();
            let mut one = idle(address, 1).await.remove(0);
            let mut end = vec![];
            assert_eq!(one.read_to_end(&mut end).await.unwrap(), 0);
            let after = begun.elapsed();
            assert!(after > Duration::from_secs(1) && after < Duration::from_secs(20), "{after:?}");
            let mut many = idle(address, 200).await;
            assert_eq!(ask(address, "/healthz").await, "HTTP/1.1 200 OK");
            let begun = tokio::time::Instant::now();
            assert!(matches!(many[0].read(&mut [0]).await, Ok(0) | Err(_)));
            assert_eq!(begun.elapsed(), Duration::ZERO, "the oldest was left at once");
            let newest = timeout(Duration::from_millis(100), many[199].read(&mut [0])).await;
            assert!(newest.is_err(), "the newest is still waited for: {newest:?}");
        })
        .await;
    }
}
