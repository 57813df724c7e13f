//! Distributions that publish root file systems: where each keeps them, what it calls
//! architectures, and how it vouches for them. Paths are below `source.url`, which means what it
//! means to distrobuilder, and may hold patterns ([`super::wildcard`]).

#![expect(clippy::unnecessary_wraps, reason = "all plans have one signature, and some refuse")]

use crate::{Error, Result};

/// What a path may depend on.
pub(super) struct Facts<'a> {
    /// `image.release`.
    pub(super) release: &'a str,
    /// The distribution's name of the architecture.
    pub(super) arch: &'a str,
    /// `source.variant`.
    pub(super) variant: &'a str,
    /// `image.variant`.
    pub(super) image_variant: &'a str,
    /// `source.same_as`.
    pub(super) same_as: &'a str,
}

/// Where one root file system is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The archive.
    pub(super) path: String,
    /// Where its checksum is.
    pub(super) sums: Sums,
    /// What is signed.
    pub(super) signed: Signed,
    /// The directory in the archive that is the root file system; may hold patterns.
    pub(super) inside: String,
    /// Another archive, and the directory in it that goes to a place of the root file system.
    pub(super) extra: Option<Extra>,
}

/// Where checksums are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    /// There are none.
    No,
    /// Beside the archive: its name with this ending.
    Beside(&'static str),
    /// For all files of a directory, under this name.
    All(&'static str),
}

/// What is signed, and where the signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// Nothing.
    Nothing,
    /// The archive; the signature has its name with this ending.
    Archive(&'static str),
    /// The checksums: cleartext, or with a signature under their name with this ending.
    Sums(&'static str),
    /// The checksums, by this file, made by OpenPGP or by minisign.
    SumsMinisign(&'static str),
}

/// A second archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) path: &'static str,
    pub(super) signature: &'static str,
    pub(super) inside: &'static str,
    pub(super) to: &'static str,
}

/// One distribution.
pub(super) struct Layout {
    /// As in `source.downloader`.
    pub(super) downloader: &'static str,
    /// As people call it.
    pub(super) title: &'static str,
    /// Debian's and the distribution's names of architectures.
    pub(super) architectures: &'static [(&'static str, &'static str)],
    /// Its paths.
    pub(super) plan: fn(&Facts<'_>) -> Result<Plan>,
}

const KERNEL: &[(&str, &str)] = &[
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("i386", "i686"),
    ("armhf", "armv7l"),
    ("armel", "armv6l"),
    ("ppc64el", "ppc64le"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
    ("loong64", "loongarch64"),
];
const ENTERPRISE: &[(&str, &str)] = &[
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("ppc64el", "ppc64le"),
    ("s390x", "s390x"),
    ("riscv64", "riscv64"),
];
const DEBIAN: &[(&str, &str)] = &[
    ("amd64", "amd64"),
    ("arm64", "arm64"),
    ("armhf", "armhf"),
    ("i386", "i386"),
    ("ppc64el", "ppc64el"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
];

/// All of them.
pub(super) const LAYOUTS: &[Layout] = &[
    Layout {
        downloader: "alpinelinux-http",
        title: "Alpine Linux",
        architectures: &[
            ("amd64", "x86_64"),
            ("arm64", "aarch64"),
            ("i386", "x86"),
            ("armhf", "armv7"),
            ("armel", "armhf"),
            ("ppc64el", "ppc64le"),
            ("riscv64", "riscv64"),
            ("s390x", "s390x"),
            ("loong64", "loongarch64"),
        ],
        plan: alpine,
    },
    Layout {
        downloader: "alpaquita-http",
        title: "Alpaquita Linux",
        architectures: &[("amd64", "x86_64"), ("arm64", "aarch64")],
        plan: alpaquita,
    },
    Layout {
        downloader: "alt-http",
        title: "ALT Linux",
        architectures: &[
            ("amd64", "x86_64"),
            ("arm64", "aarch64"),
            ("i386", "i586"),
            ("armhf", "armh"),
            ("ppc64el", "ppc64le"),
        ],
        plan: alt,
    },
    Layout { downloader: "apertis-http", title: "Apertis", architectures: DEBIAN, plan: apertis },
    Layout {
        downloader: "archlinux-http",
        title: "Arch Linux",
        architectures: &[
            ("amd64", "x86_64"),
            ("arm64", "aarch64"),
            ("armhf", "armv7"),
            ("riscv64", "riscv64"),
        ],
        plan: arch,
    },
    Layout { downloader: "centos-http", title: "CentOS Stream", architectures: ENTERPRISE, plan: centos },
    Layout { downloader: "fedora-http", title: "Fedora", architectures: KERNEL, plan: fedora },
    Layout {
        downloader: "funtoo-http",
        title: "Funtoo",
        architectures: &[
            ("amd64", "generic_64"),
            ("i386", "generic_32"),
            ("armhf", "armv7a_vfpv3_hardfp"),
            ("arm64", "arm64_generic"),
        ],
        plan: funtoo,
    },
    Layout {
        downloader: "gentoo-http",
        title: "Gentoo",
        architectures: &[
            ("amd64", "amd64"),
            ("arm64", "arm64"),
            ("i386", "i686"),
            ("armhf", "armv7a_hardfp"),
            ("armel", "armv5tel"),
            ("ppc64el", "ppc64le"),
            ("riscv64", "rv64_lp64d"),
            ("s390x", "s390x"),
        ],
        plan: gentoo,
    },
    Layout {
        downloader: "nixos-http",
        title: "NixOS",
        architectures: &[("amd64", "x86_64"), ("arm64", "aarch64")],
        plan: nixos,
    },
    Layout {
        downloader: "openeuler-http",
        title: "openEuler",
        architectures: &[
            ("amd64", "x86_64"),
            ("arm64", "aarch64"),
            ("riscv64", "riscv64"),
            ("loong64", "loongarch64"),
        ],
        plan: openeuler,
    },
    Layout { downloader: "opensuse-http", title: "openSUSE", architectures: KERNEL, plan: opensuse },
    Layout {
        downloader: "openwrt-http",
        title: "OpenWrt",
        architectures: &[
            ("amd64", "x86-64"),
            ("i386", "x86-generic"),
            ("arm64", "armsr-armv8"),
            ("armhf", "armsr-armv7"),
        ],
        plan: openwrt,
    },
    Layout { downloader: "rockylinux-http", title: "Rocky Linux", architectures: ENTERPRISE, plan: rocky },
    Layout { downloader: "ubuntu-http", title: "Ubuntu Base", architectures: DEBIAN, plan: ubuntu },
    Layout { downloader: "voidlinux-http", title: "Void Linux", architectures: KERNEL, plan: void },
    Layout {
        downloader: "vyos-http",
        title: "VyOS",
        architectures: &[("amd64", "amd64"), ("arm64", "arm64")],
        plan: vyos,
    },
];

fn plan(path: String, sums: Sums, signed: Signed) -> Plan {
    Plan { path, sums, signed, inside: String::new(), extra: None }
}

fn refused<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Refused(message.into()))
}

/// `3.20` means its newest point release, `3.20.1` itself, `edge` the one that `same_as` names.
fn alpine(facts: &Facts<'_>) -> Result<Plan> {
    let (release, arch) = match facts.release {
        "edge" if facts.same_as.is_empty() => {
            return refused(
                "image.release: edge has no images of its own; name the release to start from in source.same_as (3.20)",
            );
        }
        "edge" => (facts.same_as, facts.arch),
        other => (other, facts.arch),
    };
    let (branch, exact) = match release.split('.').collect::<Vec<_>>()[..] {
        [major, minor] => (format!("v{major}.{minor}"), format!("{release}.#")),
        [major, minor, _] => (format!("v{major}.{minor}"), release.to_owned()),
        _ => {
            return refused(format!(
                "image.release: {release:?} is no release of Alpine Linux; expected 3.20, 3.20.1 or edge"
            ));
        }
    };
    let path = format!("{branch}/releases/{arch}/alpine-minirootfs-{exact}-{arch}.tar.gz");
    Ok(plan(path, Sums::Beside(".sha256"), Signed::Archive(".asc")))
}

fn alpaquita(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, variant, .. } = facts;
    if variant.is_empty() {
        return refused("source.variant: Alpaquita Linux comes for two C libraries; choose glibc or musl");
    }
    let path = format!(
        "alpaquita/{variant}/{release}/releases/{arch}/alpaquita-minirootfs-{release}-latest-{variant}-{arch}.tar.gz"
    );
    Ok(plan(path, Sums::Beside(".sha512"), Signed::Nothing))
}

fn alt(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let arch = if *arch == "armhf" { "armh" } else { arch };
    let small = release.to_lowercase();
    let path = format!("{release}/cloud/{arch}/alt-{small}-rootfs-systemd-{arch}.tar.xz");
    Ok(plan(path, Sums::All("SHA256SUMS"), Signed::Sums(".gpg")))
}

/// `v2024` means its newest point release, `v2024.3` itself.
fn apertis(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, variant, image_variant, .. } = facts;
    let (series, exact) = match release.split_once('.') {
        Some((series, _)) => (series, (*release).to_owned()),
        None => (*release, format!("{release}.#")),
    };
    let path = format!(
        "{variant}/{series}/{exact}/{arch}/{image_variant}/ospack_{series}-{arch}-{image_variant}_*.tar.gz"
    );
    Ok(plan(path, Sums::No, Signed::Nothing))
}

/// A release is a date, `2026.01.01`; anything else means the newest. Other architectures are
/// separate projects with layouts of their own, and unpack to the root itself.
fn arch(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let signed = Signed::Archive(".sig");
    Ok(match *arch {
        "x86_64" => {
            let dated = release.bytes().all(|b| b.is_ascii_digit() || b == b'.') && release.contains('.');
            let date = if dated { release } else { "#.#.#" };
            let path = format!("{date}/archlinux-bootstrap-{date}-x86_64.tar.zst");
            Plan { inside: "root.x86_64".into(), ..plan(path, Sums::No, signed) }
        }
        "riscv64" => plan("images/archriscv-latest.tar.zst".into(), Sums::No, signed),
        other => plan(format!("os/ArchLinuxARM-{other}-latest.tar.gz"), Sums::No, signed),
    })
}

/// `9-Stream`: the container base image of the cloud mirror. Older CentOS had installation media only.
fn centos(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let small = release.to_lowercase();
    let Some(major) = small.strip_suffix("-stream") else {
        return refused(format!(
            "image.release: CentOS {release} has ended and published no root file system; use 9-Stream or 10-Stream, \
             or an archived one with rootfs-http or docker-http"
        ));
    };
    let name = format!("CentOS-Stream-Container-Base-{major}-*.{arch}.tar.xz");
    let path = format!("{small}/{arch}/images/{name}");
    Ok(plan(path, Sums::Beside(".SHA256SUM"), Signed::Nothing))
}

/// The container base image, of which `latest` is one name. Its checksum is not signed.
fn rocky(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let major = release.split('.').next().unwrap_or(release);
    let path = format!("{release}/images/{arch}/Rocky-{major}-Container-Base.latest.{arch}*.tar.xz");
    Ok(plan(path, Sums::Beside(".CHECKSUM"), Signed::Nothing))
}

/// `22.03-LTS-SP3`, or `22.03`: its newest service pack.
fn openeuler(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let exact = if release.contains('-') { (*release).to_owned() } else { format!("{release}*") };
    let path = format!("openEuler-{exact}/docker_img/{arch}/openEuler-docker.{arch}.tar.xz");
    Ok(plan(path, Sums::Beside(".sha256sum"), Signed::Nothing))
}

fn fedora(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let base = "Fedora-Container-Base-Generic";
    let path = format!("packages/{base}/{release}/#.*/images/{base}-{release}-*.{arch}.oci.tar.xz");
    Ok(plan(path, Sums::No, Signed::Nothing))
}

fn funtoo(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let top = match *arch {
        "generic_32" => "x86-32bit",
        "generic_64" => "x86-64bit",
        "armv7a_vfpv3_hardfp" => "arm-32bit",
        "arm64_generic" => "arm-64bit",
        other => other,
    };
    let release = if *release == "1.4" { "1.4-release-std" } else { release };
    let path = format!("{release}/{top}/{arch}/stage3-latest.tar.xz");
    Ok(plan(path, Sums::No, Signed::Archive(".gpg")))
}

fn gentoo(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { arch, variant, .. } = facts;
    let top = match *arch {
        "i686" | "i486" => "x86",
        "arm64" => "arm64",
        a if a.starts_with("arm") => "arm",
        a if a.starts_with("ppc") => "ppc",
        a if a.starts_with("s390") => "s390",
        a if a.starts_with("rv") => "riscv",
        other => other,
    };
    let kind = if variant.is_empty() { (*arch).to_owned() } else { format!("{arch}-{variant}") };
    // A date follows, so that one variant's name is not taken for the beginning of another's.
    let path = format!("releases/{top}/autobuilds/current-stage3-{kind}/stage3-{kind}-#T#Z.tar.xz");
    let extra = Extra {
        path: "snapshots/portage-latest.tar.xz",
        signature: ".gpgsig",
        inside: "portage",
        to: "var/db/repos/gentoo",
    };
    let stage = plan(path, Sums::Beside(".DIGESTS"), Signed::Sums(".asc"));
    Ok(Plan { extra: Some(extra), ..stage })
}

/// The newest build of NixOS' build service, which has no index and signs nothing.
fn nixos(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let set = if *release == "unstable" { "trunk-combined".to_owned() } else { format!("release-{release}") };
    let path = format!(
        "job/nixos/{set}/nixos.incusContainerImage.{arch}-linux/latest/download-by-type/file/squashfs-image"
    );
    Ok(plan(path, Sums::No, Signed::Nothing))
}

fn opensuse(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let name = if arch.ends_with("86") { "ix86" } else { arch };
    let (directory, series) = if release.eq_ignore_ascii_case("tumbleweed") {
        let port = match *arch {
            "i686" | "x86_64" => "container",
            "aarch64" | "armv7l" => "container_ARM",
            "ppc64le" => "container_PowerPC",
            "s390x" => "container_zSystems",
            other => return refused(format!("image.architecture: openSUSE Tumbleweed has no {other}")),
        };
        (format!("repositories/Virtualization:/containers:/images:/openSUSE-Tumbleweed/{port}"), "tumbleweed")
    } else {
        (format!("distribution/leap/{release}/appliances"), "leap")
    };
    let path = format!("{directory}/opensuse-{series}-image*{name}*.tar.xz");
    Ok(plan(path, Sums::Beside(".sha256"), Signed::Sums(".asc")))
}

/// `23.05` means its newest service release. The root file system as an archive, not the disk image
/// with a boot loader that holds the same.
fn openwrt(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let target = arch.replacen('-', "/", 1);
    let point = if release.split('.').count() == 2 { format!("{release}.#") } else { (*release).to_owned() };
    let path = match *release {
        "snapshot" => format!("snapshots/targets/{target}/openwrt-{arch}-rootfs.tar.gz"),
        _ => format!("releases/{point}/targets/{target}/openwrt-{point}-{arch}-rootfs.tar.gz"),
    };
    Ok(plan(path, Sums::All("sha256sums"), Signed::Sums(".asc")))
}

/// `24.04` or `noble`: the newest point release.
fn ubuntu(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, image_variant, .. } = facts;
    if *image_variant == "core" {
        return refused(
            "image.variant: Ubuntu Core is a disk image for machines, not a container; use another variant",
        );
    }
    let path = format!("releases/{release}/release/ubuntu-base-*-base-{arch}.tar.gz");
    Ok(plan(path, Sums::All("SHA256SUMS"), Signed::Sums(".gpg")))
}

fn void(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { arch, variant, .. } = facts;
    let kind = if variant.is_empty() { (*arch).to_owned() } else { format!("{arch}-{variant}") };
    let path = format!("void-{kind}-ROOTFS-#.tar.xz");
    Ok(plan(path, Sums::All("sha256sum.txt"), Signed::SumsMinisign("sha256sum.sig")))
}

/// `current` means the newest that the directory lists, a version that one, in the directory where
/// GitHub has the files of a release.
fn vyos(facts: &Facts<'_>) -> Result<Plan> {
    let Facts { release, arch, .. } = facts;
    let path = match *release {
        "current" => format!("vyos-*{arch}.iso"),
        version => format!("{version}/vyos-{version}-generic-{arch}.iso"),
    };
    Ok(plan(path, Sums::No, Signed::Nothing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(downloader: &str, release: &str, arch: &str, variant: &str) -> String {
        let layout = LAYOUTS.iter().find(|layout| layout.downloader == downloader).unwrap();
        let facts = Facts { release, arch, variant, image_variant: "default", same_as: "" };
        (layout.plan)(&facts).map_or_else(|error| error.to_string(), |plan| plan.path)
    }

    #[test]
    fn releases_mean_what_they_mean_to_distrobuilder() {
        let alpine = |release: &str| path("alpinelinux-http", release, "x86", "");
        assert_eq!(alpine("3.20"), "v3.20/releases/x86/alpine-minirootfs-3.20.#-x86.tar.gz");
        assert_eq!(alpine("3.20.2"), "v3.20/releases/x86/alpine-minirootfs-3.20.2-x86.tar.gz");
        assert!(alpine("edge").contains("same_as") && alpine("new").contains("3.20.1"));
        assert!(path("archlinux-http", "current", "x86_64", "").starts_with("#.#.#/"));
        assert!(path("archlinux-http", "2026.01.01", "x86_64", "").starts_with("2026.01.01/"));
        assert!(path("opensuse-http", "tumbleweed", "i686", "").ends_with("image*ix86*.tar.xz"));
        assert!(path("openwrt-http", "23.05", "x86-64", "").contains("releases/23.05.#/targets/x86/64/"));
        assert!(
            path("openwrt-http", "snapshot", "x86-64", "")
                .starts_with("snapshots/targets/x86/64/openwrt-x86")
        );
        assert!(
            path("apertis-http", "v2024.3", "amd64", "release").starts_with("release/v2024/v2024.3/amd64/")
        );
        assert!(
            path("gentoo-http", "current", "armv7a_hardfp", "openrc").starts_with("releases/arm/autobuilds/")
        );
        assert!(path("alpaquita-http", "stream", "x86_64", "").contains("glibc or musl"));
    }
}
