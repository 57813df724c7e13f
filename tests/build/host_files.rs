//! Programs of this host, with the libraries they need, as files of a package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_image::archive::Member;

pub type Files = BTreeMap<PathBuf, Member>;

/// Adds programs, as `/usr/bin/NAME`, and what they are linked with.
pub fn programs(files: &mut Files, names: &[&str]) {
    for name in names {
        let directories = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        let path = directories.iter().map(|d| Path::new(d).join(name)).find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("{name} is missing; cargo xtask test installs it"));
        add(files, &path, &Path::new("usr/bin").join(name));
        libraries(files, &path);
    }
}

/// Adds everything in a directory but what `left_out` names (or starts, with a hyphen at its end),
/// and what its libraries are linked with.
pub fn directory(files: &mut Files, path: &str, left_out: &[&str]) {
    for item in fs::read_dir(path).unwrap_or_else(|e| panic!("{path}: {e}")).flatten() {
        let (inner, name) = (item.path(), item.file_name());
        let starts = |out: &str| out.ends_with('-') && name.to_string_lossy().starts_with(out);
        if left_out.iter().any(|out| name == *out || starts(out)) {
            continue;
        }
        if inner.is_dir() {
            directory(files, inner.to_str().unwrap(), left_out);
        } else if inner.is_file() {
            add(files, &inner, inner.strip_prefix("/").unwrap());
            if name.to_string_lossy().contains(".so") {
                libraries(files, &inner);
            }
        }
    }
}

fn libraries(files: &mut Files, path: &Path) {
    let ldd = Command::new("ldd").arg(path).output().unwrap().stdout;
    let found = String::from_utf8_lossy(&ldd).into_owned();
    let found: BTreeSet<_> = found.split_whitespace().filter(|word| word.starts_with('/')).collect();
    for library in found {
        let place = library.trim_start_matches('/');
        let place =
            if place.starts_with("usr") { PathBuf::from(place) } else { Path::new("usr").join(place) };
        if !files.contains_key(&place) {
            add(files, Path::new(library), &place);
        }
    }
}

fn add(files: &mut Files, from: &Path, place: &Path) {
    let data = fs::read(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    let mode = fs::metadata(from).unwrap().permissions().mode() & 0o755;
    files.insert(place.to_path_buf(), Member { mode, data });
}
