//! Distributions whose mirrors have single packages of Slackware's kind: where these are, which of
//! them are a root file system, and how the distribution's tools note what is installed.

#![expect(clippy::unnecessary_wraps, reason = "all plans have one signature, and some refuse")]

use super::super::layouts::Signed;
use crate::{Error, Result};

/// One distribution.
pub(in crate::source) struct Layout {
    /// As in `source.downloader`.
    pub(super) downloader: &'static str,
    /// As people call it.
    pub(super) title: &'static str,
    /// Debian's and the distribution's names of architectures.
    pub(super) architectures: &'static [(&'static str, &'static str)],
    /// Its paths.
    pub(super) plan: fn(release: &str, arch: &str) -> Result<Plan>,
}

/// What is installed, and from where.
#[derive(Debug)]
pub(super) struct Plan {
    /// The release's directory below `source.url`.
    pub(super) top: String,
    /// Directories of packages below that, in the order of installing.
    pub(super) series: Vec<String>,
    /// Endings of packages.
    pub(super) endings: &'static [&'static str],
    /// Whether a package of this name belongs to the root file system.
    pub(super) wanted: fn(name: &str) -> bool,
    /// Name of the list of MD5 sums in the release's directory, signed with the ending `.asc`.
    pub(super) sums: Option<&'static str>,
    /// What else is signed.
    pub(super) signed: Signed,
    /// How packages are noted.
    pub(super) database: Database,
}

/// The database of packages.
#[derive(Debug)]
pub(super) struct Database {
    /// Its directory, which has `packages` and `scripts`.
    pub(super) directory: &'static str,
    /// Whether entries have the package's bare name; else also version, architecture and build.
    pub(super) bare: bool,
    /// Where parts of scripts go that are run at the first start: those between lines that begin
    /// with `#%% begin` and `#%% end`.
    pub(super) later: Option<&'static str>,
}

/// All of them.
pub(super) const LAYOUTS: &[Layout] = &[
    Layout {
        downloader: "slackware-http",
        title: "Slackware",
        architectures: &[("amd64", "x86_64"), ("i386", "i586")],
        plan: slackware,
    },
    Layout {
        downloader: "plamolinux-http",
        title: "Plamo Linux",
        architectures: &[("amd64", "x86_64"), ("i386", "x86")],
        plan: plamo,
    },
];

fn slackware(release: &str, arch: &str) -> Result<Plan> {
    let name = if arch == "x86_64" { "slackware64" } else { "slackware" };
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    // Before 15.0 it was below /var/log, where links to it are now.
    let old = major.is_some_and(|major| major < 15);
    Ok(Plan {
        top: format!("{name}-{release}"),
        series: ["a", "ap", "d", "l", "n"].map(|series| format!("{name}/{series}")).into(),
        endings: &[".txz", ".tgz"],
        wanted: |name| SLACKWARE.contains(&beginning(name, 1)) || SLACKWARE.contains(&beginning(name, 2)),
        sums: Some("CHECKSUMS.md5"),
        signed: Signed::Archive(".asc"),
        database: Database {
            directory: if old { "/var/log" } else { "/var/lib/pkgtools" },
            bare: false,
            later: None,
        },
    })
}

/// `8.x` or `8`.
fn plamo(release: &str, arch: &str) -> Result<Plan> {
    let number = release.strip_suffix(".x").unwrap_or(release);
    let Ok(major) = number.parse::<u32>() else {
        return Err(Error::Refused(format!(
            "image.release: {release:?} is no release of Plamo Linux; expected 8.x"
        )));
    };
    let mut series = vec!["00_base".to_owned()];
    series.extend((major < 7).then(|| "01_minimum".to_owned()));
    Ok(Plan {
        top: format!("Plamo-{major}.x/{arch}/plamo"),
        series,
        endings: &[".tzst", ".txz"],
        wanted: |name| !NOT_PLAMO.contains(&beginning(name, 1)),
        sums: None,
        signed: Signed::Nothing,
        database: Database { directory: "/var/log", bare: true, later: Some("/var/log/initpkg") },
    })
}

/// The first parts of a name.
fn beginning(name: &str, parts: usize) -> &str {
    let end = name.match_indices('-').nth(parts - 1).map_or(name.len(), |(at, _)| at);
    &name[..end]
}

/// Names, or beginnings of names, of what distrobuilder installs.
#[rustfmt::skip]
const SLACKWARE: &[&str] = &[
    "aaa_base", "aaa_elflibs", "aaa_glibc-solibs", "aaa_libraries", "aaa_terminfo", "acl", "attr", "bash", "bin",
    "bzip2", "ca-certificates", "coreutils", "cracklib", "dhcpcd", "dialog", "diffutils", "e2fsprogs", "elogind",
    "elvis", "etc", "file", "findutils", "gawk", "gettext", "glibc", "glibc-solibs", "gmp", "gnupg", "grep", "gzip",
    "hostname", "inetd", "iproute2", "iputils", "libaio", "libcgroup", "libmnl", "libpsl", "libpwquality",
    "libseccomp", "libunistring", "mpfr", "nano", "ncurses", "network-scripts", "nvi", "openssl", "pam", "patch",
    "pcre", "pcre2", "perl", "pkgtools", "procps", "sed", "shadow", "slackpkg", "sysfsutils", "sysvinit",
    "sysvinit-scripts", "tar", "time", "tree", "utempter", "util-linux", "wget", "which", "xz",
];

/// What Plamo's base has and a container has no use for.
#[rustfmt::skip]
const NOT_PLAMO: &[&str] = &[
    "alsa_utils", "cpufreqd", "cpufrequtils", "gpm", "grub", "kernel", "kmod", "kmscon", "lilo", "linux_firmware",
    "linux_firmwares", "microcode_ctl", "ntp",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_where_the_mirrors_have_them() {
        let plan = slackware("15.0", "x86_64").unwrap();
        assert_eq!((plan.top.as_str(), plan.series[4].as_str()), ("slackware64-15.0", "slackware64/n"));
        assert_eq!(plan.database.directory, "/var/lib/pkgtools");
        let plan = slackware("14.2", "i586").unwrap();
        assert_eq!((plan.top.as_str(), plan.database.directory), ("slackware-14.2", "/var/log"));
        assert_eq!(slackware("current", "x86_64").unwrap().database.directory, "/var/lib/pkgtools");
        assert_eq!(plamo("8.x", "x86_64").unwrap().top, "Plamo-8.x/x86_64/plamo");
        assert_eq!(plamo("6", "x86").unwrap().series.len(), 2);
        assert!(plamo("new", "x86").unwrap_err().to_string().contains("8.x"));
    }

    #[test]
    fn names_begin_with_what_is_wanted() {
        let wanted = slackware("15.0", "x86_64").unwrap().wanted;
        for (name, good) in [
            ("bash", true),
            ("bash-completion", true),
            ("util-linux", true),
            ("glibc-zoneinfo", true),
            ("kernel-huge", false),
            ("bashful", false),
            ("network-scripts", true),
            ("network-manager", false),
        ] {
            assert_eq!(wanted(name), good, "{name}");
        }
    }
}
