//! `millstream mirror` against real servers: ours over HTTPS, and an LXC index tree on nginx.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::nginx::Nginx;
use crate::support::{Home, end, shell, wait_for};

const RECIPE: &str = "image:\n  distribution: tiny\n  release: one\n  architecture: amd64\n\
    source:\n  downloader: rootfs-http\n  url: none.tar\npackages:\n  manager: apt\n\
    targets:\n  lxc:\n    config:\n      - type: all\n        content: lxc.arch = linux64\n";

/// What does not get smaller in the image.
const SIZE: u64 = 2_000_000;

/// A stream with one image of 2 MB, served by ours, and the home whose key signs it.
struct Upstream {
    home: Home,
    root: PathBuf,
    url: String,
    ca: PathBuf,
    server: Child,
}

impl Upstream {
    fn start() -> Self {
        let home = Home::new();
        let path = |name: &str| home.path().join(name);
        fs::create_dir_all(path("rootfs/etc")).unwrap();
        fs::write(path("rootfs/etc/issue"), "tiny\n").unwrap();
        let noise = format!("head -c {SIZE} /dev/urandom > \"$AT\"");
        shell(&noise, &[("AT", &path("rootfs/noise"))]);
        fs::write(path("recipe.yaml"), RECIPE).unwrap();
        let (rootfs, recipe, out) = (path("rootfs"), path("recipe.yaml"), path("image"));
        let [rootfs, recipe, out] = [&rootfs, &recipe, &out].map(|path| path.to_str().unwrap());
        home.run(&["pack", rootfs, "--metadata", recipe, "--out", out, "--compression", "xz:0"]);
        let root = path("tree");
        home.run(&["stream", "init", root.to_str().unwrap()]);
        home.run(&["stream", "add", root.to_str().unwrap(), out]);
        let mut serve = home.command(&["serve", "--root", root.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        let messages = path("messages");
        let server = serve.stderr(File::create(&messages).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        let ca = path("config/tls/ca.crt");
        let mut upstream = Self { home, root, url: String::new(), ca, server };
        wait_for("the server", 60, || upstream.messages().contains(" at https://"));
        let said = upstream.messages();
        let url = said.split_once(" at ").unwrap().1.split_whitespace().next().unwrap();
        url.clone_into(&mut upstream.url);
        upstream
    }

    /// What the server said, with its access log.
    fn messages(&self) -> String {
        fs::read_to_string(self.home.path().join("messages")).unwrap()
    }

    fn key(&self) -> PathBuf {
        self.root.join("key.asc")
    }

    /// Arguments that mirror all of it to `root`.
    fn to<'a>(&'a self, root: &'a Path, more: &[&'a str]) -> Vec<String> {
        let (key, ca) = (self.key(), self.ca.clone());
        let args = ["mirror", &self.url, root.to_str().unwrap(), "--key", key.to_str().unwrap(), "--ca"];
        [&args[..], &[ca.to_str().unwrap()], more].concat().into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        end(&mut self.server);
    }
}

fn run(home: &Home, args: &[String]) -> String {
    home.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The root file systems below a tree, by their bytes.
fn rootfs(root: &Path) -> Vec<u8> {
    let mut open = vec![root.join("images")];
    while let Some(dir) = open.pop() {
        for item in fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()) {
            match item.file_name().unwrap().to_str() {
                Some("rootfs.tar.xz") => return fs::read(item).unwrap(),
                _ if item.is_dir() => open.push(item),
                _ => {}
            }
        }
    }
    panic!("no image in {}", root.display())
}

#[test]
fn another_server_is_mirrored_no_faster_than_allowed() {
    let (upstream, home) = (Upstream::start(), Home::new());
    let root = home.path().join("copy");
    let began = Instant::now();
    let added = run(&home, &upstream.to(&root, &["--limit-rate", "1MB", "--format", "csv"]));
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(added.contains("tiny:one:amd64:default,"), "{added}");
    home.run(&["stream", "verify", root.to_str().unwrap()]);
    assert!(rootfs(&root) == rootfs(&upstream.root));
    // The copy has a key of its own.
    assert_ne!(fs::read(root.join("key.asc")).unwrap(), fs::read(upstream.key()).unwrap());
    let again = run(&home, &upstream.to(&root, &["--format", "json"]));
    assert!(again.contains("\"added\": []") && again.contains("\"present\": 1"), "{again}");
    // Nobody said that this server may be believed.
    let root = home.path().join("other");
    let ca = upstream.ca.to_str().unwrap();
    let stranger = home.fail(&["mirror", &upstream.url, root.to_str().unwrap(), "--ca", ca]);
    assert!(stranger.contains("--key"), "{stranger}");
}

#[test]
fn a_killed_mirroring_goes_on_where_it_was() {
    let (upstream, home) = (Upstream::start(), Home::new());
    let root = home.path().join("copy");
    let slow = upstream.to(&root, &["--limit-rate", "300KB"]);
    let mut slow = home.command(&slow.iter().map(String::as_str).collect::<Vec<_>>());
    let mut slow = slow.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let largest = || {
        let dirs = fs::read_dir(root.join(".mirror")).into_iter().flatten().flatten();
        let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten());
        files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).max().unwrap_or(0)
    };
    wait_for("a part", 60, || largest() > 200_000);
    slow.kill().unwrap();
    slow.wait().unwrap();
    assert!(largest() < SIZE, "all of it had come");
    assert!(!root.join("images/tiny").exists(), "half an image is listed");
    run(&home, &upstream.to(&root, &[]));
    home.run(&["stream", "verify", root.to_str().unwrap()]);
    assert!(rootfs(&root) == rootfs(&upstream.root));
    let said = upstream.messages();
    assert!(said.lines().any(|line| line.contains("rootfs.tar.xz") && line.contains("\" 206 ")), "{said}");
}

#[test]
fn an_index_tree_on_nginx_is_mirrored() {
    let (upstream, home) = (Upstream::start(), Home::new());
    // LXC's index, images, and nothing of ours.
    let tree = home.path().join("tree");
    shell(
        "mkdir -p \"$TO\"; cp -rL \"$FROM/meta\" \"$FROM/images\" \"$TO\"; find \"$TO\" -name manifest.json -delete",
        &[("FROM", &upstream.root), ("TO", &tree)],
    );
    let nginx = Nginx::start(
        &tree,
        &upstream.ca.with_file_name("server.crt"),
        &upstream.ca.with_file_name("server.key"),
    );
    let root = home.path().join("copy");
    let (key, ca) = (upstream.key(), upstream.ca.clone());
    let args =
        ["mirror", &nginx.url, root.to_str().unwrap(), "--ca", ca.to_str().unwrap(), "--format", "csv"];
    let added = home.run(&[&args[..], &["--key", key.to_str().unwrap()]].concat());
    assert!(added.contains("tiny:one:amd64:default,"), "{added}");
    home.run(&["stream", "verify", root.to_str().unwrap()]);
    assert!(rootfs(&root) == rootfs(&upstream.root));
    // A tree that nobody signed, as the user says.
    shell("find \"$TO\" -name '*.asc' -delete", &[("TO", &tree)]);
    let other = Home::new();
    let args = args.map(|arg| if arg == root.to_str().unwrap() { "copy" } else { arg });
    let refused = other
        .command(&[&args[..], &["--key", key.to_str().unwrap()]].concat())
        .current_dir(other.path())
        .output();
    assert_eq!(refused.unwrap().status.code(), Some(1), "the signature is gone");
    let mut waived = other.command(&[&args[..], &["--insecure-no-signature"]].concat());
    let waived = waived.current_dir(other.path()).output().unwrap();
    assert!(waived.status.success(), "{}", String::from_utf8_lossy(&waived.stderr));
    assert!(String::from_utf8_lossy(&waived.stderr).contains("NOT SIGNED"));
    assert!(rootfs(&other.path().join("copy")) == rootfs(&upstream.root));
}

#[test]
fn a_server_mirrors_at_its_times() {
    let (upstream, home) = (Upstream::start(), Home::new());
    let own = home.path().join("own");
    home.run(&["stream", "init", own.to_str().unwrap()]);
    let config = home.path().join("server.toml");
    let text = format!(
        "[serve]\nroot = {own:?}\nlisten = \"127.0.0.1:0\"\n\
         [[mirror]]\nname = \"tiny\"\nschedule = \"* * * * * *\"\nurl = {:?}\nroot = \"copy\"\nkey = {:?}\nca = {:?}\n",
        upstream.url,
        upstream.key(),
        upstream.ca
    );
    fs::write(&config, text).unwrap();
    let mut server = home.command(&["serve", "--config", config.to_str().unwrap()]);
    let mut server = server.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let copy = home.path().join("copy");
    let came = crate::support::within(60, || {
        let list = home.command(&["stream", "list", copy.to_str().unwrap(), "--format", "csv"]).output();
        String::from_utf8_lossy(&list.unwrap().stdout).contains("tiny")
    });
    end(&mut server);
    assert!(came, "nothing was mirrored");
    home.run(&["stream", "verify", copy.to_str().unwrap()]);
    assert!(rootfs(&copy) == rootfs(&upstream.root));
}
