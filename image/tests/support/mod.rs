//! What tests of archives share.

pub mod listing;
