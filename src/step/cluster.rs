//! The real world behind the driver: one process at work on one object of one cluster.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::watch;

use super::clock::{Clock, ServerClock};
use super::feed::Feeds;
use super::lock::Lock;
use super::quiesce::Hooks;
use super::record::Ledger;
use super::{Effect, Fault, Io, claim, fence, observe, record, snapshot, volume};
use crate::api::backup::StatefulSetBackup;
use crate::plan::backup::Backup;
use crate::plan::flow::{Feed, Step};
use crate::plan::name::RunId;
use crate::plan::noun::{Stop, Want};
use crate::plan::restore::Restore;
use crate::plan::view::{Fact, Read};

/// Client, names and what is kept beside the view: the Lease that we renew and the watches that are open.
pub struct Cluster {
    pub client: Client,
    pub want: Want,
    pub(super) clock: Clock,
    server: ServerClock,
    pub(super) lock: Lock,
    feeds: Feeds,
    pub(super) hooks: Hooks,
    stop: watch::Sender<Option<Stop>>,
    run: Cell<Option<RunId>>,
    /// Uid of the StatefulSet as it was read last: Events bear it.
    set: RefCell<Option<String>>,
    pub(super) ledger: Ledger,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Cluster").field("want", &self.want).finish_non_exhaustive()
    }
}

impl Cluster {
    pub fn new(client: Client, want: Want, clock: Clock) -> Cluster {
        Self::with(client, want, clock, Ledger::Object)
    }

    /// For a run whose object is not in the cluster.
    pub fn of_file(client: Client, want: Want, clock: Clock, object: StatefulSetBackup) -> Cluster {
        Self::with(client, want, clock, Ledger::of_file(object))
    }

    fn with(client: Client, want: Want, clock: Clock, ledger: Ledger) -> Cluster {
        Cluster {
            ledger,
            lock: Lock::new(client.clone(), &want, clock),
            feeds: Feeds::default(),
            hooks: Hooks::default(),
            stop: watch::Sender::new(None),
            run: Cell::new(None),
            set: RefCell::new(None),
            client,
            want,
            clock,
            server: ServerClock::default(),
        }
    }

    /// With the clock of the API server that the client speaks to.
    #[must_use]
    pub fn dated(self, server: &ServerClock) -> Cluster {
        Cluster { server: server.clone(), ..self }
    }

    /// Asks the flow to stop; the weightiest reason counts.
    pub fn ask_to_stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let before = *stop;
            *stop = before.max(Some(why));
            *stop != before
        });
    }

    /// The id of the run under way, for audit lines.
    pub fn run(&self) -> Option<String> {
        self.run.get().map(|id| id.to_string())
    }

    pub(super) fn saw_set(&self, uid: Option<String>) {
        self.set.replace(uid);
    }

    pub(super) fn set(&self) -> Option<String> {
        self.set.borrow().clone()
    }

    pub fn name_run(&self, run: Option<RunId>) {
        self.run.set(run);
    }
}

impl Io for Cluster {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn ahead(&self) -> SignedDuration {
        self.server.ahead(self.clock.now())
    }

    async fn sleep(&self, until: Timestamp) {
        let left = until.duration_since(self.now());
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    }

    fn stop(&self) -> Option<Stop> {
        if self.lock.is_overdue() {
            self.ask_to_stop(Stop::CutOff); // stopped and continued, or cut off: others may hold it by now
        }
        *self.stop.borrow()
    }

    async fn stopped(&self) {
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }

    async fn renew(&self) -> Infallible {
        self.lock.renew(|stop| self.ask_to_stop(stop)).await
    }

    async fn read(&self, read: &Read) -> Result<Vec<Fact>, Fault> {
        observe::read(self, read).await
    }

    async fn feed(&self, on: &[Feed]) -> Vec<Fact> {
        self.feeds.next(self, on).await
    }
}

impl Effect<Backup> for Cluster {
    async fn effect(&self, step: &Backup) -> Result<Vec<Fact>, Fault> {
        let row = step.row();
        match step {
            Backup::Lock(seen) => self.lock.acquire(self, row, seen.as_deref()).await,
            Backup::Unlock(epoch) => self.lock.release(self, row, *epoch).await,
            Backup::Write(write) => record::write(self, row, write).await,
            Backup::Hold(hold) => record::hold(self, row, hold).await,
            Backup::Mark(open) => self.lock.mark(self, row, open.as_deref()).await,
            Backup::Pre(exec) | Backup::Post(exec) => self.hooks.run(self, row, exec).await,
            Backup::Snapshot(new) => snapshot::create(self, row, new).await,
            Backup::Enroll(enroll) => self.lock.enroll(self, row, enroll).await,
            Backup::Seal(seal) => snapshot::seal(self, row, seal).await,
            Backup::Delete(doomed) => snapshot::delete(self, row, doomed).await,
            Backup::Purge(purge) => snapshot::purge(self, row, purge).await,
            Backup::Prune(prune) => snapshot::prune(self, row, prune).await,
        }
    }
}

impl Effect<Restore> for Cluster {
    async fn effect(&self, step: &Restore) -> Result<Vec<Fact>, Fault> {
        let row = step.row();
        match step {
            Restore::Lock(seen) => self.lock.acquire(self, row, seen.as_deref()).await,
            Restore::Unlock(epoch) => self.lock.release(self, row, *epoch).await,
            Restore::Write(write) => record::write_restore(self, row, write).await,
            Restore::Hold(hold) => record::hold_restore(self, row, hold).await,
            Restore::Mark(signs) => self.lock.sign(self, row, signs).await,
            Restore::Pin(pin) => snapshot::pin(self, row, pin).await,
            Restore::Stage(new) | Restore::Make(new) => claim::create(self, row, new).await,
            Restore::Steer(steer) => claim::steer(self, row, steer).await,
            Restore::Unlabel(of) => claim::unlabel(self, row, of).await,
            Restore::DropClaim(doomed) => claim::delete(self, row, doomed).await,
            Restore::Protect(tend) | Restore::Settle(tend) | Restore::Discard(tend) => {
                volume::tend(self, row, tend).await
            }
            Restore::Reserve(reserve) => volume::reserve(self, row, reserve).await,
            Restore::Retain(keep) => fence::retain(self, row, keep).await,
            Restore::Scale(scale) => fence::scale(self, row, scale).await,
            Restore::Evict(doomed) => fence::evict(self, row, doomed).await,
        }
    }
}
