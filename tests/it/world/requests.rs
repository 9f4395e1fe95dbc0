//! What the cluster in memory does with a write, and what it answers to a read.

use super::{Disk, Kind, PODS, TEMPLATES, World, keys};
use crate::stock::pieces;
use jiff::SignedDuration;
use sts_backup::api::recorded::RecordedClaim;
use sts_backup::api::{BACKUP_POLICY, LOCK_POLICY, MARKS_POLICY};
use sts_backup::plan::backup::{Backup, NewSnapshot};
use sts_backup::plan::flow::{Step, When};
use sts_backup::plan::guard::Guard;
use sts_backup::plan::hook::{End, Exec, Tried, Which};
use sts_backup::plan::known::SnapshotClass;
use sts_backup::plan::name::ClaimKey;
use sts_backup::plan::noun::{Claim, Container, Holder, Pod, Snap, Snaps, Target, Volume};
use sts_backup::plan::prune;
use sts_backup::plan::roll::Roll;
use sts_backup::plan::view::{Fact, Read, Seen};
use sts_backup::step::Fault;

impl World {
    pub(super) fn carry_out(&mut self, me: &Holder, step: &Backup) -> Result<Vec<Fact>, Fault> {
        let at = self.now().as_millisecond() % 1_000_000;
        self.log.push(format!("{at:>6} {} {step:?}", step.row().name));
        Ok(vec![match step {
            Backup::Lock(_) | Backup::Unlock(_) | Backup::Mark(_) | Backup::Enroll(_) => {
                return self.lease_step(me, step);
            }
            Backup::Hold(hold) if hold.version == self.version.to_string() => {
                self.finalizers.clone_from(&hold.finalizers);
                self.version += 1;
                self.record()
            }
            Backup::Write(write) if write.version == self.version.to_string() => {
                if self.left_frozen() {
                    self.violations.push("status written over a frozen pod");
                }
                self.status = write.status.clone();
                self.version += 1;
                self.record()
            }
            Backup::Hold(_) | Backup::Write(_) => return Err(Fault::Lost),
            Backup::Pre(exec) | Backup::Post(exec) => self.exec(exec),
            Backup::Snapshot(new) => self.cut(new),
            Backup::Seal(seal) => match self.disks.values_mut().find(|disk| disk.snap.uid == seal.uid) {
                Some(disk) => {
                    disk.snap.sealed = true;
                    disk.consistency = Some(seal.consistency);
                    Fact::Sealed(seal.uid.clone())
                }
                None => return Err(Fault::Lost),
            },
            Backup::Purge(_) | Backup::Prune(_) => {
                let size = keys().len();
                let runs = self.runs();
                let complete = |disks: &Vec<&Disk>| {
                    disks.len() == size && disks.iter().all(|disk| disk.snap.ready && disk.snap.sealed)
                };
                let complete = runs.values().any(complete);
                return self.old.as_mut().unwrap().apply(step, complete);
            }
            Backup::Delete(doomed) => {
                self.disks.retain(|_, disk| disk.snap.uid != doomed.uid);
                Fact::Snap(doomed.name.clone(), None)
            }
        }])
    }

    pub(super) fn lease_step(&mut self, me: &Holder, step: &Backup) -> Result<Vec<Fact>, Fault> {
        let mine = self.holder.as_ref() == Some(me);
        match step {
            Backup::Lock(seen) if seen.as_ref().is_some_and(|seen| seen.version == self.lease_version.to_string()) => {
                self.holder = Some(me.clone());
                self.gone = false;
                self.epoch += 1;
            }
            // As it is stored, so that what does not survive that is seen.
            Backup::Enroll(enroll) if enroll.version == self.lease_version.to_string() => {
                self.roll = Some(Roll::read(&enroll.roll.text()));
            }
            Backup::Unlock(epoch) if mine && *epoch == self.epoch => self.holder = None,
            Backup::Mark(open) if mine => {
                if open.is_none() && self.left_frozen() {
                    self.violations.push("mark taken off over a frozen pod");
                }
                self.open = open.as_deref().cloned();
            }
            _ => return Err(Fault::Lost),
        }
        self.lease_version += 1;
        Ok(vec![self.lease()])
    }

    pub(super) fn cut(&mut self, new: &NewSnapshot) -> Fact {
        if let Some(disk) = self.disks.get(&new.name) {
            return Fact::Snap(new.name.clone(), Some(disk.snap.clone()));
        }
        let now = self.now();
        let cut_at = now + SignedDuration::from_millis(300 + 50 * i64::from(new.claim.ordinal));
        self.uids += 1;
        let snap = Snap {
            uid: format!("snap-{}", self.uids),
            policy_uid: self.uid.into(),
            run: new.run,
            claim: new.claim.clone(),
            epoch: new.epoch,
            size: new.size,
            token: Some(new.token.clone()),
            sealed: false,
            created: now,
            cut: None,
            ready: false,
            restore_size: None,
            leaving: false,
            error: None,
        };
        let ready_at = cut_at + SignedDuration::from_secs(60);
        self.disks
            .insert(new.name.clone(), Disk { snap: snap.clone(), cut_at, ready_at, consistency: None, evidence: None });
        Fact::Snap(new.name.clone(), Some(snap))
    }

    pub(super) fn answer(&self, read: &Read) -> Fact {
        let claim = |key: &ClaimKey| {
            let name = key.pvc("web");
            let manifest = RecordedClaim::default();
            (
                name.clone(),
                Claim { uid: name.clone(), leaving: false, volume: Some(name), manifest, ..Claim::default() },
            )
        };
        match read {
            Read::Record => self.record(),
            Read::Lease => self.lease(),
            Read::Target => Fact::Target(Some(Target {
                uid: "sts".into(),
                replicas: PODS,
                start: 0,
                templates: TEMPLATES.map(String::from).into(),
                ..Target::default()
            })),
            Read::Grant => Fact::Grant(vec![]),
            Read::Guard(policy) => {
                let prunes = matches!(self.kind, Kind::Old { .. }) && [MARKS_POLICY, LOCK_POLICY].contains(policy);
                let hooks = self.hooks && [BACKUP_POLICY, LOCK_POLICY, MARKS_POLICY].contains(policy);
                assert!((hooks || prunes) && !self.kind.is_file(), "nothing needs {policy}");
                let gone = self.unguarded_at.is_some_and(|at| self.writes >= at);
                Fact::Guard(policy, if gone { Guard::default() } else { Guard::whole() })
            }
            Read::Pod(name) => Fact::Pod(name.clone(), self.pod(name)),
            Read::Proof(name) => Fact::Proof(name.clone(), self.pod(name)),
            Read::Claims => Fact::Claims(keys().iter().map(claim).collect()),
            Read::Volume(name) => {
                Fact::Volume(name.clone(), Some(Volume { driver: Some("csi".into()), ..Volume::default() }))
            }
            Read::Classes => {
                let (name, driver) = ("class".into(), "csi".into());
                Fact::Classes(vec![SnapshotClass { name, driver, is_default: true, ..SnapshotClass::default() }])
            }
            Read::Snaps => Fact::Snaps(Seen::Known(self.snaps())),
            Read::Quotas => Fact::Quotas(self.now(), vec![]),
            Read::Rights => Fact::Rights(self.now(), vec![]),
            Read::Restore(look) => unreachable!("no backup asks for {look:?}"),
            Read::Stock if self.old.is_none() => {
                let new = pieces(&self.disks, "policy");
                Fact::Prune(prune::Fact::Stock(Seen::Known(Ok(new.collect()))))
            }
            Read::Stock | Read::Content(_) | Read::Restores => self.old.as_ref().unwrap().answer(read, &self.disks),
        }
    }

    pub(super) fn exec(&mut self, exec: &Exec) -> Fact {
        let when = When { begun: self.now(), ended: self.now() };
        let pod = &mut self.pods[exec.place.ordinal as usize];
        if exec.place.container_id != pod.id.to_string() {
            return Fact::Hook(Box::new(exec.clone()), Tried { when, end: End::Gone });
        }
        match (pod.frozen, exec.which) {
            (true, Which::Pre) => self.violations.push("pre hook on a frozen pod"),
            (false, Which::Pre) if self.open.is_none() => self.violations.push("frozen, and the Lease does not say so"),
            (true, Which::Post) => self.thaws += 1,
            _ => {}
        }
        pod.frozen = exec.which == Which::Pre;
        if let Some(alarm) = self.alarm.take_if(|_| exec.which == Which::Post) {
            self.answered = Some(self.now().duration_since(alarm));
        }
        Fact::Hook(Box::new(exec.clone()), Tried { when, end: End::Exit(0, String::new()) })
    }

    pub(super) fn pod(&self, name: &str) -> Option<Pod> {
        let ordinal: usize = name.rsplit_once('-')?.1.parse().ok()?;
        let id = self.pods.get(ordinal)?.id;
        let container = Container { name: "app".into(), id: Some(id.to_string()), restarts: 0 };
        let owner = Some("sts".into());
        Some(Pod { uid: name.into(), running: true, containers: vec![container], owner, ..Pod::default() })
    }

    pub(super) fn snaps(&self) -> Snaps {
        let old = self.old.iter().flat_map(|old| &old.pieces);
        let old = old.filter_map(|(name, piece)| Some((name.clone(), piece.snap(piece.created)?)));
        self.disks.iter().map(|(name, disk)| (name.clone(), disk.snap.clone())).chain(old).collect()
    }
}
