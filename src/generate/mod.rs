//! Text that is generated from the types.
//!
//! Role: strings only. What is committed under `manifests/` is compared with it by a test.

mod crds;
pub mod install;
mod policies;
pub mod rbac;

pub use crds::{crds, definitions};
pub use install::install;
pub use policies::policies;
pub use rbac::rbac;
