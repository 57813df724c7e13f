//! Root file systems out of repositories of rpm packages: `rpmbootstrap`, where the recipe brings
//! a `.repo` file, and the distributions whose mirrors have repositories in known places. The
//! host's own dnf does it, in a [`Workshop`].
//!
//! First everything is fetched, then installed without the network: so the scripts of packages have
//! none, and the newest package's date, which dates the image, is known before they run.

mod database;
mod repositories;

use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::{Architecture, Sha256Digest, manifest};

use self::repositories::{LAYOUTS, Layout, Wanted};
use super::trust::Trust;
use super::workshop::{Workshop, program, quoted};
use super::{Context, Origin};
use crate::apt::mirror;
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result, output};

/// Whether this module knows the downloader.
pub(super) fn knows(downloader: &str) -> bool {
    downloader == "rpmbootstrap" || layout(downloader).is_some()
}

fn layout(downloader: &str) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.downloader == downloader)
}

/// Fills the root directory.
pub(super) fn unpack(context: &Context<'_>, scripts: &mut Scripts<'_>) -> Result<Origin> {
    let resolved = context.resolved;
    let layout = layout(&resolved.definition.source.downloader);
    let base = match layout {
        Some(_) => mirror::base_url(resolved, context.host)?,
        None => String::new(),
    };
    let wanted = Wanted::of(resolved, layout, &base)?;
    let trust = Trust::of(resolved, context.host)?;
    wanted.check_way(&trust)?;
    let dnf = program(&["dnf", "dnf5", "yum"]).ok_or_else(|| {
        Error::Refused(
            "this host has neither dnf nor yum, which installs the packages; install the package dnf".into(),
        )
    })?;
    let workshop = Workshop::new(context.root)?;
    prepare(&workshop, &wanted, &trust)?;
    let command = Command { dnf, wanted: &wanted, trust: &trust, architecture: resolved.architecture };
    workshop.run(scripts, "fetching packages with dnf", &command.script("--downloadonly"), true)?;
    let sources = documents(context.root, &wanted);
    for source in &sources {
        scripts.note(&format!("source: {} SHA-256 {}", source.url, source.sha256))?;
    }
    note_trust(&trust, scripts)?;
    let date = newest(&workshop, context.root, scripts)?;
    scripts.env.entry("SOURCE_DATE_EPOCH".into()).or_insert_with(|| date.to_string());
    workshop.run(scripts, "installing packages with dnf", &command.script("--cacheonly"), false)?;
    database::settle(&workshop, context.root, scripts)?;
    let rootfs = Rootfs::open(context.root)?;
    // It has the hour of the build in it; without it, dnf takes every package for wanted.
    rootfs.remove("/var/lib/dnf")?;
    rootfs.remove("/usr/lib/sysimage/libdnf5")?;
    if let Some((name, key)) = layout.and_then(|layout| layout.file) {
        let text = wanted.repositories.clone() + &format!("gpgcheck=1\ngpgkey=file://{key}\n");
        rootfs.write(&format!("/etc/yum.repos.d/{name}"), text.as_bytes(), Attributes::default())?;
    }
    Ok(Origin { sources, date, installed: None })
}

fn prepare(workshop: &Workshop, wanted: &Wanted, trust: &Trust) -> Result<()> {
    workshop.write("repositories/recipe.repo", &wanted.repositories)?;
    workshop.write(
        "dnf.conf",
        "[main]\nplugins=0\nreposdir=/shop/repositories\nvarsdir=/shop/vars\nkeepcache=1\n",
    )?;
    // dnf finds these in its home directory. What is mounted for scripts is not the packages'.
    let macros = format!("%_dbpath {}\n%_netsharedpath /proc:/sys:/dev\n", database::PLACE);
    workshop.write(".rpmmacros", &macros)?;
    if let Some(keys) = trust.armored()? {
        workshop.write("keys.asc", &keys)?;
    }
    Ok(())
}

fn note_trust(trust: &Trust, scripts: &Scripts<'_>) -> Result<()> {
    if trust.is_skipped() {
        return scripts.note("warning: source.skip_verification: no signature of a package was checked");
    }
    if !trust.has_keys() {
        scripts.note(
            "warning: no source.keys: signatures count as far as the repositories ask for them; \
             else the server itself was trusted",
        )?;
    }
    Ok(())
}

struct Command<'a> {
    dnf: &'a str,
    wanted: &'a Wanted,
    trust: &'a Trust,
    architecture: Architecture,
}

impl Command<'_> {
    fn script(&self, mode: &str) -> String {
        let mut words: Vec<String> = [
            self.dnf,
            mode,
            "--assumeyes",
            "--config=/shop/dnf.conf",
            "--installroot=/rootfs",
            // What the recipe's file says otherwise does not count.
            "--setopt=*.sslverify=1",
        ]
        .map(str::to_owned)
        .into();
        words.push(format!("--releasever={}", self.wanted.release));
        if self.trust.is_skipped() {
            words.push("--nogpgcheck".into());
        } else if self.trust.has_keys() {
            words.push("--setopt=*.gpgcheck=1".into());
            words.push("--setopt=*.gpgkey=file:///shop/keys.asc".into());
        }
        if self.architecture != Architecture::host() {
            words.push(format!("--forcearch={}", self.architecture.kernel()));
        }
        words.extend(self.wanted.excluded.iter().map(|name| format!("--exclude={name}")));
        words.push("install".into());
        words.extend(self.wanted.packages.iter().cloned());
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        format!("{}\n", words.join(" "))
    }
}

/// Where dnf, and where its successor keep what they fetch.
const CACHES: [&str; 2] = ["var/cache/dnf", "var/cache/libdnf5"];

/// The documents that stand for all of a repository, one for each.
fn documents(root: &Path, wanted: &Wanted) -> Vec<manifest::Source> {
    let mut sources = Vec::new();
    for cache in cached(root) {
        let document = cache.join("repodata/repomd.xml");
        let Ok(data) = fs::read(&document) else { continue };
        let name = cache.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.rsplit_once('-').map_or(name.as_str(), |(name, _)| name).to_owned();
        let url = wanted.base_of(&name).map_or_else(|| name.clone(), |url| output::without_password(&url));
        sources.push(manifest::Source {
            url,
            name: format!("{name}/repodata/repomd.xml"),
            sha256: Sha256Digest::of(&data),
        });
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

/// A directory for each repository.
fn cached(root: &Path) -> Vec<PathBuf> {
    let caches =
        CACHES.iter().flat_map(|cache| fs::read_dir(root.join(cache)).into_iter().flatten().flatten());
    let mut found: Vec<_> = caches.map(|item| item.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// When the newest of the fetched packages was built, seconds since 1970.
fn newest(workshop: &Workshop, root: &Path, scripts: &Scripts<'_>) -> Result<i64> {
    let fetched = cached(root).into_iter().filter_map(|cache| fs::read_dir(cache.join("packages")).ok());
    let count = fetched.flatten().flatten().count();
    if count == 0 {
        return Err(Error::Refused("dnf fetched no package; see the log".into()));
    }
    let places: Vec<_> = CACHES.iter().map(|cache| format!("/rootfs/{cache}/*/packages/*.rpm")).collect();
    let script = format!(
        "for file in {}; do\n  if [ -e \"$file\" ]; then rpm -qp --nosignature --qf '%{{BUILDTIME}}\\n' \"$file\"; fi\ndone \
         > times\n",
        places.join(" ")
    );
    workshop.run(scripts, "reading the dates of packages", &script, false)?;
    let text = workshop.read("times")?;
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).max().unwrap_or(0))
}
