//! A stream in a bucket of an S3 server (`moto`, of PyPI, in `target/s3`): several publishers, several servers.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::s3::{Bucket, curl, noisy_image, rootfs_url};
use crate::support::{Home, end, shell, succeed};

/// Larger than what is sent in one piece.
const NOISE: u64 = 9 << 20;

/// An S3 server with one bucket; ended with its test.
struct Store {
    child: Child,
    bucket: Bucket,
}

impl Store {
    fn start() -> Self {
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/s3/bin/moto_server");
        let mut command = Command::new(&server);
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child =
            child.unwrap_or_else(|e| panic!("{}: {e}; cargo xtask test makes it", server.display()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("http://127.0.0.1:")).expect("moto says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        let endpoint = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        shell(&format!("curl --silent --fail -X PUT {endpoint}/images"), &[]);
        let key = ["key".to_owned(), "hidden-secret".to_owned()];
        Self { child, bucket: Bucket { endpoints: endpoint, key, address: "s3://images/all".into() } }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn two_publish_at_once_into_a_bucket_that_two_servers_serve() {
    let store = Store::start();
    let (home, bucket) = (Home::new(), &store.bucket);
    let images: Vec<PathBuf> =
        [("1", NOISE), ("2", 1 << 20)].iter().map(|(name, noise)| noisy_image(&home, name, *noise)).collect();
    let address = bucket.address.as_str();
    let error = bucket.command(&home, &["stream", "list", address]).output().unwrap();
    assert_eq!(error.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&error.stderr).contains("stream init s3://images/all"));

    // Once with the credentials in a file that only its owner reads.
    let file = home.path().join("config/s3.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let credentials = format!(
        "endpoints = [\"{}\"]\naccess_key_id = \"key\"\nsecret_access_key = \"hidden-secret\"\n",
        bucket.endpoints
    );
    fs::write(&file, credentials).unwrap();
    assert!(home.fail(&["stream", "init", address]).contains("chmod 600"));
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    home.run(&["stream", "init", address]);
    fs::remove_file(&file).unwrap();

    let servers = [bucket.serve(&home, &[]), bucket.serve(&home, &[])];
    let mut adding: Vec<_> = images
        .iter()
        .map(|image| {
            let mut add = bucket.command(&home, &["stream", "add", address, text(image)]);
            add.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert!(adding.iter_mut().all(|add| add.wait().unwrap().success()));
    let listed = bucket.run(&home, &["stream", "list", address, "--format", "json"]);
    for (server, name) in servers.iter().zip(["a", "b"]) {
        for (image, release) in images.iter().zip(["1", "2"]) {
            let to = home.path().join(format!("{name}{release}"));
            succeed(&mut curl(server, &rootfs_url(&listed, server, release), &to, 0));
            assert_eq!(fs::read(&to).unwrap(), fs::read(image.join("rootfs.tar.xz")).unwrap());
        }
        let key = home.path().join("config/keys/default.asc");
        home.run(&["remote", "add", name, &server.url, "--key", text(&key), "--ca", text(&server.ca)]);
        home.run(&["image", "copy", &format!("{name}:noisy/2"), "--alias", name]);
        home.run(&["image", "delete", name]);
    }
    let verified = bucket.command(&home, &["stream", "verify", address]).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && said.contains("2 images"), "{said}");

    // Sent to the store for the files, not for the documents.
    let config = home.path().join("server.toml");
    fs::write(&config, "[serve]\ndelivery = \"redirect\"\n").unwrap();
    let server = bucket.serve(&home, &["--config", text(&config)]);
    let to = home.path().join("redirected");
    let url = rootfs_url(&listed, &server, "1");
    succeed(&mut curl(&server, &url, &to, 0));
    assert_eq!(fs::read(&to).unwrap(), fs::read(images[0].join("rootfs.tar.xz")).unwrap());
    let head = shell(
        &format!("curl --silent --include --cacert \"$CA\" {url} | head -c 2000"),
        &[("CA", &server.ca)],
    );
    assert!(head.starts_with("HTTP/2 307") && head.contains(&bucket.endpoints), "{head}");
    assert!(!head.contains("hidden-secret"));

    bucket.run(&home, &["stream", "remove", address, "noisy/1", "--grace", "0"]);
    bucket.run(&home, &["stream", "prune", address, "--grace", "0"]);
    assert!(!bucket.run(&home, &["stream", "list", address]).contains("noisy:1"));
    bucket.run(&home, &["stream", "verify", address]);
    for refused in [
        &["stream", "add", "--unsigned", address, text(&images[0])][..],
        &["stream", "verify", "--repair", address],
        &["stream", "export-config", "nginx", address],
        &["serve", "--root", address, "--upstream", "https://127.0.0.1:1"],
        &["mirror", "https://127.0.0.1:1", address],
    ] {
        let refusal = bucket.command(&home, refused).output().unwrap();
        let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
        assert_eq!(refusal.status.code(), Some(1), "{refused:?}: {said}");
        assert!(!said.contains("hidden-secret") && !home.path().join("s3:").exists());
    }
}
