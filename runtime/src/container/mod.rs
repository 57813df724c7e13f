//! System containers: create, start, run commands in, stop, delete.
//!
//! On disk, below the directory given to [`Runtime::open`], which only its owner may enter:
//!
//! | path | what | written by |
//! |---|---|---|
//! | `images/FINGERPRINT[+BASE]/` | an unpacked image: `rootfs/`, `metadata.yaml`, `templates/` | once |
//! | `images/.FINGERPRINT/` | one being unpacked or removed | whoever has it locked |
//! | `NAME/config.json` | what the container is | commands |
//! | `NAME/state.json` | its processes while it runs, how it ended | its supervisor |
//! | `NAME/changes/` | what it changed, over the image (`upper/`); on btrfs a subvolume | the container |
//! | `NAME/rootfs/` | its own copy of the image, where ids cannot be mapped | once |
//! | `NAME/snapshots/SNAPSHOT.json` | what it was at one time | commands |
//! | `NAME/snapshots/.scheduled` | seconds since 1970 when one was last taken by schedule | commands |
//! | `.layers/ID/` | changes that containers and snapshots share, never written to | once |
//! | `NAME/console.log`, `.old` | its console, this run and before | its supervisor |
//! | `NAME/console.socket` | where terminals connect to its console | its supervisor |
//! | `.profiles/NAME.json` | settings that containers share | commands |
//! | `.networks/NAME.json` | networks | commands |
//! | `.commands.json` | commands of an ordinary user at work (see `owner`) | commands |
//! | `.new-ID/`, `.deleted-ID/` | containers half made or half deleted | collected by `create` |
//!
//! Commands that change a container hold a lock (`flock`) on its directory; `create` takes one on
//! the whole to choose ids. Locks die with their holder. A container appears and disappears by one
//! rename.
//!
//! Three processes make a running container. A supervisor (see `supervise`), the container's init,
//! and, for each command run in it, one that waits for it outside. All are this very program, started
//! again, so that callers may have threads. The host's mounts never change: the root file system is
//! mounted detached and handed to the container.

mod attach;
mod cgroup;
mod changes;
mod channel;
mod clocks;
mod config;
mod confine;
mod console;
mod devices;
mod disk;
mod exec;
mod files;
mod frozen;
mod hooks;
mod idmap;
mod ids;
mod image;
mod image_check;
mod init;
mod inside;
mod label;
mod lifecycle;
mod lock;
mod lxcfs;
mod mounts;
mod name;
mod owned;
mod owner;
mod probe;
mod process;
mod publish;
mod quota;
mod record;
mod relay;
mod rootfs;
mod runtime;
mod sealed;
mod seccomp;
mod shutdown;
mod squashfs;
mod storage;
mod supervise;
mod sys;
mod template;
mod tending;
mod tree_copy;
mod tuning;
mod user_namespace;
mod visit;

use std::ffi::OsString;
use std::path::Path;

pub(crate) use cgroup::Controllers;
pub use config::devices::{Device, Devices};
pub(crate) use config::devices::{
    flag as device_flag,
    nic::{is_interface, rate as nic_rate},
    of_type,
    proxy::address as proxy_address,
};
pub use config::{Configuration, Profile, Settings};
pub(crate) use confine::{become_root as become_container_root, die_with_parent};
pub use console::Detached;
pub use exec::ExecOptions;
pub use files::{Pulled, PushOptions};
pub use idmap::IdMap;
pub use image::{ImageFiles, Prepared};
pub use init::{HALT_SIGNAL, Init, signal};
pub use lifecycle::Stopped;
pub(crate) use lock::DirLock;
pub use name::ContainerName;
pub use owner::become_root;
pub(crate) use probe::try_sharing;
pub(crate) use process::Process;
pub(crate) use record::new_id;
pub use record::{Base, Exit};
pub use runtime::{CreateOptions, ImageUse, Info, Runtime, Status};
pub use storage::Snapshot;
pub(crate) use sys::{Fork, fork};
pub use template::{Job as Template, Variables as TemplateVariables};
pub use tending::Tended;

/// What a process of ours does first when a supervisor starts it. It has a single thread.
pub(crate) fn prepare_helper() -> std::io::Result<sys::SingleThread> {
    sys::close_inherited();
    sys::reset_signals()?;
    sys::SingleThread::check()
}

/// Takes over when this process was started as one of a container's.
pub(crate) fn take_over(argument: &OsString, rest: &mut dyn Iterator<Item = OsString>) {
    if argument == supervise::ARGUMENT {
        supervise::main();
    } else if argument == probe::ARGUMENT {
        probe::main();
    } else if argument == devices::live::ARGUMENT {
        devices::live::main();
    } else if argument == visit::ARGUMENT {
        visit::main();
    } else if argument == frozen::ARGUMENT {
        frozen::main();
    } else if argument == attach::ARGUMENT
        && let Some(file) = rest.next()
    {
        attach::main(Path::new(&file));
    }
}
