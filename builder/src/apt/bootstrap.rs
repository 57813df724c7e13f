//! From suites to a configured root file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millstream_client::{HttpClient, Progress};
use millstream_image::Architecture;
use millstream_image::manifest;
use millstream_image::openpgp::Keyring;
use millstream_runtime::CancelToken;
use tokio::sync::Semaphore;

use super::deb::{self, Unpacked};
use super::index::{self, Package, Packages, Release};
use super::sources::Source;
use super::{dpkg, resolve};
use crate::script::Scripts;
use crate::{Error, Result};

/// Downloads at a time.
const PARALLEL: usize = 8;

/// What to install.
pub struct Bootstrap<'a> {
    /// The main suite first, then those that update it.
    pub sources: &'a [Source],
    /// Keys the suites' Release files must be signed with.
    pub keyring: &'a Keyring,
    /// Architecture of the packages.
    pub architecture: Architecture,
    /// `minbase` (essential and required), or `important` on top.
    pub important: bool,
    /// Further packages.
    pub include: &'a [String],
    /// Directory of fetched packages and indexes, by SHA-256.
    pub cache: &'a Path,
}

/// A root file system's origin.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// Verified Release documents.
    pub releases: Vec<Release>,
    /// SHA-256 of each package file, by name and version.
    pub hashes: BTreeMap<(String, String), manifest::Package>,
}

impl Bootstrap<'_> {
    /// Fills the empty directory `root`.
    pub fn run(
        &self,
        root: &Path,
        scripts: &Scripts<'_>,
        http: &HttpClient,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Installed> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Error::io("tokio"))?;
        fs::create_dir_all(self.cache).map_err(Error::io(self.cache))?;
        let (packages, releases) = runtime.block_on(self.indexes(http, progress))?;
        cancel.check()?;
        let chosen = resolve::closure(&packages, self.wanted(&packages))?;
        let chosen: Vec<_> = chosen.into_values().collect();
        runtime.block_on(self.fetch(http, &chosen, progress, cancel))?;
        make_base(root)?;
        let unpacked = self.unpack(&chosen, root, cancel)?;
        dpkg::register(root, &unpacked)?;
        let arch_file = root.join("var/lib/dpkg/arch");
        fs::write(&arch_file, format!("{}\n", self.architecture)).map_err(Error::io(&arch_file))?;
        configure(root, &unpacked, scripts)?;
        let hashes = chosen.iter().map(|p| ((p.name.clone(), p.version.clone()), record(p))).collect();
        Ok(Installed { releases, hashes })
    }

    async fn indexes(&self, http: &HttpClient, progress: &dyn Progress) -> Result<(Packages, Vec<Release>)> {
        let mut packages = Packages::new();
        let mut releases = Vec::new();
        for source in self.sources {
            let release = index::release(http, source, self.keyring).await?;
            for component in &source.components {
                let arch = self.architecture.debian();
                index::load(http, &release, component, arch, self.cache, progress, &mut packages).await?;
            }
            releases.push(release);
        }
        Ok((packages, releases))
    }

    fn wanted<'p>(&'p self, packages: &'p Packages) -> BTreeSet<&'p str> {
        let base = packages.values().filter(|package| {
            let priority = package.field("Priority");
            package.field("Essential") == "yes"
                || priority == "required"
                || (self.important && priority == "important")
        });
        let mut wanted: BTreeSet<_> = base.map(|package| package.name.as_str()).collect();
        wanted.insert("apt");
        wanted.extend(self.include.iter().map(String::as_str));
        wanted
    }

    async fn fetch(
        &self,
        http: &HttpClient,
        packages: &[Arc<Package>],
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<()> {
        let slots = Semaphore::new(PARALLEL);
        let fetches = packages.iter().map(|package| async {
            let _slot = slots.acquire().await;
            cancel.check()?;
            let file = self.file(package);
            index::fetch(http, &package.url, &file, package.size, package.sha256, progress).await
        });
        futures_util::future::try_join_all(fetches).await.map(|_| ())
    }

    fn file(&self, package: &Package) -> PathBuf {
        self.cache.join(package.sha256.to_string())
    }

    fn unpack(
        &self,
        packages: &[Arc<Package>],
        root: &Path,
        cancel: &CancelToken,
    ) -> Result<Vec<(Arc<Package>, Unpacked)>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        // Packages that make the directories everything else lands in come first.
        let mut order: Vec<_> = packages.iter().collect();
        order.sort_by_key(|package| (package.name != "base-files", std::cmp::Reverse(package.size)));
        let (first, rest) = order.split_at(1.min(order.len()));
        let mut all = Vec::new();
        for package in first {
            all.push((Arc::clone(package), deb::unpack(&self.file(package), root)?));
        }
        let worker = || -> Result<Vec<_>> {
            let mut done = Vec::new();
            while let Some(package) = rest.get(next.fetch_add(1, Ordering::Relaxed)) {
                cancel.check()?;
                done.push((Arc::clone(package), deb::unpack(&self.file(package), root)?));
            }
            Ok(done)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        for result in results {
            all.extend(result.map_err(|_| Error::Internal("an unpacking thread panicked".into()))??);
        }
        all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(all)
    }
}

fn record(package: &Package) -> manifest::Package {
    manifest::Package {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        sha256: Some(package.sha256),
    }
}

/// The links of a merged /usr, which packages expect to be there before they are unpacked.
fn make_base(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let directory = root.join("usr").join(name);
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let link = root.join(name);
        symlink(Path::new("usr").join(name), &link).map_err(Error::io(&link))?;
    }
    Ok(())
}

/// Runs the packages' preinst scripts, then lets dpkg configure everything.
///
/// A preinst normally runs before its package is unpacked. On a first installation those of
/// Debian's base either make what is not there yet (base-passwd: `/etc/passwd`) or check for an
/// upgrade and do nothing, so running them now, in the order of their needs, comes to the same.
fn configure(root: &Path, packages: &[(Arc<Package>, Unpacked)], scripts: &Scripts<'_>) -> Result<()> {
    let mut names: Vec<_> = packages
        .iter()
        .filter(|(_, unpacked)| unpacked.control.contains_key("preinst"))
        .map(|(package, _)| (package.name != "base-passwd", package))
        .collect();
    names.sort_by_key(|(later, package)| (*later, package.name.clone()));
    let mut script = String::from(
        "#!/bin/sh\nset -e\nexport DPKG_MAINTSCRIPT_NAME=preinst DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg\n/sbin/ldconfig 2>/dev/null || true\n",
    );
    for (_, package) in names {
        let info = dpkg::info_name(package);
        script.push_str(&format!(
            "export DPKG_MAINTSCRIPT_PACKAGE={} DPKG_MAINTSCRIPT_ARCH={}\n/var/lib/dpkg/info/{info}.preinst install\n",
            package.name, package.architecture
        ));
    }
    script.push_str("exec dpkg --configure -a\n");
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n").map_err(Error::io(&policy))?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&policy, executable).map_err(Error::io(&policy))?;
    scripts.run("configuring the base system", &script)
}
