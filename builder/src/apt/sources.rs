//! The host's own apt configuration: which mirror carries what (sources.list(5)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::deb822;
use crate::{Error, Result};

/// One enabled source of binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Base URL, without a slash at the end.
    pub url: String,
    /// Suites: `bookworm`, `bookworm-updates`.
    pub suites: Vec<String>,
    /// Components: `main`.
    pub components: Vec<String>,
}

/// What this host knows of mirrors.
#[derive(Clone, Debug, Default)]
pub struct HostSources {
    /// The host's distribution, as in `os-release`: `debian`.
    pub distribution: String,
    /// Its release: `bookworm`.
    pub codename: String,
    /// Its enabled sources.
    pub sources: Vec<Source>,
    /// Mirrors the configuration names, by distribution; `docker` is the registry of images that
    /// name none.
    pub mirrors: BTreeMap<String, String>,
    /// The configuration's keyrings: `DISTRIBUTION.asc` or `.gpg`.
    pub keyrings: Option<PathBuf>,
    /// The host's root directory; empty means `/`.
    pub root: PathBuf,
}

impl HostSources {
    /// Reads `/etc/os-release` and everything below `/etc/apt`.
    pub fn read() -> Self {
        Self::read_from(Path::new("/"))
    }

    /// Adds `mirrors.yaml` and `keyrings/` of a configuration directory, where they are there.
    ///
    /// # Errors
    /// When `mirrors.yaml` is no list of distributions and URLs.
    pub fn with_settings(mut self, directory: &Path) -> Result<Self> {
        let file = directory.join("mirrors.yaml");
        match fs::read(&file) {
            Ok(text) => {
                self.mirrors = serde_yaml_ng::from_slice(&text).map_err(|error| {
                    let shown = file.display();
                    Error::Refused(format!("{shown}: expected lines of DISTRIBUTION: URL ({error})"))
                })?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&file)(error)),
        }
        self.keyrings = Some(directory.join("keyrings"));
        Ok(self)
    }

    fn read_from(root: &Path) -> Self {
        let release = fs::read_to_string(root.join("etc/os-release")).unwrap_or_default();
        let field = |name: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let mut sources = Vec::new();
        let apt = root.join("etc/apt");
        let mut files = vec![apt.join("sources.list")];
        if let Ok(listing) = fs::read_dir(apt.join("sources.list.d")) {
            files.extend(listing.flatten().map(|entry| entry.path()));
        }
        files.sort();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            if let Some("list" | "sources") = file.extension().and_then(|e| e.to_str()) {
                sources.extend(parse(&file.to_string_lossy(), &text));
            }
        }
        let root = root.to_path_buf();
        Self {
            distribution: field("ID"),
            codename: field("VERSION_CODENAME"),
            sources,
            root,
            ..Self::default()
        }
    }

    /// The mirror of a release's suite and its components: where this host gets the same kind of
    /// suite (`SUFFIX` empty, `-updates` or `-security`) of its own release.
    pub fn find(&self, distribution: &str, release: &str, suffix: &str) -> Option<Source> {
        let wanted = format!("{release}{suffix}");
        let exact = self.sources.iter().find(|s| s.suites.contains(&wanted));
        let own = format!("{}{suffix}", self.codename);
        let alike = || {
            let same = distribution.eq_ignore_ascii_case(&self.distribution);
            self.sources.iter().filter(|_| same).find(|s| s.suites.contains(&own))
        };
        let found = exact.or_else(alike)?;
        Some(Source { suites: vec![wanted], ..found.clone() })
    }
}

/// The sources a file states: in paragraphs when its name ends with `.sources`, else in lines.
pub(crate) fn parse(name: &str, text: &str) -> Vec<Source> {
    if name.ends_with(".sources") {
        deb822::paragraphs(text).flat_map(|p| parse_paragraph(&p)).collect()
    } else {
        text.lines().filter_map(parse_line).collect()
    }
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim();
    let rest = match line.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1.trim(),
        None => line,
    };
    let mut words = rest.split_whitespace();
    let url = words.next()?.trim_end_matches('/').to_owned();
    let suites = vec![words.next()?.to_owned()];
    Some(Source { url, suites, components: words.map(str::to_owned).collect() })
}

fn parse_paragraph(paragraph: &deb822::Paragraph) -> Vec<Source> {
    let words = |name: &str| -> Vec<String> {
        paragraph.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let disabled = paragraph.get("Enabled").is_some_and(|v| matches!(v, "no" | "false" | "0"));
    if disabled || !words("Types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let (suites, components) = (words("Suites"), words("Components"));
    words("URIs")
        .into_iter()
        .map(|url| Source {
            url: url.trim_end_matches('/').to_owned(),
            suites: suites.clone(),
            components: components.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_and_other_releases_derived() {
        let dir = tempfile::tempdir().unwrap();
        let apt = dir.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&apt).unwrap();
        fs::write(dir.path().join("etc/os-release"), "ID=debian\nVERSION_CODENAME=bookworm\n").unwrap();
        fs::write(dir.path().join("etc/apt/sources.list"), "# deb http://no.example x main\ndeb [arch=amd64] http://s.example/sec/ bookworm-security main # c\n").unwrap();
        fs::write(apt.join("a.sources"), "Types: deb deb-src\nURIs: http://m.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\n").unwrap();
        fs::write(apt.join("b.sources.disabled"), "Types: deb\nURIs: http://no.example\nSuites: x\n")
            .unwrap();
        let host = HostSources::read_from(dir.path());
        assert_eq!(host.sources.len(), 2);
        let trixie = host.find("Debian", "trixie", "").unwrap();
        assert_eq!((trixie.url.as_str(), trixie.suites[0].as_str()), ("http://m.example/debian", "trixie"));
        assert_eq!(host.find("debian", "bookworm", "-security").unwrap().url, "http://s.example/sec");
        assert!(host.find("ubuntu", "noble", "").is_none());
    }
}
