//! Who gets the next place. Namespaces take turns, and within one the oldest slot goes first: so nobody waits longer for
//! what somebody else has asked for, however much that is. Nor for how long it takes: of a namespace that holds no place
//! only those count against it that were taken a short while ago.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::Uid;

/// Runs of a namespace that may wait for their lock or for a pod: with so many no further Job is made. One whose runs
/// do begin may have as many more underway to their begin as have begun in a row.
pub const WAITING: usize = 3;
/// A run whose Job was made so long ago and that has not begun waits, and holds no place.
pub const START: Duration = Duration::from_secs(30);
/// A run that has been at work for so long keeps no place from a namespace that holds none.
pub const LEND: Duration = Duration::from_mins(5);
/// A namespace that holds a place already leaves so many of all places to those that hold none: one in this many.
const KEPT: usize = 4;
/// For each place so many runs of a namespace may wait for their uploads: with as many no further Job is made.
pub const UPLOADS: usize = 5;

/// What the run of an object holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    #[default]
    Nothing,
    /// It only waits for uploads.
    Uploads,
    /// Its Job was made just now: it may be at work at any moment.
    Starts,
    /// It waits for its lock, or for a pod.
    Waits,
    Works,
    /// It has been at work for long.
    Lasts,
}

impl Hold {
    fn is_placed(self) -> bool {
        matches!(self, Hold::Starts | Hold::Works | Hold::Lasts)
    }

    fn is_lasting(self) -> bool {
        self == Hold::Lasts
    }

    fn is_uploading(self) -> bool {
        self == Hold::Uploads
    }

    fn is_waiting(self) -> bool {
        matches!(self, Hold::Starts | Hold::Waits)
    }
}

/// Why a namespace gets no further Job: so many of its runs wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// For a lock or a pod.
    Waiting(usize),
    /// For their uploads.
    Uploads(usize),
}

/// The places, who holds them, and who is next.
#[derive(Debug)]
pub struct Shares {
    places: usize,
    taken: usize,
    /// Of those that are taken, by runs that last.
    lasting: usize,
    queued: usize,
    /// How many places were given.
    given: u64,
    spaces: BTreeMap<Box<str>, Space>,
    /// The namespaces that may have a Job made: those that hold no place, and those that do.
    ready: [BTreeSet<Turn>; 2],
}

/// When a namespace had its last place, its oldest slot, its name.
type Turn = (u64, Timestamp, Box<str>);

#[derive(Debug, Default)]
struct Space {
    taken: usize,
    waiting: usize,
    uploads: usize,
    /// How many runs have begun, or were over, since one was last found to wait.
    begun: usize,
    /// How many places had been given when it got its last one.
    served: u64,
    queue: BTreeSet<(Timestamp, Uid)>,
}

impl Space {
    /// Its turn, and in which of the two queues.
    fn ready(&self, name: &str, places: usize) -> Option<(usize, Turn)> {
        let (oldest, _) = self.queue.first().filter(|_| self.full(places).is_none())?;
        Some((usize::from(self.taken > 0), (self.served, *oldest, name.into())))
    }

    fn full(&self, places: usize) -> Option<Full> {
        match () {
            () if self.waiting >= WAITING.saturating_add(self.begun) => Some(Full::Waiting(self.waiting)),
            () if self.uploads >= places.saturating_mul(UPLOADS) => Some(Full::Uploads(self.uploads)),
            () => None,
        }
    }
}

impl Shares {
    pub fn new(places: usize) -> Shares {
        let (spaces, ready) = (BTreeMap::new(), [BTreeSet::new(), BTreeSet::new()]);
        Shares { places, taken: 0, lasting: 0, queued: 0, given: 0, spaces, ready }
    }

    /// Whose turn it is, if a place is free for them.
    pub fn next(&self) -> Option<Uid> {
        let [none, some] = &self.ready;
        // Whoever has a place already gets no other one beyond the limit.
        let free = self.places.saturating_sub(self.taken);
        let some = some.first().filter(|_| free > self.places / KEPT);
        let lent = self.places.saturating_sub(self.taken - self.lasting);
        let none = none.first().filter(|_| lent > 0);
        let (.., name) = none.into_iter().chain(some).min()?;
        self.spaces.get(name)?.queue.first().map(|(_, uid)| *uid)
    }

    /// A place was given to this namespace: the others come first now.
    pub fn serve(&mut self, namespace: &str) {
        self.given += 1;
        let given = self.given;
        self.change(namespace, |space| space.served = given);
    }

    pub fn join(&mut self, namespace: &str, at: Timestamp, uid: Uid) {
        self.queued += 1;
        self.change(namespace, |space| space.queue.extend([(at, uid)]));
    }

    pub fn leave(&mut self, namespace: &str, at: Timestamp, uid: Uid) {
        self.queued -= 1;
        self.change(namespace, |space| {
            space.queue.remove(&(at, uid));
        });
    }

    /// A run of this namespace goes on from one to the other.
    pub fn pass(&mut self, namespace: &str, before: Hold, after: Hold) {
        if before == after {
            return;
        }
        let count = |count: usize, is: fn(Hold) -> bool| count + usize::from(is(after)) - usize::from(is(before));
        self.taken = count(self.taken, Hold::is_placed);
        self.lasting = count(self.lasting, Hold::is_lasting);
        self.change(namespace, |space| {
            space.taken = count(space.taken, Hold::is_placed);
            space.waiting = count(space.waiting, Hold::is_waiting);
            space.uploads = count(space.uploads, Hold::is_uploading);
            match (before, after) {
                (_, Hold::Waits) => space.begun = 0,
                (Hold::Starts, _) => space.begun = space.begun.saturating_add(1),
                _ => {}
            }
        });
    }

    fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Space)) {
        if !self.spaces.contains_key(namespace) {
            self.spaces.insert(namespace.into(), Space::default());
        }
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        let before = space.ready(namespace, self.places);
        change(space);
        let after = space.ready(namespace, self.places);
        if before != after {
            if let Some((queue, turn)) = before {
                self.ready[queue].remove(&turn);
            }
            if let Some((queue, turn)) = after {
                self.ready[queue].insert(turn);
            }
        }
    }

    pub fn places(&self) -> usize {
        self.places
    }

    pub fn taken(&self) -> usize {
        self.taken
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Why the namespace gets no further Job, even if places are free.
    pub fn full(&self, namespace: &str) -> Option<Full> {
        self.spaces.get(namespace)?.full(self.places)
    }
}
