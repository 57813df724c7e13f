//! The generators of `files`.

mod agent;
mod cloud_init;
mod copy;

use std::collections::BTreeMap;
use std::path::Path;

use millstream_image::metadata::Template;

use crate::recipe::{FileEntry, Targets};
use crate::rootfs::{Attributes, Rootfs};
use crate::{Error, Result};

/// What generators leave for the image's metadata, besides files in the root file system.
#[derive(Debug, Default)]
pub(crate) struct Generated {
    /// Templates for `metadata.yaml`, by the path they render.
    pub(crate) templates: BTreeMap<String, Template>,
    /// Their texts, by file name under `templates/`.
    pub(crate) texts: BTreeMap<String, Vec<u8>>,
    /// Paths in which LXC replaces placeholders.
    pub(crate) lxc_templated: Vec<String>,
}

/// Runs one generator. `base` is the recipe's directory, from which `source` is taken.
pub(crate) fn run(
    file: &FileEntry,
    targets: &Targets,
    rootfs: &Rootfs,
    base: &Path,
    generated: &mut Generated,
) -> Result<()> {
    let path = file.path.as_str();
    if file.templated {
        generated.lxc_templated.push(path.to_owned());
    }
    // What an instance brings along belongs to virtual machines; a container has no disk to mount
    // and needs no agent.
    let machine = targets.r#type == "vm";
    match file.generator.as_str() {
        "cloud-init" => cloud_init::run(file, generated),
        "copy" => copy::run(file, rootfs, base),
        "dump" => rootfs.write(path, &with_newline(&file.content), attributes(file)?),
        "fstab" if machine => rootfs.write("/etc/fstab", fstab(targets).as_bytes(), attributes(file)?),
        "incus-agent" if machine => agent::run("incus", rootfs),
        "lxd-agent" if machine => agent::run("lxd", rootfs),
        "fstab" | "incus-agent" | "lxd-agent" => Ok(()),
        "hostname" => hostname(file, rootfs, generated),
        "hosts" => hosts(file, rootfs, generated),
        "remove" => rootfs.remove(path),
        "template" => {
            let name = match file.name.as_str() {
                "" => path.trim_matches('/').replace('/', "-"),
                name => name.to_owned(),
            };
            generated.template(file, path, &format!("{name}.tpl"), with_newline(&file.content));
            Ok(())
        }
        other => Err(Error::Refused(format!("files: unknown generator {other:?}"))),
    }
}

impl Generated {
    fn template(&mut self, file: &FileEntry, path: &str, name: &str, text: Vec<u8>) {
        let when = match file.template.when.as_slice() {
            [] => vec!["create".to_owned(), "copy".to_owned()],
            when => when.to_vec(),
        };
        let properties = file.template.properties.clone();
        let entry = Template { when, template: name.to_owned(), properties, ..Template::default() };
        self.templates.insert(path.to_owned(), entry);
        self.texts.insert(name.to_owned(), text);
    }
}

fn fstab(targets: &Targets) -> String {
    let filesystem = [&targets.incus, &targets.lxd].map(|target| target.vm.filesystem.as_str());
    let filesystem = filesystem.into_iter().find(|name| !name.is_empty()).unwrap_or("ext4");
    let options = if filesystem == "btrfs" { "defaults,subvol=@" } else { "defaults" };
    format!(
        "LABEL=rootfs  /         {filesystem}  {options}  0 0\nLABEL=UEFI    /boot/efi vfat  defaults  0 0\n"
    )
}

fn or<'a>(path: &'a str, default: &'a str) -> &'a str {
    if path.is_empty() { default } else { path }
}

fn with_newline(text: &str) -> Vec<u8> {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    [text, newline].concat().into_bytes()
}

fn hostname(file: &FileEntry, rootfs: &Rootfs, generated: &mut Generated) -> Result<()> {
    let path = or(&file.path, "/etc/hostname");
    generated.lxc_templated.push(path.to_owned());
    generated.template(file, path, "hostname.tpl", b"{{ container.name }}\n".to_vec());
    rootfs.write(path, b"LXC_NAME\n", attributes(file)?)
}

fn hosts(file: &FileEntry, rootfs: &Rootfs, generated: &mut Generated) -> Result<()> {
    let path = or(&file.path, "/etc/hosts");
    let present =
        rootfs.read(path)?.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let kept = present.lines().filter(|line| !line.contains("LXC_NAME"));
    let mut text = kept.flat_map(|line| [line, "\n"]).collect::<String>();
    if !text.contains("localhost") {
        text.insert_str(0, "127.0.0.1\tlocalhost\n");
    }
    generated.lxc_templated.push(path.to_owned());
    let template = format!("{text}127.0.1.1\t{{{{ container.name }}}}\n");
    generated.template(file, path, "hosts.tpl", template.into_bytes());
    rootfs.write(path, format!("{text}127.0.1.1\tLXC_NAME\n").as_bytes(), attributes(file)?)
}

fn attributes(file: &FileEntry) -> Result<Attributes> {
    let number = |field: &str, text: &str, radix: u32| {
        let text = text.trim_start_matches("0o");
        let bad = || Error::Refused(format!("files: {} of {}: {text:?} is not a number", field, file.path));
        if text.is_empty() { Ok(None) } else { u32::from_str_radix(text, radix).map(Some).map_err(|_| bad()) }
    };
    Ok(Attributes {
        mode: number("mode", &file.mode, 8)?,
        uid: number("uid", &file.uid, 10)?,
        gid: number("gid", &file.gid, 10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate(files: &[FileEntry], kind: &str) -> (tempfile::TempDir, Generated) {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        let mut targets = Targets { r#type: kind.into(), ..Targets::default() };
        targets.lxd.vm.filesystem = "btrfs".into();
        let mut generated = Generated::default();
        for file in files {
            run(file, &targets, &rootfs, dir.path(), &mut generated).unwrap();
        }
        (dir, generated)
    }

    fn entry(generator: &str, path: &str, content: &str) -> FileEntry {
        FileEntry {
            generator: generator.into(),
            path: path.into(),
            content: content.into(),
            ..FileEntry::default()
        }
    }

    #[test]
    fn dump_template_hostname_and_hosts() {
        let mut start = entry("template", "/etc/x/y", "{{ x }}");
        start.template.when = vec!["start".into()];
        start.template.properties = [("a".to_owned(), "b".to_owned())].into();
        let templated = FileEntry { templated: true, mode: "0640".into(), ..entry("dump", "/a/b", "text") };
        let (dir, generated) =
            generate(&[templated, start, entry("hostname", "", ""), entry("hosts", "", "")], "container");
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("a/b"), "text\n");
        assert_eq!(read("etc/hostname"), "LXC_NAME\n");
        assert_eq!(read("etc/hosts"), "127.0.0.1\tlocalhost\n127.0.1.1\tLXC_NAME\n");
        let template = &generated.templates["/etc/x/y"];
        assert_eq!(
            (template.template.as_str(), template.when.as_slice()),
            ("etc-x-y.tpl", &["start".to_owned()][..])
        );
        assert_eq!(template.properties["a"], "b");
        assert_eq!(generated.texts["etc-x-y.tpl"], b"{{ x }}\n");
        assert_eq!(generated.templates["/etc/hostname"].when, ["create", "copy"]);
        assert_eq!(generated.lxc_templated, ["/a/b", "/etc/hostname", "/etc/hosts"]);
    }

    #[test]
    fn what_belongs_to_virtual_machines_is_for_them_alone() {
        let files = [entry("fstab", "", ""), entry("incus-agent", "", ""), entry("lxd-agent", "", "")];
        let (dir, _) = generate(&files, "container");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let (dir, _) = generate(&files[..1], "vm");
        let text = std::fs::read_to_string(dir.path().join("etc/fstab")).unwrap();
        assert!(text.starts_with("LABEL=rootfs  /         btrfs  defaults,subvol=@  0 0\n"), "{text}");
    }
}
