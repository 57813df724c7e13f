//! `rootfs.squashfs`, written by `mksquashfs` out of our archive as it is made.
//!
//! What it wrote is read back, as one of its versions was seen to damage a file now and then.
//! The tool gets the same stream that becomes `rootfs.tar.xz`, so both hold the same files. What
//! squashfs cannot hold is lost in this format: parts of seconds, times before 1970, access control
//! lists; the root directory gets the epoch as its time. In names of extended attributes the tool leaves `=` and
//! `%` as archives encode them.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use millstream_image::archive::Compression;
use millstream_runtime::CancelToken;

use super::Setting;
use crate::{Error, Result};

const TOOL: &str = "mksquashfs";
const READER: &str = "unsquashfs";
const BLOCK: &str = "1M";
const POLL: Duration = Duration::from_millis(20);

/// Fails when a tool is missing.
pub(super) fn check_host() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = |tool: &&str| !std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    let Some(tool) = [TOOL, READER].into_iter().find(missing) else { return Ok(()) };
    Err(Error::Refused(format!(
        "the format squashfs needs {tool}, which is not on this host: install squashfs-tools, or leave squashfs \
         out of --format"
    )))
}

/// The running tool.
pub(super) struct Squashfs {
    child: Child,
    out: PathBuf,
    messages: PathBuf,
}

impl Squashfs {
    /// Starts it for the root file system at `root`. What is written to the returned pipe, a tar
    /// stream, becomes the file `out`. What it says goes to `messages`.
    pub(super) fn start(
        root: &Path,
        out: &Path,
        messages: &Path,
        setting: Setting,
        epoch: i64,
        threads: usize,
    ) -> Result<(Self, ChildStdin)> {
        let mode = fs::metadata(root).map_err(Error::io(root))?.mode() & 0o7777;
        let said = File::create(messages).map_err(Error::io(messages))?;
        let mut command = Command::new(TOOL);
        command
            .arg("-")
            .arg(out)
            .args(["-tar", "-quiet", "-no-progress", "-noappend", "-reproducible", "-b", BLOCK])
            .args(compression(setting))
            .arg("-root-mode")
            .arg(format!("{mode:o}"))
            .arg("-processors")
            .arg(threads.max(1).to_string())
            // Its own time, and the latest one that files may have.
            .env("SOURCE_DATE_EPOCH", epoch.clamp(0, u32::MAX.into()).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said);
        let mut child = command.spawn().map_err(Error::io(TOOL))?;
        let input = child.stdin.take().ok_or_else(|| Error::Internal(format!("{TOOL} has no input")))?;
        Ok((Self { child, out: out.to_path_buf(), messages: messages.to_path_buf() }, input))
    }

    /// Waits for the end, its input being closed, and returns what it had to say.
    pub(super) fn finish(mut self, cancel: &CancelToken) -> Result<String> {
        let status = ended(&mut self.child, TOOL, cancel)?;
        let said = self.said();
        if !status.success() {
            return Err(self.failed(&status.to_string(), &said));
        }
        File::open(&self.out).and_then(|file| file.sync_all()).map_err(Error::io(&self.out))?;
        self.read_back(cancel)?;
        fs::remove_file(&self.messages).map_err(Error::io(&self.messages))?;
        Ok(said)
    }

    /// Decompresses all of it once: nobody should be the first to do so who wants to use it.
    fn read_back(&mut self, cancel: &CancelToken) -> Result<()> {
        let failed = File::create(&self.messages).map_err(Error::io(&self.messages))?;
        let mut reader = Command::new(READER);
        reader.args(["-quiet", "-no-progress", "-pf", "/dev/null"]).arg(&self.out);
        reader.stdin(Stdio::null()).stdout(Stdio::null()).stderr(failed);
        // Ended with this one, should it be interrupted.
        self.child = reader.spawn().map_err(Error::io(READER))?;
        let status = ended(&mut self.child, READER, cancel)?;
        if status.success() {
            return Ok(());
        }
        let said = self.said();
        Err(Error::Refused(format!(
            "{TOOL} wrote {}, but {READER} cannot read it: {}; build again",
            self.out.display(),
            said.lines().last().unwrap_or_default()
        )))
    }

    /// What to tell when packing failed: the tool's own reason when it went away.
    pub(super) fn explain(mut self, error: Error, cancel: &CancelToken) -> Error {
        let Error::Image(millstream_image::Error::Io { source, .. }) = &error else { return error };
        if source.kind() != ErrorKind::BrokenPipe {
            return error;
        }
        // Ctrl-C on a terminal ends the tool as well as us.
        if let Err(cancelled) = cancel.check() {
            return cancelled.into();
        }
        match self.child.wait() {
            Ok(status) => self.failed(&status.to_string(), &self.said()),
            Err(_) => error,
        }
    }

    fn failed(&self, status: &str, said: &str) -> Error {
        let last: Vec<_> = said.lines().rev().take(5).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        Error::Script { what: format!("{TOOL} for {}", self.out.display()), status: status.to_owned(), last }
    }

    fn said(&self) -> String {
        let mut text = Vec::new();
        let _ = File::open(&self.messages).and_then(|file| file.take(64 << 10).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Squashfs {
    /// A build that failed leaves no process; one that has ended is not there to be ended.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a program.
fn ended(child: &mut Child, program: &str, cancel: &CancelToken) -> Result<ExitStatus> {
    loop {
        cancel.check()?;
        if let Some(status) = child.try_wait().map_err(Error::io(program))? {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
}

fn compression(setting: Setting) -> Vec<String> {
    let words: &[&str] = match setting.compression {
        Compression::None => &["-noI", "-noD", "-noF", "-noX"],
        Compression::Gzip => &["-comp", "gzip"],
        Compression::Zstd => &["-comp", "zstd"],
        // Its xz has no levels.
        Compression::Xz => &["-comp", "xz"],
    };
    let mut words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    if matches!(setting.compression, Compression::Gzip | Compression::Zstd) {
        words.push("-Xcompression-level".into());
        words.push(setting.level.max(1).to_string());
    }
    words
}
