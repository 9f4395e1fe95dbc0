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
pub mod stock;
pub mod tell;
mod trim;
mod volume;

use std::convert::Infallible;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::select;

use crate::plan::flow::{Exit, Feed, Lost, Next, Planner, Step, When};
use crate::plan::invariant;
use crate::plan::noun::{Denial, Refusal, Stop};
use crate::plan::view::{Denied, Fact, Read, View};

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
    /// It has not happened, and may yet if it is asked for again.
    Denied(Denial),
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
        let came = match next(view, io.now()) {
            Err(read) => {
                let reply = self::read(io, &read, view.stop.is_none()).await;
                fold(view, &read, reply, io.now())
            }
            Ok(Next::Do { batch, until }) => {
                view.fold(Fact::Acted);
                let steps = stream::iter(batch).map(|step| run(io, step, until));
                let mut running = std::pin::pin!(steps.buffer_unordered(AT_ONCE));
                let mut came = Came::Well;
                while let Some((facts, how)) = running.next().await {
                    view.fold_all(facts);
                    came = came.max(how);
                }
                if came == Came::Well {
                    view.fold(Fact::Allowed { write: true });
                }
                came
            }
            Ok(Next::Wait { on, until }) => {
                select! {
                    biased;
                    () = io.stopped(), if view.stop.is_none() => {}
                    facts = io.feed(&on) => view.fold_all(facts),
                    () = io.sleep(until) => {}
                }
                view.fold(Fact::Allowed { write: true });
                Came::Well
            }
            Ok(Next::End(exit)) => return exit,
        };
        debug_assert_eq!(invariant::of_view(view), None);
        pace.turn(io, view, came).await;
    }
}

/// What a turn came to; of several requests the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    Well,
    /// To nothing, and the API server has answered.
    Denied,
    ToNothing,
}

/// One read, to its reply or until it is lost; a stop does not wait for it.
async fn read<I: Io>(io: &I, read: &Read, yields: bool) -> Result<Vec<Fact>, Fault> {
    select! {
        biased;
        reply = io.read(read) => reply,
        () = io.stopped(), if yields => Err(Fault::Lost),
        () = io.sleep(io.now() + READ) => Err(Fault::Lost),
    }
}

fn fold(view: &mut View, read: &Read, reply: Result<Vec<Fact>, Fault>, at: Timestamp) -> Came {
    match reply {
        Ok(facts) => {
            view.fold_all(facts);
            view.fold(Fact::Allowed { write: false });
            Came::Well
        }
        Err(Fault::Denied(Denial { refusal, judged })) => {
            let counts = read.refused(refusal);
            view.fold(Fact::Denied(Box::new(Denied { at, write: false, judged, counts, meanwhile: None })));
            Came::Denied
        }
        Err(Fault::Refused(refusal)) => {
            view.fold(read.refused(refusal));
            Came::ToNothing
        }
        Err(Fault::Lost) => Came::ToNothing,
    }
}

/// One effect, to its reply or until it is lost. Errors are facts: no neighbour hears of them.
async fn run<S: Step, I: Effect<S>>(io: &I, step: S, until: Timestamp) -> (Vec<Fact>, Came) {
    let begun = io.now();
    let lost = |how| step.lost(how, When { begun, ended: io.now() });
    let reply = select! {
        biased;
        reply = io.effect(&step) => reply,
        () = io.stopped(), if step.row().yields => return (vec![lost(Lost::Stopped)], Came::ToNothing),
        () = io.sleep(until) => return (vec![lost(Lost::Late)], Came::ToNothing),
    };
    match reply {
        Ok(facts) => (facts, Came::Well),
        Err(Fault::Denied(Denial { refusal, judged })) => {
            // What it was decided on may be another by the next time.
            let (counts, meanwhile) = (step.refused(refusal), Some(lost(Lost::Reply)));
            let denied = Denied { at: io.now(), write: true, judged, counts, meanwhile };
            (vec![Fact::Denied(Box::new(denied))], Came::Denied)
        }
        Err(Fault::Refused(refusal)) => (vec![step.refused(refusal)], Came::ToNothing),
        Err(Fault::Lost) => (vec![lost(Lost::Reply)], Came::ToNothing),
    }
}

/// So many requests of a batch are under way at once: each is a connection.
const AT_ONCE: usize = 32;

/// What a read may take, page after page.
const READ: SignedDuration = SignedDuration::from_secs(30);

/// 100 ms doubling to 1.6 s after turns that came to nothing: something may be waiting for us, frozen. Of a no that may
/// pass a quarter of the time that it has lasted, up to 6.4 s.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_millis(6400);

#[derive(Default)]
struct Pace {
    stumbles: u32,
}

impl Pace {
    async fn turn<I: Io>(&mut self, io: &I, view: &mut View, came: Came) {
        if came < Came::ToNothing && std::mem::take(&mut self.stumbles) > 0 {
            view.fold(Fact::Silence(None));
        }
        let pause = match came {
            Came::Well => return,
            Came::Denied => {
                let lasted = view.doubt.map_or(SignedDuration::ZERO, |doubt| io.now().duration_since(doubt.since));
                Duration::try_from(lasted / 4).unwrap_or_default().clamp(FIRST, LONGEST)
            }
            Came::ToNothing => FIRST * (1 << self.stumbles.min(4)),
        };
        if came == Came::ToNothing {
            if self.stumbles == 0 {
                view.fold(Fact::Silence(Some(io.now())));
            }
            self.stumbles += 1;
        }
        select! {
            () = io.sleep(io.now() + pause) => {}
            () = io.stopped(), if io.stop().is_none() => {}
        }
    }
}
