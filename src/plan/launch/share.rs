//! Who gets the next place. Namespaces take turns, and within one the oldest slot goes first: so nobody waits longer for
//! what somebody else has asked for, however much that is.

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
/// A namespace that holds a place already leaves so many of all places to those that hold none: one in this many.
const KEPT: usize = 4;

/// What the run of an object holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// There is none, or it only waits for uploads.
    #[default]
    Nothing,
    /// Its Job was made just now: it may be at work at any moment.
    Starts,
    /// It waits for its lock, or for a pod.
    Waits,
    Works,
}

impl Hold {
    fn is_placed(self) -> bool {
        matches!(self, Hold::Starts | Hold::Works)
    }

    fn is_waiting(self) -> bool {
        matches!(self, Hold::Starts | Hold::Waits)
    }
}

/// The places, who holds them, and who is next.
#[derive(Debug)]
pub struct Shares {
    places: usize,
    taken: usize,
    queued: usize,
    /// How many places were given.
    given: u64,
    spaces: BTreeMap<Box<str>, Space>,
    /// The namespaces that may have a Job made: when they had their last one, their oldest slot, their name.
    ready: BTreeSet<(u64, Timestamp, Box<str>)>,
}

#[derive(Debug, Default)]
struct Space {
    taken: usize,
    waiting: usize,
    /// How many runs have begun, or were over, since one was last found to wait.
    begun: usize,
    /// How many places had been given when it got its last one.
    served: u64,
    queue: BTreeSet<(Timestamp, Uid)>,
}

impl Space {
    fn ready(&self, name: &str) -> Option<(u64, Timestamp, Box<str>)> {
        let (oldest, _) = self.queue.first().filter(|_| !self.is_full())?;
        Some((self.served, *oldest, name.into()))
    }

    fn is_full(&self) -> bool {
        self.waiting >= WAITING.saturating_add(self.begun)
    }
}

impl Shares {
    pub fn new(places: usize) -> Shares {
        let (spaces, ready) = (BTreeMap::new(), BTreeSet::new());
        Shares { places, taken: 0, queued: 0, given: 0, spaces, ready }
    }

    /// Whose turn it is, if a place is free for them.
    pub fn next(&self) -> Option<Uid> {
        let free = self.places.checked_sub(self.taken).filter(|free| *free > 0)?;
        let spaces = self.ready.iter().filter_map(|(.., name)| self.spaces.get(name));
        // Those that hold a place are no more than there are places.
        let space = spaces.into_iter().find(|space| space.taken == 0 || free > self.places / KEPT)?;
        space.queue.first().map(|(_, uid)| *uid)
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
        self.change(namespace, |space| {
            space.taken = count(space.taken, Hold::is_placed);
            space.waiting = count(space.waiting, Hold::is_waiting);
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
        let before = space.ready(namespace);
        change(space);
        let after = space.ready(namespace);
        if before != after {
            before.map(|before| self.ready.remove(&before));
            self.ready.extend(after);
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

    /// So many runs of the namespace wait for a lock or a pod, if that is as many as may.
    pub fn full(&self, namespace: &str) -> Option<usize> {
        self.spaces.get(namespace).filter(|space| space.is_full()).map(|space| space.waiting)
    }
}
