//! What is proven of a restore, its undo and its release in a world in memory of their own.

mod broken;
mod process;
mod sweep;
mod two;
mod world;
