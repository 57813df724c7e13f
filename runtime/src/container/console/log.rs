//! What came on a console, kept in a file of bounded size.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest size of one file in bytes; there are two.
const LARGEST: u64 = 1 << 20;

/// `console.log` of this run. What would make it too large moves what there is to
/// `console.log.old`, as does the next run.
pub struct ConsoleLog {
    path: PathBuf,
    file: File,
    size: u64,
}

impl ConsoleLog {
    /// Begins a new run in a container's directory.
    pub fn begin(container: &Path) -> io::Result<Self> {
        let path = path(container);
        let file = fresh(&path)?;
        Ok(Self { path, file, size: 0 })
    }

    /// Appends.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if self.size + data.len() as u64 > LARGEST {
            self.file = fresh(&self.path)?;
            self.size = 0;
        }
        self.size += data.len() as u64;
        self.file.write_all(data)
    }
}

/// Where it is.
pub fn path(container: &Path) -> PathBuf {
    container.join("console.log")
}

fn fresh(path: &Path) -> io::Result<File> {
    match fs::rename(path, path.with_extension("log.old")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().create(true).append(true).mode(0o600).open(path)
}

/// The last lines of the present run, without anything that could steer a terminal.
pub fn last_lines(container: &Path, number: usize) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path(container))?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
        let mut text = Vec::new();
        file.take(4096).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let printable = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<_> = text.lines().map(printable).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(number)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ConsoleLog::begin(dir.path()).unwrap();
        let block = vec![b'x'; 64 << 10];
        for _ in 0..100 {
            log.write(&block).unwrap();
        }
        log.write(b"\nthe \x1b[31mlast\r\nline\n").unwrap();
        let sizes: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(sizes <= 2 * LARGEST, "{sizes}");
        assert_eq!(last_lines(dir.path(), 2), ["the [31mlast", "line"]);
    }

    #[test]
    fn the_run_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        ConsoleLog::begin(dir.path()).unwrap().write(b"one").unwrap();
        ConsoleLog::begin(dir.path()).unwrap().write(b"two").unwrap();
        assert_eq!(fs::read(dir.path().join("console.log.old")).unwrap(), b"one");
        assert_eq!(last_lines(dir.path(), 5), ["two"]);
    }
}
