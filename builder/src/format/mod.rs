//! Which files an image is made of: one module for each format.

mod compression;
pub(crate) mod lxc;
pub(crate) mod lxd;
pub(crate) mod oci;
mod plan;
pub(crate) mod squashfs;

use std::collections::BTreeSet;
use std::str::FromStr;

use millstream_image::archive::Compression;

pub use compression::Setting;
pub(crate) use plan::Plan;

use crate::{Error, Result};

/// Something an image can be made as. Names and files:
///
/// | format | files |
/// |---|---|
/// | `image` | what a stream holds: `lxc`, `lxd` and `incus` |
/// | `lxc` | `rootfs.tar.xz`, `meta.tar.xz` |
/// | `lxd`, `incus` | `rootfs.tar.xz` with `lxd.tar.xz` or `incus.tar.xz` |
/// | `squashfs` | `rootfs.squashfs` with `lxd.tar.xz` and `incus.tar.xz` |
/// | `unified` | `unified.tar.xz`: metadata and root file system in one, for LXD and Incus |
/// | `oci` | `oci/`, an OCI image layout |
/// | `oci-tar` | `oci.tar`, the same as one file |
/// | `tar` | `rootfs.tar.xz` |
/// | `dir` | `rootfs/` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// What a stream holds.
    Image,
    /// For LXC.
    Lxc,
    /// For LXD, split.
    Lxd,
    /// For Incus, split.
    Incus,
    /// For LXD and Incus, split, the root file system as squashfs.
    Squashfs,
    /// For LXD and Incus, as one archive.
    Unified,
    /// OCI image layout.
    Oci,
    /// OCI image layout as one file.
    OciTar,
    /// The root file system as an archive.
    Tar,
    /// The root file system as a directory.
    Dir,
}

impl Format {
    /// All formats by name.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("image", Self::Image),
        ("lxc", Self::Lxc),
        ("lxd", Self::Lxd),
        ("incus", Self::Incus),
        ("squashfs", Self::Squashfs),
        ("unified", Self::Unified),
        ("oci", Self::Oci),
        ("oci-tar", Self::OciTar),
        ("tar", Self::Tar),
        ("dir", Self::Dir),
    ];
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, format)| *format).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            Error::Refused(format!("unknown format {text:?} (valid: {})", names.join(", ")))
        })
    }
}

/// The formats of one image, and how they are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formats {
    wanted: BTreeSet<Format>,
    compression: Option<Setting>,
}

impl Default for Formats {
    /// What a stream holds.
    fn default() -> Self {
        Self { wanted: BTreeSet::from([Format::Image]), compression: None }
    }
}

impl Formats {
    /// These formats, each compressed as usual or as `compression` says.
    ///
    /// # Errors
    /// For none at all, and for a compression one of them cannot have.
    pub fn new(wanted: impl IntoIterator<Item = Format>, compression: Option<Setting>) -> Result<Self> {
        let formats = Self { wanted: wanted.into_iter().collect(), compression };
        if formats.wanted.is_empty() {
            return Err(Error::Refused("no format is given".into()));
        }
        if formats.oci() && compression.is_some_and(|c| c.compression == Compression::Xz) {
            return Err(Error::Refused(
                "an OCI image cannot be compressed with xz; use gzip, zstd or none, or leave --compression out"
                    .into(),
            ));
        }
        Ok(formats)
    }

    /// Fails when the host lacks a program these formats need.
    ///
    /// # Errors
    /// With the program and the package it comes in.
    pub fn check_host(&self) -> Result<()> {
        if self.has(Format::Squashfs) { squashfs::check_host() } else { Ok(()) }
    }

    /// Whether the root file system stays as a directory.
    pub(crate) fn keep_directory(&self) -> bool {
        self.has(Format::Dir)
    }

    /// Whether there is nothing but that directory.
    pub(crate) fn only_directory(&self) -> bool {
        self.keep_directory() && self.wanted.len() == 1
    }

    /// Whether all there is are single files, which can be kept and copied.
    pub(crate) fn only_files(&self) -> bool {
        !self.has_any(&[Format::Dir, Format::Oci])
    }

    /// Whether an image in these can be started here: LXD's split form, as our own client has it.
    pub(crate) fn bootable(&self) -> bool {
        self.has_any(&[Format::Image, Format::Lxd, Format::Incus])
            && self.compression(Compression::Xz).compression == Compression::Xz
    }

    /// Reads what [`text`](Self::text) wrote.
    ///
    /// # Errors
    /// When it has names that are not known here.
    pub fn from_text(text: &str) -> Result<Self> {
        let (names, setting) = text.split_once(' ').map_or((text, None), |(names, rest)| (names, Some(rest)));
        let wanted = names.split(',').map(str::parse).collect::<Result<Vec<_>>>()?;
        Self::new(wanted, setting.map(str::parse).transpose()?)
    }

    /// As text, the same for the same.
    pub(crate) fn text(&self) -> String {
        let names = Format::NAMES.iter().filter(|(_, format)| self.has(*format)).map(|(name, _)| *name);
        let names = names.collect::<Vec<_>>().join(",");
        self.compression.map_or_else(|| names.clone(), |setting| format!("{names} {setting}"))
    }

    fn has(&self, format: Format) -> bool {
        self.wanted.contains(&format)
    }

    fn has_any(&self, formats: &[Format]) -> bool {
        formats.iter().any(|format| self.has(*format))
    }

    fn oci(&self) -> bool {
        self.has_any(&[Format::Oci, Format::OciTar])
    }

    /// The compression of files that are usually `usual`.
    fn compression(&self, usual: Compression) -> Setting {
        self.compression.unwrap_or(Setting::usual(usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_and_others_are_told_the_names() {
        for (name, format) in Format::NAMES {
            assert_eq!(name.parse::<Format>().unwrap(), format);
        }
        let error = "ocl".parse::<Format>().unwrap_err().to_string();
        assert!(error.contains("oci-tar"), "{error}");
    }

    #[test]
    fn text_is_read_back() {
        let setting = "zstd:19".parse().unwrap();
        for (formats, text) in [
            (Formats::default(), "image"),
            (Formats::new([Format::Tar, Format::Lxc], Some(setting)).unwrap(), "lxc,tar zstd:19"),
        ] {
            assert_eq!(formats.text(), text);
            assert_eq!(Formats::from_text(text).unwrap(), formats);
        }
    }

    #[test]
    fn an_oci_image_has_no_xz() {
        let xz = Some(Setting::usual(Compression::Xz));
        assert!(Formats::new([Format::OciTar], xz).is_err());
        assert!(Formats::new([Format::Unified], xz).is_ok());
        assert!(Formats::new([], None).is_err());
    }
}
