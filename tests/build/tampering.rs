//! What is not exactly what the mirror's key vouches for is refused, named, and not kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use millstream_image::archive::Member;
use millstream_image::openpgp::{Algorithm, SigningKey};

use crate::bench::{Bench, fails, works};
use crate::mirror::{Fault, Mirror, Release, Signer, an_hour_ago, apt, package, pool};

/// A build from `mirror` fails, says all of `words`, and leaves nothing.
fn refused(bench: &Bench, mirror: &Mirror, words: &[&str]) {
    let text = fails(&mut bench.build(&mirror.recipe(""), "out", &[]));
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    bench.assert_clean("out");
}

fn one_package() -> Vec<crate::mirror::Deb> {
    vec![package("base-files", &BTreeMap::from([(PathBuf::from("etc/x"), Member::file("x"))]))]
}

#[test]
fn releases_that_are_not_signed_for_this_suite_now() {
    let (bench, mirror) = (Bench::new(), Mirror::with(&one_package()));
    let other = SigningKey::generate("o <o@example.org>", Algorithm::Ed25519, an_hour_ago(), None).unwrap();
    let publish = |release: Release| mirror.publish(&one_package(), &release);
    publish(Release { signer: Signer::Other(Box::new(other)), ..Release::default() });
    refused(&bench, &mirror, &["dists/test/InRelease: refused"]);
    publish(Release { signer: Signer::Nobody, ..Release::default() });
    refused(&bench, &mirror, &["dists/test/InRelease: refused"]);
    publish(Release { suite: "other".into(), ..Release::default() });
    refused(&bench, &mirror, &["dists/test/InRelease: refused", "suite other"]);
    publish(Release { valid_until: Some("Thu, 02 Jul 2026 00:00:00 UTC".into()), ..Release::default() });
    refused(&bench, &mirror, &["dists/test/InRelease: refused", "expired"]);
    publish(Release::default());
    mirror.break_path("InRelease", Fault::Flip);
    refused(&bench, &mirror, &["dists/test/InRelease: refused"]);
}

#[test]
fn an_index_that_is_not_the_signed_one() {
    let (bench, mirror) = (Bench::new(), Mirror::with(&one_package()));
    mirror.publish(&one_package(), &Release { broken_index: true, ..Release::default() });
    refused(&bench, &mirror, &["Packages.gz", "SHA-256", "refused"]);
}

#[test]
fn a_package_that_is_not_the_listed_one() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    mirror.break_path(&pool("base-files"), Fault::Flip);
    refused(&bench, &mirror, &["pool/base-files.deb", "SHA-256", "refused"]);
}

#[test]
fn a_package_that_was_changed_in_the_cache() {
    let (bench, mirror) = (Bench::new(), Mirror::start());
    let build = |out: &str| works(&mut bench.build(&mirror.recipe(""), out, &["--format=dir"]));
    build("first");
    // Every cached file with one byte changed, its length kept.
    for item in fs::read_dir(bench.path("state/cache/packages")).unwrap().flatten() {
        if item.metadata().unwrap().len() > 0 && item.path().is_file() {
            let mut data = fs::read(item.path()).unwrap();
            let at = data.len() / 2;
            data[at] ^= 1;
            fs::write(item.path(), data).unwrap();
        }
    }
    build("second");
    let file = "rootfs/usr/bin/dpkg";
    assert_eq!(
        fs::read(bench.path("first").join(file)).unwrap(),
        fs::read(bench.path("second").join(file)).unwrap()
    );
}

#[test]
fn packages_that_overlap() {
    let bench = Bench::new();
    let files = BTreeMap::from([(PathBuf::from("etc/same"), Member::file("x"))]);
    let mirror = Mirror::with(&[package("base-files", &files), package("other", &files), apt()]);
    refused(&bench, &mirror, &["base-files", "other", "/etc/same"]);
}
