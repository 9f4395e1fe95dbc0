//! The watcher as it is installed: a Deployment under the generated roles, whose Jobs run the image that is shipped.

mod alerts;
mod beside;
mod burst;
mod chart;
mod lead;
mod leave;
mod lost;
mod pages;
mod scale;
mod silence;
pub mod story;
mod upgrade;

/// Whoever floods the API server has it alone; those that watch what happens by the minute share it.
static LOAD: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
