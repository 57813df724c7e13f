//! What is installed in a root file system, whichever package manager it has.

mod apk;
mod berkeley;
mod lists;
mod pacman;
mod rpm;
mod xbps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use millstream_image::archive::FileGroup;
use millstream_image::manifest;

use crate::Result;
use crate::apt::database;
use crate::rootfs::Rootfs;
use crate::source::Origin;

/// A package and the files it owns, relative to the root.
#[derive(Debug, Default, PartialEq)]
struct Entry {
    name: String,
    version: String,
    architecture: String,
    files: Vec<PathBuf>,
}

impl Entry {
    /// A file as databases write it, with or without the first slash.
    fn add(&mut self, path: &str) {
        let path = path.trim_start_matches('/').trim_end_matches('/');
        if !path.is_empty() {
            self.files.push(path.into());
        }
    }
}

/// Every installed package, with the hash of its file where that is known.
pub(crate) fn packages(rootfs: &Rootfs, origin: &Origin) -> Result<Vec<manifest::Package>> {
    let none = BTreeMap::new();
    let mut packages =
        database::packages(rootfs, origin.installed.as_ref().map_or(&none, |installed| &installed.hashes))?;
    packages.extend(entries(rootfs)?.into_iter().map(|entry| manifest::Package {
        name: entry.name,
        version: entry.version,
        architecture: entry.architecture,
        sha256: None,
    }));
    packages
        .sort_by(|a, b| (&a.name, &a.architecture, &a.version).cmp(&(&b.name, &b.architecture, &b.version)));
    Ok(packages)
}

/// The files of each package, for the order of the archive.
pub(crate) fn groups(rootfs: &Rootfs, origin: &Origin) -> Result<Vec<FileGroup>> {
    let mut groups = Vec::new();
    if rootfs.exists("/var/lib/dpkg/info")? {
        let none = BTreeSet::new();
        groups =
            database::groups(rootfs, origin.installed.as_ref().map_or(&none, |installed| &installed.names))?;
    }
    groups.extend(entries(rootfs)?.into_iter().map(|entry| FileGroup { paths: entry.files }));
    Ok(groups)
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

/// What the databases of all managers but dpkg have, by name.
fn entries(rootfs: &Rootfs) -> Result<Vec<Entry>> {
    let readers =
        [apk::read, lists::opkg, lists::portage, lists::slackware, pacman::read, rpm::read, xbps::read];
    let mut entries = Vec::new();
    for reader in readers {
        entries.extend(reader(rootfs)?);
    }
    entries
        .sort_by(|a, b| (&a.name, &a.architecture, &a.version).cmp(&(&b.name, &b.architecture, &b.version)));
    Ok(entries)
}

/// A file of a database as text; empty when it is not there.
fn text(rootfs: &Rootfs, path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&rootfs.read(path)?.unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::Attributes;

    /// The packages and files found in a root with these files: `name version arch: files`.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        for (path, text) in files {
            rootfs.write(path, text.as_bytes(), Attributes::default()).unwrap();
        }
        let show = |entry: &Entry| {
            let files: Vec<_> = entry.files.iter().map(|file| file.display().to_string()).collect();
            format!("{} {} {}: {}", entry.name, entry.version, entry.architecture, files.join(" "))
        };
        entries(&rootfs).unwrap().iter().map(show).collect()
    }

    #[test]
    fn apk() {
        let text = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\nR:libc.so\na:0:0:777\nZ:Q1y=\nF:etc/x\n\nP:base\nV:3\nA:noarch\nF:etc\nR:hosts\nR:motd\n";
        let expected = ["base 3 noarch: etc/hosts etc/motd", "musl 1.2.5-r0 x86_64: lib/libc.so"];
        assert_eq!(found(&[("/lib/apk/db/installed", text)]), expected);
        assert_eq!(found(&[("/usr/lib/apk/db/installed", text)]), expected);
    }

    #[test]
    fn opkg() {
        let status = "Package: libc\nVersion: 1.2-3\nStatus: install user installed\nArchitecture: x86_64\n\nPackage: gone\nVersion: 1\nStatus: deinstall user not-installed\nArchitecture: all\n";
        assert_eq!(
            found(&[
                ("/usr/lib/opkg/status", status),
                ("/usr/lib/opkg/info/libc.list", "/lib/libc.so\n/etc/x\n")
            ]),
            ["libc 1.2-3 x86_64: lib/libc.so etc/x"]
        );
    }

    #[test]
    fn pacman() {
        let files = "%FILES%\nusr/\nusr/bin/\nusr/bin/bash\n\n%BACKUP%\netc/x\tabc\n";
        assert_eq!(
            found(&[
                (
                    "/var/lib/pacman/local/bash-5.2-1/desc",
                    "%NAME%\nbash\n\n%VERSION%\n5.2-1\n\n%ARCH%\nx86_64\n"
                ),
                ("/var/lib/pacman/local/bash-5.2-1/files", files),
                ("/var/lib/pacman/local/ALPM_DB_VERSION", "9\n"),
            ]),
            ["bash 5.2-1 x86_64: usr usr/bin usr/bin/bash"]
        );
    }

    #[test]
    fn portage() {
        assert_eq!(
            found(&[
                ("/var/db/pkg/sys-libs/zlib-1.3.1-r1/PF", "zlib-1.3.1-r1\n"),
                ("/var/db/pkg/sys-libs/zlib-1.3.1-r1/CHOST", "x86_64-pc-linux-gnu\n"),
                (
                    "/var/db/pkg/sys-libs/zlib-1.3.1-r1/CONTENTS",
                    "dir /usr\nobj /usr/lib/a b.so 0123 17\nsym /usr/lib/c.so -> a b.so 17\n"
                ),
                ("/var/db/pkg/app-misc/x11-tool-2_p3/PF", "x11-tool-2_p3\n"),
            ]),
            ["app-misc/x11-tool 2_p3 : ", "sys-libs/zlib 1.3.1-r1 x86_64: usr/lib/a b.so usr/lib/c.so"]
        );
    }

    #[test]
    fn slackware() {
        let text =
            "PACKAGE NAME:     aaa_base-15.0-x86_64-4\nFILE LIST:\n./\netc/\netc/motd\ninstall/doinst.sh\n";
        let expected = ["aaa_base 15.0-4 x86_64: etc etc/motd install/doinst.sh"];
        assert_eq!(found(&[("/var/lib/pkgtools/packages/aaa_base-15.0-x86_64-4", text)]), expected);
        assert_eq!(found(&[("/var/log/packages/aaa_base-15.0-x86_64-4", text)]), expected);
    }

    #[test]
    fn xbps() {
        let plist = "<?xml version=\"1.0\"?>\n<plist version=\"1.0\">\n<dict>\n\t<key>_XBPS_ALTERNATIVES_</key>\n\t<dict>\n\t\t<key>x</key>\n\t\t<array>\n\t\t\t<string>y</string>\n\t\t</array>\n\t</dict>\n\t<key>zlib-devel</key>\n\t<dict>\n\t\t<key>architecture</key>\n\t\t<string>x86_64</string>\n\t\t<key>pkgver</key>\n\t\t<string>zlib-devel-1.3.1_1</string>\n\t\t<key>state</key>\n\t\t<string>installed</string>\n\t</dict>\n</dict>\n</plist>\n";
        let files = "<plist>\n<dict>\n<key>files</key>\n<array>\n<dict>\n<key>file</key>\n<string>/usr/a&amp;b</string>\n<key>sha256</key>\n<string>x</string>\n</dict>\n</array>\n</dict>\n</plist>\n";
        assert_eq!(
            found(&[
                ("/var/db/xbps/pkgdb-0.38.plist", plist),
                ("/var/db/xbps/.zlib-devel-files.plist", files)
            ]),
            ["zlib-devel 1.3.1_1 x86_64: usr/a&b"]
        );
    }

    /// A database that rpm itself made, and its blob in the formats Debian's rpm cannot write:
    /// openSUSE's, and a Berkeley database made by Berkeley's own tool.
    #[test]
    fn rpm() {
        let spec = "Name: tiny\nVersion: 1.5\nRelease: 2\nEpoch: 3\nSummary: x\nLicense: x\nBuildArch: noarch\n%description\nx\n%install\nmkdir -p %{buildroot}/usr/share/tiny\necho x > %{buildroot}/usr/share/tiny/file\n%files\n/usr/share/tiny\n";
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::write(place("tiny.spec"), spec).unwrap();
        let run = |command: &mut std::process::Command| {
            let output = command.output().expect("rpm is installed by cargo xtask test");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let top = format!("_topdir {}", place("build").display());
        run(std::process::Command::new("rpmbuild").args(["-bb", "--define", &top]).arg(place("tiny.spec")));
        let (root, package) = (place("root"), place("build/RPMS/noarch/tiny-1.5-2.noarch.rpm"));
        std::fs::create_dir(&root).unwrap();
        run(std::process::Command::new("rpm")
            .args(["--define", "_dbpath /var/lib/rpm", "--nodeps", "-i", "--root"])
            .args([&root, &package]));
        let rootfs = Rootfs::open(&root).unwrap();
        let expected = || Entry {
            name: "tiny".into(),
            version: "3:1.5-2".into(),
            architecture: "noarch".into(),
            files: vec!["usr/share/tiny".into(), "usr/share/tiny/file".into()],
        };
        assert_eq!(entries(&rootfs).unwrap(), [expected()]);
        let blobs = rpm::sqlite(&rootfs, "/var/lib/rpm/rpmdb.sqlite").unwrap().unwrap();
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let mut ndb = [b"RpmP".to_vec(), words(&[0, 1, 1, 2, 0, 0, 0])].concat();
        ndb.extend([b"Slot".to_vec(), words(&[1, 4096 / 16, 9])].concat());
        ndb.resize(4096, 0);
        ndb.extend([b"BlbS".to_vec(), words(&[1, 1, blobs[0].len() as u32]), blobs[0].clone()].concat());
        rootfs.remove("/var/lib/rpm").unwrap();
        rootfs.write("/usr/lib/sysimage/rpm/Packages.db", &ndb, Attributes::default()).unwrap();
        assert_eq!(entries(&rootfs).unwrap(), [expected()]);
        rootfs.remove("/usr/lib/sysimage/rpm").unwrap();
        rootfs.make_directories("/var/lib/rpm").unwrap();
        let hex = blobs[0].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let dump =
            format!("VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END\n 01000000\n {hex}\nDATA=END\n");
        std::fs::write(place("dump"), dump).unwrap();
        for order in ["1234", "4321"] {
            let file = root.join("var/lib/rpm/Packages");
            let _ = std::fs::remove_file(&file);
            run(std::process::Command::new("db5.3_load")
                .args(["-c", "db_pagesize=512", "-c", &format!("db_lorder={order}"), "-f"])
                .args([&place("dump"), &file]));
            assert_eq!(entries(&rootfs).unwrap(), [expected()], "byte order {order}");
        }
    }

    #[test]
    fn broken_databases_are_no_panic() {
        for path in [
            "/var/lib/rpm/rpmdb.sqlite",
            "/var/lib/rpm/Packages.db",
            "/var/lib/rpm/Packages",
            "/var/db/xbps/pkgdb-0.38.plist",
        ] {
            for text in ["", "RpmP", "SQLite format 3\0", "<key><string>"] {
                let dir = tempfile::tempdir().unwrap();
                let rootfs = Rootfs::open(dir.path()).unwrap();
                rootfs.write(path, text.as_bytes(), Attributes::default()).unwrap();
                let _ = entries(&rootfs);
            }
        }
    }
}
