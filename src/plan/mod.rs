//! What to do, and nothing that does it: no clock, no client, no randomness in here. `now` is an argument.

pub mod backup;
pub mod catalog;
pub mod choose;
pub mod flow;
pub mod freeze;
pub mod guard;
pub mod hook;
pub mod inherit;
pub mod invariant;
pub mod job;
pub mod journal;
pub mod launch;
pub mod name;
pub mod noun;
pub mod patience;
pub mod preflight;
pub mod prune;
pub mod quantity;
pub mod report;
pub mod resolve;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod stock;
pub mod topology;
pub mod view;
