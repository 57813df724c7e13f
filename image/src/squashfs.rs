//! What a squashfs file says of itself: enough to tell a whole one from a broken one.
//!
//! Source of the format: the kernel's `fs/squashfs/squashfs_fs.h`, version 4.0.

use std::io::Read;

use crate::{Error, Result};

const WHAT: &str = "squashfs";
const MAGIC: u32 = 0x7371_7368;
const SUPERBLOCK: usize = 96;

/// The superblock's facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Files, directories and everything else.
    pub inodes: u32,
    /// When it was made, seconds since 1970.
    pub made: u32,
    /// Bytes of a data block.
    pub block_size: u32,
    /// Number of the compression: 1 gzip, 4 xz, 6 zstd.
    pub compression: u16,
    /// Bytes in use; the file is padded to whole pages.
    pub bytes_used: u64,
}

impl Superblock {
    /// Reads the start of a file that has `size` bytes.
    ///
    /// # Errors
    /// When it is no squashfs of version 4.0, or less of one than it says.
    pub fn read(mut file: impl Read, size: u64) -> Result<Self> {
        let mut block = [0; SUPERBLOCK];
        file.read_exact(&mut block).map_err(|e| Error::document(WHAT, e))?;
        let number = |at: usize, width: usize| {
            block[at..at + width].iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        if number(0, 4) != u64::from(MAGIC) {
            return Err(Error::document(WHAT, "it does not begin as a squashfs does"));
        }
        let (major, minor) = (number(28, 2), number(30, 2));
        if (major, minor) != (4, 0) {
            return Err(Error::document(WHAT, format!("version {major}.{minor} is not 4.0")));
        }
        let superblock = Self {
            inodes: number(4, 4) as u32,
            made: number(8, 4) as u32,
            block_size: number(12, 4) as u32,
            compression: number(20, 2) as u16,
            bytes_used: number(40, 8),
        };
        if superblock.bytes_used > size {
            let reason = format!("it has {size} bytes and says it uses {}", superblock.bytes_used);
            return Err(Error::document(WHAT, reason));
        }
        if 1_u64.checked_shl(number(22, 2) as u32) != Some(superblock.block_size.into()) {
            return Err(Error::document(WHAT, "its block sizes contradict each other"));
        }
        Ok(superblock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut block = vec![0; 4096];
        for (at, bytes) in [
            (0, &b"hsqs"[..]),
            (4, &7_u32.to_le_bytes()),
            (8, &1_782_864_000_u32.to_le_bytes()),
            (12, &(1_u32 << 20).to_le_bytes()),
            (20, &4_u16.to_le_bytes()),
            (22, &20_u16.to_le_bytes()),
            (28, &4_u16.to_le_bytes()),
            (40, &4000_u64.to_le_bytes()),
        ] {
            block[at..at + bytes.len()].copy_from_slice(bytes);
        }
        block
    }

    #[test]
    fn a_whole_one_is_read() {
        let found = Superblock::read(&sample()[..], 4096).unwrap();
        let expected = Superblock {
            inodes: 7,
            made: 1_782_864_000,
            block_size: 1 << 20,
            compression: 4,
            bytes_used: 4000,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn others_and_parts_of_one_are_refused() {
        assert!(Superblock::read(&sample()[..], 3999).is_err(), "cut off");
        assert!(Superblock::read(&sample()[..90], 90).is_err(), "shorter than a superblock");
        for (at, byte) in [(0, b'x'), (28, 3), (22, 19), (12, 1)] {
            let mut broken = sample();
            broken[at] = byte;
            assert!(Superblock::read(&broken[..], 4096).is_err(), "byte {at}");
        }
        assert!(Superblock::read(&[0; 4096][..], 4096).is_err());
    }
}
