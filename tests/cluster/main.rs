//! Tests on a real cluster, the one that `SSB_TEST_KUBECONFIG` names; without it each says "skipped" and passes.
//!
//! The embedded cluster is reached only from inside its network, so `tests/run` runs this program by
//! `tests/cluster/cluster enter`. The long tier (`SSB_TIER=long`) is what would make `just test` slow.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api;
mod backup;
mod conformance;
mod cover;
mod cut;
mod fault;
mod harness;
mod hooks;
mod kill;
mod lock;
mod partition;
mod pod;
mod policy;
mod postgres;
mod refusal;
mod restore;
mod retention;
mod rights;
mod schedule;
mod show;
mod situations;
mod soak;
mod watcher;
