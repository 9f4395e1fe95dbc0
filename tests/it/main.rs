//! What can be proven without a cluster: the flows against a world in memory, on a virtual clock.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions; these are their helpers")]

mod retention;
mod stock;
mod sweep;
mod world;
