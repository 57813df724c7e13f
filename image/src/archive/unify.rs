//! Makes a unified image of metadata and a packed root file system, entry by entry: nothing is unpacked,
//! and nobody's rights are needed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::reader::{Entry, Kind, Reader};
use super::small::Member;
use super::write::{Header, Stream, padding};
use super::{Layout, Limits, PackOptions, Packed, decoder, sparse};
use crate::{Error, Result};

/// Bytes copied at a time.
const CHUNK: usize = 128 << 10;

/// Writes `metadata`, whose times become the epoch of `options`, and below `rootfs/` every entry of the
/// archive `rootfs`, in its order. Memory is bounded by what both coders need.
///
/// # Errors
/// The first entry that is bad, as [`super::extract`] judges; what was written then is no image.
pub fn unify<W: Write>(
    metadata: &BTreeMap<PathBuf, Member>,
    rootfs: impl Read + Send,
    out: W,
    (limits, options): (&Limits, &PackOptions),
) -> Result<(W, Packed)> {
    let mut archive = Reader::new(decoder(rootfs, limits)?, limits);
    let mut stream = Stream::new(out, Layout::Rootfs, options);
    stream.members(metadata, options.epoch)?;
    let mut buffer = vec![0; CHUNK];
    while let Some(entry) = archive.next_entry()? {
        options.watch.check().map_err(Error::io("archive"))?;
        let map = archive.map();
        copy_header(&mut stream, entry, map.as_ref())?;
        // A map is padded by itself.
        let text = map.map(|map| map.to_bytes()).unwrap_or_default();
        stream.out.write_all(&text).map_err(Error::io("archive"))?;
        let copied = copy_data(&mut archive, &mut stream, &mut buffer)?;
        stream.out.write_all(padding(copied)).map_err(Error::io("archive"))?;
    }
    stream.finish()
}

fn copy_header<W: Write>(stream: &mut Stream<W>, entry: Entry, map: Option<&sparse::Map>) -> Result<()> {
    let mut header = Header {
        kind: b'0',
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime: entry.mtime,
        nanos: entry.mtime_nanos.into(),
        xattrs: entry.xattrs,
        ..Header::default()
    };
    if let Some(map) = map {
        header.sparse = Some(entry.size);
        header.size = map.to_bytes().len() as u64 + map.data();
    }
    let mut first = None;
    match entry.kind {
        Kind::File => {}
        Kind::Directory => header.kind = b'5',
        Kind::Fifo => header.kind = b'6',
        Kind::Symlink(target) => (header.kind, header.link) = (b'2', target),
        Kind::HardLink(target) => (header.kind, first) = (b'1', Some(target)),
        Kind::CharDevice(major, minor) => (header.kind, header.major, header.minor) = (b'3', major, minor),
        Kind::BlockDevice(major, minor) => (header.kind, header.major, header.minor) = (b'4', major, minor),
    }
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let first = first.map(|target| path(&target));
    stream.entry(&path(&entry.path), header, first.as_deref())
}

/// Copies what the archive holds of the present entry, without holes; the number of bytes.
fn copy_data<R: Read, W: Write>(
    archive: &mut Reader<R>,
    stream: &mut Stream<W>,
    buffer: &mut [u8],
) -> Result<u64> {
    let mut copied = 0;
    loop {
        archive.skip_hole();
        let count = archive.data(buffer)?;
        if count == 0 {
            return Ok(copied);
        }
        stream.out.write_all(&buffer[..count]).map_err(Error::io("archive"))?;
        copied += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Seek, SeekFrom};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::{Compression, Sink, XzOptions, inspect, pack, pack_each};
    use super::*;

    fn tree(root: &Path) {
        let deep = root.join("a".repeat(90)).join("b".repeat(90));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "deep").unwrap();
        fs::write(root.join("empty"), "").unwrap();
        fs::write(root.join("data"), vec![7; 300_000]).unwrap();
        fs::hard_link(deep.join("file"), root.join("z-second")).unwrap();
        symlink("../x/".repeat(60), root.join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        rustix::fs::setxattr(root.join("data"), "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
        for (name, begin, end) in
            [("holes", 1 << 20, 1 << 20), ("hole-last", 5000, 3 << 20), ("hole", 0, 1 << 20)]
        {
            let mut file = File::create(root.join(name)).unwrap();
            if begin > 0 {
                file.write_all(&vec![1; 5000]).unwrap();
                file.seek(SeekFrom::Start(begin)).unwrap();
                file.write_all(b"end").unwrap();
            }
            file.set_len(end + u64::from(name == "holes") * 3).unwrap();
        }
    }

    /// The very bytes that packing the tree as a unified image gives.
    #[test]
    fn a_unified_image_of_the_parts_is_that_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let options = PackOptions { epoch: 1, ..PackOptions::default() };
        let metadata = BTreeMap::from([
            (PathBuf::from("metadata.yaml"), Member::file("architecture: x86_64\n")),
            (PathBuf::from("templates/hosts.tpl"), Member::file("x")),
        ]);
        let sink = Sink {
            out: Vec::new(),
            compression: Compression::None,
            level: 0,
            layout: Layout::Rootfs,
            lead: metadata.clone(),
        };
        let expected = pack_each(dir.path(), vec![sink], &options).unwrap().swap_remove(0).0;
        let (rootfs, _) = pack(dir.path(), Vec::new(), &options).unwrap();
        let plain = PackOptions { compression: Compression::None, ..options.clone() };
        let limits = Limits::default();
        let (unified, _) = unify(&metadata, rootfs.as_slice(), Vec::new(), (&limits, &plain)).unwrap();
        assert!(unified == expected, "{} and {} bytes", unified.len(), expected.len());
        let xz = PackOptions { xz: XzOptions { block_size: 65_536, ..options.xz }, ..options };
        let (unified, _) = unify(&metadata, rootfs.as_slice(), Vec::new(), (&limits, &xz)).unwrap();
        let contents = inspect(unified.as_slice(), &limits).unwrap();
        assert!(contents.has_rootfs && contents.metadata == metadata);
    }

    #[test]
    fn a_broken_archive_makes_no_image() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let options = PackOptions { compression: Compression::None, ..PackOptions::default() };
        let (rootfs, _) = pack(dir.path(), Vec::new(), &options).unwrap();
        let limits = Limits::default();
        for end in [0, 100, 5000, rootfs.len() - 1024] {
            let cut = &rootfs[..end];
            assert!(unify(&BTreeMap::new(), cut, Vec::new(), (&limits, &options)).is_err(), "{end}");
        }
    }
}
