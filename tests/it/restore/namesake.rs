//! The restore object is replaced by a namesake before each write of its run: by somebody who takes the finalizer off by
//! force, or before there is one. The journal is gone then. What was safe stays safe; the old run leaves; and the namesake
//! begins a run of its own where nothing has been begun, and touches nothing where something has.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use sts_backup::api::condition::Reason;
use sts_backup::api::restore::RestorePhase;
use sts_backup::plan::flow::Exit;
use sts_backup::plan::noun::{Outcome, RETAIN, Volume};
use sts_backup::plan::restore;

use super::sweep::{Report, is_drawn, pause, run, runtime, settings};
use super::world::{Blow, NAMESAKE, Odd, PODS, SIGNATURE, Setting, World, keys};

/// What no run may change that is refused.
#[derive(Debug, PartialEq)]
struct Picture {
    claims: BTreeMap<String, (String, String)>,
    volumes: BTreeMap<String, Volume>,
    pinned: Vec<BTreeSet<String>>,
    signs: String,
    target: String,
}

fn picture(world: &World) -> Picture {
    let contents = world.contents();
    let claim = |name: &String| (world.claims[name].uid.clone(), contents[name].clone());
    let (lease, target) = (&world.lease, &world.target);
    Picture {
        claims: world.claims.keys().map(|name| (name.clone(), claim(name))).collect(),
        volumes: world.disks.iter().map(|(name, disk)| (name.clone(), disk.volume.clone())).collect(),
        pinned: world.sources.values().map(|source| source.pins.clone()).collect(),
        signs: format!("{:?}", (&lease.open, &lease.fence, &lease.restored)),
        target: format!("{:?}", (&target.uid, target.replicas, &target.retention)),
    }
}

/// Why the namesake is refused, if it is.
fn bar(world: &World) -> Option<Reason> {
    let is_it = |entry: &String| entry.split(' ').next() == Some(SIGNATURE);
    let on_claim = world.claims.values().any(|claim| claim.restored_by.as_ref().is_some_and(is_it));
    match world.lease.open {
        Some(_) => Some(Reason::LockedByOpenRun),
        None if on_claim || world.lease.restored.iter().any(is_it) => Some(Reason::AlreadyRestored),
        None => None,
    }
}

/// The world in the end, and what has barred the namesake.
async fn case(k: usize, setting: Setting) -> (World, Option<Reason>) {
    let world = Rc::new(RefCell::new(World::new(&[(k, Blow::ReplaceObject)], setting)));
    run(&world, "restore", restore::next).await;
    pause(&world, 8).await;
    let (before, bar) = {
        let mut world = world.borrow_mut();
        world.ghost = None;
        assert!(world.replaced);
        (picture(&world), bar(&world))
    };
    let exit = run(&world, NAMESAKE, restore::next).await;
    pause(&world, 8).await;
    let mut world = Rc::into_inner(world).unwrap().into_inner();
    match bar {
        Some(reason) => barred(&mut world, &before, reason, exit.as_ref()),
        None => whole(&mut world, exit.as_ref()),
    }
    let old = |pvc: &String| {
        world.own_disks().any(|disk| disk.content == format!("old {pvc}") && disk.volume.policy == RETAIN)
    };
    let under = world.contents();
    let lost: Vec<String> = keys()
        .iter()
        .map(|key| key.pvc("web"))
        .filter(|pvc| !old(pvc) && under.get(pvc) != Some(&format!("old {pvc}")))
        .collect();
    for pvc in lost {
        world.violate(format!("the old content of {pvc} is gone"));
    }
    world.look_at_others(bar.is_none());
    (world, bar)
}

fn barred(world: &mut World, before: &Picture, reason: Reason, exit: Option<&Exit>) {
    let after = picture(world);
    if after != *before {
        world.violate(format!("the namesake was refused, and has changed something: {before:?} became {after:?}"));
    }
    if !matches!(exit, Some(Exit::Done(Outcome::Failed(refusal))) if refusal.reason == reason) {
        world.violate(format!("the namesake ends {exit:?}, and not {reason:?}"));
    }
    if world.status.phase != Some(RestorePhase::Failed) || world.status.plan.is_some() {
        world.violate(format!("the namesake is {:?}", world.status.phase));
    }
}

/// Nothing was begun: the namesake's run is the first, and ends as such a run does in this cluster.
fn whole(world: &mut World, exit: Option<&Exit>) {
    let contents = world.contents();
    let all = |what: &str| keys().iter().map(|key| key.pvc("web")).all(|pvc| contents[&pvc] == format!("{what} {pvc}"));
    let right = match (world.setting.odd, exit) {
        (Odd::Broken, Some(Exit::Done(Outcome::Failed(refusal)))) => {
            refusal.reason == Reason::ReadyTimeout && all("old")
        }
        (Odd::Broken, _) => false,
        (_, exit) => matches!(exit, Some(Exit::Done(Outcome::Succeeded))) && all("new"),
    };
    if !right {
        world.violate(format!("the namesake's run is not as the first one: {exit:?}"));
    }
    if world.target.replicas != PODS || world.lease.fence.is_some() || world.lease.open.is_some() {
        world.violate("replicas, fence or mark".into());
    }
}

#[test]
fn a_namesake_of_the_object_turns_nothing_back_twice() {
    let (rt, start, mut all, mut met) = (runtime(), Instant::now(), 0, BTreeMap::<_, usize>::new());
    let mut report = Report::default();
    let odd = ["staged", "in place", "scaled", "broken"];
    for (_, setting) in settings().into_iter().filter(|(what, _)| odd.contains(what)) {
        for k in 0..rt.block_on(super::sweep::case(&[], setting, restore::next)).writes {
            all += 1;
            // Before anything is begun there are few cases.
            if k == 0 || is_drawn(all) {
                let (world, bar) = rt.block_on(case(k, setting));
                *met.entry(format!("{bar:?}")).or_default() += 1;
                report.note(&[(k, Blow::ReplaceObject)], world);
            }
        }
    }
    println!("{met:?}");
    report.print("namesakes", all, start);
    assert!(report.red.is_empty() && met.len() == 3, "{met:?}");
}
