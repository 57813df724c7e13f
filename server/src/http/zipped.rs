//! Documents as gzip members, kept for the next who asks: most clients take no other form.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::bytes::Bytes;

use super::body;
use super::site::{Opened, Wait};

/// Larger documents are compressed anew for every client, while they are sent.
const LARGEST: u64 = 8 << 20;
/// Bytes kept, all together.
const MOST: usize = 16 << 20;

/// What was compressed, by entity tags of files; the latest used is last.
#[derive(Default)]
pub(super) struct Zipped {
    kept: Mutex<VecDeque<(String, Bytes)>>,
    /// Held while one is made, so that of many who want it only one works.
    making: Mutex<()>,
}

impl Zipped {
    /// Whether this file is one for here.
    pub(super) fn takes(opened: &Opened) -> bool {
        opened.size <= LARGEST
    }

    /// The file as a gzip member.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it is not here and one may not wait; else what reading met.
    pub(super) fn of(&self, opened: &Opened, wait: Wait) -> io::Result<Bytes> {
        let etag = &opened.validators.etag;
        if let Some(bytes) = self.find(etag) {
            return Ok(bytes);
        }
        if wait == Wait::Never {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = self.find(etag) {
            return Ok(bytes);
        }
        let bytes = body::zip(&body::read(&opened.file, &(0..opened.size), wait)?)?;
        self.keep(etag, &bytes);
        Ok(bytes)
    }

    fn find(&self, etag: &str) -> Option<Bytes> {
        let mut kept = self.kept();
        let at = kept.iter().rposition(|(known, _)| known == etag)?;
        let found = kept.remove(at)?;
        let bytes = found.1.clone();
        kept.push_back(found);
        Some(bytes)
    }

    fn keep(&self, etag: &str, bytes: &Bytes) {
        let mut kept = self.kept();
        kept.push_back((etag.to_owned(), bytes.clone()));
        let mut total: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        while total > MOST {
            total -= kept.pop_front().map_or(total, |(_, bytes)| bytes.len());
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(String, Bytes)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_used_leave_first_and_the_sum_is_bounded() {
        let zipped = Zipped::default();
        let third = Bytes::from(vec![0; MOST / 3]);
        for name in ["a", "b", "c"] {
            zipped.keep(name, &third);
        }
        assert!(zipped.find("a").is_some());
        zipped.keep("d", &third);
        assert!(zipped.find("b").is_none(), "the longest unused");
        assert!(["a", "c", "d"].iter().all(|name| zipped.find(name).is_some()));
        zipped.keep("e", &Bytes::from(vec![0; MOST + 1]));
        assert!(zipped.kept().is_empty(), "more than is kept at all");
    }
}
