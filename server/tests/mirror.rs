//! Trees that hold what another server offers.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use millstream_client::{HttpOptions, NoProgress, Remote, Trust, Upstream};
use millstream_image::simplestreams::{Index, Products};
use millstream_server::Result;
use millstream_server::mirror::{self, Filter, Options, Summary};
use support::{Fixture, Image, signing, snapshot};

const BOOKWORM: &str = "debian:bookworm:amd64:default";
const TRIXIE: &str = "debian:trixie:arm64:default";
const SID: &str = "debian:sid:amd64:default";

fn options() -> Options {
    Options {
        filter: Filter::default(),
        latest: None,
        jobs: 3,
        grace: Duration::from_hours(24),
        dry_run: false,
    }
}

fn filtered(include: &[&str], exclude: &[&str], types: &[&str]) -> Options {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let filter = Filter::new(&owned(include), &owned(exclude), &owned(types)).unwrap();
    Options { filter, ..options() }
}

/// Mirrors a directory into `into`, whose own directory also keeps what was seen.
fn mirror(upstream: &Path, trust: &Trust, into: &Fixture, options: &Options) -> Result<Summary> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let remote = Remote::new(upstream.to_str().unwrap(), trust.clone(), None)?;
        let state = into.dir.path().join("state");
        let upstream = Upstream::open(remote, &state, &HttpOptions::default()).await?;
        mirror::run(&upstream, &into.stream, &signing(&into.key), options, &NoProgress).await
    })
}

fn pinned(tree: &Fixture) -> Trust {
    Trust::pin(&tree.stream.keyring().unwrap()).unwrap()
}

/// Product and serial of every image, one a line.
fn images(tree: &Fixture) -> Vec<String> {
    let listed = tree.stream.list(std::time::SystemTime::now()).unwrap();
    listed.iter().map(|image| format!("{} {}", image.product, image.serial)).collect()
}

fn lxc_index(tree: &Fixture) -> String {
    fs::read_to_string(tree.root().join("meta/1.0/index-system")).unwrap()
}

#[test]
fn a_stream_is_mirrored_by_filter_and_number_and_signed_anew() {
    let upstream = Fixture::new();
    for serial in ["20260101_0000", "20260102_0000", "20260103_0000"] {
        upstream.add(&Image::new(BOOKWORM, serial)).unwrap();
    }
    let sid = Image { squashfs: b"sid".to_vec(), ..Image::new(SID, "20260101_0000") };
    upstream.add(&sid).unwrap();
    upstream.add(&Image::new(TRIXIE, "20260101_0000")).unwrap();
    let copy = Fixture::new();
    let wanted = Options { latest: Some(2), ..filtered(&["debian/b*/amd64", "*/s?d"], &["*/trixie"], &[]) };

    let plan = Options { dry_run: true, ..wanted.clone() };
    assert_eq!(mirror(upstream.root(), &pinned(&upstream), &copy, &plan).unwrap().added.len(), 3);
    assert!(images(&copy).is_empty(), "a dry run changes nothing");

    let done = mirror(upstream.root(), &pinned(&upstream), &copy, &wanted).unwrap();
    assert_eq!((done.added.len(), done.failed.len(), done.present), (3, 0, 0), "{done:?}");
    let expected = [
        "debian:bookworm:amd64:default 20260103_0000",
        "debian:bookworm:amd64:default 20260102_0000",
        "debian:sid:amd64:default 20260101_0000",
    ];
    assert_eq!(images(&copy), expected);
    assert_eq!(copy.problems(), "", "every file, signature and reference is right");
    let file = "images/debian/bookworm/amd64/default/20260103_0000/rootfs.tar.xz";
    assert_eq!(fs::read(copy.root().join(file)).unwrap(), fs::read(upstream.root().join(file)).unwrap());

    // Nothing new: nothing is published.
    let before = snapshot(copy.root());
    let again = mirror(upstream.root(), &pinned(&upstream), &copy, &wanted).unwrap();
    assert_eq!((again.added.len(), again.present), (0, 3));
    assert!(before == snapshot(copy.root()), "a second run changed the tree");

    // A newer one comes, the oldest leaves; what upstream dropped stays.
    upstream.add(&Image::new(BOOKWORM, "20260104_0000")).unwrap();
    let gone = (SID.parse().unwrap(), "20260101_0000".parse().unwrap());
    upstream.stream.remove(&[gone], Duration::ZERO, &signing(&upstream.key)).unwrap();
    let newer = mirror(upstream.root(), &pinned(&upstream), &copy, &wanted).unwrap();
    assert_eq!((newer.added.len(), newer.pruned.retired.len()), (1, 1));
    let expected = [
        "debian:bookworm:amd64:default 20260104_0000",
        "debian:bookworm:amd64:default 20260103_0000",
        "debian:sid:amd64:default 20260101_0000",
    ];
    assert_eq!(images(&copy), expected);
    assert_eq!(copy.problems(), "");
}

#[test]
fn unified_archives_come_along_and_are_made_where_that_is_asked_for() {
    let upstream = Fixture::new();
    let brings = Image { unified: "unified.tar.zst", ..Image::new(BOOKWORM, "20260101_0000") };
    upstream.add(&brings).unwrap();
    upstream.add(&Image::new(SID, "20260101_0000")).unwrap();
    // Made by upstream, so in its documents and not in the manifest.
    let made = Image::new("debian:trixie:amd64:default", "20260101_0000");
    let stream = upstream.stream.clone().with_unified(true);
    stream.add(&upstream.build(&made), &signing(&upstream.key)).unwrap();
    let mut copy = Fixture::new();
    copy.stream = copy.stream.with_unified(true);
    let done = mirror(upstream.root(), &pinned(&upstream), &copy, &options()).unwrap();
    assert_eq!((done.added.len(), done.failed.len()), (3, 0), "{done:?}");
    let file = |release: &str, name: &str| {
        copy.root().join(format!("images/debian/{release}/amd64/default/20260101_0000/unified.tar.{name}"))
    };
    assert!(
        file("bookworm", "zst").exists() && !file("bookworm", "xz").exists() && file("sid", "xz").exists()
    );
    assert_eq!(copy.problems(), "");
    let map = fs::read_to_string(copy.root().join(".documents/current/direct/debian.map")).unwrap();
    assert!(map.contains("bookworm/x86_64 ") && map.contains("sid/x86_64 "), "{map}");
    let plain = Fixture::new();
    mirror(upstream.root(), &pinned(&upstream), &plain, &options()).unwrap();
    for (release, name, there) in [("bookworm", "zst", true), ("sid", "xz", false), ("trixie", "xz", true)] {
        let path = file(release, name).strip_prefix(copy.root()).unwrap().to_owned();
        assert_eq!(plain.root().join(path).exists(), there, "{release}");
    }
    assert_eq!(plain.problems(), "");
    let only = Fixture::new();
    mirror(upstream.root(), &pinned(&upstream), &only, &filtered(&[], &[], &["rootfs"])).unwrap();
    let unified = file("bookworm", "zst").strip_prefix(copy.root()).unwrap().to_owned();
    assert!(!only.root().join(unified).exists());
    assert_eq!(only.problems(), "");
}

#[test]
fn types_choose_the_root_file_systems() {
    let upstream = Fixture::new();
    let image = Image { squashfs: b"data".to_vec(), ..Image::new(BOOKWORM, "20260101_0000") };
    upstream.add(&image).unwrap();
    let copy = Fixture::new();
    mirror(upstream.root(), &pinned(&upstream), &copy, &filtered(&[], &[], &["squashfs"])).unwrap();
    let dir = copy.root().join("images/debian/bookworm/amd64/default/20260101_0000");
    assert!(dir.join("rootfs.squashfs").exists() && !dir.join("rootfs.tar.xz").exists());
    assert_eq!(copy.problems(), "");
    assert_eq!(lxc_index(&copy), "", "LXC has no use for it");
    assert!(copy.stream.list(std::time::SystemTime::now()).unwrap()[0].fingerprint.is_some());
}

/// A server of the field: unsigned, other names of versions, one client's metadata.
fn foreign(from: &Fixture, to: &Path) {
    let document = from.root().join("streams/v1/images-debian.json");
    let mut products = Products::parse(&fs::read(document).unwrap()).unwrap();
    products.content_id = "images".into();
    for entry in products.products.values_mut() {
        entry.versions = std::mem::take(&mut entry.versions)
            .into_iter()
            .map(|(serial, mut version)| {
                version.items.retain(|name, _| !["manifest.json", "lxd.tar.xz"].contains(&name.as_str()));
                (serial.replace('_', "_00:")[..14].to_owned(), version)
            })
            .collect();
    }
    let index = Index::parse(
        br#"{"format":"index:1.0","index":{"images":{"datatype":"image-downloads","path":"streams/v1/images.json","format":"products:1.0","products":["x"]}}}"#,
    )
    .unwrap();
    fs::create_dir_all(to.join("streams/v1")).unwrap();
    for (name, bytes) in [
        ("index.json", millstream_image::simplestreams::to_bytes(&index).unwrap()),
        ("images.json", millstream_image::simplestreams::to_bytes(&products).unwrap()),
    ] {
        fs::write(to.join("streams/v1").join(name), bytes).unwrap();
    }
    std::os::unix::fs::symlink(from.root().join("images"), to.join("images")).unwrap();
}

#[test]
fn unsigned_simplestreams_of_one_client_become_a_signed_tree() {
    let source = Fixture::new();
    source.add(&Image { squashfs: b"data".to_vec(), ..Image::new(BOOKWORM, "20260101_0000") }).unwrap();
    let upstream = tempfile::tempdir().unwrap();
    foreign(&source, upstream.path());
    let copy = Fixture::new();
    let signed = mirror(upstream.path(), &pinned(&source), &copy, &options());
    assert!(signed.is_err() && images(&copy).is_empty(), "unsigned is taken only when that was said");

    let done = mirror(upstream.path(), &Trust::InsecureNoSignature, &copy, &options()).unwrap();
    assert_eq!((done.added.len(), done.failed.len()), (1, 0), "{done:?}");
    assert_eq!(images(&copy), ["debian:bookworm:amd64:default 20260101_0000"]);
    assert_eq!(copy.problems(), "");
    assert_eq!(lxc_index(&copy), "", "what is missing is not invented");
    let dir = copy.root().join("images/debian/bookworm/amd64/default/20260101_0000");
    assert!(dir.join("incus.tar.xz").exists() && !dir.join("lxd.tar.xz").exists());
    // Documents made anew from what is there list it again.
    fs::write(copy.root().join("streams/v1/index.sjson"), "damaged").unwrap();
    millstream_server::stream::Stream::repair(copy.root(), &signing(&copy.key)).unwrap();
    assert_eq!((images(&copy).len(), copy.problems()), (1, String::new()));
}

#[test]
fn lxc_index_trees_become_a_signed_tree() {
    let source = Fixture::new();
    source.add(&Image::new(BOOKWORM, "20260101_0512")).unwrap();
    let upstream = tempfile::tempdir().unwrap();
    let dir = "images/debian/bookworm/amd64/default/20260101_05:12";
    fs::create_dir_all(upstream.path().join("meta/1.0")).unwrap();
    fs::create_dir_all(upstream.path().join(dir)).unwrap();
    let line = format!("debian;bookworm;amd64;default;20260101_05:12;/{dir}/\n");
    fs::write(upstream.path().join("meta/1.0/index-system"), line).unwrap();
    let from = source.root().join("images/debian/bookworm/amd64/default/20260101_0512");
    for name in ["rootfs.tar.xz", "meta.tar.xz"] {
        fs::copy(from.join(name), upstream.path().join(dir).join(name)).unwrap();
    }
    let copy = Fixture::new();
    // A colon is no part of a path in a tree of ours, and upstream's paths have one.
    let done = mirror(upstream.path(), &Trust::InsecureNoSignature, &copy, &options()).unwrap();
    assert_eq!((done.added.len(), done.failed.len()), (1, 0), "{done:?}");
    assert_eq!(copy.problems(), "");
    assert!(lxc_index(&copy).starts_with("debian;bookworm;amd64;default;20260101_0512;/images/"));
}

#[test]
fn whatever_is_wrong_upstream_the_tree_stays_whole_and_the_next_run_heals() {
    let upstream = Fixture::new();
    upstream.add(&Image::new(BOOKWORM, "20260101_0000")).unwrap();
    let copy = Fixture::new();
    mirror(upstream.root(), &pinned(&upstream), &copy, &options()).unwrap();
    upstream.add(&Image::new(BOOKWORM, "20260102_0000")).unwrap();
    upstream.add(&Image::new(TRIXIE, "20260102_0000")).unwrap();
    let dir = upstream.root().join("images/debian/bookworm/amd64/default/20260102_0000");
    for name in ["rootfs.tar.xz", "lxd.tar.xz", "manifest.json", "meta.tar.xz"] {
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        let damages: [Option<&[u8]>; 3] = [Some(&flipped), Some(&good[..good.len() / 2]), None];
        for damage in damages {
            fs::remove_file(&path).unwrap();
            if let Some(bytes) = damage {
                fs::write(&path, bytes).unwrap();
            }
            let done = mirror(upstream.root(), &pinned(&upstream), &copy, &options()).unwrap();
            assert_eq!(done.failed.len(), 1, "{name}: {done:?}");
            assert_eq!(images(&copy).len(), 2, "{name}: the other image came");
            assert_eq!(copy.problems(), "", "{name}");
            fs::write(&path, &good).unwrap();
        }
    }
    let done = mirror(upstream.root(), &pinned(&upstream), &copy, &options()).unwrap();
    assert_eq!((done.added.len(), done.failed.len()), (1, 0));
    assert_eq!(copy.problems(), "");
}

#[test]
fn an_older_signed_index_and_broken_documents_change_nothing() {
    let upstream = Fixture::new();
    upstream.add(&Image::new(BOOKWORM, "20260101_0000")).unwrap();
    let old = tempfile::tempdir().unwrap();
    let index = upstream.root().join("streams/v1/index.sjson");
    fs::copy(&index, old.path().join("old")).unwrap();
    upstream.add(&Image::new(BOOKWORM, "20260102_0000")).unwrap();
    let copy = Fixture::new();
    mirror(upstream.root(), &pinned(&upstream), &copy, &options()).unwrap();
    let before = snapshot(copy.root());
    let old = fs::read(old.path().join("old")).unwrap();
    let deep = [b"[".repeat(1 << 20)].concat();
    for bytes in [old.as_slice(), b"", b"{}", deep.as_slice()] {
        fs::remove_file(&index).unwrap();
        fs::write(&index, bytes).unwrap();
        assert!(mirror(upstream.root(), &pinned(&upstream), &copy, &options()).is_err());
        assert!(before == snapshot(copy.root()), "the tree changed");
    }
}
