//! Chores of the house, on a machine with only Rust, a C compiler and git.

mod setup;
mod vm;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  up [ARGS]     set up what is missing, build, then `millstream up ARGS`:
                recipe → signed image → served over HTTPS
  test [ARGS]   set up what is missing and run every check and test;
                ARGS go to `cargo test`
  check         format and lints only
  faults        stop publishers and stores at every system call that writes (minutes)
  fuzz [NAMES]  a minute of each fuzz target, or of those named; needs a nightly compiler and cargo-fuzz
  bench [NAMES] set up the peers and compare: prints a ratio for each pair; lists them without names
  vm-test [NAMES]
                the runtime's tests (all of runtime/tests, and `user`) in a virtual machine with
                control groups v2 alone; NAME=FILTER runs of one what the filter names
  garage-test   a stream in three nodes of the distributed store Garage, of which one is killed; builds
                Garage into target/garage first (some minutes)
  install       build and install to /usr/local/bin, and as LXC's template where LXC is";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let (command, rest) = args.split_first().map_or(("", &[][..]), |(c, rest)| (c.as_str(), rest));
    let result = env::set_current_dir(root()).map_err(|e| e.to_string()).and_then(|()| match command {
        "up" => up(rest),
        "test" => test(rest),
        "check" => check(),
        "faults" => faults(),
        "fuzz" => fuzz(rest),
        "bench" => bench(rest),
        "vm-test" => vm::test(rest),
        "garage-test" => garage_test(rest),
        "install" => install(),
        _ => {
            eprintln!("{USAGE}");
            Err(String::new())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) if reason.is_empty() => ExitCode::from(2),
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn up(args: &[String]) -> Result<(), String> {
    setup::install(setup::UP)?;
    cargo(&["build", "--release", "--bin", "millstream"])?;
    let mut millstream = Command::new("target/release/millstream");
    run(millstream.arg("up").args(args))
}

fn test(args: &[String]) -> Result<(), String> {
    setup::need_root("the end-to-end tests start containers", "test")?;
    setup::install(setup::TESTS)?;
    setup::simplestreams()?;
    setup::incus()?;
    setup::s3()?;
    check()?;
    let mut tests = Command::new("cargo");
    run(tests.args(["test", "--workspace"]).args(args))
}

fn garage_test(args: &[String]) -> Result<(), String> {
    setup::install(setup::TESTS)?;
    setup::garage()?;
    let mut tests = Command::new("cargo");
    run(tests.args(["test", "--workspace", "--test", "garage"]).args(args))
}

fn faults() -> Result<(), String> {
    let tests = |test: &str, filter: &[&str]| {
        let mut tests = Command::new("cargo");
        // The whole workspace, whose dependencies are built as other tests want them.
        tests.env("MILLSTREAM_FAULTS", "all").args(["test", "--workspace", "--test", test]);
        run(tests.args(filter))
    };
    tests("distribution", &["faults::"])?;
    tests("faults", &[])
}

/// The release profile without link-time optimization, which takes minutes and finds nothing.
fn fuzz(names: &[String]) -> Result<(), String> {
    let fuzz = || {
        let mut fuzz = Command::new("cargo");
        fuzz.env("CARGO_PROFILE_RELEASE_LTO", "off").args(["+nightly", "fuzz"]);
        fuzz
    };
    let all = fuzz().arg("list").output().map_err(|e| format!("cargo: {e}"))?;
    if !all.status.success() {
        return Err("run these first: rustup toolchain install nightly && cargo install cargo-fuzz".into());
    }
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    let names: Vec<_> =
        if names.is_empty() { all.lines().collect() } else { names.iter().map(String::as_str).collect() };
    names.into_iter().try_for_each(|name| {
        // Nothing is unsafe here that the address sanitizer could find.
        run(fuzz().args(["run", "--features", "run", "-s", "none", name, "--", "-max_total_time=60"]))
    })
}

fn check() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
}

fn bench(args: &[String]) -> Result<(), String> {
    setup::need_root("the peers build images and start containers", "bench")?;
    setup::install(setup::TESTS)?;
    setup::install(setup::BENCHES)?;
    setup::incus()?;
    cargo(&["build", "--release", "--bin", "millstream"])?;
    let mut bench = Command::new("cargo");
    run(bench.args(["run", "--quiet", "--package", "millstream-benches", "--"]).args(args))
}

fn install() -> Result<(), String> {
    setup::need_root("it writes to /usr/local/bin", "install")?;
    cargo(&["build", "--release", "--bin", "millstream"])?;
    run(Command::new("install").args(["-m755", "target/release/millstream", "/usr/local/bin/millstream"]))?;
    for templates in ["/usr/share/lxc/templates", "/usr/local/share/lxc/templates"] {
        if Path::new(templates).is_dir() {
            let link = format!("{templates}/lxc-millstream");
            run(Command::new("ln").args(["-sfn", "/usr/local/bin/millstream", &link]))?;
        }
    }
    install_help()
}

/// Completion and man pages, from the program that is there now.
fn install_help() -> Result<(), String> {
    const PROGRAM: &str = "/usr/local/bin/millstream";
    const SCRIPTS: [(&str, &str); 3] = [
        ("bash", "/usr/local/share/bash-completion/completions/millstream"),
        ("zsh", "/usr/local/share/zsh/site-functions/_millstream"),
        ("fish", "/usr/local/share/fish/vendor_completions.d/millstream.fish"),
    ];
    for (shell, path) in SCRIPTS {
        let script = Command::new(PROGRAM).args(["completion", shell]).output().map_err(|e| e.to_string())?;
        let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(path, script.stdout))
            .map_err(|e| format!("{path}: {e}"))?;
    }
    run(Command::new(PROGRAM).args(["man", "/usr/local/share/man/man1"]))
}

fn cargo(args: &[&str]) -> Result<(), String> {
    run(Command::new("cargo").args(args))
}

/// Runs a command to its end; its name and status make the error.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {status}")) }
}
