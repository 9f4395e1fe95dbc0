//! Two runs of one StatefulSet at once, on the wire: of two policies, or for two slots of one. The second begins
//! before every write of the first, or both at once in orders of their first writes that are drawn by lot.
//!
//! One case from its line: `SSB_MEET='policies hooks after 7' cargo test --test it one_meeting -- --nocapture`, or
//! `SSB_MEET='slots plain order 1011000101110010' ...`

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join;
use sts_backup::api::shared::Outcome;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun;
use tokio::time::sleep;

use crate::apiserver::fault::{Class, Strike};
use crate::apiserver::{ApiServer, State};
use crate::draw::Draw;
use crate::order;
use crate::wire::{Case, Command, judge, runtime, to_the_end, world};
use crate::{shop, truth};

/// Of so many orders one is taken: in a short sweep, and in one of all cases. A case takes a tenth of a second.
const ORDERS: (u64, u64) = (800, 100);

/// Of so many beginnings one is taken in a short sweep.
const BEGINNINGS: u64 = 4;

/// How the two come together.
#[derive(Debug, Clone, Copy)]
enum How {
    /// The second begins when the first has made so many writes; and whether that one dies of the next.
    After(usize, bool),
    Order(u32),
}

#[derive(Debug, Clone, Copy)]
struct Meeting {
    /// Of two policies; else for two slots of one.
    policies: bool,
    hooks: bool,
    how: How,
}

impl std::fmt::Display for Meeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (policies, hooks) = (["slots", "policies"][usize::from(self.policies)], ["plain", "hooks"]);
        write!(f, "{policies} {} ", hooks[usize::from(self.hooks)])?;
        match self.how {
            How::After(k, dies) => write!(f, "{} {k}", if dies { "death" } else { "after" }),
            How::Order(order) => write!(f, "order {order:016b}"),
        }
    }
}

impl Meeting {
    fn commands(self) -> [Command; 2] {
        let first = Command { name: shop::POLICY, slot: "one", second: false };
        let name = if self.policies { "other" } else { shop::POLICY };
        [first, Command { name, slot: "two", second: true }]
    }

    /// What is wrong in the end, and the log.
    fn judge(self) -> (Vec<String>, Vec<String>) {
        runtime().block_on(async {
            let mut case = Case::of(self.hooks);
            if let How::After(k, true) = self.how {
                case = case.strike(Class::Write, k, &Strike::DieAfter);
            }
            let (server, clock) = world(&case);
            server.act(|state| {
                if self.policies {
                    shop::policy(&mut state.store, "other", self.hooks);
                }
                if let How::Order(order) = self.how {
                    state.faults.order = order::turns(order);
                }
            });
            let [first, second] = self.commands();
            let later = async {
                self.wait(&server).await;
                Box::pin(to_the_end(&server, clock, second)).await
            };
            let (one, two) = join(Box::pin(to_the_end(&server, clock, first)), later).await;
            sleep(Duration::from_mins(2)).await; // what is being deleted goes
            server.act(|state| {
                let mut bad = std::mem::take(&mut state.violations);
                bad.extend(truth::passages(state));
                bad.extend(self.verdict(state, [&one, &two]));
                (bad, std::mem::take(&mut state.log))
            })
        })
    }

    async fn wait(self, server: &ApiServer) {
        let How::After(k, _) = self.how else { return };
        while server.look().faults.count(Class::Write) < k {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Each has ended as if it had been alone, one after the other.
    fn verdict(self, state: &State, exits: [&Vec<Option<Exit>>; 2]) -> Vec<String> {
        let mut bad = vec![];
        let mut check = |wrong: bool, what: String| {
            if wrong {
                bad.push(what);
            }
        };
        check(truth::frozen(state) > 0, "left frozen".into());
        let open = truth::lease(&state.store).is_none_or(|lease| lease.open.is_some());
        check(open || truth::is_renewed(&state.store), "open mark left, or the Lease held".into());
        for (command, exits) in self.commands().iter().zip(exits) {
            let last = exits.last().and_then(Option::as_ref);
            let good = match last {
                Some(Exit::Done(outcome)) => *outcome == noun::Outcome::Succeeded,
                // What is cut may be brought to its end by the other's process, and is found ended then.
                Some(Exit::Superseded(_)) => true,
                _ => false,
            };
            check(!good, format!("{} for {} ended with {last:?}", command.name, command.slot));
            let record = truth::record(&state.store, command.name).unwrap();
            let outcome = record.status.last_run.as_ref().and_then(|last| last.outcome);
            check(outcome != Some(Outcome::Succeeded), format!("{}: {outcome:?}", command.name));
            check(!record.finalizers.is_empty() || record.open.is_some(), format!("{} is left open", command.name));
        }
        let mut runs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for snap in truth::snaps(&state.store).into_values().filter(|snap| !snap.leaving) {
            runs.entry((snap.policy_uid.clone(), snap.run)).or_default().push(snap);
        }
        let size = shop::TEMPLATES.len() * shop::REPLICAS as usize;
        // What a slot's process has frozen and left behind is closed by that of another slot and not begun again; and
        // that it had ended is forgotten once the other has.
        let died = matches!(self.how, How::After(_, true));
        let fair = if died && !self.policies { 1..=3 } else { 2..=2 };
        check(!fair.contains(&runs.len()), format!("{} runs", runs.len()));
        for ((_, id), snaps) in &runs {
            let evidence: Vec<_> = snaps.iter().map(|snap| state.nature.evidence.get(&snap.uid)).collect();
            let thaws: BTreeSet<_> = evidence.iter().map(|seen| seen.map(|seen| seen.thaws)).collect();
            let frozen = evidence.iter().all(|seen| seen.is_some_and(|seen| seen.all_frozen == self.hooks));
            let whole = snaps.len() == size && snaps.iter().all(|snap| snap.sealed);
            check(!whole, format!("run {id} is not whole"));
            check(!frozen || thaws.len() != 1, format!("run {id} is no freeze of its own: {evidence:?}"));
        }
        bad
    }
}

#[derive(Default)]
struct Sweep {
    red: Vec<(Meeting, Vec<String>)>,
}

impl Sweep {
    fn go(&mut self, meeting: Meeting) {
        let (bad, _) = meeting.judge();
        if !bad.is_empty() {
            self.red.push((meeting, bad));
        }
    }

    fn end(&self, what: &str, draw: &Draw, start: Instant) {
        println!("{what}: {draw}, {} red, {:.1?}", self.red.len(), start.elapsed());
        for (meeting, bad) in self.red.iter().take(5) {
            println!("  SSB_MEET='{meeting}': {bad:?}");
        }
        assert!(draw.cases() > 5 && self.red.is_empty());
    }
}

#[test]
fn a_second_run_begins_before_every_write_of_the_first() {
    let (mut sweep, mut draw, start) = (Sweep::default(), Draw::new(BEGINNINGS, 1), Instant::now());
    for (policies, hooks) in [(true, true), (true, false), (false, true), (false, false)] {
        let writes = judge(&Case::of(hooks)).writes;
        for (k, dies) in (0..writes).flat_map(|k| [(k, false), (k, true)]) {
            if draw.take() {
                sweep.go(Meeting { policies, hooks, how: How::After(k, dies) });
            }
        }
    }
    sweep.end("a second run on the wire", &draw, start);
}

#[test]
fn two_runs_on_the_wire_do_not_meet() {
    let (mut sweep, mut draw, start) = (Sweep::default(), Draw::new(ORDERS.0, ORDERS.1), Instant::now());
    for policies in [true, false] {
        for order in order::all() {
            if draw.take() {
                sweep.go(Meeting { policies, hooks: true, how: How::Order(order) });
            }
        }
    }
    sweep.end("orders of two runs on the wire", &draw, start);
}

#[test]
fn one_meeting() {
    let Ok(text) = std::env::var("SSB_MEET") else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [whose, hooks, how, what] = words[..] else { panic!("four words are wanted") };
    let how = match how {
        "order" => How::Order(u32::from_str_radix(what, 2).unwrap()),
        how => How::After(what.parse().unwrap(), how == "death"),
    };
    let (bad, log) = Meeting { policies: whose == "policies", hooks: hooks == "hooks", how }.judge();
    println!("{}\n{bad:?}", log.join("\n"));
}
