//! How the new archive was compressed, so that whoever applies a delta can make the very bytes of
//! its `.tar.xz` again: blocks the base has are copied as they are, others compressed anew.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use super::container::{Block, Check, Coder, Container, Form, STORED, examine, stream_header, trailer};
use super::format::{Header, SectionReader, StepWriter};
use super::{Limits, bad};
use crate::digest::HashingWriter;
use crate::{Error, Result, Sha256Digest};

/// The largest header of a block, and the beginning of its data.
const BLOCK_START: usize = 1024 + 6;
/// Compressed bytes by which a coder is recognised.
const SAMPLE: usize = 96 << 10;
/// Blocks by which a coder is recognised.
const SAMPLES: usize = 3;
/// Blocks of a file.
const MAX_BLOCKS: u64 = 1 << 18;
/// Uncompressed bytes of a block that is compressed again, since its compressed bytes are held in
/// memory.
const MAX_BLOCK: u64 = 256 << 20;
/// Coders one file may use.
const MAX_CODERS: u64 = 64;

/// Where a block comes from.
#[derive(Clone, Copy)]
enum Source {
    /// A block of the base.
    Base(Block),
    /// Data of the new archive.
    Data { offset: u64, size: u64, coder: Coder, form: Form },
}

/// Describes how `new` is made of `base` and of its own uncompressed form `tar`; `None` when its
/// bytes cannot be made again by the coder at hand.
pub(super) fn describe(
    base: &File,
    new: &File,
    tar: &File,
    watch: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Option<Vec<u8>>> {
    let few = |container: &Container| container.blocks.len() as u64 <= MAX_BLOCKS;
    let Some(container) = Container::read(new)?.filter(few) else { return Ok(None) };
    let Some(check) = Check::new(container.flags).map(|check| check.size()) else { return Ok(None) };
    let mut known = HashMap::new();
    let of_base = Container::read(base)?.filter(|of_base| of_base.flags == container.flags);
    for (number, block) in of_base.iter().flat_map(|of_base| of_base.blocks.iter().enumerate()) {
        known.insert(digest(base, *block)?, number as u64);
        watch()?;
    }
    let mut parts = Vec::new();
    let mut offset = 0;
    for block in &container.blocks {
        watch()?;
        if let Some(number) = known.get(&digest(new, *block)?) {
            parts.push(Part::Base(*number));
        } else {
            let mut start = vec![0; BLOCK_START.min(block.unpadded as usize)];
            new.read_exact_at(&mut start, block.offset)?;
            let sound = (1..=MAX_BLOCK).contains(&block.uncompressed);
            let Some((coder, form)) = examine(&start, *block, check).filter(|_| sound) else {
                return Ok(None);
            };
            parts.push(Part::Data(Changed { block: *block, offset, coder, form }));
        }
        offset += block.uncompressed;
    }
    let Some(coders) = recognise_all(&parts, new, tar, watch)? else { return Ok(None) };
    let mut bytes = StepWriter::default();
    for value in [container.flags[0].into(), container.flags[1].into(), coders.len() as u64] {
        bytes.number(value);
    }
    for (_, coder) in &coders {
        let [lc, lp, pb] = coder.bits;
        for value in [coder.preset, coder.filter, coder.dictionary, lc, lp, pb] {
            bytes.number(value.into());
        }
    }
    bytes.number(parts.len() as u64);
    let mut expected = 0_u64;
    for part in &parts {
        match part {
            Part::Base(number) => {
                bytes.number(0);
                bytes.signed(number.wrapping_sub(expected) as i64);
                expected = number + 1;
            }
            Part::Data(changed) => {
                let coder = coders.iter().position(|(seen, _)| *seen == changed.coder).unwrap_or(0);
                let Form { size, stated } = changed.form;
                for value in [changed.block.uncompressed, coder as u64, size, stated.into()] {
                    bytes.number(value);
                }
            }
        }
    }
    Ok(Some(bytes.take()))
}

/// A block of the new file.
enum Part {
    /// The base has it.
    Base(u64),
    /// The base does not.
    Data(Changed),
}

/// A block that is to be compressed again: where its data begins, and what its header says.
#[derive(Clone, Copy)]
struct Changed {
    block: Block,
    offset: u64,
    coder: Coder,
    form: Form,
}

/// The coders as headers show them, and as they are, presets and all.
fn recognise_all(
    parts: &[Part],
    new: &File,
    tar: &File,
    watch: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Option<Vec<(Coder, Coder)>>> {
    let mut groups: Vec<Vec<Changed>> = Vec::new();
    for part in parts {
        let Part::Data(changed) = part else { continue };
        match groups.iter_mut().find(|group| group[0].coder == changed.coder) {
            Some(group) => group.push(*changed),
            None => groups.push(vec![*changed]),
        }
    }
    let mut coders = Vec::new();
    for mut group in groups {
        // Large blocks tell presets apart.
        group.sort_by_key(|changed| std::cmp::Reverse(changed.block.uncompressed));
        group.truncate(SAMPLES);
        let Some(coder) = recognise(&group, new, tar, watch)? else { return Ok(None) };
        coders.push((group[0].coder, coder));
    }
    Ok((coders.len() as u64 <= MAX_CODERS).then_some(coders))
}

fn digest(file: &File, block: Block) -> io::Result<Sha256Digest> {
    let at = super::make::At { file: file.try_clone()?, at: block.offset };
    Ok(Sha256Digest::of_reader(at.take(block.size()))?.0)
}

/// Finds the preset whose output begins as the data of these blocks does.
fn recognise(
    blocks: &[Changed],
    new: &File,
    tar: &File,
    watch: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Option<Coder>> {
    let coder = blocks[0].coder;
    if coder.preset == STORED {
        return Ok(Some(coder));
    }
    // First those that have this dictionary by themselves; the slow variants after the others.
    let (natural, others): (Vec<u8>, Vec<u8>) =
        [6, 16, 9, 19, 5, 15, 4, 7, 8, 3, 2, 1, 0, 14, 17, 18, 13, 12, 11, 10]
            .iter()
            .partition(|preset| Coder::natural_dictionary(**preset) == coder.dictionary);
    'presets: for preset in natural.into_iter().chain(others) {
        let coder = Coder { preset, ..coder };
        for changed in blocks {
            if !begins_alike(coder, changed, new, tar, watch)? {
                continue 'presets;
            }
        }
        return Ok(Some(coder));
    }
    Ok(None)
}

fn begins_alike(
    coder: Coder,
    changed: &Changed,
    new: &File,
    tar: &File,
    watch: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<bool> {
    let Changed { block, offset, form, .. } = changed;
    let length = (block.unpadded - form.size).min(SAMPLE as u64);
    let mut sample = vec![0; length as usize];
    new.read_exact_at(&mut sample, block.offset + form.size)?;
    let mut at = 0;
    let fill = |buffer: &mut [u8]| {
        watch()?;
        let count = (buffer.len() as u64).min(block.uncompressed - at) as usize;
        tar.read_exact_at(&mut buffer[..count], offset + at)?;
        at += count as u64;
        Ok(count)
    };
    // What differs early differs for good.
    let enough =
        |out: &[u8]| out.len() >= SAMPLE || out.iter().zip(&sample).any(|(ours, theirs)| ours != theirs);
    let out = coder.compress(fill, enough)?;
    let common = out.len().min(sample.len());
    Ok(common > 0 && out[..common] == sample[..common])
}

/// Writes the compressed archive of a delta whose uncompressed one is in `tar`; `base` is the
/// compressed file of the base, and `threads` blocks are compressed at a time.
///
/// # Errors
/// [`Error::Mismatch`] when the bytes are not those the delta states, as after a change of the
/// compressor; the uncompressed archive is as good then. [`Error::Archive`] when it states none.
pub fn rebuild<D: Read + Seek, W: Write>(
    base: &File,
    mut delta: D,
    tar: &File,
    out: W,
    threads: usize,
    limits: &Limits,
) -> Result<W> {
    delta.rewind().map_err(Error::io("delta"))?;
    let header = Header::read(&mut delta, limits)?;
    let Some(stated) = header.file else {
        return Err(bad("it does not say how its result was compressed"));
    };
    let container = Container::read(base).map_err(Error::io("base"))?;
    let blocks = container.map(|container| container.blocks).unwrap_or_default();
    let section = SectionReader::open(&Arc::new(Mutex::new(delta)), &header, 3)?;
    let (flags, sources) = read(section, &header, &blocks, limits)?;
    let mut out = HashingWriter::new(out);
    write(base, tar, flags, &sources, threads.max(1), &mut out).map_err(Error::io("compressed result"))?;
    let (out, sha256, size) = out.finish();
    if (sha256, size) != (stated.sha256, stated.size) {
        return Err(Error::Mismatch {
            what: "compressed result of the delta".into(),
            reason: format!("{size} bytes with SHA-256 {sha256}, not {} with {}", stated.size, stated.sha256),
        });
    }
    Ok(out)
}

fn read<D: Read + Seek>(
    mut section: SectionReader<D>,
    header: &Header,
    base: &[Block],
    limits: &Limits,
) -> Result<([u8; 2], Vec<Source>)> {
    let byte = |section: &mut SectionReader<D>| {
        u8::try_from(section.number()?).map_err(|_| bad("a number in its block list is too large"))
    };
    let flags = [byte(&mut section)?, byte(&mut section)?];
    let count = section.number()?;
    if Check::new(flags).is_none() || count > MAX_CODERS {
        return Err(bad("its block list asks for what no xz file has"));
    }
    let mut coders = Vec::new();
    for _ in 0..count {
        let mut fields = [0; 6];
        for field in &mut fields {
            *field = byte(&mut section)?;
        }
        let [preset, filter, dictionary, lc, lp, pb] = fields;
        let coder = Coder { preset, filter, dictionary, bits: [lc, lp, pb] };
        let fits = coder.dictionary_size().is_some_and(|size| size <= limits.dictionary);
        if !fits || preset > STORED || lc > 4 || lp > 4 || pb > 4 || lc + lp > 4 {
            return Err(bad("its block list asks for a coder that is not allowed"));
        }
        coders.push(coder);
    }
    let count = section.number()?;
    if count > MAX_BLOCKS {
        return Err(bad("its block list is too long"));
    }
    let (mut sources, mut offset, mut next) = (Vec::new(), 0_u64, 0_u64);
    let outside = || bad("its block list leaves the archive");
    for _ in 0..count {
        let size = section.number()?;
        let source = if size == 0 {
            let number = next.checked_add_signed(section.signed()?).ok_or_else(outside)?;
            let block = *usize::try_from(number).ok().and_then(|n| base.get(n)).ok_or_else(outside)?;
            next = number + 1;
            Source::Base(block)
        } else {
            let number = section.number()?;
            let coder = *usize::try_from(number).ok().and_then(|n| coders.get(n)).ok_or_else(outside)?;
            let form = Form { size: section.number()?, stated: byte(&mut section)? };
            if size > MAX_BLOCK
                || form.stated > 3
                || !(8..=1024).contains(&form.size)
                || !form.size.is_multiple_of(4)
            {
                return Err(bad("its block list asks for an impossible block"));
            }
            Source::Data { offset, size, coder, form }
        };
        let size = if let Source::Base(block) = source { block.uncompressed } else { size };
        offset = offset.checked_add(size).filter(|end| *end <= header.result.size).ok_or_else(outside)?;
        sources.push(source);
    }
    if offset != header.result.size {
        return Err(outside());
    }
    section.end().map(|()| (flags, sources))
}

/// Compresses on several threads and writes in order.
fn write(
    base: &File,
    tar: &File,
    flags: [u8; 2],
    sources: &[Source],
    threads: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    out.write_all(&stream_header(flags))?;
    let mut records = Vec::new();
    let work: Vec<_> = sources.iter().filter(|source| matches!(source, Source::Data { .. })).collect();
    std::thread::scope(|scope| {
        let mut results = Vec::new();
        for first in 0..threads {
            let (sender, receiver) = sync_channel(1);
            results.push(receiver);
            let work = &work;
            scope.spawn(move || {
                for source in work.iter().skip(first).step_by(threads) {
                    if sender.send(block(tar, flags, **source)).is_err() {
                        return;
                    }
                }
            });
        }
        let mut made = 0;
        let mut buffer = vec![0; 128 << 10];
        for source in sources {
            match source {
                Source::Base(block) => {
                    copy(base, *block, &mut buffer, out)?;
                    records.push((block.unpadded, block.uncompressed));
                }
                Source::Data { size, .. } => {
                    let done = results[made % threads].recv();
                    let (block, unpadded) = done.map_err(|_| io::Error::other("a compressor failed"))??;
                    made += 1;
                    out.write_all(&block)?;
                    records.push((unpadded, *size));
                }
            }
        }
        Ok::<_, io::Error>(())
    })?;
    out.write_all(&trailer(flags, &records))?;
    out.flush()
}

fn copy(base: &File, block: Block, buffer: &mut [u8], out: &mut impl Write) -> io::Result<()> {
    let mut at = 0;
    while at < block.size() {
        let count = (buffer.len() as u64).min(block.size() - at) as usize;
        base.read_exact_at(&mut buffer[..count], block.offset + at)?;
        out.write_all(&buffer[..count])?;
        at += count as u64;
    }
    Ok(())
}

fn block(tar: &File, flags: [u8; 2], source: Source) -> io::Result<(Vec<u8>, u64)> {
    let impossible = || io::Error::new(io::ErrorKind::InvalidData, "an impossible block");
    let Source::Data { offset, size, coder, form } = source else { return Err(impossible()) };
    let mut check = Check::new(flags).ok_or_else(impossible)?;
    let mut at = 0;
    let data = coder.compress(
        |buffer| {
            let count = (buffer.len() as u64).min(size - at) as usize;
            tar.read_exact_at(&mut buffer[..count], offset + at)?;
            check.update(&buffer[..count]);
            at += count as u64;
            Ok(count)
        },
        |_| false,
    )?;
    coder.block(form, &data, size, &check.finish()).ok_or_else(impossible)
}
