use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::*;

/// A host with these files.
fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let host = Host { root: dir.path().to_path_buf() };
    (dir, host)
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const ENABLED: (&str, &str) = ("sys/module/apparmor/parameters/enabled", "Y\n");
const PROFILES: &str = "sys/kernel/security/apparmor/profiles";

#[test]
fn without_a_security_module_there_is_no_label() {
    for files in [&[][..], &[("sys/module/apparmor/parameters/enabled", "N\n")]] {
        let (_dir, host) = host(files);
        assert_eq!(host.choose(&Settings::new()), (None, None));
        assert_eq!(host.of(1), None);
        let (label, note) = host.choose(&settings(&[("security.apparmor.profile", "mine")]));
        assert!(label.is_none() && note.unwrap().contains("security.apparmor.profile has no effect"));
    }
}

#[test]
fn a_loaded_profile_is_used() {
    let loaded = "lxc-container (enforce)\nmillstream-1 (enforce)\nmillstream-nesting-1 (complain)\n";
    let (_dir, host) = host(&[ENABLED, (PROFILES, loaded)]);
    let label = |pairs: &[(&str, &str)]| host.choose(&settings(pairs)).0;
    assert_eq!(label(&[]), Some(Label::AppArmor("millstream-1".into())));
    let nesting = label(&[("security.nesting", "true")]);
    assert_eq!(nesting, Some(Label::AppArmor("millstream-nesting-1".into())));
    assert_eq!(label(&[("security.apparmor.profile", "mine")]), Some(Label::AppArmor("mine".into())));
    assert_eq!(label(&[("security.apparmor.profile", "unconfined")]), None);
}

#[test]
fn one_that_is_not_loaded_goes_to_the_parser() {
    let files = [ENABLED, (PROFILES, "other (enforce)\nmillstream-10 (enforce)\n")];
    let (_dir, without) = host(&files);
    assert_eq!(without.choose(&Settings::new()), (None, None), "no parser");
    let (dir, with) = host(&files);
    let parser = dir.path().join("usr/sbin/apparmor_parser");
    fs::create_dir_all(parser.parent().unwrap()).unwrap();
    let script = |text: &str| {
        fs::write(&parser, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&parser, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(&format!("cat > {}/given", dir.path().display()));
    assert_eq!(with.choose(&Settings::new()), (Some(Label::AppArmor("millstream-1".into())), None));
    assert_eq!(fs::read_to_string(dir.path().join("given")).unwrap(), apparmor::text(false));
    script("cat >/dev/null; echo first >&2; echo it is broken >&2; exit 1");
    let (label, note) = with.choose(&Settings::new());
    assert!(label.is_none() && note.unwrap().ends_with("failed: it is broken"));
}

#[test]
fn selinux_gets_the_context_that_was_set() {
    let (_dir, host) = host(&[("sys/fs/selinux/enforce", "1"), ("proc/7/attr/current", "u:r:t:s0\0")]);
    assert_eq!(host.choose(&Settings::new()), (None, None));
    let context = "system_u:system_r:container_init_t:s0:c1,c2";
    let (label, _) = host.choose(&settings(&[("security.selinux.context", context)]));
    assert_eq!(label, Some(Label::SeLinux(context.into())));
    assert_eq!(host.of(7), Some(Label::SeLinux("u:r:t:s0".into())));
}

#[test]
fn commands_get_the_label_that_init_has() {
    let (_dir, host) = host(&[
        ENABLED,
        ("proc/7/attr/apparmor/current", "millstream-1 (enforce)\n"),
        ("proc/8/attr/current", "unconfined\n"),
    ]);
    assert_eq!(host.of(7), Some(Label::AppArmor("millstream-1".into())));
    assert_eq!(host.of(8), None);
    assert_eq!(host.of(9), None);
}

#[test]
fn a_label_is_written_where_the_kernel_reads_it() {
    for (files, file, label, text) in [
        (&["self/attr/exec", "self/attr/apparmor/exec"][..], 1, Label::AppArmor("p".into()), "exec p"),
        (&["self/attr/exec"], 0, Label::AppArmor("p".into()), "exec p"),
        (&["self/attr/exec"], 0, Label::SeLinux("u:r:t".into()), "u:r:t"),
    ] {
        let (dir, _host) = host(&files.iter().map(|file| (*file, "")).collect::<Vec<_>>());
        let proc = fs::File::open(dir.path()).unwrap();
        label.write(proc.as_fd()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(files[file])).unwrap(), text);
    }
    let (dir, _host) = host(&[]);
    let proc = fs::File::open(dir.path()).unwrap();
    assert!(Label::AppArmor("p".into()).write(proc.as_fd()).unwrap_err().contains("takes none"));
}

#[test]
fn labels_are_single_words() {
    assert!(is_label("lxc-container-default") && is_label("system_u:system_r:t:s0:c1,c2"));
    for bad in ["", "a b", "a\nb", "a\0", &"x".repeat(256)] {
        assert!(!is_label(bad), "{bad:?}");
    }
}

/// Needs the Debian package apparmor; the kernel is not asked.
#[test]
fn apparmors_own_parser_takes_the_profiles() {
    use std::io::Write;
    for nesting in [false, true] {
        let mut child = Command::new("/usr/sbin/apparmor_parser")
            .args(["--skip-kernel-load", "--skip-cache", "--debug"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(apparmor::text(nesting).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains(&apparmor::name(nesting)), "{said}");
    }
}
