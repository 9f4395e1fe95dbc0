//! What is to go wrong: at the k-th write, read, renewal of the Lease or Event, counted over all processes.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::State;
use super::answer::No;
use super::kind::{ACCESS_REVIEW, Key, USER_REVIEW};
use super::request::Ask;
use crate::nature::Deed;

/// How late the request of a dead process may land.
pub const STRAGGLE: Duration = Duration::from_secs(1);

/// Processes that have written so often, or read ten times as often, are in a loop.
const ENDLESS: usize = 400;

/// What befalls one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strike {
    DieBefore,
    DieAfter,
    /// The process dies, and its request lands a second later.
    Straggle,
    LostBefore,
    LostAfter,
    /// Nobody listens where the request goes to.
    NoConnection,
    /// It is done, and no answer comes.
    Hang,
    /// It is done, its answer begins and never goes on.
    Mute,
    /// A proxy between sends it twice; the second answer is heard.
    Twice,
    /// Somebody has just changed the object that it is about, so that no patch of the older version may be taken.
    Touch,
    /// An answer instead of the deed.
    Say(No),
    /// An answer after the deed that does not tell of it.
    SayAfter(No),
}

/// Which requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Write,
    Read,
    Renewal,
    Event,
    Watch,
}

#[derive(Debug, Default)]
pub struct Faults {
    pub strikes: BTreeMap<(Class, usize), Strike>,
    /// What the world does right before a write.
    pub deeds: BTreeMap<usize, Deed>,
    /// What somebody does right before a write that he sees coming.
    pub hands: BTreeMap<usize, Hand>,
    /// From that write on everybody hears this, for so long.
    pub spell: Option<(usize, No, Duration)>,
    spell_until: Option<Timestamp>,
    counts: BTreeMap<Class, usize>,
    pub sigterm_at: Option<usize>,
    /// Whose write is next, of two commands at once; whether it is the second's.
    pub order: VecDeque<bool>,
    /// Deletions are carried out whatever their preconditions.
    pub blind: bool,
    /// Until then nobody gets an answer.
    pub away_until: Option<Timestamp>,
    /// Whoever watches that resource hears of everything so much later.
    pub late: Option<(&'static str, Duration)>,
    /// Watches tell everything twice.
    pub twice: bool,
    /// So many requests more are no sign of a loop.
    pub crowd: usize,
    /// Until then every exec is answered so before its upgrade; none: its connection is refused.
    pub exec: Option<(Timestamp, Option<No>)>,
    /// So many processes die when they are about to make a snapshot.
    pub deadly: usize,
    /// An older server: it has no streaming lists.
    pub unstreamed: bool,
}

/// Changes the world before that request.
pub type Hand = fn(&mut State, &Ask);

impl Faults {
    pub fn count(&self, class: Class) -> usize {
        self.counts.get(&class).copied().unwrap_or_default()
    }

    /// Whether it is this one's turn among two, which it takes.
    pub fn takes_turn(&mut self, second: bool) -> bool {
        let ours = self.order.front().is_none_or(|next| *next == second);
        if ours {
            self.order.pop_front();
        }
        ours
    }
}

pub fn class(ask: &Ask) -> Class {
    let spec = &ask.body["spec"];
    match (ask.verb, ask.place.kind.resource) {
        ("watch", _) => Class::Watch,
        // Nothing is stored.
        (_, USER_REVIEW | ACCESS_REVIEW) => Class::Read,
        _ if ask.is_dry() => Class::Read,
        ("get" | "list", _) => Class::Read,
        (_, "events") => Class::Event,
        ("patch", "leases") if spec["renewTime"].is_string() && spec.get("holderIdentity").is_none() => Class::Renewal,
        _ => Class::Write,
    }
}

/// Counts the request, lets the world do what it was to do before it, and says what befalls it.
pub fn befall(state: &mut State, ask: &Ask, life: &Life) -> Option<Strike> {
    if life.bystander.load(Ordering::Relaxed) {
        return None;
    }
    let class = class(ask);
    let count = state.faults.counts.entry(class).or_default();
    let k = *count;
    *count += 1;
    if k > ENDLESS + state.faults.crowd && class == Class::Write || k > 10 * ENDLESS + state.faults.crowd {
        state.violations.push("never ends".into());
        return Some(Strike::DieBefore);
    }
    if class == Class::Write {
        if let Some(deed) = state.faults.deeds.remove(&k) {
            state.log.push(format!("-- {deed:?}"));
            deed.take_place(state);
        }
        if let Some(hand) = state.faults.hands.remove(&k) {
            hand(state, ask);
        }
        if let Some((_, _, long)) = state.faults.spell.as_ref().filter(|(at, ..)| *at == k) {
            state.faults.spell_until = Some(state.store.clock.now() + *long);
        }
        if state.faults.sigterm_at == Some(k) {
            state.log.push("-- SIGTERM".into());
            state.nature.alarm(state.store.clock.now());
            life.terminate.notify_one();
        }
    }
    if state.faults.deadly > 0 && (ask.verb, ask.place.kind.resource) == ("create", "volumesnapshots") {
        state.faults.deadly -= 1;
        return Some(Strike::DieBefore);
    }
    if let Some((_, no)) = exec_barred(state, ask) {
        return Some(no.map_or(Strike::NoConnection, Strike::Say));
    }
    if state.faults.spell_until.is_some_and(|until| state.store.clock.now() < until) {
        return state.faults.spell.as_ref().map(|(_, no, _)| Strike::Say(no.clone()));
    }
    let strike = state.faults.strikes.get(&(class, k)).cloned();
    if strike == Some(Strike::Touch) {
        touch(state, &ask.key());
    }
    if let Some(strike) = &strike {
        state.log.push(format!("-- {class:?} {k}: {strike:?}"));
    }
    strike
}

fn exec_barred(state: &State, ask: &Ask) -> Option<(Timestamp, Option<No>)> {
    let now = state.store.clock.now();
    state.faults.exec.clone().filter(|(until, _)| ask.verb == "exec" && now < *until)
}

fn touch(state: &mut State, key: &Key) {
    let version = state.store.version();
    state.store.change(key, false, |object| {
        object["metadata"]["annotations"]["example.com/touched"] = version.to_string().into();
    });
}

/// Whether the process at the other end lives, and what it is told.
#[derive(Debug, Default)]
pub struct Life {
    dead: AtomicBool,
    /// It is of the second of two commands.
    pub second: AtomicBool,
    /// Its requests are not counted, and nothing befalls them.
    pub bystander: AtomicBool,
    pub died: Notify,
    pub terminate: Notify,
}

impl Life {
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub async fn die<T>(&self) -> T {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_one();
        pending().await
    }
}

pub fn conflict() -> No {
    No::new(409, "Conflict", "Operation cannot be fulfilled: the object has been modified")
}

pub fn busy() -> No {
    No { retry_after: Some(1), ..No::new(429, "TooManyRequests", "the server has received too many requests") }
}

pub fn broken() -> No {
    No::new(500, "InternalError", "an error on the server has prevented the request from succeeding")
}

pub fn late() -> No {
    No::new(504, "Timeout", "request did not complete within the requested timeout")
}

/// Of a server that comes up: who asks is not known yet.
pub fn unknown_user() -> No {
    No::new(401, "Unauthorized", "Unauthorized")
}

/// The same: it does not serve that path yet.
pub fn no_path() -> No {
    No::new(404, "", "404 page not found")
}

pub fn unavailable() -> No {
    No::new(503, "ServiceUnavailable", "the server is currently unable to handle the request")
}

pub fn forbidden() -> No {
    No::new(403, "Forbidden", "the world said no")
}
