//! Chores: `cargo xtask test` sets up what tests need and runs them all.

use std::process::{Command, ExitCode};

/// Programs the tests run, the Debian package of each, and what it is for.
const NEEDED: [(&str, &str, &str); 4] = [
    ("gpg", "gnupg", "checks signatures"),
    ("xz", "xz-utils", "reads our archives"),
    ("tar", "tar", "unpacks our archives"),
    ("python3", "python3-minimal", "lists extended attributes"),
];

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("test") => set_up() && cargo(&["fmt", "--all", "--check"]) && cargo(&["test", "--workspace"]),
        _ => {
            eprintln!("usage: cargo xtask test");
            return ExitCode::from(2);
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn set_up() -> bool {
    let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let missing: Vec<_> = NEEDED.iter().filter(|(program, ..)| !found(program)).collect();
    if missing.is_empty() {
        return true;
    }
    for (program, package, why) in &missing {
        eprintln!("missing: {program} (package {package}), which {why}");
    }
    let packages: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
    if !run(Command::new("sh").args(["-c", "test $(id -u) = 0"])) {
        eprintln!("run: sudo apt-get install -y {}", packages.join(" "));
        return false;
    }
    run(Command::new("apt-get").arg("update"))
        && run(Command::new("apt-get").args(["install", "-y"]).args(packages))
}

fn cargo(args: &[&str]) -> bool {
    run(Command::new("cargo").args(args))
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}
