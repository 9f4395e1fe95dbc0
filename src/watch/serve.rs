//! The two small pages: `/metrics`, and `/healthz` and `/readyz`. A GET for each connection and nothing more; what is
//! shown is written in pieces, so that no page of ten thousand policies is ever held in memory.

use std::convert::Infallible;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::time::timeout;

use super::{State, metrics};
use crate::error::{Error, Result};

/// A client that is slower than this is left.
const LIMIT: Duration = Duration::from_secs(30);
/// More at once are kept waiting.
const CLIENTS: usize = 8;
const REQUEST_MAX: usize = 8192;
/// The loop turns at least every 15 s.
const STUCK: Duration = Duration::from_mins(1);

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
    let mut clients = FuturesUnordered::new();
    loop {
        select! {
            accepted = listener.accept(), if clients.len() < CLIENTS => match accepted {
                Ok((client, _)) => clients.push(timeout(LIMIT, answer(client, state, page))),
                // Too many files are open, say: it would be met again at once.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            },
            Some(_) = clients.next() => {}
        }
    }
}

async fn answer(mut client: TcpStream, state: &State, page: fn(&State, &str) -> Page) -> std::io::Result<()> {
    let mut request = vec![];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > REQUEST_MAX || client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = String::from_utf8_lossy(&request);
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
