//! The layouts as the distributions' mirrors have them.

use millstream_image::archive::Compression;

/// Where checksums lie.
#[derive(Clone, Copy, PartialEq)]
pub enum Sums {
    No,
    /// `sha256sum` of the archive beside it.
    Beside(&'static str),
    /// `sha512sum` of the archive beside it.
    Long(&'static str),
    /// `SHA256 (NAME) = …` of the archive beside it.
    Bsd(&'static str),
    /// Gentoo's DIGESTS.
    Digests,
    /// One list in the directory.
    List(&'static str),
}

/// What is signed.
#[derive(Clone, Copy, PartialEq)]
pub enum Signed {
    Nothing,
    /// A signature of the archive, with this ending.
    Archive(&'static str),
    /// A signature of the checksums, in the file of this ending or name.
    Sums(&'static str),
    /// The checksums are a signed message.
    Cleartext,
}

pub struct Case {
    pub downloader: &'static str,
    /// More of the recipe: lines of `image` and of `source`.
    pub image: &'static str,
    pub source: &'static str,
    /// Paths on the mirror of an older and the newest archive; the same when there is only one name.
    pub older: &'static str,
    pub newest: &'static str,
    pub compression: Compression,
    /// Where in the archive the root file system is.
    pub inside: &'static str,
    pub sums: Sums,
    pub signed: Signed,
}

const CASE: Case = Case {
    downloader: "",
    image: "release: current",
    source: "",
    older: "",
    newest: "",
    compression: Compression::Xz,
    inside: "",
    sums: Sums::No,
    signed: Signed::Nothing,
};

pub const CASES: &[Case] = &[
    Case {
        downloader: "alpinelinux-http",
        image: "release: 3.20",
        older: "v3.20/releases/x86_64/alpine-minirootfs-3.20.9-x86_64.tar.gz",
        newest: "v3.20/releases/x86_64/alpine-minirootfs-3.20.10-x86_64.tar.gz",
        compression: Compression::Gzip,
        sums: Sums::Beside(".sha256"),
        signed: Signed::Archive(".asc"),
        ..CASE
    },
    Case {
        downloader: "alpaquita-http",
        image: "release: stream",
        source: "variant: musl",
        older: "alpaquita/glibc/stream/releases/x86_64/alpaquita-minirootfs-stream-latest-glibc-x86_64.tar.gz",
        newest: "alpaquita/musl/stream/releases/x86_64/alpaquita-minirootfs-stream-latest-musl-x86_64.tar.gz",
        compression: Compression::Gzip,
        sums: Sums::Long(".sha512"),
        ..CASE
    },
    Case {
        downloader: "alt-http",
        image: "release: Sisyphus",
        older: "p10/cloud/x86_64/alt-p10-rootfs-systemd-x86_64.tar.xz",
        newest: "Sisyphus/cloud/x86_64/alt-sisyphus-rootfs-systemd-x86_64.tar.xz",
        sums: Sums::List("SHA256SUMS"),
        signed: Signed::Sums(".gpg"),
        ..CASE
    },
    Case {
        downloader: "apertis-http",
        image: "release: v2024\n  variant: minimal",
        source: "variant: release",
        older: "release/v2024/v2024.9/amd64/minimal/ospack_v2024-amd64-minimal_v2024.9.tar.gz",
        newest: "release/v2024/v2024.10/amd64/minimal/ospack_v2024-amd64-minimal_v2024.10.tar.gz",
        compression: Compression::Gzip,
        ..CASE
    },
    Case {
        downloader: "archlinux-http",
        older: "2026.01.01/archlinux-bootstrap-2026.01.01-x86_64.tar.zst",
        newest: "2026.02.01/archlinux-bootstrap-2026.02.01-x86_64.tar.zst",
        compression: Compression::Zstd,
        inside: "root.x86_64/",
        signed: Signed::Archive(".sig"),
        ..CASE
    },
    Case {
        downloader: "fedora-http",
        image: "release: 42",
        older: "packages/Fedora-Container-Base-Generic/42/20260101.1/images/Fedora-Container-Base-Generic-42-20260101.1.x86_64.oci.tar.xz",
        newest: "packages/Fedora-Container-Base-Generic/42/20260201.n.0/images/Fedora-Container-Base-Generic-42-20260201.n.0.x86_64.oci.tar.xz",
        ..CASE
    },
    Case {
        downloader: "centos-http",
        image: "release: 9-Stream",
        older: "9-stream/x86_64/images/CentOS-Stream-Container-Base-9-20250202.0.x86_64.tar.xz",
        newest: "9-stream/x86_64/images/CentOS-Stream-Container-Base-9-20260202.0.x86_64.tar.xz",
        sums: Sums::Bsd(".SHA256SUM"),
        ..CASE
    },
    Case {
        downloader: "rockylinux-http",
        image: "release: 9",
        older: "8/images/x86_64/Rocky-8-Container-Base.latest.x86_64.tar.xz",
        newest: "9/images/x86_64/Rocky-9-Container-Base.latest.x86_64.tar.xz",
        sums: Sums::Bsd(".CHECKSUM"),
        ..CASE
    },
    Case {
        downloader: "openeuler-http",
        image: "release: 22.03",
        older: "openEuler-22.03-LTS-SP1/docker_img/x86_64/openEuler-docker.x86_64.tar.xz",
        newest: "openEuler-22.03-LTS-SP3/docker_img/x86_64/openEuler-docker.x86_64.tar.xz",
        sums: Sums::Beside(".sha256sum"),
        ..CASE
    },
    Case {
        downloader: "funtoo-http",
        image: "release: 1.4",
        older: "next/x86-64bit/generic_64/stage3-latest.tar.xz",
        newest: "1.4-release-std/x86-64bit/generic_64/stage3-latest.tar.xz",
        signed: Signed::Archive(".gpg"),
        ..CASE
    },
    Case {
        downloader: "gentoo-http",
        source: "variant: openrc",
        older: "releases/amd64/autobuilds/current-stage3-amd64-openrc/stage3-amd64-openrc-20260101T170000Z.tar.xz",
        newest: "releases/amd64/autobuilds/current-stage3-amd64-openrc/stage3-amd64-openrc-20260201T170000Z.tar.xz",
        sums: Sums::Digests,
        signed: Signed::Cleartext,
        ..CASE
    },
    Case {
        downloader: "opensuse-http",
        image: "release: 15.6",
        older: "distribution/leap/15.6/appliances/opensuse-leap-image.x86_64-15.6-lxc-Build9.1.tar.xz",
        newest: "distribution/leap/15.6/appliances/opensuse-leap-image.x86_64-15.6-lxc-Build16.2.tar.xz",
        sums: Sums::Beside(".sha256"),
        signed: Signed::Sums(".asc"),
        ..CASE
    },
    Case {
        downloader: "opensuse-http",
        image: "release: tumbleweed",
        older: "repositories/Virtualization:/containers:/images:/openSUSE-Tumbleweed/container/opensuse-tumbleweed-image.aarch64-lxc.tar.xz",
        newest: "repositories/Virtualization:/containers:/images:/openSUSE-Tumbleweed/container/opensuse-tumbleweed-image.x86_64-lxc.tar.xz",
        sums: Sums::Beside(".sha256"),
        signed: Signed::Cleartext,
        ..CASE
    },
    Case {
        downloader: "openwrt-http",
        image: "release: 23.05",
        older: "releases/23.05.9/targets/x86/64/openwrt-23.05.9-x86-64-rootfs.tar.gz",
        newest: "releases/23.05.10/targets/x86/64/openwrt-23.05.10-x86-64-rootfs.tar.gz",
        compression: Compression::Gzip,
        sums: Sums::List("sha256sums"),
        signed: Signed::Sums(".asc"),
        ..CASE
    },
    Case {
        downloader: "ubuntu-http",
        image: "release: noble",
        older: "releases/noble/release/ubuntu-base-24.04.2-base-amd64.tar.gz",
        newest: "releases/noble/release/ubuntu-base-24.04.10-base-amd64.tar.gz",
        compression: Compression::Gzip,
        sums: Sums::List("SHA256SUMS"),
        signed: Signed::Sums(".gpg"),
        ..CASE
    },
    Case {
        downloader: "voidlinux-http",
        source: "variant: musl",
        older: "void-x86_64-musl-ROOTFS-20250202.tar.xz",
        newest: "void-x86_64-musl-ROOTFS-20260202.tar.xz",
        sums: Sums::List("sha256sum.txt"),
        signed: Signed::Sums("sha256sum.sig"),
        ..CASE
    },
];
