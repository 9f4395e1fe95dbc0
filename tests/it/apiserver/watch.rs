//! A watch: changes as lines of JSON, with bookmarks, until its time is over or its connection is cut.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http_body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::No;
use super::crowd::Inside;
use super::kind::Kind;
use super::request::Ask;
use super::select::Selector;
use super::store::What;
use super::{ApiServer, Chunks, State};

const BOOKMARK: Duration = Duration::from_mins(1);

struct Watch {
    server: ApiServer,
    changes: Receiver<u64>,
    kind: &'static Kind,
    namespace: String,
    selector: Selector,
    bookmarks: bool,
    /// All up to this version has been told.
    told: u64,
    cuts: u64,
    until: Instant,
    next_bookmark: Instant,
    over: bool,
    /// To be told before anything else.
    first: Vec<Value>,
    _inside: Inside,
}

pub fn open(server: &ApiServer, ask: &Ask) -> Result<Chunks, No> {
    let (kind, namespace, selector) = (ask.place.kind, ask.place.namespace.clone(), ask.selector()?);
    let seconds = ask.word("timeoutSeconds").parse().unwrap_or(1800);
    let (mut first, mut over, asked) = (vec![], false, ask.word("resourceVersion"));
    let inside = Inside::enter(server, "watch", kind.resource);
    let state = server.look();
    let streams = ask.word("sendInitialEvents") == "true";
    if streams && state.faults.unstreamed {
        let why = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature \
                   gate is enabled";
        return Err(No::new(422, "Invalid", why));
    }
    if streams && ask.word("resourceVersionMatch") != "NotOlderThan" {
        return Err(No::unknown("a streaming list without resourceVersionMatch"));
    }
    let told = match asked {
        "" | "0" => {
            let all = state.store.list(kind, &namespace, &selector);
            first.extend(all.into_iter().map(|object| json!({ "type": "ADDED", "object": object })));
            let version = state.store.version();
            if streams {
                first.push(bookmark(kind, version, &json!({ "k8s.io/initial-events-end": "true" })));
            }
            version
        }
        asked => asked.parse().map_err(|_| No::bad(format!("Invalid value: {asked}")))?,
    };
    if told < state.store.forgotten() {
        let gone = No::expired(&format!("too old resource version: {told} ({})", state.store.forgotten()));
        first = vec![json!({ "type": "ERROR", "object": gone.body() })];
        over = true;
    }
    let watch = Watch {
        server: server.clone(),
        changes: server.changes(),
        kind,
        namespace,
        selector,
        bookmarks: ask.word("allowWatchBookmarks") == "true",
        told,
        cuts: state.cuts,
        until: Instant::now() + Duration::from_secs(seconds),
        next_bookmark: Instant::now() + BOOKMARK,
        over,
        first,
        _inside: inside,
    };
    drop(state);
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line.map(Frame::data), watch))
    });
    Ok(lines.boxed())
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, tower::BoxError>> {
        loop {
            if !self.first.is_empty() {
                return Some(Ok(line(&self.first.remove(0))));
            }
            if self.over {
                return None;
            }
            if let Some(lag) = self.lag() {
                sleep(lag).await;
            }
            let cut = {
                let server = self.server.clone();
                let state = server.look();
                self.gather(&state);
                state.cuts > self.cuts
            };
            if cut {
                self.over = true;
                return Some(Err(Box::new(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))));
            }
            if !self.first.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.changes.changed() => self.over = changed.is_err(),
                () = sleep_until(self.next_bookmark.min(self.until)) => {
                    self.over = Instant::now() >= self.until;
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    if self.bookmarks {
                        self.first.push(bookmark(self.kind, self.told, &json!({})));
                    }
                }
            }
        }
    }

    /// How much later than others it hears of a change.
    fn lag(&self) -> Option<Duration> {
        let late = self.server.look().faults.late;
        late.filter(|(resource, _)| *resource == self.kind.resource).map(|(_, lag)| lag)
    }

    /// An object that comes to match is new to us, one that does not match any more is gone.
    fn gather(&mut self, state: &State) {
        let ours = |namespace: &str| self.namespace.is_empty() || namespace == self.namespace;
        let from = state.store.log.partition_point(|change| change.version <= self.told);
        for change in &state.store.log[from..] {
            if change.key.kind != self.kind || !ours(&change.key.namespace) {
                continue;
            }
            let before = change.before.as_ref().is_some_and(|before| self.selector.holds(before));
            let now = change.what != What::Deleted && self.selector.holds(&change.object);
            let kind = match (before, now) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            let told = json!({ "type": kind, "object": change.object });
            self.first.extend(state.faults.twice.then(|| told.clone()));
            self.first.push(told);
        }
        self.told = state.store.version().max(self.told);
    }
}

fn bookmark(kind: &Kind, version: u64, annotations: &Value) -> Value {
    json!({ "type": "BOOKMARK", "object": {
        "apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": { "resourceVersion": version.to_string(), "annotations": annotations },
    } })
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}
