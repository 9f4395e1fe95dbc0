//! Every write, read and watch of a restore, its undo and its release struck on the wire by everything that may befall it.
//!
//! One case from its line: `SSB_RESTORE='staged Restore Write 3 DieAfter' cargo test --test it one_restore_on_the_wire --
//! --nocapture`

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::super::sweep::settings;
use super::before;
use super::{Blow, Case, STAGED, What, judge};
use crate::apiserver::answer::No;
use crate::apiserver::fault::{self, Class, Hand, Strike};
use crate::draw::Draw;
use crate::singles;

/// Of so many cases of a short sweep one is run: of writes, of reads and watches, of hands, of spells. A case takes a
/// fifth of a second.
const ONE_IN: [u64; 4] = [300, 450, 160, 150];

/// The clusters, by the names of `settings`.
const SETTINGS: [&str; 6] = ["staged", "in place", "broken", "scaled", "sick", "far"];

const HANDS: [(&str, Hand); 6] = [
    ("Replace", before::replace),
    ("Steal", before::steal),
    ("Guest", before::guest),
    ("Rescale", before::rescale),
    ("Delete", before::delete),
    ("DeletePod", before::delete_pod),
];

fn to_write() -> Vec<(&'static str, Strike)> {
    singles::strikes().into_iter().chain([("Twice", Strike::Twice), ("Touch", Strike::Touch)]).collect()
}

fn to_read() -> Vec<(&'static str, Strike)> {
    let say = |no: No| Strike::Say(no);
    vec![
        ("LostAfter", Strike::LostAfter),
        ("Hang", Strike::Hang),
        ("Mute", Strike::Mute),
        ("Broken", say(fault::broken())),
        ("Busy", say(fault::busy())),
        ("Unavailable", say(fault::unavailable())),
        ("Unknown", say(fault::unknown_user())),
        ("NoPath", say(fault::no_path())),
        ("Refuse", say(fault::forbidden())),
    ]
}

fn spells() -> Vec<(&'static str, No)> {
    vec![
        ("Unavailable", fault::unavailable()),
        ("Unknown", fault::unknown_user()),
        ("Refuse", fault::forbidden()),
        ("NoPath", fault::no_path()),
    ]
}

/// For how long an API server that comes up may say so.
const SPELL: Duration = Duration::from_secs(2);

struct Sweep {
    draw: Draw,
    red: Vec<(String, Vec<String>)>,
    start: Instant,
}

impl Sweep {
    fn new(one_in: u64) -> Sweep {
        Sweep { draw: Draw::new(one_in, 1), red: vec![], start: Instant::now() }
    }

    fn go(&mut self, line: String, case: &Case) {
        if self.draw.take() {
            let bad = judge(case).bad;
            if !bad.is_empty() {
                self.red.push((line, bad));
            }
        }
    }

    /// Says how many cases there were, and the least of each kind that is red.
    fn end(self, what: &str) {
        println!("{what}: {}, {} red, {:.1?}", self.draw, self.red.len(), self.start.elapsed());
        let mut kinds: BTreeMap<&String, (usize, &String)> = BTreeMap::new();
        for (line, bad) in &self.red {
            for what in bad {
                kinds.entry(what).or_insert((0, line)).0 += 1;
            }
        }
        for (what, (count, line)) in &kinds {
            println!("  {count:>4} {what}\n       SSB_RESTORE='{line}'");
        }
        assert!(self.draw.all() > 1000 && self.red.is_empty(), "{what}: {} cases are red", self.red.len());
    }
}

/// How many writes, reads, watches and renewals there are to strike.
type Counts = [usize; 4];

fn undisturbed(setting: &'static str, what: What) -> (Case, Counts) {
    static KNOWN: LazyLock<Mutex<BTreeMap<String, Counts>>> = LazyLock::new(Mutex::default);
    let (_, of) = settings().into_iter().find(|(name, _)| *name == setting).unwrap();
    let case = Case::of(of, what);
    let counts = *KNOWN.lock().unwrap().entry(format!("{setting} {what:?}")).or_insert_with(|| {
        let seen = judge(&case);
        assert_eq!(seen.bad, Vec::<String>::new(), "{setting} {what:?}: {}", seen.log.join("\n"));
        [seen.writes, seen.reads, seen.watches, seen.renewals]
    });
    (case, counts)
}

fn scenes() -> impl Iterator<Item = (&'static str, What)> {
    SETTINGS.into_iter().map(|setting| (setting, What::Restore)).chain([
        ("staged", What::Undo),
        ("in place", What::Undo),
        ("staged", What::Release),
    ])
}

#[test]
fn a_restore_on_the_wire_is_undisturbed() {
    for (setting, what) in scenes() {
        let (_, seen) = undisturbed(setting, what);
        let [writes, reads, watches, renewals] = seen;
        println!("{setting} {what:?}: {writes} writes, {reads} reads, {watches} watches, {renewals} renewals");
        assert!(writes > 5 && reads > 5);
    }
}

#[test]
fn every_write_of_a_restore_on_the_wire_is_struck_by_everything() {
    let mut sweep = Sweep::new(ONE_IN[0]);
    for (setting, what) in scenes() {
        let (case, seen) = undisturbed(setting, what);
        for k in 0..seen[0] {
            for (name, strike) in to_write() {
                sweep.go(
                    format!("{setting} {what:?} Write {k} {name}"),
                    &case.with(Blow::Strike(Class::Write, k, strike)),
                );
            }
            sweep.go(format!("{setting} {what:?} Sigterm {k} -"), &case.with(Blow::Sigterm(k)));
        }
    }
    sweep.end("writes of a restore struck on the wire");
}

#[test]
fn every_read_and_watch_of_a_restore_on_the_wire_fails_once() {
    let mut sweep = Sweep::new(ONE_IN[1]);
    for (setting, what) in scenes() {
        let (case, [_, reads, watches, renewals]) = undisturbed(setting, what);
        for (class, count) in [(Class::Read, reads), (Class::Watch, watches), (Class::Renewal, renewals)] {
            for k in 0..count {
                for (name, strike) in to_read() {
                    sweep.go(
                        format!("{setting} {what:?} {class:?} {k} {name}"),
                        &case.with(Blow::Strike(class, k, strike)),
                    );
                }
            }
        }
    }
    sweep.end("reads and watches of a restore failed on the wire");
}

#[test]
fn others_do_what_they_will_before_every_write_of_a_restore_on_the_wire() {
    let mut sweep = Sweep::new(ONE_IN[2]);
    // Where claims go with the pods, who scales down gives up their volumes.
    for (setting, what) in scenes().filter(|(setting, _)| *setting != "scaled") {
        let (case, seen) = undisturbed(setting, what);
        for k in 0..seen[0] {
            for (name, hand) in HANDS {
                sweep.go(format!("{setting} {what:?} Hand {k} {name}"), &case.with(Blow::Hand(k, name, hand)));
            }
        }
    }
    sweep.end("hands of others before every write of a restore");
}

#[test]
fn an_api_server_comes_up_at_every_write_of_a_restore_on_the_wire() {
    let mut sweep = Sweep::new(ONE_IN[3]);
    for (setting, what) in scenes() {
        let (case, seen) = undisturbed(setting, what);
        for k in 0..seen[0] {
            for (name, no) in spells() {
                sweep.go(format!("{setting} {what:?} Spell {k} {name}"), &case.with(Blow::Spell(k, no, SPELL)));
            }
        }
    }
    sweep.end("an API server that comes up, at every write of a restore");
}

#[test]
fn one_restore_on_the_wire() {
    let Ok(text) = std::env::var("SSB_RESTORE") else { return };
    let words: Vec<&str> = text.rsplitn(5, ' ').collect();
    let [name, k, class, what, setting] = words[..] else { panic!("five words are wanted") };
    let what = [What::Restore, What::Undo, What::Release].into_iter().find(|of| format!("{of:?}") == what).unwrap();
    let (_, setting) = settings().into_iter().find(|(name, _)| *name == setting).unwrap_or(("staged", STAGED));
    let (case, k) = (Case::of(setting, what), k.parse().unwrap());
    let strike = || to_write().into_iter().chain(to_read()).find(|(known, _)| *known == name).unwrap().1;
    let blow = match class {
        "Hand" => {
            HANDS.into_iter().find(|(known, _)| *known == name).map(|(name, hand)| Blow::Hand(k, name, hand)).unwrap()
        }
        "Spell" => Blow::Spell(k, spells().into_iter().find(|(known, _)| *known == name).unwrap().1, SPELL),
        "Sigterm" => Blow::Sigterm(k),
        class => {
            let all = [Class::Write, Class::Read, Class::Watch, Class::Renewal];
            Blow::Strike(all.into_iter().find(|of| format!("{of:?}") == class).unwrap(), k, strike())
        }
    };
    let seen = judge(&case.with(blow));
    println!("{}\n{:?}", seen.log.join("\n"), seen.bad);
}
