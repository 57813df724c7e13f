//! From an image's two files to a container that `lxc-start` starts.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::compose::{self, Values};
use super::meta::Meta;
use super::{Files, Mode, allowed, rootfs};
use crate::{Error, Result};

/// Where LXC keeps the files that configurations include, in the order tried.
const SHARES: [&str; 2] = ["/usr/share/lxc", "/usr/local/share/lxc"];

/// What `lxc-create` tells its template.
#[derive(Clone, Debug)]
pub struct Container {
    /// The container's name.
    pub name: String,
    /// Its directory, with the `config` that `lxc-create` has begun.
    pub path: PathBuf,
    /// Where its root file system goes: a directory with nothing in it.
    pub rootfs: PathBuf,
    /// Which of the image's configurations is meant.
    pub mode: Mode,
    /// The user and group who called `lxc-create`, as seen in this namespace.
    pub owner: (Option<u32>, Option<u32>),
    /// The directory that holds LXC's `config/` and `hooks/`; `None` for the usual one.
    pub share: Option<PathBuf>,
}

/// Unpacks the image and completes the container's configuration; returns what the image has to say
/// to whoever created the container. The configuration is checked before anything is unpacked, and
/// written last. `unpacked` says that [`unpack`] has unpacked the very image already.
///
/// # Errors
/// What is wrong with the image, or which file cannot be written. `lxc-create` then removes the
/// container.
pub fn create(container: &Container, files: &Files, unpacked: bool) -> Result<String> {
    let (mode, meta) = (container.mode, Meta::read(&files.meta)?);
    let config = meta.text("config", mode)?.ok_or_else(|| meta.bad("it holds no config"))?;
    let fstab = meta.text("fstab", mode)?;
    allowed::config(config).map_err(|reason| meta.bad(format!("config, {reason}; refused")))?;
    allowed::fstab(fstab.unwrap_or_default())
        .map_err(|reason| meta.bad(format!("fstab, {reason}; refused")))?;

    if !unpacked {
        let archive = File::open(&files.rootfs).map_err(Error::io(&files.rootfs))?;
        rootfs::unpack(archive, &container.rootfs).map_err(|e| match e {
            millstream_image::Error::Archive { .. } => Error::document(files.rootfs.display().to_string(), e),
            other => other.into(),
        })?;
    }
    for pattern in meta.lines("excludes", mode)? {
        rootfs::exclude(&container.rootfs, pattern).map_err(|reason| meta.bad(reason))?;
    }
    rootfs::make_dev_pts(&container.rootfs)?;
    complete(container, &meta, config, fstab)?;
    Ok(meta.text("create-message", mode)?.unwrap_or_default().to_owned())
}

/// Unpacks a root file system while it comes into the directory that LXC has made. After a failure the
/// directory is empty again, and `false` is returned.
pub fn unpack(archive: impl Read + Send, rootfs: &Path) -> bool {
    let done = rootfs::unpack(archive, rootfs).is_ok();
    if !done {
        // Where this fails, unpacking once more says why.
        let _ = rootfs::clear(rootfs);
    }
    done
}

fn complete(container: &Container, meta: &Meta, config: &str, fstab: Option<&str>) -> Result<()> {
    let usual = || SHARES.iter().map(PathBuf::from).find(|share| share.join("config").is_dir());
    let share = container.share.clone().or_else(usual).unwrap_or_else(|| SHARES[0].into());
    let text = |path: &Path| {
        let text = path.to_str().filter(|text| !text.contains('\n'));
        text.map(str::to_owned)
            .ok_or_else(|| Error::name(&path.display().to_string(), "not a path LXC can read"))
    };
    let (path, root) = (text(&container.path)?, text(&container.rootfs)?);
    let (template_config, hooks) = (text(&share.join("config"))?, text(&share.join("hooks"))?);
    let values = Values {
        name: &container.name,
        path: &path,
        rootfs: &root,
        template_config: &template_config,
        hooks: &hooks,
    };
    for path in meta.lines("templates", container.mode)? {
        rootfs::rewrite(&container.rootfs, path, |text| values.fill(text))?;
    }
    // Upstart's terminals hang up, which fails in a user namespace.
    let nohangup = |text: &str| {
        let line = |line: &str| line.replacen("mingetty", "mingetty --nohangup", 1);
        text.split('\n').map(line).collect::<Vec<_>>().join("\n")
    };
    rootfs::rewrite(&container.rootfs, "etc/init/tty.conf", nohangup)?;

    if let Some(fstab) = fstab {
        write(container, "fstab", &values.fill(fstab))?;
    }
    let file = container.path.join("config");
    let begun = fs::read_to_string(&file).map_err(Error::io(&file))?;
    write(container, "config", &compose::config(&begun, config, fstab.is_some(), &values))
}

/// Replaces a file of the container's directory, which keeps its mode and becomes the caller's.
fn write(container: &Container, name: &str, text: &str) -> Result<()> {
    let (dir, path) = (&container.path, container.path.join(name));
    let mode = fs::metadata(&path).map_or(0o644, |meta| meta.mode() & 0o777);
    let mut temp = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(Error::io(dir))?;
    temp.write_all(text.as_bytes()).map_err(Error::io(&path))?;
    own(temp.as_file(), container.owner).map_err(Error::io(&path))?;
    temp.as_file().set_permissions(Permissions::from_mode(mode)).map_err(Error::io(&path))?;
    temp.as_file().sync_all().map_err(Error::io(&path))?;
    temp.persist(&path).map_err(|e| Error::io(&path)(e.error))?;
    Ok(())
}

fn own(file: &File, (uid, gid): (Option<u32>, Option<u32>)) -> std::io::Result<()> {
    Ok(rustix::fs::fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?)
}
