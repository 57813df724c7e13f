//! The whole way from a resolved recipe to a directory of image files.
//!
//! [`examine`](examine::examine) asks the sources what there is now. When an image of just that is
//! kept, it is the result. Else the root file system begins as a shared base ([`base`]), goes through
//! packages, files and scripts, is packed, started for a test if wanted, and appears by a rename.

mod base;
pub mod boot;
mod bootstrap;
mod examine;
mod explain;
mod finished;
mod inputs;
mod prune;
mod stages;
mod verify;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use millstream_client::{HttpClient, HttpOptions, Progress};
use millstream_image::manifest::Manifest;
use millstream_image::{Serial, atomic};
use millstream_runtime::CancelToken;
use millstream_runtime::sandbox::Sandbox;
use millstream_runtime::sandbox::mounts::PrivateMounts;

use crate::apt::bootstrap::Fetcher;
use crate::apt::deb;
use crate::apt::sources::HostSources;
use crate::emulation::Emulation;
use crate::files::{self, Generated};
use crate::format::Formats;
use crate::output::{self, Output};
use crate::packages::{self, NameServers};
use crate::recipe::Resolved;
use crate::rootfs::Rootfs;
use crate::script::Scripts;
use crate::source::{self, Origin};
use crate::staging::{self, Staging};
use crate::{Error, Result, inventory, leftovers, manager};

use boot::BootTest;
use examine::{Examined, examine};
use finished::{Candidate, Finished};
use stages::Stages;

pub use explain::{Reason, explain};
pub use stages::{Event, Stage};
pub use verify::{Difference, Verified, resolved, verify};

/// How to build.
pub struct BuildOptions<'a> {
    /// Directory that appears with the image's files; must not exist.
    pub out: &'a Path,
    /// Directory of what builds share: `packages` by hash, `blocks` of archives, `bases`, finished `images`, `logs` of
    /// failed builds.
    pub cache: &'a Path,
    /// Directory of the recipe, for `copy`.
    pub recipe_dir: &'a Path,
    /// The image's serial.
    pub serial: Serial,
    /// Whether it must be that one; else an unchanged image keeps the serial it has.
    pub serial_given: bool,
    /// Seconds since 1970 to which times are clamped (`SOURCE_DATE_EPOCH`). None: the time of the
    /// newest package.
    pub epoch: Option<i64>,
    /// What to make of the root file system.
    pub formats: &'a Formats,
    /// Compression threads.
    pub threads: usize,
    /// Seconds a script may run.
    pub script_timeout: u64,
    /// Builds also when nothing changed.
    pub force: bool,
    /// Further directories of finished images, which are as good as those in the cache.
    pub published: &'a [PathBuf],
    /// Starts the image before it appears.
    pub test: Option<&'a BootTest>,
    /// Takes packages in the versions this one has, where they can still be had.
    pub settled: Option<&'a Manifest>,
    /// Lets the root file system be an overlay of a base; else it is a copy.
    pub mounts: Option<&'a PrivateMounts>,
    /// The host's mirrors.
    pub host: &'a HostSources,
    /// Told of downloads.
    pub progress: &'a dyn Progress,
    /// Told of stages.
    pub report: &'a dyn Fn(Event<'_>),
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
    /// Set when nothing had to be built: the directory the image was in already.
    pub unchanged: Option<PathBuf>,
    /// What was done.
    pub stages: Vec<Stage>,
}

/// Builds an image. `options.out` appears complete or not at all. Needs to be root, if only of a
/// user namespace ([`millstream_runtime::sandbox::userns`]); sets this process's umask.
///
/// # Errors
/// Whatever fails first; nothing stays behind but what later builds use again, and the log.
pub fn build(resolved: &Resolved, options: &BuildOptions<'_>) -> Result<Built> {
    let out = options.out;
    staging::must_be_new(out)?;
    options.formats.check_host()?;
    if let Some(test) = options.test {
        test.prepare()?;
        if !options.formats.bootable() {
            return Err(Error::Refused(
                "a boot test needs an image in the format image, lxd or incus, compressed with xz".into(),
            ));
        }
    }
    // Modes in the image must not depend on who builds.
    rustix::process::umask(rustix::fs::Mode::from(0o022));
    let cache = options.cache;
    fs::create_dir_all(cache.join("packages")).map_err(Error::io(cache))?;
    let cache = fs::canonicalize(cache).map_err(Error::io(cache))?;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Removed with everything in it when this function leaves by an error.
    let staging = Staging::new(parent, ".millstream-build-")?;
    let work = fs::canonicalize(staging.path()).map_err(Error::io(staging.path()))?;
    let emulation = Emulation::find(resolved, &work, options.test.is_some())?;
    let log_path = work.join("build.log");
    let log = RefCell::new(File::create(&log_path).map_err(Error::io(&log_path))?);
    let stages = Stages::new(options.report);
    let build = Build { resolved, options, cache: &cache, log: &log, log_path, stages: &stages, emulation };
    let result = build.run(&work);
    let outcome = result.map_err(|error| build.keep_log(error))?;
    log.borrow_mut().sync_all().map_err(Error::io(&build.log_path))?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(staging.path(), readable).map_err(Error::io(staging.path()))?;
    options.cancel.check()?;
    atomic::rename(staging.path(), out)?;
    let _gone = staging.keep();
    if let Some(name) = outcome.keep_as {
        Finished::open(&cache)?.keep(&name, out)?;
    }
    prune::prune(&cache)?;
    Ok(Built {
        dir: out.to_path_buf(),
        manifest: outcome.manifest,
        unchanged: outcome.unchanged,
        stages: stages.into_done(),
    })
}

struct Build<'a> {
    resolved: &'a Resolved,
    options: &'a BuildOptions<'a>,
    cache: &'a Path,
    log: &'a RefCell<File>,
    log_path: PathBuf,
    stages: &'a Stages<'a>,
    emulation: Emulation,
}

struct Outcome {
    manifest: Option<Manifest>,
    unchanged: Option<PathBuf>,
    /// Under which name the image is kept for later builds.
    keep_as: Option<String>,
}

impl Build<'_> {
    fn run(&self, work: &Path) -> Result<Outcome> {
        let http = HttpClient::new(&HttpOptions::default())?;
        let (progress, cancel) = (self.options.progress, self.options.cancel);
        let packages = self.cache.join("packages");
        let fetcher = Fetcher { cache: &packages, http: &http, progress, cancel };
        let (resolved, host) = (self.resolved, self.options.host);
        let root = work.join("rootfs");
        let recipe_dir = self.options.recipe_dir;
        let context = source::Context { resolved, host, fetcher: &fetcher, recipe_dir, root: &root };
        let examined = self.stage("sources", || examine(resolved, self.options, &context))?;
        self.note(&examined.why)?;
        if let Some(candidate) = &examined.unchanged
            && let Some(outcome) = self.take(work, candidate)?
        {
            return Ok(outcome);
        }
        // A damaged image was all there was: its sources are asked once more, for building.
        let examined = match examined {
            Examined { unchanged: Some(_), .. } => {
                let options = &BuildOptions { force: true, ..*self.options };
                examine(resolved, options, &context)?
            }
            examined => examined,
        };
        fs::create_dir(&root).map_err(Error::io(&root))?;
        self.make(work, &context, examined)
    }

    /// Takes over an image that is what would be built; `None` when it is damaged.
    fn take(&self, work: &Path, candidate: &Candidate) -> Result<Option<Outcome>> {
        if !Finished::open(self.cache)?.take(candidate, work)? {
            self.note(&format!("{} is damaged and is not used", candidate.dir.display()))?;
            return Ok(None);
        }
        let mut manifest = candidate.manifest.clone();
        if let Some(test) = self.options.test
            && manifest.inputs.as_ref().and_then(|inputs| inputs.tested) != Some(test.digest())
        {
            self.test(work, test, &mut manifest)?;
        }
        Ok(Some(Outcome { manifest: Some(manifest), unchanged: Some(candidate.dir.clone()), keep_as: None }))
    }

    fn make(&self, work: &Path, context: &source::Context<'_>, examined: Examined) -> Result<Outcome> {
        let definition = &self.resolved.definition;
        let (root, fetcher) = (context.root, context.fetcher);
        let archives = Staging::new(fetcher.cache, "build-")?;
        fs::create_dir(archives.path().join("partial")).map_err(Error::io(archives.path()))?;
        let mut scripts = self.scripts(root);
        let scratch = work.join("overlay");
        let (mut origin, lent) = match examined.plan {
            Some(plan) => self.bootstrap(plan, context, &scratch, &mut scripts)?,
            None => (self.stage("bootstrap", || source::unpack(context, &mut scripts))?, None),
        };
        // From here on the package manager may work inside.
        let rootfs = Rootfs::open(root)?;
        let mut servers = NameServers::of_host();
        scripts.sandbox = scripts.sandbox.resolv_conf(&servers.text());
        if manager::is_apt(&definition.packages) && rootfs.exists("/etc/apt")? {
            rootfs.make_directories("/var/cache/apt/archives")?;
            scripts.sandbox = scripts.sandbox.bind(archives.path(), "/var/cache/apt/archives", false);
        }
        servers.lend(&rootfs)?;
        let stage = packages::Stage {
            packages: &definition.packages,
            rootfs: &rootfs,
            scripts: &scripts,
            fetcher,
            archives: archives.path(),
        };
        stage.repositories()?;
        self.actions("post-unpack", &scripts)?;
        self.stage("packages", || {
            stage.run(origin.installed.as_mut(), || self.actions("post-update", &scripts))
        })?;
        self.actions("post-packages", &scripts)?;
        let mut generated = Generated::default();
        self.stage("files", || {
            let mut files = definition.files.iter();
            files.try_for_each(|file| {
                files::run(file, &definition.targets, &rootfs, self.options.recipe_dir, &mut generated)
            })
        })?;
        self.actions("post-files", &scripts)?;
        servers.take_back(&rootfs)?;
        leftovers::remove(&rootfs)?;
        if self.options.formats.only_directory() {
            return Ok(Outcome { manifest: None, unchanged: None, keep_as: None });
        }
        date(&mut origin, &rootfs, fetcher.cache)?;
        let mut manifest = self.artefacts(work, &rootfs, &generated, &origin, &scripts)?;
        // Without the overlay there is nothing to go through file by file.
        drop((rootfs, lent));
        let kept = self.options.formats.keep_directory();
        for directory in [root, &scratch].into_iter().skip(usize::from(kept)).filter(|dir| dir.exists()) {
            fs::remove_dir_all(directory).map_err(Error::io(directory))?;
        }
        let name = examined.current.name();
        manifest.inputs = Some(examined.current.inputs);
        if let Some(test) = self.options.test {
            self.test(work, test, &mut manifest)?;
        }
        output::describe(work, &mut manifest, self.stages.durations())?;
        let keep = self.options.settled.is_none() && self.options.formats.only_files();
        let keep_as = keep.then_some(name);
        Ok(Outcome { manifest: Some(manifest), unchanged: None, keep_as })
    }

    /// Starts the image, and notes in its manifest that it did well.
    fn test(&self, work: &Path, test: &BootTest, manifest: &mut Manifest) -> Result<()> {
        let report =
            self.stage("test", || boot::test(work, test, self.options.cancel, &|line| self.log(line)))?;
        self.note(&report)?;
        manifest.inputs.get_or_insert_default().tested = Some(test.digest());
        output::describe(work, manifest, self.stages.durations())
    }

    fn stage<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.options.cancel.check()?;
        self.stages.run(name, work)
    }

    /// Says something about the stage that was run last, to the user and in the log.
    fn note(&self, text: &str) -> Result<()> {
        if !text.is_empty() {
            self.stages.note(text);
            (self.options.report)(Event::Note(text));
            self.log(text)?;
        }
        Ok(())
    }

    fn log(&self, text: &str) -> Result<()> {
        use std::io::Write as _;
        writeln!(self.log.borrow_mut(), "==> {text}").map_err(Error::io(&self.log_path))
    }

    /// Keeps the log of a build that failed, unless there is nothing in it or the user ended it.
    fn keep_log(&self, error: Error) -> Error {
        let cancelled = matches!(error, Error::Runtime(millstream_runtime::Error::Cancelled));
        let empty = self.log.borrow().metadata().is_ok_and(|meta| meta.len() == 0);
        if cancelled || empty {
            return error;
        }
        let logs = self.cache.join("logs");
        let product = self.resolved.product.to_string().replace(':', "-");
        let log = logs.join(format!("{product}-{}.log", self.options.serial));
        let kept = self
            .log(&format!("failed: {error}"))
            .is_ok()
            .then(|| fs::create_dir_all(&logs).and_then(|()| fs::copy(&self.log_path, &log)));
        match kept {
            Some(Ok(_)) => {
                prune::newest(&logs, prune::LOGS);
                Error::Logged { log, source: Box::new(error) }
            }
            _ => error,
        }
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
        env.extend(self.options.epoch.map(|epoch| ("SOURCE_DATE_EPOCH".into(), epoch.to_string())));
        env.extend(environment.variables.iter().map(|v| (v.key.clone(), v.value.clone())));
        Scripts {
            sandbox: self.emulation.apply(Sandbox::new(root).network(true).no_fsync(true)),
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
        scripts: &Scripts<'_>,
    ) -> Result<Manifest> {
        let output = Output {
            resolved: self.resolved,
            formats: self.options.formats,
            serial: self.options.serial,
            epoch: self.options.epoch.unwrap_or(origin.date),
            threads: self.options.threads,
            block_cache: Some(&self.cache.join("blocks")),
            cancel: self.options.cancel,
        };
        let note = |text: &str| scripts.note(text);
        let (manifest, blocks) =
            self.stage("pack", || output.write(work, rootfs, generated, origin, note))?;
        let (compressed, cached) = (blocks.compressed, blocks.cached);
        self.note(&format!("blocks: {compressed} compressed, {cached} from the cache"))?;
        Ok(manifest)
    }
}

/// Dates the image by its newest package, where packages say when they were made.
fn date(origin: &mut Origin, rootfs: &Rootfs, cache: &Path) -> Result<()> {
    let packages = inventory::packages(rootfs, origin)?;
    if let Some(installed) = &origin.installed {
        let newest = deb::newest_time(packages.iter(), cache).max(installed.time);
        if newest > 0 {
            origin.date = newest;
        }
    }
    Ok(())
}
