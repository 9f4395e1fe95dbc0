//! The condition Waiting: why nobody is at what is due, or that nothing is to become due.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::{Object, State, Subject, Waiting, Work};
use super::index::Index;
use super::packed::Entry;
use super::share::{Full, START};
use super::{Choice, Now, Wake, What};
use crate::api::condition::Reason;
use crate::plan::name;

/// Who has had no place for so long is told so in its status.
pub const TELL: Duration = Duration::from_secs(30);
/// Between two looks at who holds the lock.
const LOOK: Duration = Duration::from_secs(30);

/// What is remembered of the lock that a Job waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Who holds it, if somebody else does.
    pub holder: Option<Box<str>>,
    pub looked: Option<Duration>,
}

impl Index {
    /// As it is to be: a run is due and has had no place for a while, or that it waits no longer.
    pub(super) fn waiting(&self, entry: &mut Entry, waits: bool, barred: bool, now: Now) -> Option<Box<Waiting>> {
        let told = told(&entry.object).cloned();
        if !waits {
            entry.hungry = None;
        }
        let since = waits.then(|| *entry.hungry.get_or_insert(now.tick));
        let why = match &entry.care.told {
            Some(told) => Some((told.why, told.message.to_string())),
            None if since.is_some_and(|since| now.tick >= since + TELL) => Some(self.why(&entry.object, barred)),
            None => held(entry).or_else(|| suspended(&entry.object)),
        };
        let Some((why, message)) = why else {
            return told.map(|_| Box::new(Waiting { since: now.wall, why: None, message: "".into() }));
        };
        match told {
            // Which of two sentences is true may change with every run of others: that is no news.
            Some(told) if told.why == Some(why) && why != Reason::LockHeld => Some(Box::new(told)),
            Some(told) => Some(Box::new(Waiting { since: told.since, why: Some(why), message: message.into() })),
            None => Some(Box::new(Waiting { since: now.wall, why: Some(why), message: message.into() })),
        }
    }

    fn why(&self, object: &Object, barred: bool) -> (Reason, String) {
        if barred {
            return self.bar(object);
        }
        let (shares, what) = match object.subject {
            Subject::Backup(_) => (&self.backups, "backups"),
            Subject::Restore(_) => (&self.restores, "restores"),
        };
        let why = match shares.full(&object.namespace) {
            Some(full) => {
                let (count, what_for) = match full {
                    Full::Waiting(count) => (count, "a lock or a pod"),
                    Full::Uploads(count) => (count, "their snapshots to become ready"),
                };
                let already = format!("{count} {what} of namespace {} already wait for {what_for}", object.namespace);
                format!("{already}. No further Job is made until one of them goes on or ends")
            }
            None => format!("at most {} {what} run at a time. Namespaces take turns", shares.places()),
        };
        (Reason::NoPlace, format!("A run is due, but {why}"))
    }
}

/// Its Job has been at work for a while, and its run has not begun: it waits for the lock.
fn is_at_lock(entry: &Entry, tick: Duration) -> bool {
    let waits = |job: &super::entry::Job| job.state == State::Running && entry.object.work(job) == Work::Wait;
    entry.since.is_some_and(|(work, since)| work == Work::Wait && tick >= since + START) && entry.jobs.iter().any(waits)
}

/// Whoever waits for the lock is to know for whom: that is looked at, again and again.
pub fn at_lock(entry: &mut Entry, choice: Choice, now: Now) -> Choice {
    if !is_at_lock(entry, now.tick) {
        entry.lock = Lock::default();
        return choice;
    }
    let Choice::Rest(wake) = choice else { return choice };
    match entry.lock.looked.map(|looked| looked + LOOK) {
        Some(due) if due > now.tick => {
            let tick = wake.tick.into_iter().chain([due]).min();
            Choice::Rest(Wake { tick, ..wake })
        }
        _ => Choice::Act(What::Look),
    }
}

impl Lock {
    /// It was looked at: a holder that works for the object itself is about to begin.
    pub fn saw(object: &Object, holder: Option<&str>, tick: Duration) -> Lock {
        let kin = object.kin();
        Lock { holder: holder.filter(|holder| !holder.starts_with(&kin)).map(Into::into), looked: Some(tick) }
    }
}

/// [`at_lock`] has just forgotten the holder of a lock that is not waited for any more.
fn held(entry: &Entry) -> Option<(Reason, String)> {
    let holder = entry.lock.holder.as_ref()?;
    let (namespace, statefulset) = entry.object.target();
    let lock = format!("Lease {namespace}/{}", name::lease(statefulset));
    Some((Reason::LockHeld, format!("A run is due, and its Job waits for the lock, {lock}, which {holder} holds")))
}

fn suspended(object: &Object) -> Option<(Reason, String)> {
    let Subject::Backup(policy) = &object.subject else { return None };
    let message = "spec.suspend is true: a run begins only on request until it is false";
    (policy.suspend && object.leaving.is_none()).then(|| (Reason::Suspended, message.to_owned()))
}

/// That it waits, as far as status tells.
pub fn told(object: &Object) -> Option<&Waiting> {
    object.owned().waiting.as_deref().filter(|waiting| waiting.why.is_some())
}
