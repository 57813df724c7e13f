//! `busybox`: a root file system with nothing but busybox, compiled from its published sources by
//! this host's compiler in a [`Workshop`] without network.

use std::fs;
use std::path::Path;

use millstream_image::Architecture;

use super::layouts::Signed;
use super::remote::Remote;
use super::trust::Trust;
use super::workshop::{Workshop, program};
use super::{Context, Origin, archive, oci, sums};
use crate::apt::mirror;
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result};

/// Directories besides those that have programs.
const DIRECTORIES: [&str; 6] = ["dev", "mnt", "proc", "root", "sys", "tmp"];
/// Names that are linked to busybox, at most.
const MAX_APPLETS: usize = 2000;

/// Everything there is, linked with no library; the year in it is that of the sources.
const COMPILE: &str = "cd source
make defconfig
sed -i 's/^# CONFIG_STATIC .*/CONFIG_STATIC=y/' .config
grep -q '^CONFIG_STATIC=y' .config
make -j\"$(nproc)\"
./busybox --list-full > /shop/applets
";

pub(super) fn unpack(context: &Context<'_>, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let resolved = context.resolved;
    check_host(resolved.architecture)?;
    let base = mirror::base_url(resolved, context.host)?;
    let release = &resolved.definition.image.release;
    if release.contains(['/', '%', '?', '#', '*']) || release.contains("..") {
        return Err(Error::Refused(format!("image.release: {release:?} cannot be part of a file's name")));
    }
    let trust = Trust::of(resolved, context.host)?;
    trust.check_way(&base, true)?;
    let url = format!("{base}/busybox-{release}.tar.bz2");
    let fetched = context.fetcher.run(fetch(&Remote { context, trust: &trust }, &url))?;
    scripts.note(&format!("source: {url} SHA-256 {}", fetched.source.sha256))?;
    if trust.is_skipped() {
        scripts.note("warning: source.skip_verification: neither checksum nor signature was checked")?;
    } else if !trust.has_keys() {
        scripts.note("warning: no source.keys: no signature was checked; the server itself was trusted")?;
    }
    let workshop = Workshop::new(context.root)?;
    let source = workshop.work().join("source");
    fs::create_dir(&source).map_err(Error::io(&source))?;
    let wanted =
        oci::Wanted { architecture: resolved.architecture, tag: None, cancel: context.fetcher.cancel };
    archive::unpack(&fetched.path, &source, &format!("busybox-{release}"), &wanted)?;
    let date = archive::newest_time(&source)?;
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| date.to_string());
    workshop.run(scripts, "compiling busybox", COMPILE, false)?;
    install(&workshop, context.root)?;
    Ok(Origin { sources: vec![fetched.source], date, installed: None })
}

/// Compiling for another processor would need another compiler.
fn check_host(architecture: Architecture) -> Result<()> {
    if architecture != Architecture::host() {
        return Err(Error::Refused(format!(
            "image.architecture: busybox is compiled for this host's {} only; \
             use rootfs-http or docker-http for {architecture}",
            Architecture::host()
        )));
    }
    for (name, package) in [("gcc", "gcc"), ("make", "make"), ("sed", "sed")] {
        if program(&[name]).is_none() {
            return Err(Error::Refused(format!(
                "this host has no {name}, which compiles busybox; install the package {package} (and libc6-dev)"
            )));
        }
    }
    Ok(())
}

/// The sources, whose checksum is beside them under their name with `.sha256`, their signature
/// under that with `.sig`.
async fn fetch(remote: &Remote<'_>, url: &str) -> Result<super::remote::Fetched> {
    let name = url.rsplit('/').next().unwrap_or(url);
    let expected = if remote.trust.is_skipped() {
        None
    } else {
        let list = format!("{url}.sha256");
        let text = remote.sums(&list, Signed::Nothing).await?;
        let found = text.as_deref().and_then(|text| sums::find(text, name));
        Some(found.ok_or_else(|| Error::Untrusted {
            what: list,
            reason: format!("there is no checksum of {name} (source.skip_verification: true does without)"),
        })?)
    };
    remote.checked(url, expected.as_ref(), Signed::Archive(".sig")).await
}

/// Puts busybox into the root file system, with a link for each of its names.
fn install(workshop: &Workshop, root: &Path) -> Result<()> {
    let rootfs = Rootfs::open(root)?;
    let text = workshop.read("applets")?;
    let file = workshop.open("source/busybox")?;
    let executable = Attributes { mode: Some(0o755), ..Attributes::default() };
    rootfs.write_from("/bin/busybox", file, executable)?;
    let names: Vec<_> = text.lines().filter(|line| !line.is_empty() && *line != "bin/busybox").collect();
    if names.len() > MAX_APPLETS {
        return Err(Error::Refused(format!("busybox names {} programs", names.len())));
    }
    for name in names {
        rootfs.symlink(&format!("/{name}"), Path::new("/bin/busybox"))?;
    }
    DIRECTORIES.iter().try_for_each(|directory| rootfs.make_directories(&format!("/{directory}")))
}
