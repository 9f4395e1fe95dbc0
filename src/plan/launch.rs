//! All that the watcher decides: a compact index of our objects and their Jobs, and from it what to do now and when to
//! look again. Pure: two clocks are arguments, what was done comes back as an answer.
//!
//! Nothing is remembered that status and Jobs do not say, save for pauses and waits. A decision about one object costs
//! a few look-ups in sorted sets, however many others there are. Each object has at most one request under way.

mod backup;
mod doubt;
pub mod entry;
mod heard;
mod index;
mod instant;
pub mod pace;
mod packed;
mod passed;
pub mod plight;
mod restore;
pub mod rival;
mod share;
#[cfg(test)]
mod tests;
pub mod verdict;
mod waits;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::entry::{Job, Object, Owned, Uid};
pub use self::index::Index;
use self::instant::optional;
use self::pace::{Lease, Turn};
pub use self::packed::Entry;
use self::plight::Plight;
use self::rival::Sight;
use self::verdict::Verdict;
use super::job::Run;
use super::report::Note;

/// Schedules go by the wall clock, pauses by one that never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub wall: Timestamp,
    pub tick: Duration,
}

/// What this installation was told.
#[derive(Debug, Clone)]
pub struct Context {
    /// Backups at work at a time.
    pub places: usize,
    /// Restores, undos and releases at work at a time.
    pub restore_places: usize,
    pub jitter_seconds: u32,
    /// When this watcher began: an older slot was missed.
    pub started: Timestamp,
    /// The lists that must have been seen before anything is decided.
    pub feeds: Vec<Feed>,
}

/// One thing to do for one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    pub uid: Uid,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Write the watcher's fields of status, as whole; the version that it was decided on is the precondition.
    Status(Owned),
    /// Write of the spec what no run can.
    Judge(Box<Verdict>),
    Launch {
        run: Box<Run>,
        note: Option<Note>,
    },
    /// Read the lock Lease of the object's StatefulSet.
    Look,
    /// Read the Lease of the watchers of another installation, by its name in `status.managedBy`.
    Sight(Box<str>),
    Prune {
        name: String,
        job: Uid,
    },
    /// Look at the pod of a Job that is not at work.
    Inspect {
        name: String,
        job: Uid,
    },
    /// Delete a Job whose runner has ended in a pod that has not.
    Remove {
        name: String,
        job: Uid,
    },
    /// An Event on the object. No answer is expected.
    Tell(Note),
}

/// What came of an act.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The object as it is now.
    Status(Option<Box<Object>>),
    /// The same, after a verdict.
    Judged(Option<Box<Object>>),
    /// The Job as it is now; none: it was there, and is gone.
    Launched(Option<Job>),
    Lease(Lease),
    /// What was seen of another installation; none: no answer.
    Sighted(Box<str>, Option<Sight>),
    Pruned(Uid),
    /// The API server accepts no such Job: its sentence.
    Rejected(String),
    Inspected(Uid, Plight),
    /// An Event was sent, or dropped.
    Told,
    /// Not done, or not known to be.
    Failed,
}

/// When to look again, if nothing is heard before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    #[serde(with = "optional")]
    pub wall: Option<Timestamp>,
    pub tick: Option<Duration>,
}

enum Choice {
    Rest(Wake),
    Act(What),
    /// A run that has not begun: it needs one of the places, and in its namespace the oldest goes first.
    Place {
        order: Timestamp,
        run: Box<Run>,
        note: Option<Note>,
    },
    /// The object cannot be acted on.
    Bad(String),
}

impl Choice {
    fn turn(turn: Turn, launch: impl FnOnce() -> Choice) -> Choice {
        match turn {
            Turn::Yes => launch(),
            Turn::Look => Choice::Act(What::Look),
            Turn::Rest(until) => Choice::Rest(Wake { wall: None, tick: Some(until) }),
            Turn::Hold => Choice::Rest(Wake::default()),
        }
    }
}

/// What is listed and watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    Backups,
    Restores,
    Jobs,
}

/// One list: of all namespaces, or of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feed {
    pub list: List,
    pub namespace: Option<Box<str>>,
}

impl Feed {
    pub fn resource(&self) -> &'static str {
        match self.list {
            List::Backups => "statefulsetbackups.backup.sts-backup.io",
            List::Restores => "statefulsetrestores.backup.sts-backup.io",
            List::Jobs => "jobs.batch",
        }
    }

    /// The three lists of these namespaces; of all if there are none.
    pub fn of(namespaces: &[String]) -> Vec<Feed> {
        let scopes = || namespaces.iter().map(|name| Some(name.as_str().into()));
        let all = || namespaces.is_empty().then_some(None);
        let of = |list| scopes().chain(all()).map(move |namespace| Feed { list, namespace });
        let jobs = Feed { list: List::Jobs, namespace: None };
        of(List::Backups).chain(of(List::Restores)).chain([jobs]).collect()
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} in {namespace}", self.resource()),
            None => f.write_str(self.resource()),
        }
    }
}
