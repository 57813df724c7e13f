//! The host's programs that networking uses: `ip`, `tc`, `nft`, `dnsmasq`, `pasta`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::netlink;

/// Where they are, whatever `PATH` says: a supervisor has none.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The Debian package a program is in.
pub fn package(program: &str) -> &'static str {
    match program {
        "nft" => "nftables",
        "dnsmasq" => "dnsmasq-base",
        "pasta" => "passt",
        "nsenter" => "util-linux",
        _ => "iproute2",
    }
}

/// Where a program is; the error says what to install.
pub fn find(program: &str) -> Result<PathBuf, String> {
    let mut paths = DIRECTORIES.iter().map(|directory| Path::new(directory).join(program));
    let missing = || format!("{program} is not here; install the package {}", package(program));
    paths.find(|path| path.exists()).ok_or_else(missing)
}

/// Runs a program with a text as its input, and returns what it prints.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut child = Command::new(find(program)?)
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // One that ends without reading it says why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).take(3).collect();
    Err(format!("{program} failed: {}", lines.join("; ")))
}

/// Runs `ip` on lines of commands; the first that fails ends it.
pub fn ip(lines: &[String]) -> Result<(), String> {
    run("ip", &["-batch", "-"], &(lines.join("\n") + "\n")).map(drop)
}

/// Whether this network namespace has an interface.
pub fn exists(interface: &str) -> bool {
    netlink::index(interface).is_ok()
}

/// The same for the same text, for ever (FNV-1a).
pub fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
