//! The resident role: lean watches → compact index → [`crate::plan::launch`] → Jobs. It decides nothing itself, and
//! holds no right to exec, to delete a claim or to read a Secret.
//!
//! One thread, one loop, no task that outlives it: what is dropped at the end may have been done or not, and whoever
//! comes next finds out. API errors end nothing here, unless a leader cannot renew its Lease; the loop waits and catches up.

mod act;
mod decode;
mod ear;
mod feed;
mod lead;
mod line;
mod metrics;
mod pods;
mod serve;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt, select_all};
use jiff::Timestamp;
use kube::Client;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

pub use self::act::VERBS as ACT_VERBS;
use self::ear::Ear;
pub use self::feed::VERBS as FEED_VERBS;
pub use self::feed::{News, news};
use self::lead::Seat;
pub use self::lead::VERBS as LEAD_VERBS;
use self::line::Line;
pub use self::pods::VERBS as POD_VERBS;
use crate::client::Connection;
use crate::config::Watching;
use crate::error::{Error, Result};
use crate::plan::launch::{Context, Feed, Index, Now, Wake};

/// Requests at a time; each is a connection.
const AT_ONCE: usize = 32;
/// A clock that jumps is noticed within this.
const LOOK: Duration = Duration::from_secs(15);
/// What is heard in a burst is taken in before it is answered.
const BURST: usize = 500;

/// Tells the time of day. It may jump at any time, and the loop has to notice.
pub type Wall = Rc<dyn Fn() -> Timestamp>;

/// What the loop works on, and others show.
struct State {
    client: Client,
    wall: Wall,
    settings: Watching,
    index: RefCell<Index>,
    /// Watches that do not work, and why.
    troubles: RefCell<BTreeMap<String, String>>,
    began: Instant,
    /// The API server was heard by it.
    ear: Ear,
    turned: Cell<Instant>,
    /// Another watcher of this installation is at work.
    stands_by: Cell<bool>,
}

impl State {
    fn new(client: Client, settings: Watching, wall: Wall) -> State {
        let ear = Ear::default();
        State {
            client: ear.listen(client),
            ear,
            index: RefCell::new(Index::new(context(&settings, wall()))),
            stands_by: Cell::new(settings.leader),
            settings,
            troubles: RefCell::default(),
            began: Instant::now(),
            turned: Cell::new(Instant::now()),
            wall,
        }
    }

    fn now(&self) -> Now {
        Now { wall: (self.wall)(), tick: self.began.elapsed() }
    }
}

/// The loop alone, without election, signals and pages, by that clock.
pub async fn turn(client: Client, settings: Watching, wall: Wall) -> Infallible {
    let feeds = settings.feeds();
    turns(&State::new(client, settings, wall), &feeds).await
}

/// Watches until it is told to stop.
///
/// # Errors
/// What keeps it from beginning: an address that cannot be listened on.
pub async fn watch(connection: &Connection, settings: Watching) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|error| Error::Config(format!("cannot listen for signals: {error}")));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (metrics, health) = (serve::bind(&settings.metrics).await?, serve::bind(&settings.health).await?);
    let state = State::new(connection.client.clone(), settings, Rc::new(Timestamp::now));
    let settings = &state.settings;
    let deployment = settings.install.rsplit('/').next().unwrap_or_default();
    let pod = settings.pod.clone();
    let seat = Seat::new(state.client.clone(), &settings.namespace, deployment, pod, settings.leader);
    tracing::info!(message = format!("watching as {}", state.settings.install));
    select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        lost = work(&state, &seat) => return Err(lost),
        never = serve::serve(metrics, &state, serve::metrics) => match never {},
        never = serve::serve(health, &state, serve::health) => match never {},
    }
    tracing::info!(message = "told to stop");
    seat.leave().await;
    Ok(())
}

fn context(settings: &Watching, started: Timestamp) -> Context {
    Context {
        places: settings.max_concurrent_runs,
        restore_places: settings.max_concurrent_restores,
        jitter_seconds: settings.jitter_seconds,
        started,
        feeds: settings.feeds(),
    }
}

/// Ends only when the lead is lost: whoever has it now knows more than we do.
async fn work(state: &State, seat: &Seat) -> Error {
    let feeds = state.settings.feeds();
    if !state.settings.leader {
        select! {
            never = turns(state, &feeds) => match never {},
            never = seat.pulse() => match never {},
        }
    }
    seat.won(|| state.turned.set(Instant::now())).await;
    state.index.replace(Index::new(context(&state.settings, state.now().wall)));
    state.stands_by.set(false);
    select! {
        never = turns(state, &feeds) => match never {},
        why = seat.lost() => Error::Unanswered(why),
    }
}

async fn turns(state: &State, feeds: &[Feed]) -> Infallible {
    let mut news = select_all(feeds.iter().map(|feed| feed::news(state.client.clone(), feed, &state.settings)));
    let mut under_way = FuturesUnordered::new();
    let mut waiting = Line::default();
    loop {
        state.turned.set(Instant::now());
        let acts = state.index.borrow_mut().plan(state.now());
        for act in acts {
            // None: it has gone, and nothing is left to be done for it.
            if let Some(entry) = state.index.borrow().get(act.uid) {
                waiting.push(&entry.object.namespace, act);
            }
        }
        while under_way.len() < AT_ONCE
            && let Some(next) = waiting.pop()
        {
            under_way.extend(act::carry_out(state, next));
        }
        let wake = state.index.borrow().wake();
        select! {
            Some(heard) = news.next() => {
                hear(state, heard);
                for _ in 0..BURST {
                    let Some(Some(heard)) = news.next().now_or_never() else { break };
                    hear(state, heard);
                }
            }
            Some((uid, answer)) = under_way.next() => state.index.borrow_mut().answer(uid, answer, state.now()),
            () = sleep(until(wake, state.now())) => {}
        }
    }
}

fn until(wake: Wake, now: Now) -> Duration {
    let wall = wake.wall.map(|at| Duration::try_from(at.duration_since(now.wall)).unwrap_or_default());
    let tick = wake.tick.map(|at| at.saturating_sub(now.tick));
    wall.into_iter().chain(tick).min().unwrap_or(LOOK).min(LOOK)
}

fn hear(state: &State, news: News) {
    let mut index = state.index.borrow_mut();
    match news {
        News::Begin(feed) => index.list(&feed),
        News::End(feed) => {
            state.troubles.borrow_mut().remove(&feed.to_string());
            index.listed(&feed);
        }
        News::Object(uid, object) => index.see(uid, *object),
        News::Gone(uid) => index.forget(uid),
        News::Job(object) => {
            if let Some((owner, job)) = decode::job(&object) {
                index.see_job(owner, job);
            }
        }
        News::JobGone(object) => {
            if let Some((owner, job)) = decode::job(&object) {
                index.forget_job(owner, job.uid);
            }
        }
        News::Alive(feed) => drop(state.troubles.borrow_mut().remove(&feed.to_string())),
        News::Barred(feed, why) => {
            index.barred(&feed);
            trouble(state, &feed, why);
        }
        News::Trouble(feed, why) => trouble(state, &feed, why),
    }
}

fn trouble(state: &State, feed: &Feed, why: String) {
    tracing::warn!(message = format!("{feed}: {why}"));
    state.troubles.borrow_mut().insert(feed.to_string(), why);
}
