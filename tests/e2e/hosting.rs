//! nginx, Apache and Caddy serve a stream with the configurations that `stream export-config` prints.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_image::Sha256Digest;

use crate::lxd::busybox;
use crate::support::lxd::Lxd;
use crate::support::web::{Kind, Web};
use crate::support::{Home, Server, succeed};

const IMAGE: &str = "images/tiny/1/amd64/default/20260101_0000";

/// A stream of a tiny image with a unified archive, and a certificate for loopback.
struct Site {
    home: Home,
    root: PathBuf,
    tls: PathBuf,
}

impl Site {
    fn new() -> Self {
        let home = Home::new();
        // Hidden directories and blanks above the tree mean nothing.
        let root = home.path().join(".hidden").join("a tree");
        let site = Self { root, tls: home.path().join("config/tls"), home };
        fs::create_dir(site.root.parent().unwrap()).unwrap();
        site.home.run(&["stream", "init", site.root()]);
        busybox(&site.home.path().join("root"));
        site.publish("20260101_0000");
        // Makes the certificate.
        drop(Server::start(&site.home, &site.root));
        site
    }

    fn root(&self) -> &str {
        self.root.to_str().unwrap()
    }

    fn publish(&self, serial: &str) {
        let text = |name: &str| self.home.path().join(name).to_str().unwrap().to_owned();
        let (out, serial) = (text(serial), format!("image.serial={serial}"));
        self.home.run(&[
            "pack",
            &text("root"),
            "--out",
            &out,
            "-o",
            &serial,
            "-o",
            "image.architecture=amd64",
        ]);
        self.home.run(&["stream", "add", self.root(), &out, "--unified"]);
    }

    fn serve(&self, kind: Kind) -> Web {
        Web::start(kind, &self.home, &self.root, &self.tls)
    }

    fn hash(&self, path: &str) -> String {
        Sha256Digest::of(&fs::read(self.root.join(path)).unwrap()).to_string()
    }

    /// Status and head of an answer to curl, names of headers in lower case; and the body.
    fn curl(&self, url: &str, args: &[&str]) -> (u16, String, Vec<u8>) {
        let out = tempfile::NamedTempFile::new().unwrap();
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "--path-as-is", "--max-time", "60", "-D", "-", "-o"]).arg(out.path());
        command.arg("--cacert").arg(self.tls.join("ca.crt")).args(args).arg(url);
        let head = succeed(&mut command);
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        let lines = head.lines().map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}\n", name.to_lowercase()),
            None => format!("{line}\n"),
        });
        (status, lines.collect(), fs::read(out.path()).unwrap())
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

/// Documents and images, as our own server gives them.
fn gives_files_with_types_and_times(site: &Site, web: &Web) {
    const FOR_EVER: &str = "public, max-age=31536000, immutable";
    let by_hash = fs::read_dir(site.root.join("streams/v1/by-hash")).unwrap().next().unwrap().unwrap();
    let by_hash = format!("/streams/v1/by-hash/{}", by_hash.file_name().to_str().unwrap());
    for (path, media, cache) in [
        ("/streams/v1/index.json", "application/json", "no-cache"),
        ("/streams/v1/images-tiny.json", "application/json", "no-cache"),
        (&by_hash, "application/json", FOR_EVER),
        ("/streams/v1/index.sjson", "text/plain", "no-cache"),
        ("/streams/v1/index.json.gpg", "application/pgp-signature", "no-cache"),
        ("/key.asc", "application/pgp-keys", "no-cache"),
        ("//meta/1.0/index-system.7", "text/plain", "no-cache"),
        ("/meta/1.0/index-user.asc", "application/pgp-signature", "no-cache"),
        ("/index.html", "text/html", "no-cache"),
        (&format!("/{IMAGE}/rootfs.tar.xz"), "application/x-xz", FOR_EVER),
        (&format!("/{IMAGE}//meta.tar.xz"), "application/x-xz", FOR_EVER),
        (&format!("/{IMAGE}/SHA256SUMS"), "text/plain", FOR_EVER),
        (&format!("/{IMAGE}/index.html"), "text/html", "no-cache"),
    ] {
        let (status, head, body) = site.curl(&format!("{}{path}", web.url), &[]);
        assert_eq!(status, 200, "{path}: {head}");
        assert_eq!(body, fs::read(site.root.join(path.trim_start_matches('/'))).unwrap(), "{path}");
        assert_eq!(header(&head, "content-type").split(';').next(), Some(media), "{path}: {head}");
        assert_eq!(header(&head, "cache-control"), cache, "{path}: {head}");
        assert_eq!(header(&head, "x-content-type-options"), "nosniff", "{path}: {head}");
        assert_eq!(header(&head, "content-encoding"), "", "{path}: {head}");
        assert!(!header(&head, "etag").is_empty(), "{path}: {head}");
    }
    let (status, head, page) = site.curl(&format!("{}/", web.url), &[]);
    assert_eq!((status, page), (200, fs::read(site.root.join("index.html")).unwrap()), "{head}");
    assert!(header(&head, "content-security-policy").contains("default-src 'none'"), "{head}");
    let accept = ["-H", "Accept-Encoding: gzip"];
    let zipped = |path: &str| {
        let (_, head, _) = site.curl(&format!("{}{path}", web.url), &accept);
        header(&head, "content-encoding") == "gzip"
    };
    assert!(zipped("/streams/v1/images-tiny.json") && zipped("/index.html"), "documents shrink");
    assert!(!zipped(&format!("/{IMAGE}/rootfs.tar.xz")), "images do not");
    let (status, head, part) = site.curl(&format!("{}/{IMAGE}/rootfs.tar.xz", web.url), &["-r", "6-9"]);
    assert_eq!((status, part.len()), (206, 4), "{head}");
}

fn refuses_what_is_hidden(site: &Site, web: &Web) {
    for path in [
        "/.documents/current/index.html",
        "/.documents/current/direct/tiny.map",
        "/%2edocuments/current/index.html",
        "//.documents/current/index.html",
        "/.lock",
        "/images/../.lock",
        "/streams/../.documents/current/index.html",
        "/direct/.documents/current/index.html",
        "/..%2f.hidden/a%20tree/.lock",
        "/missing",
    ] {
        let (status, head, _) = site.curl(&format!("{}{path}", web.url), &[]);
        assert!(matches!(status, 400 | 403 | 404), "{path}: {head}");
    }
    let (status, head, _) = site.curl(&format!("{}/", web.url), &["-X", "DELETE"]);
    assert!((403..=405).contains(&status), "{head}");
}

fn says_where_an_import_finds_the_image(site: &Site, web: &Web, image: &str) {
    let path = format!("{image}/unified.tar.xz");
    let hash = site.hash(&path);
    for (alias, architectures) in [
        ("tiny/1", ""),
        ("tiny/1/default", "LXD-Server-Architectures: x86_64, i686"),
        ("tiny/1", "Incus-Server-Architectures: aarch64,armv7l, x86_64"),
        ("tiny/1/amd64", "LXD-Server-Architectures: aarch64, armv7l"),
        ("tiny/1/x86_64", ""),
    ] {
        for method in [&["-I"][..], &[]] {
            let args =
                [method, &["-H", architectures][..if architectures.is_empty() { 0 } else { 2 }]].concat();
            let (status, head, _) = site.curl(&format!("{}/direct/{alias}", web.url), &args);
            assert_eq!(status, 200, "{alias} {architectures}: {head}");
            for family in ["lxd", "incus"] {
                assert_eq!(header(&head, &format!("{family}-image-hash")), hash, "{alias}: {head}");
                let url = header(&head, &format!("{family}-image-url"));
                assert_eq!(url, format!("{}/{path}", web.url), "{alias}: {head}");
            }
            assert_eq!(header(&head, "cache-control"), "no-cache", "{alias}: {head}");
        }
    }
    for (alias, architectures) in [
        ("tiny/1", "LXD-Server-Architectures: aarch64, armv7l"),
        ("tiny/1", "LXD-Server-Architectures: ;"),
        ("tiny/1/arm64", ""),
        ("tiny/1/", ""),
        ("tiny/2", ""),
        ("tiny", ""),
        ("none", "LXD-Server-Architectures: x86_64"),
    ] {
        let args = ["-H", architectures];
        let args = if architectures.is_empty() { &[][..] } else { &args[..] };
        let (status, head, _) = site.curl(&format!("{}/direct/{alias}", web.url), args);
        assert_eq!(status, 404, "{alias} {architectures}: {head}");
        assert_eq!(header(&head, "lxd-image-hash"), "", "{alias}: {head}");
    }
}

fn all_of(kind: Kind) -> (Site, Web) {
    let site = Site::new();
    let web = site.serve(kind);
    gives_files_with_types_and_times(&site, &web);
    refuses_what_is_hidden(&site, &web);
    says_where_an_import_finds_the_image(&site, &web, IMAGE);
    (site, web)
}

#[test]
fn nginx_serves_all_and_lxd_and_incus_import_from_it() {
    let (site, web) = all_of(Kind::Nginx);
    site.publish("20260102_0000");
    web.reload();
    let newer = IMAGE.replace("20260101", "20260102");
    let (path, hash) = (format!("{newer}/unified.tar.xz"), site.hash(&format!("{newer}/unified.tar.xz")));
    crate::support::wait_for("nginx's reload", 30, || {
        let (_, head, _) = site.curl(&format!("{}/direct/tiny/1", web.url), &["-I"]);
        header(&head, "lxd-image-hash") == hash
    });
    says_where_an_import_finds_the_image(&site, &web, &newer);
    imports(&site, &web.url, &hash);
    assert!(site.root.join(path).exists());
}

/// LXD, Incus and our own client, from an address.
fn imports(site: &Site, url: &str, hash: &str) {
    for daemon in [Lxd::start, Lxd::incus] {
        let daemon = daemon(&site.tls.join("ca.crt"));
        daemon.run(&["image", "import", &format!("{url}/direct/tiny/1"), "--alias", "tiny"]);
        let info = daemon.run(&["image", "info", "tiny"]);
        assert!(info.contains(hash), "{info}");
        daemon.run(&["launch", "tiny", "c1"]);
        assert_eq!(daemon.run(&["exec", "c1", "--", "/bin/busybox", "cat", "/etc/hostname"]).trim(), "c1");
    }
    let mut own = site.home.command(&["image", "import", &format!("{url}/direct/tiny/1/amd64")]);
    assert_eq!(succeed(own.env("SSL_CERT_FILE", site.tls.join("ca.crt"))).trim(), hash);
}

#[test]
fn our_own_server_says_the_same_and_lxd_and_incus_import_from_it() {
    let site = Site::new();
    let server = Server::start(&site.home, &site.root);
    imports(&site, &server.url, &site.hash(&format!("{IMAGE}/unified.tar.xz")));
}

#[test]
fn apache_serves_all_and_follows_what_is_published() {
    let (site, web) = all_of(Kind::Apache);
    site.publish("20260102_0000");
    says_where_an_import_finds_the_image(&site, &web, &IMAGE.replace("20260101", "20260102"));
}

#[test]
fn caddy_serves_all() {
    all_of(Kind::Caddy);
}

#[test]
fn what_cannot_stand_in_a_configuration_is_told() {
    let home = Home::new();
    let root = home.path().join("a$tree");
    home.run(&["stream", "init", root.to_str().unwrap()]);
    let export = |server: &str, root: &Path, host: &str| {
        home.fail(&["stream", "export-config", server, root.to_str().unwrap(), "--host", host])
    };
    for server in ["nginx", "apache", "caddy"] {
        assert!(export(server, &root, "images.example").contains("use a link"));
        assert!(export(server, &root, "a;b").contains("name of a host"));
        assert!(export(server, home.path(), "images.example").contains("not a stream"));
    }
}
