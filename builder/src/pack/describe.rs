//! What an image of an existing root file system is: from a recipe, or from what the root file
//! system says of itself.

use std::collections::BTreeMap;
use std::fs;

use millstream_image::Architecture;
use serde_json::json;

use super::PackOptions;
use crate::recipe::{Fallback, Kind, Recipe, Resolved};
use crate::rootfs::Rootfs;
use crate::{Error, Result};

/// Programs whose header tells the architecture, and the machines it names (ELF, `e_machine`).
const PROGRAMS: [&str; 5] = ["/bin/sh", "/usr/bin/env", "/sbin/init", "/bin/busybox", "/bin/ls"];
const MACHINES: [(u16, &str); 9] = [
    (3, "i386"),
    (8, "mips64el"),
    (20, "powerpc"),
    (21, "ppc64el"),
    (22, "s390x"),
    (40, "armhf"),
    (62, "amd64"),
    (183, "arm64"),
    (243, "riscv64"),
];

/// The image as a recipe would resolve to.
pub(super) fn resolve(rootfs: &Rootfs, options: &PackOptions<'_>) -> Result<Resolved> {
    let release = os_release(rootfs)?;
    let codename = ["VERSION_CODENAME", "VERSION_ID"].iter().find_map(|key| release.get(*key));
    let codename = codename.map(String::as_str).or(options.named.map(|(_, release)| release));
    let codename = codename.unwrap_or_default();
    let (text, file) = match options.metadata {
        Some(path) => (fs::read_to_string(path).map_err(Error::io(path))?, path.display().to_string()),
        None => (recipe(&release, options)?, "os-release".to_owned()),
    };
    let mut overrides = Vec::new();
    let given = |key: &str| options.overrides.iter().any(|text| text.starts_with(&format!("{key}=")));
    if options.metadata.is_none()
        && !given("image.architecture")
        && let Some(architecture) = architecture(rootfs)?
    {
        overrides.push(format!("image.architecture={architecture}"));
    }
    overrides.extend(options.overrides.iter().cloned());
    let serial = options.serial.to_string();
    let fallback = Fallback { release: codename, serial: &serial };
    Recipe::parse(&text, &file)?.resolve(&overrides, Kind::Container, &fallback)
}

/// The recipe that would have made it.
fn recipe(release: &BTreeMap<String, String>, options: &PackOptions<'_>) -> Result<String> {
    let given = |key: &str| {
        let prefix = format!("{key}=");
        options.overrides.iter().find_map(|text| text.strip_prefix(&prefix)).map(str::to_owned)
    };
    let found = |key: &str| release.get(key).cloned();
    let named = || options.named.map(|(distribution, _)| distribution.to_owned());
    let distribution = given("image.distribution").or_else(|| found("ID")).or_else(named);
    let distribution = distribution.ok_or_else(|| {
        Error::Refused(
            "the root file system has no os-release to tell the distribution; give -o image.distribution=NAME \
             and -o image.release=NAME"
                .into(),
        )
    })?;
    let name = found("NAME").unwrap_or_default();
    let name = name.split_whitespace().next().unwrap_or_default();
    let description = found("PRETTY_NAME").unwrap_or_default();
    let recipe = json!({
        "image": { "distribution": distribution, "description": plain(&description) },
        "source": { "downloader": "rootfs-http" },
        "simplestream": { "distro_name": plain(name) },
        "targets": { "lxc": {
            "create_message": "You have just created a container from a packed root file system.",
            "config": [
                { "type": "all", "content": "lxc.include = LXC_TEMPLATE_CONFIG/common.conf" },
                { "type": "user", "content": "lxc.include = LXC_TEMPLATE_CONFIG/userns.conf" },
                { "type": "all", "content": "lxc.arch = {{ image.architecture_personality }}" },
            ],
        }},
        "files": [{
            "generator": "template",
            "path": "/etc/hostname",
            "name": "hostname",
            "content": "{{ container.name }}\n",
            "template": { "when": ["create", "copy", "rename"] },
        }],
    });
    serde_yaml_ng::to_string(&recipe).map_err(|e| Error::Internal(e.to_string()))
}

/// Text that no template engine will take for more than text.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !"{}%".contains(*c)).collect()
}

/// `os-release`, as os-release(5) has it.
fn os_release(rootfs: &Rootfs) -> Result<BTreeMap<String, String>> {
    let text = match rootfs.read("/etc/os-release")? {
        Some(text) => Some(text),
        None => rootfs.read("/usr/lib/os-release")?,
    };
    Ok(parse(&String::from_utf8_lossy(&text.unwrap_or_default())))
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let value = |text: &str| {
        let text = text.trim();
        let inner = ['"', '\''].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q));
        inner.unwrap_or(text).replace('\\', "")
    };
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.trim().to_owned(), value(v))).collect()
}

/// What the programs inside are made for.
fn architecture(rootfs: &Rootfs) -> Result<Option<Architecture>> {
    for program in PROGRAMS {
        let Some(bytes) = rootfs.read(program)? else { continue };
        if let Some(found) = machine(&bytes) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn machine(elf: &[u8]) -> Option<Architecture> {
    let machine: [u8; 2] = elf.get(18..20)?.try_into().ok()?;
    let machine = match elf.strip_prefix(b"\x7fELF")?.get(1)? {
        1 => u16::from_le_bytes(machine),
        _ => u16::from_be_bytes(machine),
    };
    MACHINES.iter().find(|(number, _)| *number == machine)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_as_its_manual_says() {
        let text = "# note\nID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nodd\nURL=a=b\n";
        let found = parse(text);
        assert_eq!(found["ID"], "debian");
        assert_eq!(found["NAME"], "Debian GNU/Linux");
        assert_eq!(found["VERSION_ID"], "12");
        assert_eq!(found["URL"], "a=b");
    }

    #[test]
    fn the_architecture_stands_in_a_programs_header() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert_eq!(machine(&own), Some(Architecture::host()));
        assert_eq!(machine(b"#!/bin/sh and some more text"), None);
        assert_eq!(machine(b"\x7fELF"), None);
        let s390x = [b"\x7fELF\x02\x02\x01".as_slice(), &[0; 9], &[0, 2, 0, 22]].concat();
        assert_eq!(machine(&s390x).map(|a| a.to_string()).as_deref(), Some("s390x"));
    }

    #[test]
    fn names_from_inside_are_text() {
        assert_eq!(plain("Evil {{ config }} {% x %}\n"), "Evil  config   x ");
    }
}
