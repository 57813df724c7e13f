//! rpm's database as the new root file system's own rpm wants it: distributions differ in its place
//! and in its format, and the host's may differ from all of them.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use rusqlite::Connection;

use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result};

use super::super::workshop::Workshop;

/// Where the host's rpm writes it.
pub(super) const PLACE: &str = "/var/lib/rpm";
/// Where it may be in the end.
const PLACES: [&str; 2] = [PLACE, "/usr/lib/sysimage/rpm"];

/// Writes the packages' headers out and has them read by the rpm inside, or by the host's where there
/// is none. Keys, which have the hour in them, are left out: dnf takes them again from where the image's
/// repositories say. What stays depends on the packages alone.
const SCRIPT: &str = r#"
if rpm --root /rootfs -q gpg-pubkey > there 2>&1; then rpm --root /rootfs -e --allmatches gpg-pubkey; fi
rpmdb --root /rootfs --exportdb > headers
rm -rf /rootfs/var/lib/rpm
inside=
if [ -x /rootfs/usr/bin/rpmdb ]; then inside="chroot /rootfs"; fi
if [ -n "$inside" ]; then
    place=$(HOME=/ $inside /usr/bin/rpm --eval '%{_dbpath}')
else
    place=/var/lib/rpm
    if [ -d /rootfs/usr/lib/sysimage/rpm ]; then place=/usr/lib/sysimage/rpm; fi
fi
case $place in /*) ;; *) echo "rpm's database has no place: $place"; exit 1;; esac
mkdir -p /rootfs/var/lib "/rootfs$place"
if [ "$place" != /var/lib/rpm ]; then ln -s "../..$place" /rootfs/var/lib/rpm; fi
if [ -n "$inside" ]; then
    HOME=/ $inside /usr/bin/rpmdb --initdb
    HOME=/ $inside /usr/bin/rpmdb --importdb < headers
    HOME=/ $inside /usr/bin/rpm -qa > there
else
    rpmdb --root /rootfs --dbpath "$place" --initdb
    rpmdb --root /rootfs --dbpath "$place" --importdb < headers
    rpm --root /rootfs --dbpath "$place" -qa > there
fi
if [ ! -s there ]; then echo "no package is in the database"; exit 1; fi
"#;

/// Puts the database of `root` where and how the root file system's own rpm expects it.
pub(super) fn settle(workshop: &Workshop, root: &Path, scripts: &Scripts<'_>) -> Result<()> {
    workshop.run(scripts, "writing rpm's database", SCRIPT, false)?;
    let rootfs = Rootfs::open(root)?;
    let parent = root.parent().unwrap_or(Path::new("."));
    // Not where scripts could have been before.
    let scratch =
        tempfile::Builder::new().prefix("database-").tempdir_in(parent).map_err(Error::io(parent))?;
    PLACES.iter().try_for_each(|directory| tidy(&rootfs, scratch.path(), directory))
}

/// sqlite's journal has random numbers in it, and rpm leaves it behind: what is in it goes into the
/// database.
fn tidy(rootfs: &Rootfs, work: &Path, directory: &str) -> Result<()> {
    let place = format!("{directory}/rpmdb.sqlite");
    let Some(data) = rootfs.read(&place)? else { return Ok(()) };
    let copy = work.join("rpmdb.sqlite");
    let write =
        |name: &str, data: &[u8]| fs::write(work.join(name), data).map_err(Error::io(work.join(name)));
    write("rpmdb.sqlite", &data)?;
    if let Some(journal) = rootfs.read(&format!("{place}-wal"))? {
        write("rpmdb.sqlite-wal", &journal)?;
    }
    let settled = Connection::open(&copy).and_then(|database| {
        database.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
        database.execute_batch("VACUUM")
    });
    settled.map_err(|error| Error::Refused(format!("{place}: {error}")))?;
    let data = fs::read(&copy).map_err(Error::io(&copy))?;
    rootfs.write_from(&place, Cursor::new(data), Attributes::default())?;
    rootfs.remove(&format!("{place}-wal"))?;
    rootfs.remove(&format!("{place}-shm"))
}
