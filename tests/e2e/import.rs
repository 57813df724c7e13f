//! Images that no remote offers: out of files, out of an OCI layout, from an address with headers.

use std::fs;
use std::path::PathBuf;

use millstream_image::Sha256Digest;

use crate::lxd::busybox;
use crate::support::nginx::Nginx;
use crate::support::{Home, shell};

/// A tiny image in every form, and a home to import it into.
pub struct Forms {
    pub home: Home,
}

impl Forms {
    pub fn new(formats: &str) -> Self {
        let home = Home::new();
        let forms = Self { home };
        busybox(&forms.path("root"));
        let (root, out) = (forms.text("root"), forms.text("image"));
        forms.home.run(&["pack", &root, "--out", &out, formats, "--compression", "gzip"]);
        forms
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn hash(&self, files: &[&str]) -> String {
        let all: Vec<_> = files.iter().map(|file| fs::read(self.path(file)).unwrap()).collect();
        Sha256Digest::of(&all.concat()).to_string()
    }

    /// A container of it comes up, and goes.
    fn launch(&self, image: &str) {
        let name = format!("import-{image}");
        self.home.run(&["launch", image, &name]);
        let says = self.home.run(&["exec", &name, "--", "/bin/busybox", "cat", "/etc/os-release"]);
        self.home.run(&["delete", "--force", &name]);
        assert!(says.contains("Tiny One"), "{says}");
    }
}

#[test]
fn files_are_imported_launched_and_exported_bit_by_bit() {
    let forms = Forms::new("--format=unified,squashfs,oci");
    let home = &forms.home;
    let found = home.run(&[
        "image",
        "import",
        &forms.text("image/unified.tar.gz"),
        "note=mine",
        "--alias",
        "unified",
        "--public",
    ]);
    assert_eq!(found.trim(), forms.hash(&["image/unified.tar.gz"]), "LXD's fingerprint of a unified image");
    let info = home.run(&["image", "info", "unified"]);
    assert!(info.contains("note: mine") && info.contains("public: true") && info.contains("Tiny"), "{info}");
    let (metadata, squashfs) = (forms.text("image/lxd.tar.xz"), forms.text("image/rootfs.squashfs"));
    let found = home.run(&["image", "import", &metadata, &squashfs, "--alias", "split"]);
    assert_eq!(found.trim(), forms.hash(&["image/lxd.tar.xz", "image/rootfs.squashfs"]));
    home.run(&["image", "import", &forms.text("image/oci"), "--alias", "oci"]);
    assert_eq!(home.run(&["image", "verify"]).matches(" good").count(), 3);
    for image in ["unified", "split", "oci"] {
        forms.launch(image);
    }

    let out = forms.text("out");
    home.run(&["image", "export", "unified", &out]);
    home.run(&["image", "export", "split", &out]);
    for file in ["unified.tar.gz", "lxd.tar.xz", "rootfs.squashfs"] {
        assert_eq!(forms.hash(&[&format!("out/{file}")]), forms.hash(&[&format!("image/{file}")]), "{file}");
    }
    // What was exported is what is imported, as a directory.
    fs::remove_file(forms.path("out/unified.tar.gz")).unwrap();
    assert_eq!(home.run(&["image", "import", &out]).trim(), found.trim());
    // Damage is noticed, in what a launch and an export read.
    let stored = forms.path("data/images").join(forms.hash(&["image/unified.tar.gz"]));
    fs::write(stored.join("unified.tar.gz"), "other").unwrap();
    assert!(home.fail(&["image", "verify", "unified"]).contains("hash to"));
    assert!(home.fail(&["image", "export", "unified", &out]).contains("hash to"));
    assert!(!forms.path("out/unified.tar.gz").exists());
}

#[test]
fn hostile_and_half_images_are_refused_and_leave_nothing() {
    let forms = Forms::new("--format=unified,squashfs");
    let home = &forms.home;
    shell(
        "cd \"$D\"; mkdir m; tar xf image/lxd.tar.xz -C m; mkdir -p m/rootfs; echo x >x; echo y >m/rootfs/y
         tar cf up.tar -C m metadata.yaml templates rootfs --transform s,rootfs/y,rootfs/../../y,
         tar cf absolute.tar -P -C m metadata.yaml templates rootfs \"$D/x\"
         tar cf nometa.tar -C m rootfs
         tar cf short.tar -C m metadata.yaml templates rootfs; truncate -s 3000 short.tar
         tar cf notemplate.tar -C m metadata.yaml rootfs
         head -c 200000 image/rootfs.squashfs >cut.squashfs
         head -c 200000 image/unified.tar.gz >cut.tar.gz",
        &[("D", home.path())],
    );
    for (file, reason) in [
        ("up.tar", ".."),
        ("absolute.tar", "absolute"),
        ("nometa.tar", "metadata"),
        ("short.tar", "cut off"),
        ("notemplate.tar", "template"),
        ("cut.tar.gz", ""),
        ("image/lxd.tar.xz", "metadata only"),
        ("image/rootfs.squashfs", "metadata archive before it"),
        ("x", ""),
        ("root", "holds no image"),
        ("missing", "missing"),
    ] {
        let error = home.fail(&["image", "import", &forms.text(file), "--alias", "bad"]);
        assert!(error.contains(reason), "{file}: {error}");
    }
    let (metadata, cut) = (forms.text("image/lxd.tar.xz"), forms.text("cut.squashfs"));
    assert!(home.fail(&["image", "import", &metadata, &cut]).contains("squashfs"));
    assert!(
        home.fail(&["image", "import", &forms.text("image"), "architecture=vax"]).contains("cannot be set")
    );
    assert_eq!(home.run(&["image", "list", "--format", "json"]).trim(), "[]");
    assert_eq!(fs::read_dir(forms.path("data/images/.staging")).unwrap().count(), 0);
}

#[test]
fn an_address_that_names_an_image_is_followed_over_https_only() {
    let forms = Forms::new("--format=unified");
    let home = &forms.home;
    let (hash, other) = (forms.hash(&["image/unified.tar.gz"]), "0".repeat(64));
    shell(
        "printf '[req]\\ndistinguished_name = d\\n[d]\\n' >\"$D/conf\"
         openssl req -x509 -config \"$D/conf\" -addext basicConstraints=critical,CA:FALSE -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x \
         -addext subjectAltName=IP:127.0.0.1 -keyout \"$D/tls.key\" -out \"$D/tls.crt\" 2>&1",
        &[("D", home.path())],
    );
    let place = |name: &str, family: &str, hash: &str, url: &str| {
        format!(
            "location = /{name} {{ return 200; add_header {family}-Image-Hash {hash}; \
             add_header {family}-Image-URL {url}; }}\n"
        )
    };
    let more = [
        place("lxd", "LXD", &hash, "/image/unified.tar.gz"),
        place("incus", "Incus", &hash, "image/unified.tar.gz"),
        place("wrong", "LXD", &other, "/image/unified.tar.gz"),
        place("plain", "LXD", &hash, "http://127.0.0.1:1/x"),
    ];
    let more = more.concat().replace("\\\n", "\n");
    let nginx = Nginx::with(home.path(), &forms.path("tls.crt"), &forms.path("tls.key"), &more);
    let import = |path: &str| {
        let url = format!("{}/{path}", nginx.url);
        let mut command = home.command(&["image", "import", &url, "--alias", "a"]);
        let output = command.env("SSL_CERT_FILE", forms.path("tls.crt")).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    for (path, reason) in [
        ("wrong", "SHA-256"),
        ("plain", "https"),
        ("image/unified.tar.gz", "no LXD-Image-Hash"),
        ("nothing", "404"),
    ] {
        let (code, text) = import(path);
        assert!(code == Some(1) && text.contains(reason), "{path}: {text}");
    }
    assert!(home.fail(&["image", "import", "http://127.0.0.1:1/x"]).contains("https only"));
    assert_eq!(home.run(&["image", "list", "--format", "json"]).trim(), "[]");
    for path in ["lxd", "incus"] {
        let (code, text) = import(path);
        assert!(code == Some(0) && text.contains(&hash), "{path}: {text}");
    }
    assert!(home.run(&["image", "list"]).contains(&hash[..12]));
}
