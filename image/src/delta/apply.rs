//! From a base and a delta to the new archive.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use super::format::{Header, SectionReader, Step, StepReader};
use super::{Limits, bad, patch};
use crate::digest::HashingWriter;
use crate::{Error, Result};

const CHUNK: usize = 128 << 10;

/// Writes the archive that `delta` makes of `base`, both uncompressed, to `out`. Memory is bounded
/// by [`Limits::patch`] whatever the delta says.
///
/// # Errors
/// [`Error::Archive`] when the delta is damaged, [`Error::Mismatch`] when the result is not what it
/// states, as with another base. What was written until then is to be thrown away.
pub fn apply<B: Read + Seek, D: Read + Seek, W: Write>(
    base: &mut B,
    mut delta: D,
    out: W,
    limits: &Limits,
) -> Result<Header> {
    delta.seek(SeekFrom::Start(0)).map_err(Error::io("delta"))?;
    let header = Header::read(&mut delta, limits)?;
    let delta = Arc::new(Mutex::new(delta));
    let mut out = HashingWriter::new(out);
    let mut differences = SectionReader::open(&delta, &header, 1)?;
    let mut literals = SectionReader::open(&delta, &header, 2)?;
    let mut steps = StepReader::new(SectionReader::open(&delta, &header, 0)?, header, limits);
    let mut buffer = vec![0; CHUNK];
    while let Some((step, rest)) = steps.next()? {
        steps = rest;
        match step {
            Step::Copy { base: start, length } => {
                base.seek(SeekFrom::Start(start)).map_err(Error::io("base"))?;
                in_chunks(length, &mut buffer, &mut out, |part| {
                    base.read_exact(part).map_err(|_| bad("the base is shorter than it states"))
                })?;
            }
            Step::Insert { length } => {
                in_chunks(length, &mut buffer, &mut out, |part| literals.fill(part))?;
            }
            Step::Patch { base: start, base_length, foretell, pieces, .. } => {
                base.seek(SeekFrom::Start(start)).map_err(Error::io("base"))?;
                let mut old = Vec::new();
                base.by_ref().take(base_length).read_to_end(&mut old).map_err(Error::io("base"))?;
                if old.len() as u64 != base_length {
                    return Err(bad("the base is shorter than it states"));
                }
                let new = patch::apply(
                    &old,
                    &pieces,
                    foretell,
                    |part| differences.fill(part),
                    |part| literals.fill(part),
                )?;
                out.write_all(&new).map_err(Error::io("result"))?;
            }
        }
    }
    differences.end()?;
    literals.end()?;
    let (mut out, sha256, _) = out.finish();
    out.flush().map_err(Error::io("result"))?;
    if sha256 != header.result.sha256 {
        return Err(Error::Mismatch {
            what: "result of the delta".into(),
            reason: format!(
                "its SHA-256 is {sha256}, not {}: the base is another one, or the delta is damaged",
                header.result.sha256
            ),
        });
    }
    Ok(header)
}

fn in_chunks(
    mut left: u64,
    buffer: &mut [u8],
    out: &mut impl Write,
    mut fill: impl FnMut(&mut [u8]) -> Result<()>,
) -> Result<()> {
    while left > 0 {
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        fill(&mut buffer[..count])?;
        out.write_all(&buffer[..count]).map_err(Error::io("result"))?;
        left -= count as u64;
    }
    Ok(())
}
