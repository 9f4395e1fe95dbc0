//! Singles on the wire: every write, read and renewal struck by everything that may befall it, and everything that
//! people and the cluster may do before every write.
//!
//! One case from its line: `SSB_WIRE='hooks Write 3 DieAfter' cargo test --test it one_wire_case -- --nocapture`

use std::collections::BTreeMap;
use std::time::Instant;

use crate::apiserver::fault::{self, Class, Strike};
use crate::draw;
use crate::shop::{DEEDS, Deed};
use crate::wire::{Case, Standing, judge};

/// What may befall a request, by name.
pub fn strikes() -> Vec<(&'static str, Strike)> {
    vec![
        ("DieBefore", Strike::DieBefore),
        ("DieAfter", Strike::DieAfter),
        ("Straggle", Strike::Straggle),
        ("LostBefore", Strike::LostBefore),
        ("LostAfter", Strike::LostAfter),
        ("NoConnection", Strike::NoConnection),
        ("Hang", Strike::Hang),
        ("Conflict", Strike::Say(fault::conflict())),
        ("Busy", Strike::Say(fault::busy())),
        ("Broken", Strike::Say(fault::broken())),
        ("BrokenAfter", Strike::SayAfter(fault::broken())),
        ("Late", Strike::SayAfter(fault::late())),
        ("Refuse", Strike::Say(fault::forbidden())),
    ]
}

/// Of the cases of a short sweep one in so many is run.
const STRIDE: usize = 9;

#[derive(Default)]
struct Sweep {
    all: usize,
    cases: usize,
    red: Vec<(String, Vec<String>)>,
}

impl Sweep {
    fn go(&mut self, line: String, case: &Case) {
        self.all += 1;
        if !self.all.is_multiple_of(STRIDE) && !draw::is_whole() {
            return;
        }
        self.cases += 1;
        let verdict = judge(case);
        if !verdict.bad.is_empty() {
            self.red.push((line, verdict.bad));
        }
    }

    /// Says how many cases there were, and the least of each kind that is red.
    fn end(self, what: &str, least: usize, start: Instant) {
        println!("{what}: {} of {} cases, {} red, {:.1?}", self.cases, self.all, self.red.len(), start.elapsed());
        let mut kinds: BTreeMap<&String, (usize, &String)> = BTreeMap::new();
        for (line, bad) in &self.red {
            for what in bad {
                kinds.entry(what).or_insert((0, line)).0 += 1;
            }
        }
        for (what, (count, line)) in &kinds {
            println!("  {count:>4} {what}\n       SSB_WIRE='{line}'");
        }
        assert!(self.all >= least, "{} cases are too few", self.all);
        assert!(self.red.is_empty(), "{what}: {} of {} cases are red", self.red.len(), self.cases);
    }
}

fn base(hooks: bool) -> (&'static str, Case) {
    (if hooks { "hooks" } else { "plain" }, Case::of(hooks))
}

#[test]
fn every_write_is_struck_by_everything() {
    let (mut sweep, start) = (Sweep::default(), Instant::now());
    for hooks in [true, false] {
        let (word, case) = base(hooks);
        let writes = judge(&case).writes;
        for k in 0..writes {
            for (name, strike) in strikes() {
                sweep.go(format!("{word} Write {k} {name}"), &case.strike(Class::Write, k, &strike));
            }
        }
    }
    sweep.end("writes struck on the wire", 300, start);
}

/// The first write takes the lock. Whoever got it and was not told holds it all the same, and gives it back.
#[test]
fn a_lock_that_was_taken_without_an_answer_is_held() {
    for hooks in [true, false] {
        for (name, strike) in strikes().into_iter().filter(|(name, _)| name.ends_with("After") || *name == "Hang") {
            let case = Case { slow: true, ..Case::of(hooks) };
            let seen = judge(&case.strike(Class::Write, 0, &strike));
            assert!(seen.bad.is_empty(), "hooks {hooks}, {name}: {:?}", seen.bad);
            assert!(name == "DieAfter" || seen.renewals >= 2, "hooks {hooks}, {name}: {} renewals", seen.renewals);
        }
    }
}

#[test]
fn every_read_fails_once() {
    let (mut sweep, start) = (Sweep::default(), Instant::now());
    for hooks in [true, false] {
        let (word, case) = base(hooks);
        let seen = judge(&case);
        for (class, count) in [(Class::Read, seen.reads), (Class::Watch, seen.watches)] {
            for k in 0..count {
                let silent = [("Hang", Strike::Hang), ("Mute", Strike::Mute)];
                let failed = [("Broken", Strike::Say(fault::broken())), ("LostAfter", Strike::LostAfter)];
                for (name, strike) in failed.into_iter().chain(silent) {
                    sweep.go(format!("{word} {class:?} {k} {name}"), &case.strike(class, k, &strike));
                }
            }
        }
    }
    sweep.end("reads failed on the wire", 60, start);
}

#[test]
fn everything_happens_before_every_write() {
    let (mut sweep, start) = (Sweep::default(), Instant::now());
    for hooks in [true, false] {
        let (word, case) = base(hooks);
        let writes = judge(&case).writes;
        for k in 0..writes {
            for deed in DEEDS {
                sweep.go(format!("{word} Deed {k} {deed:?}"), &case.deed(k, deed));
            }
            sweep.go(format!("{word} Sigterm {k} -"), &case.sigterm(k));
        }
    }
    sweep.end("deeds before every write", 300, start);
}

/// What guards nothing is needed for nothing that is known without it: names, uids, sources and ages.
#[test]
fn what_others_forge_does_no_harm_where_no_policy_stands() {
    const FORGED: [Deed; 7] = [
        Deed::Usurp,
        Deed::ReplaceObject,
        Deed::LabelObject,
        Deed::StealLease,
        Deed::ReplaceSnapshot,
        Deed::CopySnapshot,
        Deed::AddSnapshot,
    ];
    let (mut sweep, start) = (Sweep::default(), Instant::now());
    // In a pod hooks do not start without them.
    for (hooks, standing) in [(true, Standing::ByHand), (false, Standing::ByHand), (false, Standing::Unguarded)] {
        let case = Case { standing, ..Case::of(hooks) };
        let undisturbed = judge(&case);
        assert!(undisturbed.bad.is_empty(), "{standing:?}: {:?}\n{}", undisturbed.bad, undisturbed.log.join("\n"));
        for k in 0..undisturbed.writes {
            for deed in FORGED {
                sweep.go(format!("{standing:?}, hooks {hooks}: {deed:?} before write {k}"), &case.deed(k, deed));
            }
        }
    }
    sweep.end("forged deeds without policies", 250, start);
}

/// An object is deleted and its hooks are replaced, and the process dies or loses its lock then or later: what thaws is
/// what was frozen, and nothing is frozen anew.
#[test]
fn what_thaws_is_what_was_frozen_whatever_the_object_says_by_then() {
    let (mut sweep, start) = (Sweep::default(), Instant::now());
    let case = Case::of(true);
    let writes = judge(&case).writes;
    for k in 0..writes {
        for j in k..(k + 8).min(writes) {
            let usurped = case.deed(k, Deed::Usurp);
            for (name, strike) in [("DieBefore", Strike::DieBefore), ("DieAfter", Strike::DieAfter)] {
                sweep.go(format!("usurped at {k}, {name} {j}"), &usurped.strike(Class::Write, j, &strike));
            }
            if j > k {
                sweep.go(format!("usurped at {k}, lock lost at {j}"), &usurped.deed(j, Deed::StealLease));
            }
        }
    }
    sweep.end("usurped objects", 200, start);
}

/// Hooks and cuts that take so long that the Lease is renewed between them.
#[test]
fn every_renewal_is_struck_by_everything() {
    let (mut sweep, start) = (Sweep::default(), Instant::now());
    let case = Case { slow: true, ..Case::of(true) };
    let seen = judge(&case);
    assert!(seen.bad.is_empty() && seen.renewals >= 3, "{:?}, {} renewals", seen.bad, seen.renewals);
    for k in 0..seen.renewals {
        for (name, strike) in strikes().into_iter().filter(|(name, _)| *name != "Straggle") {
            sweep.go(format!("slow Renewal {k} {name}"), &case.strike(Class::Renewal, k, &strike));
        }
    }
    for k in 0..seen.writes {
        sweep.go(format!("slow Sigterm {k} -"), &case.sigterm(k));
    }
    sweep.end("renewals struck", 30, start);
}

/// A snapshot is replaced by a namesake right before it would be deleted.
fn namesakes(blind: bool) -> (usize, usize) {
    let undisturbed = judge(&Case::of(false)).writes;
    let (mut cases, mut red) = (0, 0);
    for k in 0..undisturbed {
        for j in k + 1..k + 9 {
            let case = Case { blind, ..Case::of(false) };
            let case = case.strike(Class::Write, k, &Strike::DieAfter).deed(j, Deed::ReplaceSnapshot);
            let bad = judge(&case).bad;
            cases += 1;
            red += usize::from(!bad.is_empty());
            assert!(blind || bad.is_empty(), "death at {k}, namesake at {j}: {bad:?}");
        }
    }
    (cases, red)
}

#[test]
fn a_namesake_is_never_deleted() {
    let (cases, _) = namesakes(false);
    println!("{cases} namesakes");
    let (_, red) = namesakes(true);
    println!("{red} red cases without the precondition");
    assert!(cases > 50 && red > 0, "no case sees a deletion without its precondition");
}

#[test]
fn one_wire_case() {
    let Ok(text) = std::env::var("SSB_WIRE") else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [word, class, k, name] = words[..] else { panic!("four words are wanted") };
    let (k, case) = (k.parse().unwrap(), Case { slow: word == "slow", ..Case::of(word != "plain") });
    let strike = || strikes().into_iter().find(|(known, _)| *known == name).unwrap().1;
    let case = match class {
        "Deed" => case.deed(k, DEEDS.into_iter().find(|deed| format!("{deed:?}") == name).unwrap()),
        "Sigterm" => case.sigterm(k),
        "Write" => case.strike(Class::Write, k, &strike()),
        "Read" => case.strike(Class::Read, k, &strike()),
        "Watch" => case.strike(Class::Watch, k, &strike()),
        _ => case.strike(Class::Renewal, k, &strike()),
    };
    let verdict = judge(&case);
    println!("{}\n{:?}", verdict.log.join("\n"), verdict.bad);
}
