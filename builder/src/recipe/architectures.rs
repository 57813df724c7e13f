//! What distributions call their architectures (distrobuilder's `mappings.architecture_map`).

use millstream_image::Architecture;

use super::model::Mappings;

/// Distribution, then Debian's name and the distribution's for every architecture where the
/// distribution's differs from the kernel's name.
const MAPS: &[(&str, &[(&str, &str)])] = &[
    ("almalinux", &[]),
    ("alpinelinux", &[("armhf", "armv7"), ("i386", "x86")]),
    ("altlinux", &[("i386", "i586")]),
    ("archlinux", &[("armhf", "armv7")]),
    ("centos", &[("i386", "i386")]),
    (
        "debian",
        &[
            ("amd64", "amd64"),
            ("arm64", "arm64"),
            ("armhf", "armhf"),
            ("i386", "i386"),
            ("loong64", "loong64"),
            ("mips64el", "mips64el"),
            ("powerpc", "powerpc"),
            ("ppc64", "powerpc64"),
            ("ppc64el", "ppc64el"),
        ],
    ),
    (
        "funtoo",
        &[
            ("amd64", "generic_64"),
            ("arm64", "arm64_generic"),
            ("armhf", "armv7a_vfpv3_hardfp"),
            ("i386", "generic_32"),
        ],
    ),
    ("gentoo", &[("amd64", "amd64"), ("arm64", "arm64"), ("armhf", "armv7a_hardfp")]),
    ("openwrt", &[("amd64", "x86-64"), ("arm64", "armsr-armv8"), ("armhf", "armsr-armv7")]),
    ("plamolinux", &[("i386", "x86")]),
    ("slackware", &[("i386", "i586")]),
    ("voidlinux", &[]),
];

/// The distribution's name of `architecture`, which the recipe writes as `written`. A known map
/// counts before the recipe's own; without either the name stays as written.
pub(super) fn mapped(mappings: &Mappings, architecture: Architecture, written: &str) -> String {
    if !mappings.architecture_map.is_empty() {
        return by_map(&mappings.architecture_map, architecture).to_owned();
    }
    let own = &mappings.architectures;
    let names = [written, architecture.debian(), architecture.kernel()];
    names.iter().find_map(|name| own.get(*name)).map_or(written, String::as_str).to_owned()
}

fn by_map(map: &str, architecture: Architecture) -> &'static str {
    // The soft-float userland has no name of its own among kernels.
    if architecture.debian() == "armel" {
        return "armel";
    }
    let known = MAPS.iter().find(|(name, _)| *name == map).map_or(&[][..], |(_, names)| names);
    let found = known.iter().find(|(debian, _)| *debian == architecture.debian());
    found.map_or(architecture.kernel(), |(_, name)| name)
}

/// `linux32` or `linux64`, as LXC's `lxc.arch` and `setarch` know them.
pub(super) fn personality(architecture: Architecture) -> &'static str {
    match architecture.debian() {
        "armel" | "armhf" | "i386" | "powerpc" => "linux32",
        _ => "linux64",
    }
}

/// Every name an architecture filter may hold in a recipe with these mappings.
pub(super) fn known(mappings: &Mappings) -> Vec<String> {
    let own = mappings.architectures.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
    let names = Architecture::all().flat_map(|arch| {
        let mapped = by_map(&mappings.architecture_map, arch);
        [arch.debian(), arch.kernel(), mapped].map(str::to_owned)
    });
    // Older names that recipes still carry.
    let older = ["armhfp", "armv7", "powerpc64", "x86", "x86-64"].map(str::to_owned);
    let mut known: Vec<_> = own.chain(names).chain(older).collect();
    known.sort_unstable();
    known.dedup();
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_knows_its_distributions_names() {
        // Architecture, then the name in each map, in the order of `MAPS`.
        let expected = "\
            amd64    x86_64  x86_64  x86_64  x86_64  x86_64 amd64     generic_64          amd64         x86-64      x86_64  x86_64  x86_64
            arm64    aarch64 aarch64 aarch64 aarch64 aarch64 arm64    arm64_generic       arm64         armsr-armv8 aarch64 aarch64 aarch64
            armel    armel   armel   armel   armel   armel  armel     armel               armel         armel       armel   armel   armel
            armhf    armv7l  armv7   armv7l  armv7   armv7l armhf     armv7a_vfpv3_hardfp armv7a_hardfp armsr-armv7 armv7l  armv7l  armv7l
            i386     i686    x86     i586    i686    i386   i386      generic_32          i686          i686        x86     i586    i686
            powerpc  ppc     ppc     ppc     ppc     ppc    powerpc   ppc                 ppc           ppc         ppc     ppc     ppc
            ppc64    ppc64   ppc64   ppc64   ppc64   ppc64  powerpc64 ppc64               ppc64         ppc64       ppc64   ppc64   ppc64
            ppc64el  ppc64le ppc64le ppc64le ppc64le ppc64le ppc64el  ppc64le             ppc64le       ppc64le     ppc64le ppc64le ppc64le
            riscv64  riscv64 riscv64 riscv64 riscv64 riscv64 riscv64  riscv64             riscv64       riscv64     riscv64 riscv64 riscv64
            s390x    s390x   s390x   s390x   s390x   s390x  s390x     s390x               s390x         s390x       s390x   s390x   s390x";
        for line in expected.lines() {
            let mut words = line.split_whitespace();
            let architecture: Architecture = words.next().unwrap().parse().unwrap();
            for ((map, _), name) in MAPS.iter().zip(words.by_ref()) {
                let mappings = Mappings { architecture_map: (*map).into(), ..Mappings::default() };
                assert_eq!(mapped(&mappings, architecture, "x"), name, "{map} {architecture}");
            }
            assert_eq!(words.next(), None);
        }
    }

    #[test]
    fn own_maps_take_either_name() {
        let own = [("x86_64", "sixtyfour"), ("arm64", "arm")];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let mut mappings = Mappings { architectures: own, ..Mappings::default() };
        let name = |mappings: &Mappings, written: &str| mapped(mappings, written.parse().unwrap(), written);
        assert_eq!(name(&mappings, "amd64"), "sixtyfour");
        assert_eq!(name(&mappings, "aarch64"), "arm");
        assert_eq!(name(&mappings, "i686"), "i686");
        mappings.architecture_map = "debian".into();
        assert_eq!(name(&mappings, "x86_64"), "amd64");
    }
}
