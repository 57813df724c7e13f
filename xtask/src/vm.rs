//! `vm-test`: the runtime's tests on a host of the common kind, which the machine of the tests may
//! not be: control groups v2 alone, under systemd. A virtual machine with Debian's own kernel and a
//! root file system made by `millstream build`; emulated, so that it needs
//! nothing of the processor and takes some minutes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{cargo, run, setup};

const WORK: &str = "target/vm";
const LIMIT: Duration = Duration::from_hours(1);
/// How the virtual machine says that it is done, and how many programs failed.
const VERDICT: &str = "TESTS-FAILED: ";

pub fn test(names: &[String]) -> Result<(), String> {
    setup::need_root("it makes root file systems", "vm-test")?;
    setup::install(setup::TESTS)?;
    setup::install(setup::VM)?;
    cargo(&["build", "--bin", "millstream"])?;
    let programs = programs()?;
    known(&programs, names)?;
    let image = Path::new(WORK).join("image");
    let disk = root(&image)?;
    let tests = tests(&programs, names)?;
    let boot = |name: &str| find(&image.join("rootfs/boot"), name);
    boot_and_watch(&boot("vmlinuz-")?, &boot("initrd.img-")?, &disk, &tests)
}

/// Builds the runtime's tests; the programs.
fn programs() -> Result<Vec<(String, PathBuf)>, String> {
    cargo(&["test", "--package", "millstream-runtime", "--tests", "--no-run"])?;
    // The second time there is nothing to build, and it only says where the programs are.
    let mut again = Command::new("cargo");
    again.args(["test", "--package", "millstream-runtime", "--tests", "--no-run", "--color=never"]);
    let output = again.output().map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let programs: Vec<_> = text.lines().filter_map(program).collect();
    if programs.is_empty() { Err(format!("cargo names no tests:\n{text}")) } else { Ok(programs) }
}

/// A test of `Executable tests/NAME.rs (PATH)`.
fn program(line: &str) -> Option<(String, PathBuf)> {
    let (source, path) = line.trim().strip_prefix("Executable ")?.split_once(" (")?;
    let name = source.strip_prefix("tests/")?.strip_suffix(".rs")?;
    Some((name.to_owned(), PathBuf::from(path.strip_suffix(')')?)))
}

/// Whether each name is a program's: of others nothing would run, and nothing fail.
fn known(programs: &[(String, PathBuf)], names: &[String]) -> Result<(), String> {
    let programs: Vec<_> = programs.iter().map(|(name, _)| name.as_str()).chain(["user"]).collect();
    let program = |name: &String| name.split('=').next().is_some_and(|name| programs.contains(&name));
    match names.iter().find(|name| !program(name)) {
        Some(name) => Err(format!("there is no test program {name}; there are: {}", programs.join(" "))),
        None => Ok(()),
    }
}

/// The disk with the root file system; the one there is, unless the recipe is newer.
fn root(image: &Path) -> Result<PathBuf, String> {
    let recipe = Path::new("xtask/vm/debian.yaml");
    let made = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let there = Path::new(WORK).join("root.ext4");
    if made(&there) > made(recipe) && image.exists() {
        return Ok(there);
    }
    let _ = fs::remove_dir_all(image);
    fs::create_dir_all(WORK).map_err(|e| format!("{WORK}: {e}"))?;
    let mut build = Command::new("target/debug/millstream");
    build.args(["build", "--format", "dir", "--out"]).arg(image).arg(recipe);
    run(build.env("MILLSTREAM_DIR", Path::new(WORK).join("home")))?;
    disk(&image.join("rootfs"), "root.ext4", "4G")
}

/// An ext4 file system with what is in `dir`.
fn disk(dir: &Path, name: &str, size: &str) -> Result<PathBuf, String> {
    let file = Path::new(WORK).join(name);
    let _ = fs::remove_file(&file);
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).args([dir, &file]).arg(size))?;
    Ok(file)
}

/// The second disk: the tests, and the scripts that run them.
fn tests(programs: &[(String, PathBuf)], names: &[String]) -> Result<PathBuf, String> {
    let dir = Path::new(WORK).join("tests");
    let _ = fs::remove_dir_all(&dir);
    let io = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::create_dir_all(dir.join("programs")).map_err(io)?;
    for script in ["run", "user"] {
        fs::copy(Path::new("xtask/vm").join(script), dir.join(script)).map_err(io)?;
    }
    fs::write(dir.join("wanted"), names.join("\n")).map_err(io)?;
    for (name, program) in programs {
        let target = dir.join("programs").join(name);
        run(Command::new("strip").arg("--strip-debug").arg("-o").args([&target, program]))?;
    }
    disk(&dir, "tests.ext4", "1G")
}

fn find(dir: &Path, prefix: &str) -> Result<PathBuf, String> {
    let items = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths = items.flatten().map(|item| item.path());
    let found = paths.find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
    found.ok_or_else(|| format!("{}: nothing begins with {prefix}", dir.display()))
}

/// Starts the virtual machine, shows what it says, and waits for its verdict.
fn boot_and_watch(kernel: &Path, initrd: &Path, disk: &Path, tests: &Path) -> Result<(), String> {
    let drive =
        |file: &Path| format!("file={},format=raw,if=virtio,cache=unsafe,snapshot=on", file.display());
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=false quiet"])
        .args(["-drive", &drive(disk), "-drive", &drive(tests)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("qemu-system-x86_64: {e}"))?;
    let (sender, lines) = std::sync::mpsc::channel();
    let console = BufReader::new(machine.stdout.take().ok_or("no console")?);
    std::thread::spawn(move || {
        for line in console.split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let end = Instant::now() + LIMIT;
    let mut verdict = None;
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        println!("{line}");
        verdict = line.split_once(VERDICT).map(|(_, failed)| failed.to_owned()).or(verdict);
    }
    let _ = machine.kill();
    let _ = machine.wait();
    match verdict.as_deref() {
        Some("0") => Ok(()),
        Some(failed) => Err(format!("{failed} programs failed in the virtual machine")),
        None => Err("the virtual machine ended without a verdict, or took longer than an hour".into()),
    }
}
