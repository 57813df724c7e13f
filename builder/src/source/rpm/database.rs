//! rpm's database as the new root file system's own rpm wants it: distributions differ in its place
//! and in its format, and the host's may differ from all of them.

use std::path::Path;

use crate::Result;
use crate::rootfs::Rootfs;
use crate::rpmdb::{self, PLACES};
use crate::script::Scripts;

use super::super::workshop::Workshop;

/// Where the host's rpm writes it.
pub(super) const PLACE: &str = "/var/lib/rpm";

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
    PLACES.iter().try_for_each(|directory| rpmdb::tidy(&Rootfs::open(root)?, directory))
}
