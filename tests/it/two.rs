//! Two processes at once, on one run or on two runs of one StatefulSet: in every order of their first writes.
//!
//! One order from its line: `SSB_ORDER='other 1011000101110010' cargo test --test it one_order -- --nocapture`

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use futures::future::join;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::view::View;
use sts_backup::step::drive;

use crate::broken::Mutant;
use crate::draw::Draw;
use crate::order;
use crate::sweep::{is_over, runtime, want};
use crate::world::{Kind, Process, World, keys};

/// Of the orders of a short sweep one in so many is taken.
const ORDERS: u64 = 37;

/// Process after process of one command.
async fn command(world: &Rc<RefCell<World>>, name: &str, from: usize, mutant: Option<Mutant>) {
    for n in from..from + 8 {
        let mut want = want(&world.borrow(), n);
        if name == "other" {
            want.me.0 = want.me.0.replace("/nightly/", "/other/");
            (want.name, want.uid) = ("other".into(), "other".into());
        }
        let process = Process::start(world, want.clone());
        let next = mutant.map_or(sts_backup::plan::backup::next as _, Mutant::planner);
        let exit = tokio::select! {
            biased;
            () = process.life.died.notified() => None,
            (exit, _) = drive(&process, next, View::new(want.clone())) => Some(exit),
        };
        let mut world = world.borrow_mut();
        world.log.push(format!("       -- {name} {n}: {exit:?}"));
        world.bury(&want.me);
        match exit {
            Some(Exit::Done(_) | Exit::Refused(_)) => return,
            Some(Exit::Superseded(_)) if is_over(&world) => return,
            _ => {}
        }
    }
    world.borrow_mut().violations.push("never ends");
}

async fn case(order: u32, other: bool, mutant: Option<Mutant>) -> World {
    let world = Rc::new(RefCell::new(World::new(&[], Kind::Hooks)));
    world.borrow_mut().order = order::turns(order);
    world.borrow_mut().mutant = mutant;
    let second = if other { "other" } else { "nightly" };
    Box::pin(join(command(&world, "nightly", 1, mutant), command(&world, second, 101, mutant))).await;
    let mut world = Rc::into_inner(world).unwrap().into_inner();
    world.settle();
    let mut bad = std::mem::take(&mut world.violations);
    let mut check = |wrong: bool, what| {
        if wrong {
            bad.push(what);
        }
    };
    check(world.left_frozen(), "left frozen");
    check(world.open.is_some() || world.holder.is_some(), "Lease not given back");
    let (runs, size) = (world.runs(), keys().len());
    check(runs.len() != 1 + usize::from(other), "not one run for each command");
    for disks in runs.values() {
        let evidence: BTreeSet<_> = disks.iter().map(|disk| disk.evidence).collect();
        let one = evidence.len() == 1 && evidence.iter().all(|seen| matches!(seen, Some((true, _))));
        check(!one || disks.len() != size || disks.iter().any(|disk| !disk.snap.sealed), "a run that is no freeze");
    }
    world.violations = bad;
    world
}

fn sweep(other: bool, orders: &[u32], mutant: Option<Mutant>) -> usize {
    let (rt, start, mut red) = (runtime(), Instant::now(), vec![]);
    for &order in orders {
        let world = rt.block_on(case(order, other, mutant));
        if !world.violations.is_empty() {
            red.push((order, world.violations));
        }
    }
    let word = if other { "other" } else { "same" };
    println!("two at once ({word}): {} orders, {} red, {:.1?}", orders.len(), red.len(), start.elapsed());
    if let (Some((order, bad)), None) = (red.first(), mutant) {
        println!("  {bad:?}: SSB_ORDER='{word} {order:016b}'");
    }
    red.len()
}

/// Orders in which the broken promise shows.
pub fn red(mutant: Mutant) -> usize {
    sweep(true, &order::all().step_by(997).collect::<Vec<_>>(), Some(mutant))
}

fn never_red(other: bool) {
    let mut draw = Draw::new(ORDERS, 1);
    let drawn: Vec<u32> = order::all().filter(|_| draw.take()).collect();
    println!("orders of two: {draw}");
    assert!(!drawn.is_empty() && sweep(other, &drawn, None) == 0);
}

#[test]
fn two_processes_of_one_run_do_it_once() {
    never_red(false);
}

#[test]
fn two_runs_of_one_statefulset_do_not_meet() {
    never_red(true);
}

#[test]
fn one_order() {
    let Ok(text) = std::env::var("SSB_ORDER") else { return };
    let (which, order) = text.split_once(' ').unwrap();
    let world = runtime().block_on(case(u32::from_str_radix(order, 2).unwrap(), which == "other", None));
    println!("{}\n{:?}", world.log.join("\n"), world.violations);
}
