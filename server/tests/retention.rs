//! Images leave a stream: out of the documents at once, off the disk after a grace period.

mod support;

use std::fs;
use std::time::{Duration, SystemTime};

use millstream_server::stream::{Retention, Selector};
use support::{Fixture, Image, signing, snapshot};

const PRODUCT: &str = "debian:bookworm:amd64:default";
const OTHER: &str = "debian:trixie:amd64:default";

const DAY: Duration = Duration::from_hours(24);
const TWO: Retention = Retention { newest: Some(2), days: None };

fn serial(day: u32) -> String {
    format!("202601{day:02}_0000")
}

fn tree() -> Fixture {
    let tree = Fixture::new();
    for day in 1..=4 {
        tree.add(&Image::new(PRODUCT, &serial(day))).unwrap();
    }
    tree.add(&Image::new(OTHER, &serial(1))).unwrap();
    tree
}

fn serials(tree: &Fixture, product: &str) -> Vec<String> {
    let listed = tree.stream.list(SystemTime::now()).unwrap();
    let of = listed.iter().filter(|image| image.product.to_string() == product);
    of.map(|image| image.serial.to_string()).collect()
}

fn directory(tree: &Fixture, day: u32) -> std::path::PathBuf {
    tree.root().join("images/debian/bookworm/amd64/default").join(serial(day))
}

#[test]
fn old_images_leave_documents_at_once_and_the_disk_after_the_grace_period() {
    let tree = tree();
    let now = SystemTime::now();
    let done = tree.stream.prune(TWO, DAY, &signing(&tree.key)).unwrap();
    assert_eq!(done.retired.len(), 2);
    assert_eq!((done.removed.len(), done.orphans.len()), (0, 0));
    assert_eq!(serials(&tree, PRODUCT), [serial(4), serial(3)]);
    assert_eq!(serials(&tree, OTHER), [serial(1)], "the newest of every product stays");
    let index = fs::read_to_string(tree.root().join("streams/v1/images-debian.json")).unwrap();
    assert!(index.contains(&serial(3)) && !index.contains(&serial(2)));
    assert!(directory(&tree, 1).join("rootfs.tar.xz").exists(), "a download under way may finish");
    assert_eq!(tree.problems(), "", "what is on its way out is no stray");

    // Not yet.
    let mut later = signing(&tree.key);
    later.now = now + DAY / 2;
    assert_eq!(tree.stream.prune(TWO, DAY, &later).unwrap().removed.len(), 0);
    assert!(directory(&tree, 1).exists());

    later.now = now + DAY + Duration::from_mins(1);
    let done = tree.stream.prune(TWO, DAY, &later).unwrap();
    assert_eq!(done.removed.len(), 2);
    assert!(done.freed > 1000);
    assert!(!directory(&tree, 1).exists() && !directory(&tree, 2).exists() && directory(&tree, 3).exists());
    assert_eq!(tree.problems(), "");
}

#[test]
fn the_next_publication_frees_what_is_due() {
    let tree = tree();
    tree.stream.prune(TWO, Duration::ZERO, &signing(&tree.key)).unwrap();
    assert!(!directory(&tree, 1).exists(), "no grace, no waiting");
    let keep_one = Retention { newest: Some(1), days: None };
    tree.stream.prune(keep_one, DAY, &signing(&tree.key)).unwrap();
    assert!(directory(&tree, 3).exists());
    let built = tree.build(&Image::new(PRODUCT, &serial(5)));
    let mut later = signing(&tree.key);
    later.now += DAY + Duration::from_mins(1);
    tree.stream.add(&built, &later).unwrap();
    assert!(!directory(&tree, 3).exists(), "not one run late");
}

#[test]
fn a_dry_run_tells_the_same_and_changes_nothing() {
    let tree = tree();
    fs::create_dir_all(tree.root().join("images/debian/sid/amd64/default/20260101_0000")).unwrap();
    let before = snapshot(tree.root());
    let plan = tree.stream.plan_prune(TWO, SystemTime::now()).unwrap();
    assert_eq!(snapshot(tree.root()), before);
    let done = tree.stream.prune(TWO, DAY, &signing(&tree.key)).unwrap();
    assert_eq!(plan, done);
    assert_eq!(done.orphans.len(), 1);
}

#[test]
fn orphans_get_the_grace_period_too() {
    let tree = tree();
    let orphan = tree.root().join("images/debian/sid/amd64/default/20260101_0000");
    fs::create_dir_all(&orphan).unwrap();
    fs::write(orphan.join("rootfs.tar.xz"), "left by hand").unwrap();
    assert!(tree.problems().contains("no document lists it"));
    let all = Retention::default();
    assert_eq!(tree.stream.prune(all, DAY, &signing(&tree.key)).unwrap().orphans.len(), 1);
    assert!(orphan.exists());
    let mut later = signing(&tree.key);
    later.now += DAY + Duration::from_mins(1);
    assert_eq!(tree.stream.prune(all, DAY, &later).unwrap().removed.len(), 1);
    assert!(!tree.root().join("images/debian/sid").exists(), "empty directories go as well");
    assert_eq!(serials(&tree, PRODUCT).len(), 4);
}

/// The entry is written first: cut off after it, nothing has happened, and listing counts.
#[test]
fn an_image_that_documents_list_is_never_removed() {
    let tree = tree();
    let retired =
        format!("{{\"images/debian/bookworm/amd64/default/{}\": \"2026-01-01T00:00:00Z\"}}", serial(1));
    fs::write(tree.root().join(".retired"), retired).unwrap();
    tree.stream.prune(Retention::default(), DAY, &signing(&tree.key)).unwrap();
    assert!(directory(&tree, 1).exists());
    assert_eq!(fs::read_to_string(tree.root().join(".retired")).unwrap(), "{}", "and it is forgotten");
}

#[test]
fn the_list_of_the_retired_cannot_lead_elsewhere() {
    let tree = tree();
    for path in ["images/../../x", "/etc", "images", "images/debian/bookworm"] {
        let text = format!("{{\"{path}\": \"2026-01-01T00:00:00Z\"}}");
        fs::write(tree.root().join(".retired"), text).unwrap();
        let error = tree.stream.prune(TWO, Duration::ZERO, &signing(&tree.key)).unwrap_err();
        assert!(error.to_string().contains("is no image"), "{error}");
    }
}

#[test]
fn single_images_are_found_by_every_name_and_removed() {
    let tree = tree();
    let now = SystemTime::now();
    let find = |text: &str| {
        let Ok(selector) = text.parse::<Selector>();
        tree.stream.find(&selector, now)
    };
    let first = find(&format!("debian/bookworm/amd64/default/{}", serial(1))).unwrap();
    assert_eq!(first.serial.to_string(), serial(1));
    for name in [
        format!("{PRODUCT}:{}", serial(1)),
        format!("images/debian/bookworm/amd64/default/{}/", serial(1)),
        first.fingerprint.unwrap().short(),
    ] {
        assert_eq!(find(&name).unwrap(), first, "{name}");
    }
    for name in ["debian/bookworm", PRODUCT, "debian/bookworm/amd64/default"] {
        assert_eq!(find(name).unwrap().serial.to_string(), serial(4), "{name}: the newest");
    }
    assert!(find("debian/sid").unwrap_err().to_string().contains("it has no image \"debian/sid\""));
    assert!(find("").is_err());
    let done =
        tree.stream.remove(&[(first.product, first.serial)], Duration::ZERO, &signing(&tree.key)).unwrap();
    assert_eq!((done.retired.len(), done.removed.len()), (1, 1));
    assert_eq!(serials(&tree, PRODUCT), [serial(4), serial(3), serial(2)]);
    let gone = (PRODUCT.parse().unwrap(), serial(1).parse().unwrap());
    let both = [(OTHER.parse().unwrap(), serial(1).parse().unwrap()), gone];
    assert!(tree.stream.remove(&both, Duration::ZERO, &signing(&tree.key)).is_err());
    assert_eq!(serials(&tree, OTHER), [serial(1)], "one wrong name, nothing removed");
    assert_eq!(tree.problems(), "");
}

#[test]
fn the_last_image_of_a_product_takes_the_product_along() {
    let tree = tree();
    let only = (OTHER.parse().unwrap(), serial(1).parse().unwrap());
    tree.stream.remove(&[only], Duration::ZERO, &signing(&tree.key)).unwrap();
    assert!(
        !fs::read_to_string(tree.root().join("streams/v1/images-debian.json")).unwrap().contains("trixie")
    );
    assert!(!tree.root().join("images/debian/trixie").exists());
    assert_eq!(tree.problems(), "");
}
