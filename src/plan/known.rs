//! Things of the cluster as everybody here sees them: each is decoded once, and judged once.

pub mod content;
pub mod run;
pub mod snapshot;

pub use content::{Content, SnapshotClass};
pub use run::{Owner, Record, Run, State, runs};
pub use snapshot::{Maker, Snapshot, Snapshots};
