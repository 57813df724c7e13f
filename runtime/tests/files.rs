//! Files into containers and out of them: what arrives, and that nothing leads outside.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use millstream_runtime::Error;
use millstream_runtime::container::PushOptions;
use support::{Container, World};

fn put(container: &Container, source: &Path, path: &str, options: &PushOptions) -> Result<(), Error> {
    container.world.runtime.push(&container.name, source, Path::new(path), options)
}

#[test]
fn trees_go_in_and_come_out_whether_it_runs_or_not() {
    let world = World::new();
    let container = world.launch("tree");
    let source = world.dir.path().join("source");
    fs::create_dir_all(source.join("sub/empty")).unwrap();
    fs::write(source.join("sub/file"), vec![b'x'; 300_000]).unwrap();
    fs::write(source.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.join("script"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/etc/shadow", source.join("link")).unwrap();
    let recursive = PushOptions { recursive: true, ..PushOptions::default() };
    for running in [true, false] {
        if !running {
            world.runtime.stop(&container.name, Duration::ZERO).unwrap();
        }
        assert!(
            put(&container, &source, "/opt", &PushOptions::default())
                .unwrap_err()
                .to_string()
                .contains("--recursive")
        );
        let path = format!("/opt-{running}");
        put(&container, &source, &path, &recursive).unwrap();
        let owner =
            PushOptions { uid: 1000, gid: 100, mode: Some(0o4755), parents: true, ..PushOptions::default() };
        put(&container, &source.join("script"), "/srv/a/b/prog", &owner).unwrap();
        put(&container, &source.join("script"), "/srv/a", &PushOptions::default()).unwrap();
        let out = world.dir.path().join(format!("out-{running}"));
        let pulled = world.runtime.pull(&container.name, Path::new(&path), &out, true).unwrap();
        assert_eq!((pulled.uid, pulled.gid), (0, 0));
        assert_eq!(fs::read(out.join("sub/file")).unwrap().len(), 300_000);
        assert!(out.join("sub/empty").is_dir());
        assert_eq!(fs::metadata(out.join("script")).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("/etc/shadow"));
        let pulled = world.runtime.pull(&container.name, Path::new("/srv/a/b/prog"), &out, false).unwrap();
        assert_eq!((pulled.uid, pulled.gid, pulled.mode), (1000, 100, 0o4755));
        assert_eq!(fs::metadata(out.join("prog")).unwrap().mode() & 0o7777, 0o755, "set-id bits stay behind");
        assert_eq!(fs::metadata(out.join("prog")).unwrap().uid(), 0, "the caller's");
    }
    world.runtime.start(&container.name).unwrap();
    let expected = "0:0:755\n1000:100:4755\n0:0:750\n0:0:777";
    assert_eq!(
        container.output("stat -c %u:%g:%a /opt-false/sub /srv/a/b/prog /srv/a/script /opt-true/link"),
        expected
    );
}

#[test]
fn streams_go_in_and_come_out() {
    let world = World::new();
    let container = world.launch("stream");
    let data = vec![7; 1 << 20];
    let path = Path::new("/tmp/stream");
    world.runtime.push_from(&container.name, &mut data.as_slice(), path, &PushOptions::default()).unwrap();
    let mut back = Vec::new();
    let pulled = world.runtime.pull_to(&container.name, path, &mut back).unwrap();
    assert!(back == data && pulled.mode == 0o644);
    let missing = world.runtime.pull_to(&container.name, Path::new("/no/such"), &mut Vec::new());
    assert!(missing.unwrap_err().to_string().contains("/no/such"));
    let no_parent = world.runtime.push_from(
        &container.name,
        &mut &b""[..],
        Path::new("/no/such"),
        &PushOptions::default(),
    );
    assert!(no_parent.unwrap_err().to_string().contains("/no/such"));
    for special in ["/dev/null", "/tmp"] {
        assert!(
            world.runtime.pull_to(&container.name, Path::new(special), &mut Vec::new()).is_err(),
            "{special}"
        );
    }
}

const PATHS: [&str; 7] =
    ["/leaf", "/dir/secret", "/up/secret", "/magic/secret", "/../../../secret", "/cwd/secret", "/loop"];

/// The container's root lays the traps.
#[test]
fn no_link_leads_out_of_the_container() {
    let world = World::new();
    let container = world.launch("trap");
    let secret = world.dir.path().join("secret");
    fs::write(&secret, "of the host").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).unwrap();
    let outside = world.dir.path().to_str().unwrap();
    let traps = format!(
        "ln -s {outside}/secret /leaf; ln -s {outside} /dir; ln -s ../../../../../../..{outside} /up;
         ln -s /proc/1/root{outside} /magic; ln -s /proc/self/cwd /cwd; ln -s loop /loop; mkdir /d; ln -s {outside} /d/in"
    );
    assert_eq!(container.sh(&traps), 0);
    for running in [true, false] {
        if !running {
            world.runtime.stop(&container.name, Duration::ZERO).unwrap();
        }
        for path in PATHS {
            let mut out = Vec::new();
            assert!(world.runtime.pull_to(&container.name, Path::new(path), &mut out).is_err(), "{path}");
            assert!(out.is_empty(), "{path}");
        }
        // Pulled as links, and not gone through on the host either.
        let out = world.dir.path().join(format!("out-{running}"));
        world.runtime.pull(&container.name, Path::new("/d"), &out, true).unwrap();
        assert!(fs::symlink_metadata(out.join("in")).unwrap().is_symlink());
        let source = world.dir.path().join("source");
        fs::create_dir_all(source.join("in")).unwrap();
        fs::write(source.join("in/secret"), "from outside").unwrap();
        let options = PushOptions { recursive: true, ..PushOptions::default() };
        let file = world.dir.path().join("d");
        fs::rename(&source, &file).unwrap();
        assert!(put(&container, &file, "/", &options).is_err(), "a link stands where a directory is to be");
        fs::rename(&file, &source).unwrap();
    }
    for path in PATHS {
        // What is written, if anything, is written inside.
        let (mut data, options) = (&b"from outside"[..], PushOptions::default());
        let _ = world.runtime.push_from(&container.name, &mut data, Path::new(path), &options);
        assert_eq!(fs::read(&secret).unwrap(), b"of the host", "{path}");
    }
    assert_eq!(fs::read_dir(world.dir.path().join("containers")).unwrap().count(), 2);
}
