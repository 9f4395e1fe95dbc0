//! Orders in which two processes make their first writes.

use std::collections::VecDeque;

/// Writes of each process whose order is chosen.
const FIRST: u32 = 8;

/// Every order: a bit for each write, set for those of the second process.
pub fn all() -> impl Iterator<Item = u32> {
    (0..1_u32 << (2 * FIRST)).filter(|order| order.count_ones() == FIRST)
}

/// Whose turn it is, write by write: false is the first.
pub fn turns(order: u32) -> VecDeque<bool> {
    (0..2 * FIRST).map(|bit| order >> bit & 1 == 1).collect()
}
