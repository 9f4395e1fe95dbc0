//! One process in the cluster in memory, as the driver sees it; what befalls its requests befalls it here.

use super::{Blow, ENDLESS, Instance, PODS, World};
use crate::broken::Mutant;
use crate::stock::Old;
use jiff::{SignedDuration, Timestamp};
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;
use sts_backup::api::backup::StatefulSetBackupStatus;
use sts_backup::plan::backup::Backup;
use sts_backup::plan::flow::{Feed, Lost, When};
use sts_backup::plan::hook::{End, Tried};
use sts_backup::plan::noun::{Refusal, Snaps, Stop, Want};
use sts_backup::plan::view::{Fact, Read, Seen};
use sts_backup::step::{Effect, Fault, Io};

use crate::life::{self, Life};

pub struct Process {
    world: Rc<RefCell<World>>,
    pub want: Want,
    pub life: Life,
    told: RefCell<Snaps>,
    /// Of a run without an object: status and finalizers, once it has written.
    pub(super) memory: RefCell<Option<(StatefulSetBackupStatus, Vec<String>)>>,
    mutant: Option<Mutant>,
}

impl Process {
    pub fn start(world: &Rc<RefCell<World>>, want: Want) -> Process {
        let (mutant, memory) = (world.borrow().mutant, RefCell::default());
        Process { world: world.clone(), want, life: Life::new(), told: RefCell::default(), memory, mutant }
    }

    /// Waits for our turn; who is not seen to come loses it.
    async fn turn(&self) {
        for _ in 0..6 {
            if life::takes_turn(&mut self.world.borrow_mut().order, &self.want.me) {
                return;
            }
            self.sleep(self.now() + SignedDuration::from_millis(10)).await;
        }
    }

    fn befall(&self, blow: Option<Blow>) {
        let mut world = self.world.borrow_mut();
        world.settle();
        match blow {
            Some(Blow::Sigterm) => {
                world.alarm = world.left_frozen().then(|| world.now());
                self.life.halt(Stop::Sigterm);
            }
            Some(Blow::Stolen) if world.holder.as_ref() == Some(&self.want.me) => {
                world.holder = None;
                world.epoch += 1;
                world.lease_version += 1;
                self.life.halt(Stop::LeaseLost);
            }
            Some(Blow::Restart) => {
                let thawed = world.pods[0].frozen;
                world.pods[0] = Instance { id: world.pods[0].id + 100, frozen: false };
                world.thaws += u32::from(thawed);
            }
            Some(Blow::Pinned) => world.old.iter_mut().for_each(Old::pin),
            Some(Blow::Refuse) => world.old.iter_mut().for_each(Old::refuse),
            _ => {}
        }
    }
}

impl Io for Process {
    fn now(&self) -> Timestamp {
        self.world.borrow().now()
    }
    async fn sleep(&self, until: Timestamp) {
        life::sleep(self.now(), until).await;
    }
    fn stop(&self) -> Option<Stop> {
        let stop = self.life.stop();
        self.mutant.map_or(stop, |mutant| mutant.stop(stop))
    }
    async fn stopped(&self) {
        if self.mutant == Some(Mutant::DeafToSigterm) {
            return pending().await;
        }
        self.life.stopped().await;
    }
    async fn renew(&self) -> Infallible {
        pending().await
    }
    async fn read(&self, read: &Read) -> Result<Vec<Fact>, Fault> {
        self.sleep(self.now() + SignedDuration::from_millis(5)).await;
        let mut world = self.world.borrow_mut();
        world.settle();
        world.reads_in_freeze += usize::from(world.pods.iter().all(|pod| pod.frozen));
        world.log.push(format!("       read {read:?}"));
        let fails = world.fail_read == Some(world.reads);
        world.reads += 1;
        let reply = match read {
            _ if fails => Err(Fault::Lost),
            Read::Record if world.kind.is_file() => Ok(world.file_record(self, None)),
            _ => Ok(vec![world.as_of(&self.want.me, |world| world.answer(read))]),
        };
        match self.mutant {
            Some(mutant) => mutant.read(read, reply),
            None => reply,
        }
    }
    async fn feed(&self, on: &[Feed]) -> Vec<Fact> {
        if on.contains(&Feed::Lease) {
            self.sleep(self.now() + SignedDuration::from_millis(500)).await;
            return vec![Fact::Lease(Seen::Unknown)];
        }
        loop {
            let (snaps, now, due) = {
                let mut world = self.world.borrow_mut();
                world.settle();
                let due: Vec<_> = world.disks.values().flat_map(|disk| [disk.cut_at, disk.ready_at]).collect();
                (world.snaps(), world.now(), due)
            };
            let told = self.told.replace(snaps.clone());
            let new = snaps.iter().filter(|(name, snap)| told.get(*name) != Some(snap));
            let mut facts: Vec<Fact> = vec![];
            for (name, snap) in new {
                if on.contains(&Feed::Cut(snap.uid.clone()))
                    && let Some(at) = snap.cut
                {
                    facts.push(Fact::Cut(snap.uid.clone(), at));
                }
                if on.contains(&Feed::Snaps) {
                    facts.push(Fact::Snap(name.clone(), Some(snap.clone())));
                }
            }
            if on.contains(&Feed::Snaps) {
                let gone = told.keys().filter(|name| !snaps.contains_key(*name));
                facts.extend(gone.map(|name| Fact::Snap(name.clone(), None)));
            }
            let pods = on.contains(&Feed::Pods) && self.mutant != Some(Mutant::NoProof);
            if pods {
                let world = self.world.borrow();
                let all =
                    (0..PODS).map(|n| format!("web-{n}")).filter_map(|name| Some((name.clone(), world.pod(&name)?)));
                facts.push(Fact::Pods(all.collect()));
            }
            if facts.len() > usize::from(pods) {
                return facts;
            }
            match due.into_iter().filter(|at| *at > now).min() {
                Some(at) => self.sleep(at + SignedDuration::from_millis(1)).await,
                None => pending().await,
            }
        }
    }
}

impl Effect<Backup> for Process {
    async fn effect(&self, step: &Backup) -> Result<Vec<Fact>, Fault> {
        self.turn().await;
        self.sleep(self.now() + SignedDuration::from_millis(20)).await;
        if self.life.is_dead() {
            return pending().await;
        }
        let (blow, endless) = {
            let mut world = self.world.borrow_mut();
            let k = world.writes;
            let blow = world.blows.iter().find(|(at, _)| *at == k).map(|(_, blow)| *blow);
            if matches!(step, Backup::Purge(_) | Backup::Prune(_)) {
                world.first_pruned.get_or_insert(k);
            }
            world.writes += 1;
            (blow, k > ENDLESS)
        };
        if endless {
            self.world.borrow_mut().violations.push("never ends");
            return self.life.die().await;
        }
        self.befall(blow);
        // A straggling write of status or Lease meets a newer version; a straggling hook nothing can prevent.
        if blow == Some(Blow::Straggler) && matches!(step, Backup::Snapshot(_) | Backup::Delete(_) | Backup::Prune(_)) {
            let at = self.now() + SignedDuration::from_secs(1);
            self.world.borrow_mut().mail.push((at, self.want.me.clone(), step.clone()));
        }
        let reply = match blow {
            Some(Blow::DieBefore | Blow::Straggler) => return self.life.die().await,
            Some(Blow::LostBefore) => Err(Fault::Lost),
            Some(Blow::Refuse) => {
                let reason = sts_backup::api::condition::Reason::Forbidden;
                Err(Fault::Refused(Refusal::new(reason, "the world said no")))
            }
            _ if self.world.borrow().kind.is_file() && matches!(step, Backup::Write(_) | Backup::Hold(_)) => {
                Ok(self.world.borrow_mut().file_record(self, Some(step)))
            }
            Some(Blow::Twice) if !matches!(step, Backup::Pre(_)) => {
                let _ = self.world.borrow_mut().apply(&self.want.me, step);
                self.world.borrow_mut().apply(&self.want.me, step)
            }
            _ => self.world.borrow_mut().apply(&self.want.me, step),
        };
        let reply = match blow {
            Some(Blow::DieAfter) => self.life.die().await,
            Some(Blow::Hang) => pending().await,
            Some(Blow::LostAfter) => match step {
                // Its connection is cut: the run goes on, and nobody knows whether it ran.
                Backup::Pre(exec) | Backup::Post(exec) => {
                    let when = When { begun: self.now(), ended: self.now() };
                    Ok(vec![Fact::Hook(exec.clone(), Tried { when, end: End::Lost(Lost::Reply) })])
                }
                _ => Err(Fault::Lost),
            },
            _ => reply,
        };
        match self.mutant {
            Some(mutant) => mutant.heard(reply),
            None => reply,
        }
    }
}
