//! Which repositories of rpm packages a root file system is made from, and what comes first.

use crate::recipe::Resolved;
use crate::{Error, Result};

use super::super::trust::{Trust, is_private};

/// A distribution whose mirror has repositories in a known place.
pub(super) struct Layout {
    /// As in `source.downloader`.
    pub(super) downloader: &'static str,
    /// Name and path of each repository. `URL` is `source.url`, `RELEASE` the release, `MAJOR` the
    /// part before its dot; dnf itself knows `$basearch`.
    repositories: fn(major: &str) -> &'static [(&'static str, &'static str)],
    /// Packages that are a root file system with a package manager.
    packages: &'static [&'static str],
    /// Name of the file by which the image knows the repository it came from, when its packages
    /// bring none, and the key in it.
    pub(super) file: Option<(&'static str, &'static str)>,
}

/// All of them.
pub(super) const LAYOUTS: &[Layout] = &[
    Layout {
        downloader: "almalinux-http",
        repositories: |_| {
            &[
                ("baseos", "URL/RELEASE/BaseOS/$basearch/os/"),
                ("appstream", "URL/RELEASE/AppStream/$basearch/os/"),
            ]
        },
        packages: &["basesystem", "almalinux-release", "yum"],
        file: None,
    },
    Layout {
        downloader: "oraclelinux-http",
        repositories: |major| match major {
            "7" => &[("base", "URL/OLMAJOR/latest/$basearch/")],
            _ => &[("base", "URL/OLMAJOR/baseos/latest/$basearch/")],
        },
        packages: &["basesystem", "oraclelinux-release", "yum"],
        file: Some(("base.repo", "/etc/pki/rpm-gpg/RPM-GPG-KEY-oracle")),
    },
    Layout {
        downloader: "springdalelinux-http",
        repositories: |major| match major {
            "7" => {
                &[("core", "URL/RELEASE/$basearch/os"), ("updates", "URL/updates/RELEASE/en/os/$basearch")]
            }
            _ => &[
                ("baseos", "URL/RELEASE/$basearch/os/BaseOS"),
                ("updates", "URL/updates/RELEASE/BaseOS/$basearch"),
            ],
        },
        packages: &["basesystem", "springdale-release", "yum"],
        file: None,
    },
];

/// What is installed, and from where.
pub(super) struct Wanted {
    /// A `.repo` file.
    pub(super) repositories: String,
    /// Packages.
    pub(super) packages: Vec<String>,
    /// Packages that are not wanted.
    pub(super) excluded: Vec<String>,
    /// What dnf calls the release.
    pub(super) release: String,
}

impl Wanted {
    /// As the recipe and its layout say; without a layout, `source.url` is the `.repo` file.
    pub(super) fn of(resolved: &Resolved, layout: Option<&Layout>, base: &str) -> Result<Self> {
        let definition = &resolved.definition;
        let release = definition.image.release.clone();
        if release.contains(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)) {
            return Err(Error::Refused(format!("image.release: {release:?} cannot be part of a path")));
        }
        let early = |action: &str| {
            let sets = definition.packages.sets.iter().filter(|set| set.early && set.action == action);
            sets.flat_map(|set| set.packages.clone()).collect::<Vec<_>>()
        };
        let (repositories, first, release) = if let Some(layout) = layout {
            let major = release.split('.').next().unwrap_or(&release).to_owned();
            (layout.text(base, &release, &major), layout.packages, major)
        } else {
            (definition.source.url.clone(), &["yum", "dnf"][..], release)
        };
        let mut packages: Vec<_> = first.iter().map(|name| (*name).to_owned()).collect();
        if layout.is_none() {
            packages.extend(definition.source.components.clone());
        }
        packages.extend(early("install"));
        let excluded = early("remove");
        if let Some(odd) = packages.iter().chain(&excluded).find(|name| !is_name(name)) {
            return Err(Error::Refused(format!("{odd:?} cannot be the name of a package")));
        }
        Ok(Self { repositories, packages, excluded, release })
    }

    /// The address of the repository `name`.
    pub(super) fn base_of(&self, name: &str) -> Option<String> {
        let (_, section) = self.repositories.split_once(&format!("[{name}]"))?;
        let section = section.split("\n[").next().unwrap_or_default();
        urls(section, &REPOSITORY).first().map(|url| (*url).to_owned())
    }

    /// Fails when what comes could be changed on its way and nothing would show it.
    pub(super) fn check_way(&self, trust: &Trust) -> Result<()> {
        if urls(&self.repositories, &REPOSITORY).is_empty() {
            return Err(Error::Refused(
                "source.url: rpmbootstrap needs the text of a .repo file there, with a [section] and its baseurl"
                    .into(),
            ));
        }
        let keys: &[&str] = if trust.has_keys() { &[] } else { &["gpgkey"] };
        for url in urls(&self.repositories, &[&REPOSITORY, keys].concat()) {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(Error::Refused(format!(
                    "source.url: {url} is not fetched; use https or http, and source.keys for keys"
                )));
            }
            // Keys vouch for packages; which of them are offered only the way does.
            if !trust.has_keys() && !is_private(url) {
                trust.check_way(url, true)?;
            }
        }
        Ok(())
    }
}

impl Layout {
    fn text(&self, base: &str, release: &str, major: &str) -> String {
        // Oracle's recipes name the place of its installation media, beside its repositories.
        let base = match base.strip_suffix("/ISOS/OracleLinux") {
            Some(top) if self.downloader == "oraclelinux-http" => format!("{top}/repo/OracleLinux"),
            _ => base.to_owned(),
        };
        let repository = |(name, path): &(&str, &str)| {
            let url = path.replace("RELEASE", release).replace("MAJOR", major).replace("URL", &base);
            format!("[{name}]\nname={name}\nbaseurl={url}\nenabled=1\n")
        };
        (self.repositories)(major).iter().map(repository).collect()
    }
}

/// Letters, digits and what names of packages, groups (`@core`) and globs are made of; never an
/// option.
fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._+-@:*()/=^".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || "@(*/".contains(c)) && name.chars().all(good)
}

/// Keys of a `.repo` file that say where a repository is.
const REPOSITORY: [&str; 3] = ["baseurl", "mirrorlist", "metalink"];

/// The addresses under some keys of a `.repo` file.
fn urls<'t>(text: &'t str, keys: &[&str]) -> Vec<&'t str> {
    let mut urls = Vec::new();
    let mut continued = false;
    for line in text.lines() {
        let indented = line.starts_with([' ', '\t']);
        let value = match line.split_once('=') {
            _ if line.starts_with(['#', ';']) => continue,
            _ if indented && continued => line,
            Some((key, value)) => {
                continued = keys.contains(&key.trim());
                if !continued {
                    continue;
                }
                value
            }
            None => continue,
        };
        urls.extend(value.split([' ', '\t', ',']).filter(|url| url.contains("://")));
    }
    urls
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mirrors_have_their_repositories_where_they_have_them() {
        let text = |downloader: &str, base: &str, release: &str| {
            let layout = LAYOUTS.iter().find(|layout| layout.downloader == downloader).unwrap();
            let major = release.split('.').next().unwrap();
            urls(&layout.text(base, release, major), &REPOSITORY).join(" ")
        };
        assert_eq!(
            text("almalinux-http", "https://m/a", "9.4"),
            "https://m/a/9.4/BaseOS/$basearch/os/ https://m/a/9.4/AppStream/$basearch/os/"
        );
        assert_eq!(
            text("oraclelinux-http", "https://m/ISOS/OracleLinux", "9"),
            "https://m/repo/OracleLinux/OL9/baseos/latest/$basearch/"
        );
        assert_eq!(text("oraclelinux-http", "https://m/o", "7"), "https://m/o/OL7/latest/$basearch/");
        assert!(
            text("springdalelinux-http", "https://m", "8.3").starts_with("https://m/8.3/$basearch/os/BaseOS")
        );
    }

    #[test]
    fn every_address_of_a_repository_counts() {
        let text = "[a]\nbaseurl = http://x/1,\n   http://x/2\nname=http://no\nmirrorlist=https://y\n#baseurl=ftp://z\n";
        assert_eq!(urls(text, &REPOSITORY), ["http://x/1", "http://x/2", "https://y"]);
        assert!(urls("https://m.example/x", &REPOSITORY).is_empty());
    }

    #[test]
    fn options_are_no_packages() {
        for good in
            ["bash", "@core", "glibc-2.34-1.el9.x86_64", "/usr/bin/sh", "libfoo.so.1()(64bit)", "python3*"]
        {
            assert!(is_name(good), "{good}");
        }
        for bad in ["--nogpgcheck", "-y", "", "a b", "$(x)", "a;b", "a\nb"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,200}") {
            prop_assert!(urls(&text, &REPOSITORY).iter().all(|url| url.contains("://")));
        }
    }
}
