//! What is heard of objects and Jobs, by watches and by the answers to our own requests, and how the index takes it in.
//! A watch may repeat itself, tell late, or begin anew with a list.

use std::collections::btree_map::Entry as Slot;

use super::entry::{Job, Object, Subject, Uid};
use super::index::{Entry, Index};
use super::pace::Pace;
use super::{Answer, Feed, List, Now, Wake, backup};
use crate::api::condition::Reason;

impl Index {
    /// A list begins: what it does not name is gone when it ends.
    pub fn list(&mut self, feed: &Feed) {
        self.epoch += 1;
        if let Some((began, _)) = self.lists.get_mut(feed) {
            *began = self.epoch;
        }
    }

    pub fn listed(&mut self, feed: &Feed) {
        let Some((began, ended)) = self.lists.get_mut(feed) else { return };
        (*ended, self.epoch) = (true, self.epoch + 1);
        let began = *began;
        if feed.list == List::Jobs {
            let stale = |jobs: &mut Vec<Job>| {
                let before = jobs.len();
                jobs.retain(|job| job.epoch >= began);
                jobs.len() < before
            };
            let shrunk = self.entries.iter_mut().filter_map(|(uid, entry)| stale(&mut entry.jobs).then_some(*uid));
            self.touched.extend(shrunk);
            self.strays.retain(|_, jobs| {
                stale(jobs);
                !jobs.is_empty()
            });
        } else {
            let here = |object: &Object| feed.namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace);
            let of = |object: &Object| list_of(object) == feed.list && here(object);
            let gone = self.entries.iter().filter(|(_, entry)| entry.epoch < began && of(&entry.object));
            for uid in gone.map(|(uid, _)| *uid).collect::<Vec<_>>() {
                self.forget(uid);
            }
        }
        if self.is_complete() {
            self.touched.extend(self.entries.keys());
        }
    }

    pub fn is_complete(&self) -> bool {
        self.lists.values().all(|(_, ended)| *ended)
    }

    pub fn see(&mut self, uid: Uid, object: Object) {
        let (epoch, complete) = (self.epoch, self.is_complete());
        match self.entries.entry(uid) {
            Slot::Occupied(mut slot) => {
                let entry = slot.get_mut();
                entry.epoch = epoch;
                if is_older(&object.version, &entry.object.version) {
                    return;
                }
                let failure = failure(&object).filter(|failed| self::failure(&entry.object).as_ref() != Some(failed));
                if let Some((_, _, reason)) = failure.filter(|_| complete) {
                    *self.failures.entry(reason).or_default() += 1;
                }
                entry.object = object;
            }
            Slot::Vacant(slot) => {
                slot.insert(Box::new(Entry {
                    object,
                    jobs: self.strays.remove(&uid).unwrap_or_default(),
                    pace: Pace::default(),
                    busy: false,
                    making: None,
                    placed: false,
                    wanting: None,
                    wake: Wake::default(),
                    queued: None,
                    told: None,
                    epoch,
                }));
            }
        }
        self.note_restore(uid);
        self.touched.insert(uid);
    }

    pub fn forget(&mut self, uid: Uid) {
        let Some(mut entry) = self.entries.remove(&uid) else { return };
        self.rest(uid, &mut entry);
        self.placed -= usize::from(entry.placed);
        self.touched.remove(&uid);
        let (namespace, name) = entry.object.target();
        if self.restoring.remove(&(namespace.into(), name.into(), uid)) {
            self.touched.append(&mut self.barred);
        }
        if !entry.jobs.is_empty() {
            self.strays.insert(uid, entry.jobs);
        }
    }

    pub fn see_job(&mut self, owner: Uid, mut job: Job) {
        job.epoch = self.epoch;
        let jobs = match self.entries.get_mut(&owner) {
            Some(entry) => {
                self.touched.insert(owner);
                &mut entry.jobs
            }
            None => self.strays.entry(owner).or_default(),
        };
        match jobs.iter_mut().find(|known| known.uid == job.uid) {
            // A finished Job does not begin again: that was an older state, told late.
            Some(known) if job.is_active() && !known.is_active() => known.epoch = job.epoch,
            Some(known) => {
                let since = if known.state == job.state { known.since } else { job.since };
                *known = Job { since, ..job };
            }
            None => jobs.push(job),
        }
    }

    pub fn forget_job(&mut self, owner: Uid, job: Uid) {
        if let Some(entry) = self.entries.get_mut(&owner) {
            entry.jobs.retain(|known| known.uid != job);
            self.touched.insert(owner);
        } else if let Some(jobs) = self.strays.get_mut(&owner) {
            jobs.retain(|known| known.uid != job);
            if jobs.is_empty() {
                self.strays.remove(&owner);
            }
        }
    }

    /// What came of an act of ours.
    pub fn answer(&mut self, uid: Uid, answer: Answer, now: Now) {
        let Some(entry) = self.entries.get_mut(&uid).filter(|_| !matches!(answer, Answer::Told)) else { return };
        entry.busy = false;
        let making = entry.making.take();
        if matches!(answer, Answer::Failed) {
            entry.pace.failed(now.tick);
        } else {
            entry.pace.succeeded();
        }
        match answer {
            Answer::Launched(job) => {
                if let Some((_, mark)) = making {
                    entry.pace.launched(mark, now.tick);
                }
                entry.wanting = None;
                if let Some(job) = job {
                    self.see_job(uid, job);
                }
            }
            Answer::Lease(lease) => entry.pace.saw(lease, now.tick),
            Answer::Status(Some(object)) => self.see(uid, *object),
            Answer::Pruned(job) => self.forget_job(uid, job),
            Answer::Status(None) | Answer::Failed | Answer::Told => {}
        }
        self.touched.insert(uid);
    }

    fn note_restore(&mut self, uid: Uid) {
        let Some(entry) = self.entries.get(&uid) else { return };
        let Subject::Restore(restore) = &entry.object.subject else { return };
        let (namespace, name) = entry.object.target();
        let key = (namespace.into(), name.into(), uid);
        if !restore.is_over() && entry.object.problem.is_none() {
            self.restoring.insert(key);
        } else if self.restoring.remove(&key) {
            self.touched.append(&mut self.barred);
        }
    }
}

fn list_of(object: &Object) -> List {
    match object.subject {
        Subject::Backup(_) => List::Backups,
        Subject::Restore(_) => List::Restores,
    }
}

fn failure(object: &Object) -> Option<(String, u32, Reason)> {
    let Subject::Backup(policy) = &object.subject else { return None };
    backup::failure(policy).map(|(slot, attempt, reason)| (slot.to_owned(), attempt, reason))
}

/// Versions of one object grow; an answer may overtake the watch, which then tells what was before.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}
