//! What an image brings besides its files: configuration, templates, lists of paths. None of it reaches the
//! host, though the image is well signed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::support::{Fixture, NAME, PRODUCT, Tree, files};
use millstream_client::lxc::{Came, Container, Files, Mode, create};
use millstream_image::archive::{Member, PackOptions, pack_members};

fn archive(members: &[(&str, &str)]) -> Vec<u8> {
    let members: BTreeMap<_, _> =
        members.iter().map(|(name, text)| (PathBuf::from(name), Member::file(*text))).collect();
    pack_members(&members, Vec::new(), &PackOptions::default()).unwrap().0
}

#[tokio::test]
async fn templates_that_lead_out_of_the_container_are_refused() {
    for (target, template) in [
        ("/etc/hostname", "../../secret"),
        ("/etc/hostname", "/etc/passwd"),
        ("/../../etc/x", "x"),
        ("x", "x"),
    ] {
        let yaml = format!(
            "architecture: x86_64\ncreation_date: 1\ntemplates:\n  {target}: {{when: [start], template: {template}}}\n"
        );
        let mut tree = Tree::empty();
        tree.add_with_metadata(PRODUCT, "20260101_0000", 1000, &archive(&[("metadata.yaml", &yaml)]));
        tree.publish();
        let fixture = Fixture::with_remote(&tree, &tree.url()).await;
        let error = fixture.fetch(NAME).await.expect_err(&yaml).to_string();
        assert!(error.contains("template"), "{yaml}: {error}");
        fixture.assert_store_empty();
    }
}

/// A container as `lxc-create` prepares it, with a host around it; what the image may not touch is compared.
struct Host {
    dir: tempfile::TempDir,
    container: Container,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        fs::create_dir_all(path.join("rootfs")).unwrap();
        fs::write(path.join("config"), "lxc.net.0.type = empty\n").unwrap();
        fs::write(dir.path().join("secret"), "LXC_NAME\n").unwrap();
        let container = Container {
            name: "c".into(),
            rootfs: path.join("rootfs"),
            path,
            mode: Mode::System,
            owner: (None, None),
            share: Some(dir.path().join("share")),
        };
        Self { dir, container }
    }

    /// Creates from these members of `meta.tar.xz`; `etc/x` of the root file system leads to the secret.
    fn create(&self, meta: &[(&str, &str)]) -> Result<String, String> {
        let source = self.dir.path().join("source");
        fs::create_dir_all(source.join("etc")).unwrap();
        let _ = symlink("../../../secret", source.join("etc/x"));
        let _ = symlink("../..", source.join("up"));
        let rootfs = self.dir.path().join("rootfs.tar");
        let packed = millstream_image::archive::pack(&source, Vec::new(), &PackOptions::default()).unwrap();
        fs::write(&rootfs, packed.0).unwrap();
        let file = self.dir.path().join("meta.tar");
        fs::write(&file, archive(meta)).unwrap();
        let files = Files { rootfs, meta: file, build: "1".into(), came: Came::Fetched };
        create(&self.container, &files, false).map_err(|e| e.to_string())
    }

    fn secret(&self) -> String {
        fs::read_to_string(self.dir.path().join("secret")).unwrap()
    }
}

#[test]
fn configuration_that_reaches_the_host_is_refused_before_anything_is_unpacked() {
    for bad in [
        "lxc.hook.pre-start = /bin/sh -c id",
        "lxc.mount.entry = / mnt none bind 0 0",
        "lxc.include = /etc/passwd",
        "lxc.apparmor.profile = unconfined",
        "lxc.cgroup2.devices.allow = a",
        "lxc.cap.drop =",
        "lxc.rootfs.path = dir:/",
        "lxc.idmap = u 0 0 4294967295",
        "lxc.log.file = /etc/cron.d/x",
    ] {
        let host = Host::new();
        let before = files(&host.container.path);
        let error = host.create(&[("config", bad)]).unwrap_err();
        assert!(error.contains("config") && error.contains("refused"), "{bad}: {error}");
        assert_eq!(files(&host.container.path), before, "{bad}");
    }
    let host = Host::new();
    let error = host.create(&[("config", ""), ("fstab", "/ mnt none bind 0 0\n")]).unwrap_err();
    assert!(error.contains("fstab") && error.contains("refused"), "{error}");
}

#[test]
fn paths_an_image_lists_do_not_leave_its_root() {
    for path in ["/etc/x", "../../secret", "up/secret", "/up/up/secret", "etc/../../../secret"] {
        let host = Host::new();
        host.create(&[("config", "lxc.arch = x86_64\n"), ("templates", path)]).ok();
        assert_eq!(host.secret(), "LXC_NAME\n", "templates: {path}");
        let host = Host::new();
        host.create(&[("config", "lxc.arch = x86_64\n"), ("excludes", path)]).ok();
        assert_eq!(host.secret(), "LXC_NAME\n", "excludes: {path}");
    }
    // The same list, with a path that stays inside, does its work.
    let host = Host::new();
    host.create(&[("config", "lxc.arch = x86_64\n"), ("excludes", "etc/x")]).unwrap();
    assert!(fs::symlink_metadata(host.container.rootfs.join("etc/x")).is_err());
    assert!(fs::symlink_metadata(host.container.rootfs.join("up")).is_ok());
}
