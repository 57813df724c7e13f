//! A publisher is stopped at each system call that writes: killed, out of space, with an I/O error, or
//! after half of a write. Readers must find a complete, signed set at once, and the same command again
//! must do the rest.
//!
//! By default every few calls are tried; `MILLSTREAM_FAULTS=all` tries each (`cargo xtask faults`).
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;
#[path = "../../tests/support/trace.rs"]
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use millstream_image::openpgp::SigningKey;
use millstream_server::stream::{Retention, Stream};
use support::reader::read;
use support::{Fixture, Image, new_key, signing};
use trace::{Fault, Run, trace};

const PRODUCT: &str = "debian:bookworm:amd64:default";
const FAULTS: [Fault; 4] = [Fault::Kill, Fault::NoSpace, Fault::Broken, Fault::Short];

#[test]
fn add_stopped_at_any_write_leaves_a_consistent_tree() {
    try_all("add", 9);
}

#[test]
fn prune_stopped_at_any_write_leaves_a_consistent_tree() {
    try_all("prune", 9);
}

#[test]
fn sign_stopped_at_any_write_leaves_a_consistent_tree() {
    try_all("sign", 9);
}

#[test]
fn a_new_key_stopped_at_any_write_leaves_a_consistent_tree() {
    try_all("rotate", 13);
}

#[test]
fn an_unsigned_image_stopped_at_any_write_waits_whole_or_not_at_all() {
    try_all("unsigned", 9);
}

/// Tries a job with each fault at every `stride`th call.
fn try_all(job: &str, stride: usize) {
    let stride = if std::env::var("MILLSTREAM_FAULTS").is_ok_and(|all| all == "all") { 1 } else { stride };
    let bench = Bench::new();
    let Run { calls, code } = bench.run(job, &bench.fresh(), None);
    assert_eq!(code, Some(0), "{job} fails without any fault");
    assert!(calls > 20, "{job} makes {calls} calls that write");
    for (shift, fault) in FAULTS.into_iter().enumerate() {
        let first = shift * stride / FAULTS.len();
        // Past the end nothing is stopped.
        for at in (first..=calls).step_by(stride) {
            bench.one(job, fault, at);
        }
    }
}

/// A tree that each try gets a copy of, an image to add, and keys.
struct Bench {
    dir: tempfile::TempDir,
    key: SigningKey,
}

impl Bench {
    fn new() -> Self {
        // Memory, if there is any: thousands of flushes to a disk would take minutes.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("ms-faults-").tempdir_in(base).unwrap();
        let tree = Fixture::new();
        for day in 1..=2 {
            tree.add(&Image::new(PRODUCT, &format!("2026010{day}_0000"))).unwrap();
        }
        Image::new(PRODUCT, "20260103_0000").build(&dir.path().join("image"));
        let secret = |key: &SigningKey| key.to_armored_secret().unwrap();
        fs::write(dir.path().join("key"), secret(&tree.key)).unwrap();
        fs::write(dir.path().join("next"), secret(&new_key())).unwrap();
        copy(tree.root(), &dir.path().join("base"));
        Self { dir, key: tree.key.clone() }
    }

    fn fresh(&self) -> PathBuf {
        let root = self.dir.path().join("root");
        let _ = fs::remove_dir_all(&root);
        copy(&self.dir.path().join("base"), &root);
        root
    }

    fn run(&self, job: &str, root: &Path, fault: Option<(Fault, usize)>) -> Run {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--ignored", "--exact", "publisher_process", "--test-threads=1", "--nocapture"])
            .env("FAULTS_JOB", job)
            .env("FAULTS_DIR", self.dir.path())
            .env("FAULTS_ROOT", root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        trace(&mut child, fault)
    }

    fn one(&self, job: &str, fault: Fault, at: usize) {
        let what = format!("{job}, {fault:?} at call {at}");
        let root = self.fresh();
        let before = read(&root, &self.key.keyring()).unwrap();
        let run = self.run(job, &root, Some((fault, at)));
        match (fault, run.code) {
            (_, Some(0)) | (Fault::Kill, None) | (Fault::NoSpace | Fault::Broken, Some(FAILED)) => {}
            (_, code) => panic!("{what}: ended with {code:?}"),
        }
        let now = read(&root, &self.key.keyring()).unwrap_or_else(|e| panic!("{what}: a reader finds {e}"));
        assert!(now == before || now == before + 1, "{what}: generation {now} after {before}");
        // Once more, and all is as if nothing had happened.
        let stream = Stream::open(&root).unwrap();
        work(job, self.dir.path(), &root).unwrap_or_else(|e| panic!("{what}: and then {e}"));
        let report = stream.verify(SystemTime::now()).unwrap();
        assert_eq!(report.problems, [], "{what}");
        assert_eq!(fs::read_dir(root.join(".staging")).unwrap().count(), 0, "{what}");
        let images = match job {
            "add" => 3,
            "prune" => 1,
            _ => 2,
        };
        assert_eq!(report.images, images, "{what}");
        assert_eq!(stream.unsigned().unwrap().len(), usize::from(job == "unsigned"), "{what}");
        assert_eq!(stream.keys().unwrap().len(), if job == "rotate" { 2 } else { 1 }, "{what}");
    }
}

/// What a publisher exits with that fails properly.
const FAILED: i32 = 3;

/// One job of a publisher.
fn work(job: &str, dir: &Path, root: &Path) -> millstream_server::Result<()> {
    let key = |name: &str| SigningKey::from_bytes(&fs::read(dir.join(name)).unwrap()).unwrap();
    let image = dir.join("image");
    if job == "unsigned" {
        return Stream::add_unsigned(root, &image).map(drop);
    }
    let stream = Stream::open(root)?;
    match job {
        "add" => stream.add(&image, &signing(&key("key"))).map(drop),
        "prune" => {
            let retention = Retention { newest: Some(1), days: None };
            stream.prune(retention, Duration::ZERO, &signing(&key("key"))).map(drop)
        }
        "sign" => stream.sign(&signing(&key("key"))).map(drop),
        "rotate" => stream.sign(&signing(&key("key").with(key("next")))).map(drop),
        other => panic!("no job {other}"),
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
#[ignore = "the process that the other tests start and stop"]
fn publisher_process() {
    let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap());
    let job = std::env::var("FAULTS_JOB").unwrap();
    nix::sys::ptrace::traceme().unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let code = match work(&job, &path("FAULTS_DIR"), &path("FAULTS_ROOT")) {
        Ok(()) => 0,
        Err(_) => FAILED,
    };
    std::process::exit(code);
}
