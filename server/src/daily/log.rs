//! A log of bounded size: its beginning and its end.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes kept of the beginning.
const HEAD: usize = 2 << 20;
/// Bytes kept of the end.
const TAIL: usize = 512 << 10;

/// A log that is being written. Its beginning can be read at once.
pub(super) struct Log {
    file: File,
    written: usize,
    left_out: u64,
    tail: VecDeque<u8>,
}

impl Log {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        Ok(Self { file: File::create(path)?, written: 0, left_out: 0, tail: VecDeque::new() })
    }

    /// Appends what another file has.
    pub(super) fn append(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => self.write_all(&buffer[..count])?,
            }
        }
    }

    /// Writes the end, and all of it to disk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.left_out > 0 {
            write!(self.file, "\n[{} bytes left out]\n", self.left_out)?;
        }
        let (front, back) = self.tail.as_slices();
        self.file.write_all(front)?;
        self.file.write_all(back)?;
        self.file.sync_all()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(HEAD - self.written);
        self.file.write_all(&bytes[..count])?;
        self.written += count;
        self.tail.extend(&bytes[count..]);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
        self.left_out += over as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("logs/a.log"), dir.path().join("other"));
        fs::write(&other, "the end").unwrap();
        let mut log = Log::create(&path).unwrap();
        log.write_all(b"the beginning").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"the beginning");
        for _ in 0..100 {
            log.write_all(&vec![b'x'; 100_000]).unwrap();
        }
        log.append(&other).unwrap();
        log.finish().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("the beginningx") && text.ends_with("xthe end"));
        assert!(text.contains(&format!("[{} bytes left out]", 10_000_020 - HEAD - TAIL)));
        assert!(text.len() < HEAD + TAIL + 100);
    }
}
