//! How the pods, the claims and what only a restore looks at become known: what an older sight of the same object
//! knows better is kept, and what a change makes doubtful becomes Unknown.

use std::collections::{BTreeMap, BTreeSet};

use super::{Read, Seen, View};
use crate::api::restore::RestorePhase;
use crate::api::shared::Goal;
use crate::plan::noun::{Claim, Pod};
use crate::plan::restore::sight::{Look, Sight};

impl View {
    /// All pods of a watch; of those that a hook has entered and that are not in it we know that they are gone.
    pub(super) fn fold_pods(&mut self, mut pods: BTreeMap<String, Pod>) {
        self.fold_roster(pods.clone());
        for (name, pod) in &mut self.pods {
            *pod = pods.remove(name);
        }
    }

    /// Keeps since when a pod is ready: for as long as it is the same pod.
    fn fold_roster(&mut self, mut pods: BTreeMap<String, Pod>) {
        for (name, pod) in &mut pods {
            let before = self.roster().ok().and_then(|roster| roster.get(name));
            pod.keep(before);
        }
        self.roster = Seen::Known(pods);
    }

    pub(super) fn fold_pod(&mut self, name: String, pod: Option<Pod>) {
        if let Seen::Known(roster) = &mut self.roster {
            match pod.clone() {
                Some(mut pod) => {
                    pod.keep(roster.get(&name));
                    roster.insert(name.clone(), pod);
                }
                None => drop(roster.remove(&name)),
            }
        }
        self.pods.insert(name, pod);
    }

    pub(super) fn fold_claims(&mut self, mut claims: BTreeMap<String, Claim>) {
        self.restore.stale(&Look::Closing);
        if let Seen::Known(before) = std::mem::take(&mut self.claims) {
            for (name, claim) in &mut claims {
                match before.get(name) {
                    // A watch may tell what was so before our own last write.
                    Some(newer) if claim.is_before(newer) => claim.clone_from(newer),
                    before => claim.keep(before),
                }
            }
            let names: BTreeSet<&String> = before.keys().chain(claims.keys()).collect();
            for name in names {
                self.rebind(before.get(name), claims.get(name));
            }
        }
        self.claims = Seen::Known(claims);
    }

    pub(super) fn fold_claim(&mut self, name: &str, claim: Option<Claim>) {
        self.restore.stale(&Look::Closing);
        let Seen::Known(mut claims) = std::mem::take(&mut self.claims) else { return };
        let before = claims.remove(name);
        if let Some(mut claim) = claim {
            match &before {
                Some(newer) if claim.is_before(newer) => claim.clone_from(newer),
                before => claim.keep(before.as_ref()),
            }
            claims.insert(name.to_owned(), claim);
        }
        self.rebind(before.as_ref(), claims.get(name));
        self.claims = Seen::Known(claims);
    }

    /// The claim of that uid is gone; one of its name that came after it is not.
    pub(super) fn fold_end(&mut self, name: &str, uid: &str) {
        if self.claims().is_ok_and(|claims| claims.get(name).is_some_and(|claim| claim.uid == uid)) {
            self.fold_claim(name, None);
        }
    }

    /// When a claim takes or leaves a volume, or is Lost, the volume has changed as well.
    fn rebind(&mut self, before: Option<&Claim>, after: Option<&Claim>) {
        let place = |claim: &Claim| (claim.uid.clone(), claim.volume.clone(), claim.lost);
        if before.map(place) != after.map(place) {
            let both =
                before.into_iter().chain(after).filter_map(|claim| claim.volume.as_ref().or(claim.asked.as_ref()));
            both.for_each(|volume| drop(self.volumes.remove(volume)));
        }
    }

    /// A run that turns back starts with a clean slate: what made it turn is in its journal. And who uses what is
    /// looked at anew with each step of the journal, right before something is deleted.
    pub(super) fn fold_sight(&mut self, sight: Sight) {
        if let Sight::Record(record) = &sight {
            self.restore.stale(&Look::Ending);
            // Also when the write that turned it got no answer, so that the record is not known in between.
            let course = record.journal.course();
            if self.restore.course.replace(course).is_some_and(|before| before != course) {
                self.refused = None;
                self.doubt = None;
                self.roster = Seen::Unknown;
                self.target = Seen::Unknown;
                self.restore.stale(&Look::Attached);
                // What would keep a claim from going may have come while the new volumes were made.
                if course.1 == Some((Goal::New, RestorePhase::ScalingDown)) {
                    self.restore.stale(&Look::Sources);
                }
                // A claim that somebody has deleted goes with its last pod: looked at anew before pods start.
                if course.1.is_some_and(|(_, phase)| phase == RestorePhase::ScalingUp) {
                    self.stale(&Read::Claims);
                }
            }
        }
        self.restore.fold(sight);
    }

    pub(super) fn stale(&mut self, read: &Read) {
        match read {
            Read::Record => self.record = Seen::Unknown,
            Read::Lease => self.lease = Seen::Unknown,
            Read::Target => self.target = Seen::Unknown,
            Read::Grant => self.grant = Seen::Unknown,
            Read::Guard(policy) => drop(self.guards.remove(policy)),
            Read::Pod(name) => drop(self.pods.remove(name)),
            Read::Proof(name) => drop(self.proofs.remove(name)),
            // A volume that a claim has taken or left meanwhile has changed, and so may have who uses the claims.
            Read::Claims => {
                self.claims = Seen::Unknown;
                self.volumes.clear();
                self.roster = Seen::Unknown;
            }
            Read::Volume(name) => drop(self.volumes.remove(name)),
            Read::Classes => self.classes = Seen::Unknown,
            Read::Snaps => self.snaps = Seen::Unknown,
            Read::Stock | Read::Content(_) | Read::Restores => self.prune.stale(read),
            Read::Quotas | Read::Rights => self.prospect.stale(read),
            Read::Restore(Look::Pods) => self.roster = Seen::Unknown,
            Read::Restore(look) => self.restore.stale(look),
        }
    }
}
