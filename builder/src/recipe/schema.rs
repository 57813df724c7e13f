//! Every key of a definition and what may stand there (distrobuilder's documentation and its
//! `shared.Definition`; `simplestream` is lxd-imagebuilder's).

/// What a value must be.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Text; numbers and booleans are taken as written.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number, not negative.
    Number,
    /// Bytes, as a number or with a unit.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of such values.
    List(&'static Shape),
    /// Any keys, with such values.
    Map(&'static Shape),
    /// These keys and no others.
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{Bool, Choice, List, Map, Number, Object, Size, Text};

const TEXTS: Shape = List(&Text);
const TRIGGERS: Shape = Choice(&["post-unpack", "post-update", "post-packages", "post-files"]);
const TYPES: Shape = List(&Choice(&["container", "vm"]));

pub(super) const DOWNLOADERS: &[&str] = &[
    "almalinux-http",
    "alpaquita-http",
    "alpinelinux-http",
    "alt-http",
    "apertis-http",
    "archlinux-http",
    "busybox",
    "centos-http",
    "debootstrap",
    "docker-http",
    "fedora-http",
    "funtoo-http",
    "gentoo-http",
    "nixos-http",
    "openeuler-http",
    "opensuse-http",
    "openwrt-http",
    "oraclelinux-http",
    "plamolinux-http",
    "rockylinux-http",
    "rootfs-http",
    "rpmbootstrap",
    "sabayon-http",
    "slackware-http",
    "springdalelinux-http",
    "ubuntu-http",
    "voidlinux-http",
    "vyos-http",
];
pub(crate) const MANAGERS: &[&str] = &[
    "anise",
    "apk",
    "apt",
    "dnf",
    "egoportage",
    "equo",
    "luet",
    "opkg",
    "pacman",
    "portage",
    "slackpkg",
    "xbps",
    "yum",
    "zypper",
];
const GENERATORS: Shape = Choice(&[
    "cloud-init",
    "copy",
    "dump",
    "fstab",
    "hostname",
    "hosts",
    "incus-agent",
    "lxd-agent",
    "remove",
    "template",
]);
const MAPS: Shape = Choice(&[
    "almalinux",
    "alpinelinux",
    "altlinux",
    "archlinux",
    "centos",
    "debian",
    "funtoo",
    "gentoo",
    "openwrt",
    "plamolinux",
    "slackware",
    "voidlinux",
]);

/// An object whose entries may be limited to some releases, architectures, variants or types.
macro_rules! filtered {
    ($($key:literal: $shape:expr),* $(,)?) => {
        Object(&[$(($key, $shape),)* ("releases", TEXTS), ("architectures", TEXTS), ("variants", TEXTS), ("types", TYPES)])
    };
}

const COMMAND: Shape = Object(&[("cmd", Text), ("flags", TEXTS)]);
const VM: Shape = Object(&[("size", Size), ("filesystem", Choice(&["ext4", "btrfs"]))]);
const VM_TARGET: Shape = Object(&[("vm", VM)]);

/// The whole definition.
pub(super) const DEFINITION: Shape = Object(&[
    (
        "image",
        Object(&[
            ("distribution", Text),
            ("release", Text),
            ("architecture", Text),
            ("expiry", Text),
            ("variant", Text),
            ("name", Text),
            ("description", Text),
            ("serial", Text),
            ("architecture_mapped", Text),
            ("architecture_kernel", Text),
            ("architecture_personality", Text),
        ]),
    ),
    (
        "source",
        Object(&[
            ("downloader", Choice(DOWNLOADERS)),
            ("url", Text),
            ("keys", TEXTS),
            ("keyserver", Text),
            ("variant", Text),
            ("suite", Text),
            ("same_as", Text),
            ("skip_verification", Bool),
            ("components", TEXTS),
        ]),
    ),
    (
        "targets",
        Object(&[
            (
                "lxc",
                Object(&[
                    ("create_message", Text),
                    (
                        "config",
                        List(&filtered! {
                            "type": Choice(&["all", "system", "user"]), "before": Number, "after": Number,
                            "content": Text,
                        }),
                    ),
                ]),
            ),
            ("incus", VM_TARGET),
            ("lxd", VM_TARGET),
            ("type", Choice(&["container", "vm"])),
        ]),
    ),
    (
        "files",
        List(&filtered! {
            "generator": GENERATORS, "path": Text, "content": Text, "name": Text, "template": Object(&[
                ("properties", Map(&Text)), ("when", List(&Choice(&["create", "copy", "rename", "start"]))),
            ]),
            "templated": Bool, "mode": Text, "gid": Text, "uid": Text, "pongo": Bool, "source": Text,
        }),
    ),
    (
        "packages",
        Object(&[
            ("manager", Choice(MANAGERS)),
            (
                "custom_manager",
                Object(&[
                    ("clean", COMMAND),
                    ("install", COMMAND),
                    ("remove", COMMAND),
                    ("refresh", COMMAND),
                    ("update", COMMAND),
                    ("flags", TEXTS),
                ]),
            ),
            ("update", Bool),
            ("cleanup", Bool),
            (
                "sets",
                List(&filtered! {
                    "packages": TEXTS, "action": Choice(&["install", "remove"]), "early": Bool, "flags": TEXTS,
                }),
            ),
            ("repositories", List(&filtered! { "name": Text, "url": Text, "type": Text, "key": Text })),
        ]),
    ),
    ("actions", List(&filtered! { "trigger": TRIGGERS, "action": Text, "pongo": Bool })),
    ("mappings", Object(&[("architectures", Map(&Text)), ("architecture_map", MAPS)])),
    (
        "environment",
        Object(&[("clear_defaults", Bool), ("variables", List(&filtered! { "key": Text, "value": Text }))]),
    ),
    (
        "simplestream",
        Object(&[
            ("distro_name", Text),
            ("release_aliases", Map(&Text)),
            ("requirements", List(&filtered! { "requirements": Map(&Text) })),
        ]),
    ),
]);

/// Keys without which nothing can be built: section and key.
pub(super) const REQUIRED: &[(&str, &str)] = &[("image", "distribution"), ("source", "downloader")];
