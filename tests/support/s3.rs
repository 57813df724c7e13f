//! A bucket, whoever keeps it, and what is done to it with the real program.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Home, Server, succeed, wait_for_url};

/// A bucket and how it is reached.
pub struct Bucket {
    /// Where the store listens, separated by commas.
    pub endpoints: String,
    /// Name and secret of the access key.
    pub key: [String; 2],
    /// `s3://BUCKET/PREFIX`.
    pub address: String,
}

impl Bucket {
    /// Our program, with the usual variables.
    pub fn command(&self, home: &Home, args: &[&str]) -> Command {
        let mut command = home.command(args);
        command.env("AWS_ENDPOINT_URL", &self.endpoints).env("AWS_REGION", "garage");
        command.env("AWS_ACCESS_KEY_ID", &self.key[0]).env("AWS_SECRET_ACCESS_KEY", &self.key[1]);
        command
    }

    /// Runs to the end and must succeed; gives standard output.
    pub fn run(&self, home: &Home, args: &[&str]) -> String {
        succeed(&mut self.command(home, args))
    }

    /// A server of the bucket.
    pub fn serve(&self, home: &Home, more: &[&str]) -> Server {
        let args = ["serve", "--root", &self.address, "--listen", "127.0.0.1:0"];
        let mut command = self.command(home, &[&args[..], more].concat());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = [
            Box::new(child.stdout.take().unwrap()) as Box<dyn Read + Send>,
            Box::new(child.stderr.take().unwrap()),
        ];
        let url = wait_for_url(lines);
        Server::adopt(child, url, home)
    }
}

/// An image of busybox and so many bytes that do not get smaller.
pub fn noisy_image(home: &Home, release: &str, noise: u64) -> PathBuf {
    let root = home.path().join(format!("root-{release}"));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let mut random = File::open("/dev/urandom").unwrap().take(noise);
    io::copy(&mut random, &mut File::create(root.join("etc/noise")).unwrap()).unwrap();
    let out = home.path().join(format!("image-{release}"));
    let release = format!("image.release={release}");
    let what = ["-o", "image.distribution=noisy", "-o", &release, "-o", "image.architecture=amd64"];
    let paths = ["pack", root.to_str().unwrap(), "--out", out.to_str().unwrap()];
    home.run(&[&paths[..], &what].concat());
    out
}

/// The address of the newest root file system of a release at a server.
pub fn rootfs_url(listed: &str, server: &Server, release: &str) -> String {
    let images: serde_json::Value = serde_json::from_str(listed).unwrap();
    let of = |image: &&serde_json::Value| image["path"].as_str().unwrap().contains(&format!("/{release}/"));
    let image = images.as_array().unwrap().iter().find(of).unwrap();
    format!("{}/{}/rootfs.tar.xz", server.url, image["path"].as_str().unwrap())
}

/// Fetches a file with curl, at most so many bytes a second (0: any).
pub fn curl(server: &Server, url: &str, to: &Path, rate: u64) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--location", "--cacert"])
        .arg(&server.ca)
        .arg("--output");
    curl.arg(to).args(["--limit-rate", &rate.to_string()]).arg(url);
    curl
}
