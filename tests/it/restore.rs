//! What is proven of a restore, its undo and its release in a world in memory of their own.

mod after;
mod broken;
mod mutants;
mod process;
mod sweep;
mod two;
mod verdict;
mod world;
