//! What is proven of a restore, its undo and its release in a world in memory of their own.

mod after;
mod broken;
pub mod double;
mod end;
mod forged;
mod mutants;
mod namesake;
pub mod process;
pub mod sweep;
mod two;
mod verdict;
pub mod world;
