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

use super::block::{Block, Coder, Record, STREAM_HEADER, stream_end};
use super::cache::BlockCache;

/// Filter that makes machine code compress better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Filter for blocks that hold machine code.
    pub bcj: Option<Bcj>,
    /// Workers; each needs the preset's memory and about three times `block_size`.
    pub threads: usize,
    /// Uncompressed bytes of a block. Where files are packed, blocks have between a quarter and one
    /// and a half of it.
    pub block_size: usize,
}

impl Default for XzOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { level: 6, bcj: None, threads, block_size: 8 << 20 }
    }
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

/// How blocks came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Compressed.
    pub compressed: u64,
    /// Taken from the cache.
    pub cached: u64,
}

struct Job {
    number: usize,
    data: Vec<u8>,
    coder: Coder,
}

/// A block, and whether it was in the cache.
type Done = (usize, io::Result<(Block, bool)>);

/// Compresses what is written to it. Call [`XzWriter::end_block`] where a block ends, and
/// [`XzWriter::finish`] at the end.
pub struct XzWriter<W> {
    out: W,
    options: XzOptions,
    watch: Watch,
    code: bool,
    buffer: Vec<u8>,
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    workers: Vec<std::thread::JoinHandle<()>>,
    sent: usize,
    received: usize,
    waiting: BTreeMap<usize, Block>,
    records: Vec<Record>,
    blocks: Blocks,
}

impl<W: Write> XzWriter<W> {
    /// Starts the workers, which take blocks from `cache` where they can.
    pub fn new(out: W, options: XzOptions, watch: Watch, cache: Option<&Arc<BlockCache>>) -> Self {
        let (jobs, queue) = channel::<Job>();
        let (results, done) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..options.threads.max(1))
            .map(|_| {
                let (queue, results, cache) = (Arc::clone(&queue), results.clone(), cache.cloned());
                std::thread::spawn(move || {
                    loop {
                        let job = queue.lock().map(|queue| queue.recv());
                        let Ok(Ok(job)) = job else { return };
                        let block = block(&job.data, job.coder, cache.as_deref());
                        if results.send((job.number, block)).is_err() {
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
            code: true,
            buffer: Vec::new(),
            jobs: Some(jobs),
            done,
            workers,
            sent: 0,
            received: 0,
            waiting: BTreeMap::new(),
            records: Vec::new(),
            blocks: Blocks::default(),
        }
    }

    /// Ends the block, if one was begun, and says whether machine code comes next.
    pub fn end_block(&mut self, code: bool) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.compress()?;
        }
        self.code = code;
        Ok(())
    }

    /// Compresses the rest and writes index and footer.
    pub fn finish(mut self) -> io::Result<(W, Blocks)> {
        if !self.buffer.is_empty() || self.sent == 0 {
            self.compress()?;
        }
        drop(self.jobs.take());
        while self.received < self.sent {
            self.receive()?;
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        // The one block of an empty stream is none.
        self.records.retain(|record| record.unpadded > 0);
        self.out.write_all(&stream_end(&self.records))?;
        Ok((self.out, self.blocks))
    }

    fn compress(&mut self) -> io::Result<()> {
        // Bounds memory: at most two blocks a worker are under way.
        while self.sent - self.received >= 2 * self.options.threads.max(1) {
            self.receive()?;
        }
        let bcj = self.options.bcj.filter(|_| self.code);
        let job = Job {
            number: self.sent,
            data: std::mem::take(&mut self.buffer),
            coder: Coder { level: self.options.level, bcj },
        };
        let jobs = self.jobs.as_ref().ok_or_else(|| io::Error::other("the compressor has ended"))?;
        jobs.send(job).map_err(|_| io::Error::other("the compressor's workers ended"))?;
        self.sent += 1;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let (number, result) = loop {
            self.watch.check()?;
            match self.done.recv_timeout(Duration::from_millis(100)) {
                Ok(done) => break done,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the compressor's workers ended"));
                }
            }
        };
        let (block, cached) = result?;
        self.received += 1;
        let count = if cached { &mut self.blocks.cached } else { &mut self.blocks.compressed };
        *count += 1;
        self.waiting.insert(number, block);
        while let Some(block) = self.waiting.remove(&self.records.len()) {
            if self.records.is_empty() {
                self.out.write_all(&STREAM_HEADER)?;
            }
            self.out.write_all(&block.data)?;
            self.records.push(block.record);
        }
        Ok(())
    }
}

impl<W: Write> Write for XzWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A block nobody ends does so by force, always at the same place.
        let limit = (self.options.block_size + self.options.block_size / 2).max(1);
        if self.buffer.len() >= limit {
            self.compress()?;
        }
        let room = limit - self.buffer.len();
        let count = data.len().min(room);
        self.buffer.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From the cache, or compressed and kept there.
fn block(data: &[u8], coder: Coder, cache: Option<&BlockCache>) -> io::Result<(Block, bool)> {
    let Some(cache) = cache.filter(|_| !data.is_empty()) else {
        return Ok((Block::compress(data, coder)?, false));
    };
    let key = cache.key(data, coder)?;
    if let Some(block) = cache.get(&key, data.len() as u64) {
        return Ok((block, true));
    }
    let block = Block::compress(data, coder)?;
    cache.put(&key, &block);
    Ok((block, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        (0..300_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect()
    }

    fn pack(data: &[u8], threads: usize, bcj: Option<Bcj>) -> Vec<u8> {
        let options = XzOptions { level: 1, bcj, threads, block_size: 100_000 };
        let mut writer = XzWriter::new(Vec::new(), options, Watch::default(), None);
        for piece in data.chunks(130_000) {
            writer.write_all(piece).unwrap();
            writer.end_block(true).unwrap();
        }
        writer.finish().unwrap().0
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
    fn blocks_nobody_ends_do_so_by_force() {
        let options = XzOptions { level: 0, bcj: None, threads: 2, block_size: 1000 };
        let mut writer = XzWriter::new(Vec::new(), options, Watch::default(), None);
        writer.write_all(&sample()).unwrap();
        let (packed, blocks) = writer.finish().unwrap();
        assert_eq!(blocks.compressed, 800, "of 1500 bytes each");
        let mut out = Vec::new();
        let limits = super::super::Limits::default();
        io::Read::read_to_end(&mut super::super::decoder(&packed[..], &limits).unwrap(), &mut out).unwrap();
        assert_eq!(out, sample());
    }
}
