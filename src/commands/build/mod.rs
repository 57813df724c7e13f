//! `millstream build`.

mod events;
mod verify;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use millstream_builder::apt::sources::HostSources;
use millstream_builder::format::Formats;
use millstream_builder::recipe::Resolved;
use millstream_builder::staging::Staging;
use millstream_builder::{BootTest, BuildOptions, Built, Event, Reason, Stage};
use millstream_image::manifest::Manifest;
use millstream_image::{Product, Serial};
use millstream_runtime::CancelToken;
use millstream_runtime::container::become_root;
use millstream_runtime::sandbox::mounts::PrivateMounts;
use millstream_runtime::sandbox::userns;
use millstream_server::daily::{self, BuildLock};
use millstream_server::stream::Stream;

use crate::cli::build::{self, Build, Kind, Resolve};
use crate::commands::{recipe, stream};
use crate::interrupt;
use crate::output::{self, Format, say};
use crate::paths::Paths;
use crate::progress::Bar;
use events::Events;

pub fn run(command: &Build, quiet: bool) -> anyhow::Result<()> {
    if command.resolve.kind == Kind::Vm {
        bail!("virtual-machine images cannot be built yet; leave --type out");
    }
    let builder = Builder::new(command, quiet)?;
    match &command.verify {
        Some(image) => verify::run(&builder, image),
        None => builder.build().inspect_err(|error| builder.events.failed(error)),
    }
}

/// The formats asked for.
pub fn formats(given: &build::Formats) -> anyhow::Result<Formats> {
    let wanted = given.format.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
    Ok(Formats::new(wanted, given.compression)?)
}

/// What every build of this command works with.
struct Builder<'a> {
    command: &'a Build,
    quiet: bool,
    paths: Paths,
    host: HostSources,
    formats: Formats,
    mounts: Option<PrivateMounts>,
    cancel: CancelToken,
    bar: Bar,
    events: Events,
}

/// What one build is about.
struct Job<'a> {
    resolved: &'a Resolved,
    recipe_dir: &'a Path,
    formats: &'a Formats,
    out: &'a Path,
    serial: Serial,
    serial_given: bool,
    epoch: Option<i64>,
    published: &'a [PathBuf],
    test: Option<&'a BootTest>,
    settled: Option<&'a Manifest>,
}

impl<'a> Builder<'a> {
    fn new(command: &'a Build, quiet: bool) -> anyhow::Result<Self> {
        let formats = formats(&command.formats)?;
        let paths = Paths::from_env();
        // An ordinary user's build starts again here, as root of a user namespace: that of the user's
        // containers, if it starts one.
        if command.test {
            become_root(&paths.containers())?;
        } else {
            userns::become_root()?;
        }
        // Before there are threads. Without it builds work on copies, and say so.
        let mounts = PrivateMounts::enter().ok();
        let cancel = interrupt::token()?;
        Ok(Self {
            command,
            quiet,
            host: HostSources::read().with_settings(&paths.config)?,
            paths,
            formats,
            mounts,
            bar: Bar::new(quiet),
            events: Events::new(command.events, &cancel)?,
            cancel,
        })
    }

    fn build(&self) -> anyhow::Result<()> {
        let command = self.command;
        let file = command.file.as_deref().context("no recipe is given")?;
        let mut resolve = command.resolve.clone();
        resolve.options.extend(command.serial.iter().map(|serial| format!("image.serial={serial}")));
        let resolved = recipe::resolve(file, &resolve, &self.host)?;
        let serial: Serial = resolved.definition.image.serial.parse()?;
        let stream = command.stream.as_deref().map(Stream::open).transpose()?;
        let published = match &stream {
            Some(stream) => published(stream, &resolved.product)?,
            None => Vec::new(),
        };
        let work =
            stream.as_ref().map(|_| Staging::new(&self.paths.cache.join("work"), "stream-")).transpose()?;
        let name = format!("{}-{serial}", resolved.product.to_string().replace(':', "-"));
        let unnamed = work.as_ref().map_or_else(|| PathBuf::from(name), |work| work.path().join("image"));
        let out = command.out.clone().unwrap_or(unnamed);
        let test = self.test(file)?;
        let job = Job {
            resolved: &resolved,
            recipe_dir: file.parent().unwrap_or(Path::new(".")),
            formats: &self.formats,
            out: &out,
            serial,
            serial_given: serial_given(&resolve),
            epoch: source_date_epoch()?,
            published: &published,
            test: test.as_ref(),
            settled: None,
        };
        if command.explain {
            return show(
                &self.with_options(&job, |options| millstream_builder::explain(&resolved, options))?,
            );
        }
        // Held until the image is published.
        let _lock = match &stream {
            Some(stream) if command.events => Some(self.lock(stream, &resolved.product)?),
            _ => None,
        };
        let built = self.run(&job)?;
        self.report(&built);
        self.events.built(&built, test.is_some());
        let Some(root) = &command.stream else {
            return output::print(&format!("{}\n", built.dir.display()));
        };
        if let Some(dir) = built.unchanged.filter(|dir| published.contains(dir)) {
            return output::print(&format!("{}\n", dir.display()));
        }
        stream::publish(root, &built.dir, &command.signing, self.quiet)
    }

    /// Keeps other watched builds of the product away.
    fn lock(&self, stream: &Stream, product: &Product) -> anyhow::Result<BuildLock> {
        let lock = daily::lock(&self.paths.daily().join("locks"), stream.root(), product)?;
        lock.ok_or_else(|| {
            self.events.busy();
            anyhow!("{product} is being built already")
        })
    }

    fn run(&self, job: &Job<'_>) -> anyhow::Result<Built> {
        Ok(self.with_options(job, |options| millstream_builder::build(job.resolved, options))?)
    }

    /// Calls `work` with the options of a build.
    fn with_options<T>(&self, job: &Job<'_>, work: impl FnOnce(&BuildOptions<'_>) -> T) -> T {
        let report = |event: Event<'_>| match event {
            Event::Begin(name) => {
                self.bar.stage(name);
                self.events.stage(name);
            }
            Event::Note(text) => self.bar.say(&format!("  {text}")),
        };
        let done = work(&BuildOptions {
            out: job.out,
            cache: &self.paths.cache,
            recipe_dir: job.recipe_dir,
            serial: job.serial,
            serial_given: job.serial_given,
            epoch: job.epoch,
            formats: job.formats,
            threads: self
                .command
                .threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            script_timeout: self.command.script_timeout,
            force: self.command.force,
            published: job.published,
            test: job.test,
            settled: job.settled,
            mounts: self.mounts.as_ref(),
            host: &self.host,
            progress: &self.bar,
            report: &report,
            cancel: &self.cancel,
        });
        self.bar.finish();
        done
    }

    /// The boot test that was asked for.
    fn test(&self, recipe: &Path) -> anyhow::Result<Option<BootTest>> {
        if !self.command.test {
            return Ok(None);
        }
        let beside = recipe.with_extension("test.sh");
        let file = self.command.test_script.clone().or_else(|| beside.exists().then_some(beside));
        let read = |file: PathBuf| {
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        let script = file.map(read).transpose()?;
        let limit = Duration::from_secs(self.command.test_timeout);
        let (containers, network) = (self.paths.containers(), self.command.test_network);
        Ok(Some(BootTest { containers, script, network, limit }))
    }

    fn report(&self, built: &Built) {
        match (&built.unchanged, &built.manifest) {
            (Some(dir), Some(manifest)) => {
                let (serial, dir) = (manifest.serial, dir.display());
                say(
                    self.quiet,
                    &format!("unchanged since {serial}, taken from {dir}; --force builds it anew"),
                );
            }
            _ => timing(&built.stages).iter().for_each(|line| say(self.quiet, line)),
        }
    }
}

/// A line for each stage: name, seconds, share of the whole, what is to say about it.
fn timing(stages: &[Stage]) -> Vec<String> {
    let total: f64 = stages.iter().map(|stage| stage.seconds).sum();
    let line = |name: &str, seconds: f64, note: &str| {
        let share = if total > 0.0 { 100.0 * seconds / total } else { 0.0 };
        format!("{name:12} {seconds:7.1} s {share:4.0} %  {note}").trim_end().to_owned()
    };
    let each = stages.iter().map(|stage| line(&stage.name, stage.seconds, &stage.note));
    each.chain([line("total", total, "")]).collect()
}

fn show(reasons: &[Reason]) -> anyhow::Result<()> {
    output::list(
        Format::Table,
        reasons,
        &[
            ("STAGE", &|reason| reason.stage.to_owned()),
            ("", &|reason| reason.what.to_owned()),
            ("WHY", &|reason| reason.why.clone()),
        ],
    )
}

/// The directory of the product's newest image in a stream, if it has one.
fn published(stream: &Stream, product: &Product) -> anyhow::Result<Vec<PathBuf>> {
    let images = stream.list(SystemTime::now())?;
    let newest = images.iter().filter(|image| image.newest && image.product == *product);
    Ok(newest.map(|image| stream.root().join(&image.path)).collect())
}

fn serial_given(resolve: &Resolve) -> bool {
    resolve.options.iter().any(|option| option.starts_with("image.serial="))
}

/// What reproducible builds agree on: seconds since 1970 that no file is younger than.
pub fn source_date_epoch() -> anyhow::Result<Option<i64>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    Ok(Some(
        number.with_context(|| format!("SOURCE_DATE_EPOCH: {} is no number of seconds", text.display()))?,
    ))
}
