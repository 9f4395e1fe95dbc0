//! What can be proven without a cluster: the flows against a world in memory, on a virtual clock, and what a question costs.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions; these are their helpers")]

mod absurd;
mod act;
mod apiserver;
mod away;
mod broken;
mod conformance;
mod draw;
mod forged;
mod freezes;
mod guard;
mod hostile;
mod jobs;
mod large;
mod life;
mod lift;
mod meet;
mod nature;
mod order;
mod proxy;
mod red;
mod restore;
mod retention;
mod schedule;
mod script;
mod shop;
mod singles;
mod stock;
mod storage;
mod sweep;
mod truth;
mod two;
mod watcher;
mod wire;
mod world;
