//! Each kind of damage is found, and only that; it is healed, and then nothing is left to find.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use millstream_image::archive::{Member, PackOptions, pack_members};
use millstream_image::{Alias, Fingerprint, Sha256Digest};
use rusqlite::Connection;

use super::super::compressed::{BASE, DELTA, UNCOMPRESSED};
use super::super::tests::{add, block_on, fill, open, record};
use super::super::{DATABASE, LOST, RECORD, Record, STAGING, Store, StoredImage, TRASH, lost};
use crate::problem::{Kind, Mender, Problem};

/// Two images, one with a name.
struct Bench {
    _dir: tempfile::TempDir,
    dir: PathBuf,
    bad: StoredImage,
    good: StoredImage,
}

fn bench() -> Bench {
    let (keep, store) = open();
    let (bad, good) = (add(&store, "root"), add(&store, "good"));
    store.add_alias(&"mine".parse().unwrap(), bad.fingerprint, false).unwrap();
    let now = DateTime::<Utc>::from_timestamp(1_800_000_000, 0).unwrap();
    store.touch(good.fingerprint, now).unwrap();
    store.set_flags(good.fingerprint, true, true).unwrap();
    store.add_alias(&"other".parse().unwrap(), good.fingerprint, false).unwrap();
    let good = store.get(good.fingerprint).unwrap().unwrap();
    Bench { dir: store.dir().to_owned(), _dir: keep, bad, good }
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(self.bad.fingerprint.to_string()).join(name)
    }

    fn look(&self, repair: bool) -> Vec<Problem> {
        let mut mender = Mender::new(repair);
        super::check(&self.dir, &mut mender).unwrap();
        mender.report.problems
    }

    /// Exactly these kinds are found; looking changes nothing; healing leaves nothing to find, and the
    /// other image as it was. Gives what was found while healing.
    #[track_caller]
    fn finds(&self, kinds: &[Kind]) -> Vec<Problem> {
        let kinds_of = |problems: &[Problem]| problems.iter().map(|p| p.kind).collect::<Vec<_>>();
        for _ in 0..2 {
            let found = self.look(false);
            assert_eq!(kinds_of(&found), kinds, "{found:#?}");
            assert!(found.iter().all(|problem| problem.repaired.is_none()));
        }
        let found = self.look(true);
        assert_eq!(kinds_of(&found), kinds, "{found:#?}");
        assert!(found.iter().all(|problem| problem.repaired.is_some()), "{found:#?}");
        assert_eq!(self.look(false), [], "after {found:#?}");
        let store = Store::open(&self.dir).unwrap();
        assert_eq!(store.get(self.good.fingerprint).unwrap().as_ref(), Some(&self.good));
        store.verify(&self.good).unwrap();
        found
    }

    fn store(&self) -> Store {
        Store::open(&self.dir).unwrap()
    }

    /// The damaged image is out of sight, and can come again.
    #[track_caller]
    fn is_gone(&self) {
        let store = self.store();
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&self.good));
        assert!(!self.dir.join(self.bad.fingerprint.to_string()).exists());
        assert_eq!(add(&store, "root").fingerprint, self.bad.fingerprint);
    }

    /// The image is as it was.
    #[track_caller]
    fn is_whole(&self) {
        let image = self.store().get(self.bad.fingerprint).unwrap().unwrap();
        assert_eq!(image.aliases, ["mine".parse::<Alias>().unwrap()]);
        self.store().verify(&image).unwrap();
    }

    fn db(&self) -> Connection {
        Connection::open(self.dir.join(DATABASE)).unwrap()
    }

    fn age(path: &Path) {
        let old = SystemTime::now() - std::time::Duration::from_hours(24 * 8);
        File::open(path).unwrap().set_modified(old).unwrap();
    }
}

#[test]
fn a_good_store_and_none_have_no_problems() {
    let bench = bench();
    let mut mender = Mender::new(true);
    super::check(&bench.dir, &mut mender).unwrap();
    assert_eq!((mender.report.images, &mender.report.problems[..]), (2, &[][..]));
    let nowhere = bench.dir.join("nowhere");
    super::check(&nowhere, &mut Mender::new(true)).unwrap();
    assert!(!nowhere.exists(), "looking makes nothing");
}

#[test]
fn damaged_files_take_their_image_out_of_sight() {
    type Damage = fn(&Path);
    let damages: [(Damage, Kind); 5] = [
        (|file| fs::remove_file(file).unwrap(), Kind::MissingFile),
        (|file| fs::remove_file(file).and_then(|()| fs::create_dir(file)).unwrap(), Kind::MissingFile),
        (|file| fs::write(file, "ro").unwrap(), Kind::WrongSize),
        (|file| fs::write(file, "roots").unwrap(), Kind::WrongSize),
        (|file| fs::write(file, "r00t").unwrap(), Kind::WrongHash),
    ];
    for (damage, kind) in damages {
        let bench = bench();
        damage(&bench.path("rootfs.tar.xz"));
        let found = bench.finds(&[kind]);
        assert!(found[0].repaired.as_ref().unwrap().contains("its names were mine"), "{found:?}");
        let kept = fs::read_dir(bench.dir.join(LOST)).unwrap().next().unwrap().unwrap().path();
        assert!(fs::read_to_string(kept.join("why.txt")).unwrap().contains("mine"));
        assert!(kept.join(bench.bad.fingerprint.to_string()).join(RECORD).exists());
        bench.is_gone();
    }
}

#[test]
fn what_is_said_of_an_image_is_written_anew() {
    for text in ["", "{", "{\"fingerprint\":1}", &serde_json::to_string(&record("good")).unwrap()] {
        let bench = bench();
        fs::write(bench.path(RECORD), text).unwrap();
        bench.finds(&[Kind::Record]);
        bench.is_whole();
    }
    let bench = bench();
    fs::remove_file(bench.path(RECORD)).unwrap();
    bench.finds(&[Kind::Record]);
    bench.is_whole();
    // It names files that are not there; the index knows better.
    let other = Record { rootfs: "rootfs.squashfs".into(), ..record("root") };
    fs::write(bench.path(RECORD), serde_json::to_vec(&other).unwrap()).unwrap();
    bench.finds(&[Kind::Record]);
    bench.is_whole();
    // The other way round: the record was changed, then the process was killed.
    let properties = BTreeMap::from([("os".to_owned(), "Mine".to_owned())]);
    let newer = Record { properties: properties.clone(), ..record("root") };
    fs::write(bench.path(RECORD), serde_json::to_vec(&newer).unwrap()).unwrap();
    bench.finds(&[Kind::Row]);
    assert_eq!(bench.store().get(bench.bad.fingerprint).unwrap().unwrap().properties, properties);
}

#[test]
fn an_image_that_nothing_describes_describes_itself() {
    let bench = bench();
    let yaml = "architecture: x86_64\ncreation_date: 7\nproperties: {os: Mine}\n";
    let archive = |name: &str, text: &str| {
        let members = BTreeMap::from([(PathBuf::from(name), Member::file(text.to_owned()))]);
        pack_members(&members, Vec::new(), &PackOptions::default()).unwrap().0
    };
    let (metadata, rootfs) = (archive("metadata.yaml", yaml), archive("etc", "x"));
    let fingerprint = Fingerprint::of_split(&metadata[..], &rootfs[..]).unwrap();
    let dir = bench.dir.join(fingerprint.to_string());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("lxd.tar.xz"), metadata).unwrap();
    fs::write(dir.join("rootfs.tar.xz"), rootfs).unwrap();
    bench.finds(&[Kind::Record, Kind::UnlistedImage]);
    let image = bench.store().get(fingerprint).unwrap().unwrap();
    assert_eq!((image.properties["os"].as_str(), image.created.timestamp()), ("Mine", 7));
    // Not when the files are not that image.
    fs::remove_file(dir.join(RECORD)).unwrap();
    bench.store().index().remove(fingerprint).unwrap();
    fs::write(dir.join("rootfs.tar.xz"), archive("etc", "y")).unwrap();
    bench.finds(&[Kind::Record]);
    assert!(bench.store().get(fingerprint).unwrap().is_none() && !dir.exists());
}

#[test]
fn rows_and_directories_are_brought_together() {
    let bench = bench();
    fs::rename(bench.path(""), bench.dir.join("../away")).unwrap();
    let found = bench.finds(&[Kind::MissingImage]);
    assert!(found[0].repaired.as_ref().unwrap().contains("mine"));
    fs::rename(bench.dir.join("../away"), bench.path("")).unwrap();
    bench.finds(&[Kind::UnlistedImage]);
    assert!(bench.store().get(bench.bad.fingerprint).unwrap().is_some());
}

#[test]
fn rows_and_names_that_mean_nothing_go_or_are_corrected() {
    let bench = bench();
    let of_bad = bench.bad.fingerprint.to_string();
    bench.db().execute("UPDATE images SET record = '{' WHERE fingerprint = ?1", [&of_bad]).unwrap();
    let error = Store::open(&bench.dir).unwrap_err().to_string();
    assert!(error.contains("store check --repair"), "{error}");
    bench.finds(&[Kind::Row]);
    bench.is_whole();

    let insert = "INSERT INTO images SELECT ?1, record, stored, last_used, 0, 0, looked FROM images LIMIT 1";
    bench.db().execute(insert, ["no fingerprint"]).unwrap();
    bench.finds(&[Kind::Row]);
    bench.is_whole();

    let db = bench.db();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    let nothing = Fingerprint::new(Sha256Digest::of(b"nothing")).to_string();
    for (name, meaning) in [("lost", &nothing), ("a b", &of_bad)] {
        db.execute("INSERT INTO aliases VALUES (?1, ?2)", [name, meaning]).unwrap();
    }
    drop(db);
    bench.finds(&[Kind::Alias, Kind::Alias]);
    bench.is_whole();
}

#[test]
fn an_index_that_is_none_is_made_anew_of_the_images() {
    let bench = bench();
    let damages: [fn(&Path); 2] = [
        |db| fs::write(db, "long enough to be a database ".repeat(200)).unwrap(),
        |db| fs::remove_file(db).unwrap(),
    ];
    for damage in damages {
        drop(bench.store());
        damage(&bench.dir.join(DATABASE));
        let found = bench.look(false);
        assert_eq!(found.iter().map(|p| p.kind).collect::<Vec<_>>(), [Kind::Database], "{found:#?}");
        assert!(bench.look(true)[0].repaired.is_some());
        assert_eq!(bench.look(false), []);
        assert_eq!(bench.store().list().unwrap().len(), 2, "no image is lost; names are");
    }
    // As good as none: opening it fills it.
    fs::write(bench.dir.join(DATABASE), "").unwrap();
    assert!(bench.look(false).iter().all(|problem| problem.kind == Kind::UnlistedImage));
    assert_eq!(bench.store().list().unwrap().len(), 2);
}

#[test]
fn a_page_of_the_index_is_damaged_and_the_rest_is_saved() {
    let bench = bench();
    let db = bench.db();
    let page = |name: &str| -> u64 {
        db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0)).unwrap()
    };
    let (size, index) =
        (db.query_row("PRAGMA page_size", [], |row| row.get::<_, u64>(0)).unwrap(), page("aliases_of"));
    db.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
    drop(db);
    let file = File::options().write(true).open(bench.dir.join(DATABASE)).unwrap();
    let garbage = vec![0xa5; size as usize];
    std::os::unix::fs::FileExt::write_all_at(&file, &garbage, (index - 1) * size).unwrap();
    let found = bench.finds(&[Kind::Database]);
    assert!(found[0].repaired.as_ref().unwrap().contains("2 images and 2 names"), "{found:?}");
    bench.is_whole();
}

#[test]
fn a_repair_of_the_index_waits_for_others() {
    let bench = bench();
    let user = bench.store();
    assert!(super::super::lock_store(&bench.dir, super::super::LockKind::WithOthers).is_ok());
    let dir = bench.dir.clone();
    fs::remove_file(bench.dir.join(DATABASE)).unwrap();
    let repair = std::thread::spawn(move || {
        let mut mender = Mender::new(true);
        super::check(&dir, &mut mender).unwrap();
        mender.report.problems
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!bench.dir.join(DATABASE).exists(), "not under the other's hands");
    drop(user);
    assert!(repair.join().unwrap()[0].repaired.is_some());
    bench.store().verify(&bench.good).unwrap();
}

#[test]
fn strays_and_what_was_cut_short_go() {
    let bench = bench();
    fs::write(bench.path(".tmp-x"), "x").unwrap();
    fs::write(bench.path("notes"), "x").unwrap();
    fs::write(bench.dir.join("notes"), "x").unwrap();
    fs::write(bench.dir.join(STAGING).join("notes"), "x").unwrap();
    let found = bench.finds(&[Kind::Stray; 4]);
    let kept = found.iter().filter(|p| p.repaired.as_ref().unwrap().contains(LOST)).count();
    assert_eq!(kept, 2, "what somebody else may have put there is kept: {found:#?}");

    let staging = bench.dir.join(STAGING);
    for name in ["import-abc", &record("old").fingerprint.to_string()] {
        fs::create_dir(staging.join(name)).unwrap();
        fs::write(staging.join(name).join("part"), "x").unwrap();
    }
    Bench::age(&staging.join(record("old").fingerprint.to_string()));
    fs::create_dir(staging.join(bench.good.fingerprint.to_string())).unwrap();
    fs::create_dir(bench.dir.join(TRASH).join("image-abc")).unwrap();
    bench.finds(&[Kind::Staging; 4]);
    bench.is_whole();

    // Who is at work is left alone, and so is a download that will be resumed.
    let store = bench.store();
    let incoming = store.new_incoming().unwrap();
    let young = staging.join(record("young").fingerprint.to_string());
    fs::create_dir(&young).unwrap();
    let new = record("new");
    let arriving = block_on(store.stage(new.fingerprint)).unwrap().unwrap();
    fill(&arriving, "new");
    assert_eq!(bench.look(true), []);
    assert!(incoming.path().exists() && young.exists());
    store.commit(arriving, &new).unwrap();
}

#[test]
fn an_image_at_work_is_left_alone() {
    let bench = bench();
    fs::write(bench.path("rootfs.tar.xz"), "r00t").unwrap();
    let store = bench.store();
    let lock = store.lock(bench.bad.fingerprint).unwrap();
    assert_eq!(bench.look(true), []);
    drop(lock);
    bench.finds(&[Kind::WrongHash]);
}

#[test]
fn images_that_came_as_deltas_need_what_they_are_completed_from() {
    let damage: [&dyn Fn(&Path); 2] = [&|dir| fs::remove_file(dir.join(BASE)).unwrap(), &|dir| {
        fs::write(dir.join(UNCOMPRESSED), "TREE").unwrap();
    }];
    for (damage, kind) in damage.into_iter().zip([Kind::MissingFile, Kind::WrongHash]) {
        let bench = bench();
        let store = bench.store();
        let record = Record {
            rootfs: UNCOMPRESSED.into(),
            uncompressed: Some(Sha256Digest::of(b"tree")),
            ..record("delta")
        };
        let staging = block_on(store.stage(record.fingerprint)).unwrap().unwrap();
        for (name, text) in [("metadata.tar.xz", "meta"), (UNCOMPRESSED, "tree"), (DELTA, "d"), (BASE, "b")] {
            fs::write(staging.dir().join(name), text).unwrap();
        }
        store.commit(staging, &record).unwrap();
        assert_eq!(bench.look(false), []);
        damage(&bench.dir.join(record.fingerprint.to_string()));
        bench.finds(&[kind]);
    }
}

#[test]
fn what_is_taken_away_twice_is_kept_twice() {
    let bench = bench();
    for text in ["one", "two"] {
        let path = bench.dir.join("x");
        fs::write(&path, text).unwrap();
        let to = lost::take_away(&bench.dir, &path, "why").unwrap();
        assert_eq!(fs::read_to_string(to).unwrap(), text);
    }
    assert_eq!(fs::read_dir(bench.dir.join(LOST)).unwrap().count(), 2);
}
