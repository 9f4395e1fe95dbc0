//! The index: what is known of every object, who is to be looked at when, and who waits for a place.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;

use super::backup::{self, Given};
use super::doubt;
use super::entry::{Job, Manager, Object, Owned, Subject, Uid, Waiting};
use super::pace::Mark;
use super::packed::{Entries, Entry};
use super::plight;
use super::restore;
use super::rival::Rivals;
use super::share::Shares;
use super::verdict::{self, Verdict};
use super::waits::{self, TELL, told};
use super::{Act, Choice, Context, Feed, Now, Wake, What};
use crate::api::condition::Reason;
use crate::plan::report::Note;

/// A status that the API server does not store is not sent for ever.
const TRIES: u32 = 8;

#[derive(Debug)]
pub struct Index {
    pub(super) context: Context,
    pub(super) entries: Entries,
    /// Jobs of objects that we do not see, or not yet.
    pub(super) strays: BTreeMap<Uid, Vec<Job>>,
    pub(super) touched: BTreeSet<Uid>,
    /// Those that have had no place for long, if they get none now either.
    untold: BTreeSet<Uid>,
    pub(super) by_wall: BTreeSet<(Timestamp, Uid)>,
    pub(super) by_tick: BTreeSet<(Duration, Uid)>,
    /// Who holds a place, and who waits for one.
    pub(super) backups: Shares,
    pub(super) restores: Shares,
    /// Backups that wait for the end of a restore, by what they aim at.
    pub(super) barred: BTreeSet<(u64, Uid)>,
    /// Targets of the restores that are not over.
    pub(super) restoring: BTreeSet<(Box<str>, Box<str>, Uid)>,
    /// Restores whose objects are deleted and held by our finalizer, by namespace: who is to be woken.
    pub(super) going: BTreeSet<(Box<str>, Uid)>,
    pub(super) rivals: Rivals,
    /// Grows with each list that begins; what was seen since bears it.
    pub(super) epoch: u32,
    /// The epoch with which a feed's newest list began, and whether one has ended yet.
    pub(super) lists: BTreeMap<Feed, (u32, bool)>,
    pub(super) notes: Vec<Act>,
    pub(super) failures: BTreeMap<Uid, BTreeMap<Reason, u64>>,
}

/// What an object's turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Something has changed.
    Look,
    /// A place is free for it.
    Place,
    /// No place is left.
    Tell,
}

impl Index {
    pub fn new(context: Context) -> Index {
        let lists = context.feeds.iter().map(|feed| (feed.clone(), (0, false))).collect();
        let (backups, restores) = (Shares::new(context.places), Shares::new(context.restore_places));
        Index {
            context,
            entries: Entries::default(),
            strays: BTreeMap::new(),
            touched: BTreeSet::new(),
            untold: BTreeSet::new(),
            by_wall: BTreeSet::new(),
            by_tick: BTreeSet::new(),
            backups,
            restores,
            barred: BTreeSet::new(),
            restoring: BTreeSet::new(),
            going: BTreeSet::new(),
            rivals: Rivals::default(),
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
            acts.extend(self.turn(uid, Pass::Look, now));
        }
        while let Some(uid) = self.restores.next().or_else(|| self.backups.next()) {
            acts.extend(self.turn(uid, Pass::Place, now));
        }
        while let Some(uid) = self.untold.pop_first() {
            acts.extend(self.turn(uid, Pass::Tell, now));
        }
        acts.append(&mut self.notes);
        acts
    }

    /// When to plan again if nothing is heard.
    pub fn wake(&self) -> Wake {
        Wake { wall: self.by_wall.first().map(|(at, _)| *at), tick: self.by_tick.first().map(|(at, _)| *at) }
    }

    /// One object's turn.
    fn turn(&mut self, uid: Uid, pass: Pass, now: Now) -> Option<Act> {
        let mut entry = self.entries.remove(uid)?;
        self.rest(uid, &mut entry);
        let act = self.decide(uid, &mut entry, pass, now);
        let (hold, until) = entry.holds(now.tick);
        let before = std::mem::replace(&mut entry.hold, hold);
        entry.wake.tick = entry.wake.tick.into_iter().chain(until).min();
        let (namespace, queued) = (&entry.object.namespace, entry.queued);
        let shares = self.shares(&entry.object);
        shares.pass(namespace, before, hold);
        if let Some(at) = queued {
            shares.join(namespace, at, uid);
        }
        self.by_wall.extend(entry.wake.wall.map(|at| (at, uid)));
        self.by_tick.extend(entry.wake.tick.map(|at| (at, uid)));
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
            self.shares(&entry.object).leave(&entry.object.namespace, at, uid);
        }
        self.barred.remove(&(aim(&entry.object), uid));
    }

    fn decide(&mut self, uid: Uid, entry: &mut Entry, pass: Pass, now: Now) -> Option<What> {
        if entry.busy {
            return None;
        }
        if entry.pace.not_before() > now.tick {
            entry.wake.tick = Some(entry.pace.not_before());
            return None;
        }
        if let Manager::Another(install) = entry.object.manager.clone() {
            return self.passed_over(uid, entry, &install, now);
        }
        let choice = self.choose(uid, entry, now);
        let choice = care(uid, entry, choice, now);
        let choice = waits::at_lock(entry, choice, now);
        let barred = matches!(choice, Choice::Place { .. }) && self.is_barred(&entry.object);
        let waits = matches!(choice, Choice::Place { .. }) && (barred || pass != Pass::Place);
        let waiting = match &choice {
            Choice::Bad(problem) if is_unread(&entry.object) => Some(Box::new(unread(&entry.object, problem, now))),
            _ => self.waiting(entry, waits, barred, now),
        };
        let untold = waiting.as_deref() != told(&entry.object) && entry.object.manager == Manager::Us;
        let untold_care = untold && entry.care.told.is_some() && !entry.object.is_frozen();
        let what = match choice {
            Choice::Act(What::Status(owned)) => What::Status(Owned { waiting, ..owned }),
            _ if untold_care => What::Status(Owned { waiting, ..entry.object.owned().clone() }),
            Choice::Act(what) => what,
            Choice::Place { run, note, .. } if !waits => {
                self.shares(&entry.object).serve(&entry.object.namespace);
                What::Launch { run, note }
            }
            // As with all writes of ours: not in a freeze. And nobody is told before it is sure who gets a place.
            _ if untold && !entry.object.is_frozen() && (!waits || pass == Pass::Tell) => {
                What::Status(Owned { waiting, ..entry.object.owned().clone() })
            }
            Choice::Rest(wake) => {
                entry.wake = wake;
                return None;
            }
            Choice::Bad(problem) => {
                self.tell_once(uid, entry, &problem);
                What::Judge(Box::new(judge(entry, &problem, now)?))
            }
            Choice::Place { order, .. } => {
                entry.wake.tick = entry.hungry.map(|since| since + TELL).filter(|at| *at > now.tick);
                if untold && pass != Pass::Tell {
                    self.untold.insert(uid);
                }
                if barred {
                    self.barred.insert((aim(&entry.object), uid));
                } else {
                    entry.queued = Some(order);
                    entry.wanting.get_or_insert(order);
                }
                return None;
            }
        };
        self.begun(uid, entry, &what, now);
        Some(what)
    }

    /// It is being done from now on; and what is to be told of it.
    fn begun(&mut self, uid: Uid, entry: &mut Entry, what: &What, now: Now) {
        if let What::Launch { run, note } = what {
            entry.making = Some((run.kind, Mark::of(run.kind, &run.slot)));
            self.notes.extend(note.clone().map(|note| Act { uid, what: What::Tell(note) }));
        }
        if matches!(what, What::Status(owned) if owned.last != entry.object.owned().last) {
            let note = doubt::doubted(&entry.object, now.wall);
            self.notes.extend(note.map(|note| Act { uid, what: What::Tell(note) }));
        }
        entry.busy = true;
    }

    fn choose(&self, uid: Uid, entry: &mut Entry, now: Now) -> Choice {
        let Entry { object: o, jobs, pace, wanting, .. } = entry;
        if let Some(problem) = &o.problem {
            return Choice::Bad(problem.to_string());
        }
        match o.manager {
            Manager::Nobody if o.leaving.is_some() && !o.held => return Choice::Rest(Wake::default()),
            Manager::Nobody => return Choice::Act(What::Status(o.owned().clone())),
            Manager::Us | Manager::Another(_) => {}
        }
        match &o.subject {
            Subject::Backup(p) => {
                backup::decide(&Given { c: &self.context, uid, o, p, jobs, wanting: *wanting }, pace, now)
            }
            Subject::Restore(r) => restore::decide(&restore::Case { uid, o, r, jobs, wanting: *wanting }, pace, now),
        }
    }

    fn tell_once(&mut self, uid: Uid, entry: &mut Entry, problem: &str) {
        if entry.told.replace(entry.object.generation) != Some(entry.object.generation) {
            let message = format!("not acted on: {problem}");
            let note = Note { warning: true, reason: Reason::InvalidSpec, message };
            self.notes.push(Act { uid, what: What::Tell(note) });
        }
    }

    /// A restore of what it backs up is not over.
    fn is_barred(&self, object: &Object) -> bool {
        matches!(object.subject, Subject::Backup(_)) && self.restorers(object).next().is_some()
    }

    /// The restores of its StatefulSet that are not over.
    pub(super) fn restorers(&self, object: &Object) -> impl Iterator<Item = Uid> {
        let (namespace, name): (Box<str>, Box<str>) = (object.target().0.into(), object.target().1.into());
        let of = |uid| (namespace.clone(), name.clone(), uid);
        self.restoring.range(of(Uid(0))..=of(Uid(u128::MAX))).map(|(.., uid)| *uid)
    }

    pub(super) fn shares(&mut self, object: &Object) -> &mut Shares {
        match object.subject {
            Subject::Backup(_) => &mut self.backups,
            Subject::Restore(_) => &mut self.restores,
        }
    }

    // What is shown.

    pub fn get(&self, uid: Uid) -> Option<Entry> {
        self.entries.get(uid)
    }

    /// The entries after this one, in a fixed order.
    pub fn after(&self, uid: Option<Uid>) -> impl Iterator<Item = (Uid, Entry)> {
        self.entries.after(uid)
    }

    /// Places that are taken, and runs that wait for one: of backups, and of restores.
    pub fn places(&self) -> [(usize, usize); 2] {
        [&self.backups, &self.restores].map(|shares| (shares.taken(), shares.queued()))
    }

    /// Failed runs that this process has seen end.
    pub fn failures(&self) -> &BTreeMap<Uid, BTreeMap<Reason, u64>> {
        &self.failures
    }
}

/// Beside all else: a Job that comes to nothing.
fn care(uid: Uid, entry: &mut Entry, choice: Choice, now: Now) -> Choice {
    let next = entry.care.next(&entry.jobs, now.tick);
    let Choice::Rest(wake) = choice else { return choice };
    // Nothing is to be made any more.
    if !entry.jobs.iter().any(Job::is_active) {
        entry.care.told = None;
    }
    let of = |job| plight::name(entry, uid, job);
    let what = match next {
        _ if entry.object.manager != Manager::Us => None,
        plight::Next::Inspect(job) => of(job).map(|name| What::Inspect { name, job }),
        plight::Next::Remove(job) => of(job).map(|name| What::Remove { name, job }),
        plight::Next::Wait(at) => {
            let tick = wake.tick.into_iter().chain([at]).min();
            return Choice::Rest(Wake { tick, ..wake });
        }
        plight::Next::Nothing => None,
    };
    what.map_or(Choice::Rest(wake), Choice::Act)
}

/// What status does not say yet of a spec that cannot be acted on.
fn judge(entry: &Entry, problem: &str, now: Now) -> Option<Verdict> {
    let o = &entry.object;
    let said = verdict::said(o) == Some((Reason::InvalidSpec, o.generation)) || entry.judged == Some(o.generation);
    let works = o.run().is_some() || entry.jobs.iter().any(Job::is_active);
    let ours = !matches!(o.manager, Manager::Another(_)) && !is_unread(o);
    let may = ours && !works && o.leaving.is_none() && entry.pace.failures() < TRIES;
    (may && !said).then(|| verdict::invalid(o, problem, now.wall))
}

/// A newer version has written its plan.
fn is_unread(object: &Object) -> bool {
    matches!(&object.subject, Subject::Restore(restore) if restore.unread.is_some()) && object.manager == Manager::Us
}

/// That nothing is done for it; since when that has been told is kept.
fn unread(object: &Object, problem: &str, now: Now) -> Waiting {
    let told = told(object).filter(|told| told.why == Some(Reason::FormatUnknown)).cloned();
    let new = || Waiting { since: now.wall, why: Some(Reason::FormatUnknown), message: problem.into() };
    told.unwrap_or_else(new)
}

/// Stands for the StatefulSet that it is about.
pub(super) fn aim(object: &Object) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.target().hash(&mut hasher);
    hasher.finish()
}
