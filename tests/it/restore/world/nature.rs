//! The controllers of the restore's world: they do what the real ones do, traps included.

use jiff::Timestamp;

use super::*;

/// From a volume that is bound to its claim to a claim that says so.
const BINDING: SignedDuration = SignedDuration::from_millis(100);

impl World {
    pub(super) fn stateful_set(&mut self, now: Timestamp) {
        let wanted = if self.no_target { 0 } else { self.target.replicas };
        for ordinal in 0..PODS.max(wanted) {
            let name = format!("web-{ordinal}");
            let claims: Vec<String> = TEMPLATES.iter().map(|template| format!("{template}-{name}")).collect();
            if ordinal < wanted && !self.pods.contains_key(&name) {
                // It makes a claim that is missing, and waits for one that goes.
                for claim in &claims {
                    if !self.claims.contains_key(claim) {
                        let made = self.claim();
                        self.claims.insert(claim.clone(), made);
                        if ordinal >= PODS {
                            self.provision(claim, "theirs".into()); // of a replica that nobody has backed up
                            continue;
                        }
                        // A StatefulSet that somebody puts there stands behind no fence.
                        if self.target.uid == "sts" {
                            let why = format!("the StatefulSet started on an empty claim {claim}");
                            self.wrong(Wrong::StartedEmpty, claim, why);
                        }
                    }
                }
                if claims.iter().all(|claim| !self.claims[claim].leaving) {
                    let uid = self.uid("pod");
                    let (owner, node) = (Some(self.target.uid.clone()), Some("n1".to_owned()));
                    let pod = Pod { uid, running: true, claims, owner, node, ..Pod::default() };
                    self.pods.insert(name, Instance { pod, born: now, gone_at: None });
                }
            }
        }
        // Scaled down from the top, one at a time; an unready pod that is not the lowest is waited for, for ever.
        let ordinal = |name: &str| name.strip_prefix("web-")?.parse::<u32>().ok();
        let lowest = self.pods.keys().find(|name| ordinal(name).is_some()).cloned();
        let surplus = |name: &String| ordinal(name).is_some_and(|ordinal| ordinal >= wanted);
        let its = |instance: &Instance| instance.pod.owner.is_some();
        let top = self.pods.iter_mut().rev().find(|(name, instance)| surplus(name) && its(instance));
        if let Some((name, instance)) = top
            && instance.gone_at.is_none()
            && (instance.pod.ready_since.is_some() || lowest.as_ref() == Some(name))
        {
            instance.gone_at = Some(now + second(1));
            instance.pod.leaving = true;
        }
        self.pods.retain(|_, instance| instance.gone_at.is_none_or(|at| at > now));
        self.kubelet(now);
        let own = self.pods.values().filter(|instance| instance.pod.owner.as_ref() == Some(&self.target.uid));
        self.target.pods = u32::try_from(own.count()).unwrap();
        self.owners(now, wanted);
    }

    /// whenScaled: Delete makes the claims of surplus pods theirs, and takes them along.
    fn owners(&mut self, now: Timestamp, wanted: u32) {
        let deletes = self.target.retention.scaled == DELETE;
        for ordinal in 0..PODS {
            for template in TEMPLATES {
                let pvc = format!("{template}-web-{ordinal}");
                let gone = !self.pods.contains_key(&format!("web-{ordinal}"));
                let Some(claim) = self.claims.get_mut(&pvc) else { continue };
                claim.owned = deletes && ordinal >= wanted;
                if claim.owned && gone && !claim.leaving {
                    claim.leaving = true;
                    claim.leaving_since = Some(now);
                }
            }
        }
    }

    /// A pod is Ready two seconds after it was born, if its volumes are there and their content suits it.
    fn kubelet(&mut self, now: Timestamp) {
        let odd = self.setting.odd;
        for (name, instance) in self.pods.iter_mut().filter(|(_, instance)| instance.pod.owner.is_some()) {
            let contents: Vec<&str> = instance
                .pod
                .claims
                .iter()
                .filter_map(|claim| Some(self.disks.get(self.claims.get(claim)?.volume.as_ref()?)?.content.as_str()))
                .collect();
            let up =
                contents.len() == TEMPLATES.len() && now >= instance.born + second(2) && instance.gone_at.is_none();
            let old = contents.iter().any(|content| content.starts_with("old"));
            let well = match odd {
                Odd::Sick => !old || name != "web-1",
                Odd::Broken => old,
                Odd::Half => old || name != "web-1",
                _ => true,
            };
            instance.pod.ready_since = (up && well).then_some(instance.born + second(2));
            instance.pod.waits = (odd == Odd::Broken && !well).then(|| PULL.into());
        }
    }

    /// pvc-protection: a claim that goes is gone once no pod uses it; its volume is Released then.
    pub(super) fn protection(&mut self, now: Timestamp) {
        let used: Vec<String> = self.pods.values().flat_map(|instance| instance.pod.claims.clone()).collect();
        let due =
            |claim: &Claim| claim.leaving_since.is_some_and(|since| now >= since + SignedDuration::from_millis(300));
        let gone: Vec<String> = self
            .claims
            .iter()
            .filter(|(name, claim)| due(claim) && !used.contains(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.claims.remove(&name);
            self.made.remove(&name);
        }
        for disk in self.disks.values_mut() {
            let of = disk.volume.claim.as_ref();
            let lives =
                of.is_some_and(|of| self.claims.get(&of.name).is_some_and(|claim| Some(&claim.uid) == of.uid.as_ref()));
            let reserved = of.is_none_or(|of| of.uid.is_none());
            let phase = if lives {
                "Bound"
            } else if reserved {
                "Available"
            } else {
                "Released"
            };
            if disk.volume.phase != phase {
                disk.volume.phase = phase.into();
                self.uids += 1;
                disk.volume.version = format!("v-{}", self.uids);
            }
        }
    }

    /// First the volume is bound to the claim, then, a moment later, the claim's own phase says so.
    pub(super) fn binder(&mut self, now: Timestamp) {
        for (name, claim) in &mut self.claims {
            let Some(disk) = claim.asked.as_ref().and_then(|pv| self.disks.get_mut(pv)) else {
                claim.lost = claim.asked.is_some() || is_bound_by_note(claim);
                continue;
            };
            let of = disk.volume.claim.get_or_insert_default();
            if of.name == *name && of.uid.is_none() && claim.volume.is_none() && !claim.leaving {
                of.uid = Some(claim.uid.clone());
                disk.volume.phase = "Bound".into();
                self.uids += 1;
                disk.volume.version = format!("v-{}", self.uids);
                self.made.insert(name.clone(), now);
            }
            let since = self.made.get(name).copied().unwrap_or(now);
            if of.uid.as_ref() == Some(&claim.uid) && claim.volume.is_none() && now >= since + BINDING {
                claim.volume = claim.asked.clone();
                self.uids += 1;
            }
            claim.lost = claim.volume.is_some() && (of.name != *name || of.uid.as_ref() != Some(&claim.uid));
        }
    }

    pub(super) fn provisioner(&mut self, now: Timestamp) {
        let pending = |claim: &Claim| !self.idle && claim.asked.is_none() && !claim.leaving && !claim.lost;
        let names: Vec<String> =
            self.claims.iter().filter(|(_, claim)| pending(claim)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let since = *self.made.entry(name.clone()).or_insert(now);
            let far = self.setting.odd == Odd::Far;
            let claim = self.claims.get_mut(&name).unwrap();
            if far && claim.node.as_deref() == Some("n1") && now >= since + SignedDuration::from_millis(500) {
                claim.node = None; // it cannot serve: the next candidate, please
                self.uids += 1;
                claim.version = format!("v-{}", self.uids);
            }
            let wanted = self.pods.values().any(|instance| instance.pod.claims.contains(&name));
            if claim.snapshot.is_none() && claim.restore.is_some() && wanted {
                self.provision(&name, format!("empty {name}"));
                continue;
            }
            let (snapshot, waits) = (claim.snapshot.clone(), claim.node.is_none());
            if let Some(snapshot) = snapshot.filter(|_| !waits && now >= since + second(1)) {
                let content = snapshot.replacen("snap-", "new ", 1);
                if self.sources.contains_key(&snapshot) {
                    self.provision(&name, content);
                }
            }
        }
    }

    /// A Released volume whose policy is Delete goes, with all that is on it.
    pub(super) fn reclaimer(&mut self, now: Timestamp) {
        for disk in self.disks.values_mut() {
            let free = disk.volume.phase == "Released" && disk.volume.policy == DELETE && !self.idle;
            disk.gone_at = if free { disk.gone_at.or(Some(now + SignedDuration::from_millis(700))) } else { None };
        }
        self.disks.retain(|_, disk| disk.gone_at.is_none_or(|at| at > now));
    }
}

/// What the kubelet says of a pod that does not start.
pub const PULL: &str = "container app waits, ErrImagePull: no such image";

/// The volume controller takes such a claim for one that has lost its volume.
fn is_bound_by_note(claim: &Claim) -> bool {
    claim.manifest.annotations.contains_key("pv.kubernetes.io/bind-completed")
}
