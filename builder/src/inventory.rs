//! What is installed in a root file system, whichever package manager it has.

use millstream_image::archive::FileGroup;
use millstream_image::manifest;

use crate::Result;
use crate::apt::database;
use crate::rootfs::Rootfs;
use crate::source::Origin;

/// Every installed package, with the hash of its file where that is known.
pub(crate) fn packages(rootfs: &Rootfs, origin: &Origin) -> Result<Vec<manifest::Package>> {
    let none = std::collections::BTreeMap::new();
    database::packages(rootfs, origin.installed.as_ref().map_or(&none, |installed| &installed.hashes))
}

/// The files of each package, for the order of the archive.
pub(crate) fn groups(rootfs: &Rootfs) -> Result<Vec<FileGroup>> {
    database::groups(rootfs)
}

/// Databases of package managers, and the type their packages have in package URLs.
const DATABASES: [(&str, &str); 7] = [
    ("/var/lib/dpkg/status", "deb"),
    ("/lib/apk/db/installed", "apk"),
    ("/usr/lib/opkg/status", "opkg"),
    ("/var/lib/rpm", "rpm"),
    ("/usr/lib/sysimage/rpm", "rpm"),
    ("/var/lib/pacman/local", "alpm"),
    ("/var/db/xbps", "xbps"),
];

/// The type of the packages in package URLs: `deb`, `rpm`, …
pub(crate) fn kind(rootfs: &Rootfs) -> Result<&'static str> {
    for (database, kind) in DATABASES {
        if rootfs.exists(database)? {
            return Ok(kind);
        }
    }
    Ok("generic")
}
