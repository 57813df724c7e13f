use std::time::Duration;

use millstream_image::Sha256Digest;

use super::*;
use crate::query::ImageRef;

pub(super) fn record(text: &str) -> Record {
    let fingerprint = Fingerprint::of_split(&b"meta"[..], text.as_bytes()).unwrap();
    Record {
        fingerprint,
        metadata: "metadata.tar.xz".into(),
        rootfs: "rootfs.tar.xz".into(),
        size: 4 + text.len() as u64,
        properties: [("os".to_owned(), "Debian".to_owned())].into(),
        origin: None,
        created: DateTime::UNIX_EPOCH,
        stored: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        cached: false,
        auto_update: false,
        public: false,
        uncompressed: None,
    }
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(super) fn fill(staging: &Staging, text: &str) {
    fs::write(staging.dir().join("metadata.tar.xz"), "meta").unwrap();
    fs::write(staging.dir().join("rootfs.tar.xz"), text).unwrap();
}

pub(super) fn add(store: &Store, text: &str) -> StoredImage {
    let record = record(text);
    let staging = block_on(store.stage(record.fingerprint)).unwrap().unwrap();
    fill(&staging, text);
    fs::write(staging.dir().join(".tmp-left-by-a-kill"), "x").unwrap();
    store.commit(staging, &record).unwrap()
}

pub(super) fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    (dir, store)
}

fn name(text: &str) -> ImageRef {
    text.parse().unwrap()
}

#[test]
fn images_come_stay_and_go() {
    let (_dir, store) = open();
    let image = add(&store, "root");
    assert_eq!(store.verify(&image).map_err(|e| e.to_string()), Ok(()));
    assert_eq!(fs::read_dir(image.rootfs.parent().unwrap()).unwrap().count(), 3, "and no temporary file");
    assert_eq!(Store::open(store.dir()).unwrap().list().unwrap(), std::slice::from_ref(&image));
    assert!(block_on(store.stage(image.fingerprint)).unwrap().is_none(), "it is here already");
    store.delete(image.fingerprint).unwrap();
    assert!(store.list().unwrap().is_empty() && !image.rootfs.exists());
    assert_eq!(fs::read_dir(store.dir().join(TRASH)).unwrap().count(), 0);
}

#[test]
fn export_is_exact() {
    let (dir, store) = open();
    let image = add(&store, "root");
    let files = store.export(&image, &dir.path().join("out")).unwrap();
    assert_eq!(fs::read_to_string(&files[0]).unwrap(), "meta");
    assert_eq!(fs::read_to_string(&files[1]).unwrap(), "root");
    assert!(files[0].ends_with("out/lxd.tar.xz") && files[1].ends_with("out/rootfs.tar.xz"));
}

#[test]
fn names_find_images() {
    let (_dir, store) = open();
    let image = add(&store, "root");
    let alias: Alias = "my/image".parse().unwrap();
    store.add_alias(&alias, image.fingerprint, false).unwrap();
    for text in ["my/image", &image.fingerprint.to_string(), &image.fingerprint.to_string()[..6]] {
        assert_eq!(store.resolve(&name(text)).unwrap().fingerprint, image.fingerprint);
    }
    let error = store.resolve(&name("my/imgae")).unwrap_err().to_string();
    assert!(error.contains("did you mean my/image"), "{error}");
    assert_eq!(store.get(image.fingerprint).unwrap().unwrap().aliases, std::slice::from_ref(&alias));

    let other = add(&store, "other");
    assert!(store.add_alias(&alias, other.fingerprint, false).is_err());
    assert_eq!(store.aliases().unwrap()[&alias], image.fingerprint, "the old meaning stays");
    store.add_alias(&alias, other.fingerprint, true).unwrap();
    assert_eq!(store.aliases().unwrap()[&alias], other.fingerprint);
    store.delete(other.fingerprint).unwrap();
    assert!(store.aliases().unwrap().is_empty(), "aliases go with their image");
    assert!(store.remove_alias(&alias).is_err());
    let nowhere = Fingerprint::new(Sha256Digest::of(b"nothing"));
    assert!(store.add_alias(&alias, nowhere, false).is_err());
}

#[test]
fn names_and_properties_change() {
    let (_dir, store) = open();
    let (image, other) = (add(&store, "root"), add(&store, "other"));
    let [a, b, c]: [Alias; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
    store.add_alias(&a, image.fingerprint, false).unwrap();
    store.add_alias(&b, other.fingerprint, false).unwrap();
    assert!(store.rename_alias(&a, &b).unwrap_err().to_string().contains("delete it first"));
    store.rename_alias(&a, &c).unwrap();
    assert_eq!(store.aliases().unwrap(), [(c, image.fingerprint), (b.clone(), other.fingerprint)].into());
    assert!(store.rename_alias(&a, &b).is_err() && store.rename_alias(&a, &a).is_err());

    let set = |key: &str, value: &str| {
        let change =
            |properties: &mut BTreeMap<_, _>| drop(properties.insert(key.to_owned(), value.to_owned()));
        store.change_properties(image.fingerprint, change)
    };
    set("os", "Mine").unwrap();
    assert!(set("architecture", "arm64").is_err());
    assert_eq!(store.get(image.fingerprint).unwrap().unwrap().properties["os"], "Mine");
    // The row is lost, as after a kill: the directory says the same.
    store.index().remove(image.fingerprint).unwrap();
    let healed = Store::open(store.dir()).unwrap().get(image.fingerprint).unwrap().unwrap();
    assert_eq!(healed.properties["os"], "Mine");
    store.verify(&healed).unwrap();
}

const EXPIRY: chrono::TimeDelta = chrono::TimeDelta::days(10);

#[test]
fn newer_images_are_looked_for_where_and_when_that_is_due() {
    let (_dir, store) = open();
    let images = ["copied", "cached", "fixed", "looked"].map(|text| add(&store, text));
    for (image, cached, follows) in [
        (&images[0], false, true),
        (&images[1], true, true),
        (&images[2], false, false),
        (&images[3], false, true),
    ] {
        store.set_flags(image.fingerprint, cached, follows).unwrap();
    }
    let mut settings = crate::Settings::default();
    let due = |settings: &crate::Settings, hours: i64| {
        let now = images[0].stored + chrono::TimeDelta::hours(hours);
        let found = store.due(settings, now).unwrap().into_iter();
        let number =
            |found: StoredImage| images.iter().position(|i| i.fingerprint == found.fingerprint).unwrap();
        found.map(number).collect::<std::collections::BTreeSet<_>>()
    };
    store.note_look(images[3].fingerprint, images[3].stored + chrono::TimeDelta::hours(5)).unwrap();
    assert_eq!(due(&settings, 5), [].into());
    assert_eq!(due(&settings, 6), [0, 1].into());
    assert_eq!(due(&settings, 11), [0, 1, 3].into());
    settings.set("images.auto_update_cached", "false").unwrap();
    assert_eq!(due(&settings, 11), [0, 3].into());
    settings.set("images.auto_update_interval", "12").unwrap();
    assert_eq!(due(&settings, 12), [0].into());
    settings.set("images.auto_update_interval", "0").unwrap();
    assert_eq!(due(&settings, 99_999), [].into());
}

#[test]
fn only_cached_unused_nameless_images_expire() {
    let (_dir, store) = open();
    let images = ["kept", "named", "used", "running", "old"].map(|text| add(&store, text));
    let [_, named, used, running, old] = &images;
    for image in [named, used, running, old] {
        store.set_flags(image.fingerprint, true, false).unwrap();
    }
    store.add_alias(&"mine".parse().unwrap(), named.fingerprint, false).unwrap();
    let now = old.stored + EXPIRY + chrono::TimeDelta::hours(1);
    store.touch(used.fingerprint, now - chrono::TimeDelta::days(9)).unwrap();
    let in_use = [running.fingerprint].into();
    let expired = store.expired(&in_use, EXPIRY, now).unwrap();
    assert_eq!(expired.iter().map(|image| image.fingerprint).collect::<Vec<_>>(), [old.fingerprint]);
    assert!(store.expired(&in_use, EXPIRY, old.stored).unwrap().is_empty());
}

#[test]
fn flags_and_use_are_kept() {
    let (_dir, store) = open();
    let image = add(&store, "root");
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    store.touch(image.fingerprint, now).unwrap();
    store.set_flags(image.fingerprint, true, true).unwrap();
    let again = Store::open(store.dir()).unwrap().get(image.fingerprint).unwrap().unwrap();
    assert_eq!((again.last_used, again.cached, again.auto_update), (Some(now), true, true));
}

#[test]
fn arrival_cut_off_before_its_row_is_completed() {
    let (_dir, store) = open();
    let record = record("root");
    let staging = block_on(store.stage(record.fingerprint)).unwrap().unwrap();
    fill(&staging, "root");
    staging.put_record(&record).unwrap();
    fs::rename(staging.dir(), store.path(record.fingerprint)).unwrap();
    assert!(
        Store::open(store.dir()).unwrap().list().unwrap().is_empty(),
        "its process lives: not ours to do"
    );
    let other = Store::open(store.dir()).unwrap();
    let stage = async |time: u64| {
        tokio::time::timeout(Duration::from_millis(time), other.stage(record.fingerprint)).await
    };
    assert!(block_on(stage(200)).is_err(), "another process waits for the one that is placing it");
    drop(staging);
    assert!(block_on(stage(5000)).unwrap().unwrap().is_none(), "and takes over where that one died");
    other.index().remove(record.fingerprint).unwrap();
    let healed = Store::open(store.dir()).unwrap().list().unwrap();
    assert_eq!(healed.len(), 1);
    store.verify(&healed[0]).unwrap();
}

#[test]
fn departure_cut_off_before_its_row_went_is_completed() {
    let (dir, store) = open();
    let image = add(&store, "root");
    fs::rename(store.path(image.fingerprint), dir.path().join("gone")).unwrap();
    assert!(Store::open(store.dir()).unwrap().list().unwrap().is_empty());
}

#[test]
fn damage_is_found_and_foreign_records_are_not_believed() {
    let (_dir, store) = open();
    let image = add(&store, "root");
    fs::write(&image.rootfs, "r00t").unwrap();
    let out = store.dir().join("../out");
    assert!(store.export(&image, &out).is_err());
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "nothing of a damaged image goes out");
    assert!(store.verify(&image).unwrap_err().to_string().contains("hash to"));

    let dir = store.path(Fingerprint::new(Sha256Digest::of(b"x")));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(RECORD), serde_json::to_vec(&record("root")).unwrap()).unwrap();
    let fingerprint = Fingerprint::new(Sha256Digest::of(b"x"));
    let again = Store::open(store.dir()).unwrap();
    assert_eq!(again.list().unwrap().len(), 1, "the others can be used");
    let error = block_on(again.stage(fingerprint)).unwrap_err().to_string();
    assert!(error.contains("does not describe") && error.contains("store check --repair"), "{error}");
}

#[test]
fn a_newer_format_is_left_alone() {
    let (_dir, store) = open();
    let db = rusqlite::Connection::open(store.dir().join("images.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    assert!(Store::open(store.dir()).unwrap_err().to_string().contains("newer"));
}
