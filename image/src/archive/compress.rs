//! The compressor of an archive that is packed.

use std::io::{self, Write};

use super::xz::{Blocks, XzWriter};
use super::{Compression, PackOptions};

/// One of those there are.
pub(super) enum Compressor<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
    Xz(XzWriter<W>),
    /// A zstd encoder that could not be made; told at the first write.
    Failed(io::Error),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(out: W, options: &PackOptions) -> Self {
        let level = options.xz.level;
        match options.compression {
            Compression::None => Self::None(out),
            // GzBuilder's defaults leave name and time out of the header.
            Compression::Gzip => {
                Self::Gzip(flate2::GzBuilder::new().write(out, flate2::Compression::new(level.min(9))))
            }
            Compression::Zstd => match zstd::Encoder::new(out, level as i32) {
                Ok(encoder) => Self::Zstd(encoder),
                Err(error) => Self::Failed(error),
            },
            Compression::Xz => {
                let cache = options.block_cache.as_ref();
                Self::Xz(XzWriter::new(out, options.xz, options.watch.clone(), cache))
            }
        }
    }

    /// Ends a block, where there are blocks; `code` says whether machine code comes next.
    pub(super) fn end_block(&mut self, code: bool) -> io::Result<()> {
        if let Self::Xz(xz) = self { xz.end_block(code) } else { Ok(()) }
    }

    pub(super) fn finish(self) -> io::Result<(W, Blocks)> {
        let out = match self {
            Self::None(out) => out,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Xz(xz) => return xz.finish(),
            Self::Failed(error) => return Err(error),
        };
        Ok((out, Blocks::default()))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(data),
            Self::Gzip(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
            Self::Xz(xz) => xz.write(data),
            Self::Failed(error) => Err(io::Error::other(error.to_string())),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
