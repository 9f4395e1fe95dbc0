//! Restore on a real cluster: what is put back is one run, whole; nothing is destroyed before it is proven; every
//! restore can be undone; and whatever fails, the application runs on, or stands where the object says.

mod beside;
mod failing;
mod fence;
mod generations;
mod killed;
mod leaving;
mod lost;
mod refused;

use crate::harness::driver::SIM;
use crate::harness::make::App;

/// Two replicas with two volumes each.
pub const WEB: App = App { name: "web", replicas: 2, start: 0, templates: &[("a", SIM.class), ("b", SIM.class)] };
