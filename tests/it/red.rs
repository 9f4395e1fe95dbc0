//! The red cases of a sweep in lines: how many of each kind, and the shortest that shows it.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

/// Blows, and what was wrong after them.
pub type Red<B, W> = Vec<(Box<[B]>, Vec<W>)>;

pub fn print<B: Debug, W: Display + Ord>(red: &Red<B, W>) {
    let mut kinds: BTreeMap<&W, (usize, &[B])> = BTreeMap::new();
    for (blows, why) in red {
        for why in why {
            let kind = kinds.entry(why).or_insert((0, blows));
            kind.0 += 1;
            kind.1 = if blows.len() < kind.1.len() { blows } else { kind.1 };
        }
    }
    for (why, (count, least)) in kinds {
        println!("  {count:>5} {why}, as in {least:?}");
    }
}

/// The blows of a line like `[(3, DieAfter), (7, LostBefore)]`.
pub fn blows<B: Copy + Debug>(text: &str, all: &[B]) -> Vec<(usize, B)> {
    let blow = |word: &str| all.iter().copied().find(|blow| format!("{blow:?}") == word).unwrap();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.chunks(2).map(|pair| (pair[0].parse().unwrap(), blow(pair[1]))).collect()
}
