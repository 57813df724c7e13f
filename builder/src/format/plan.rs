//! One pass over the root file system that feeds every archive wanted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use millstream_image::archive::{
    Blocks, Compression, Layout, Member, PackOptions, Packed, Sink, pack_each, pack_members,
};
use millstream_image::{Sha256Digest, manifest};
use millstream_runtime::CancelToken;

use super::{Format, Formats, Setting, oci, squashfs};
use crate::{Error, Result};

/// The layer of an OCI image until its digest is known.
const LAYER: &str = ".layer";
/// What the writer of squashfs says.
const SAID: &str = ".squashfs.log";
const SQUASHFS: &str = "rootfs.squashfs";

/// Files of the image by name.
type Files = BTreeMap<String, manifest::File>;

/// What is made of a root file system, and with what.
pub(crate) struct Plan<'a> {
    pub(crate) formats: &'a Formats,
    /// Threads of whatever has some.
    pub(crate) threads: usize,
    /// Members of LXC's `meta.tar.xz`.
    pub(crate) lxc: &'a BTreeMap<PathBuf, Member>,
    /// Members of the metadata for LXD and Incus.
    pub(crate) lxd: &'a BTreeMap<PathBuf, Member>,
    /// What an OCI image says of itself.
    pub(crate) oci: oci::About,
    /// How archives are packed.
    pub(crate) options: PackOptions,
    /// Stops the work.
    pub(crate) cancel: &'a CancelToken,
}

/// What an archive of the pass becomes.
enum Target {
    /// A file of the image.
    File(String),
    /// The layer of an OCI image.
    Layer(Setting),
    /// The input of the writer of squashfs.
    Squashfs,
}

impl Plan<'_> {
    /// Makes everything in `work`. Returns the files, how compressed blocks came about, and what tools
    /// had to say.
    pub(crate) fn run(&self, work: &Path, root: &Path) -> Result<(Files, Blocks, String)> {
        let mut sinks: Vec<Sink<Box<dyn Write>>> = Vec::new();
        let mut targets = Vec::new();
        let mut add = |target, out: Box<dyn Write>, setting: Setting, layout, lead: &BTreeMap<_, _>| {
            let Setting { compression, level } = setting;
            sinks.push(Sink { out, compression, level, layout, lead: lead.clone() });
            targets.push(target);
        };
        let none = BTreeMap::new();
        let xz = self.formats.compression(Compression::Xz);
        if self.formats.has_any(&[Format::Image, Format::Lxc, Format::Lxd, Format::Incus, Format::Tar]) {
            let name = format!("rootfs.tar{}", xz.extension());
            let out = create(&work.join(&name))?;
            add(Target::File(name), Box::new(out), xz, Layout::Plain, &none);
        }
        if self.formats.has(Format::Unified) {
            let name = format!("unified.tar{}", xz.extension());
            let out = create(&work.join(&name))?;
            add(Target::File(name), Box::new(out), xz, Layout::Rootfs, self.lxd);
        }
        if self.formats.oci() {
            oci::check(root)?;
            let setting = self.formats.compression(Compression::Gzip);
            let out = create(&work.join(LAYER))?;
            add(Target::Layer(setting), Box::new(out), setting, Layout::Plain, &none);
        }
        let mut tool = None;
        if self.formats.has(Format::Squashfs) {
            let (epoch, threads) = (self.options.epoch, self.threads);
            let (out, said) = (work.join(SQUASHFS), work.join(SAID));
            let (running, input) = squashfs::Squashfs::start(root, &out, &said, xz, epoch, threads)?;
            let plain = Setting::usual(Compression::None);
            add(Target::Squashfs, Box::new(input), plain, Layout::Squashfs, &none);
            tool = Some(running);
        }
        let packed = match pack_each(root, sinks, &self.options) {
            Ok(packed) => packed,
            Err(error) => {
                let error = Error::from(error);
                return Err(match tool {
                    Some(tool) => tool.explain(error, self.cancel),
                    None => error,
                });
            }
        };
        let mut files = self.metadata(work)?;
        let (mut said, mut blocks) = (String::new(), Blocks::default());
        for (target, (out, packed)) in targets.into_iter().zip(packed) {
            // Closes the pipe, whose reader then knows that this was all.
            drop(out);
            blocks.compressed += packed.blocks.compressed;
            blocks.cached += packed.blocks.cached;
            match target {
                Target::File(name) => {
                    sync(&work.join(&name))?;
                    files.insert(name, file(&packed));
                }
                Target::Layer(setting) => {
                    sync(&work.join(LAYER))?;
                    files.extend(self.oci(work, setting, &packed)?);
                }
                Target::Squashfs => {
                    if let Some(tool) = tool.take() {
                        said = tool.finish(self.cancel)?;
                    }
                    files.insert(SQUASHFS.into(), whole(&work.join(SQUASHFS))?);
                }
            }
        }
        Ok((files, blocks, said))
    }

    /// The small archives beside the root file system.
    fn metadata(&self, work: &Path) -> Result<Files> {
        let options = PackOptions { epoch: self.options.epoch, ..PackOptions::default() };
        let wanted = [
            ("meta.tar.xz", self.lxc, &[Format::Image, Format::Lxc][..]),
            ("lxd.tar.xz", self.lxd, &[Format::Image, Format::Lxd, Format::Squashfs]),
            ("incus.tar.xz", self.lxd, &[Format::Image, Format::Incus, Format::Squashfs]),
        ];
        let mut files = Files::new();
        for (name, members, _) in wanted.into_iter().filter(|(.., formats)| self.formats.has_any(formats)) {
            let path = work.join(name);
            let (out, packed) = pack_members(members, create(&path)?, &options)?;
            out.sync_all().map_err(Error::io(&path))?;
            files.insert(name.to_owned(), file(&packed));
        }
        Ok(files)
    }

    /// The layout around a layer; as a directory, as a file, or both.
    fn oci(&self, work: &Path, setting: Setting, packed: &Packed) -> Result<Files> {
        let directory = work.join(oci::DIRECTORY);
        oci::write(&directory, &work.join(LAYER), setting, packed, &self.oci)?;
        let mut files = Files::new();
        if self.formats.has(Format::OciTar) {
            let path = work.join(oci::FILE);
            let out = create(&path)?;
            let (out, packed) = oci::archive(&directory, out, &self.oci)?;
            out.sync_all().map_err(Error::io(&path))?;
            files.insert(oci::FILE.into(), file(&packed));
        }
        if !self.formats.has(Format::Oci) {
            fs::remove_dir_all(&directory).map_err(Error::io(&directory))?;
        }
        Ok(files)
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(Error::io(path))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io(path))
}

fn file(packed: &Packed) -> manifest::File {
    manifest::File {
        size: packed.size,
        sha256: packed.sha256,
        sha256_uncompressed: Some(packed.sha256_uncompressed),
        size_uncompressed: Some(packed.size_uncompressed),
    }
}

/// A file that is no archive of ours.
fn whole(path: &Path) -> Result<manifest::File> {
    let file = File::open(path).map_err(Error::io(path))?;
    let (sha256, size) = Sha256Digest::of_reader(file).map_err(Error::io(path))?;
    Ok(manifest::File { size, sha256, sha256_uncompressed: None, size_uncompressed: None })
}
