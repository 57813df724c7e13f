//! One module a group of commands.

pub mod build;
pub mod recipe;
