//! What a build would do, and why, without doing it.

use std::cell::RefCell;
use std::fs;

use millstream_client::{HttpClient, HttpOptions};
use millstream_image::manifest::Package;
use serde::Serialize;

use super::base::Bases;
use super::examine::examine;
use super::stages::Stages;
use super::{Build, BuildOptions, bootstrap};
use crate::apt::bootstrap::Fetcher;
use crate::emulation::Emulation;
use crate::recipe::Resolved;
use crate::{Error, Result, source};

/// Changes that are told.
const TOLD: usize = 12;

/// A stage, and whether and why a build would run it.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// `image`, then the stages by their names.
    pub stage: &'static str,
    /// `run`, `skip` or `reuse`.
    pub what: &'static str,
    /// Why.
    pub why: String,
}

/// Tells what [`build`](super::build) would do. Asks the sources, and fetches lists of packages if
/// it has to, but nothing else.
///
/// # Errors
/// When the sources cannot be asked.
pub fn explain(resolved: &Resolved, options: &BuildOptions<'_>) -> Result<Vec<Reason>> {
    let cache = options.cache;
    fs::create_dir_all(cache.join("packages")).map_err(Error::io(cache))?;
    let cache = &fs::canonicalize(cache).map_err(Error::io(cache))?;
    let http = HttpClient::new(&HttpOptions::default())?;
    let packages = cache.join("packages");
    let fetcher =
        Fetcher { cache: &packages, http: &http, progress: options.progress, cancel: options.cancel };
    let (host, recipe_dir) = (options.host, options.recipe_dir);
    let context = source::Context { resolved, host, fetcher: &fetcher, recipe_dir, root: cache };
    let examined = examine(resolved, options, &context)?;
    if let Some(candidate) = examined.unchanged {
        let mut reasons = vec![Reason {
            stage: "image",
            what: "reuse",
            why: format!("{}: {} in {}", candidate.manifest.serial, examined.why, candidate.dir.display()),
        }];
        let why = "the finished image is used again";
        reasons.extend(["bootstrap", "packages", "files", "pack"].map(|stage| skip(stage, why)));
        return Ok(reasons);
    }
    let mut reasons = vec![run("image", examined.why)];
    match &examined.plan {
        None => reasons.push(run("bootstrap", "this source makes no shared base".into())),
        Some(plan) => {
            let log = RefCell::new(fs::File::open("/dev/null").map_err(Error::io("/dev/null"))?);
            let stages = Stages::new(options.report);
            let build = Build {
                resolved,
                options,
                cache,
                log: &log,
                log_path: "/dev/null".into(),
                stages: &stages,
                emulation: Emulation::None,
            };
            let contents = bootstrap::contents(resolved, plan, &build.scripts(cache))?;
            let bases = Bases::open(cache)?;
            let latest = bases.latest(&contents.name);
            reasons.push(if bases.find(&contents)?.is_some() {
                let why = format!("a base of these {} packages is in the cache", contents.packages.len());
                Reason { stage: "bootstrap", what: "reuse", why }
            } else {
                run("bootstrap", changes(latest.as_deref(), &contents.packages))
            });
        }
    }
    let definition = &resolved.definition;
    let sets = definition.packages.sets.iter().filter(|set| !set.early && !set.packages.is_empty()).count();
    reasons.push(match (sets, definition.packages.update) {
        (0, false) => skip("packages", "the recipe asks for none besides the base"),
        (sets, update) => {
            let first = if update { "an update and " } else { "" };
            run("packages", format!("{first}{sets} sets, on top of the base"))
        }
    });
    reasons.push(run(
        "files",
        format!("{} files and {} scripts", definition.files.len(), definition.actions.len()),
    ));
    reasons.push(if options.formats.only_directory() {
        skip("pack", "a directory is asked for")
    } else {
        run("pack", "the root file system is made anew".into())
    });
    if let Some(test) = options.test {
        reasons.push(run(
            "test",
            format!("asked for by --test, script {}", super::inputs::short(test.digest())),
        ));
    }
    Ok(reasons)
}

fn run(stage: &'static str, why: String) -> Reason {
    Reason { stage, what: "run", why }
}

fn skip(stage: &'static str, why: &str) -> Reason {
    Reason { stage, what: "skip", why: why.to_owned() }
}

/// How the packages of a base differ from those of the last one.
fn changes(then: Option<&[Package]>, now: &[Package]) -> String {
    let Some(then) = then else { return "there is no base of this release in the cache".into() };
    let version = |packages: &[Package], name: &str| {
        packages.iter().find(|package| package.name == name).map(|package| package.version.clone())
    };
    let mut found: Vec<_> = now
        .iter()
        .filter_map(|package| match version(then, &package.name) {
            None => Some(format!("{} {} is new", package.name, package.version)),
            Some(old) if old != package.version => {
                Some(format!("{} {old} → {}", package.name, package.version))
            }
            Some(_) => None,
        })
        .collect();
    let gone = then.iter().filter(|package| version(now, &package.name).is_none());
    found.extend(gone.map(|package| format!("{} is no longer needed", package.name)));
    match found.len() {
        0 => "no base in the cache was made with this environment by this user".into(),
        count if count > TOLD => format!("{}; and {} more", found[..TOLD].join("; "), count - TOLD),
        _ => found.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package { name: name.into(), version: version.into(), architecture: "all".into(), sha256: None }
    }

    #[test]
    fn changes_of_a_base_are_named() {
        let then = [package("a", "1"), package("b", "1"), package("c", "1")];
        let now = [package("a", "1"), package("b", "2"), package("d", "1")];
        assert_eq!(changes(Some(&then), &now), "b 1 → 2; d 1 is new; c is no longer needed");
        assert!(changes(None, &now).contains("no base of this release"));
        assert!(changes(Some(&now), &now).contains("environment"));
    }
}
