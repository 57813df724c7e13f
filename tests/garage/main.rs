//! A stream in Garage, a real distributed store: three nodes on loopback, of which one is killed in the middle
//! of a publication and another in the middle of a download. `cargo xtask garage-test` builds it first.

#[allow(dead_code, reason = "most of it is for tests of other things")]
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::s3::{Bucket, curl, noisy_image, rootfs_url};
use support::{Home, end, succeed, wait_for};

/// What an image is sent with: dozens of pieces of the store's.
const NOISE: u64 = 40 << 20;

/// One node; killed with its test.
struct Node {
    dir: PathBuf,
    ports: [u16; 2],
    child: Option<Child>,
}

fn garage() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/garage/bin/garage")
}

/// Ports that nobody has now.
fn ports() -> [u16; 2] {
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Node {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let ports @ [rpc, s3] = ports();
        let secret = "5a".repeat(32);
        let config = format!(
            "metadata_dir = \"{0}/meta\"\ndata_dir = \"{0}/data\"\ndb_engine = \"sqlite\"\n\
             replication_factor = 3\nrpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
             rpc_secret = \"{secret}\"\n[s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\n",
            dir.display()
        );
        fs::write(dir.join("garage.toml"), config).unwrap();
        let mut node = Self { dir, ports, child: None };
        node.start();
        node
    }

    fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = self.command(&["server"]);
        command.stdout(Stdio::null()).stderr(log).env("RUST_LOG", "garage=warn");
        self.child = Some(
            command
                .spawn()
                .unwrap_or_else(|e| panic!("{}: {e}; run: cargo xtask garage-test", garage().display())),
        );
        let mut status = self.command(&["status"]);
        status.stdout(Stdio::null()).stderr(Stdio::null());
        wait_for("a node of Garage", 60, || status.status().unwrap().success());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(garage());
        command.arg("-c").arg(self.dir.join("garage.toml")).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        succeed(&mut self.command(args))
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// Bytes of objects it keeps.
    fn kept(&self) -> u64 {
        let mut open = vec![self.dir.join("data")];
        let mut sum = 0;
        while let Some(dir) = open.pop() {
            for item in fs::read_dir(dir).into_iter().flatten().flatten() {
                match item.metadata() {
                    Ok(meta) if meta.is_dir() => open.push(item.path()),
                    Ok(meta) => sum += meta.len(),
                    Err(_) => {}
                }
            }
        }
        sum
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// Three nodes that know each other, and a bucket.
fn cluster(home: &Home) -> ([Node; 3], Bucket) {
    let nodes = [0, 1, 2].map(|number| Node::new(home.path().join(format!("garage-{number}"))));
    let ids = nodes.each_ref().map(|node| node.run(&["node", "id", "-q"]).trim().to_owned());
    for id in &ids[1..] {
        nodes[0].run(&["node", "connect", id]);
    }
    for id in &ids {
        let id = id.split('@').next().unwrap();
        nodes[0].run(&["layout", "assign", "-z", "loopback", "-c", "10G", id]);
    }
    nodes[0].run(&["layout", "apply", "--version", "1"]);
    let made = |nodes: &[Node; 3]| {
        let output = nodes[0].command(&["key", "create", "test"]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let mut key = None;
    wait_for("the nodes to find each other", 60, || {
        key = made(&nodes);
        key.is_some()
    });
    let key = key.unwrap();
    let field = |name: &str| {
        let line =
            key.lines().find(|line| line.to_lowercase().starts_with(name)).unwrap_or_else(|| panic!("{key}"));
        line.split_whitespace().last().unwrap().to_owned()
    };
    nodes[0].run(&["bucket", "create", "images"]);
    nodes[0].run(&["bucket", "allow", "images", "--read", "--write", "--key", "test"]);
    let endpoints = nodes.each_ref().map(Node::endpoint).join(",");
    let key = [field("key id"), field("secret key")];
    (nodes, Bucket { endpoints, key, address: "s3://images/all".into() })
}

#[test]
fn one_node_killed_in_the_middle_of_a_publication_and_of_a_download_loses_nothing() {
    let home = Home::new();
    let (mut nodes, bucket) = cluster(&home);
    let address = bucket.address.as_str();
    let images = ["1", "2", "3", "4"]
        .map(|release| noisy_image(&home, release, if release == "1" { NOISE } else { 1 << 20 }));
    bucket.run(&home, &["stream", "init", address]);

    // The node that is spoken to goes while the image is on its way.
    let before = nodes[0].kept();
    let mut add = bucket.command(&home, &["stream", "add", address, images[0].to_str().unwrap()]);
    let mut add = add.stdout(Stdio::null()).spawn().unwrap();
    wait_for("some of the image to be there", 60, || nodes[0].kept() > before + (8 << 20));
    assert!(add.try_wait().unwrap().is_none(), "it was over before the node was killed");
    nodes[0].kill();
    assert!(add.wait().unwrap().success());

    // Without it, three publish at once; Garage writes whatever the condition, so flags keep them apart.
    let mut adding = images[1..]
        .iter()
        .map(|image| {
            let mut add = bucket.command(&home, &["stream", "add", address, image.to_str().unwrap()]);
            add.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect::<Vec<_>>();
    assert!(adding.iter_mut().all(|add| add.wait().unwrap().success()));
    let listed = bucket.run(&home, &["stream", "list", address, "--format", "json"]);
    for release in ["1", "2", "3", "4"] {
        assert!(listed.contains(&format!("noisy/{release}")), "{release} was lost: {listed}");
    }
    bucket.run(&home, &["stream", "verify", address]);

    // Back again; another goes while an image is being fetched.
    nodes[0].start();
    let healthy = |node: &Node| node.run(&["status"]).matches("127.0.0.1").count() >= 3;
    wait_for("the node to be back", 60, || nodes.iter().all(healthy));
    let server = bucket.serve(&home, &[]);
    let to = home.path().join("fetched");
    let mut fetch = curl(&server, &rootfs_url(&listed, &server, "1"), &to, 10 << 20).spawn().unwrap();
    let size = || fs::metadata(&to).map_or(0, |meta| meta.len());
    let began = Instant::now();
    while size() < 8 << 20 && began.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(fetch.try_wait().unwrap().is_none(), "it was over before the node was killed");
    // Whichever the server reads from: the first that answers.
    nodes[0].kill();
    assert!(fetch.wait().unwrap().success());
    assert_eq!(fs::read(&to).unwrap(), fs::read(images[0].join("rootfs.tar.xz")).unwrap());
    bucket.run(&home, &["stream", "verify", address]);
}
