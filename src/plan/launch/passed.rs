//! Objects that another installation manages. Nothing is done for them; but that nobody acts on one is said on it, by
//! whoever is passed over, since nobody else is there to say it.
//!
//! Two that live never write to one object: that its installation is gone is said once, and whoever takes that back lives.

use super::entry::{Manager, Object, Owned, Subject, Uid};
use super::index::Index;
use super::packed::Entry;
use super::rival::{self, Life, Turn};
use super::{Act, Now, What};
use crate::api::condition::Reason;
use crate::plan::report::Note;

impl Index {
    pub(super) fn passed_over(&mut self, uid: Uid, entry: &mut Entry, install: &str, now: Now) -> Option<What> {
        let said = says(&entry.object);
        if entry.passed.said && !said {
            self.rivals.contradict(install);
        }
        entry.passed.said |= said;
        let life = match self.rivals.turn(install, now.tick) {
            Turn::Look => {
                entry.busy = true;
                return Some(What::Sight(install.into()));
            }
            Turn::Rest(life, until) => {
                entry.wake.tick = Some(until);
                life
            }
        };
        let message = match life {
            Life::Unknown => return None,
            Life::Gone => rival::gone(&entry.object, install),
            Life::Lives | Life::Hidden => rival::lives(&entry.object, install, life == Life::Hidden),
        };
        let gone = life == Life::Gone;
        if entry.passed.told.replace(gone) != Some(gone) {
            let note = Note { warning: gone, reason: Reason::ManagedByAnother, message };
            self.notes.push(Act { uid, what: What::Tell(note) });
        }
        // As with all writes of ours: not in a freeze.
        if !gone || said || entry.object.is_frozen() {
            return None;
        }
        entry.busy = true;
        let waiting = Some(Box::new(rival::waiting(&entry.object, install, now.wall)));
        Some(What::Status(Owned { waiting, ..entry.object.owned().clone() }))
    }

    /// What is known of this installation has changed.
    pub(super) fn review(&mut self, install: &str) {
        let of = |entry: &Entry| matches!(&entry.object.manager, Manager::Another(by) if **by == *install);
        let all: Vec<_> = self.entries.after(None).filter(|(_, entry)| of(entry)).collect();
        for (uid, entry) in all {
            self.note_restore(uid, &entry.object);
            self.touched.insert(uid);
        }
    }

    /// Why a backup waits for a restore of its StatefulSet, and the remedy where nobody carries that one out.
    pub(super) fn bar(&self, object: &Object) -> (Reason, String) {
        let (namespace, name) = object.target();
        let message = format!("A run is due: it begins when the restore of StatefulSet {namespace}/{name} is over");
        let mut all = self.restorers(object).filter_map(|uid| self.entries.get(uid));
        let gone = |entry: Entry| match entry.object.manager {
            Manager::Another(by) if self.rivals.is_gone(&by) => Some((entry.object.namespace, entry.object.name, by)),
            _ => None,
        };
        match all.find_map(gone) {
            None => (Reason::RestoreUnderWay, message),
            Some((namespace, name, by)) => {
                let left = format!(
                    "StatefulSetRestore {namespace}/{name} is managed by {by}, whose watcher does not run. If {by} is gone for \
                     good, hand the restore over: sts-backup doctor --take-over {namespace}/{name}"
                );
                (Reason::ManagedByAnother, format!("{message}. {left}"))
            }
        }
    }

    /// Nobody carries it out: it has not begun, and its installation is gone.
    pub(super) fn is_left(&self, object: &Object) -> bool {
        let Subject::Restore(restore) = &object.subject else { return false };
        matches!(&object.manager, Manager::Another(install) if restore.run.is_none() && self.rivals.is_gone(install))
    }
}

/// Its status says that nobody acts on it.
fn says(object: &Object) -> bool {
    object.owned().waiting.as_ref().is_some_and(|told| told.why == Some(Reason::ManagedByAnother))
}
