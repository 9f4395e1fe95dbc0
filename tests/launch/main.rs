//! What the watcher decides, over a simulated month with two watchers that come and go, against a naive model.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions; these are their helpers")]

mod chance;
mod fair;
mod naive;
mod size;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sts_backup::plan::launch::entry::{Manager, Object, Policy, Subject, Uid};

use self::chance::Chance;
use self::naive::{Calendar, Life, Rule, Wish};
use self::world::{Event, World, next, policy};

const ZONES: [&str; 5] = ["Etc/UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney"];
const DAY: i64 = 86_400;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn span(chance: &mut Chance, from: i64, to: i64) -> i64 {
    from + i64::try_from(chance.below(u64::try_from(to - from).unwrap())).unwrap()
}

fn rule(chance: &mut Chance) -> Rule {
    let some = |chance: &mut Chance, n: u64, from: i64, to: i64| -> BTreeSet<i8> {
        let n = 1 + chance.below(n);
        (0..n).map(|_| i8::try_from(span(chance, from, to)).unwrap()).collect()
    };
    let minutes = some(chance, 2, 0, 60);
    let (hours, hour_text) = if chance.below(4) == 0 {
        let step = chance.pick(&[3_i8, 4, 6, 12]);
        ((0..24).filter(|hour| hour % step == 0).collect(), format!("*/{step}"))
    } else {
        let hours = some(chance, 3, 0, 24);
        (hours.clone(), list(&hours))
    };
    let days = (chance.below(3) == 0).then(|| some(chance, 4, 1, 32));
    let weekdays = (chance.below(3) == 0).then(|| some(chance, 3, 0, 7));
    let field = |set: &Option<BTreeSet<i8>>| set.as_ref().map_or("*".to_owned(), list);
    let text = format!("{} {hour_text} {} * {}", list(&minutes), field(&days), field(&weekdays));
    Rule { text, minutes, hours, days, weekdays }
}

fn list(set: &BTreeSet<i8>) -> String {
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn wish(chance: &mut Chance) -> Wish {
    Wish {
        rule: (chance.below(10) > 0).then(|| rule(chance)),
        zone: chance.pick(&ZONES),
        deadline: (chance.below(4) == 0).then(|| 60 * span(chance, 1, 300)),
        suspend: chance.below(12) == 0,
    }
}

fn write(policy: &mut Policy, wish: &Wish) {
    policy.schedule = wish.rule.as_ref().map(|rule| rule.text.clone().into());
    policy.time_zone = Some(wish.zone.into());
    policy.starting_deadline = wish.deadline;
    policy.suspend = wish.suspend;
}

fn create(world: &mut World, lives: &mut BTreeMap<Uid, Life>, name: usize) {
    let wish = wish(&mut world.chance);
    let mut object = Object {
        // When its turn would come in a namespace of many: `fair.rs`.
        namespace: format!("shop-{name}").into(),
        name: format!("policy-{name}").into(),
        version: "0".into(),
        generation: 1,
        created: world::at(world.t),
        leaving: None,
        held: false,
        statefulset: "pg".into(),
        statefulset_namespace: None,
        manager: Manager::Nobody,
        problem: None,
        standing: vec![],
        subject: Subject::Backup(Box::new(Policy { keep_succeeded: 3, keep_failed: 1, ..Policy::default() })),
    };
    write(policy(&mut object), &wish);
    let t = world.t;
    let uid = world.create(object);
    lives.insert(uid, Life { created: t, edits: vec![(t, wish)], ..Life::default() });
    let again = next(t + 60 * span(&mut world.chance, 2, 3000), 45);
    world.put(again, Event::Edit(uid));
}

/// One thing that somebody does to the object.
fn edit(world: &mut World, lives: &mut BTreeMap<Uid, Life>, uid: Uid, names: &mut usize) {
    let (t, life) = (world.t, lives.get_mut(&uid).unwrap());
    let mut now = life.edits.last().unwrap().1.clone();
    match world.chance.below(20) {
        0 => {
            life.deleted = Some(t);
            world.delete(uid);
            *names += 1;
            return create(world, lives, *names);
        }
        1..5 => {
            let value = format!("please {t}");
            life.requests.push((t, value.clone()));
            world.store(uid, |object| policy(object).request = Some(value.into()));
        }
        5..9 => now.suspend = !now.suspend,
        9..12 => now.deadline = (world.chance.below(2) == 0).then(|| 60 * span(&mut world.chance, 1, 300)),
        12 => now.rule = None,
        _ => now = Wish { suspend: now.suspend, ..wish(&mut world.chance) },
    }
    if now != life.edits.last().unwrap().1 {
        life.edits.push((t, now.clone()));
        world.store(uid, |object| write(policy(object), &now));
    }
    let again = next(t + 60 * span(&mut world.chance, 60, 6000), 45);
    world.put(again, Event::Edit(uid));
}

fn simulate(policies: u64, days: i64, watchers: usize, seed: u64) -> (World, BTreeMap<Uid, Life>, i64) {
    // March has the changes of the clocks on both sides of the ocean, and April Sydney's.
    let begin: Timestamp = "2026-03-07T00:00:15Z".parse().unwrap();
    let begin = begin.as_second();
    let mut world = World::new(begin, watchers, seed);
    let mut lives = BTreeMap::new();
    let mut names = usize::try_from(policies).unwrap();
    for w in 0..watchers {
        world.switch(w);
        let first = next(begin + span(&mut world.chance, 3600, 2 * DAY), 15);
        world.put(first, Event::Switch(w));
    }
    for name in 0..names {
        let t = next(begin + span(&mut world.chance, 0, DAY), 45);
        world.put(t, Event::Create(name));
    }
    let end = begin + days * DAY;
    while let Some(event) = world.pop(end) {
        match event {
            Event::Create(name) => create(&mut world, &mut lives, name),
            Event::Edit(uid) => edit(&mut world, &mut lives, uid, &mut names),
            Event::Switch(w) => {
                world.switch(w);
                let again = next(world.t + span(&mut world.chance, 600, DAY), 15);
                world.put(again, Event::Switch(w));
            }
            Event::Tick(w) => world.plan(w),
            Event::Hear(w, life, heard) => world.hear(w, life, heard),
            Event::Answered(w, life, uid, answer) => world.answered(w, life, uid, answer),
            Event::Begin(job) => world.begin(job),
            Event::Close(job) => world.close(job),
            Event::Fail(job) => world.fail(job),
            Event::Expire(job) => world.remove(job),
        }
    }
    (world, lives, end)
}

fn compare(world: &World, lives: &BTreeMap<Uid, Life>, end: i64) -> usize {
    let mut ran: BTreeMap<Uid, BTreeMap<&str, i64>> = BTreeMap::new();
    for ((uid, slot), times) in &world.begun {
        assert_eq!(times.len(), 1, "{uid} {slot} began more than once: {times:?}");
        ran.entry(*uid).or_default().insert(slot, times[0]);
    }
    let mut closed: BTreeMap<Uid, BTreeMap<&str, i64>> = BTreeMap::new();
    for ((uid, slot), times) in &world.closed {
        assert_eq!(times.len(), 1, "{uid} {slot} was closed more than once: {times:?}");
        closed.entry(*uid).or_default().insert(slot, times[0]);
    }
    let (nothing, mut count) = (BTreeMap::new(), 0);
    let calendar = Calendar::new(lives.values().map(|life| life.created).min().unwrap(), end, &ZONES);
    for (uid, life) in lives {
        let (ran, closed) = (ran.get(uid).unwrap_or(&nothing), closed.get(uid).unwrap_or(&nothing));
        let wanted = naive::runs(&calendar, life, closed, &world.watched, end);
        let due: BTreeSet<&str> = wanted.iter().map(|(slot, _)| slot.as_str()).collect();
        let extra: Vec<_> = ran.iter().filter(|(slot, _)| !due.contains(*slot)).collect();
        // The last minutes before the end, and before a deletion, leave a Job no time to begin.
        let late = |slot: &String, t: i64| {
            t > end - 2 * DAY || (life.deleted.is_some() && world.launched.contains(&(*uid, slot.clone())))
        };
        let missing: Vec<_> =
            wanted.iter().filter(|(slot, t)| !ran.contains_key(slot.as_str()) && !late(slot, *t)).collect();
        assert!(extra.is_empty() && missing.is_empty(), "{uid}: {life:#?}\nextra {extra:?}\nmissing {missing:?}");
        count += ran.len();
    }
    count
}

#[test]
fn a_month_of_policies_runs_what_a_naive_model_says_each_once() {
    // The thousand take a minute or two: the long tier's.
    let long = std::env::var("SSB_TIER").is_ok_and(|tier| tier == "long");
    let (policies, days) = (setting("SSB_POLICIES", if long { 1000 } else { 60 }), setting("SSB_DAYS", 30));
    let seed = setting("SSB_SEED", 8);
    let (world, lives, end) = simulate(policies, i64::try_from(days).unwrap(), 2, seed);
    let runs = compare(&world, &lives, end);
    println!("{} lives, {runs} runs, {} Jobs, {} status writes", lives.len(), world.launches, world.writes);
    assert!(runs > lives.len() * usize::try_from(days).unwrap() / 3, "the simulation idles: {runs} runs");
    // A few more Jobs than runs, for those that failed; a few writes for each run: no loop anywhere.
    assert!(world.launches < runs * 2 && world.writes < runs * 4, "{} Jobs, {} writes", world.launches, world.writes);
}
