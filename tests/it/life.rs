//! What is the same for a process in either world: the clock, its stop, and its death.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::pending;

use jiff::{SignedDuration, Timestamp};
use sts_backup::plan::noun::{Holder, Stop};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The wall clock of a world that began then.
pub fn now(start: Instant) -> Timestamp {
    let since = SignedDuration::try_from(start.elapsed()).unwrap();
    Timestamp::from_second(1_800_000_000).unwrap() + since
}

/// Sleeps until then on the virtual clock.
pub async fn sleep(now: Timestamp, until: Timestamp) {
    tokio::time::sleep(until.duration_since(now).try_into().unwrap_or_default()).await;
}

/// Whether it is this one's turn among two, which it takes; the second has a number from 100 on. Who is not seen to
/// come for a while loses it.
pub fn takes_turn(order: &mut VecDeque<bool>, me: &Holder) -> bool {
    let second = me.0.rsplit_once('/').is_some_and(|(_, n)| n.len() > 2);
    let ours = order.front().is_none_or(|next| *next == second);
    if ours {
        order.pop_front();
    }
    ours
}

pub struct Life {
    stop: watch::Sender<Option<Stop>>,
    pub died: Notify,
    dead: Cell<bool>,
}

impl Life {
    pub fn new() -> Life {
        Life { stop: watch::Sender::new(None), died: Notify::new(), dead: Cell::new(false) }
    }

    /// Nothing is heard of it any more.
    pub async fn die<T>(&self) -> T {
        self.dead.set(true);
        self.died.notify_one();
        pending().await
    }

    pub fn is_dead(&self) -> bool {
        self.dead.get()
    }

    pub fn halt(&self, stop: Stop) {
        self.stop.send_replace(Some(stop));
    }

    pub fn stop(&self) -> Option<Stop> {
        *self.stop.borrow()
    }

    pub async fn stopped(&self) {
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }
}
