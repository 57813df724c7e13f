//! Before a build: what it would be made from, and whether there is an image of just that already.

use std::collections::BTreeMap;

use millstream_image::Sha256Digest;

use super::BuildOptions;
use super::finished::{Candidate, Finished};
use super::inputs::Current;
use crate::apt::bootstrap::Plan;
use crate::apt::sources;
use crate::recipe::{Packages, Resolved};
use crate::source::{self, Context, debootstrap};
use crate::{Result, output};

/// Largest Release document of a further repository.
const MAX_RELEASE: u64 = 4 << 20;
/// Differences that are told; more would not be read.
const TOLD: usize = 12;

/// What came of it.
pub(super) struct Examined {
    /// The inputs as they are now.
    pub(super) current: Current,
    /// What an apt distribution's bootstrap will install; none when it is not needed, as there is
    /// [`unchanged`](Self::unchanged), or for other distributions.
    pub(super) plan: Option<Plan>,
    /// An image that a build would only make again.
    pub(super) unchanged: Option<Candidate>,
    /// Why the image has to be built, or that it has not.
    pub(super) why: String,
}

/// Asks the sources and compares with the images there are.
pub(super) fn examine(
    resolved: &Resolved,
    options: &BuildOptions<'_>,
    context: &Context<'_>,
) -> Result<Examined> {
    let mut current =
        Current::read(resolved, options.recipe_dir, settings(options), options.serial, options.serial_given)?;
    let finished = Finished::open(options.cache)?;
    let mut candidates = if options.formats.only_files() {
        finished.of(current.product(), options.published)
    } else {
        Vec::new()
    };
    let mut why = match candidates.first() {
        _ if !options.formats.only_files() => "a directory is always made".to_owned(),
        None => "no finished image of it is kept".to_owned(),
        Some(newest) => told(&current.differences(&newest.manifest)),
    };
    if options.force || options.settled.is_some() {
        candidates.clear();
        why = if options.force { "--force was given".into() } else { "an image is being verified".into() };
    }
    if !source::is_apt(resolved) {
        let reason = format!(
            "whether the source of downloader {} has changed cannot be told beforehand",
            resolved.definition.source.downloader
        );
        current.inputs.unknown.push(reason.clone());
        if !candidates.is_empty() {
            why = reason;
        }
        return Ok(Examined { current, plan: None, unchanged: None, why });
    }
    let releases = debootstrap::releases(context)?;
    current.sources = releases.iter().map(output::source).collect();
    ask_repositories(&resolved.definition.packages, context, &mut current);
    candidates.retain(|candidate| {
        let differences = current.differences(&candidate.manifest);
        // The newest one, which comes first, is what the user has in mind.
        if why.is_empty() {
            why = told(&differences);
        }
        differences.is_empty()
    });
    if let Some(at) = candidates.iter().position(|candidate| current.same_documents(&candidate.manifest)) {
        let unchanged = candidates.swap_remove(at);
        let why = "recipe and signed package lists are those it was made from".to_owned();
        return Ok(Examined { current, plan: None, unchanged: Some(unchanged), why });
    }
    let settled = options.settled.map(|manifest| manifest.packages.as_slice()).unwrap_or_default();
    let plan = debootstrap::plan(context, releases, settled)?;
    let (wanted, recommends) = wanted(&resolved.definition.packages);
    current.offer(&plan.with(&wanted, recommends)?);
    for candidate in candidates {
        let differences = current.package_differences(&candidate.manifest, &plan);
        if differences.is_empty() {
            let why = "the package lists were signed anew, but offer the same packages".to_owned();
            return Ok(Examined { current, plan: None, unchanged: Some(candidate), why });
        }
        if why.is_empty() {
            why = told(&differences);
        }
    }
    Ok(Examined { current, plan: Some(plan), unchanged: None, why })
}

/// Settings that change the bytes of an image.
fn settings(options: &BuildOptions<'_>) -> BTreeMap<String, String> {
    let epoch = options.epoch.map(|epoch| ("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string()));
    let formats = ("formats".to_owned(), options.formats.text());
    epoch.into_iter().chain([formats]).collect()
}

/// What the stage `packages` installs, and whether with recommended packages.
fn wanted(packages: &Packages) -> (Vec<String>, bool) {
    let sets = packages.sets.iter().filter(|set| !set.early && set.action != "remove");
    let wanted = sets.clone().flat_map(|set| set.packages.clone()).collect();
    let recommends = sets.clone().any(|set| !set.flags.iter().any(|flag| flag == "--no-install-recommends"));
    (wanted, recommends)
}

fn told(differences: &[String]) -> String {
    let mut told: Vec<_> = differences.iter().take(TOLD).cloned().collect();
    if differences.len() > TOLD {
        told.push(format!("and {} more", differences.len() - TOLD));
    }
    told.join("; ")
}

/// The state of further apt repositories is that of their signed documents.
fn ask_repositories(packages: &Packages, context: &Context<'_>, current: &mut Current) {
    for repository in &packages.repositories {
        let sources = sources::parse(&repository.name, &repository.url);
        if sources.is_empty() {
            let reason = format!("packages.repositories: {} cannot be asked for changes", repository.name);
            current.inputs.unknown.push(reason);
        }
        for source in sources {
            for suite in &source.suites {
                // A suite that ends with a slash is a path itself.
                let place = if suite.ends_with('/') {
                    format!("{}/{}", source.url, suite.trim_matches(['.', '/']))
                } else {
                    format!("{}/dists/{suite}", source.url)
                };
                let url = format!("{}/InRelease", place.trim_end_matches('/'));
                let http = context.fetcher.http;
                let document = context.fetcher.run(async { Ok(http.document(&url, MAX_RELEASE).await?) });
                match document {
                    Ok(document) => {
                        current.inputs.repositories.insert(url, Sha256Digest::of(&document));
                    }
                    Err(error) => current.inputs.unknown.push(error.to_string()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        assert!(told(&many).ends_with("11; and 8 more"));
        assert_eq!(told(&many[..2]), "0; 1");
    }
}
