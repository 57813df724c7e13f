//! One module a group of commands: arguments in, calls to the rooms, results out.

pub mod build;
pub mod client;
pub mod completion;
pub mod daily;
pub mod image;
pub mod instance;
pub mod key;
pub mod lxc_template;
pub mod manifest;
pub mod mirror;
pub mod network;
pub mod pack;
pub mod push;
pub mod recipe;
pub mod remote;
pub mod serve;
pub mod settings;
pub mod shared;
pub mod store;
pub mod stream;
pub mod token;
pub mod up;
pub mod upstream;
