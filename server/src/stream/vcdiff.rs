//! `rootfs.BASE.vcdiff`: what LXD and Incus update squashfs images with (RFC 3284).
//!
//! Made by the tool `xdelta3`, because that is what both apply it with, extensions of its own to
//! the RFC included. A machine without the tool makes none.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use millstream_image::Sha256Digest;
use millstream_image::digest::HashingReader;
use millstream_image::simplestreams::Item;

use super::deltas::in_time;

/// The base is held in memory up to this size, in bytes.
const MOST_SOURCE: u64 = 512 << 20;

/// Writes the delta to the file `delta` and proves it by applying it; the error says why there is
/// none.
pub(super) fn make(
    base: &Path,
    new: &Path,
    delta: &Path,
    (from, to): (&Item, &Item),
    most: u64,
    deadline: Instant,
) -> Result<(), String> {
    let source = from.size.next_power_of_two().clamp(1 << 20, MOST_SOURCE).to_string();
    let mut encode = Command::new("xdelta3");
    encode.args(["-q", "-e", "-c", "-9", "-B", &source, "-s"]).arg(base).arg(new);
    run(encode, delta, most, deadline)?;
    // The base on disk may be damaged, and clients have the good one.
    let found = File::open(base).and_then(Sha256Digest::of_reader).map_err(|error| error.to_string())?;
    if Some(found.0) != from.sha256 {
        return Err(format!("{} is not the file that documents list", base.display()));
    }
    let mut decode = Command::new("xdelta3");
    decode.args(["-q", "-d", "-c", "-B", &source, "-s"]).arg(base).arg(delta);
    let result = digest(decode, to.size, deadline)?;
    if Some(result) == to.sha256 { Ok(()) } else { Err("xdelta3 made a delta it cannot apply".into()) }
}

/// A process that ends with its caller's interest: it writes into a pipe, so that it dies when
/// nobody reads any more, even if we were killed.
struct Tool(Child);

impl Tool {
    fn start(mut command: Command) -> Result<Self, String> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        child.map(Self).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "xdelta3 is not installed".into(),
            _ => format!("xdelta3: {error}"),
        })
    }

    fn output(&mut self) -> Result<ChildStdout, String> {
        self.0.stdout.take().ok_or_else(|| "xdelta3 has no output".into())
    }

    fn end(mut self) -> Result<(), String> {
        let status = self.0.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("xdelta3 failed: {status}")) }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: Command, delta: &Path, most: u64, deadline: Instant) -> Result<(), String> {
    let mut out = File::create_new(delta).map_err(|error| error.to_string())?;
    let mut tool = Tool::start(command)?;
    let mut output = tool.output()?;
    let size = copy(&mut output, &mut out, most, deadline)?;
    if size > most {
        return Err(format!("a delta would be larger than {most} bytes"));
    }
    tool.end()
}

fn digest(command: Command, size: u64, deadline: Instant) -> Result<Sha256Digest, String> {
    let mut tool = Tool::start(command)?;
    let mut output = HashingReader::new(tool.output()?);
    copy(&mut output, &mut io::sink(), size, deadline)?;
    tool.end().map(|()| output.finish())
}

/// Copies until the end, or until there is more than `most`.
fn copy(from: &mut impl Read, to: &mut impl Write, most: u64, deadline: Instant) -> Result<u64, String> {
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        in_time(deadline).map_err(|error| error.to_string())?;
        let count = from.read(&mut buffer).map_err(|error| error.to_string())?;
        size += count as u64;
        if count == 0 || size > most {
            return Ok(size);
        }
        to.write_all(&buffer[..count]).map_err(|error| error.to_string())?;
    }
}
