//! Further repositories, by each manager's own configuration.

use super::quote;
use super::table::Sources;
use crate::recipe::Repository;
use crate::rootfs::{Attributes, Rootfs};
use crate::{Error, Result};

const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// Writes the files and returns what is to be run inside.
pub(super) fn add(sources: Sources, repositories: &[Repository], rootfs: &Rootfs) -> Result<Vec<String>> {
    let mut adding = Adding { rootfs, written: Vec::new(), lines: Vec::new() };
    for repository in repositories {
        let name = repository.name.as_str();
        if name.contains(['/', '\0', '\n']) || name.starts_with('.') {
            return Err(Error::Refused(format!("packages.repositories: {name:?} is not a file name")));
        }
        adding.add(sources, repository)?;
    }
    Ok(adding.lines)
}

struct Adding<'a> {
    rootfs: &'a Rootfs,
    /// Files that are this recipe's already.
    written: Vec<String>,
    lines: Vec<String>,
}

impl Adding<'_> {
    fn add(&mut self, sources: Sources, repository: &Repository) -> Result<()> {
        let Repository { name, url, key, .. } = repository;
        match sources {
            Sources::Apt => self.apt(repository),
            Sources::Apk => {
                if !url.is_empty() {
                    self.append("/etc/apk/repositories", url)?;
                }
                let keyed = !key.is_empty() && !name.is_empty();
                if keyed { self.text(&format!("/etc/apk/keys/{name}"), key) } else { Ok(()) }
            }
            Sources::Rpm { directory } => self.rpm(directory, repository),
            Sources::Zypper => self.zypper(repository),
            Sources::Pacman => self.pacman(repository),
            Sources::File { directory, ending, line } => {
                let path = format!("{directory}/{}", with_ending(name, ending));
                let text = if is_url(url) && !line.is_empty() {
                    line.replace("NAME", name).replace("URL", url.trim())
                } else {
                    url.clone()
                };
                no_key(repository)?;
                self.text(&path, &text)
            }
            Sources::Lines { file } => {
                no_key(repository)?;
                self.append(file, url)
            }
            Sources::Equo => self.equo(repository),
        }
    }

    /// `sources.list` itself, else a file in `sources.list.d`.
    fn apt(&mut self, repository: &Repository) -> Result<()> {
        let name = repository.name.as_str();
        let path = match name {
            "sources.list" => "/etc/apt/sources.list".to_owned(),
            _ if name.ends_with(".sources") => format!("/etc/apt/sources.list.d/{name}"),
            _ => format!("/etc/apt/sources.list.d/{}", with_ending(name, ".list")),
        };
        self.text(&path, &repository.url)?;
        if repository.key.is_empty() {
            return Ok(());
        }
        let key = armored(repository)?;
        self.text(&format!("/etc/apt/trusted.gpg.d/{name}.asc"), key)
    }

    fn rpm(&mut self, directory: &str, repository: &Repository) -> Result<()> {
        let Repository { name, url, .. } = repository;
        let key = self.rpm_key(repository)?;
        let text = if is_url(url) { section(name, url, key.as_deref()) } else { url.clone() };
        self.text(&format!("{directory}/{}", with_ending(name, ".repo")), &text)
    }

    fn zypper(&mut self, repository: &Repository) -> Result<()> {
        let Repository { name, url, r#type, .. } = repository;
        if !matches!(r#type.as_str(), "" | "zypper") {
            let reason =
                format!("packages.repositories: {name} has the type {type:?}, zypper knows one: zypper");
            return Err(Error::Refused(reason));
        }
        self.rpm_key(repository)?;
        if is_url(url) {
            self.lines.push(format!("zypper ar --refresh --check {} {}", quote(url.trim()), quote(name)));
            return Ok(());
        }
        self.text(&format!("/etc/zypp/repos.d/{}", with_ending(name, ".repo")), url)
    }

    /// Puts a key where rpm's database takes it from; returns where that is.
    fn rpm_key(&mut self, repository: &Repository) -> Result<Option<String>> {
        if repository.key.is_empty() {
            return Ok(None);
        }
        let key = armored(repository)?;
        let path = format!("/etc/pki/rpm-gpg/RPM-GPG-KEY-{}", repository.name.trim_end_matches(".repo"));
        self.text(&path, key)?;
        self.lines.push(format!("rpm --import {}", quote(&path)));
        Ok(Some(path))
    }

    /// The list of mirrors, or a file of sections that `pacman.conf` includes.
    fn pacman(&mut self, repository: &Repository) -> Result<()> {
        let Repository { name, url, .. } = repository;
        no_key(repository)?;
        if name == "mirrorlist" {
            let text = if is_url(url) { format!("Server = {}", url.trim()) } else { url.clone() };
            return self.text("/etc/pacman.d/mirrorlist", &text);
        }
        let path = format!("/etc/pacman.d/{}", with_ending(name, ".conf"));
        let first = !self.written.contains(&path);
        let text = if is_url(url) {
            format!("[{}]\nServer = {}", name.trim_end_matches(".conf"), url.trim())
        } else {
            url.clone()
        };
        self.text(&path, &text)?;
        if first { self.append("/etc/pacman.conf", &format!("Include = {path}")) } else { Ok(()) }
    }

    fn equo(&mut self, repository: &Repository) -> Result<()> {
        let Repository { name, url, r#type, .. } = repository;
        no_key(repository)?;
        self.lines.push(match r#type.as_str() {
            "enman" => format!("enman add {}", quote(if url.is_empty() { name } else { url })),
            "" | "equo" if !url.is_empty() => {
                let url = quote(url);
                format!("equo repo add --repo {url} --pkg {url} {}", quote(name))
            }
            "" | "equo" => {
                return Err(Error::Refused(format!("packages.repositories: {name} has no url")));
            }
            other => {
                return Err(Error::Refused(format!(
                    "packages.repositories: {name} has the type {other:?} (valid: equo, enman)"
                )));
            }
        });
        Ok(())
    }

    /// Writes a file of this recipe; what it had of the same name before stays above.
    fn text(&mut self, path: &str, text: &str) -> Result<()> {
        let line = format!("{}\n", text.trim_end());
        let before = if self.written.iter().any(|known| known == path) {
            self.rootfs.read(path)?.unwrap_or_default()
        } else {
            Vec::new()
        };
        self.rootfs.write(path, &[&before, line.as_bytes()].concat(), Attributes::default())?;
        self.written.push(path.to_owned());
        Ok(())
    }

    /// Adds a line to a file of the root file system.
    fn append(&mut self, path: &str, line: &str) -> Result<()> {
        let mut text = self.rootfs.read(path)?.unwrap_or_default();
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(line.trim_end().as_bytes());
        text.push(b'\n');
        self.rootfs.write(path, &text, Attributes::default())
    }
}

fn no_key(repository: &Repository) -> Result<()> {
    if repository.key.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "packages.repositories: this manager takes no key for {}; add it in a post-unpack action",
        repository.name
    )))
}

/// Whether this is an address and nothing else, rather than the text of a file.
fn is_url(text: &str) -> bool {
    let text = text.trim();
    !text.contains(char::is_whitespace)
        && text.split_once(':').is_some_and(|(scheme, rest)| {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) && rest.starts_with('/')
        })
}

fn with_ending(name: &str, ending: &str) -> String {
    if name.ends_with(ending) { name.to_owned() } else { format!("{name}{ending}") }
}

/// A section of yum's configuration for a mere address: checked with its key, or not at all.
fn section(name: &str, url: &str, key: Option<&str>) -> String {
    let name = name.trim_end_matches(".repo");
    let check = key.map_or("gpgcheck=0".to_owned(), |key| format!("gpgcheck=1\ngpgkey=file://{key}"));
    format!("[{name}]\nname={name}\nbaseurl={}\nenabled=1\n{check}", url.trim())
}

fn armored(repository: &Repository) -> Result<&str> {
    if repository.key.contains(ARMOR) {
        return Ok(&repository.key);
    }
    Err(Error::Refused(format!(
        "packages.repositories: the key of {} must be the public key itself, armored; no keyserver is asked",
        repository.name
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manager::table::KNOWN;
    use crate::manager::tests::words;

    proptest! {
        // Each case starts a shell.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_name_and_address_comes_through_a_shell_unchanged(
            name in "[^\\x00]{1,12}|[ '\"$`\\\\!*?~#;&|<>(){}-]{1,6}",
            rest in "[^\\x00\\s]{0,12}|['\"$`\\\\!*?~#;&|<>(){}-]{1,6}",
        ) {
            let url = format!("http:/{rest}");
            let key = format!("{ARMOR}\n");
            for (manager, r#type, key) in [("zypper", "", ""), ("zypper", "", &key), ("equo", "", ""), ("equo", "enman", "")] {
                let repository = Repository { r#type: r#type.into(), ..repository(&name, &url, key) };
                let Ok((_dir, lines)) = added(manager, &[repository]) else {
                    // A name no file can have, or one without what makes it a name.
                    prop_assert!(name.contains(['/', '\n']) || name.starts_with('.'), "{name:?}");
                    continue;
                };
                let found: Vec<_> = lines.iter().map(|line| words(line)).collect();
                let path = format!("/etc/pki/rpm-gpg/RPM-GPG-KEY-{}", name.trim_end_matches(".repo"));
                let (name, url) = (name.as_str(), url.as_str());
                let zypper = vec!["ar", "--refresh", "--check", url, name];
                let expected = match (manager, r#type, key) {
                    ("zypper", _, "") => vec![zypper],
                    ("zypper", ..) => vec![vec!["--import", &path], zypper],
                    (_, "enman", _) => vec![vec!["add", url]],
                    _ => vec![vec!["repo", "add", "--repo", url, "--pkg", url, name]],
                };
                prop_assert_eq!(found, expected);
            }
        }
    }

    fn repository(name: &str, url: &str, key: &str) -> Repository {
        Repository { name: name.into(), url: url.into(), key: key.into(), ..Repository::default() }
    }

    /// What the manager's repositories leave: files and lines.
    fn added(manager: &str, repositories: &[Repository]) -> Result<(tempfile::TempDir, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        rootfs.write("/etc/pacman.conf", b"[options]", Attributes::default()).unwrap();
        rootfs.write("/etc/apt/sources.list", b"old\n", Attributes::default()).unwrap();
        rootfs.write("/etc/apk/repositories", b"old\n", Attributes::default()).unwrap();
        let sources = KNOWN.iter().find(|known| known.name == manager).unwrap().sources;
        let lines = add(sources, repositories, &rootfs)?;
        Ok((dir, lines))
    }

    #[test]
    fn each_manager_gets_its_own_files() {
        let url = "https://m.example/x";
        let armor = format!("{ARMOR}\nx\n");
        for (manager, repository, file, text) in [
            ("apt", repository("a", "deb x y z", ""), "etc/apt/sources.list.d/a.list", "deb x y z\n"),
            (
                "apt",
                repository("a.sources", "Types: deb\n", ""),
                "etc/apt/sources.list.d/a.sources",
                "Types: deb\n",
            ),
            ("apt", repository("sources.list", "deb x", ""), "etc/apt/sources.list", "deb x\n"),
            ("apt", repository("a", "deb x", &armor), "etc/apt/trusted.gpg.d/a.asc", &armor),
            ("apk", repository("", url, ""), "etc/apk/repositories", "old\nhttps://m.example/x\n"),
            ("apk", repository("k.pub", url, "key"), "etc/apk/keys/k.pub", "key\n"),
            ("dnf", repository("a", "[a]\nbaseurl=x", ""), "etc/yum.repos.d/a.repo", "[a]\nbaseurl=x\n"),
            (
                "yum",
                repository("a.repo", url, ""),
                "etc/yum.repos.d/a.repo",
                "[a]\nname=a\nbaseurl=https://m.example/x\nenabled=1\ngpgcheck=0\n",
            ),
            ("zypper", repository("a", "[a]\nbaseurl=x", ""), "etc/zypp/repos.d/a.repo", "[a]\nbaseurl=x\n"),
            (
                "pacman",
                repository("mirrorlist", url, ""),
                "etc/pacman.d/mirrorlist",
                "Server = https://m.example/x\n",
            ),
            (
                "pacman",
                repository("a", url, ""),
                "etc/pacman.conf",
                "[options]\nInclude = /etc/pacman.d/a.conf\n",
            ),
            (
                "pacman",
                repository("a", url, ""),
                "etc/pacman.d/a.conf",
                "[a]\nServer = https://m.example/x\n",
            ),
            ("xbps", repository("a", url, ""), "etc/xbps.d/a.conf", "repository=https://m.example/x\n"),
            ("opkg", repository("a", url, ""), "etc/opkg/a.conf", "src/gz a https://m.example/x\n"),
            ("portage", repository("a", "[a]\nx", ""), "etc/portage/repos.conf/a.conf", "[a]\nx\n"),
            ("egoportage", repository("a.conf", "[a]", ""), "etc/portage/repos.conf/a.conf", "[a]\n"),
            ("anise", repository("a", "name: a", ""), "etc/anise/repos.conf.d/a.yml", "name: a\n"),
            ("luet", repository("a.yml", "name: a", ""), "etc/luet/repos.conf.d/a.yml", "name: a\n"),
            ("slackpkg", repository("a", url, ""), "etc/slackpkg/mirrors", "https://m.example/x\n"),
        ] {
            let (dir, _) = added(manager, &[repository]).unwrap();
            let found =
                std::fs::read_to_string(dir.path().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert_eq!(found, text, "{manager}");
        }
    }

    #[test]
    fn several_of_one_name_are_one_file() {
        let list = [repository("sources.list", "deb a", ""), repository("sources.list", "deb b", "")];
        let (dir, _) = added("apt", &list).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("etc/apt/sources.list")).unwrap(),
            "deb a\ndeb b\n"
        );
    }

    #[test]
    fn some_are_told_by_command() {
        let lines = |manager: &str, repository: Repository| added(manager, &[repository]).unwrap().1;
        let url = "https://m.example/x y";
        let of_type = |kind: &str, url: &str| Repository { r#type: kind.into(), ..repository("a", url, "") };
        assert_eq!(
            lines("zypper", repository("a", "https://m.example/x", "")),
            ["zypper ar --refresh --check https://m.example/x a"]
        );
        assert_eq!(
            lines("equo", repository("a", url, "")),
            ["equo repo add --repo 'https://m.example/x y' --pkg 'https://m.example/x y' a"]
        );
        assert_eq!(lines("equo", of_type("enman", "")), ["enman add a"]);
        assert_eq!(
            lines("dnf", repository("a", "https://m.example/x", &format!("{ARMOR}\n"))),
            ["rpm --import /etc/pki/rpm-gpg/RPM-GPG-KEY-a"]
        );
        for (manager, repository, reason) in [
            ("apt", repository("../a", "x", ""), "not a file name"),
            ("apt", repository("a", "x", "0123ABCD"), "no keyserver is asked"),
            ("dnf", repository("a", "x", "0123ABCD"), "no keyserver is asked"),
            ("xbps", repository("a", "x", "key"), "takes no key"),
            ("zypper", of_type("yast", "x"), "zypper knows one"),
            ("equo", of_type("other", "x"), "valid: equo, enman"),
        ] {
            let error = added(manager, &[repository]).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
