//! gpg itself accepts every signature in the tree, with the exported key and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Home, Published, succeed};

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(dir).unwrap().flatten() {
        // Follows the links of the layout; its hidden directories are reached through them.
        if item.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if item.path().is_dir() { files(&item.path(), found) } else { found.push(item.path()) }
    }
}

#[test]
fn gpg_verifies_all_of_them() {
    let published = Published::new();
    let gnupg = Home::new();
    fs::set_permissions(gnupg.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gpg = |args: &[&str]| {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--no-autostart", "--trust-model", "always", "--homedir"]);
        succeed(command.arg(gnupg.path()).args(args))
    };
    let exported = gnupg.path().join("exported.asc");
    published.home.run(&["key", "export", "--out", exported.to_str().unwrap()]);
    gpg(&["--import", exported.to_str().unwrap()]);
    let mut all = Vec::new();
    files(&published.root, &mut all);
    let mut verified = 0;
    for file in &all {
        let path = file.to_str().unwrap();
        let signed = path.strip_suffix(".asc").or_else(|| path.strip_suffix(".gpg"));
        if let Some(signed) = signed.filter(|signed| Path::new(signed).exists()) {
            gpg(&["--verify", path, signed]);
            verified += 1;
        } else if file.extension().is_some_and(|e| e == "sjson") {
            gpg(&["--verify", path]);
            verified += 1;
        }
    }
    // Two documents in two forms, LXC's indexes, and of the image: rootfs, meta, sums.
    assert!(verified >= 9, "only {verified} signatures in {all:#?}");
}
