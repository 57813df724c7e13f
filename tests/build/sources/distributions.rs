//! The newest root file system is found, checked and unpacked, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use millstream_image::Sha256Digest;
use millstream_image::archive::{Member, PackOptions, pack_members};
use millstream_image::openpgp::{Algorithm, SigningKey};

use super::server::Server;
use super::table::{CASES, Case, Signed, Sums};
use crate::bench::{Bench, fails, works};
use crate::mirror::an_hour_ago;

pub fn key() -> SigningKey {
    SigningKey::generate("d <d@example.org>", Algorithm::Ed25519, an_hour_ago(), None).unwrap()
}

/// A root file system that says which archive it came in.
pub fn archive(case: &Case, which: &str) -> Vec<u8> {
    let files = BTreeMap::from([
        (format!("{}bin/sh", case.inside), Member { mode: 0o755, data: b"#!".to_vec() }),
        (format!("{}etc/which", case.inside), Member::file(which)),
        (format!("{}etc/passwd", case.inside), Member::file("root:x:0:0::/root:/bin/sh\n")),
    ]);
    let files = files.into_iter().map(|(path, member)| (PathBuf::from(path), member)).collect();
    let options =
        PackOptions { compression: case.compression, epoch: 1_700_000_000, ..PackOptions::default() };
    pack_members(&files, Vec::new(), &options).unwrap().0
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

fn directory(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"))
}

/// Where the file that vouches for `path` is.
fn signature_path(case: &Case, path: &str) -> Option<String> {
    let sums = sums_path(case, path);
    Some(match case.signed {
        Signed::Nothing => return None,
        Signed::Archive(ending) => format!("{path}{ending}"),
        Signed::Cleartext => sums?,
        Signed::Sums(ending) if ending.starts_with('.') => format!("{}{ending}", sums?),
        Signed::Sums(name) => format!("{}{name}", directory(path)),
    })
}

fn sums_path(case: &Case, path: &str) -> Option<String> {
    Some(match case.sums {
        Sums::No => return None,
        Sums::Beside(ending) | Sums::Long(ending) | Sums::Bsd(ending) => format!("{path}{ending}"),
        Sums::Digests => format!("{path}.DIGESTS"),
        Sums::List(name) => format!("{}{name}", directory(path)),
    })
}

fn sha512(data: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    fs::write(&file, data).unwrap();
    let output = Command::new("sha512sum").arg(&file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Puts both archives of a case and everything that vouches for them on a mirror.
pub fn publish(case: &Case, server: &Server, signer: &SigningKey) {
    let now = SystemTime::now();
    let detached = |data: &[u8]| signer.sign_detached(data, now).unwrap();
    let paths = BTreeSet::from([case.older, case.newest]);
    let mut lists: BTreeMap<String, String> = BTreeMap::new();
    for path in paths {
        let data = match case.downloader {
            "fedora-http" => super::images::oci_archive(path, "fedora:42"),
            "rockylinux-http" | "openeuler-http" => super::images::docker_archive(path),
            _ => archive(case, path),
        };
        if let Some(sums) = sums_path(case, path) {
            let name = file_name(path);
            let line = match case.sums {
                Sums::Long(_) => format!("{}  {name}\n", sha512(&data)),
                Sums::Bsd(_) => format!("SHA256 ({name}) = {}\n", Sha256Digest::of(&data)),
                Sums::Digests => format!(
                    "# BLAKE2B HASH\n{}  {name}\n# SHA512 HASH\n{}  {name}\n",
                    "ab".repeat(64),
                    sha512(&data)
                ),
                _ => format!("{}  {name}\n", Sha256Digest::of(&data)),
            };
            let _ = write!(lists.entry(sums).or_default(), "{line}");
        }
        if let Signed::Archive(ending) = case.signed {
            server.put(&format!("{path}{ending}"), detached(&data));
        }
        server.put(path, data);
    }
    for (place, text) in lists {
        match case.signed {
            Signed::Cleartext => server.put(&place, signer.sign_cleartext(&text, now).unwrap()),
            Signed::Sums(ending) => {
                let signature = if ending.starts_with('.') {
                    format!("{place}{ending}")
                } else {
                    format!("{}{ending}", directory(&place))
                };
                server.put(&signature, detached(text.as_bytes()));
                server.put(&place, text);
            }
            _ => server.put(&place, text),
        }
    }
    if case.downloader == "gentoo-http" {
        let files = BTreeMap::from([(PathBuf::from("portage/profiles/repo_name"), Member::file("gentoo\n"))]);
        let data = pack_members(&files, Vec::new(), &PackOptions::default()).unwrap().0;
        server.put("snapshots/portage-latest.tar.xz.gpgsig", detached(&data));
        server.put("snapshots/portage-latest.tar.xz", data);
    }
}

/// A recipe for a case; it trusts `key` where there is something to sign.
pub fn recipe(case: &Case, server: &Server, key: &SigningKey) -> String {
    let mut text = format!(
        "image:\n  distribution: d\n  architecture: amd64\n  {}\nsource:\n  downloader: {}\n  url: {}\n",
        case.image, case.downloader, server.url
    );
    if !case.source.is_empty() {
        let _ = writeln!(text, "  {}", case.source);
    }
    if case.signed != Signed::Nothing {
        let armored = key.to_armored_public().unwrap().replace('\n', "\n      ");
        let _ = write!(text, "  keys:\n  - |\n      {armored}\n");
    }
    text
}

struct World {
    bench: Bench,
    server: Server,
    key: SigningKey,
    recipe: String,
}

impl World {
    fn of(case: &Case) -> Self {
        let (bench, server, key) = (Bench::new(), Server::start(), key());
        publish(case, &server, &key);
        let recipe = recipe(case, &server, &key);
        Self { bench, server, key, recipe }
    }

    fn build(&self, more: &[&str]) -> Command {
        self.bench.build(&self.recipe, "out", &[&["--format=dir"], more].concat())
    }

    /// The build fails, says all of `words`, and leaves nothing.
    fn refused(&self, what: &str, words: &[&str]) {
        println!("{what}: {words:?}");
        let text = fails(&mut self.build(&[]));
        for word in words {
            assert!(text.contains(word), "{what}: {word:?} is not in:\n{text}");
        }
        self.bench.assert_clean("out");
    }
}

#[test]
fn the_newest_is_found_checked_and_unpacked() {
    for case in CASES {
        let world = World::of(case);
        works(&mut world.build(&[]));
        let root = world.bench.path("out/rootfs");
        let which = fs::read_to_string(root.join("etc/which")).unwrap();
        assert_eq!(which, case.newest, "{}", case.downloader);
        assert!(root.join("bin/sh").exists(), "{}", case.downloader);
        let repository = root.join("var/db/repos/gentoo/profiles/repo_name");
        assert_eq!(repository.exists(), case.downloader == "gentoo-http", "{}", case.downloader);
        let listed = world.server.asked().iter().any(|path| path.ends_with(file_name(case.older)));
        assert!(case.older == case.newest || !listed || file_name(case.older) == file_name(case.newest));
    }
}

#[test]
fn what_is_not_what_was_published_is_refused() {
    for case in CASES {
        let world = World::of(case);
        let mut data = world.server.get(case.newest);
        let at = data.len() / 2;
        data[at] ^= 1;
        world.server.put(case.newest, data);
        // What nothing vouches for is at least seen to be broken.
        let word = match (case.sums, case.signed) {
            (Sums::No, Signed::Nothing) => "archive entry",
            (Sums::No, _) => "no good signature",
            _ => "checksum",
        };
        world.refused(case.downloader, &[word]);
    }
}

#[test]
fn signatures_that_are_missing_or_by_others_are_refused() {
    for case in CASES {
        let Some(_) = signature_path(case, case.newest) else { continue };
        let world = World::of(case);
        publish(case, &world.server, &key());
        world.refused(case.downloader, &["no good signature"]);
        publish(case, &world.server, &world.key);
        match case.signed {
            Signed::Cleartext => {
                let place = sums_path(case, case.newest).unwrap();
                let message = String::from_utf8(world.server.get(&place)).unwrap();
                let body =
                    message.split_once("\n\n").unwrap().1.split("-----BEGIN").next().unwrap().to_owned();
                world.server.put(&place, body);
            }
            _ => world.server.remove(&signature_path(case, case.newest).unwrap()),
        }
        world.refused(case.downloader, &["source.keys asks for a signature, and there is no"]);
    }
}

#[test]
fn checksums_that_are_missing_or_of_others_are_refused() {
    for case in CASES {
        let Some(place) = sums_path(case, case.newest) else { continue };
        let world = World::of(&Case { signed: Signed::Nothing, ..copy(case) });
        world.server.put(&place, format!("{}  another-file\n", "00".repeat(32)));
        match (case.sums, case.downloader) {
            // A service release whose list lacks the file does not have it yet; the one before does.
            (_, "openwrt-http") => {
                works(&mut world.build(&[]));
                fs::remove_dir_all(world.bench.path("out")).unwrap();
            }
            (Sums::List(_), "ubuntu-http" | "voidlinux-http") => {
                world.refused(case.downloader, &["there is no"]);
            }
            _ => world.refused(case.downloader, &["the list of checksums has none for it"]),
        }
        world.server.remove(&place);
        world.refused(case.downloader, &["there is no such list of checksums"]);
    }
}

fn copy(case: &Case) -> Case {
    Case { ..*case }
}

#[test]
fn architectures_that_there_are_not_are_named_before_anything_is_fetched() {
    for case in CASES {
        let world = World::of(case);
        let text = fails(&mut world.build(&["-o", "image.architecture=mips64el"]));
        assert!(text.contains("has no root file system for mips64el (valid: amd64"), "{text}");
        assert_eq!(world.server.asked(), Vec::<String>::new(), "{}", case.downloader);
    }
}

#[test]
fn releases_that_there_are_not_are_named_with_where_was_looked() {
    for case in
        CASES.iter().filter(|case| case.image.contains("release: ") && !case.image.contains("current"))
    {
        let world = World::of(case);
        let release = if case.downloader == "alpinelinux-http" { "9.9" } else { "nosuch" };
        let text = fails(&mut world.build(&["-o", &format!("image.release={release}")]));
        assert!(text.contains("image.release"), "{}: {text}", case.downloader);
        world.bench.assert_clean("out");
    }
}

#[test]
fn a_recipe_without_a_mirror_uses_the_configured_one() {
    let case = CASES.iter().find(|case| case.downloader == "voidlinux-http").unwrap();
    let mut world = World::of(case);
    world.recipe = world.recipe.replace(&format!("  url: {}\n", world.server.url), "");
    let text = fails(&mut world.build(&[]));
    assert!(text.contains("-o source.url=") && text.contains("mirrors.yaml"), "{text}");
    let config = world.bench.path("state/config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("mirrors.yaml"), format!("voidlinux: {}\n", world.server.url)).unwrap();
    works(&mut world.build(&[]));
}

#[test]
fn skipping_verification_is_possible_and_logged() {
    let case = CASES.iter().find(|case| case.downloader == "alpinelinux-http").unwrap();
    let world = World::of(case);
    world.server.remove(&format!("{}.asc", case.newest));
    world.server.remove(&format!("{}.sha256", case.newest));
    works(&mut world.build(&["-o", "source.skip_verification=true"]));
    let log = fs::read_to_string(world.bench.path("out/build.log")).unwrap();
    assert!(log.contains("warning: source.skip_verification"), "{log}");
}

#[test]
fn an_archive_with_a_known_checksum_is_fetched_once() {
    let case = CASES.iter().find(|case| case.downloader == "ubuntu-http").unwrap();
    let world = World::of(case);
    works(&mut world.build(&[]));
    let fetched =
        || world.server.asked().iter().filter(|path| path.ends_with(file_name(case.newest))).count();
    assert_eq!(fetched(), 1);
    works(&mut world.bench.build(&world.recipe, "again", &["--format=dir"]));
    assert_eq!(fetched(), 1);
}
