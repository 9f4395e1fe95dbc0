//! The index: what is known of every object, who is to be looked at when, and who waits for a place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::backup::{self, Given};
use super::entry::{Job, Manager, Object, Owned, Subject, Uid};
use super::pace::Mark;
use super::packed::{Entries, Entry};
use super::restore;
use super::{Act, Choice, Context, Feed, Now, Wake, What};
use crate::api::condition::Reason;
use crate::plan::report::Note;

#[derive(Debug)]
pub struct Index {
    pub(super) context: Context,
    pub(super) entries: Entries,
    /// Jobs of objects that we do not see, or not yet.
    pub(super) strays: BTreeMap<Uid, Vec<Job>>,
    pub(super) touched: BTreeSet<Uid>,
    pub(super) by_wall: BTreeSet<(Timestamp, Uid)>,
    pub(super) by_tick: BTreeSet<(Duration, Uid)>,
    /// Backups that wait for a place.
    pub(super) queue: BTreeSet<(Timestamp, Uid)>,
    /// Backups that wait for the end of a restore.
    pub(super) barred: BTreeSet<Uid>,
    /// Targets of the restores that are not over.
    pub(super) restoring: BTreeSet<(Box<str>, Box<str>, Uid)>,
    pub(super) placed: usize,
    /// Grows with each list that begins; what was seen since bears it.
    pub(super) epoch: u32,
    /// The epoch with which a feed's newest list began, and whether one has ended yet.
    pub(super) lists: BTreeMap<Feed, (u32, bool)>,
    pub(super) notes: Vec<Act>,
    pub(super) failures: BTreeMap<Reason, u64>,
}

impl Index {
    pub fn new(context: Context) -> Index {
        let lists = context.feeds.iter().map(|feed| (feed.clone(), (0, false))).collect();
        Index {
            context,
            entries: Entries::default(),
            strays: BTreeMap::new(),
            touched: BTreeSet::new(),
            by_wall: BTreeSet::new(),
            by_tick: BTreeSet::new(),
            queue: BTreeSet::new(),
            barred: BTreeSet::new(),
            restoring: BTreeSet::new(),
            placed: 0,
            epoch: 0,
            lists,
            notes: vec![],
            failures: BTreeMap::new(),
        }
    }

    // What is decided.

    /// All that is to be done now. Every act but an Event is answered for by [`Index::answer`].
    pub fn plan(&mut self, now: Now) -> Vec<Act> {
        if !self.is_complete() {
            return vec![];
        }
        while let Some(due) = self.by_wall.first().filter(|(at, _)| *at <= now.wall).copied() {
            self.by_wall.remove(&due);
            self.touched.insert(due.1);
        }
        while let Some(due) = self.by_tick.first().filter(|(at, _)| *at <= now.tick).copied() {
            self.by_tick.remove(&due);
            self.touched.insert(due.1);
        }
        let mut acts = vec![];
        while let Some(uid) = self.touched.pop_first() {
            acts.extend(self.turn(uid, false, now));
        }
        while self.placed < self.context.places
            && let Some((_, uid)) = self.queue.first().copied()
        {
            acts.extend(self.turn(uid, true, now));
        }
        acts.append(&mut self.notes);
        acts
    }

    /// When to plan again if nothing is heard.
    pub fn wake(&self) -> Wake {
        Wake { wall: self.by_wall.first().map(|(at, _)| *at), tick: self.by_tick.first().map(|(at, _)| *at) }
    }

    /// One object's turn. `place`: one is free for it.
    fn turn(&mut self, uid: Uid, place: bool, now: Now) -> Option<Act> {
        let mut entry = self.entries.remove(uid)?;
        self.rest(uid, &mut entry);
        let act = self.decide(uid, &mut entry, place, now);
        let placed = entry.is_placed(now.tick);
        self.placed = self.placed + usize::from(placed) - usize::from(entry.placed);
        entry.placed = placed;
        self.by_wall.extend(entry.wake.wall.map(|at| (at, uid)));
        self.by_tick.extend(entry.wake.tick.map(|at| (at, uid)));
        self.queue.extend(entry.queued.map(|at| (at, uid)));
        self.entries.insert(uid, &entry);
        act.map(|what| Act { uid, what })
    }

    /// Out of every queue.
    pub(super) fn rest(&mut self, uid: Uid, entry: &mut Entry) {
        if let Some(at) = entry.wake.wall.take() {
            self.by_wall.remove(&(at, uid));
        }
        if let Some(at) = entry.wake.tick.take() {
            self.by_tick.remove(&(at, uid));
        }
        if let Some(at) = entry.queued.take() {
            self.queue.remove(&(at, uid));
        }
        self.barred.remove(&uid);
    }

    fn decide(&mut self, uid: Uid, entry: &mut Entry, place: bool, now: Now) -> Option<What> {
        if entry.busy {
            return None;
        }
        if entry.pace.not_before() > now.tick {
            entry.wake.tick = Some(entry.pace.not_before());
            return None;
        }
        entry.wake.tick = entry.unstuck(now.tick);
        let what = match self.choose(uid, entry, now) {
            Choice::Rest(wake) => {
                entry.wake = Wake { tick: wake.tick.into_iter().chain(entry.wake.tick).min(), ..wake };
                return None;
            }
            Choice::Bad(problem) => {
                self.tell_once(uid, entry, &problem);
                return None;
            }
            Choice::Place { .. } if self.is_restoring(&entry.object) => {
                self.barred.insert(uid);
                return None;
            }
            Choice::Place { order, .. } if !place => {
                entry.queued = Some(order);
                entry.wanting.get_or_insert(order);
                return None;
            }
            Choice::Place { run, .. } => What::Launch { run, note: None },
            Choice::Act(what) => what,
        };
        if let What::Launch { run, note } = &what {
            entry.making = Some((run.kind, Mark::of(run.kind, &run.slot)));
            self.notes.extend(note.clone().map(|note| Act { uid, what: What::Tell(note) }));
        }
        entry.busy = true;
        Some(what)
    }

    fn choose(&self, uid: Uid, entry: &mut Entry, now: Now) -> Choice {
        let Entry { object: o, jobs, pace, wanting, .. } = entry;
        if let Some(problem) = &o.problem {
            return Choice::Bad(problem.to_string());
        }
        match o.manager {
            Manager::Another(_) => return Choice::Rest(Wake::default()),
            Manager::Nobody if o.leaving.is_some() && !o.held => return Choice::Rest(Wake::default()),
            Manager::Nobody => {
                let owned = match &o.subject {
                    Subject::Backup(policy) => policy.owned.clone(),
                    Subject::Restore(restore) => Owned { request: restore.request.clone(), ..Owned::default() },
                };
                return Choice::Act(What::Status(owned));
            }
            Manager::Us => {}
        }
        match &o.subject {
            Subject::Backup(p) => {
                backup::decide(&Given { c: &self.context, uid, o, p, jobs, wanting: *wanting }, pace, now)
            }
            Subject::Restore(r) => restore::decide(&restore::Case { uid, o, r, jobs }, pace, now),
        }
    }

    fn tell_once(&mut self, uid: Uid, entry: &mut Entry, problem: &str) {
        if entry.told.replace(entry.object.generation) != Some(entry.object.generation) {
            let message = format!("not acted on: {problem}");
            let note = Note { warning: true, reason: Reason::InvalidSpec, message };
            self.notes.push(Act { uid, what: What::Tell(note) });
        }
    }

    fn is_restoring(&self, object: &Object) -> bool {
        let (namespace, name) = object.target();
        let first = (Box::from(namespace), Box::from(name), Uid(0));
        self.restoring.range(first..).next().is_some_and(|(ns, n, _)| **ns == *namespace && **n == *name)
    }

    // What is shown.

    pub fn get(&self, uid: Uid) -> Option<Entry> {
        self.entries.get(uid)
    }

    /// The entries after this one, in a fixed order.
    pub fn after(&self, uid: Option<Uid>) -> impl Iterator<Item = (Uid, Entry)> {
        self.entries.after(uid)
    }

    /// Places that are taken, and backups that wait for one.
    pub fn places(&self) -> (usize, usize) {
        (self.placed, self.queue.len())
    }

    /// Failed runs that this process has seen end.
    pub fn failures(&self) -> &BTreeMap<Reason, u64> {
        &self.failures
    }
}
