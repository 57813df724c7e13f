//! `millstream daily`, and the schedule `millstream serve` keeps.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::Utc;
use millstream_runtime::CancelToken;
use millstream_server::config::Config;
use millstream_server::daily::history::Wanted;
use millstream_server::daily::{Builds, History, Job, Outcome, Run};
use millstream_server::schedule::{self, Scheduler, Slots};
use serde::Serialize;

use crate::cli::daily::Daily;
use crate::commands::mirror;
use crate::commands::serve::read_config;
use crate::interrupt;
use crate::output::{self, Format, say};
use crate::paths::Paths;

pub fn run(command: &Daily, quiet: bool) -> anyhow::Result<ExitCode> {
    let paths = Paths::from_env();
    match command {
        Daily::Run { config, name, once } => {
            let config = configured(config.config.as_deref(), name.as_deref(), &paths)?;
            if *once {
                return once_now(&jobs(&config, &paths.stream(), &paths, quiet)?);
            }
            keep_schedule(&config, &paths, quiet)?;
        }
        Daily::List { config, output } => {
            list(&configured(config.config.as_deref(), None, &paths)?, output.format)?;
        }
        Daily::Status { name, last, output } => {
            status(&History::open(&paths.daily())?, name.as_deref(), *last, output.format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What keeps the schedule of a configuration; `None` when it has none.
pub fn scheduler(
    config: &Config,
    root: &Path,
    paths: &Paths,
    quiet: bool,
) -> anyhow::Result<Option<Scheduler>> {
    let mirrors = mirror::jobs(config, quiet).into_iter();
    let mut all: Vec<_> = mirrors.map(|job| Arc::new(job) as Arc<dyn schedule::Job>).collect();
    if !config.daily.is_empty() {
        let jobs = jobs(config, root, paths, quiet)?.into_iter();
        all.extend(jobs.map(|job| Arc::new(job) as Arc<dyn schedule::Job>));
    }
    if all.is_empty() {
        return Ok(None);
    }
    Ok(Some(Scheduler::new(all, Slots::open(&paths.schedule())?, teller(quiet))))
}

/// What was built, where the configuration builds.
pub fn history(config: &Config, paths: &Paths) -> anyhow::Result<Option<Arc<History>>> {
    Ok(if config.daily.is_empty() { None } else { Some(Arc::new(History::open(&paths.daily())?)) })
}

fn jobs(config: &Config, root: &Path, paths: &Paths, quiet: bool) -> anyhow::Result<Vec<Job>> {
    let builds = Builds {
        program: PathBuf::from("/proc/self/exe"),
        keys: paths.keys(),
        history: Arc::new(History::open(&paths.daily())?),
        say: teller(quiet),
    };
    Ok(Job::all(config, root, &Arc::new(builds)))
}

fn teller(quiet: bool) -> Arc<dyn Fn(&str) + Send + Sync> {
    Arc::new(move |text| say(quiet, text))
}

/// The configuration, with the job that is meant.
fn configured(file: Option<&Path>, name: Option<&str>, paths: &Paths) -> anyhow::Result<Config> {
    let mut config = read_config(file, paths)?;
    config.mirror.clear(); // `serve` keeps their times.
    if config.daily.is_empty() {
        let file = file.map_or_else(|| paths.config.join("server.toml"), Path::to_path_buf);
        bail!("{}: no [[daily]] says what to build; see millstream daily --help", file.display());
    }
    if let Some(name) = name {
        let names: Vec<_> = config.daily.iter().map(|daily| daily.name.clone()).collect();
        config.daily.retain(|daily| daily.name == name);
        if config.daily.is_empty() {
            bail!("there is no daily job {}; there are: {}", name.escape_debug(), names.join(", "));
        }
    }
    Ok(config)
}

fn once_now(jobs: &[Job]) -> anyhow::Result<ExitCode> {
    let cancel = interrupt::token()?;
    let mut runs = Vec::new();
    for job in jobs {
        runs.extend(job.run_now(&cancel)?);
    }
    cancel.check()?;
    let failed = runs.iter().filter(|run| run.outcome == Some(Outcome::Failed)).count();
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        failed => bail!("{failed} of {} builds failed; millstream daily status shows the logs", runs.len()),
    }
}

fn keep_schedule(config: &Config, paths: &Paths, quiet: bool) -> anyhow::Result<()> {
    let scheduler = scheduler(config, &paths.stream(), paths, quiet)?.context("there is no job")?;
    let cancel: CancelToken = interrupt::token()?;
    for daily in &config.daily {
        if let Some(next) = daily.schedule.next(Utc::now()) {
            say(quiet, &format!("{}: next due {}", daily.name, next.format("%Y-%m-%d %H:%M UTC")));
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(scheduler.run(&cancel));
    Ok(())
}

/// A job as listed.
#[derive(Serialize)]
struct Listed {
    name: String,
    schedule: String,
    next: Option<chrono::DateTime<Utc>>,
    recipe: PathBuf,
    images: usize,
    stream: Option<PathBuf>,
}

fn list(config: &Config, format: Format) -> anyhow::Result<()> {
    let jobs: Vec<_> = config
        .daily
        .iter()
        .map(|daily| Listed {
            name: daily.name.clone(),
            schedule: daily.schedule.to_string(),
            next: daily.schedule.next(Utc::now()),
            recipe: daily.recipe.clone(),
            images: daily.cells().len(),
            stream: daily.stream.clone().or_else(|| config.serve.root.clone()),
        })
        .collect();
    let time = |job: &Listed| job.next.map(|t| t.format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default();
    output::list(
        format,
        &jobs,
        &[
            ("NAME", &|job| job.name.clone()),
            ("SCHEDULE", &|job| job.schedule.clone()),
            ("NEXT (UTC)", &time),
            ("IMAGES", &|job| job.images.to_string()),
            ("RECIPE", &|job| job.recipe.display().to_string()),
        ],
    )
}

fn status(history: &History, job: Option<&str>, last: Option<u32>, format: Format) -> anyhow::Result<()> {
    history.heal()?;
    let mut runs = match last {
        Some(last) => history.recent(Wanted { job, product: None }, last)?,
        None => history.latest()?,
    };
    runs.retain(|run| job.is_none_or(|job| run.job == job));
    let took = |run: &Run| {
        let seconds = (run.ended.unwrap_or_else(Utc::now) - run.started).num_seconds();
        format!("{}:{:02}", seconds / 60, seconds % 60)
    };
    let state = |run: &Run| match (run.outcome, &run.stage) {
        (None, Some(stage)) => format!("running: {stage}"),
        (None, None) => "running".into(),
        (Some(outcome), _) => outcome.name().into(),
    };
    let log = |run: &Run| run.log.as_ref().map(|log| run.stream.join(log).display().to_string());
    output::list(
        format,
        &runs,
        &[
            ("JOB", &|run| run.job.clone()),
            ("PRODUCT", &|run| run.product.clone()),
            ("STATE", &state),
            ("SERIAL", &|run| run.serial.map(|serial| serial.to_string()).unwrap_or_default()),
            ("STARTED (UTC)", &|run| run.started.format("%Y-%m-%d %H:%M").to_string()),
            ("TOOK", &took),
            ("LOG", &|run| log(run).unwrap_or_default()),
            ("REASON", &|run| {
                run.reason.as_deref().and_then(|r| r.lines().next()).unwrap_or_default().into()
            }),
        ],
    )
}
