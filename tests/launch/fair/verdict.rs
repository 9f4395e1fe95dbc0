//! Whether all honest slots ran, each once and in time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sts_backup::plan::launch::entry::Uid;

use super::super::world::at;
use super::judge::Judge;
use super::{BEGIN, HONEST, HOURS, LATE, LEND, Manner, PLACES, SPACES, START, STARTS, WAITING, WORKS, World};
use super::{is_honest, space};

/// Every honest slot ran once, in time; and in how many Jobs of the tenant's.
pub fn judge(world: &World, end: i64) -> usize {
    let mut wanted: BTreeSet<(Uid, String)> = BTreeSet::new();
    for (uid, _) in world.objects.iter().filter(|(_, object)| is_honest(&object.namespace)) {
        // The first run is at the full hour, too, and takes its slot's place.
        wanted.extend((0..HOURS).map(|hour| (*uid, at(BEGIN + hour * 3600).to_string())));
    }
    for grant in world.grants.iter().filter(|grant| is_honest(&grant.namespace)) {
        assert!(wanted.remove(&(grant.uid, grant.slot.clone())), "more than was due: {grant:?}");
        let slot: Timestamp = grant.slot.parse().unwrap();
        let late = grant.made - slot.as_second();
        assert!(late <= late_at_most(world) && grant.ended.is_some(), "{late} s late: {grant:?}");
    }
    assert!(wanted.is_empty(), "{} slots did not run, {:?} among them", wanted.len(), wanted.first());
    let judge = Judge::new(world, end);
    judge.turns();
    judge.order();
    let idle = matches!(world.manner, Manner::Pends | Manner::Waits | Manner::Fails);
    for tenant in (0..world.tenants).map(space) {
        let most = judge.waiting.get(&*tenant).and_then(|line| line.0.iter().max()).filter(|_| idle);
        // The second in which one ends and another is made counts both.
        assert!(
            most.is_none_or(|most| *most <= 2 * WAITING),
            "{most:?} runs of {tenant} that do not begin wait at once"
        );
    }
    let most = world.writes.values().max().unwrap();
    let runs = world.grants.iter().fold(BTreeMap::<Uid, usize>::new(), |mut runs, grant| {
        *runs.entry(grant.uid).or_default() += 1;
        runs
    });
    for (uid, writes) in &world.writes {
        assert!(*writes <= 2 + 4 * runs.get(uid).unwrap_or(&0), "{writes} writes, {most} at most");
    }
    world.grants.iter().filter(|grant| !is_honest(&grant.namespace)).count()
}

/// Each turn of the tenant's namespaces goes before one of each honest namespace, and each of their runs may hold its place so
/// long: those that hang do so once, those that do not begin hold it for a while each time.
fn late_at_most(world: &World) -> i64 {
    let turn = |holds: i64| i64::try_from(world.tenants.div_ceil(PLACES)).unwrap() * holds;
    let turns = i64::try_from(HONEST / SPACES).unwrap();
    match world.manner {
        _ if world.tenants == 1 => LATE,
        Manner::Hangs => turn(LEND) + LATE,
        Manner::Pends | Manner::Waits | Manner::Fails => turns * (turn(START) + STARTS + WORKS) + LATE / 2,
        Manner::Hurries => LATE,
    }
}
