//! The driver: reads what the planner lacks, runs what it asks for, folds what comes back. It decides nothing.

pub mod call;
mod claim;
pub mod clock;
pub mod cluster;
pub mod feed;
mod fence;
mod lens;
pub mod lock;
pub mod look;
pub mod observe;
mod page;
pub mod quiesce;
pub mod record;
mod sign;
pub mod snapshot;
mod source;
pub mod stock;
pub mod tell;
mod trim;
mod volume;

use std::convert::Infallible;
use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio::select;

use crate::plan::flow::{Exit, Feed, Lost, Next, Planner, Step, When};
use crate::plan::invariant;
use crate::plan::noun::{Refusal, Stop};
use crate::plan::view::{Fact, Read, View};

/// The world beside the writes. Every future lives inside [`drive`]: drop it and nothing goes on.
#[expect(async_fn_in_trait, reason = "one thread: no Send")]
pub trait Io {
    fn now(&self) -> Timestamp;
    /// How far the API server's clock is ahead of `now`, as far as its replies have told.
    fn ahead(&self) -> SignedDuration {
        SignedDuration::ZERO
    }
    async fn sleep(&self, until: Timestamp);
    /// What has told us to stop so far, the weightiest.
    fn stop(&self) -> Option<Stop>;
    /// Resolves when there is a stop; at once when there was one.
    async fn stopped(&self);
    /// Renews the Lease while it is held; its loss becomes a stop.
    async fn renew(&self) -> Infallible;
    async fn read(&self, read: &Read) -> Result<Vec<Fact>, Fault>;
    /// Waits until one of these has something to tell.
    async fn feed(&self, on: &[Feed]) -> Vec<Fact>;
}

/// One write each. A flow's step enum has one impl, an exhaustive match: a step without effect does not compile.
#[expect(async_fn_in_trait, reason = "one thread: no Send")]
pub trait Effect<S>: Io {
    async fn effect(&self, step: &S) -> Result<Vec<Fact>, Fault>;
}

/// Why there is no answer to fold.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It may or may not have happened. Never "absent": not known.
    Lost,
    /// It has not happened and will not.
    Refused(Refusal),
}

/// Runs a flow to its end; the Lease is renewed beside it.
pub async fn drive<S: Step, I: Effect<S>>(io: &I, next: Planner<S>, mut view: View) -> (Exit, View) {
    let exit = select! {
        exit = turns(io, next, &mut view) => exit,
        never = io.renew() => match never {},
    };
    (exit, view)
}

async fn turns<S: Step, I: Effect<S>>(io: &I, next: Planner<S>, view: &mut View) -> Exit {
    let mut pace = Pace::default();
    loop {
        if let Some(stop) = io.stop() {
            view.fold(Fact::Stop(stop));
        }
        view.fold(Fact::Ahead(io.ahead()));
        let fruitful = match next(view, io.now()) {
            Err(read) => fold(view, &read, io.read(&read).await),
            Ok(Next::Do { batch, until }) => {
                view.fold(Fact::Acted);
                let mut running: FuturesUnordered<_> = batch.into_iter().map(|step| run(io, step, until)).collect();
                let mut fruitful = true;
                while let Some((facts, ok)) = running.next().await {
                    view.fold_all(facts);
                    fruitful &= ok;
                }
                fruitful
            }
            Ok(Next::Wait { on, until }) => {
                select! {
                    biased;
                    () = io.stopped(), if view.stop.is_none() => {}
                    facts = io.feed(&on) => view.fold_all(facts),
                    () = io.sleep(until) => {}
                }
                true
            }
            Ok(Next::End(exit)) => return exit,
        };
        debug_assert_eq!(invariant::of_view(view), None);
        pace.turn(io, view, fruitful).await;
    }
}

fn fold(view: &mut View, read: &Read, reply: Result<Vec<Fact>, Fault>) -> bool {
    match reply {
        Ok(facts) => {
            view.fold_all(facts);
            true
        }
        Err(Fault::Refused(refusal)) => {
            view.fold(read.refused(refusal));
            false
        }
        Err(Fault::Lost) => false,
    }
}

/// One effect, to its reply or until it is lost. Errors are facts: no neighbour hears of them.
async fn run<S: Step, I: Effect<S>>(io: &I, step: S, until: Timestamp) -> (Vec<Fact>, bool) {
    let begun = io.now();
    let lost = |how| step.lost(how, When { begun, ended: io.now() });
    let reply = select! {
        biased;
        reply = io.effect(&step) => reply.map_err(|fault| match fault {
            Fault::Lost => lost(Lost::Reply),
            Fault::Refused(refusal) => step.refused(refusal),
        }),
        () = io.stopped(), if step.row().yields => Err(lost(Lost::Stopped)),
        () = io.sleep(until) => Err(lost(Lost::Late)),
    };
    match reply {
        Ok(facts) => (facts, true),
        Err(fact) => (vec![fact], false),
    }
}

/// 100 ms doubling to 1.6 s after turns that came to nothing: something may be waiting for us, frozen.
#[derive(Default)]
struct Pace {
    stumbles: u32,
}

impl Pace {
    async fn turn<I: Io>(&mut self, io: &I, view: &mut View, fruitful: bool) {
        if fruitful {
            if self.stumbles > 0 {
                view.fold(Fact::Silence(None));
            }
            self.stumbles = 0;
            return;
        }
        if self.stumbles == 0 {
            view.fold(Fact::Silence(Some(io.now())));
        }
        let pause = Duration::from_millis(100 << self.stumbles.min(4));
        self.stumbles += 1;
        select! {
            () = io.sleep(io.now() + pause) => {}
            () = io.stopped(), if io.stop().is_none() => {}
        }
    }
}
