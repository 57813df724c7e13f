//! A directory of a test's own, the binary in it, and a look at what it leaves behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("millstream-build-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bench = Self { dir };
        // Users without access to the place where it was built must be able to run it.
        fs::copy(env!("CARGO_BIN_EXE_millstream"), bench.binary()).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn binary(&self) -> PathBuf {
        self.path("millstream")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The binary with everything it keeps in this directory.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.binary());
        command.env("MILLSTREAM_DIR", self.path("state")).stdin(Stdio::null());
        command
    }

    /// `millstream build`, into `out`.
    pub fn build(&self, recipe: &str, out: &str, more: &[&str]) -> Command {
        let recipe = self.write("recipe.yaml", recipe);
        let mut command = self.command();
        command
            .arg("build")
            .arg(recipe)
            .arg("--serial=20260701_0000")
            .arg("--out")
            .arg(self.path(out))
            .args(more);
        command
    }

    /// Nothing of a failed build to `out` is left: no files, no mounts, no processes.
    pub fn assert_clean(&self, out: &str) {
        assert!(!self.path(out).exists(), "{out} must not appear");
        for place in [self.dir.path().to_path_buf(), self.path("state/cache/packages")] {
            for item in fs::read_dir(place).into_iter().flatten().flatten() {
                let name = item.file_name().to_string_lossy().into_owned();
                assert!(
                    !name.starts_with(".millstream-build-") && !name.starts_with("build-"),
                    "{name} is left"
                );
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.dir.path().to_string_lossy().into_owned();
        assert!(!mounts.contains(&here), "a mount is left:\n{mounts}");
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left");
    }

    /// Programs that run from this directory, or see something below it mounted.
    pub fn processes(&self) -> Vec<String> {
        let here =
            |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(self.dir.path()));
        let name = self.dir.path().to_string_lossy().into_owned();
        let sees = |file: PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains(&name));
        let mut found = Vec::new();
        for item in fs::read_dir("/proc").unwrap().flatten() {
            let proc = item.path();
            let ours = here(proc.join("exe")) || here(proc.join("cwd")) || sees(proc.join("mountinfo"));
            if ours {
                found.push(fs::read_to_string(proc.join("cmdline")).unwrap_or_default().replace('\0', " "));
            }
        }
        found
    }
}

/// Runs it and returns what it said; it must fail with exit status 1.
pub fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    failed(&output)
}

pub fn failed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "signal {:?}:\n{text}", output.status.signal());
    text
}

/// Runs it; it must succeed.
pub fn works(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs it; it must succeed. All it says, on both streams.
pub fn says(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}");
    text
}

/// Starts it with its messages kept.
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Ctrl-C.
pub fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// Waits until `ready`, at most half a minute.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    for _ in 0..300 {
        if ready() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{what} did not come");
}

pub fn sha256(path: &Path) -> String {
    let file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    millstream_image::Sha256Digest::of_reader(file).unwrap().0.to_string()
}
