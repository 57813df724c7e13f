//! What an archive holds, without unpacking it; and unified images, which hold metadata and root file
//! system: `metadata.yaml`, `templates/`, `rootfs/` (LXD's and Incus' "Image format").

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::reader::{Entry, Kind, Reader};
use super::small::Member;
use super::{Limits, decoder, entry_error};
use crate::Result;

const YAML: &[u8] = b"metadata.yaml";
const TEMPLATES: &[u8] = b"templates/";
const ROOT: &[u8] = b"rootfs";
/// Largest sum of the metadata's files, in bytes.
const MAX_METADATA: u64 = 4 << 20;

/// What was found in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// `metadata.yaml` and what is in `templates/`.
    pub metadata: BTreeMap<PathBuf, Member>,
    /// Whether there is a `rootfs/`, as in a unified image.
    pub has_rootfs: bool,
    /// Entries of any kind.
    pub entries: u64,
}

/// Reads an archive to its end, as strictly as [`super::extract`] does, and unpacks nothing.
///
/// # Errors
/// The first bad entry or limit; also a file of the metadata that stands there twice or is too large.
pub fn inspect(reader: impl Read + Send, limits: &Limits) -> Result<Contents> {
    let mut archive = Reader::new(decoder(reader, limits)?, limits);
    let mut contents = Contents::default();
    let mut left = MAX_METADATA;
    while let Some(entry) = archive.next_entry()? {
        contents.entries += 1;
        contents.has_rootfs |= is_below_root(&entry.path);
        if entry.path != YAML && !entry.path.starts_with(TEMPLATES) || entry.kind == Kind::Directory {
            continue;
        }
        if entry.kind != Kind::File {
            return Err(entry_error(&entry.path, "the metadata may hold files only"));
        }
        left = left.checked_sub(entry.size).ok_or_else(|| {
            entry_error(&entry.path, format!("the metadata is larger than {MAX_METADATA} bytes"))
        })?;
        let mut data = vec![0; entry.size as usize];
        let mut at = 0;
        while at < data.len() {
            at += archive.data(&mut data[at..])?;
        }
        let path = PathBuf::from(OsString::from_vec(entry.path.clone()));
        if contents.metadata.insert(path, Member { mode: entry.mode, data }).is_some() {
            return Err(entry_error(&entry.path, "it stands in the archive twice"));
        }
    }
    Ok(contents)
}

fn is_below_root(path: &[u8]) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// An entry of a unified image as one of its root file system; `None` when it is none.
pub(super) fn below_root(mut entry: Entry) -> Result<Option<Entry>> {
    let Some(path) = stripped(&entry.path) else { return Ok(None) };
    if let Kind::HardLink(target) = &entry.kind {
        let target =
            stripped(target).ok_or_else(|| entry_error(&entry.path, "a hard link out of rootfs/"))?;
        entry.kind = Kind::HardLink(target);
    }
    if path.is_empty() && entry.kind != Kind::Directory {
        return Err(entry_error(&entry.path, "rootfs must be a directory"));
    }
    entry.path = path;
    Ok(Some(entry))
}

fn stripped(path: &[u8]) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(ROOT)?;
    if rest.is_empty() { Some(Vec::new()) } else { rest.strip_prefix(b"/").map(<[u8]>::to_vec) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{ExtractOptions, Ownership, extract};
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            let link = matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink);
            header.set_size(if link { 0 } else { text.len() as u64 });
            if link {
                header.set_link_name(text).unwrap();
            }
            header.set_path(path).unwrap();
            header.set_cksum();
            builder.append(&header, if link { &b""[..] } else { text.as_bytes() }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const DIR: tar::EntryType = tar::EntryType::Directory;

    fn unpack(bytes: &[u8]) -> Result<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        let options =
            ExtractOptions { unified: true, ownership: Ownership::Caller, ..ExtractOptions::default() };
        extract(bytes, dir.path(), &options).map(|_| dir)
    }

    #[test]
    fn a_unified_image_gives_its_metadata_and_its_root() {
        let bytes = archive(&[
            ("metadata.yaml", FILE, "x: 1"),
            ("templates/", DIR, ""),
            ("templates/a.tpl", FILE, "text"),
            ("rootfs/", DIR, ""),
            ("rootfs/etc/", DIR, ""),
            ("rootfs/etc/a", FILE, "hello"),
            ("rootfs/b", tar::EntryType::Link, "rootfs/etc/a"),
            ("rootfsx", FILE, "no"),
        ]);
        let contents = inspect(&bytes[..], &Limits::default()).unwrap();
        assert!(contents.has_rootfs && contents.entries == 8);
        let names: Vec<_> = contents.metadata.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["metadata.yaml", "templates/a.tpl"]);
        let dir = unpack(&bytes).unwrap();
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"hello");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing but what is in rootfs/");
    }

    #[test]
    fn what_leads_out_of_the_root_is_refused() {
        let link = tar::EntryType::Link;
        let yaml = ("metadata.yaml", FILE, "x");
        for bad in [
            archive(&[yaml, ("rootfs", FILE, "x")]),
            archive(&[yaml, ("rootfs/", DIR, ""), ("rootfs/a", link, "metadata.yaml")]),
            archive(&[
                ("rootfs/", DIR, ""),
                ("rootfs/a", tar::EntryType::Symlink, "/"),
                ("rootfs/a/b", FILE, "x"),
            ]),
        ] {
            assert!(unpack(&bad).is_err());
        }
        let limits = Limits::default();
        assert!(
            inspect(&archive(&[("metadata.yaml", tar::EntryType::Symlink, "/etc/passwd")])[..], &limits)
                .is_err()
        );
        assert!(inspect(&archive(&[yaml, yaml])[..], &limits).is_err(), "twice");
        let large = "x".repeat(MAX_METADATA as usize + 1);
        assert!(inspect(&archive(&[("metadata.yaml", FILE, &large)])[..], &limits).is_err(), "too large");
        let whole = archive(&[yaml]);
        assert!(inspect(&whole[..700], &limits).is_err(), "cut off");
    }
}
