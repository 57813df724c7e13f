//! Where a shared stream is kept: one small trait, a directory and a bucket behind it.
//!
//! Nothing here knows what a stream is. Keys are paths with `/`, relative, without dots at their
//! beginning. What is written appears whole or not at all.

mod address;
mod bucket;
mod directory;
mod flag;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio_util::bytes::Bytes;
use url::Url;

use crate::Result;

pub use address::{Address, Credentials};
pub use bucket::Bucket;
pub use directory::Directory;
pub use flag::{Exclusion, replace};

/// An answer that takes a while.
pub type Answer<'a, T> = BoxFuture<'a, Result<T>>;

/// The contents of one object, piece by piece.
pub type Pieces = BoxStream<'static, Result<Bytes>>;

/// Names one state of an object; only ever compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub(crate) String);

/// What must be true for an object to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no such object.
    New,
    /// The object is in this state.
    Same(Tag),
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, by the clock of the storage.
    pub modified: SystemTime,
}

/// A place for objects that many machines can reach.
pub trait Storage: fmt::Debug + Send + Sync {
    /// What people call it.
    fn name(&self) -> String;

    /// A whole object of at most `limit` bytes, and its state; `None` when there is none.
    fn read<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<(Bytes, Tag)>>;

    /// A part of an object, of which the caller knows that it is there.
    fn stream<'a>(&'a self, key: &'a str, part: Range<u64>) -> Answer<'a, Pieces>;

    /// Writes a whole object; false when the condition did not hold and nothing was written.
    fn write<'a>(&'a self, key: &'a str, bytes: Bytes, condition: Condition) -> Answer<'a, bool>;

    /// Writes an object of any size from a file.
    fn send<'a>(&'a self, key: &'a str, file: &'a Path) -> Answer<'a, ()>;

    /// All objects whose key begins with the directory `prefix`; all of them when it is empty.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Stored>>;

    /// Removes an object, or nothing.
    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()>;

    /// An address at which anybody can read the object for so long; `None` where there is no such thing.
    fn link<'a>(&'a self, key: &'a str, valid: Duration) -> Answer<'a, Option<Url>>;
}
