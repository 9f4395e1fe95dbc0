//! One process at work in the restore's world, as the driver sees it: what it reads, what it waits for, and what its
//! writes do, each with the preconditions that the real request carries.

mod server;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use sts_backup::api::condition::Reason;
use sts_backup::plan::flow::Feed;
use sts_backup::plan::known::Content;
use sts_backup::plan::noun::{Claim, ClaimRef, Denial, Pod, Refusal, Stop, Volume, Want};
use sts_backup::plan::restore::journal::Record;
use sts_backup::plan::restore::own;
use sts_backup::plan::restore::sight::{Fence, Look, Sight, StorageClass};
use sts_backup::plan::restore::{NewClaim, Reserve, Restore, Tend};
use sts_backup::plan::topology::Node;
use sts_backup::plan::view::{Fact, Read, Seen};
use sts_backup::step::{Effect, Fault, Io};

use crate::life::{self, Life};

use super::world::{Blow, Odd, World, second};

type Reply = Result<Vec<Fact>, Fault>;

pub struct Process {
    world: Rc<RefCell<World>>,
    pub want: Want,
    pub life: Life,
    told: RefCell<BTreeMap<Feed, Fact>>,
}

impl Process {
    pub fn start(world: &Rc<RefCell<World>>, want: Want) -> Process {
        Process { world: world.clone(), want, life: Life::new(), told: RefCell::default() }
    }

    /// Waits for our turn.
    async fn turn(&self) {
        for _ in 0..6 {
            if life::takes_turn(&mut self.world.borrow_mut().order, &self.want.me) {
                return;
            }
            self.sleep(self.now() + SignedDuration::from_millis(10)).await;
        }
    }

    fn heard(&self, world: &World, fact: Fact) -> Fact {
        match world.mutant {
            Some(mutant) => mutant.hears(world, &self.want.me, fact),
            None => fact,
        }
    }

    /// The object that bears our name may be another by now.
    fn answer(&self, world: &World, read: &Read) -> Fact {
        let replaced = self.want.uid != world.object();
        match read {
            Read::Restore(Look::Record) if replaced => {
                Fact::Mute(Refusal::new(Reason::Superseded, "the object was created anew"))
            }
            Read::Restore(Look::Kin) => Fact::Restore(Box::new(Sight::Kin(world.kin(&self.want.uid)))),
            _ => world.answer(read),
        }
    }

    fn befall(&self, blow: Option<Blow>) {
        let mut world = self.world.borrow_mut();
        world.settle();
        match blow {
            Some(Blow::Sigterm) => self.life.halt(Stop::Sigterm),
            Some(Blow::Stolen) if world.lease.holder.as_ref() == Some(&self.want.me) => {
                world.lease.holder = None;
                world.lease.epoch += 1;
                world.lease.version = world.uid("v");
                self.life.halt(Stop::LeaseLost);
            }
            Some(blow) => {
                world.deed(blow);
                world.settle();
            }
            None => {}
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
        self.life.stop()
    }
    async fn stopped(&self) {
        self.life.stopped().await;
    }
    async fn renew(&self) -> Infallible {
        pending().await
    }
    async fn read(&self, read: &Read) -> Reply {
        self.sleep(self.now() + SignedDuration::from_millis(5)).await;
        let (fails, hangs) = {
            let mut world = self.world.borrow_mut();
            world.settle();
            world.reads += 1;
            let fails = world.fail_read == Some(world.reads - 1);
            (fails, fails && world.hangs)
        };
        if hangs {
            return pending().await;
        }
        let world = self.world.borrow();
        let reply = if world.now() < world.denied_until {
            Err(denied())
        } else if fails {
            Err(Fault::Lost)
        } else {
            Ok(vec![self.heard(&world, self.answer(&world, read))])
        };
        match world.mutant {
            Some(mutant) => mutant.read(read, reply),
            None => reply,
        }
    }
    async fn feed(&self, on: &[Feed]) -> Vec<Fact> {
        loop {
            let mut facts = vec![];
            {
                let mut world = self.world.borrow_mut();
                world.settle();
                for feed in on {
                    let told = match feed {
                        Feed::Object => self.answer(&world, &Read::Restore(Look::Record)),
                        feed => world.tell(feed),
                    };
                    let fact = self.heard(&world, told);
                    if self.told.borrow_mut().insert(feed.clone(), fact.clone()) != Some(fact.clone()) {
                        facts.push(fact);
                    }
                }
            }
            if !facts.is_empty() {
                return facts;
            }
            if self.now() > self.world.borrow().horizon {
                self.world.borrow_mut().violate("never ends".into());
                return self.life.die().await;
            }
            self.sleep(self.now() + SignedDuration::from_millis(250)).await;
        }
    }
}

impl Effect<Restore> for Process {
    async fn effect(&self, step: &Restore) -> Reply {
        self.turn().await;
        self.sleep(self.now() + SignedDuration::from_millis(20)).await;
        if self.life.is_dead() {
            return pending().await;
        }
        let (blow, endless) = {
            let mut world = self.world.borrow_mut();
            let k = world.writes;
            world.writes += 1;
            (world.blows.iter().find(|(at, _)| *at == k).map(|(_, blow)| *blow), k > world.endless())
        };
        if endless {
            self.world.borrow_mut().violate("never ends".into());
            return self.life.die().await;
        }
        self.befall(blow);
        if self.world.borrow_mut().denies(blow, step) {
            return Err(denied());
        }
        if blow == Some(Blow::Straggler) {
            let at = self.now() + SignedDuration::from_secs(1);
            self.world.borrow_mut().mail.push((at, self.want.me.clone(), step.clone()));
        }
        let reply = match blow {
            Some(Blow::DieBefore | Blow::Straggler) => return self.life.die().await,
            Some(Blow::LostBefore) => Err(Fault::Lost),
            Some(Blow::Refuse) => {
                let no = Refusal::new(Reason::Forbidden, "the world said no");
                return match step {
                    Restore::Write(_) | Restore::Hold(_) => Ok(vec![Fact::Mute(no)]),
                    _ => Err(Fault::Refused(no)),
                };
            }
            _ => {
                let mut world = self.world.borrow_mut();
                if blow == Some(Blow::Twice) {
                    let _ = world.act(&self.want.me, step);
                }
                let reply = world.act(&self.want.me, step);
                world.settle();
                reply
            }
        };
        let reply = match blow {
            Some(Blow::DieAfter) => self.life.die().await,
            Some(Blow::Hang) => pending().await,
            Some(Blow::LostAfter) => Err(Fault::Lost),
            _ => reply,
        };
        let mutant = self.world.borrow().mutant;
        match mutant {
            Some(mutant) => mutant.heard(reply),
            None => reply,
        }
    }
}

/// What an API server answers that does not know yet who may do what.
fn denied() -> Fault {
    let message = "User \"runner\" cannot do that: clusterrole \"sts-backup-runner\" not found";
    Fault::Denied(Denial { refusal: Refusal::new(Reason::Forbidden, message), judged: false })
}

/// A step in a line: of a status only where the run is.
fn brief(step: &Restore) -> String {
    let Restore::Write(write) = step else { return format!("{step:?}") };
    let run = write.status.run.as_ref().map(|run| (run.goal, run.reached, run.served));
    format!("Write {:?} {run:?} {:?}", write.status.phase, write.status.message)
}
