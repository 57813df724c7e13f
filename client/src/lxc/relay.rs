//! A root file system on its way from the process that fetches it to the one that unpacks it, which runs as
//! another user: chunks, each after its length, and then what came of it.
//!
//! The end is told only when the sender has met the end of what it reads, which is when every hash has
//! proved right.

use std::io::{self, Read, Write};

/// Bytes of a chunk at most.
const CHUNK: usize = 256 << 10;
/// In place of a length: nothing more comes, and it was right.
const END: u32 = 0;
/// In place of a length: nothing more comes, and what came counts for nothing.
const GIVEN_UP: u32 = u32::MAX;

/// Sends all that `from` has. That it fails is told to the other end.
///
/// # Errors
/// When nobody takes it.
pub fn send(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let (mark, chunk) = match from.read(&mut buffer) {
            Ok(0) => (END, &[][..]),
            Ok(count) => (u32::try_from(count).map_err(io::Error::other)?, &buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => (GIVEN_UP, &[][..]),
        };
        to.write_all(&mark.to_be_bytes())?;
        to.write_all(chunk)?;
        if matches!(mark, END | GIVEN_UP) {
            return to.flush();
        }
    }
}

/// Says that nothing comes this way.
///
/// # Errors
/// When nobody takes it.
pub fn send_nothing(mut to: impl Write) -> io::Result<()> {
    to.write_all(&GIVEN_UP.to_be_bytes())?;
    to.flush()
}

/// Reads what [`send`] sends; [`Relayed::rest`] gives what comes after it.
#[derive(Debug)]
pub struct Relayed<R> {
    from: R,
    /// Of the chunk that is being read.
    left: usize,
    end: Option<u32>,
}

impl<R: Read> Relayed<R> {
    /// Reads from the beginning.
    pub fn new(from: R) -> Self {
        Self { from, left: 0, end: None }
    }

    /// Passes over what was not read, and reads the rest, of at most `cap` bytes.
    ///
    /// # Errors
    /// When the sender went away in the middle.
    pub fn rest(mut self, cap: u64) -> io::Result<Vec<u8>> {
        while self.end.is_none() {
            let left = self.left as u64;
            if io::copy(&mut self.from.by_ref().take(left), &mut io::sink())? < left {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.left = 0;
            self.mark()?;
        }
        let mut rest = Vec::new();
        self.from.take(cap).read_to_end(&mut rest)?;
        Ok(rest)
    }

    fn mark(&mut self) -> io::Result<()> {
        let mut mark = [0; 4];
        self.from.read_exact(&mut mark)?;
        match u32::from_be_bytes(mark) {
            end @ (END | GIVEN_UP) => self.end = Some(end),
            count if count as usize <= CHUNK => self.left = count as usize,
            _ => return Err(io::Error::other("the process that fetches sent what it never sends")),
        }
        Ok(())
    }
}

impl<R: Read> Read for Relayed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            match self.end {
                Some(END) => return Ok(0),
                Some(_) => return Err(io::Error::other("the download failed")),
                None => self.mark()?,
            }
        }
        let most = buffer.len().min(self.left);
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails after its bytes.
    struct Broken<'a>(&'a [u8]);

    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::other("x")) } else { self.0.read(buffer) }
        }
    }

    #[test]
    fn the_end_is_met_only_when_it_was_right() {
        let data = vec![7; CHUNK * 2 + 5];
        let mut wire = Vec::new();
        send(data.as_slice(), &mut wire).unwrap();
        wire.extend_from_slice(b"{}");
        let mut relayed = Relayed::new(wire.as_slice());
        let mut read = Vec::new();
        relayed.read_to_end(&mut read).unwrap();
        assert!(read == data);
        assert_eq!(relayed.rest(9).unwrap(), b"{}");
        // Nobody read it.
        assert_eq!(Relayed::new(wire.as_slice()).rest(9).unwrap(), b"{}");
        // Cut off anywhere.
        for cut in [0, 3, 4, 99, wire.len() - 7] {
            assert!(Relayed::new(&wire[..cut]).read_to_end(&mut Vec::new()).is_err(), "{cut}");
            assert!(Relayed::new(&wire[..cut]).rest(9).is_err(), "{cut}");
        }
        // Failed, or never begun.
        for begin in [true, false] {
            let mut wire = Vec::new();
            if begin { send(Broken(b"abc"), &mut wire) } else { send_nothing(&mut wire) }.unwrap();
            wire.extend_from_slice(b"[]");
            let mut relayed = Relayed::new(wire.as_slice());
            assert!(relayed.read_to_end(&mut Vec::new()).is_err());
            assert_eq!(relayed.rest(9).unwrap(), b"[]");
        }
    }
}
