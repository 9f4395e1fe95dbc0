//! What is not held against a restore. Each case is named: the deed that leaves nobody a choice, the promise that it breaks,
//! and of which claim or volume.

use sts_backup::api::restore::RestorePhase;
use sts_backup::api::shared::Goal;
use sts_backup::plan::noun::RETAIN;
use sts_backup::plan::restore::invariant::{Breach, Promise};

use super::*;

/// What can be wrong, where a case may excuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// In what is stored.
    Stored(Promise),
    /// The StatefulSet has made a claim of the run anew, empty.
    StartedEmpty,
    /// A claim is made from a snapshot that is not pinned.
    Unpinned,
    /// A snapshot stays pinned.
    Pinned,
    /// The replicas are not what they were.
    Replicas,
    /// Pods are not Ready in the end.
    Unready,
}

impl World {
    /// That is not held against us, of that claim or volume.
    fn excuse(&mut self, wrong: Wrong, of: &str) {
        self.excused.push((wrong, of.to_owned()));
    }

    pub fn is_excused(&self, wrong: Wrong, of: &str) -> bool {
        self.excused.iter().any(|(known, name)| *known == wrong && name == of)
    }

    /// A promise about what is stored is broken.
    pub fn breach(&mut self, breach: Breach) {
        self.wrong(Wrong::Stored(breach.promise), &breach.of, breach.why);
    }

    /// Something is wrong that a case may excuse.
    pub fn wrong(&mut self, wrong: Wrong, of: &str, why: String) {
        if !self.is_excused(wrong, of) {
            self.violate(why);
        }
    }

    /// Nothing excuses that.
    pub fn violate(&mut self, what: String) {
        if !self.violations.contains(&what) {
            self.note(|| format!("  !!!  {what}"));
            self.violations.push(what);
        }
    }

    /// Somebody takes the claim away. What is on its volume goes by their hand, unless it is Retained; and if the pods were
    /// to start on it, its volume is none that was set aside.
    pub(super) fn claim_is_taken(&mut self, pvc: &str) {
        let Some(pv) = self.claims.get(pvc).and_then(|claim| claim.volume.clone()) else { return };
        if self.disks.get(&pv).is_some_and(|disk| disk.volume.policy != RETAIN) {
            self.excuse(Wrong::Stored(Promise::Content), pvc);
            self.excuse(Wrong::Stored(Promise::WayBack), pvc);
        }
        if !matches!(self.status.phase, Some(RestorePhase::ScalingDown | RestorePhase::Restoring)) {
            self.excuse(Wrong::Stored(Promise::Aside), &pv);
        }
    }

    /// Somebody deletes the claim: it goes when nothing uses it, and a StatefulSet that is not at 0 makes it anew.
    pub(super) fn claim_is_deleted(&mut self, pvc: &str) {
        self.claim_is_taken(pvc);
        for wrong in [Wrong::Stored(Promise::Journal), Wrong::Stored(Promise::Name), Wrong::StartedEmpty] {
            self.excuse(wrong, pvc);
        }
    }

    /// Somebody deletes the volume that the claim had: where it still has it, it has none any more.
    pub(super) fn volume_is_lost(&mut self, pvc: &str) {
        for promise in [Promise::Content, Promise::WayBack, Promise::Bound, Promise::Name] {
            self.excuse(Wrong::Stored(promise), pvc);
        }
    }

    /// Its owner took its claim away, or status does not name it any more: nobody is left who could take our mark off.
    pub(super) fn volume_is_forsaken(&mut self, pv: &str) {
        self.excuse(Wrong::Stored(Promise::Mark), pv);
    }

    /// Status names a neighbour's volume as one that was set aside.
    pub(super) fn volume_is_named(&mut self, pv: &str) {
        self.excuse(Wrong::Stored(Promise::Aside), pv);
    }

    /// Somebody reserves a volume that was set aside for the claim.
    pub(super) fn volume_is_rescued(&mut self, pvc: &str) {
        self.excuse(Wrong::Stored(Promise::Single), pvc);
    }

    /// A request of a process that is dead. Once the run has turned back or is over, nobody is left who could know of it:
    /// a claim, a mark or a pin that comes then stays until somebody takes it away, and takes nothing from anybody. A
    /// scale-down that comes then stops the pods: a known limit. The way back has changed nothing on a StatefulSet that it
    /// found running, so its version is no bar; what is one is that no successor has the lock before 30 s of silence. The same
    /// holds for the deletion of a claim that comes when the run is over, and its volume has its own reclaim policy again.
    pub fn land(&mut self, step: &Restore) {
        if self.status.run.as_ref().is_some_and(|run| run.goal != Some(Goal::Old)) {
            return;
        }
        match step {
            Restore::Protect(tend) => self.volume_is_forsaken(&tend.pv),
            Restore::Stage(new) => self.excuse(Wrong::Unpinned, &new.name),
            Restore::Pin(_) => self.excuse(Wrong::Pinned, ""),
            Restore::Scale(_) => {
                for wrong in [Wrong::Stored(Promise::Stopped), Wrong::Replicas, Wrong::Unready] {
                    self.excuse(wrong, "");
                }
            }
            Restore::DropClaim(doomed) if self.status.run.is_none() => self.claim_is_deleted(&doomed.name),
            _ => {}
        }
    }
}
