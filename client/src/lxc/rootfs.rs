//! The root file system: unpacked strictly, then touched as LXC's template does, never through a
//! link.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use millstream_image::archive::{Devices, ExtractOptions, Ownership, extract};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{Error, Result};

/// No file with placeholders is larger, in bytes.
const MAX_TEMPLATE: u64 = 1 << 20;
/// What a fresh file system of its own holds.
const LOST_AND_FOUND: &str = "lost+found";

/// Unpacks an archive into the directory that LXC has made. Device nodes are left out: LXC gives
/// every container a `/dev` of its own.
pub(super) fn unpack(archive: impl Read + Send, rootfs: &Path) -> Result<(), millstream_image::Error> {
    let own = rootfs.join(LOST_AND_FOUND);
    // Not empty: then unpacking says what is wrong.
    let removed = fs::remove_dir(&own).is_ok();
    let options =
        ExtractOptions { devices: Devices::Skip, ownership: Ownership::Keep, ..ExtractOptions::default() };
    let result = extract(archive, rootfs, &options);
    if removed {
        let _ = fs::create_dir(own); // fsck makes it again where this fails.
    }
    result.map(drop)
}

/// Takes away what an unfinished unpacking left.
pub(super) fn clear(rootfs: &Path) -> io::Result<()> {
    for entry in fs::read_dir(rootfs)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

/// Removes what a pattern of `excludes` names: a path from the root, where `*` and `?` also stand
/// for slashes, as tar has it.
pub(super) fn exclude(rootfs: &Path, pattern: &str) -> Result<(), String> {
    let pattern = pattern.trim_start_matches("./").trim_start_matches('/');
    if pattern.contains(['[', '\\']) || pattern.split('/').any(|part| part == "..") {
        return Err(format!("excludes: {pattern:?} is no pattern of * and ?"));
    }
    let literal = pattern.split(['*', '?']).next().unwrap_or_default();
    let start = literal.rsplit_once('/').map_or("", |(dir, _)| dir);
    let Some(dir) = real_directory(rootfs, start) else { return Ok(()) };
    remove(rootfs, &dir, pattern.as_bytes()).map_err(|e| format!("excludes: {pattern}: {e}"))
}

fn remove(rootfs: &Path, dir: &Path, pattern: &[u8]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let is_dir = entry.file_type()?.is_dir();
        let relative = path.strip_prefix(rootfs).unwrap_or(&path).as_os_str().as_bytes();
        if matches(pattern, relative) {
            if is_dir { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        } else if is_dir {
            remove(rootfs, &path, pattern)?;
        }
    }
    Ok(())
}

/// Whether `*` for anything and `?` for one byte make the pattern the text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last `*` stands, and where in the text it was tried last.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, tried)) = star else { return false };
                (p, t, star) = (at + 1, tried + 1, Some((at, tried + 1)));
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The directory at `path`, unless a link leads there or nothing is there.
fn real_directory(rootfs: &Path, path: &str) -> Option<PathBuf> {
    let mut dir = rootfs.to_path_buf();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        dir.push(part);
        if !fs::symlink_metadata(&dir).ok()?.is_dir() {
            return None;
        }
    }
    Some(dir)
}

/// Makes `dev/pts`, where LXC mounts terminals.
pub(super) fn make_dev_pts(rootfs: &Path) -> Result<()> {
    for name in ["dev", "dev/pts"] {
        let path = rootfs.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(Error::document(path.display().to_string(), "not a directory; refused")),
            Err(_) => fs::create_dir(&path).map_err(Error::io(&path))?,
        }
    }
    Ok(())
}

/// Rewrites a file of the root file system in place, if it is there.
pub(super) fn rewrite(rootfs: &Path, path: &str, change: impl Fn(&str) -> String) -> Result<()> {
    let shown = rootfs.join(path.trim_start_matches('/'));
    let refused = |reason: &str| Error::document(shown.display().to_string(), format!("{reason}; refused"));
    let file = match open_beneath(rootfs, path.trim_start_matches('/')) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::ISDIR) => return Ok(()),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::XDEV | rustix::io::Errno::NOTDIR) => {
            return Err(refused("the image wants it filled in, but its path leads through a link"));
        }
        Err(error) => return Err(Error::io(&shown)(error.into())),
    };
    let meta = file.metadata().map_err(Error::io(&shown))?;
    if !meta.is_file() {
        return Ok(());
    }
    if meta.len() > MAX_TEMPLATE {
        return Err(refused("the image wants it filled in, but it is larger than 1 MiB"));
    }
    rewrite_open(file, change).map_err(Error::io(&shown))
}

fn rewrite_open(mut file: File, change: impl Fn(&str) -> String) -> io::Result<()> {
    let mut text = String::new();
    // What is not text has no placeholders.
    match file.read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(()),
        other => other?,
    };
    let changed = change(&text);
    if changed != text {
        file.rewind()?;
        file.write_all(changed.as_bytes())?;
        file.set_len(changed.len() as u64)?;
    }
    Ok(())
}

fn open_beneath(rootfs: &Path, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, flags, Mode::empty())?;
    let beneath = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::openat2(root, path, flags, Mode::empty(), beneath)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn patterns_match_as_tars_do() {
        for (pattern, text) in
            [("dev/*", "dev/a"), ("dev/*", "dev/a/b"), ("*", "x"), ("a?c", "abc"), ("a", "a")]
        {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("dev/*", "dev"), ("dev/*", "devel/x"), ("a", "ab"), ("a?", "a")] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn excludes_and_placeholders_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (rootfs, outside) = (dir.path().join("rootfs"), dir.path().join("outside"));
        for dir in [rootfs.join("dev/sub"), rootfs.join("etc"), outside.clone()] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(rootfs.join("dev/sub/x"), "").unwrap();
        fs::write(outside.join("file"), "LXC_NAME").unwrap();
        symlink(&outside, rootfs.join("link")).unwrap();
        symlink(outside.join("file"), rootfs.join("etc/linked")).unwrap();
        exclude(&rootfs, "./dev/*").unwrap();
        exclude(&rootfs, "./link/*").unwrap();
        assert!(rootfs.join("dev").is_dir() && !rootfs.join("dev/sub").exists());
        assert!(outside.join("file").exists(), "what a link leads to stays");
        assert!(exclude(&rootfs, "../outside/*").is_err());

        fs::write(rootfs.join("etc/hostname"), "LXC_NAME\n").unwrap();
        let fill = |text: &str| text.replace("LXC_NAME", "c1");
        rewrite(&rootfs, "/etc/hostname", fill).unwrap();
        assert_eq!(fs::read_to_string(rootfs.join("etc/hostname")).unwrap(), "c1\n");
        rewrite(&rootfs, "etc/missing", fill).unwrap();
        for bad in ["etc/linked", "link/file", "../outside/file", "/etc/../../outside/file"] {
            assert!(rewrite(&rootfs, bad, fill).is_err(), "{bad}");
        }
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "LXC_NAME");
        make_dev_pts(&rootfs).unwrap();
        fs::remove_dir_all(rootfs.join("dev")).unwrap();
        symlink(&outside, rootfs.join("dev")).unwrap();
        assert!(make_dev_pts(&rootfs).is_err());
    }
}
