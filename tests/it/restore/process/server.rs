//! What the API server of the restore's world answers: reads as facts, writes with their preconditions, watches.

use sts_backup::api::{FENCE_POLICY, LOCK_POLICY, MARKS_POLICY, RESTORE_POLICY};
use sts_backup::plan::flow::Step;
use sts_backup::plan::guard::Guard;

use super::*;

fn sight(sight: Sight) -> Fact {
    Fact::Restore(Box::new(sight))
}

impl World {
    pub fn record(&self) -> Fact {
        sight(Sight::Record(Box::new(Record {
            version: self.version.to_string(),
            uid: self.object().into(),
            leaving: self.leaving,
            finalizers: self.finalizers.clone(),
            created: self.born,
            undo: self.undo.clone(),
            journal: own::read(&self.status, "web", self.object()),
            status: self.status.clone(),
        })))
    }

    fn the_lease(&self) -> Option<sts_backup::plan::noun::Lease> {
        Some(self.lease.clone()).filter(|_| !self.ending)
    }

    fn there(&self) -> Option<sts_backup::plan::noun::Target> {
        Some(self.target.clone()).filter(|_| !self.no_target)
    }

    pub(super) fn roster(&self) -> BTreeMap<String, Pod> {
        self.pods.iter().map(|(name, instance)| (name.clone(), instance.pod.clone())).collect()
    }

    pub(super) fn volume(&self, name: &str) -> Option<Volume> {
        self.disks.get(name).map(|disk| disk.volume.clone())
    }

    pub fn answer(&self, read: &Read) -> Fact {
        match read {
            Read::Lease => Fact::Lease(Seen::Known(self.the_lease())),
            Read::Target => Fact::Target(self.there()),
            Read::Grant => Fact::Grant(vec![]),
            Read::Guard(policy) => {
                assert!([RESTORE_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY].contains(policy), "{policy}");
                let gone = self.unguarded_at.is_some_and(|at| self.writes >= at);
                Fact::Guard(policy, if gone { Guard::default() } else { Guard::whole() })
            }
            Read::Claims => Fact::Claims(self.claims.clone()),
            Read::Volume(name) => Fact::Volume(name.clone(), self.volume(name)),
            Read::Classes => Fact::Classes(vec![]),
            Read::Restore(look) => self.look(look),
            other => unreachable!("no restore asks for {other:?}"),
        }
    }

    pub(super) fn look(&self, look: &Look) -> Fact {
        let node = |name: &str| Node {
            name: name.into(),
            ready: true,
            schedulable: true,
            drivers: vec!["csi".into()],
            ..Node::default()
        };
        sight(match look {
            Look::Record => return self.record(),
            Look::Pods => return Fact::Pods(self.roster()),
            Look::Sources => Sight::Sources(self.sources.clone()),
            Look::Recorded(name) => Sight::Recorded(name.clone(), self.recorded.get(name).cloned()),
            Look::Content(name) => {
                let source = name.strip_prefix("content of ").and_then(|name| self.sources.get(name));
                let content = source.map(|source| Content {
                    driver: "csi".into(),
                    snapshot: Some(source.uid.clone()),
                    handle: Some(format!("snapshot {name}")),
                    ..Content::default()
                });
                Sight::Content(name.clone(), content)
            }
            Look::Handles(_) => Sight::Handles(self.handles.clone()),
            Look::StorageClasses => Sight::StorageClasses(vec![StorageClass {
                name: "fast".into(),
                provisioner: "csi".into(),
                is_default: true,
                waits: true,
                ..StorageClass::default()
            }]),
            Look::Nodes => Sight::Nodes(vec![node("n1"), node("n2")]),
            Look::Quotas => Sight::Quotas(vec![]),
            Look::Rights => Sight::Rights(vec![]),
            Look::Trial(claim) => Sight::Trial(claim.name.clone(), None),
            Look::Peers => Sight::Peers(self.peers.clone()),
            Look::Attached => Sight::Attached(BTreeSet::new()),
            Look::Scalers => Sight::Scalers(vec![]),
            Look::Fence if self.setting.odd == Odd::ByHand => Sight::Fence(Fence::Missing, self.now()),
            Look::Fence => Sight::Fence(if self.lease.fence.is_some() { Fence::Up } else { Fence::Rising }, self.now()),
            Look::User => Sight::User("runner".into()),
            Look::Trouble(name) => Sight::Trouble(name.clone(), None),
            Look::Ending => Sight::Ending(self.ending),
            Look::Closing => Sight::Closing(self.ending),
            Look::Kin => Sight::Kin(self.kin(self.object())),
        })
    }

    pub(super) fn kin(&self, uid: &str) -> BTreeSet<String> {
        let stage = format!("-stage-{uid}");
        let its = |volume: &Volume| {
            let staging = volume.claim.as_ref().is_some_and(|of| of.name.ends_with(&stage));
            staging || volume.marks.restore.as_deref() == Some(uid)
        };
        self.disks.iter().filter(|(_, disk)| its(&disk.volume)).map(|(name, _)| name.clone()).collect()
    }

    /// A process that has sent so many requests is in a loop. What is denied is tried again for minutes, more than once.
    pub fn endless(&self) -> usize {
        if self.barred.is_some() { 6000 } else { 600 }
    }

    /// Whether the request is answered with 401, 403 or a 404 of the path.
    pub fn denies(&mut self, blow: Option<Blow>, step: &Restore) -> bool {
        let (now, kind) = (self.now(), step.row().name);
        match blow {
            Some(Blow::Comes) => self.denied_until = now + second(8),
            // Who cannot write the journal can say nothing, and comes again.
            Some(Blow::Barred) if ["Write", "Hold"].contains(&kind) => self.barred = Some((kind, now + second(150))),
            Some(Blow::Barred) => self.barred = Some((kind, Timestamp::MAX)),
            _ => {}
        }
        let barred = self.barred.is_some_and(|(which, until)| which == kind && now < until);
        blow == Some(Blow::Denied) || now < self.denied_until || barred
    }

    /// What a request does, whoever sent it.
    pub fn apply(&mut self, me: &sts_backup::plan::noun::Holder, step: &Restore) -> Reply {
        let at = self.now().as_millisecond() % 1_000_000;
        self.note(|| format!("{at:>6} {}", brief(step)));
        let forbidden = self.forbidden(me, step);
        let reply = self.carry_out(me, step);
        forbidden.filter(|_| reply.is_ok()).into_iter().for_each(|what| self.violate(what));
        self.judge();
        reply
    }

    fn carry_out(&mut self, me: &sts_backup::plan::noun::Holder, step: &Restore) -> Reply {
        match step {
            Restore::Lock(_) | Restore::Stage(_) | Restore::Make(_) if self.ending => {
                let message = "unable to create new content in namespace shop because it is being terminated";
                Err(Fault::Denied(Denial { refusal: Refusal::new(Reason::Forbidden, message), judged: true }))
            }
            Restore::Unlock(_) | Restore::Mark(_) if self.ending => Err(Fault::Lost),
            Restore::Lock(_) | Restore::Unlock(_) | Restore::Mark(_) => self.on_lease(me, step),
            Restore::Write(_) | Restore::Hold(_) if World::object_of(me) != self.object() => Err(Fault::Lost),
            Restore::Write(write) if write.version == self.version.to_string() => {
                self.status = write.status.clone();
                self.version += 1;
                Ok(vec![self.record()])
            }
            Restore::Hold(hold) if hold.version == self.version.to_string() => {
                self.finalizers.clone_from(&hold.finalizers);
                self.version += 1;
                Ok(vec![self.record()])
            }
            Restore::Pin(pin) => {
                let version = self.uid("v");
                let source = self.sources.get_mut(&pin.name).filter(|source| source.version == pin.version);
                let Some(source) = source else { return Err(Fault::Lost) };
                source.pins.clone_from(&pin.pinned);
                source.version = version;
                Ok(vec![sight(Sight::Source(pin.name.clone(), Box::new(Some(source.clone()))))])
            }
            Restore::Stage(new) | Restore::Make(new) => Ok(self.make(World::object_of(me), new)),
            Restore::Steer(_) | Restore::Unlabel(_) | Restore::DropClaim(_) => self.on_claim(step),
            Restore::Protect(tend) | Restore::Settle(tend) | Restore::Discard(tend) => self.tend(tend),
            Restore::Reserve(reserve) => self.reserve(reserve),
            Restore::Retain(keep) if self.is_there(&keep.uid, &keep.version) => {
                self.target.retention = keep.retention.clone();
                self.touch_target();
                Ok(vec![Fact::Target(Some(self.target.clone()))])
            }
            Restore::Scale(scale) if self.is_there(&scale.uid, &scale.version) => {
                self.target.replicas = scale.replicas;
                self.touch_target();
                Ok(vec![Fact::Target(Some(self.target.clone()))])
            }
            Restore::Write(_) | Restore::Hold(_) | Restore::Retain(_) | Restore::Scale(_) => Err(Fault::Lost),
            Restore::Evict(doomed) => {
                let same = self.pods.get(&doomed.name).is_some_and(|instance| instance.pod.uid == doomed.uid);
                if same {
                    self.pods.remove(&doomed.name);
                }
                Ok(vec![Fact::Pod(doomed.name.clone(), None)])
            }
        }
    }

    fn is_there(&self, uid: &str, version: &str) -> bool {
        !self.no_target && self.target.uid == uid && self.target.version == version
    }

    pub(super) fn on_claim(&mut self, step: &Restore) -> Reply {
        match step {
            Restore::Steer(steer) => {
                let version = self.uid("v");
                let same = |claim: &&mut Claim| claim.uid == steer.uid && claim.version == steer.version;
                let Some(claim) = self.claims.get_mut(&steer.name).filter(same) else { return Err(Fault::Lost) };
                claim.node = Some(steer.node.clone());
                claim.tried.clone_from(&steer.tried);
                claim.version = version;
                Ok(vec![Fact::Claim(steer.name.clone(), Some(claim.clone()))])
            }
            Restore::Unlabel(of) => {
                let version = self.uid("v");
                let same = |claim: &&mut Claim| claim.uid == of.uid && claim.version == of.version;
                let Some(claim) = self.claims.get_mut(&of.name).filter(same) else { return Err(Fault::Lost) };
                (claim.restore, claim.restored_by) = (None, None);
                claim.tried.clear();
                claim.version = version;
                Ok(vec![Fact::Claim(of.name.clone(), Some(claim.clone()))])
            }
            Restore::DropClaim(doomed) => {
                let now = self.now();
                let version = self.uid("v");
                let Some(claim) = self.claims.get_mut(&doomed.name).filter(|claim| claim.uid == doomed.uid) else {
                    return Err(Fault::Lost);
                };
                claim.leaving = true;
                claim.leaving_since.get_or_insert(now);
                claim.version = version;
                Ok(vec![Fact::Claim(doomed.name.clone(), Some(claim.clone()))])
            }
            _ => Err(Fault::Lost),
        }
    }

    pub(super) fn on_lease(&mut self, me: &sts_backup::plan::noun::Holder, step: &Restore) -> Reply {
        let mine = self.lease.holder.as_ref() == Some(me);
        match step {
            Restore::Lock(Some(seen)) if seen.version == self.lease.version => {
                self.lease.holder = Some(me.clone());
                self.lease.gone = false;
                self.lease.epoch += 1;
            }
            Restore::Unlock(epoch) if mine && *epoch == self.lease.epoch => self.lease.holder = None,
            Restore::Mark(signs) if mine => {
                self.lease.open.clone_from(&signs.open);
                self.lease.fence.clone_from(&signs.fence);
                self.lease.restored.clone_from(&signs.restored);
            }
            _ => return Err(Fault::Lost),
        }
        self.lease.version = self.uid("v");
        Ok(vec![Fact::Lease(Seen::Known(Some(self.lease.clone())))])
    }

    pub(super) fn make(&mut self, uid: &str, new: &NewClaim) -> Vec<Fact> {
        if let Some(there) = self.claims.get(&new.name) {
            return vec![Fact::Claim(new.name.clone(), Some(there.clone()))];
        }
        let claim = Claim {
            manifest: new.manifest.clone(),
            asked: new.volume.clone(),
            restore: Some(uid.into()),
            restored_by: new.restored_by.clone(),
            snapshot: new.snapshot.clone(),
            node: new.node.clone(),
            tried: new.tried.clone(),
            ..self.claim()
        };
        self.claims.insert(new.name.clone(), claim.clone());
        let made = new.volume.is_none().then(|| sight(Sight::Made(claim.uid.clone())));
        made.into_iter().chain([Fact::Claim(new.name.clone(), Some(claim))]).collect()
    }

    pub(super) fn tend(&mut self, tend: &Tend) -> Reply {
        let version = self.uid("v");
        let same = |volume: &Volume| volume.uid == tend.uid && volume.version == tend.version;
        let Some(disk) = self.disks.get_mut(&tend.pv).filter(|disk| same(&disk.volume)) else {
            return Err(Fault::Lost);
        };
        disk.volume.policy.clone_from(&tend.policy);
        disk.volume.marks = tend.marks.clone();
        disk.volume.version = version;
        Ok(vec![Fact::Volume(tend.pv.clone(), Some(disk.volume.clone()))])
    }

    pub(super) fn reserve(&mut self, reserve: &Reserve) -> Reply {
        let version = self.uid("v");
        let Some(disk) = self.disks.get_mut(&reserve.pv) else { return Err(Fault::Lost) };
        let from = disk.volume.claim.as_ref().and_then(|of| of.uid.clone());
        if disk.volume.version != reserve.version || from != reserve.from {
            return Err(Fault::Lost);
        }
        let (namespace, name, uid) = (reserve.namespace.clone(), reserve.name.clone(), reserve.uid.clone());
        disk.volume.phase = if uid.is_none() { "Available" } else { "Released" }.into();
        disk.volume.claim = Some(ClaimRef { namespace, name, uid });
        disk.volume.version = version;
        Ok(vec![Fact::Volume(reserve.pv.clone(), Some(disk.volume.clone()))])
    }

    /// What a feed would tell now.
    pub(super) fn tell(&self, feed: &Feed) -> Fact {
        match feed {
            Feed::Claims => Fact::Claims(self.claims.clone()),
            Feed::Pods => Fact::Pods(self.roster()),
            Feed::Target => Fact::Target(self.there()),
            Feed::Volume(name) => Fact::Volume(name.clone(), self.volume(name)),
            Feed::Lease => Fact::Lease(Seen::Known(self.the_lease())),
            Feed::Attached => sight(Sight::Attached(BTreeSet::new())),
            other => unreachable!("no restore waits for {other:?}"),
        }
    }

    /// A new process finds the lock of a dead one run out.
    pub fn bury(&mut self, holder: &sts_backup::plan::noun::Holder) {
        self.lease.gone |= self.lease.holder.as_ref() == Some(holder);
        self.lease.version = self.uid("v");
    }
}
