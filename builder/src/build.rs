//! The whole way from a resolved recipe to a directory of image files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use millstream_client::{HttpClient, HttpOptions, Progress};
use millstream_image::manifest::Manifest;
use millstream_image::{Serial, atomic};
use millstream_runtime::CancelToken;
use millstream_runtime::sandbox::Sandbox;

use crate::apt::bootstrap::Fetcher;
use crate::apt::sources::HostSources;
use crate::files::{self, Generated};
use crate::output::{self, Output};
use crate::packages::{self, NameServers};
use crate::recipe::Resolved;
use crate::rootfs::Rootfs;
use crate::script::Scripts;
use crate::source::{self, Origin};
use crate::staging::Staging;
use crate::{Error, Result, leftovers};

/// How to build.
pub struct BuildOptions<'a> {
    /// Directory that appears with the image's files; must not exist.
    pub out: &'a Path,
    /// Directory of fetched packages.
    pub cache: &'a Path,
    /// Directory of compressed blocks, used again by later builds.
    pub block_cache: Option<&'a Path>,
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

/// Builds an image. `options.out` appears complete or not at all. Needs to be root, if only of a
/// user namespace ([`millstream_runtime::sandbox::userns`]); sets this process's umask.
///
/// # Errors
/// Whatever fails first; nothing stays behind but the package cache.
pub fn build(resolved: &Resolved, options: &BuildOptions<'_>) -> Result<Built> {
    let out = options.out;
    if out.symlink_metadata().is_ok() {
        return Err(Error::Refused(format!(
            "{} exists already; choose another --out or remove it",
            out.display()
        )));
    }
    // Modes in the image must not depend on who builds.
    rustix::process::umask(rustix::fs::Mode::from(0o022));
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Removed with everything in it when this function leaves by an error.
    let staging = Staging::new(parent, ".millstream-build-")?;
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
        let cache = self.options.cache;
        fs::create_dir_all(cache).map_err(Error::io(cache))?;
        let cache = &fs::canonicalize(cache).map_err(Error::io(cache))?;
        let archives = Staging::new(cache, "build-")?;
        fs::create_dir(archives.path().join("partial")).map_err(Error::io(archives.path()))?;
        let http = HttpClient::new(&HttpOptions::default())?;
        let (progress, cancel) = (self.options.progress, self.options.cancel);
        let fetcher = Fetcher { cache, http: &http, progress, cancel };
        let mut scripts = self.scripts(&root);
        let (resolved, host) = (self.resolved, self.options.host);
        let context = source::Context { resolved, host, fetcher: &fetcher, root: &root };
        let mut origin = self.stage("bootstrap", || source::unpack(&context, &mut scripts))?;
        // From here on the package manager may work inside.
        let rootfs = Rootfs::open(&root)?;
        rootfs.make_directories("/var/cache/apt/archives")?;
        let mut servers = NameServers::of_host();
        scripts.sandbox = scripts
            .sandbox
            .bind(archives.path(), "/var/cache/apt/archives", false)
            .resolv_conf(&servers.text());
        servers.lend(&rootfs)?;
        self.actions("post-unpack", &scripts)?;
        let stage = packages::Stage {
            packages: &definition.packages,
            rootfs: &rootfs,
            scripts: &scripts,
            fetcher: &fetcher,
            archives: archives.path(),
        };
        self.stage("packages", || {
            stage.run(origin.installed.as_mut(), || self.actions("post-update", &scripts))
        })?;
        self.actions("post-packages", &scripts)?;
        let mut generated = Generated::default();
        self.stage("files", || {
            let mut files = definition.files.iter();
            files.try_for_each(|file| files::run(file, &rootfs, self.options.recipe_dir, &mut generated))
        })?;
        self.actions("post-files", &scripts)?;
        servers.take_back(&rootfs)?;
        leftovers::remove(&rootfs)?;
        if self.options.dir_only {
            return Ok(None);
        }
        let manifest = self.artefacts(work, &rootfs, &generated, &origin)?;
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

    fn scripts(&self, root: &Path) -> Scripts<'_> {
        let environment = &self.resolved.definition.environment;
        let defaults = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("TERM", "dumb"),
            ("LC_ALL", "C.UTF-8"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ];
        let mut env: BTreeMap<_, _> = defaults
            .iter()
            .filter(|(key, _)| !environment.clear_defaults || *key == "PATH")
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        env.extend(environment.variables.iter().map(|v| (v.key.clone(), v.value.clone())));
        Scripts {
            sandbox: Sandbox::new(root).network(true).no_fsync(true),
            env,
            timeout: self.options.script_timeout,
            log: self.log,
            log_path: self.log_path.clone(),
            cancel: self.options.cancel,
        }
    }

    fn actions(&self, trigger: &str, scripts: &Scripts<'_>) -> Result<()> {
        let actions = self.resolved.definition.actions.iter().filter(|action| action.trigger == trigger);
        for (number, action) in actions.enumerate() {
            scripts.run(&format!("action {trigger} {}", number + 1), &action.action)?;
        }
        Ok(())
    }

    fn artefacts(
        &self,
        work: &Path,
        rootfs: &Rootfs,
        generated: &Generated,
        origin: &Origin,
    ) -> Result<Manifest> {
        let output = Output {
            resolved: self.resolved,
            serial: self.options.serial,
            epoch: output::epoch(origin.date),
            threads: self.options.threads,
            block_cache: self.options.block_cache,
            cancel: self.options.cancel,
        };
        let (packed, blocks) = self.stage("pack", || output.rootfs(work, rootfs))?;
        let (compressed, cached) = (blocks.compressed, blocks.cached);
        writeln!(self.log.borrow_mut(), "==> blocks: {compressed} compressed, {cached} from the cache")
            .map_err(Error::io(&self.log_path))?;
        let durations = self.stages.borrow().clone();
        output.companions(work, rootfs, packed, generated, origin, durations)
    }
}
