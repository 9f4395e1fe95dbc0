//! What others do in the restore's world, and what is theirs: claims and volumes that no restore may touch.

use sts_backup::plan::noun::{Marks, RETAIN};
use sts_backup::plan::restore::Doomed;

use super::*;

/// A claim with its volume that is somebody else's.
pub struct Other {
    claim: String,
    pv: String,
    policy: String,
    /// Of the StatefulSet, of an ordinal that the run does not have: guarded for the time, and then as before.
    near: bool,
}

impl World {
    /// Nobody but the restore starts pods.
    fn is_fenced(&self) -> bool {
        self.lease.fence.is_some() && self.setting.odd != Odd::ByHand
    }

    pub(super) fn neighbours(&mut self) {
        for (pvc, near) in [("data-db-0", false), ("data-web-7", true)] {
            self.settle_in(pvc, near);
        }
    }

    /// A claim of that name with a volume of its own.
    fn settle_in(&mut self, pvc: &str, near: bool) {
        let claim = Claim { manifest: manifest(), ..self.claim() };
        let uid = claim.uid.clone();
        self.claims.insert(pvc.into(), claim);
        self.provision(pvc, "theirs".into());
        let pv = self.claims[pvc].volume.clone().unwrap();
        // Theirs under a name of the plan is kept by a policy that differs from that of what was there before.
        let policy = if near || pvc == "data-db-0" { DELETE } else { RETAIN };
        self.disks.get_mut(&pv).unwrap().volume.policy = policy.into();
        self.others.insert(pvc.into(), Other { claim: uid, pv, policy: policy.into(), near });
    }

    /// Whose it is has no claim any more, by their own hand; what becomes of its volume is theirs to see to.
    fn forsake(&mut self, pvc: &str) {
        if let Some(other) = self.others.remove(pvc) {
            self.volume_is_forsaken(&other.pv);
        }
    }

    /// By uid, or by name: it is theirs.
    fn touched(&self, other: &Other, pvc: &str, over: bool) -> bool {
        let claim = self.claims.get(pvc).filter(|claim| claim.uid == other.claim && !claim.leaving);
        let disk = self.disks.get(&other.pv).filter(|disk| disk.content == "theirs");
        let bound = |disk: &Disk| disk.volume.claim.as_ref().is_some_and(|of| of.uid.as_ref() == Some(&other.claim));
        let same = |disk: &Disk| disk.volume.policy == other.policy && disk.volume.marks == Marks::default();
        let guarded = !over && (other.near || pvc != "data-db-0");
        claim.is_none() || !disk.is_some_and(|disk| bound(disk) && (guarded || same(disk)))
    }

    /// What is theirs is as it was; until the run is over it may be guarded.
    pub fn look_at_others(&mut self, over: bool) {
        let bad: Vec<String> = self
            .others
            .iter()
            .filter(|(pvc, other)| self.touched(other, pvc, over))
            .map(|(pvc, _)| pvc.clone())
            .collect();
        for pvc in bad {
            self.violate(format!("claim {pvc} or its volume was touched, and is somebody else's"));
        }
    }

    /// Volumes that are the restore's business.
    pub fn ours(&self) -> impl Iterator<Item = (&String, &Disk)> {
        self.disks.iter().filter(|(_, disk)| disk.content != "theirs")
    }

    /// A pod of somebody's mounts a claim, for that long.
    pub fn guest(&mut self, pvc: &str, seconds: i64) {
        let (uid, now) = (self.uid("pod"), self.now());
        let pod = Pod { uid, running: true, claims: vec![pvc.into()], node: Some("n1".into()), ..Pod::default() };
        self.pods.insert("guest".into(), Instance { pod, born: now, gone_at: Some(now + second(seconds)) });
    }

    /// What somebody does right before a write.
    pub fn deed(&mut self, blow: Blow) {
        let (pvc, now) = ("data-web-0".to_owned(), self.now());
        if self.ending {
            return; // nothing is made there any more
        }
        match blow {
            Blow::Deleted => {
                self.leaving = true;
                self.version += 1;
            }
            Blow::AskUndo => {
                self.undo = Some("please".into());
                self.version += 1;
            }
            Blow::Snapshot => self.sources.extend(self.late.take().map(|late| ("late".into(), late))),
            Blow::DeletePod => drop(self.pods.remove("web-0")),
            Blow::Guest => self.guest(&pvc, 10),
            // The fence lets nobody scale up.
            Blow::Rescale if self.target.replicas > 0 || !self.is_fenced() => {
                (self.target.replicas, self.meant) = (self.rescale, self.rescale);
                self.touch_target();
            }
            // The fence lets nobody delete it.
            Blow::Orphan if !self.is_fenced() => {
                self.no_target = true;
                self.touch_target();
                self.pods.values_mut().for_each(|instance| instance.pod.owner = None);
            }
            Blow::DeleteTarget => {
                self.no_target = true;
                self.touch_target();
            }
            Blow::DeleteNamespace => self.end(now),
            Blow::ReplaceTarget => {
                self.target.uid = self.uid("sts");
                self.target.replicas = PODS;
                self.touch_target();
                for instance in self.pods.values_mut().filter(|instance| instance.pod.owner.is_some()) {
                    instance.pod.leaving = true;
                    instance.gone_at = Some(now + second(1));
                }
            }
            Blow::DeleteClaim => self.delete_claim(pvc, now),
            Blow::LoseVolume => self.lose_volume(&pvc),
            Blow::ReplaceObject if !self.replaced => self.replace_object(),
            // One that is in use does not go.
            Blow::ReplaceClaim if !self.pods.values().any(|instance| instance.pod.claims.contains(&pvc)) => {
                self.forsake(&pvc);
                self.claim_is_taken(&pvc);
                self.claims.remove(&pvc);
                self.settle_in(&pvc, false);
                self.hit = Some(pvc);
            }
            _ => self.forge(blow, &pvc),
        }
        if !matches!(blow, Blow::Deleted | Blow::AskUndo) {
            self.note(|| format!("       -- somebody: {blow:?}"));
        }
    }

    fn delete_claim(&mut self, pvc: String, now: Timestamp) {
        self.forsake(&pvc);
        self.claim_is_deleted(&pvc);
        if let Some(claim) = self.claims.get_mut(&pvc) {
            claim.leaving = true;
            claim.leaving_since.get_or_insert(now);
            self.hit = Some(pvc);
            self.uids += 1;
        }
    }

    /// What was on it before the restore is gone, by their hand.
    fn lose_volume(&mut self, pvc: &str) {
        let content = format!("old {pvc}");
        self.disks.retain(|_, disk| disk.content != content);
        self.volume_is_lost(pvc);
        self.uids += 1;
    }

    /// Claims, pods, the StatefulSet, the Lease and our own object: all of it is deleted, each goes when nothing holds it.
    fn end(&mut self, now: Timestamp) {
        (self.ending, self.no_target, self.leaving) = (true, true, true);
        self.version += 1;
        self.touch_target();
        for pvc in self.others.keys().cloned().collect::<Vec<_>>() {
            self.forsake(&pvc);
        }
        for claim in self.claims.values_mut() {
            claim.leaving = true;
            claim.leaving_since.get_or_insert(now);
        }
        for instance in self.pods.values_mut() {
            instance.pod.leaving = true;
            instance.gone_at.get_or_insert(now + second(1));
        }
    }

    /// What somebody does who wants a volume of theirs taken for the restore's, or a volume of the restore's for nobody's.
    fn forge(&mut self, blow: Blow, pvc: &str) {
        let staging = format!("{pvc}-stage-{UID}");
        match blow {
            Blow::LabelClaim => {
                let version = self.uid("v");
                let again = self.setting.strategy == Strategy::InPlace;
                let Some(claim) = self.claims.get_mut(pvc) else { return };
                claim.restore = Some(UID.into());
                // It was restored from this very snapshot before.
                claim.snapshot = again.then(|| format!("snap-{pvc}")).or(claim.snapshot.take());
                claim.version = version;
            }
            Blow::Squat if !self.claims.contains_key(&staging) => self.squat(&staging, pvc),
            Blow::SquatLive if !self.claims.contains_key(pvc) => {
                self.squat(pvc, pvc);
                self.hit = Some(pvc.into());
            }
            Blow::Bend if self.claims.get(&staging).is_some_and(|claim| claim.asked.is_none()) => {
                self.provision(&staging, "theirs".into());
                let claim = &self.claims[&staging];
                let (claim, pv) = (claim.uid.clone(), claim.volume.clone().unwrap());
                self.disks.get_mut(&pv).unwrap().volume.policy = RETAIN.into();
                self.age(&staging);
                self.others.insert(staging, Other { claim, pv, policy: RETAIN.into(), near: false });
            }
            Blow::ForgePlan | Blow::ForgeStaged => self.forge_status(blow, pvc),
            _ => {}
        }
    }

    /// A claim like one of ours, on a volume of theirs that was there before.
    fn squat(&mut self, name: &str, pvc: &str) {
        self.settle_in(name, false);
        self.age(name);
        let claim = self.claims.get_mut(name).unwrap();
        claim.restore = Some(UID.into());
        claim.snapshot = Some(format!("snap-{pvc}"));
    }

    /// The volume under the claim was made long ago, and the provisioner did make it: for somebody else.
    fn age(&mut self, pvc: &str) {
        let early = self.now() - second(3600);
        let volume = self.claims[pvc].volume.as_ref().and_then(|pv| self.disks.get_mut(pv));
        volume.unwrap().volume.created = early;
    }

    /// The neighbour's volume in the place of one that the status names, while a run is under way or an undo may come.
    fn forge_status(&mut self, blow: Blow, pvc: &str) {
        let other = &self.others["data-db-0"];
        let volume = &self.disks[&other.pv].volume;
        let named = other.pv.clone();
        let (pv, uid, handle) = (Some(other.pv.clone()), Some(volume.uid.clone()), Some(volume.handle.clone()));
        let claim = Some(other.claim.clone());
        let plan = self.status.plan.iter_mut().flat_map(|plan| &mut plan.claims).find(|item| item.pvc == pvc);
        let staged = self.status.staged.iter_mut().find(|staged| staged.pvc == pvc);
        let was = match (blow, plan, staged) {
            (Blow::ForgePlan, Some(item), _) => {
                (item.old_pvc_uid, item.old_pv_uid, item.volume_handle) = (claim, uid, handle);
                std::mem::replace(&mut item.old_pv, pv)
            }
            (Blow::ForgeStaged, _, Some(staged)) => {
                (staged.staging_pvc_uid, staged.pv_uid, staged.volume_handle) = (claim, uid, handle);
                std::mem::replace(&mut staged.pv, pv)
            }
            _ => return,
        };
        self.version += 1;
        self.hit = Some(pvc.into());
        self.volume_is_named(&named);
        // What the status does not name any more nobody can put away.
        if let Some(was) = was {
            self.volume_is_forsaken(&was);
        }
    }

    /// The journal is gone with the object: only what its processes remember is left of the run.
    fn replace_object(&mut self) {
        self.ghost = Some(std::mem::take(&mut self.status));
        self.finalizers.clear();
        (self.leaving, self.undo, self.replaced) = (false, None, true);
        self.version += 1;
    }

    /// The uid of the restore object that is there now.
    pub fn object(&self) -> &'static str {
        if self.replaced { NAMESAKE } else { UID }
    }

    /// For whose object a process is at work.
    pub fn object_of(me: &Holder) -> &'static str {
        if me.0.starts_with(NAMESAKE) { NAMESAKE } else { UID }
    }

    /// Somebody reserves an old volume for a way back of their own.
    pub fn rescue(&mut self) {
        let version = self.uid("v");
        let Some(disk) = self.disks.values_mut().find(|disk| disk.content == "old data-web-0") else { return };
        disk.volume.claim.as_mut().unwrap().uid = None;
        disk.volume.phase = "Available".into();
        disk.volume.version = version;
        self.volume_is_rescued("data-web-0");
    }

    /// What no request may do; one that comes too late does nothing.
    pub fn forbidden(&self, me: &Holder, step: &Restore) -> Option<String> {
        let now = self.now();
        let using = |doomed: &Doomed| {
            let old = |instance: &&Instance| instance.born + second(1) < now;
            let uses = |instance: &Instance| instance.pod.claims.contains(&doomed.name);
            self.pods.values().filter(old).any(uses)
        };
        match step {
            Restore::DropClaim(doomed) if using(doomed) => Some(format!("claim {} is deleted in use", doomed.name)),
            Restore::Stage(new) | Restore::Make(new)
                if self.is_loose(new.snapshot.as_ref()) && !self.is_excused(Wrong::Unpinned, &new.name) =>
            {
                Some(format!("claim {} is made from a snapshot that is not pinned", new.name))
            }
            Restore::Reserve(reserve) if self.is_held(&reserve.pv) => {
                Some(format!("volume {} is reserved anew while it is bound", reserve.pv))
            }
            Restore::Discard(tend) if !self.is_new(&tend.pv) => {
                Some(format!("volume {} is set to Delete, and was not made by this restore", tend.pv))
            }
            Restore::Scale(scale) if scale.replicas > 0 && !self.stands() => {
                Some("scaled up before every claim was Bound".into())
            }
            Restore::Settle(tend) if me.0.starts_with("release/") && self.is_used(&tend.pv) => {
                Some(format!("volume {} is released while it is not Released", tend.pv))
            }
            _ => None,
        }
    }

    fn is_loose(&self, snapshot: Option<&String>) -> bool {
        snapshot.and_then(|name| self.sources.get(name)).is_some_and(|source| source.pins.is_empty())
    }

    /// Every claim of the plan is Bound, and its volume is its own.
    fn stands(&self) -> bool {
        let all = self.status.plan.iter().flat_map(|plan| &plan.claims);
        let bound = |claim: &Claim| {
            let disk = claim.volume.as_ref().and_then(|pv| self.disks.get(pv));
            disk.and_then(|disk| disk.volume.claim.as_ref()).is_some_and(|of| of.uid.as_ref() == Some(&claim.uid))
        };
        all.into_iter().all(|item| match self.claims.get(&item.pvc) {
            None => item.old_pv.is_none(),
            // One that starts empty is provisioned for its pod.
            Some(claim) if claim.asked.is_none() => item.snapshot.is_none(),
            Some(claim) => bound(claim),
        })
    }

    fn is_new(&self, pv: &str) -> bool {
        self.disks.get(pv).is_none_or(|disk| disk.content.starts_with("new "))
    }

    fn is_held(&self, pv: &str) -> bool {
        self.claims.values().any(|claim| claim.volume.as_deref() == Some(pv))
    }

    fn is_used(&self, pv: &str) -> bool {
        self.disks.get(pv).is_some_and(|disk| disk.volume.phase != "Released")
    }
}
