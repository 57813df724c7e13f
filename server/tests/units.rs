//! The units shipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The highest exposure level each service may have, tenfold as `--threshold` takes it. Why some need
/// more than 2.5 stands in the unit.
const EXPOSURE: [(&str, u32); 7] = [
    ("millstream-containers.service", 82),
    ("millstream-daily-once.service", 75),
    ("millstream-daily.service", 75),
    ("millstream-refresh.service", 25),
    ("millstream-serve.service", 25),
    ("millstream-sign@.service", 25),
    ("millstream-snapshots.service", 65),
];

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn files(dir: &Path) -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

fn analyze(args: &[&str], unit: &Path) -> (bool, String) {
    // For units of users.
    let runtime = unit.parent().unwrap();
    let output =
        Command::new("systemd-analyze").args(args).arg(unit).env("XDG_RUNTIME_DIR", runtime).output();
    let output = output.expect("systemd-analyze, of the package systemd");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn every_service_is_as_hardened_as_its_work_allows() {
    let services: Vec<_> = files(&units()).into_keys().filter(|name| name.ends_with(".service")).collect();
    assert_eq!(services, EXPOSURE.map(|(name, _)| name), "each has its bound here");
    for (name, most) in EXPOSURE {
        let threshold = format!("--threshold={most}");
        let (good, text) =
            analyze(&["security", "--offline=true", "--no-pager", &threshold], &units().join(name));
        assert!(good, "{text}");
    }
}

#[test]
fn systemd_understands_every_line_of_every_unit() {
    let dir = tempfile::tempdir().unwrap();
    for (from, kind) in [(units(), "--system"), (units().join("user"), "--user")] {
        let copies = dir.path().join(kind);
        fs::create_dir(&copies).unwrap();
        let units = files(&from);
        assert!(!units.is_empty());
        for (name, path) in &units {
            // The program need not be installed here.
            let text = fs::read_to_string(path).unwrap().replace("/usr/local/bin/millstream", "/bin/true");
            fs::write(copies.join(name), text).unwrap();
        }
        for name in units.keys() {
            let (good, text) = analyze(&["verify", "--man=no", kind], &copies.join(name));
            assert!(good && !text.contains("millstream"), "{name}: {text}");
        }
    }
}
