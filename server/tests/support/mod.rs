//! Streams and images small enough to make by the hundred, packed by the real packer.

#![allow(dead_code, reason = "no test uses all of it")]

pub mod browser;
pub mod pushing;
pub mod reader;
pub mod serving;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use millstream_image::Sha256Digest;
use millstream_image::archive::{
    Compression, Layout, Member, PackOptions, Packed, Sink, pack, pack_each, pack_members,
};
use millstream_image::manifest::{self, Manifest};
use millstream_image::openpgp::{Algorithm, SigningKey};
use millstream_image::sums::Sums;
use millstream_server::stream::{Added, Deltas, Signing, Stream};

/// What to build.
#[derive(Clone, Debug)]
pub struct Image {
    pub product: String,
    pub serial: String,
    pub release_aliases: Vec<String>,
    /// Makes the root file system differ.
    pub content: String,
    /// A larger file in it.
    pub data: Vec<u8>,
    /// Contents of a file in `rootfs.squashfs`; no squashfs when empty.
    pub squashfs: Vec<u8>,
    /// Name of an archive that holds metadata and root file system; none when empty.
    pub unified: &'static str,
    /// What `metadata.yaml` says; the product's when empty.
    pub kernel_architecture: String,
    /// Contents of LXC's `config`.
    pub config: String,
    /// Installed packages: names and versions.
    pub packages: Vec<(String, String)>,
}

impl Image {
    pub fn new(product: &str, serial: &str) -> Self {
        Self {
            product: product.into(),
            serial: serial.into(),
            release_aliases: Vec::new(),
            content: format!("{product} {serial}"),
            data: Vec::new(),
            squashfs: Vec::new(),
            unified: "",
            kernel_architecture: String::new(),
            config: "lxc.arch = linux64\n".into(),
            packages: Vec::new(),
        }
    }

    /// Writes the image into `dir`, as a build does.
    pub fn build(&self, dir: &Path) -> Manifest {
        fs::create_dir_all(dir).unwrap();
        let root = dir.join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/issue"), &self.content).unwrap();
        fs::write(root.join("etc/data"), &self.data).unwrap();
        let product: millstream_image::Product = self.product.parse().unwrap();
        let architecture = match self.kernel_architecture.as_str() {
            "" => product.architecture().kernel(),
            other => other,
        };
        let yaml = format!(
            "architecture: {architecture}\ncreation_date: 1\nproperties:\n  serial: \"{}\"\n",
            self.serial
        );
        let options = PackOptions { epoch: 1, ..PackOptions::default() };
        let out = |name: &str| File::create(dir.join(name)).unwrap();
        let member =
            |name: &str, text: &str| BTreeMap::from([(PathBuf::from(name), Member::file(text.to_owned()))]);
        let mut files = BTreeMap::new();
        files.insert(
            "rootfs.tar.xz".to_owned(),
            listed(&pack(&root, out("rootfs.tar.xz"), &options).unwrap().1),
        );
        for (name, members) in [
            ("meta.tar.xz", member("config", &self.config)),
            ("lxd.tar.xz", member("metadata.yaml", &yaml)),
            ("incus.tar.xz", member("metadata.yaml", &yaml)),
        ] {
            files.insert(name.to_owned(), listed(&pack_members(&members, out(name), &options).unwrap().1));
        }
        if !self.unified.is_empty() {
            let sink = Sink {
                out: out(self.unified),
                compression: if self.unified.ends_with("xz") { Compression::Xz } else { Compression::Zstd },
                level: 1,
                layout: Layout::Rootfs,
                lead: member("metadata.yaml", &yaml),
            };
            let packed = pack_each(&root, vec![sink], &options).unwrap();
            files.insert(self.unified.to_owned(), listed(&packed[0].1));
        }
        fs::remove_dir_all(&root).unwrap();
        if !self.squashfs.is_empty() {
            let bytes = squashfs(dir, &self.squashfs);
            let file = manifest::File {
                size: bytes.len() as u64,
                sha256: Sha256Digest::of(&bytes),
                sha256_uncompressed: None,
                size_uncompressed: None,
            };
            files.insert("rootfs.squashfs".to_owned(), file);
        }
        let sums = Sums(files.iter().map(|(name, file)| (name.clone(), file.sha256)).collect());
        let manifest = Manifest {
            version: 1,
            product,
            serial: self.serial.parse().unwrap(),
            os: "Debian".into(),
            description: "<b>test</b>".into(),
            release_aliases: self.release_aliases.clone(),
            requirements: BTreeMap::new(),
            source_date_epoch: 1,
            recipe: String::new(),
            sources: Vec::new(),
            packages: self.packages.iter().map(package).collect(),
            files,
            durations: Vec::new(),
            inputs: None,
        };
        fs::write(dir.join("SHA256SUMS"), sums.to_text()).unwrap();
        fs::write(dir.join("manifest.json"), manifest.to_bytes().unwrap()).unwrap();
        fs::write(dir.join("build.log"), "built\n").unwrap();
        manifest
    }
}

fn package((name, version): &(String, String)) -> manifest::Package {
    manifest::Package {
        name: name.clone(),
        version: version.clone(),
        architecture: "amd64".into(),
        sha256: None,
    }
}

fn listed(packed: &Packed) -> manifest::File {
    manifest::File {
        size: packed.size,
        sha256: packed.sha256,
        sha256_uncompressed: Some(packed.sha256_uncompressed),
        size_uncompressed: Some(packed.size_uncompressed),
    }
}

/// Makes `rootfs.squashfs` in `dir`, with one file; its bytes.
fn squashfs(dir: &Path, data: &[u8]) -> Vec<u8> {
    let (source, out) = (dir.join("squashed"), dir.join("rootfs.squashfs"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("data"), data).unwrap();
    let mut tool = Command::new("mksquashfs");
    tool.arg(&source).arg(&out).args([
        "-quiet",
        "-no-progress",
        "-all-root",
        "-mkfs-time",
        "1",
        "-all-time",
        "1",
    ]);
    assert!(tool.status().expect("this test needs squashfs-tools").success());
    fs::remove_dir_all(&source).unwrap();
    fs::read(&out).unwrap()
}

/// A stream in a directory of its own, with its key.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub key: SigningKey,
    pub stream: Stream,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = new_key();
        let (stream, new) = Stream::init(&dir.path().join("root"), &signing(&key)).unwrap();
        assert!(new);
        Self { dir, key, stream }
    }

    pub fn root(&self) -> &Path {
        self.stream.root()
    }

    /// Builds an image beside the stream; its directory.
    pub fn build(&self, image: &Image) -> PathBuf {
        let dir = self.dir.path().join(format!("{}-{}", image.product.replace(':', "-"), image.serial));
        let _ = fs::remove_dir_all(&dir);
        image.build(&dir);
        dir
    }

    pub fn add(&self, image: &Image) -> millstream_server::Result<Added> {
        self.stream.add(&self.build(image), &signing(&self.key))
    }

    /// With deltas from the images before.
    pub fn add_with(&self, image: &Image, deltas: &Deltas) -> Added {
        self.stream.add_with(&self.build(image), &signing(&self.key), deltas).unwrap()
    }

    /// Everything wrong with the tree, one a line.
    pub fn problems(&self) -> String {
        let report = self.stream.verify(SystemTime::now()).unwrap();
        let lines: Vec<_> =
            report.problems.iter().map(|p| format!("{}: {}\n", p.path.display(), p.reason)).collect();
        lines.concat()
    }
}

pub fn new_key() -> SigningKey {
    SigningKey::generate("Test", Algorithm::Ed25519, SystemTime::now(), None).unwrap()
}

pub fn signing(key: &SigningKey) -> Signing<'_> {
    Signing { key, now: SystemTime::now(), validity: None }
}

/// Every file below `dir` with its contents, hidden directories and all, links as their targets.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for item in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let kind = item.file_type().unwrap();
            let name = item.path().strip_prefix(dir).unwrap().to_path_buf();
            if kind.is_dir() {
                open.push(item.path());
            } else if kind.is_symlink() {
                files.insert(name, fs::read_link(item.path()).unwrap().into_os_string().into_encoded_bytes());
            } else {
                files.insert(name, fs::read(item.path()).unwrap());
            }
        }
    }
    files
}
