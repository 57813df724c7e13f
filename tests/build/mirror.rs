//! A Debian mirror in miniature: signed, served on loopback, and able to misbehave.
//!
//! Its packages hold this host's own dpkg, shell and core utilities, so that a build from it goes
//! the whole real way in about a second.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use millstream_image::Sha256Digest;
use millstream_image::archive::{Compression, Member, PackOptions, pack_members};
use millstream_image::openpgp::{Algorithm, SigningKey};

pub const SUITE: &str = "test";
const POOL: &str = "/pool/";

/// How the server treats a path that contains a given text.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Sends half and closes the connection.
    Cut,
    /// Sends the headers, then nothing for a long time.
    Stall,
    /// Sends the file with one byte changed.
    Flip,
}

pub struct Mirror {
    pub url: String,
    pub key: SigningKey,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    fault: Arc<Mutex<Option<(String, Fault)>>>,
}

impl Mirror {
    /// A mirror whose suite has what a build needs.
    pub fn start() -> Self {
        Self::with(&Self::standard())
    }

    /// The packages a build needs.
    pub fn standard() -> Vec<Deb> {
        vec![package("base-files", &directories()), package("dpkg", &system()), apt()]
    }

    /// A mirror with these packages.
    pub fn with(packages: &[Deb]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let key =
            SigningKey::generate("mirror <m@example.org>", Algorithm::Ed25519, an_hour_ago(), None).unwrap();
        let mirror = Self { url, key, files: Arc::default(), fault: Arc::default() };
        mirror.publish(packages, &Release::default());
        let (files, fault) = (Arc::clone(&mirror.files), Arc::clone(&mirror.fault));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, fault) = (Arc::clone(&files), Arc::clone(&fault));
                std::thread::spawn(move || serve(&stream, &files, &fault));
            }
        });
        mirror
    }

    /// Puts packages and a signed Release in place.
    pub fn publish(&self, packages: &[Deb], release: &Release) {
        let (mut packed, files) = Self::index(packages, "pool");
        let mut files: BTreeMap<_, _> =
            files.into_iter().map(|(path, data)| (format!("/{path}"), data)).collect();
        let name = "main/binary-amd64/Packages.gz";
        let digest = Sha256Digest::of(&packed);
        let mut text = format!(
            "Suite: {0}\nCodename: {0}\nDate: Wed, 01 Jul 2026 00:00:00 UTC\nArchitectures: amd64\nComponents: main\n",
            release.suite
        );
        if let Some(until) = &release.valid_until {
            let _ = writeln!(text, "Valid-Until: {until}");
        }
        let _ = writeln!(text, "SHA256:\n {digest} {} {name}", packed.len());
        let signed = match &release.signer {
            Signer::Mirror => self.key.sign_cleartext(&text, SystemTime::now()).unwrap(),
            Signer::Other(key) => key.sign_cleartext(&text, SystemTime::now()).unwrap(),
            Signer::Nobody => text,
        };
        let at = packed.len() / 2;
        packed[at] ^= u8::from(release.broken_index);
        files.insert(format!("/dists/{SUITE}/{name}"), packed);
        files.insert(format!("/dists/{SUITE}/InRelease"), signed.into_bytes());
        *self.files.lock().unwrap() = files;
    }

    /// The Packages.gz of packages below `pool`, and their files by path.
    pub fn index(packages: &[Deb], pool: &str) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
        let mut files = BTreeMap::new();
        let mut index = String::new();
        for deb in packages {
            let path = format!("{pool}/{}.deb", deb.name);
            let _ = writeln!(
                index,
                "{}Filename: {path}\nSize: {}\nSHA256: {}\n",
                deb.control,
                deb.bytes.len(),
                Sha256Digest::of(&deb.bytes)
            );
            files.insert(path, deb.bytes.clone());
        }
        (flate(index.as_bytes()), files)
    }

    /// Serves one more file.
    pub fn put(&self, path: &str, data: Vec<u8>) {
        self.files.lock().unwrap().insert(path.to_owned(), data);
    }

    /// From now on paths that contain `text` are served with this fault.
    pub fn break_path(&self, text: &str, fault: Fault) {
        *self.fault.lock().unwrap() = Some((text.to_owned(), fault));
    }

    /// A recipe that builds from this mirror and trusts its key; `more` is appended.
    pub fn recipe(&self, more: &str) -> String {
        let key = self.key.to_armored_public().unwrap().replace('\n', "\n      ");
        format!(
            "image:\n  distribution: mini\n  release: {SUITE}\n  architecture: amd64\nsource:\n  downloader: debootstrap\n  variant: minbase\n  url: {}\n  keys:\n    - |\n      {key}\n{more}",
            self.url
        )
    }
}

pub fn an_hour_ago() -> SystemTime {
    SystemTime::now() - Duration::from_hours(1)
}

/// What a Release says and who signs it.
pub struct Release {
    pub suite: String,
    pub valid_until: Option<String>,
    pub signer: Signer,
    pub broken_index: bool,
}

pub enum Signer {
    Mirror,
    Other(Box<SigningKey>),
    Nobody,
}

impl Default for Release {
    fn default() -> Self {
        Self { suite: SUITE.into(), valid_until: None, signer: Signer::Mirror, broken_index: false }
    }
}

fn serve(
    stream: &TcpStream,
    files: &Mutex<BTreeMap<String, Vec<u8>>>,
    fault: &Mutex<Option<(String, Fault)>>,
) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {}
    let mut out = stream;
    let found = files.lock().unwrap().get(&path).cloned();
    let Some(mut body) = found else {
        let _ = out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let fault = fault.lock().unwrap().clone().filter(|(text, _)| path.contains(text.as_str()));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = out.write_all(head.as_bytes());
    match fault.map(|(_, fault)| fault) {
        Some(Fault::Stall) => return std::thread::sleep(Duration::from_mins(1)),
        Some(Fault::Cut) => body.truncate(body.len() / 2),
        Some(Fault::Flip) => {
            let at = body.len() / 2;
            body[at] ^= 1;
        }
        None => {}
    }
    let _ = out.write_all(&body);
}

pub struct Deb {
    pub name: String,
    pub control: String,
    pub bytes: Vec<u8>,
}

/// Makes an essential package of these files.
pub fn package(name: &str, files: &BTreeMap<PathBuf, Member>) -> Deb {
    version(name, "1.0", files)
}

/// The same in any version.
pub fn version(name: &str, version: &str, files: &BTreeMap<PathBuf, Member>) -> Deb {
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nEssential: yes\nPriority: required\nMaintainer: m <m@example.org>\nDescription: test\n"
    );
    let archive = |members: &BTreeMap<PathBuf, Member>| {
        let options =
            PackOptions { compression: Compression::Gzip, epoch: 1_700_000_000, ..PackOptions::default() };
        pack_members(members, Vec::new(), &options).unwrap().0
    };
    let mut bytes = b"!<arch>\n".to_vec();
    let control_files = BTreeMap::from([(PathBuf::from("control"), Member::file(control.clone()))]);
    for (member, data) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", archive(&control_files)),
        ("data.tar.gz", archive(files)),
    ] {
        let _ = writeln!(bytes, "{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, data.len());
        bytes.extend_from_slice(&data);
        if data.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    Deb { name: name.to_owned(), control, bytes }
}

pub fn directories() -> BTreeMap<PathBuf, Member> {
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/os-release", "ID=mini\n"),
        ("usr/share/doc/base-files/note", "a note\n"),
        ("var/lib/mini/state", "x\n"),
        ("tmp/.keep", ""),
        ("root/.keep", ""),
    ];
    files.map(|(path, text)| (PathBuf::from(path), Member::file(text))).into()
}

/// Only a name: nothing in these tests calls it, and every bootstrap installs it.
pub fn apt() -> Deb {
    package("apt", &BTreeMap::from([(PathBuf::from("usr/share/doc/apt/note"), Member::file("a note"))]))
}

/// This host's dpkg, shell and utilities, with the libraries they need.
pub fn system() -> BTreeMap<PathBuf, Member> {
    let programs = [
        "sh",
        "dpkg",
        "dpkg-deb",
        "dpkg-split",
        "dpkg-query",
        "dpkg-trigger",
        "ldconfig",
        "start-stop-daemon",
        "rm",
        "tar",
        "diff",
        "cat",
        "mkdir",
        "sleep",
        "chmod",
        "dd",
        "id",
        "ls",
    ];
    let mut files = BTreeMap::new();
    let mut libraries = BTreeSet::new();
    for program in programs {
        let directories = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        let path = directories.iter().map(|d| Path::new(d).join(program)).find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("these tests run on Debian: {program} is missing"));
        let place =
            if program == "ldconfig" || program == "start-stop-daemon" { "usr/sbin" } else { "usr/bin" };
        add(&mut files, &path, &Path::new(place).join(program));
        let ldd = Command::new("ldd").arg(&path).output().unwrap().stdout;
        let found = String::from_utf8_lossy(&ldd);
        libraries.extend(found.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    for library in libraries {
        let place = library.strip_prefix("/").unwrap();
        let place = if place.starts_with("usr") { place.to_path_buf() } else { Path::new("usr").join(place) };
        add(&mut files, &library, &place);
    }
    files
}

fn add(files: &mut BTreeMap<PathBuf, Member>, from: &Path, place: &Path) {
    let data = fs::read(from).unwrap();
    let mode = fs::metadata(from).unwrap().permissions().mode() & 0o755;
    files.insert(place.to_path_buf(), Member { mode, data });
}

fn flate(data: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-n")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("these tests need gzip");
    child.stdin.take().unwrap().write_all(data).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// The path of a package on the mirror, for [`Mirror::break_path`].
pub fn pool(name: &str) -> String {
    format!("{POOL}{name}.deb")
}
