//! Writes one standard `.xz` stream of independent blocks, compressed in parallel.
//!
//! Every block is made as a stream of its own by liblzma, with its sizes in the block header so
//! that readers can decompress in parallel too; its bytes are then lifted into the common stream,
//! whose index and footer are composed here (format: "The .xz File Format", version 1.2.1).
//! Because blocks depend on nothing but their own input, a block seen before need not be
//! compressed again, and the bytes do not depend on the number of threads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use liblzma::stream::{Action, Check, Filters, LzmaOptions, MtStreamBuilder, Status};

const HEADER: usize = 12;
const FOOTER: usize = 12;

/// Filter that makes machine code compress better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bcj {
    /// x86 and amd64.
    X86,
    /// 64-bit ARM.
    Arm64,
}

/// How to compress.
#[derive(Clone, Copy, Debug)]
pub struct XzOptions {
    /// Preset, 0 to 9, as of the `xz` tool.
    pub level: u32,
    /// Filter for machine code.
    pub bcj: Option<Bcj>,
    /// Workers; each needs the preset's memory and about three times `block_size`.
    pub threads: usize,
    /// Uncompressed bytes after which a block ends at the next cut.
    pub block_size: usize,
}

impl Default for XzOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { level: 6, bcj: None, threads, block_size: 24 << 20 }
    }
}

/// Sizes of a block, as the stream's index records them.
#[derive(Clone, Copy)]
struct Record {
    unpadded: u64,
    uncompressed: u64,
}

struct Block {
    /// The stream's first twelve bytes, alike for all blocks.
    header: [u8; HEADER],
    data: Vec<u8>,
    record: Record,
}

/// Asked now and then while data is packed; an error from it stops the work.
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<dyn Fn() -> io::Result<()> + Send + Sync>>);

impl Watch {
    /// Asks `check`.
    pub fn new(check: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(check)))
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |check| check())
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Watch(..)" } else { "Watch" })
    }
}

type Job = (usize, Vec<u8>);
type Done = (usize, io::Result<Block>);

/// Compresses what is written to it. Call [`XzWriter::cut`] where a block may end, and
/// [`XzWriter::finish`] at the end.
pub struct XzWriter<W> {
    out: W,
    options: XzOptions,
    watch: Watch,
    buffer: Vec<u8>,
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    workers: Vec<std::thread::JoinHandle<()>>,
    sent: usize,
    received: usize,
    waiting: BTreeMap<usize, Block>,
    records: Vec<Record>,
    header: [u8; HEADER],
}

impl<W: Write> XzWriter<W> {
    /// Starts the workers.
    pub fn new(out: W, options: XzOptions, watch: Watch) -> Self {
        let (jobs, queue) = channel::<Job>();
        let (results, done) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..options.threads.max(1))
            .map(|_| {
                let (queue, results) = (Arc::clone(&queue), results.clone());
                std::thread::spawn(move || {
                    loop {
                        let job = queue.lock().map(|queue| queue.recv());
                        let Ok(Ok((number, data))) = job else { return };
                        if results.send((number, compress_block(&data, options))).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        Self {
            out,
            options,
            watch,
            buffer: Vec::new(),
            jobs: Some(jobs),
            done,
            workers,
            sent: 0,
            received: 0,
            waiting: BTreeMap::new(),
            records: Vec::new(),
            header: [0; HEADER],
        }
    }

    /// Says that a block may end here; it does when it is large enough.
    pub fn cut(&mut self) -> io::Result<()> {
        if self.buffer.len() >= self.options.block_size { self.end_block() } else { Ok(()) }
    }

    /// Compresses the rest and writes index and footer.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.buffer.is_empty() || self.sent == 0 {
            self.end_block()?;
        }
        drop(self.jobs.take());
        while self.received < self.sent {
            self.receive()?;
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        let mut index = vec![0];
        varint(&mut index, self.records.len() as u64);
        for record in &self.records {
            varint(&mut index, record.unpadded);
            varint(&mut index, record.uncompressed);
        }
        index.resize(index.len().next_multiple_of(4), 0);
        let crc = crc32fast::hash(&index);
        index.extend_from_slice(&crc.to_le_bytes());
        let mut footer = Vec::new();
        footer.extend_from_slice(&((index.len() / 4 - 1) as u32).to_le_bytes());
        footer.extend_from_slice(&self.header[6..8]);
        let crc = crc32fast::hash(&footer);
        self.out.write_all(&index)?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(&footer)?;
        self.out.write_all(b"YZ")?;
        Ok(self.out)
    }

    fn end_block(&mut self) -> io::Result<()> {
        // Bounds memory: at most two blocks a worker are under way.
        while self.sent - self.received >= 2 * self.options.threads.max(1) {
            self.receive()?;
        }
        let data = std::mem::take(&mut self.buffer);
        let jobs = self.jobs.as_ref().ok_or_else(|| io::Error::other("the compressor has ended"))?;
        jobs.send((self.sent, data)).map_err(|_| io::Error::other("the compressor's workers ended"))?;
        self.sent += 1;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let (number, block) = loop {
            self.watch.check()?;
            match self.done.recv_timeout(Duration::from_millis(100)) {
                Ok(done) => break done,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the compressor's workers ended"));
                }
            }
        };
        self.received += 1;
        self.waiting.insert(number, block?);
        while let Some(block) = self.waiting.remove(&self.records.len()) {
            if self.records.is_empty() {
                self.header = block.header;
                self.out.write_all(&block.header)?;
            }
            self.out.write_all(&block.data)?;
            self.records.push(block.record);
        }
        Ok(())
    }
}

impl<W: Write> Write for XzWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A block without a cut in reach ends by force, always at the same place.
        let room = (2 * self.options.block_size).saturating_sub(self.buffer.len());
        if room == 0 {
            self.end_block()?;
            return self.write(data);
        }
        let count = data.len().min(room);
        self.buffer.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress_block(data: &[u8], options: XzOptions) -> io::Result<Block> {
    let mut filters = Filters::new();
    match options.bcj {
        Some(Bcj::X86) => filters.x86(),
        Some(Bcj::Arm64) => filters.arm64(),
        None => &mut filters,
    };
    filters.lzma2(&LzmaOptions::new_preset(options.level)?);
    // liblzma's threaded encoder is the one that states sizes in block headers.
    let mut builder = MtStreamBuilder::new();
    builder.threads(1).block_size(data.len().max(1) as u64).check(Check::Crc64).filters(filters);
    let mut stream = builder.encoder()?;
    let mut out = Vec::with_capacity(data.len() / 3 + (64 << 10));
    loop {
        let at = stream.total_in() as usize;
        if out.len() == out.capacity() {
            out.reserve(1 << 20);
        }
        if stream.process_vec(&data[at..], &mut out, Action::Finish)? == Status::StreamEnd {
            break;
        }
    }
    lift_block(&out, data.len() as u64).ok_or_else(|| io::Error::other("liblzma wrote an unexpected stream"))
}

/// Takes the block out of a stream that holds one.
fn lift_block(stream: &[u8], uncompressed: u64) -> Option<Block> {
    let footer = stream.len().checked_sub(FOOTER)?;
    let backward = u32::from_le_bytes(stream[footer + 4..footer + 8].try_into().ok()?);
    let index = footer.checked_sub((backward as usize + 1) * 4)?;
    let header = stream.get(..HEADER)?.try_into().ok()?;
    let data = stream.get(HEADER..index)?.to_vec();
    let mut fields = &stream[index + 1..footer];
    if data.is_empty() {
        return Some(Block { header, data, record: Record { unpadded: 0, uncompressed: 0 } });
    }
    let (records, unpadded, size) =
        (read_varint(&mut fields)?, read_varint(&mut fields)?, read_varint(&mut fields)?);
    (records == 1 && size == uncompressed).then_some(Block {
        header,
        data,
        record: Record { unpadded, uncompressed },
    })
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        (0..300_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect()
    }

    fn pack(data: &[u8], threads: usize, bcj: Option<Bcj>) -> Vec<u8> {
        let options = XzOptions { level: 1, bcj, threads, block_size: 100_000 };
        let mut writer = XzWriter::new(Vec::new(), options, Watch::default());
        for piece in data.chunks(33_333) {
            writer.write_all(piece).unwrap();
            writer.cut().unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn xz_itself_reads_it_and_threads_do_not_matter() {
        let data = sample();
        for bcj in [None, Some(Bcj::X86)] {
            let packed = pack(&data, 1, bcj);
            assert_eq!(packed, pack(&data, 3, bcj));
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("sample.xz");
            std::fs::write(&file, &packed).unwrap();
            let xz = |args: &[&str]| {
                let out = std::process::Command::new("xz").args(args).arg(&file).output();
                let out = out.expect("this test needs xz: install xz-utils");
                assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
                out.stdout
            };
            assert_eq!(xz(&["-dc"]), data);
            let list = String::from_utf8(xz(&["--robot", "--list"])).unwrap();
            let totals: Vec<_> = list.lines().last().unwrap().split('\t').collect();
            assert_eq!(totals[1..3], ["1", "10"], "one stream of ten blocks: {list}");
        }
    }

    #[test]
    fn without_a_cut_blocks_end_by_force() {
        let options = XzOptions { level: 0, bcj: None, threads: 2, block_size: 1000 };
        let mut writer = XzWriter::new(Vec::new(), options, Watch::default());
        writer.write_all(&sample()).unwrap();
        let packed = writer.finish().unwrap();
        let mut out = Vec::new();
        let limits = super::super::Limits::default();
        io::Read::read_to_end(&mut super::super::decoder(&packed[..], &limits).unwrap(), &mut out).unwrap();
        assert_eq!(out, sample());
    }
}
