//! What the end-to-end tests share: the real program with a home of its own, one real image, and
//! servers and peers that are gone when a test ends.

pub mod lxd;
pub mod nginx;
pub mod s3;
pub mod terminal;
pub mod user;
pub mod web;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_millstream");

/// The image all tests use: Debian bookworm, variant `minimal`.
pub const ALIAS: &str = "debian/bookworm/minimal";

/// A `MILLSTREAM_DIR` of a test's own.
pub struct Home {
    dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ms-e2e-").tempdir().unwrap();
        // Containers' users must be able to pass through.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).env("MILLSTREAM_DIR", self.path()).stdin(Stdio::null());
        command
    }

    /// Runs to the end and must succeed; gives standard output.
    pub fn run(&self, args: &[&str]) -> String {
        succeed(&mut self.command(args))
    }

    /// Runs to the end and must fail with exit status 1 and one clear message; gives it.
    pub fn fail(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?} should fail: {errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        errors
    }
}

/// Runs a command that must succeed; gives standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    check(command, &output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn check(command: &Command, output: &Output) {
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a command in a shell that must succeed; gives standard output.
pub fn shell(script: &str, env: &[(&str, &Path)]) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).stdin(Stdio::null());
    for (key, value) in env {
        command.env(key, value);
    }
    succeed(&mut command)
}

/// Polls until `done` says so, or the time is over.
pub fn within(seconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// As [`within`], and must happen.
pub fn wait_for(what: &str, seconds: u64, done: impl FnMut() -> bool) {
    assert!(within(seconds, done), "{what}: not within {seconds} s");
}

/// A directory that one run of the tests fills once and all its processes share.
fn shared(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = fs::metadata(PROGRAM).unwrap().modified().unwrap();
    let lock = File::create(base.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let dir = base.join(name);
    // What another build of the program made says nothing about this one.
    let fresh = fs::metadata(&dir).and_then(|m| m.modified()).is_ok_and(|made| made > built);
    if !fresh {
        let _ = fs::remove_dir_all(&dir);
        let staging = tempfile::tempdir_in(base).unwrap();
        fill(staging.path());
        fs::rename(staging.keep(), &dir).unwrap();
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        File::open(&dir).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    }
    dir
}

/// The directory of a real image, built from the real mirror once.
pub fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| image_of("bookworm"))
}

/// The same of any release of Debian, variant `minimal`.
pub fn image_of(release: &str) -> PathBuf {
    let dir = shared(release, |dir| {
        let home = Home::new();
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/debian.yaml");
        let (release, out) = (format!("image.release={release}"), dir.join("image"));
        // With a boot test: what these tests rest on comes up with no unit failed.
        let options =
            ["-o", &release, "-o", "image.variant=minimal", "--test", "--out", out.to_str().unwrap()];
        home.run(&[&["build", recipe][..], &options].concat());
    });
    dir.join("image")
}

/// The directory of an image of busybox whose init is this script; the fastest container there is.
pub fn busybox_image(home: &Home, init: &str) -> PathBuf {
    let root = tempfile::tempdir_in(home.path()).unwrap();
    for dir in ["bin", "sbin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir(root.path().join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "sleep", "stty", "kill", "echo", "hostname", "touch"] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet)).unwrap();
    }
    let file = root.path().join("sbin/init");
    fs::write(&file, init).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let out = home.path().join("busybox");
    let (root, out) = (root.path().to_str().unwrap(), out.to_str().unwrap());
    let what = ["-o", "image.distribution=busybox", "-o", "image.release=1"];
    home.run(&[&["pack", root, "--out", out][..], &what].concat());
    out.into()
}

/// A published stream with that image, and the home whose key signs it.
pub struct Published {
    pub home: Home,
    pub root: PathBuf,
}

impl Published {
    pub fn new() -> Self {
        let home = Home::new();
        let root = home.path().join("tree");
        home.run(&["stream", "init", root.to_str().unwrap()]);
        home.run(&["stream", "add", root.to_str().unwrap(), image().to_str().unwrap()]);
        Self { home, root }
    }

    pub fn key(&self) -> PathBuf {
        self.root.join("key.asc")
    }

    pub fn serve(&self) -> Server {
        Server::start(&self.home, &self.root)
    }
}

/// Our server on a free port of loopback; ended with its test.
pub struct Server {
    child: Child,
    pub url: String,
    pub ca: PathBuf,
}

impl Server {
    pub fn start(home: &Home, root: &Path) -> Self {
        Self::start_with(home, root, &[])
    }

    /// With further arguments.
    pub fn start_with(home: &Home, root: &Path, more: &[&str]) -> Self {
        let serve = ["serve", "--root", root.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let mut command = home.command(&[&serve[..], more].concat());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = [
            Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ];
        let url = wait_for_url(lines);
        Self::adopt(child, url, home)
    }

    /// Takes over a server that has started already.
    pub fn adopt(child: Child, url: String, home: &Home) -> Self {
        Self { child, url, ca: home.path().join("config/tls/ca.crt") }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        self.url.trim_start_matches("https://").trim_end_matches('/')
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The first URL that a starting server prints, on either stream.
pub fn wait_for_url(streams: [Box<dyn std::io::Read + Send>; 2]) -> String {
    let (sender, lines) = std::sync::mpsc::channel();
    for stream in streams {
        let sender = sender.clone();
        // Goes on reading after the URL, so that the server never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    drop(sender);
    let mut seen = String::new();
    loop {
        let line = lines.recv_timeout(Duration::from_mins(10));
        let line = line.unwrap_or_else(|_| panic!("the server printed no URL:\n{seen}"));
        let url = line.split_whitespace().find(|word| word.starts_with("https://127.0.0.1:"));
        if let Some(url) = url {
            return url.trim_end_matches(['/', '.', ',']).to_owned();
        }
        seen.push_str(&line);
        seen.push('\n');
    }
}

/// Asks a child to end, and makes it.
pub fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_secs(20) {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
}
