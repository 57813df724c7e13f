//! Whether this kernel and a file system can give a container its image with ids mapped. Found out
//! by doing it, in a process of its own, as it takes a user namespace.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::idmap::{self, IdMap};
use super::ids::Ids;
use super::rootfs::Layers;
use super::runtime::Runtime;
use super::sys::{self, SingleThread};
use super::user_namespace;

/// First argument of such a process.
pub(crate) const ARGUMENT: &str = "__probe";

/// Mounts the layers, once, for nobody. The error says why that does not work.
pub fn can_share(layers: &Layers) -> Result<(), String> {
    let failed = |error: io::Error| format!("trying it: {error}");
    let text = serde_json::to_vec(layers).map_err(|e| failed(e.into()))?;
    let mut child = Command::new(Runtime::program())
        .arg(ARGUMENT)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let sent = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&text));
    let output = child.wait_with_output().map_err(failed)?;
    sent.map_err(failed)?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
}

/// As [`can_share`], with empty layers below `directory`, or in a place that is made for the moment.
pub fn try_sharing(directory: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", directory.display());
    let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let place = tempfile::Builder::new().prefix(".check-").tempdir_in(existing).map_err(failed)?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.path().join(name));
    [&lower, &upper, &work].into_iter().try_for_each(fs::create_dir).map_err(failed)?;
    let (map_ids, idmap) = match idmap::only_range().map_err(|e| e.to_string())? {
        Some(range) => (false, range),
        None => (true, IdMap { base: 1_000_000, count: idmap::COUNT }),
    };
    let (between, id) = (Vec::new(), String::new());
    can_share(&Layers { lower, map_ids, plain: false, between, idmap, ids: None, id, upper, work })
}

/// The process that tries.
pub(crate) fn main() -> ! {
    sys::close_inherited();
    let code = match attempt() {
        Ok(()) => 0,
        Err(reason) => {
            let _ = io::stdout().write_all(reason.as_bytes());
            1
        }
    };
    std::process::exit(code)
}

fn attempt() -> Result<(), String> {
    let failed = |error: io::Error| format!("user namespace: {error}");
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).map_err(failed)?;
    let layers: Layers = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    let single = SingleThread::check().map_err(failed)?;
    let namespace = user_namespace::make(&single, &Ids::from(layers.idmap).proc_texts())?;
    layers.mount(&single, namespace.as_fd()).map(drop)
}
