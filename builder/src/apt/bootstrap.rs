//! From suites to a root file system whose packages are unpacked and known to dpkg.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use millstream_client::{HttpClient, Progress};
use millstream_image::Architecture;
use millstream_image::manifest;
use millstream_image::openpgp::Keyring;
use millstream_runtime::CancelToken;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::deb::{self, Unpacked};
use super::index::{self, List, Package, Packages, Release};
use super::sources::Source;
use super::{dpkg, resolve};
use crate::script::Scripts;
use crate::{Error, Result};

/// Downloads at a time.
const PARALLEL: usize = 8;

/// The root is laid out with a merged /usr from the start, so what would merge it is not needed.
const MERGES_USR: &str = "usrmerge";

/// A package and its file.
type Fetched = (Arc<Package>, PathBuf);
type UnpackedPackage = (Arc<Package>, Unpacked);

/// What to install.
pub struct Bootstrap<'a> {
    /// The main suite first, then those that update it.
    pub sources: &'a [Source],
    /// Keys the suites' Release files must be signed with.
    pub keyring: &'a Keyring,
    /// Architecture of the packages.
    pub architecture: Architecture,
    /// Priorities that belong to the base, besides everything essential.
    pub priorities: &'a [&'a str],
    /// Further packages.
    pub include: &'a [String],
    /// Packages of the base that are left out.
    pub exclude: &'a [String],
    /// Fetches what is needed.
    pub fetcher: &'a Fetcher<'a>,
}

/// Fetches into a directory that is shared by builds: files by SHA-256, hashed at every use.
pub struct Fetcher<'a> {
    /// The directory.
    pub cache: &'a Path,
    /// Where requests go through.
    pub http: &'a HttpClient,
    /// Told of downloads.
    pub progress: &'a dyn Progress,
    /// Stops everything.
    pub cancel: &'a CancelToken,
}

impl Plan {
    /// The packages of the base, by name.
    pub fn base(&self) -> Result<Vec<manifest::Package>> {
        self.chosen.iter().map(|package| record(package)).collect()
    }

    /// The base, and what installing `wanted` on top of it needs as far as it can be told without apt.
    pub fn with(&self, wanted: &[String], recommends: bool) -> Result<Vec<manifest::Package>> {
        let names = self.chosen.iter().map(|package| package.name.as_str());
        match needed(&self.packages, names, wanted, recommends) {
            Some(needed) => needed.values().map(|package| record(package)).collect(),
            None => self.base(),
        }
    }

    /// The version that would be installed of a package, if there is one.
    pub fn version(&self, name: &str) -> Option<&str> {
        self.packages.get(name).map(|package| package.version.as_str())
    }
}

/// What has to be there for all of `names`, and for those of `wanted` that the lists have.
pub(super) fn needed<'p>(
    packages: &'p Packages,
    names: impl Iterator<Item = &'p str>,
    wanted: &'p [String],
    recommends: bool,
) -> Option<BTreeMap<String, Arc<Package>>> {
    let known = wanted.iter().map(String::as_str).filter(|name| packages.contains_key(*name));
    resolve::closure(packages, names.chain(known), recommends, &[]).ok()
}

fn record(package: &Package) -> Result<manifest::Package> {
    Ok(manifest::Package {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.field("Architecture").to_owned(),
        sha256: Some(package.file()?.sha256),
    })
}

/// A root file system's origin.
#[derive(Debug)]
pub struct Installed {
    /// Verified Release documents.
    pub releases: Vec<Release>,
    /// Packages with the hash of their files, by name and version.
    pub hashes: BTreeMap<(String, String), manifest::Package>,
    /// When the newest package of the base was made, seconds since 1970; 0 when they do not say.
    pub time: i64,
    pub(super) lists: Vec<List>,
    pub(super) packages: Packages,
    /// Names of what the bootstrap unpacked.
    pub(crate) names: BTreeSet<String>,
    preinsts: Vec<Arc<Package>>,
    /// What everything else may take for granted, so is configured first.
    essential: Vec<String>,
}

/// What a bootstrap is going to install.
#[derive(Debug)]
pub struct Plan {
    /// Verified Release documents.
    pub releases: Vec<Release>,
    pub(super) lists: Vec<List>,
    pub(super) packages: Packages,
    /// The base: what is unpacked, the rest is apt's.
    pub(super) chosen: Vec<Arc<Package>>,
}

impl Bootstrap<'_> {
    /// Fetches and verifies the suites' Release documents.
    pub fn releases(&self) -> Result<Vec<Release>> {
        let fetcher = self.fetcher;
        fs::create_dir_all(fetcher.cache).map_err(Error::io(fetcher.cache))?;
        let architecture = self.architecture.debian();
        let all = self.sources.iter();
        let all = all.map(|source| index::release(fetcher.http, source, architecture, self.keyring));
        fetcher.run(futures_util::future::try_join_all(all))
    }

    /// Fetches the lists of packages and chooses. `settled` packages are taken in just these versions
    /// where they can be had.
    pub fn plan(&self, releases: Vec<Release>, settled: &[manifest::Package]) -> Result<Plan> {
        let mut lists = self.fetcher.run(self.lists(&releases))?;
        super::settle::settle(&mut lists, settled, self.fetcher.cache)?;
        let packages = index::newest(&lists);
        let avoid: Vec<_> = self.exclude.iter().map(String::as_str).chain([MERGES_USR]).collect();
        let chosen = resolve::closure(&packages, self.wanted(&packages), false, &avoid)?;
        let chosen = chosen.into_values().collect();
        Ok(Plan { releases, lists, packages, chosen })
    }

    /// Fills the empty directory `root`. [`Installed::configure`] must follow.
    pub fn unpack(&self, plan: Plan, root: &Path) -> Result<Installed> {
        make_base(root, self.architecture)?;
        let mut unpacked = self.fetch_and_unpack(&plan.chosen, root)?;
        // The order of all that follows is always the same, whatever came first.
        unpacked.sort_by_key(|(package, _)| (package.name != "base-files", package.name.clone()));
        check_overlaps(&unpacked)?;
        deb::finish_directories(root, unpacked.iter().map(|(_, unpacked)| unpacked))?;
        dpkg::register(root, &unpacked)?;
        let arch_file = root.join("var/lib/dpkg/arch");
        fs::write(&arch_file, format!("{}\n", self.architecture)).map_err(Error::io(&arch_file))?;
        let essential = essential(&plan.chosen)?;
        let mut installed = Installed::new(plan)?;
        installed.time = deb::newest_time(installed.hashes.values(), self.fetcher.cache);
        installed.preinsts = preinsts(&unpacked);
        installed.essential = essential;
        Ok(installed)
    }

    async fn lists(&self, releases: &[Release]) -> Result<Vec<List>> {
        let fetcher = self.fetcher;
        let architecture = self.architecture.debian();
        let lists = releases.iter().flat_map(|release| {
            release.source.components.iter().map(move |component| {
                let (cache, progress) = (fetcher.cache, fetcher.progress);
                index::list(fetcher.http, release, component, architecture, cache, progress)
            })
        });
        futures_util::future::try_join_all(lists).await
    }

    fn wanted<'p>(&'p self, packages: &'p Packages) -> BTreeSet<&'p str> {
        let base = packages.values().filter(|package| {
            package.field("Essential") == "yes" || self.priorities.contains(&package.field("Priority"))
        });
        let mut wanted: BTreeSet<_> = base.map(|package| package.name.as_str()).collect();
        wanted.insert("apt");
        wanted.retain(|name| !self.exclude.iter().any(|excluded| excluded == name));
        wanted.extend(self.include.iter().map(String::as_str));
        wanted
    }

    /// Unpacks packages on all processors while others are still being fetched.
    fn fetch_and_unpack(&self, packages: &[Arc<Package>], root: &Path) -> Result<Vec<UnpackedPackage>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (sender, fetched) = channel();
        let fetched = Mutex::new(Some(fetched));
        let worker = || self.fetcher.unpack_all(&fetched, root);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let result = self.fetcher.run(self.fetcher.packages(packages, Some(sender)));
            let mut all = Vec::with_capacity(packages.len());
            for worker in workers {
                let done =
                    worker.join().map_err(|_| Error::Internal("an unpacking thread panicked".into()))?;
                all.extend(done?);
            }
            result.map(|()| all)
        })
    }
}

impl Fetcher<'_> {
    /// Runs network work to its end, or until the build is cancelled.
    pub(crate) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Error::io("tokio"))?;
        let cancelled = async {
            while !self.cancel.is_cancelled() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let alone = async {
            let _lock = self.lock().await?;
            work.await
        };
        runtime.block_on(async {
            tokio::select! {
                result = alone => result,
                () = cancelled => Err(millstream_runtime::Error::Cancelled.into()),
            }
        })
    }

    /// Held while fetching: two builds must not write the same file.
    async fn lock(&self) -> Result<fs::File> {
        let path = self.cache.join("lock");
        let file = fs::File::create(&path).map_err(Error::io(&path))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                Err(error) => return Err(Error::io(&path)(error.into())),
                Ok(()) => return Ok(file),
            }
        }
    }

    /// Fetches packages, the largest first, and hands each on as soon as it is there.
    pub(super) async fn packages(
        &self,
        packages: &[Arc<Package>],
        done: Option<Sender<Fetched>>,
    ) -> Result<()> {
        let slots = Semaphore::new(PARALLEL);
        let mut order: Vec<_> = packages.iter().collect();
        order.sort_by_key(|package| std::cmp::Reverse(package.field("Size").parse().unwrap_or(0_u64)));
        let done = &done;
        let slots = &slots;
        let fetches = order.into_iter().map(|package| async move {
            let _slot = slots.acquire().await;
            let file = package.file()?;
            let path = self.file(&file);
            index::fetch(self.http, &file.url, &path, file.size, file.sha256, self.progress).await?;
            match done {
                // Nobody listens any more: unpacking failed and says why itself.
                Some(done) => done
                    .send((Arc::clone(package), path))
                    .map_err(|_| Error::Internal("unpacking ended".into())),
                None => Ok(()),
            }
        });
        futures_util::future::try_join_all(fetches).await.map(|_| ())
    }

    /// Where the cache keeps a package.
    pub(super) fn file(&self, file: &index::PackageFile) -> PathBuf {
        self.cache.join(file.sha256.to_string())
    }

    fn unpack_all(
        &self,
        fetched: &Mutex<Option<Receiver<Fetched>>>,
        root: &Path,
    ) -> Result<Vec<UnpackedPackage>> {
        let next = || fetched.lock().ok()?.as_ref()?.recv().ok();
        let mut done = Vec::new();
        while let Some((package, file)) = next() {
            let unpacked = self.cancel.check().map_err(Error::from).and_then(|()| deb::unpack(&file, root));
            match unpacked {
                Ok(unpacked) => done.push((package, unpacked)),
                Err(error) => {
                    // Without a receiver the downloads end too.
                    if let Ok(mut fetched) = fetched.lock() {
                        fetched.take();
                    }
                    return Err(error);
                }
            }
        }
        Ok(done)
    }
}

impl Installed {
    /// The base is unpacked and configured already: `time` is its newest package's.
    pub fn adopt(plan: Plan, time: i64) -> Result<Self> {
        Ok(Self { time, ..Self::new(plan)? })
    }

    fn new(plan: Plan) -> Result<Self> {
        let mut installed = Self {
            releases: plan.releases,
            hashes: BTreeMap::new(),
            time: 0,
            names: plan.chosen.iter().map(|package| package.name.clone()).collect(),
            preinsts: Vec::new(),
            essential: Vec::new(),
            lists: plan.lists,
            packages: plan.packages,
        };
        plan.chosen.iter().try_for_each(|package| installed.record(package))?;
        Ok(installed)
    }

    /// Notes the hash of a package's file for the manifest.
    pub(super) fn record(&mut self, package: &Package) -> Result<()> {
        let record = record(package)?;
        self.hashes.insert((record.name.clone(), record.version.clone()), record);
        Ok(())
    }

    /// Time of the newest package of the base, else the newest Release document's date: the same for
    /// the same packages.
    pub fn date(&self) -> i64 {
        let released = || self.releases.iter().map(|release| release.date).max().unwrap_or_default();
        if self.time > 0 { self.time } else { released() }
    }

    /// Runs the packages' preinst scripts, then lets dpkg configure everything.
    ///
    /// A preinst normally runs before its package is unpacked. On a first installation those of
    /// Debian's base either make what is not there yet (base-passwd: `/etc/passwd`) or check for
    /// an upgrade and do nothing, so running them now, base-passwd's first, comes to the same.
    pub fn configure(&self, root: &Path, scripts: &Scripts<'_>) -> Result<()> {
        let mut script = String::from(
            "#!/bin/sh\nset -e\nexport DPKG_MAINTSCRIPT_NAME=preinst DPKG_ROOT= DPKG_ADMINDIR=/var/lib/dpkg\n/sbin/ldconfig 2>/dev/null || true\n",
        );
        for package in &self.preinsts {
            let info = dpkg::info_name(package);
            let _ = writeln!(
                script,
                "export DPKG_MAINTSCRIPT_PACKAGE={0} DEBCONF_PACKAGE={0} DPKG_MAINTSCRIPT_ARCH={1}\n/var/lib/dpkg/info/{info}.preinst install",
                package.name,
                package.field("Architecture")
            );
        }
        let essential = self.essential.join(" ");
        let _ = writeln!(
            script,
            "unset DPKG_MAINTSCRIPT_NAME DPKG_MAINTSCRIPT_PACKAGE DPKG_MAINTSCRIPT_ARCH DEBCONF_PACKAGE\n\
             dpkg --configure {essential}\ndpkg --configure -a"
        );
        let policy = root.join("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 101\n").map_err(Error::io(&policy))?;
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).map_err(Error::io(&policy))?;
        scripts.run("configuring the base system", &script)
    }
}

fn preinsts(unpacked: &[UnpackedPackage]) -> Vec<Arc<Package>> {
    let with = unpacked.iter().filter(|(_, unpacked)| unpacked.control.contains_key("preinst"));
    let mut packages: Vec<_> = with.map(|(package, _)| Arc::clone(package)).collect();
    packages.sort_by_key(|package| (package.name != "base-passwd", package.name.clone()));
    packages
}

/// The essential packages and what they need, as dpkg names them.
fn essential(chosen: &[Arc<Package>]) -> Result<Vec<String>> {
    let all: Packages = chosen.iter().map(|package| (package.name.clone(), Arc::clone(package))).collect();
    let wanted = chosen.iter().filter(|package| package.field("Essential") == "yes");
    let needed = resolve::closure(&all, wanted.map(|package| package.name.as_str()), false, &[])?;
    Ok(needed.into_values().map(|package| dpkg::info_name(&package)).collect())
}

/// A file in two packages would be the one or the other's by chance, so it is an error.
fn check_overlaps(packages: &[UnpackedPackage]) -> Result<()> {
    let mut owners = HashMap::new();
    for (package, unpacked) in packages {
        for path in unpacked.files() {
            if let Some(other) = owners.insert(path, &package.name) {
                return Err(Error::Refused(format!(
                    "packages {other} and {} both have {path}; leave one out with a set of action remove and early: true",
                    package.name
                )));
            }
        }
    }
    Ok(())
}

/// The links of a merged /usr, which packages expect to be there before they are unpacked.
fn make_base(root: &Path, architecture: Architecture) -> Result<()> {
    // Where the dynamic linker lies below /lib64, or other words than the architecture's own may.
    let wide =
        matches!(architecture.debian(), "amd64" | "i386" | "loong64" | "mips64el" | "powerpc" | "ppc64el");
    let names = ["bin", "sbin", "lib"].into_iter().chain(wide.then_some("lib64"));
    for name in names {
        let directory = root.join("usr").join(name);
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let link = root.join(name);
        symlink(Path::new("usr").join(name), &link).map_err(Error::io(&link))?;
    }
    Ok(())
}
