//! A Job that comes to nothing without the runner's fault: the API server does not accept it, its pod is not admitted,
//! scheduled or pulled, or a sidecar outlives the runner. The runner cannot tell any of that; the watcher does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::{Job, State, Uid};
use super::packed::Entry;
use crate::api::condition::Reason;

/// A Job whose pod is not at work for so long is looked at, and again and again after such a time.
pub const LOOK: Duration = Duration::from_secs(15);

/// What was found of a Job whose pod is not at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plight {
    /// Nothing that anybody could act on.
    None,
    /// It has no pod: the API server's sentence.
    Rejected(String),
    /// Its pod waits for a node, or its container for its image.
    Pending(String),
    /// The runner has ended, and something else in its pod has not.
    Ended(i32),
}

/// What is to be told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub why: Reason,
    pub message: Box<str>,
}

/// What is remembered of the Job in question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Care {
    /// Since when there has been one without a pod at work.
    since: Option<Duration>,
    looked: Option<Duration>,
    pub told: Option<Box<Told>>,
    /// The Job whose runner has ended: it goes.
    ended: Option<Uid>,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Nothing,
    /// Not before then.
    Wait(Duration),
    Inspect(Uid),
    Remove(Uid),
}

impl Care {
    pub fn next(&mut self, jobs: &[Job], tick: Duration) -> Next {
        let Some(job) = jobs.iter().find(|job| job.state == State::Pending) else {
            let told = self.told.take().filter(|_| !jobs.iter().any(Job::is_active) && self.since.is_none());
            *self = Care { told, ..Care::default() };
            return Next::Nothing;
        };
        if self.ended == Some(job.uid) {
            return Next::Remove(job.uid);
        }
        let since = *self.since.get_or_insert(tick);
        let due = self.looked.unwrap_or(since) + LOOK;
        if tick < due { Next::Wait(due) } else { Next::Inspect(job.uid) }
    }

    /// The Job was looked at. True: there is something new to tell.
    pub fn saw(&mut self, job: Uid, plight: Plight, tick: Duration) -> bool {
        self.looked = Some(tick);
        let (why, message) = match plight {
            Plight::None => (None, String::new()),
            Plight::Rejected(message) => (Some(Reason::JobRejected), message),
            Plight::Pending(message) => (Some(Reason::JobPending), message),
            Plight::Ended(_) => {
                self.ended = Some(job);
                (None, String::new())
            }
        };
        self.tell(why.map(|why| Told { why, message: message.into() }))
    }

    /// No Job could be made.
    pub fn refused(&mut self, message: String) -> bool {
        self.tell(Some(Told { why: Reason::JobRejected, message: message.into() }))
    }

    /// It could.
    pub fn made(&mut self) {
        *self = Care::default();
    }

    fn tell(&mut self, told: Option<Told>) -> bool {
        let news = told.as_ref().is_some_and(|told| self.told.as_ref().is_none_or(|known| known.why != told.why));
        self.told = told.map(Box::new);
        news
    }
}

/// The name of one of its Jobs.
pub fn name(entry: &Entry, owner: Uid, job: Uid) -> Option<String> {
    entry.jobs.iter().find(|known| known.uid == job).map(|job| job.name(&entry.object, owner))
}
