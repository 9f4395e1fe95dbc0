//! What is heard of objects and Jobs, by watches and by the answers to our own requests, and how the index takes it in.
//! A watch may repeat itself, tell late, or begin anew with a list.

use super::entry::{Job, Object, Subject, Uid};
use super::index::{Index, aim};
use super::packed::Entry;
use super::share::Hold;
use super::waits::Lock;
use super::{Act, Answer, Feed, List, Now, What, backup};
use crate::api::condition::Reason;
use crate::plan::report::Note;

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
            let is_gone = |job: &Job| job.epoch < began;
            let shrinks = self.entries.after(None).filter(|(_, entry)| entry.jobs.iter().any(is_gone));
            for uid in shrinks.map(|(uid, _)| uid).collect::<Vec<_>>() {
                self.entries.change(uid, |entry| entry.jobs.retain(|job| !is_gone(job)));
                self.touched.insert(uid);
            }
            self.strays.retain(|_, jobs| {
                jobs.retain(|job| !is_gone(job));
                !jobs.is_empty()
            });
        } else {
            let here = |object: &Object| feed.namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace);
            let of = |object: &Object| list_of(object) == feed.list && here(object);
            let gone = self.entries.after(None).filter(|(_, entry)| entry.epoch < began && of(&entry.object));
            for uid in gone.map(|(uid, _)| uid).collect::<Vec<_>>() {
                self.forget(uid);
            }
        }
        if self.is_complete() {
            self.touched.extend(self.entries.keys());
        }
    }

    /// The namespace of this list may not be looked into: it was deleted, or the rights in it were. What is in it is not
    /// known, and what is in the others does not wait for it. A Job of theirs meets a run of its StatefulSet at the lock.
    pub fn barred(&mut self, feed: &Feed) {
        if feed.namespace.is_none() {
            return;
        }
        let before = self.is_complete();
        if let Some((_, ended)) = self.lists.get_mut(feed) {
            *ended = true;
        }
        if !before && self.is_complete() {
            self.touched.extend(self.entries.keys());
        }
    }

    pub fn is_complete(&self) -> bool {
        self.lists.values().all(|(_, ended)| *ended)
    }

    pub fn see(&mut self, uid: Uid, object: Object) {
        let leaves = object.leaving.is_some();
        let mut news = false;
        let mut entry = match self.entries.remove(uid) {
            Some(known) if is_older(&object.version, &known.object.version) => {
                self.entries.insert(uid, &Entry { epoch: self.epoch, ..known });
                return;
            }
            Some(known) => {
                if let Some(reason) = failed(&known.object, &object).filter(|_| self.is_complete()) {
                    *self.failures.entry(uid).or_default().entry(reason).or_default() += 1;
                }
                news = leaves && known.object.leaving.is_none();
                Entry { object, epoch: self.epoch, ..known }
            }
            None => Entry::new(object, self.strays.remove(&uid).unwrap_or_default(), self.epoch),
        };
        self.note_restore(uid, &entry.object);
        self.note_going(uid, &entry.object);
        if news {
            entry.pace.hurry();
            self.rouse(&entry.object.namespace);
        }
        self.entries.insert(uid, &entry);
        self.touched.insert(uid);
    }

    fn note_going(&mut self, uid: Uid, object: &Object) {
        let going = object.leaving.is_some() && object.held && matches!(object.subject, Subject::Restore(_));
        let key = (object.namespace.clone(), uid);
        if going {
            self.going.insert(key)
        } else {
            self.going.remove(&key)
        };
    }

    /// Something of the namespace goes, and perhaps all of it: what is held there is looked at without a pause. Who was
    /// woken is woken again only after another Job of it.
    fn rouse(&mut self, namespace: &str) {
        let of = |uid| (Box::from(namespace), uid);
        let all: Vec<_> = self.going.range(of(Uid(0))..=of(Uid(u128::MAX))).cloned().collect();
        for key in all {
            self.entries.change(key.1, |entry| entry.pace.hurry());
            self.touched.insert(key.1);
            self.going.remove(&key);
        }
    }

    pub fn forget(&mut self, uid: Uid) {
        let Some(mut entry) = self.entries.remove(uid) else { return };
        self.rest(uid, &mut entry);
        let (namespace, hold) = (entry.object.namespace.clone(), entry.hold);
        self.shares(&entry.object).pass(&namespace, hold, Hold::Nothing);
        self.touched.remove(&uid);
        self.failures.remove(&uid);
        self.going.remove(&(namespace.clone(), uid));
        self.rouse(&namespace);
        let (namespace, name) = entry.object.target();
        if self.restoring.remove(&(namespace.into(), name.into(), uid)) {
            self.unbar(&entry.object);
        }
        if !entry.jobs.is_empty() {
            self.strays.insert(uid, entry.jobs);
        }
    }

    pub fn see_job(&mut self, owner: Uid, job: Job) {
        let job = Job { epoch: self.epoch, ..job };
        if let Some(mut entry) = self.entries.remove(owner) {
            if !job.is_active() {
                self.note_going(owner, &entry.object);
            }
            take_in(&mut entry.jobs, job);
            self.entries.insert(owner, &entry);
            self.touched.insert(owner);
        } else {
            take_in(self.strays.entry(owner).or_default(), job);
        }
    }

    pub fn forget_job(&mut self, owner: Uid, job: Uid) {
        let drop = |jobs: &mut Vec<Job>| jobs.retain(|known| known.uid != job);
        if self.entries.change(owner, |entry| drop(&mut entry.jobs)).is_some() {
            self.touched.insert(owner);
        } else if let Some(jobs) = self.strays.get_mut(&owner) {
            drop(jobs);
            if jobs.is_empty() {
                self.strays.remove(&owner);
            }
        }
    }

    /// What came of an act of ours.
    pub fn answer(&mut self, uid: Uid, answer: Answer, now: Now) {
        if matches!(answer, Answer::Told) {
            return;
        }
        let known = self.entries.change(uid, |entry| {
            entry.busy = false;
            let making = entry.making.take();
            match &answer {
                Answer::Failed | Answer::Rejected(_) => entry.pace.failed(now.tick),
                _ => entry.pace.succeeded(),
            }
            let mut news = false;
            match &answer {
                Answer::Launched(_) => {
                    if let Some((_, mark)) = making {
                        entry.pace.launched(mark, now.tick);
                    }
                    entry.wanting = None;
                    entry.care.made();
                }
                Answer::Rejected(why) => news = entry.care.refused(why.clone()),
                Answer::Inspected(job, plight) => news = entry.care.saw(*job, plight.clone(), now.tick),
                Answer::Lease(lease) => {
                    entry.lock = Lock::saw(&entry.object, lease.holder.as_deref(), now.tick);
                    entry.pace.saw(lease.clone(), now.tick);
                }
                Answer::Judged(object) => {
                    let generation = object.as_ref().map(|object| object.generation);
                    entry.judged = entry.told.filter(|told| generation == Some(*told));
                }
                Answer::Status(_) | Answer::Sighted(..) | Answer::Pruned(_) | Answer::Failed | Answer::Told => {}
            }
            entry.care.told.clone().filter(|_| news)
        });
        if let Answer::Sighted(install, sight) = &answer
            && self.rivals.saw(install, sight.clone(), now.tick)
        {
            self.review(install);
        }
        let Some(told) = known else { return };
        self.notes.extend(told.map(|told| {
            let note = Note { warning: true, reason: told.why, message: told.message.into() };
            Act { uid, what: What::Tell(note) }
        }));
        match answer {
            Answer::Launched(Some(job)) => self.see_job(uid, job),
            Answer::Status(Some(object)) | Answer::Judged(Some(object)) => self.see(uid, *object),
            Answer::Pruned(job) => self.forget_job(uid, job),
            Answer::Launched(None)
            | Answer::Status(None)
            | Answer::Judged(None)
            | Answer::Lease(_)
            | Answer::Sighted(..)
            | Answer::Rejected(_)
            | Answer::Inspected(..)
            | Answer::Failed
            | Answer::Told => {}
        }
        self.touched.insert(uid);
    }

    pub(super) fn note_restore(&mut self, uid: Uid, object: &Object) {
        let Subject::Restore(restore) = &object.subject else { return };
        let (namespace, name) = object.target();
        let key = (namespace.into(), name.into(), uid);
        // Anyone can name another's StatefulSet: that counts once the runner has let it pass.
        let may = (*object.namespace == *namespace || restore.run.is_some()) && !self.is_left(object);
        // What this version cannot read it carries out for nobody: where claims are being replaced the lock says so.
        if !restore.is_over() && object.problem.is_none() && restore.unread.is_none() && may {
            self.restoring.insert(key);
        } else if self.restoring.remove(&key) {
            self.unbar(object);
        }
    }

    /// A restore of its StatefulSet is over: the backups that wait for that are looked at.
    fn unbar(&mut self, object: &Object) {
        let aim = aim(object);
        let barred: Vec<_> = self.barred.range((aim, Uid(0))..=(aim, Uid(u128::MAX))).copied().collect();
        for bar in barred {
            self.barred.remove(&bar);
            self.touched.insert(bar.1);
        }
    }
}

/// A Job as a watch or an answer told it.
fn take_in(jobs: &mut Vec<Job>, job: Job) {
    match jobs.iter_mut().find(|known| known.uid == job.uid) {
        // A finished Job does not begin again: that was an older state, told late.
        Some(known) if job.is_active() && !known.is_active() => known.epoch = job.epoch,
        Some(known) => *known = job,
        None => jobs.push(job),
    }
}

fn list_of(object: &Object) -> List {
    match object.subject {
        Subject::Backup(_) => List::Backups,
        Subject::Restore(_) => List::Restores,
    }
}

/// Why it has failed meanwhile: a backup's run that had not, or a restore that had not.
fn failed(before: &Object, now: &Object) -> Option<Reason> {
    match (&before.subject, &now.subject) {
        (Subject::Backup(before), Subject::Backup(now)) => {
            let (_, _, reason) =
                backup::failure(now).filter(|failed| backup::failure(before).as_ref() != Some(failed))?;
            Some(reason)
        }
        (Subject::Restore(before), Subject::Restore(now)) => now.failed.filter(|_| before.failed.is_none()),
        _ => None,
    }
}

/// Versions of one object grow; an answer may overtake the watch, which then tells what was before.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}
