//! Files into a container and out of it, whether it runs or not.
//!
//! A process that is the container's root, and has its root file system in hand, does the container's
//! part (see `visit`); this process does the host's, as the user who calls. What goes between them is
//! a stream of entries.

mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::name::ContainerName;
use super::publish;
use super::runtime::Runtime;
use super::visit::{receive, send};
use crate::{Error, Result};
use tree::{Entry, Kind, Writer, failed};

/// What is to be done in the container.
#[derive(Serialize, Deserialize)]
pub(crate) enum Work {
    Pull {
        path: Vec<u8>,
        recursive: bool,
    },
    Push {
        path: Vec<u8>,
        options: PushOptions,
    },
    /// Everything, as an archive.
    Pack,
}

/// What goes between the two sides.
#[derive(Serialize, Deserialize)]
pub(crate) enum Message {
    Entry(Entry),
    /// So many bytes of the present file follow; none: it ends.
    Data(u32),
    Done,
    Failed(String),
}

/// How files arrive in a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PushOptions {
    /// Whose they become, as ids of the container.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// Their permission bits; none: those they have.
    pub mode: Option<u32>,
    /// Whether directories on the way are made.
    pub parents: bool,
    /// Whether a directory is taken with everything below.
    pub recursive: bool,
}

/// A file of a container as it was pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Its owner in the container.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

type Step<T> = std::result::Result<T, String>;

impl Runtime {
    /// Copies a file, or a directory with everything below, out of a container: to `target`, or into
    /// it if that is a directory. Links on the way to `path` are followed within the container, those
    /// below are copied. Owners are not kept, nor set-id bits. Devices, sockets, pipes and what is
    /// mounted below are left out.
    pub fn pull(&self, name: &ContainerName, path: &Path, target: &Path, recursive: bool) -> Result<Pulled> {
        let fallback = path.file_name().map_or_else(|| name.as_str().into(), OsStr::to_owned);
        let writer = writer(target, fallback).map_err(Error::io(target))?;
        self.pull_with(name, path, recursive, |entry, data| writer.put(entry, data))
    }

    /// Copies the data of a file out of a container.
    pub fn pull_to(&self, name: &ContainerName, path: &Path, out: &mut impl Write) -> Result<Pulled> {
        self.pull_with(name, path, false, |entry, data| match entry.kind {
            Kind::File => tree::paste(data, out),
            _ => Err("it is no file".into()),
        })
    }

    fn pull_with(
        &self,
        name: &ContainerName,
        path: &Path,
        recursive: bool,
        mut put: impl FnMut(&Entry, &mut dyn Read) -> Step<()>,
    ) -> Result<Pulled> {
        let refused = |reason: String| Error::Files { name: name.to_string(), reason };
        let path = path.as_os_str().as_bytes().to_vec();
        let mut visit = self.visit(name, Work::Pull { path, recursive })?;
        let mut first = None;
        loop {
            match receive(&mut visit.output).map_err(|e| refused(e.to_string()))? {
                Message::Entry(entry) => {
                    first.get_or_insert(Pulled { uid: entry.uid, gid: entry.gid, mode: entry.mode });
                    put(&entry, &mut visit.output).map_err(refused)?;
                }
                Message::Done => return first.ok_or_else(|| refused("nothing came".into())),
                Message::Failed(reason) => return Err(refused(reason)),
                Message::Data(_) => return Err(refused("data without a file came".into())),
            }
        }
    }

    /// Copies a file, or a directory with everything below, into a container: to `path`, or into it if
    /// that is a directory. Links on the way are followed within the container; one that stands where a
    /// file is to be is replaced. Each file is there whole or not at all.
    pub fn push(
        &self,
        name: &ContainerName,
        source: &Path,
        path: &Path,
        options: &PushOptions,
    ) -> Result<()> {
        let source = fs::canonicalize(source).map_err(Error::io(source))?;
        let file = source.file_name().unwrap_or(OsStr::new("root")).to_owned();
        let parent = source.parent().unwrap_or(Path::new("/"));
        let parent = File::open(parent).map_err(Error::io(parent))?;
        self.push_with(name, path, options, |out| {
            tree::read(parent.as_fd(), &file, Path::new(&file), options.recursive, out)
        })
    }

    /// Copies data into a file of a container, by default with mode 0644.
    pub fn push_from(
        &self,
        name: &ContainerName,
        data: &mut impl Read,
        path: &Path,
        options: &PushOptions,
    ) -> Result<()> {
        let file = path.file_name().unwrap_or(OsStr::new("data")).as_bytes().to_vec();
        self.push_with(name, path, options, |out| {
            let entry = Entry { path: file, kind: Kind::File, mode: 0o644, uid: 0, gid: 0, link: Vec::new() };
            let sent = send(out, &Message::Entry(entry)).and_then(|()| tree::copy(data, out));
            sent.map_err(|e| e.to_string())
        })
    }

    fn push_with<W>(&self, name: &ContainerName, path: &Path, options: &PushOptions, feed: W) -> Result<()>
    where
        W: FnOnce(&mut io::BufWriter<std::process::ChildStdin>) -> Step<()>,
    {
        let refused = |reason: String| Error::Files { name: name.to_string(), reason };
        let (path, options) = (path.as_os_str().as_bytes().to_vec(), options.clone());
        let mut visit = self.visit(name, Work::Push { path, options })?;
        let fed = feed(&mut visit.input).and_then(|()| {
            let done = send(&mut visit.input, &Message::Done).and_then(|()| visit.input.flush());
            done.map_err(|e| e.to_string())
        });
        if let Err(reason) = &fed {
            // So that it takes what it has as cut short.
            let told = send(&mut visit.input, &Message::Failed(reason.clone()));
            let _ = told.and_then(|()| visit.input.flush());
        }
        // Its reason, if it has one, is why we could not go on.
        match receive(&mut visit.output) {
            Ok(Message::Done) => fed.map_err(refused),
            Ok(Message::Failed(reason)) => Err(refused(reason)),
            Ok(_) => Err(refused("an unexpected answer came".into())),
            Err(error) => Err(refused(fed.err().unwrap_or_else(|| error.to_string()))),
        }
    }
}

/// Writes to `target`, or into it if it is a directory, as `name`.
fn writer(target: &Path, name: OsString) -> io::Result<Writer> {
    let (directory, name) = if target.is_dir() {
        (target, name)
    } else {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let name = target.file_name().ok_or(io::ErrorKind::NotFound)?;
        (parent.unwrap_or(Path::new(".")), name.to_owned())
    };
    Ok(Writer { directory: File::open(directory)?.into(), name, owner: None, mask: 0o777 })
}

/// The container's part.
pub(super) fn work(root: &OwnedFd, work: &Work, input: &mut impl Read, output: &mut impl Write) -> Step<()> {
    match work {
        Work::Pull { path, recursive } => pull(root, Path::new(OsStr::from_bytes(path)), *recursive, output),
        Work::Push { path, options } => push(root, Path::new(OsStr::from_bytes(path)), options, input),
        Work::Pack => publish::pack_tree(root, output),
    }
}

/// Resolves links as if the container's root were `/`.
fn open_within(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn pull(root: &OwnedFd, path: &Path, recursive: bool, output: &mut impl Write) -> Step<()> {
    let failed = failed(path);
    let (parent, name) = resolve(root, path).map_err(&failed)?;
    tree::read(
        parent.as_fd(),
        &name,
        path.file_name().map_or(Path::new("root"), Path::new),
        recursive,
        output,
    )
}

/// The directory something is in, and its name there, links followed.
fn resolve(root: &OwnedFd, path: &Path) -> rustix::io::Result<(OwnedFd, OsString)> {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return Ok((open_within(root, &path, OFlags::PATH | OFlags::DIRECTORY)?, ".".into()));
        };
        let directory = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let parent = open_within(root, &directory, OFlags::PATH | OFlags::DIRECTORY)?;
        let stat = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok((parent, name));
        }
        let link = rustix::fs::readlinkat(&parent, &name, Vec::new())?;
        path = directory.join(OsStr::from_bytes(link.as_bytes()));
    }
    Err(Errno::LOOP)
}

fn push(root: &OwnedFd, path: &Path, options: &PushOptions, input: &mut impl Read) -> Step<()> {
    let failed = failed(path);
    if options.parents {
        make_directories(root, path.parent().unwrap_or(Path::new("/"))).map_err(&failed)?;
    }
    let into = path.as_os_str().as_bytes().ends_with(b"/");
    let directory = open_within(root, path, OFlags::PATH | OFlags::DIRECTORY);
    let (directory, name) = match (directory, path.file_name()) {
        (Ok(directory), _) => (directory, None),
        (Err(Errno::NOENT | Errno::NOTDIR), Some(name)) if !into => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let parent = open_within(root, parent, OFlags::PATH | OFlags::DIRECTORY).map_err(&failed)?;
            (parent, Some(name.to_owned()))
        }
        (Err(error), _) => return Err(failed(error)),
    };
    let owner = Some((options.uid, options.gid));
    let mut writer = Writer { directory, name: name.clone().unwrap_or_default(), owner, mask: 0o777 };
    loop {
        match receive(input).map_err(|e| e.to_string())? {
            Message::Entry(mut entry) => {
                if name.is_none() {
                    let first = Path::new(OsStr::from_bytes(&entry.path)).components().next();
                    let Some(Component::Normal(first)) = first else {
                        return Err("a path without a name".into());
                    };
                    first.clone_into(&mut writer.name);
                }
                if let Some(mode) = options.mode.filter(|_| entry.kind == Kind::File) {
                    entry.mode = mode;
                    writer.mask = 0o7777;
                }
                writer.put(&entry, input)?;
            }
            Message::Done => return Ok(()),
            Message::Failed(reason) => return Err(reason),
            Message::Data(_) => return Err("data without a file came".into()),
        }
    }
}

fn make_directories(root: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    let mut done = PathBuf::from("/");
    for part in path.components() {
        let Component::Normal(part) = part else { continue };
        let parent = open_within(root, &done, OFlags::PATH | OFlags::DIRECTORY)?;
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            other => other?,
        }
        done.push(part);
    }
    Ok(())
}
