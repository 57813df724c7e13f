//! `rootfs-http`: archives by URL and by file.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use millstream_image::Sha256Digest;
use millstream_image::archive::{Compression, Member, PackOptions, pack_members};

use super::distributions::key;
use super::server::Server;
use crate::bench::{Bench, fails, works};

fn archive() -> Vec<u8> {
    let files = BTreeMap::from([(PathBuf::from("etc/which"), Member::file("here"))]);
    let options = PackOptions { compression: Compression::Gzip, ..PackOptions::default() };
    pack_members(&files, Vec::new(), &options).unwrap().0
}

fn recipe(url: &str, more: &str) -> String {
    format!(
        "image:\n  distribution: d\n  release: r\n  architecture: amd64\nsource:\n  downloader: rootfs-http\n  url: {url}\n{more}"
    )
}

fn good(bench: &Bench, recipe: &str) {
    works(&mut bench.build(recipe, "out", &["--format=dir"]));
    assert_eq!(fs::read_to_string(bench.path("out/rootfs/etc/which")).unwrap(), "here");
    fs::remove_dir_all(bench.path("out")).unwrap();
}

fn bad(bench: &Bench, recipe: &str, word: &str) {
    let text = fails(&mut bench.build(recipe, "out", &["--format=dir"]));
    assert!(text.contains(word), "{word:?} is not in:\n{text}");
    bench.assert_clean("out");
}

#[test]
fn files_by_path_and_url() {
    let (bench, server) = (Bench::new(), Server::start());
    fs::write(bench.path("root.tar.gz"), archive()).unwrap();
    server.put("d/root.tar.gz", archive());
    let file = bench.path("root.tar.gz");
    good(&bench, &recipe("root.tar.gz", ""));
    good(&bench, &recipe(&format!("file://{}", file.display()), ""));
    good(&bench, &recipe(&format!("{}/d/root.tar.gz", server.url), ""));
    bad(&bench, &recipe("gone.tar.gz", ""), "gone.tar.gz");
    bad(&bench, &recipe(&format!("{}/d/gone.tar.gz", server.url), ""), "404");
    bad(&bench, &recipe("ftp://m.example/root.tar.gz", ""), "use https");
    bad(&bench, &recipe("http://m.example/root.tar.gz", ""), "plain http");
    fs::write(bench.path("root.zip"), b"PK\x03\x04 and so on").unwrap();
    bad(&bench, &recipe("root.zip", ""), "zip keeps neither owners nor links");
}

#[test]
fn checksums_pinned_or_beside() {
    let (bench, server) = (Bench::new(), Server::start());
    let (digest, other) = (Sha256Digest::of(&archive()), Sha256Digest::of(b"other"));
    let url = format!("{}/d/root.tar.gz", server.url);
    server.put("d/root.tar.gz", archive());
    good(&bench, &recipe(&format!("'{url}#sha256={digest}'"), ""));
    bad(&bench, &recipe(&format!("'{url}#sha256={other}'"), ""), "published is SHA-256");
    bad(&bench, &recipe(&format!("'{url}#md5=00'"), ""), "#sha256=");
    server.put("d/SHA256SUMS", format!("{other}  root.tar.gz\n"));
    bad(&bench, &recipe(&url, ""), "published is SHA-256");
    server.put("d/root.tar.gz.sha256", format!("{digest}\n"));
    good(&bench, &recipe(&url, ""));
}

#[test]
fn signatures_of_the_archive_or_of_its_checksums() {
    let (bench, server, signer) = (Bench::new(), Server::start(), key());
    let armored = signer.to_armored_public().unwrap().replace('\n', "\n      ");
    let recipe =
        recipe(&format!("{}/root.tar.gz", server.url), &format!("  keys:\n  - |\n      {armored}\n"));
    let now = SystemTime::now();
    server.put("root.tar.gz", archive());
    bad(&bench, &recipe, "source.keys asks for a signature");
    server.put("root.tar.gz.asc", key().sign_detached(&archive()[..], now).unwrap());
    bad(&bench, &recipe, "no good signature");
    server.put("root.tar.gz.asc", signer.sign_detached(&archive()[..], now).unwrap());
    good(&bench, &recipe);
    server.remove("root.tar.gz.asc");
    let sums = format!("{}  root.tar.gz\n", Sha256Digest::of(&archive()));
    server.put("SHA256SUMS", sums.clone());
    bad(&bench, &recipe, "source.keys asks for a signature");
    server.put("SHA256SUMS.gpg", signer.sign_detached(sums.as_bytes(), now).unwrap());
    good(&bench, &recipe);
    server.put("SHA256SUMS", sums.replace("root", "boot"));
    bad(&bench, &recipe, "no checksum of root.tar.gz");
}
