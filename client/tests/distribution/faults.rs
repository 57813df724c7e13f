//! Whatever changes a store is stopped at each system call that writes: killed, out of space, with an I/O
//! error, or after half of a write. Whoever looks next must find images whole or not at all, and the same
//! command again must do the rest.
//!
//! By default every few calls are tried; `MILLSTREAM_FAULTS=all` tries each (`cargo xtask faults`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::{DateTime, Utc};
use millstream_client::{
    Client, ImportOptions, ImportSource, Keep, Kind, Mender, NoProgress, Result, Store, StoredImage,
};
use millstream_image::archive::{Member, PackOptions, pack_members};
use millstream_image::{Alias, Fingerprint};

use crate::support::{Fixture, NAME, PRODUCT, Server, Tree, config, metadata_archive};
use crate::trace::{Fault, Run, trace};

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::NoSpace, Fault::Broken, Fault::Short];
const OTHER: &str = "debian:trixie:amd64:default";
const CHILD: &str = "faults::child";
/// What a child exits with that fails properly.
const FAILED: i32 = 3;

#[test]
fn a_fetch_stopped_at_any_write_brings_the_image_whole_or_not() {
    try_all("fetch", 29);
}

#[test]
fn an_update_stopped_at_any_write_leaves_the_name_on_an_image() {
    try_all("refresh", 37);
}

#[test]
fn an_import_stopped_at_any_write_brings_the_image_whole_or_not() {
    try_all("import", 19);
}

#[test]
fn a_change_stopped_at_any_write_leaves_the_image() {
    try_all("change", 19);
}

#[test]
fn a_deletion_stopped_at_any_write_leaves_the_image_whole_or_not() {
    try_all("delete", 11);
}

#[test]
fn a_repair_stopped_at_any_write_loses_no_good_image() {
    try_all("repair", 29);
}

#[test]
fn a_new_index_stopped_at_any_write_loses_no_name() {
    try_all("rebuild", 37);
}

/// Tries a job with each fault at every `stride`th call.
fn try_all(job: &str, stride: usize) {
    let stride = if std::env::var("MILLSTREAM_FAULTS").is_ok_and(|all| all == "all") { 1 } else { stride };
    let bench = Bench::new(job);
    let Run { calls, code } = bench.run(&bench.fresh(), None);
    assert_eq!(code, Some(0), "{job} fails without any fault");
    assert!(calls > 8, "{job} makes {calls} calls that write");
    for (shift, fault) in FAULTS.into_iter().enumerate() {
        // Past the end nothing is stopped.
        for at in (shift * stride / FAULTS.len()..=calls).step_by(stride) {
            bench.one(fault, at);
        }
    }
}

/// A store that each try gets a copy of, and servers.
struct Bench {
    job: String,
    dir: tempfile::TempDir,
    old: Fingerprint,
    _server: Server,
    _tree: Tree,
}

impl Bench {
    fn new(job: &str) -> Self {
        // Memory, if there is any: thousands of flushes to a disk would take minutes.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("ms-faults-").tempdir_in(base).unwrap();
        let mut tree = Tree::new();
        let server = Server::start(tree.root());
        let old = block_on(async {
            let fixture = Fixture::with_remote(&tree, &server.url).await;
            let keep = Keep { cached: false, auto_update: true };
            let old = fixture.client.fetch(&NAME.parse().unwrap(), keep, &NoProgress).await.unwrap();
            fixture.client.add_aliases(&old, &[mine()], false).unwrap();
            // The second of these will be damaged.
            tree.add(OTHER, "20260101_0000", 100_000);
            tree.publish();
            if job == "repair" {
                fixture.fetch("r:debian/trixie").await.unwrap();
            }
            copy(fixture.dir.path(), &dir.path().join("base"));
            old
        });
        tree.add(PRODUCT, "20260102_0000", 200_000);
        tree.publish();
        let bench = Self { job: job.to_owned(), dir, old: old.fingerprint, _server: server, _tree: tree };
        bench.make_import();
        match job {
            "repair" => bench.damage(),
            "rebuild" => bench.damage_index(),
            _ => {}
        }
        bench
    }

    fn make_import(&self) {
        let dir = self.dir.path().join("import");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("lxd.tar.xz"), metadata_archive("x86_64")).unwrap();
        let members = BTreeMap::from([(PathBuf::from("etc"), Member::file("imported"))]);
        let rootfs = pack_members(&members, Vec::new(), &PackOptions::default()).unwrap().0;
        fs::write(dir.join("rootfs.tar.xz"), rootfs).unwrap();
    }

    /// An image with a wrong byte, one whose description is none, and a name without meaning.
    fn damage(&self) {
        let images = self.dir.path().join("base/data/images");
        let old = images.join(self.old.to_string());
        for entry in fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.join("rootfs.tar.xz").exists() && entry != old {
                crate::support::flip(&entry.join("rootfs.tar.xz"));
            }
        }
        fs::write(old.join("image.json"), "{").unwrap();
        let db = rusqlite::Connection::open(images.join("images.db")).unwrap();
        db.pragma_update(None, "foreign_keys", false).unwrap();
        db.execute("INSERT INTO aliases VALUES ('lost', ?1)", ["0".repeat(64)]).unwrap();
    }

    /// A page of garbage.
    fn damage_index(&self) {
        let path = self.dir.path().join("base/data/images/images.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        let query = "SELECT rootpage FROM sqlite_schema WHERE name = 'aliases_of'";
        let page: u64 = db.query_row(query, [], |row| row.get(0)).unwrap();
        db.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
        drop(db);
        let file = fs::File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 4096], (page - 1) * 4096).unwrap();
    }

    fn fresh(&self) -> PathBuf {
        let dir = self.dir.path().join("try");
        let _ = fs::remove_dir_all(&dir);
        copy(&self.dir.path().join("base"), &dir);
        dir
    }

    fn run(&self, dir: &Path, fault: Option<(Fault, usize)>) -> Run {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--ignored", "--exact", CHILD, "--test-threads=1", "--nocapture"])
            .env("FAULTS_JOB", &self.job)
            .env("FAULTS_DIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        trace(&mut child, fault)
    }

    fn one(&self, fault: Fault, at: usize) {
        let what = format!("{}, {fault:?} at call {at}", self.job);
        let dir = self.fresh();
        let run = self.run(&dir, Some((fault, at)));
        match (fault, run.code) {
            (_, Some(0)) | (Fault::Kill, None) | (Fault::NoSpace | Fault::Broken, Some(FAILED)) => {}
            (_, code) => panic!("{what}: ended with {code:?}"),
        }
        let mends = ["repair", "rebuild"].contains(&self.job.as_str());
        let seen = if mends { Vec::new() } else { look(&dir, &what) };
        let here = |image: &StoredImage| image.fingerprint == self.old;
        match self.job.as_str() {
            "repair" | "rebuild" => {
                let files = dir.join("data/images").join(self.old.to_string());
                let found =
                    Fingerprint::of_files(&files.join("metadata.tar.xz"), &files.join("rootfs.tar.xz"));
                assert_eq!(found.unwrap(), self.old, "{what}");
            }
            "delete" => {}
            "refresh" => assert!(seen.iter().any(|image| image.aliases == [mine()]), "{what}: {seen:?}"),
            _ => assert!(seen.iter().any(|image| here(image) && image.aliases.contains(&mine())), "{what}"),
        }
        // Once more, and all is as if nothing had happened.
        let client = Client::new(config(&dir));
        block_on(work(&self.job, &client)).unwrap_or_else(|e| panic!("{what}: and then {e}"));
        let images = look(&dir, &what);
        let expected = match self.job.as_str() {
            "delete" => 0,
            "fetch" | "import" => 2,
            _ => 1,
        };
        assert_eq!(images.len(), expected, "{what}");
        let named = images.iter().any(|image| image.aliases.contains(&mine()));
        assert_eq!(named, self.job != "delete", "{what}: {images:?}");
        let problems = |repair| {
            let mut mender = Mender::new(repair);
            client.check(&mut mender).unwrap_or_else(|e| panic!("{what}: checking: {e}"));
            mender.report.problems
        };
        let left = problems(true);
        let space = |kind| [Kind::Stray, Kind::Staging].contains(&kind);
        assert!(left.iter().all(|problem| space(problem.kind)), "{what}: {left:#?}");
        assert_eq!(problems(false), [], "{what}, after {left:#?}");
    }
}

fn mine() -> Alias {
    "mine".parse().unwrap()
}

/// What the next command sees: every image listed is whole.
fn look(dir: &Path, what: &str) -> Vec<StoredImage> {
    let store = Store::open(&dir.join("data/images")).unwrap_or_else(|e| panic!("{what}: {e}"));
    let images = store.list().unwrap();
    for image in &images {
        store.verify(image).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    images
}

/// One job.
async fn work(job: &str, client: &Client) -> Result<()> {
    let old = async || client.store()?.find(&"mine".parse()?);
    match job {
        "fetch" => client.fetch(&"r:debian/trixie".parse()?, Keep::default(), &NoProgress).await.map(drop),
        "refresh" => {
            let images = client.store()?.list()?;
            let done = client.refresh(images, &BTreeSet::new(), &NoProgress).await?;
            done.into_iter().try_for_each(|refreshed| refreshed.newer.map(drop))
        }
        "import" => {
            let dir = PathBuf::from(client.store()?.dir()).join("../../../import");
            let source = ImportSource::Files(vec![dir]);
            client.import(source, ImportOptions::default(), &NoProgress).await.map(drop)
        }
        "change" => {
            let (store, image) = (client.store()?, old().await?.expect("it is named"));
            store.add_alias(&"second".parse()?, image.fingerprint, true)?;
            store.change_properties(image.fingerprint, |properties| {
                properties.insert("note".into(), "changed".into());
            })?;
            store.touch(image.fingerprint, DateTime::<Utc>::UNIX_EPOCH)?;
            store.set_flags(image.fingerprint, true, false)
        }
        "delete" => match old().await? {
            Some(image) => client.store()?.delete(image.fingerprint),
            None => Ok(()),
        },
        "repair" | "rebuild" => client.check(&mut Mender::new(true)),
        other => panic!("no job {other}"),
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
#[ignore = "the process that the other tests start and stop"]
fn child() {
    let dir = PathBuf::from(std::env::var_os("FAULTS_DIR").unwrap());
    let job = std::env::var("FAULTS_JOB").unwrap();
    nix::sys::ptrace::traceme().unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let client = Client::new(config(&dir));
    std::process::exit(if block_on(work(&job, &client)).is_ok() { 0 } else { FAILED });
}
