//! One build, from its first record to its last.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use chrono::Utc;
use millstream_builder::apt::sources::HostSources;
use millstream_builder::difference::Difference;
use millstream_builder::recipe::{Fallback, Kind, Recipe};
use millstream_image::manifest::Manifest;
use millstream_image::{Product, Serial};
use millstream_runtime::CancelToken;

use super::Job;
use super::child::{self, Ended};
use super::event::Event;
use super::history::{Details, Outcome, Run};
use super::log::Log;
use super::push;
use crate::config::Test;
use crate::keys::KeyStore;
use crate::stream::{LOGS, Listed, Retention, Signing, Stream};
use crate::{Error, Result};

/// Most characters of a reason.
const REASON: usize = 4000;

/// Builds one image of a job and records it. Whatever goes wrong with the build is the run's outcome.
pub(super) fn run(job: &Job, cell: &[String], cancel: &CancelToken) -> Result<Run> {
    let history = &job.builds.history;
    let product = product(job, cell);
    let name = match &product {
        Ok(product) => product.to_string(),
        Err(_) => label(cell),
    };
    let details = Details { stream: job.root.clone(), ..Details::default() };
    let mut run = history.begin(&job.settings.name, &name, details)?;
    let outcome = match product {
        Ok(product) => Build { job, cell, product: &product }.run(&mut run, cancel),
        Err(reason) => Err(reason),
    };
    let outcome = outcome.unwrap_or_else(|reason| {
        run.details.reason = Some(reason.chars().take(REASON).collect());
        if cancel.is_cancelled() { Outcome::Cancelled } else { Outcome::Failed }
    });
    if outcome != Outcome::Failed {
        run.stage = None;
    }
    history.end(&mut run, outcome)?;
    Ok(run)
}

/// The product a cell of the matrix stands for.
fn product(job: &Job, cell: &[String]) -> Result<Product, String> {
    let file = &job.settings.recipe;
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let recipe = Recipe::parse(&text, &file.display().to_string()).map_err(|error| error.to_string())?;
    let (host, now) = (HostSources::read(), Serial::at(Utc::now()).to_string());
    let fallback = Fallback { release: &host.codename, serial: &now };
    let resolved = recipe.resolve(cell, Kind::Container, &fallback);
    resolved.map(|resolved| resolved.product).map_err(|error| error.to_string())
}

/// What to call an image whose recipe cannot be read.
fn label(cell: &[String]) -> String {
    let of = |key: &str| {
        let mut values = cell.iter().rev().filter_map(|option| option.strip_prefix(key));
        values.next().unwrap_or("?").to_owned()
    };
    ["image.release=", "image.architecture=", "image.variant="].map(of).join(":")
}

struct Build<'a> {
    job: &'a Job,
    cell: &'a [String],
    product: &'a Product,
}

impl Build<'_> {
    fn run(&self, run: &mut Run, cancel: &CancelToken) -> Result<Outcome, String> {
        // Before anything is written there: it may be no stream.
        let stream = Stream::open(&self.job.root).map_err(said)?;
        let before = self.newest(&stream)?;
        let old = before.as_ref().map(|image| stream.manifest(image)).transpose().map_err(said)?;
        let file = PathBuf::from(LOGS).join(&run.job).join(format!("{}.log", run.id));
        let path = stream.root().join(&file);
        let mut log = Log::create(&path).map_err(|error| said(Error::io(&path)(error)))?;
        run.details.log = Some(file);
        self.job.builds.history.update(run).map_err(said)?;
        let ended = self.build(run, &mut log, cancel);
        let mut outcome = ended.and_then(|ended| self.judge(run, &ended, &stream, old.as_ref(), &mut log));
        if matches!(outcome, Ok(Outcome::Built | Outcome::Unchanged))
            && let Err(reason) = self.push(run, &stream, &mut log, cancel)
        {
            outcome = Err(reason);
        }
        log.finish().map_err(|error| said(Error::io(&path)(error)))?;
        let outcome = outcome?;
        if outcome == Outcome::Built {
            // The image is published whatever comes of this; so it is said, not held against it.
            if let Err(error) = self.retire(&stream) {
                run.details.reason = Some(format!("old images are not retired: {error}"));
            }
        }
        Ok(outcome)
    }

    fn build(&self, run: &mut Run, log: &mut Log, cancel: &CancelToken) -> Result<Ended, String> {
        let settings = &self.job.settings;
        let builds = &self.job.builds;
        let mut command = Command::new(&builds.program);
        command.arg("build").arg(&settings.recipe).arg("--events").arg("--stream").arg(&self.job.root);
        command.args(self.cell.iter().flat_map(|option| ["-o", option]));
        if !settings.formats.is_empty() {
            command.arg("--format").arg(settings.formats.join(","));
        }
        if let Some(compression) = &settings.compression {
            command.arg("--compression").arg(compression);
        }
        if let Some(key) = &settings.key {
            command.args(["--key", key]);
        }
        command.args(match settings.test {
            Test::No => &[][..],
            Test::Boot => &["--test"],
            Test::Network => &["--test", "--test-network"],
        });
        let limit = Duration::from_hours(settings.timeout_hours.into());
        let mut seen = |event: &Event| {
            if let Event::Stage { name } = event {
                run.stage = Some(name.clone());
                // Only for those who watch; the end is recorded all the same.
                let _ = builds.history.update(run);
            }
        };
        let ended = child::run(&mut command, log, limit, cancel, &mut seen);
        ended.map_err(|error| format!("{}: {error}", builds.program.display()))
    }

    /// What became of it, from what the build said.
    fn judge(
        &self,
        run: &mut Run,
        ended: &Ended,
        stream: &Stream,
        old: Option<&Manifest>,
        log: &mut Log,
    ) -> Result<Outcome, String> {
        if ended.too_long {
            return Err(format!("it took more than {} hours and was ended", self.job.settings.timeout_hours));
        }
        let mut unchanged = false;
        for event in &ended.events {
            match event {
                Event::Busy => return Ok(Outcome::Busy),
                Event::Built { unchanged: same, stages, tested } => {
                    unchanged = *same;
                    run.details.stages.clone_from(stages);
                    run.details.boot_test = tested.then_some(true);
                }
                Event::Failed { reason, in_test, log: whole } => {
                    if *in_test {
                        run.details.boot_test = Some(false);
                    }
                    if let Some(whole) = whole {
                        append(log, whole);
                    }
                    return Err(reason.clone());
                }
                Event::Stage { .. } => {}
            }
        }
        let Some(dir) = ended.published.as_ref().filter(|_| ended.status.success()) else {
            return Err(format!("the build ended early: {}", ended.how()));
        };
        if !unchanged {
            append(log, &dir.join("build.log"));
        }
        let image = self.newest(stream)?.ok_or_else(|| format!("{} is not in the stream", dir.display()))?;
        let new = stream.manifest(&image).map_err(said)?;
        run.details.serial = Some(image.serial);
        run.details.fingerprint = image.fingerprint;
        run.details.sizes = new.files.iter().map(|(name, file)| (name.clone(), file.size)).collect();
        let before = old.filter(|old| old.serial != new.serial);
        run.details.packages = before.map(|old| Difference::between(old, &new).packages).unwrap_or_default();
        let known = old.is_some_and(|old| old.serial == new.serial);
        Ok(if known { Outcome::Unchanged } else { Outcome::Built })
    }

    /// Brings the image to the server that gets them too. One that was built before may not be there yet.
    fn push(&self, run: &Run, stream: &Stream, log: &mut Log, cancel: &CancelToken) -> Result<(), String> {
        let (Some(to), Some(serial)) = (&self.job.settings.push, run.details.serial) else { return Ok(()) };
        let dir = stream.root().join(self.product.image_path(serial));
        let pushed = push::push(to, &dir, cancel)
            .map_err(|error| format!("published here, but not pushed, which the next run does: {error}"))?;
        // Worth having, but no reason to fail.
        let _ = writeln!(log, "\n==> pushed: {}", pushed.url);
        Ok(())
    }

    /// The product's newest image.
    fn newest(&self, stream: &Stream) -> Result<Option<Listed>, String> {
        let images = stream.list(SystemTime::now()).map_err(said)?;
        Ok(images.into_iter().find(|image| image.newest && image.product == *self.product))
    }

    /// Takes old images of the product out of the stream.
    fn retire(&self, stream: &Stream) -> Result<()> {
        let settings = &self.job.settings;
        let retention = Retention { newest: settings.keep.map(|keep| keep as usize), days: settings.days };
        let now = SystemTime::now();
        let images = stream.list(now)?.into_iter().filter(|image| image.product == *self.product);
        let serials: Vec<_> = images.map(|image| image.serial).collect();
        let old: Vec<_> =
            retention.retires(&serials, now.into()).into_iter().map(|s| (self.product.clone(), s)).collect();
        if old.is_empty() {
            return Ok(());
        }
        let store = KeyStore::new(&self.job.builds.keys);
        let key = match &settings.key {
            Some(name) => store.load(name)?,
            None => store.find_all(&stream.keys()?)?,
        };
        let grace = Duration::from_hours(settings.grace_hours.into());
        stream.remove(&old, grace, &Signing { key: &key, now, validity: None }).map(drop)
    }
}

/// A log of the build's own is worth having, but no reason to fail.
fn append(log: &mut Log, from: &std::path::Path) {
    let _ = log.write_all(b"\n==> the build's own log\n");
    let _ = log.append(from);
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
