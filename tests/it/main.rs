//! What can be proven without a cluster: the flows against a world in memory, on a virtual clock.

mod sweep;
mod world;
