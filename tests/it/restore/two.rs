//! Two processes at once: of one restore, or the undo and the release of one that is completed, in orders of
//! their first writes that are drawn by lot.
//!
//! One order from its line: `SSB_ORDER='undo 1011000101110010' cargo test --test it one_order_of_two_restores --
//! --nocapture`

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use futures::future::join;
use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::restore::{self, release, undo};

use crate::draw::Draw;
use crate::order;

use super::broken::Mutant;
use super::sweep::{STAGED, command, pause, runtime};
use super::verdict::verdict;
use super::world::{World, keys};

/// Of so many orders one is taken: in a short sweep, and in one of all cases.
const ORDERS: (u64, u64) = (97, 6);

/// The number of the first process of the second command.
const SECOND: usize = 101;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    /// Two processes of one restore.
    Same,
    /// A restore is completed, the day of its release has come, and an undo is begun.
    Undo,
}

async fn case(order: u32, pair: Pair, mutant: Option<Mutant>) -> World {
    let world = Rc::new(RefCell::new(World::new(&[], STAGED)));
    world.borrow_mut().mutant = mutant;
    let choose = |world: &Rc<RefCell<World>>| {
        world.borrow_mut().order = order::turns(order);
    };
    match pair {
        Pair::Same => {
            choose(&world);
            let (first, second) =
                (command(&world, "restore", restore::next, 1), command(&world, "restore", restore::next, SECOND));
            Box::pin(join(first, second)).await;
        }
        Pair::Undo => {
            command(&world, "restore", restore::next, 1).await;
            tokio::time::sleep(std::time::Duration::from_hours(25)).await;
            world.borrow_mut().released = true;
            choose(&world);
            let (first, second) =
                (command(&world, "release", release::next, 1), command(&world, "undo", undo::next, SECOND));
            Box::pin(join(first, second)).await;
        }
    }
    pause(&world, 8).await;
    let mut world = Rc::into_inner(world).unwrap().into_inner();
    match pair {
        Pair::Same => verdict(&mut world, &[]),
        Pair::Undo => one_of_both(&mut world),
    }
    world
}

/// It is undone, or it is released; never a little of both.
fn one_of_both(world: &mut World) {
    let contents = world.contents();
    let all = |what: &str| {
        keys().iter().all(|key| contents.get(&key.pvc("web")) == Some(&format!("{what} {}", key.pvc("web"))))
    };
    let good = match world.status.phase {
        Some(RestorePhase::Undone) => all("old"),
        Some(RestorePhase::Completed) => all("new") && world.ours().count() == keys().len(),
        _ => false,
    };
    if !good {
        world.violate(format!("neither undone nor released: {:?}", world.status.message));
    }
    if world.lease.open.is_some() || world.lease.fence.is_some() || world.lease.holder.is_some() {
        world.violate("mark, fence or lock left".into());
    }
    world.look_at_others(true);
}

fn sweep(pair: Pair, orders: &[u32], mutant: Option<Mutant>) -> (usize, String) {
    let (rt, start, mut red) = (runtime(), Instant::now(), vec![]);
    for &order in orders {
        let world = rt.block_on(case(order, pair, mutant));
        if !world.violations.is_empty() {
            red.push((order, world.violations));
        }
    }
    println!("two at once ({pair:?}): {} orders, {} red, {:.1?}", orders.len(), red.len(), start.elapsed());
    let Some((order, bad)) = red.first() else { return (0, String::new()) };
    println!("  {bad:?}: SSB_ORDER='{} {order:016b}'", if pair == Pair::Same { "same" } else { "undo" });
    (red.len(), bad[0].clone())
}

/// Orders in which the broken promise shows, and what one of them says.
pub fn red(mutant: Mutant) -> (usize, String) {
    sweep(Pair::Same, &order::all().step_by(997).collect::<Vec<_>>(), Some(mutant))
}

fn never_red(pair: Pair) {
    let mut draw = Draw::new(ORDERS.0, ORDERS.1);
    let drawn: Vec<u32> = order::all().filter(|_| draw.take()).collect();
    println!("orders of two ({pair:?}): {draw}");
    assert!(drawn.len() > 50 && sweep(pair, &drawn, None).0 == 0);
}

#[test]
fn two_processes_of_one_restore_do_it_once() {
    never_red(Pair::Same);
}

#[test]
fn an_undo_and_a_release_do_not_meet() {
    never_red(Pair::Undo);
}

#[test]
fn one_order_of_two_restores() {
    let Ok(text) = std::env::var("SSB_ORDER") else { return };
    let (which, order) = text.split_once(' ').unwrap();
    let pair = if which == "undo" { Pair::Undo } else { Pair::Same };
    let world = runtime().block_on(case(u32::from_str_radix(order, 2).unwrap(), pair, None));
    println!("{}\n{:?}", world.log.join("\n"), world.violations);
}
