//! The whole way from a resolved recipe to a directory of image files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use millstream_client::{HttpClient, HttpOptions, Progress};
use millstream_image::archive::{Bcj, FileGroup, PackOptions, Packed, XzOptions, pack, pack_members};
use millstream_image::manifest::{self, Manifest};
use millstream_image::openpgp::Keyring;
use millstream_image::sums::Sums;
use millstream_image::{Serial, atomic};
use millstream_runtime::CancelToken;
use millstream_runtime::sandbox::Sandbox;

use crate::apt::bootstrap::{Bootstrap, Installed};
use crate::apt::sources::{HostSources, Source};
use crate::files::{self, Generated};
use crate::recipe::Resolved;
use crate::rootfs::{Attributes, Rootfs};
use crate::script::Scripts;
use crate::{Error, Result, artefacts, leftovers};

/// Debian's archive keys, so that nothing on the host is needed to verify its mirrors.
const DEBIAN_KEYS: &[u8] = include_bytes!("../../keys/debian-archive.asc");

/// How to build.
pub struct BuildOptions<'a> {
    /// Directory that appears with the image's files; must not exist.
    pub out: &'a Path,
    /// Directory of fetched packages.
    pub cache: &'a Path,
    /// Directory of the recipe, for `copy`.
    pub recipe_dir: &'a Path,
    /// The image's serial.
    pub serial: Serial,
    /// Only the root file system, as the directory `rootfs` in `out`.
    pub dir_only: bool,
    /// Compression threads.
    pub threads: usize,
    /// Seconds a script may run.
    pub script_timeout: u64,
    /// The host's mirrors.
    pub host: &'a HostSources,
    /// Told of downloads.
    pub progress: &'a dyn Progress,
    /// Told of stages.
    pub stage: &'a dyn Fn(&str),
    /// Stops the build.
    pub cancel: &'a CancelToken,
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// The directory.
    pub dir: PathBuf,
    /// What `manifest.json` says; `None` for a directory-only build.
    pub manifest: Option<Manifest>,
}

/// Builds an image. `options.out` appears complete or not at all.
///
/// # Errors
/// Whatever fails first; nothing stays behind but the package cache.
pub fn build(resolved: &Resolved, options: &BuildOptions<'_>) -> Result<Built> {
    let out = options.out;
    if out.exists() {
        return Err(Error::NotThere(format!(
            "{} exists already; choose another --out or remove it",
            out.display()
        )));
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    // Removed with everything in it when this function leaves by an error.
    let staging = tempfile::Builder::new()
        .prefix(".millstream-build-")
        .tempdir_in(parent)
        .map_err(Error::io(parent))?;
    let work = fs::canonicalize(staging.path()).map_err(Error::io(staging.path()))?;
    let log_path = work.join("build.log");
    let log = RefCell::new(File::create(&log_path).map_err(Error::io(&log_path))?);
    let build = Build { resolved, options, log: &log, log_path, stages: RefCell::default() };
    let manifest = build.run(&work)?;
    log.borrow_mut().sync_all().map_err(Error::io(&build.log_path))?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(staging.path(), readable).map_err(Error::io(staging.path()))?;
    options.cancel.check()?;
    atomic::rename(staging.path(), out)?;
    let _gone = staging.keep();
    Ok(Built { dir: out.to_path_buf(), manifest })
}

struct Build<'a> {
    resolved: &'a Resolved,
    options: &'a BuildOptions<'a>,
    log: &'a RefCell<File>,
    log_path: PathBuf,
    stages: RefCell<Vec<(String, f64)>>,
}

impl Build<'_> {
    fn run(&self, work: &Path) -> Result<Option<Manifest>> {
        let definition = &self.resolved.definition;
        let root = work.join("rootfs");
        fs::create_dir(&root).map_err(Error::io(&root))?;
        let archives = self.options.cache.join("archives").join(self.resolved.architecture.debian());
        fs::create_dir_all(archives.join("partial")).map_err(Error::io(&archives))?;
        let archives = fs::canonicalize(&archives).map_err(Error::io(&archives))?;
        let scripts = self.scripts(&root, None);
        let installed = self.stage("bootstrap", || self.bootstrap(&root, &scripts))?;
        // From here on apt may work inside, with a cache that outlives the build.
        let rootfs = Rootfs::open(&root)?;
        rootfs.make_directories("/var/cache/apt/archives")?;
        let scripts = self.scripts(&root, Some(&archives));
        self.actions("post-unpack", &scripts)?;
        self.stage("packages", || self.packages(&rootfs, &scripts))?;
        let mut generated = Generated::default();
        self.stage("files", || {
            for file in &definition.files {
                files::run(file, &rootfs, self.options.recipe_dir, &mut generated)?;
            }
            Ok(())
        })?;
        self.actions("post-files", &scripts)?;
        leftovers::remove(&rootfs)?;
        if self.options.dir_only {
            return Ok(None);
        }
        let manifest = self.artefacts(work, &rootfs, &generated, &installed)?;
        fs::remove_dir_all(&root).map_err(Error::io(&root))?;
        Ok(Some(manifest))
    }

    fn stage<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.options.cancel.check()?;
        (self.options.stage)(name);
        let started = Instant::now();
        let result = work();
        self.stages.borrow_mut().push((name.to_owned(), started.elapsed().as_secs_f64()));
        result
    }

    fn scripts(&self, root: &Path, archives: Option<&Path>) -> Scripts<'_> {
        let definition = &self.resolved.definition;
        let mut sandbox = Sandbox::new(root).network(true).no_fsync(true);
        if let Some(archives) = archives {
            sandbox = sandbox.bind(archives, "/var/cache/apt/archives", false);
        }
        let defaults = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("TERM", "dumb"),
            ("LC_ALL", "C.UTF-8"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ];
        let clear = definition.environment.clear_defaults;
        let mut env: BTreeMap<_, _> = defaults
            .iter()
            .filter(|(key, _)| !clear || *key == "PATH")
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        env.extend(definition.environment.variables.iter().map(|v| (v.key.clone(), v.value.clone())));
        Scripts {
            sandbox,
            env,
            timeout: self.options.script_timeout,
            log: self.log,
            log_path: self.log_path.clone(),
            cancel: self.options.cancel,
        }
    }

    fn bootstrap(&self, root: &Path, scripts: &Scripts<'_>) -> Result<Installed> {
        let source = &self.resolved.definition.source;
        if source.downloader != "debootstrap" {
            return Err(Error::NotThere(format!(
                "downloader {} is not available yet; use debootstrap",
                source.downloader
            )));
        }
        let mut keyring = Keyring::from_bytes(DEBIAN_KEYS)?;
        let armored: Vec<_> = source.keys.iter().filter(|key| key.contains("-----BEGIN")).collect();
        if !armored.is_empty() {
            keyring = Keyring::default();
            for key in armored {
                keyring.merge(Keyring::from_bytes(key.as_bytes())?);
            }
        }
        let sources = self.sources()?;
        for source in &sources {
            scripts.note(&format!("source: {} {}", source.url, source.suites.join(" ")))?;
        }
        let important = source.variant != "minbase";
        let bootstrap = Bootstrap {
            sources: &sources,
            keyring: &keyring,
            architecture: self.resolved.architecture,
            important,
            include: &[],
            cache: self.options.cache,
        };
        let http = HttpClient::new(&HttpOptions::default())?;
        let installed = bootstrap.run(root, scripts, &http, self.options.progress, self.options.cancel)?;
        let lines: String = sources
            .iter()
            .map(|s| format!("deb {} {} {}\n", s.url, s.suites.join(" "), s.components.join(" ")))
            .collect();
        Rootfs::open(root)?.write("/etc/apt/sources.list", lines.as_bytes(), Attributes::default())?;
        Ok(installed)
    }

    /// The mirror named by the recipe (or `-o source.url=`), else the host's own; with the host's,
    /// also its updates and security suites.
    fn sources(&self) -> Result<Vec<Source>> {
        let source = &self.resolved.definition.source;
        let product = &self.resolved.product;
        let suite = if source.suite.is_empty() { product.release() } else { &source.suite };
        let components =
            if source.components.is_empty() { vec!["main".to_owned()] } else { source.components.clone() };
        if !source.url.is_empty() {
            let url = source.url.trim_end_matches('/').to_owned();
            return Ok(vec![Source { url, suites: vec![suite.to_owned()], components }]);
        }
        let find = |suffix| self.options.host.find(product.distribution(), suite, suffix);
        let main = find("").ok_or_else(|| {
            Error::NotThere(format!(
                "no mirror for {} {suite}: this host's apt configuration has none; name one with -o source.url=URL",
                product.distribution()
            ))
        })?;
        let all = [Some(main), find("-updates"), find("-security")];
        Ok(all.into_iter().flatten().map(|s| Source { components: components.clone(), ..s }).collect())
    }

    fn actions(&self, trigger: &str, scripts: &Scripts<'_>) -> Result<()> {
        for action in self.resolved.definition.actions.iter().filter(|action| action.trigger == trigger) {
            scripts.run(&format!("action {trigger}"), &action.action)?;
        }
        Ok(())
    }

    fn packages(&self, rootfs: &Rootfs, scripts: &Scripts<'_>) -> Result<()> {
        let packages = &self.resolved.definition.packages;
        if !matches!(packages.manager.as_str(), "apt" | "") {
            return Err(Error::NotThere(format!(
                "package manager {} is not available yet; use apt",
                packages.manager
            )));
        }
        for repository in &packages.repositories {
            let path = format!("/etc/apt/sources.list.d/{}.list", repository.name);
            let path = if repository.name == "sources.list" { "/etc/apt/sources.list".into() } else { path };
            rootfs.write(&path, repository.url.as_bytes(), Attributes::default())?;
            if !repository.key.is_empty() {
                let path = format!("/etc/apt/trusted.gpg.d/{}.asc", repository.name);
                rootfs.write(&path, repository.key.as_bytes(), Attributes::default())?;
            }
        }
        let resolv = fs::read("/etc/resolv.conf").unwrap_or_default();
        let before = rootfs.read("/etc/resolv.conf")?;
        if before.is_none() {
            rootfs.remove("/etc/resolv.conf")?;
            rootfs.write("/etc/resolv.conf", &resolv, Attributes::default())?;
        }
        let result = self.package_sets(scripts);
        if before.is_none() && rootfs.read("/etc/resolv.conf")?.as_ref() == Some(&resolv) {
            rootfs.remove("/etc/resolv.conf")?;
        }
        result?;
        self.actions("post-packages", scripts)
    }

    fn package_sets(&self, scripts: &Scripts<'_>) -> Result<()> {
        let packages = &self.resolved.definition.packages;
        // Packages come over the verified cache; nothing recommended is taken unless asked.
        let apt = "apt-get -y -q -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confnew";
        let sets = |early: bool| {
            let mut script = String::new();
            for set in packages.sets.iter().filter(|set| set.early == early && !set.packages.is_empty()) {
                let verb = if set.action == "remove" { "remove --purge" } else { "install" };
                script.push_str(&format!(
                    "{apt} {verb} {} {}\n",
                    set.flags.join(" "),
                    set.packages.join(" ")
                ));
            }
            script
        };
        let needed = packages.update || !packages.sets.is_empty();
        if !needed {
            return self.actions("post-update", scripts);
        }
        scripts.run("early packages", &format!("#!/bin/sh\nset -e\n{apt} update\n{}", sets(true)))?;
        if packages.update {
            scripts.run("update", &format!("#!/bin/sh\nset -e\n{apt} dist-upgrade\n"))?;
        }
        self.actions("post-update", scripts)?;
        scripts.run("packages", &format!("#!/bin/sh\nset -e\n{}", sets(false)))?;
        if packages.cleanup {
            scripts.run("cleanup", &format!("#!/bin/sh\nset -e\n{apt} autoremove --purge\n"))?;
        }
        Ok(())
    }

    fn artefacts(
        &self,
        work: &Path,
        rootfs: &Rootfs,
        generated: &Generated,
        installed: &Installed,
    ) -> Result<Manifest> {
        let packages = installed_packages(rootfs, installed)?;
        let created = self.options.serial.time().timestamp();
        let epoch = epoch(installed);
        let bcj = match self.resolved.architecture.debian() {
            "amd64" | "i386" => Some(Bcj::X86),
            "arm64" => Some(Bcj::Arm64),
            _ => None,
        };
        let xz = XzOptions { threads: self.options.threads, bcj, ..XzOptions::default() };
        let options = PackOptions { epoch, xz, groups: groups(rootfs)?, ..PackOptions::default() };
        let mut files = BTreeMap::new();
        let packed = self.stage("pack", || {
            write_file(work, "rootfs.tar.xz", |out| Ok(pack(rootfs.path(), out, &options)?))
        })?;
        files.insert("rootfs.tar.xz".to_owned(), packed);
        let small = PackOptions { epoch, ..PackOptions::default() };
        let mut meta = artefacts::lxc(self.resolved, generated, created)?;
        let build_id = millstream_image::archive::Member::file(format!("{}\n", self.options.serial));
        meta.insert("build_id".into(), build_id);
        let lxd = artefacts::lxd(self.resolved, generated, &self.options.serial.to_string(), created)?;
        for (name, members) in [("meta.tar.xz", &meta), ("lxd.tar.xz", &lxd), ("incus.tar.xz", &lxd)] {
            let packed = write_file(work, name, |out| Ok(pack_members(members, out, &small)?))?;
            files.insert(name.to_owned(), packed);
        }
        let manifest = self.manifest(packages, epoch, files, installed)?;
        atomic::write(&work.join("manifest.json"), &manifest.to_bytes()?)?;
        let sums = manifest.files.iter().map(|(name, file)| (name.clone(), file.sha256)).collect();
        atomic::write(&work.join("SHA256SUMS"), Sums(sums).to_text().as_bytes())?;
        Ok(manifest)
    }

    fn manifest(
        &self,
        packages: Vec<manifest::Package>,
        epoch: i64,
        files: BTreeMap<String, manifest::File>,
        installed: &Installed,
    ) -> Result<Manifest> {
        let definition = &self.resolved.definition;
        let aliases = definition.simplestream.release_aliases.get(self.resolved.product.release());
        let requirements = definition.simplestream.requirements.iter().flat_map(|r| r.requirements.clone());
        let sources = installed.releases.iter().map(|release| manifest::Source {
            url: release.source.url.clone(),
            name: release.source.suites.join(" "),
            sha256: release.sha256,
        });
        let os = match definition.simplestream.distro_name.as_str() {
            "" => capitalised(self.resolved.product.distribution()),
            name => name.to_owned(),
        };
        Ok(Manifest {
            version: 1,
            product: self.resolved.product.clone(),
            serial: self.options.serial,
            os,
            description: definition.image.description.clone(),
            release_aliases: aliases
                .map(|a| a.split(',').map(|a| a.trim().to_owned()).collect())
                .unwrap_or_default(),
            requirements: requirements.collect(),
            source_date_epoch: epoch,
            recipe: serde_yaml_ng::to_string(definition).map_err(|e| Error::Internal(e.to_string()))?,
            sources: sources.collect(),
            packages,
            files,
            durations: self.stages.borrow().clone(),
        })
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default() + chars.as_str()
}

fn write_file(
    work: &Path,
    name: &str,
    pack: impl FnOnce(File) -> Result<(File, Packed)>,
) -> Result<manifest::File> {
    let path = work.join(name);
    let file = File::create(&path).map_err(Error::io(&path))?;
    let (mut file, packed) = pack(file)?;
    file.flush().and_then(|()| file.sync_all()).map_err(Error::io(&path))?;
    Ok(manifest::File {
        size: packed.size,
        sha256: packed.sha256,
        sha256_uncompressed: Some(packed.sha256_uncompressed),
        size_uncompressed: Some(packed.size_uncompressed),
    })
}

/// `SOURCE_DATE_EPOCH`, else the newest Release document's date: the same for the same packages.
fn epoch(installed: &Installed) -> i64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    given.or_else(|| installed.releases.iter().map(|release| release.date).max()).unwrap_or_default()
}

/// Every package dpkg has, with the hash of its file where we fetched it.
fn installed_packages(rootfs: &Rootfs, installed: &Installed) -> Result<Vec<manifest::Package>> {
    let status = rootfs.read("/var/lib/dpkg/status")?.unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mut packages = Vec::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
        };
        if !field("Status").ends_with(" installed") {
            continue;
        }
        let (name, version) = (field("Package").to_owned(), field("Version").to_owned());
        let sha256 = installed.hashes.get(&(name.clone(), version.clone())).and_then(|p| p.sha256);
        packages.push(manifest::Package {
            name,
            version,
            architecture: field("Architecture").to_owned(),
            sha256,
        });
    }
    packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    Ok(packages)
}

/// Files by owning package, packages by name.
fn groups(rootfs: &Rootfs) -> Result<Vec<FileGroup>> {
    let info = rootfs.path().join("var/lib/dpkg/info");
    let listing = fs::read_dir(&info).map_err(Error::io(&info))?;
    let mut lists: Vec<_> = listing
        .flatten()
        .map(|item| item.path())
        .filter(|path| path.extension().is_some_and(|e| e == "list"))
        .collect();
    lists.sort();
    let mut groups = Vec::new();
    for list in lists {
        let text = fs::read_to_string(&list).map_err(Error::io(&list))?;
        let resolve = |line: &str| {
            let path = Path::new(line.trim_start_matches('/'));
            // Packages may name /bin/x for what lies in /usr/bin.
            let first = path.components().next()?;
            let merged = rootfs
                .path()
                .join(first)
                .symlink_metadata()
                .is_ok_and(|meta| meta.mode() & 0o170_000 == 0o120_000);
            Some(if merged { Path::new("usr").join(path) } else { path.to_path_buf() })
        };
        groups.push(FileGroup { paths: text.lines().filter_map(resolve).collect() });
    }
    Ok(groups)
}
