//! What is proven of a restore, its undo and its release in a world in memory of their own.

mod advice;
mod after;
mod broken;
mod denied;
pub mod double;
mod end;
mod forged;
mod late;
mod meanwhile;
mod mutants;
mod namesake;
mod peers;
pub mod process;
pub mod sweep;
mod two;
mod verdict;
mod waits;
pub mod world;
mod worst;
