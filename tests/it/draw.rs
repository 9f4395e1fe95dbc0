//! Which cases of a sweep that is too big are run: drawn by lot, with a seed that is printed.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// By how much the few are fewer than those of a short sweep.
const FEW: u64 = 16;

/// Whether all cases are run that can be run in minutes.
pub fn is_whole() -> bool {
    std::env::var("SSB_SWEEP").is_ok_and(|tier| tier == "all" || tier == "every")
}

/// The lot of one sweep.
#[derive(Debug)]
pub struct Draw {
    /// Of so many cases one is run.
    one_in: u64,
    seed: u64,
    state: u64,
    cases: usize,
    all: usize,
    few: bool,
}

impl Draw {
    /// Of `short` cases one is run, with `SSB_SWEEP=all` of `long` cases, with `SSB_SWEEP=every` each; with
    /// `SSB_SWEEP=few` so few that a mutant of the code is judged in seconds.
    pub fn new(short: u64, long: u64) -> Draw {
        match std::env::var("SSB_SWEEP").as_deref() {
            Ok("every") => Draw::one_in(1),
            Ok("all") => Draw::one_in(long),
            Ok("few") => Draw { few: true, ..Draw::one_in(short * FEW) },
            Ok(other) => panic!("SSB_SWEEP={other} is none of few, all, every"),
            Err(_) => Draw::one_in(short),
        }
    }

    /// In a short sweep always the same cases, as long as nobody gives a seed: of a sweep that is not clean yet as a whole.
    pub fn steady(short: u64, long: u64, seed: u64) -> Draw {
        let draw = Draw::new(short, long);
        let free = std::env::var_os("SSB_SWEEP").is_some() || std::env::var_os("SSB_SEED").is_some();
        if free { draw } else { Draw { seed, state: seed, ..draw } }
    }

    /// A fresh seed each time; `SSB_SEED` repeats one.
    pub fn one_in(one_in: u64) -> Draw {
        let given = std::env::var("SSB_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        let seed = given.unwrap_or_else(|| u64::from(clock()));
        Draw { one_in, seed, state: seed, cases: 0, all: 0, few: false }
    }

    /// Counts a case, and says whether it is run; the sequence is splitmix64's.
    pub fn take(&mut self) -> bool {
        self.take_or(false)
    }

    /// The same, but one that is `wanted` is always run, save by `SSB_SWEEP=few`.
    pub fn take_or(&mut self, wanted: bool) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = (mixed ^ mixed >> 31).is_multiple_of(self.one_in) || wanted && !self.few;
        self.all += 1;
        self.cases += usize::from(drawn);
        drawn
    }

    pub fn all(&self) -> usize {
        self.all
    }

    pub fn cases(&self) -> usize {
        self.cases
    }
}

/// How many were run of how many, and how to repeat that or to run them all.
impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Draw { seed, cases, all, .. } = self;
        match self.one_in {
            1 => write!(f, "{cases} of {all}"),
            _ => write!(f, "{cases} of {all} (drawn with SSB_SEED={seed}; all of them with SSB_SWEEP=every)"),
        }
    }
}

#[test]
fn a_seed_draws_the_same_cases_and_about_as_many_as_it_should() {
    let draw = |seed| Draw { one_in: 7, seed, state: seed, cases: 0, all: 0, few: false };
    let drawn = |mut draw: Draw| (0..7000).filter(|_| draw.take()).collect::<Vec<_>>();
    let (one, again, other) = (drawn(draw(1)), drawn(draw(1)), drawn(draw(2)));
    assert!(one == again && one != other, "the seed decides");
    assert!((850..1150).contains(&one.len()), "{}", one.len());
}
