//! What adding an image to a stream does, and what it refuses.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use millstream_image::simplestreams::{Index, Products};
use millstream_server::Error;
use millstream_server::stream::{Signing, Stream};
use support::{Fixture, Image, new_key, signing, snapshot};

const DAY: Duration = Duration::from_hours(24);
const PRODUCT: &str = "debian:bookworm:amd64:default";
const SERIAL: &str = "20260101_0000";

fn image() -> Image {
    Image { release_aliases: vec!["12".into()], ..Image::new(PRODUCT, SERIAL) }
}

fn index(root: &Path) -> Index {
    Index::parse(&fs::read(root.join("streams/v1/index.json")).unwrap()).unwrap()
}

fn products(root: &Path) -> Products {
    Products::parse(&fs::read(root.join("streams/v1/images-debian.json")).unwrap()).unwrap()
}

#[test]
fn added_image_is_listed_as_clients_read_it() {
    let tree = Fixture::new();
    let added = tree.add(&image()).unwrap();
    assert!(added.new);
    assert_eq!(tree.problems(), "");
    let products = products(tree.root());
    let product = &products.products[PRODUCT];
    assert_eq!(product.aliases, "debian/bookworm/default,debian/bookworm,debian/12/default,debian/12");
    assert_eq!((product.arch.as_str(), product.os.as_str()), ("amd64", "Debian"));
    let items = &product.versions[SERIAL].items;
    let dir = format!("images/debian/bookworm/amd64/default/{SERIAL}");
    assert_eq!(items["root.tar.xz"].path, format!("{dir}/rootfs.tar.xz"));
    assert!(items["root.tar.xz"].sha256_uncompressed.is_some());
    let fingerprint = millstream_image::Fingerprint::of_split(
        fs::File::open(tree.root().join(&dir).join("lxd.tar.xz")).unwrap(),
        fs::File::open(tree.root().join(&dir).join("rootfs.tar.xz")).unwrap(),
    );
    assert_eq!(added.fingerprint, Some(fingerprint.unwrap()));
    for name in ["lxd.tar.xz", "incus.tar.xz"] {
        assert_eq!(items[name].combined_sha256, added.fingerprint.map(|f| f.digest()));
        assert_eq!(items[name].combined_rootxz_sha256, items[name].combined_sha256);
    }
    let line = format!("debian;bookworm;amd64;default;{SERIAL};/{dir}/\n");
    for name in ["index-system", "index-user", "index-system.7", "index-user.1"] {
        assert_eq!(fs::read_to_string(tree.root().join("meta/1.0").join(name)).unwrap(), line);
    }
}

/// gpg, which shares no code with us, accepts every signature in the tree.
#[test]
fn gpg_verifies_every_signature() {
    let tree = Fixture::new();
    tree.add(&image()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let gpg = |args: &[&str]| {
        let out = Command::new("gpg").arg("--homedir").arg(home.path()).arg("--batch").args(args).output();
        let out = out.expect("gpg is needed");
        assert!(out.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let _ = fs::set_permissions(home.path(), Permissions::from_mode(0o700));
    gpg(&["--import", tree.root().join("key.asc").to_str().unwrap()]);
    let mut checked = 0;
    for path in snapshot(tree.root()).keys().map(|path| tree.root().join(path)) {
        let text = path.to_str().unwrap();
        let said = match path.extension().and_then(|e| e.to_str()) {
            Some("sjson") => gpg(&["--verify", text]),
            Some("asc" | "gpg") if !text.ends_with("key.asc") => {
                gpg(&["--verify", text, path.with_extension("").to_str().unwrap()])
            }
            _ => continue,
        };
        assert!(said.contains(tree.key.fingerprint().as_str()), "{said}");
        checked += 1;
    }
    assert!(checked >= 2 * 2 + 2 * 16 + 3, "only {checked} signatures found");
    let _ = Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
}

#[test]
fn same_image_again_changes_nothing() {
    let tree = Fixture::new();
    let first = tree.add(&image()).unwrap();
    let before = snapshot(tree.root());
    let again = tree.add(&image()).unwrap();
    assert!(!again.new);
    assert_eq!(again.fingerprint, first.fingerprint);
    assert!(snapshot(tree.root()) == before);
}

#[test]
fn other_bytes_under_a_published_serial_are_refused() {
    let tree = Fixture::new();
    tree.add(&image()).unwrap();
    let before = snapshot(tree.root());
    let error = tree.add(&Image { content: "other".into(), ..image() }).unwrap_err();
    assert!(error.to_string().contains("another image as debian:bookworm:amd64:default"), "{error}");
    assert!(snapshot(tree.root()) == before);
}

#[test]
fn two_images_cannot_share_a_fingerprint() {
    let tree = Fixture::new();
    tree.add(&image()).unwrap();
    let before = snapshot(tree.root());
    let twin = Image { product: "debian:bookworm:amd64:twin".into(), ..image() };
    let error = tree.add(&twin).unwrap_err();
    assert!(error.to_string().contains("same fingerprint"), "{error}");
    assert!(snapshot(tree.root()) == before);
}

/// Whatever is wrong with an image, the tree stays as it was, byte for byte, and nothing of the
/// image stays in staging.
#[test]
fn damaged_images_are_refused_and_leave_no_trace() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 8] = [
        ("flipped byte", |d| flip(&d.join("rootfs.tar.xz")), "rootfs.tar.xz is"),
        ("flipped byte in meta", |d| flip(&d.join("meta.tar.xz")), "meta.tar.xz"),
        ("missing file", |d| fs::remove_file(d.join("lxd.tar.xz")).unwrap(), "lxd.tar.xz is missing"),
        ("missing manifest", |d| fs::remove_file(d.join("manifest.json")).unwrap(), "no manifest.json"),
        ("broken manifest", |d| fs::write(d.join("manifest.json"), "{").unwrap(), "manifest.json"),
        (
            "contradicting sums",
            |d| {
                let text = fs::read_to_string(d.join("SHA256SUMS")).unwrap();
                fs::write(d.join("SHA256SUMS"), text.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
            },
            "contradict each other",
        ),
        (
            "file name that leads elsewhere",
            |d| {
                let text = fs::read_to_string(d.join("manifest.json")).unwrap();
                let digest = "0".repeat(64);
                let file = format!("\"files\": {{\"../x\": {{\"size\": 1, \"sha256\": \"{digest}\"}},");
                fs::write(d.join("manifest.json"), text.replacen("\"files\": {", &file, 1)).unwrap();
            },
            "a file named \"../x\"",
        ),
        (
            "link for a file",
            |d| {
                fs::rename(d.join("rootfs.tar.xz"), d.join("elsewhere")).unwrap();
                std::os::unix::fs::symlink("elsewhere", d.join("rootfs.tar.xz")).unwrap();
            },
            "not a plain file",
        ),
    ];
    let tree = Fixture::new();
    let before = snapshot(tree.root());
    for (name, damage, expected) in cases {
        let dir = tree.build(&image());
        damage(&dir);
        let error = tree.stream.add(&dir, &signing(&tree.key)).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(snapshot(tree.root()) == before, "{name}");
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn image_that_lxc_could_not_start_is_refused() {
    let tree = Fixture::new();
    let error = tree.add(&Image { config: " \n".into(), ..image() }).unwrap_err();
    assert!(error.to_string().contains("holds no config"), "{error}");
}

#[test]
fn image_whose_metadata_means_another_architecture_is_refused() {
    let tree = Fixture::new();
    let error = tree.add(&Image { kernel_architecture: "aarch64".into(), ..image() }).unwrap_err();
    assert!(error.to_string().contains("is for aarch64"), "{error}");
}

#[test]
fn newest_image_says_what_the_product_is_called() {
    let tree = Fixture::new();
    tree.add(&Image { release_aliases: vec!["12".into()], ..Image::new(PRODUCT, "20260102_0000") }).unwrap();
    tree.add(&Image { release_aliases: vec!["old".into()], ..Image::new(PRODUCT, "20260101_0000") }).unwrap();
    let listed = tree.stream.list(SystemTime::now()).unwrap();
    let newest: Vec<_> = listed.iter().map(|image| (image.serial.to_string(), image.newest)).collect();
    assert_eq!(newest, [("20260102_0000".to_owned(), true), ("20260101_0000".to_owned(), false)]);
    assert!(listed[0].aliases.contains(&"debian/12".to_owned()));
    assert!(!listed[0].aliases.contains(&"debian/old".to_owned()));
    let lxc = fs::read_to_string(tree.root().join("meta/1.0/index-system")).unwrap();
    assert!(lxc.contains(";20260102_0000;") && lxc.lines().count() == 1, "{lxc}");
}

#[test]
fn alias_moves_to_the_product_that_claims_it_last() {
    let tree = Fixture::new();
    let stable =
        |product: &str| Image { release_aliases: vec!["stable".into()], ..Image::new(product, SERIAL) };
    tree.add(&stable("debian:bookworm:amd64:default")).unwrap();
    tree.add(&stable("debian:bookworm:arm64:default")).unwrap();
    let moved = tree.add(&stable("debian:trixie:amd64:default")).unwrap().moved_aliases;
    let moved: Vec<_> = moved.iter().map(|(alias, from)| format!("{alias} {from}")).collect();
    let from = "debian:bookworm:amd64:default";
    assert_eq!(moved, [format!("debian/stable/default {from}"), format!("debian/stable {from}")]);
    let products = products(tree.root());
    assert!(!products.products[from].aliases.contains("stable"));
    assert!(products.products["debian:bookworm:arm64:default"].aliases.contains("stable"));
    assert!(products.products["debian:trixie:amd64:default"].aliases.contains("stable"));
}

#[test]
fn renewed_documents_expire_later_and_list_the_same() {
    let tree = Fixture::new();
    tree.add(&image()).unwrap();
    let (before, images) =
        (index(tree.root()), fs::read(tree.root().join("streams/v1/images-debian.json")).unwrap());
    let now = SystemTime::now() + DAY;
    let renew = Signing { key: &tree.key, now, validity: Some(7 * DAY) };
    let expires = tree.stream.sign(&renew).unwrap();
    assert_eq!(SystemTime::from(expires), now + 7 * DAY);
    assert_eq!(fs::read(tree.root().join("streams/v1/images-debian.json")).unwrap(), images);
    let (old, new) = (before.millstream.unwrap(), index(tree.root()).millstream.unwrap());
    assert_eq!(new.generation, old.generation + 1);
    // And the validity stays what it was set to.
    let expires = tree.stream.sign(&Signing { key: &tree.key, now, validity: None }).unwrap();
    assert_eq!(SystemTime::from(expires), now + 7 * DAY);
}

#[test]
fn time_of_publication_never_goes_back() {
    let tree = Fixture::new();
    let late = SystemTime::now() + Duration::from_mins(3);
    tree.stream.sign(&Signing { key: &tree.key, now: late, validity: None }).unwrap();
    let first = index(tree.root()).millstream.unwrap();
    tree.stream.sign(&signing(&tree.key)).unwrap();
    let second = index(tree.root()).millstream.unwrap();
    assert!(second.created >= first.created && second.generation > first.generation);
    tree.stream.sign(&Signing { key: &tree.key, now: late + 5 * DAY, validity: None }).unwrap();
    let error = tree.stream.sign(&signing(&tree.key)).unwrap_err();
    assert!(
        error.to_string().contains("no good signature") || error.to_string().contains("clock"),
        "{error}"
    );
}

/// A reader that fetched an index just before a publication still finds what it lists.
#[test]
fn replaced_product_documents_stay_for_a_day() {
    let tree = Fixture::new();
    let by_hash = |index: &Index| tree.root().join(index.index["images:debian"].by_hash.as_ref().unwrap());
    let start = SystemTime::now();
    tree.add(&Image::new(PRODUCT, "20251231_0000")).unwrap();
    let old = by_hash(&index(tree.root()));
    tree.add(&image()).unwrap();
    let new = by_hash(&index(tree.root()));
    assert!(old.exists() && new.exists() && old != new);
    tree.stream.sign(&Signing { key: &tree.key, now: start + DAY / 2, validity: None }).unwrap();
    assert!(old.exists());
    tree.stream.sign(&Signing { key: &tree.key, now: start + DAY + DAY / 2, validity: None }).unwrap();
    assert!(!old.exists(), "the grace period is over");
    assert!(new.exists(), "the present one stays however old it is");
}

/// Work for one distribution is no work for the others: theirs are the same files, not copies.
#[test]
fn each_distribution_has_documents_of_its_own() {
    let tree = Fixture::new();
    tree.add(&image()).unwrap();
    let file = |name: &str| tree.root().join(name).metadata().map(|meta| meta.ino());
    let before = ["streams/v1/images-debian.json", "streams/v1/images-debian.sjson", "pages/debian.html"]
        .map(|name| (name, file(name).unwrap()));
    tree.add(&Image::new("alpine:3.22:amd64:default", SERIAL)).unwrap();
    for (name, inode) in before {
        assert_eq!(file(name).unwrap(), inode, "{name}");
    }
    let entries = index(tree.root()).index;
    assert_eq!(entries.keys().collect::<Vec<_>>(), ["images:alpine", "images:debian"]);
    assert_eq!(entries["images:alpine"].products, ["alpine:3.22:amd64:default"]);
    let lxc = fs::read_to_string(tree.root().join("meta/1.0/index-system")).unwrap();
    let names: Vec<_> = lxc.lines().map(|line| line.split(';').next().unwrap()).collect();
    assert_eq!(names, ["alpine", "debian"]);
    let page = fs::read_to_string(tree.root().join("index.html")).unwrap();
    assert!(page.contains("3.22") && page.contains("bookworm"));
    assert!(!fs::read_to_string(tree.root().join("pages/debian.html")).unwrap().contains("alpine"));
    assert_eq!(tree.problems(), "");
    let last = ("alpine:3.22:amd64:default".parse().unwrap(), SERIAL.parse().unwrap());
    tree.stream.remove(&[last], Duration::ZERO, &signing(&tree.key)).unwrap();
    assert_eq!(index(tree.root()).index.len(), 1);
    assert!(file("streams/v1/images-alpine.json").is_err() && file("pages/alpine.html").is_err());
    assert_eq!(tree.problems(), "");
}

#[test]
fn documents_changed_behind_the_key_are_not_built_upon() {
    for name in ["images-debian.json", "index.sjson"] {
        let tree = Fixture::new();
        tree.add(&image()).unwrap();
        let path = tree.root().join("streams/v1").join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("bookworm", "bookwoorm")).unwrap();
        let error = tree.add(&Image::new(PRODUCT, "20260102_0000")).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(!tree.root().join("images/debian/bookworm/amd64/default/20260102_0000").exists());
    }
}

#[test]
fn another_key_is_refused() {
    let tree = Fixture::new();
    let other = new_key();
    let error = tree.stream.sign(&signing(&other)).unwrap_err();
    assert!(error.to_string().contains(tree.key.fingerprint().as_str()), "{error}");
    assert!(Stream::init(tree.root(), &signing(&other)).is_err());
}

#[test]
fn init_takes_an_empty_directory_or_an_unfinished_stream_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let key = new_key();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let error = Stream::init(dir.path(), &signing(&key)).unwrap_err();
    assert!(error.to_string().contains("letter.txt"), "{error}");
    assert_eq!(snapshot(dir.path()).len(), 1, "nothing was made");
    fs::remove_file(dir.path().join("letter.txt")).unwrap();
    fs::create_dir_all(dir.path().join(".documents/1/streams")).unwrap();
    let (stream, new) = Stream::init(dir.path(), &signing(&key)).unwrap();
    assert!(new && stream.verify(SystemTime::now()).unwrap().problems.is_empty());
    assert!(!Stream::init(dir.path(), &signing(&key)).unwrap().1);
}

#[test]
fn directory_that_is_no_stream_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Stream::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Tree { .. }) && error.to_string().contains("stream init"), "{error}");
    assert!(Stream::open(&dir.path().join("missing")).is_err());
}

#[test]
fn tree_of_somebody_else_is_refused_in_one_line() {
    let tree = Fixture::new();
    let me = fs::metadata(tree.root()).unwrap().uid();
    assert_eq!(me, 0, "this test gives a directory away, which needs root");
    chown(tree.root(), Some(12_345), None).unwrap();
    let error = tree.add(&image()).unwrap_err().to_string();
    assert!(error.contains("belongs to user id 12345") && error.lines().count() == 1, "{error}");
}

/// A file of mode 0600, or one somebody else could still write to, is copied; the tree's files are
/// readable whatever the umask.
#[test]
fn private_files_are_copied_and_readable_in_the_tree() {
    let tree = Fixture::new();
    let dir = tree.build(&image());
    let private = dir.join("rootfs.tar.xz");
    fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
    let added = tree.stream.add(&dir, &signing(&tree.key)).unwrap();
    let published = fs::metadata(added.path.join("rootfs.tar.xz")).unwrap();
    assert_eq!(published.mode() & 0o777, 0o644);
    assert_ne!(published.ino(), fs::metadata(&private).unwrap().ino());
    assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o600, "the builder's file is as it was");
}

#[test]
fn page_shows_images_and_escapes_them() {
    let tree = Fixture::new();
    let empty = fs::read_to_string(tree.root().join("index.html")).unwrap();
    assert!(empty.contains("No images yet"));
    let dir = tree.build(&image());
    let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
    fs::write(dir.join("manifest.json"), text.replace("\"Debian\"", "\"<script>alert(1)</script>\""))
        .unwrap();
    tree.stream.add(&dir, &signing(&tree.key)).unwrap();
    let page = fs::read_to_string(tree.root().join("index.html")).unwrap();
    assert!(page.contains("<code>debian&#x2F;bookworm</code>"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "{page}");
    assert!(page.contains(&format!("{SERIAL}/index.html\">{SERIAL}</a>")), "{page}");
}
