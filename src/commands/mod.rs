//! One module a group of commands: arguments in, calls to the rooms, results out.

pub mod build;
pub mod client;
pub mod image;
pub mod recipe;
pub mod remote;
