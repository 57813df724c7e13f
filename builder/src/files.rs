//! The generators of `files`.

use std::collections::BTreeMap;
use std::path::Path;

use millstream_image::metadata::Template;

use crate::recipe::FileEntry;
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
pub(crate) fn run(file: &FileEntry, rootfs: &Rootfs, base: &Path, generated: &mut Generated) -> Result<()> {
    let path = file.path.as_str();
    if file.templated {
        generated.lxc_templated.push(path.to_owned());
    }
    match file.generator.as_str() {
        "dump" => rootfs.write(path, file.content.as_bytes(), attributes(file)?),
        "copy" => copy(file, rootfs, base),
        "remove" => rootfs.remove(path),
        "hostname" => {
            let path = or(path, "/etc/hostname");
            generated.lxc_templated.push(path.to_owned());
            template(generated, path, "hostname.tpl", b"{{ container.name }}\n".to_vec(), &[]);
            rootfs.write(path, b"LXC_NAME\n", attributes(file)?)
        }
        "hosts" => hosts(file, rootfs, generated),
        "template" => {
            let name = if file.name.is_empty() {
                path.trim_matches('/').replace('/', "-")
            } else {
                file.name.clone()
            };
            let name = format!("{name}.tpl");
            template(generated, path, &name, file.content.clone().into_bytes(), &file.template.when);
            if let Some(entry) = generated.templates.get_mut(path) {
                entry.properties.clone_from(&file.template.properties);
            }
            Ok(())
        }
        "fstab" => rootfs.write(or(path, "/etc/fstab"), FSTAB, attributes(file)?),
        other => Err(Error::Refused(format!(
            "generator {other} (for {path}) is for virtual machines or cloud-init and is not available yet; \
             limit the entry with `variants` or `types`"
        ))),
    }
}

const FSTAB: &[u8] =
    b"LABEL=rootfs  /         ext4  defaults  0 0\nLABEL=UEFI    /boot/efi vfat  defaults  0 0\n";

fn or<'a>(path: &'a str, default: &'a str) -> &'a str {
    if path.is_empty() { default } else { path }
}

fn template(generated: &mut Generated, path: &str, name: &str, text: Vec<u8>, when: &[String]) {
    let when = if when.is_empty() { vec!["create".to_owned(), "copy".to_owned()] } else { when.to_vec() };
    let entry = Template { when, template: name.to_owned(), ..Template::default() };
    generated.templates.insert(path.to_owned(), entry);
    generated.texts.insert(name.to_owned(), text);
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
    template(
        generated,
        path,
        "hosts.tpl",
        format!("{text}127.0.1.1\t{{{{ container.name }}}}\n").into_bytes(),
        &[],
    );
    rootfs.write(path, format!("{text}127.0.1.1\tLXC_NAME\n").as_bytes(), attributes(file)?)
}

fn copy(file: &FileEntry, rootfs: &Rootfs, base: &Path) -> Result<()> {
    let source = base.join(&file.source);
    let target = or(&file.path, &file.source);
    let meta = std::fs::metadata(&source).map_err(Error::io(&source))?;
    if meta.is_file() {
        let data = std::fs::read(&source).map_err(Error::io(&source))?;
        let mut attributes = attributes(file)?;
        attributes.mode = attributes.mode.or(Some(std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777));
        return rootfs.write(target, &data, attributes);
    }
    rootfs.make_directories(target)?;
    let mut items: Vec<_> = std::fs::read_dir(&source)
        .map_err(Error::io(&source))?
        .flatten()
        .map(|item| item.file_name())
        .collect();
    items.sort();
    for item in items {
        let name = item.to_string_lossy();
        let inner = FileEntry {
            source: source.join(&item).to_string_lossy().into_owned(),
            path: format!("{}/{name}", target.trim_end_matches('/')),
            ..file.clone()
        };
        copy(&inner, rootfs, Path::new("/"))?;
    }
    Ok(())
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
