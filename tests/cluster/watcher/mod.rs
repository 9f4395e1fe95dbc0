//! The watcher as it is installed: a Deployment under the generated roles, whose Jobs run the image that is shipped.

mod beside;
mod burst;
mod chart;
mod lead;
mod lost;
mod pages;
mod scale;
mod story;
mod upgrade;
