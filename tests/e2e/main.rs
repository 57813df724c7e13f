//! Real clients against the real program, from a recipe to a running container.
//!
//! Needs root and what `cargo xtask test` installs; nothing is passed over when it is missing.

#[path = "../support/mod.rs"]
mod support;

mod comfort;
mod images;
mod import;
mod instances;
mod lxc;
mod lxc_template;
mod lxd;
mod mirror;
mod newcomer;
mod run;
mod service;
mod settings;
mod signatures;
mod signing;
mod simplestreams;
mod static_host;
mod units;
mod usage;
mod users;
