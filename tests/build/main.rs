//! `millstream build` as its users meet it. Needs root, and Debian's own tools for comparison.

mod bench;
mod cache;
mod debian;
mod faults;
mod mirror;
mod recipes;
mod reproducible;
mod tampering;
mod unprivileged;
