//! Whether this kernel and a file system can give a container its image with ids mapped. Found out
//! by doing it, in a process of its own, as it takes a user namespace.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use serde::{Deserialize, Serialize};

use super::idmap::IdMap;
use super::rootfs::Layers;
use super::runtime::Runtime;
use super::sys::{self, Fork, SingleThread};

/// First argument of such a process.
pub(crate) const ARGUMENT: &str = "__probe";

#[derive(Serialize, Deserialize)]
struct Request {
    layers: Layers,
    idmap: IdMap,
}

/// Mounts the layers, once, for nobody. The error says why that does not work.
pub fn can_share(layers: &Layers, idmap: IdMap) -> Result<(), String> {
    let failed = |error: io::Error| format!("trying it: {error}");
    let text =
        serde_json::to_vec(&Request { layers: layers.clone(), idmap }).map_err(|e| failed(e.into()))?;
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
    let request: Request = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
    let single = SingleThread::check().map_err(failed)?;
    let owner = match sys::fork(&single, libc::CLONE_NEWUSER).map_err(failed)? {
        // Owns the namespace until it is killed, or its parent dies.
        Fork::Child => {
            let Err(()) = idle();
            std::process::exit(1)
        }
        Fork::Parent(owner) => owner,
    };
    let mount = || {
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{owner}/{map}"), request.idmap.proc_text()).map_err(failed)?;
        }
        let namespace = File::open(format!("/proc/{owner}/ns/user")).map_err(failed)?;
        request.layers.mount(namespace.as_fd()).map(drop)
    };
    let result = mount();
    let _ = kill(owner, Signal::SIGKILL);
    let _ = waitpid(owner, None);
    result
}

fn idle() -> Result<Infallible, ()> {
    super::confine::die_with_parent().map_err(|_| ())?;
    loop {
        nix::unistd::pause();
    }
}
