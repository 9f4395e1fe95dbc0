//! What can be proven without a cluster: the flows against a world in memory, on a virtual clock.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions; these are their helpers")]

mod restore_process;
mod restore_sweep;
mod restore_world;
mod sweep;
mod world;
