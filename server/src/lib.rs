//! Stream trees and the HTTPS service that serves them.
//!
//! [`stream`] keeps a tree of signed images that any static web server can serve; [`keys`] holds
//! the keys that sign it; [`mirror`] fills it from another server,
//! [`pull`] image by image as clients ask, [`push`] from builders elsewhere; [`http`] serves it, with a
//! certificate from [`tls`], under [`systemd`] or without, and [`hosting`] has other web servers do so;
//! [`shared`] keeps a stream in a [`storage`] that many publishers and servers reach;
//! [`config`] is what an operator writes down, and [`schedule`] does it at
//! its times: [`daily`] builds.

pub mod config;
pub mod daily;
mod error;
pub mod hosting;
pub mod http;
pub mod keys;
pub mod mirror;
pub mod pull;
pub mod push;
pub mod schedule;
pub mod shared;
pub mod storage;
pub mod stream;
pub mod systemd;
pub mod tls;
pub mod token;

pub use error::{Error, Result};
