//! Real clients against the real program, from a recipe to a running container.
//!
//! Needs root and what `cargo xtask test` installs; nothing is passed over when it is missing.

#[path = "../support/mod.rs"]
mod support;

mod comfort;
mod console;
mod disk_remote;
mod hosting;
mod images;
mod import;
mod incus;
mod instances;
mod listing;
mod lxc;
mod lxc_template;
mod lxd;
mod lxd_remote;
mod mirror;
mod newcomer;
mod push;
mod registry_remote;
mod run;
mod service;
mod settings;
mod shared;
mod signatures;
mod signing;
mod simplestreams;
mod static_host;
mod store;
mod units;
mod usage;
mod users;
