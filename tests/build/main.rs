//! `millstream build` as its users meet it. Needs root, and Debian's own tools for comparison.

mod bench;
mod boot;
mod cache;
mod cloud_init;
mod daily;
mod debian;
mod emulation;
mod faults;
mod formats;
mod host_files;
mod inits;
mod kin;
mod managers;
mod mirror;
mod recipes;
mod reproducible;
mod sources;
mod tampering;
mod tree;
mod unprivileged;
