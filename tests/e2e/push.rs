//! A builder on one machine, a server with the key on another, and whoever launches what was pushed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use crate::lxd::busybox;
use crate::support::{Home, end, shell, succeed, wait_for};

/// Bytes of the image's that hardly get smaller.
const NOISE: u64 = 3 << 20;
/// So many get through before the builder's first connection falls silent.
const FIRST: u64 = 2 << 20;

/// A server with `[[access]]`, logging into a file; ended with its test.
struct Server {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Server {
    fn start(home: &Home, config: &Path, number: u32) -> Self {
        let log = home.path().join(format!("log-{number}"));
        let mut command = home.command(&["serve", "--config", config.to_str().unwrap()]);
        let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut server = Self { child, url: String::new(), log };
        wait_for("the server's address", 60, || {
            let said = server.said();
            let url = said.split_whitespace().find(|word| word.starts_with("https://127.0.0.1:"));
            url.map(|url| url.clone_into(&mut server.url)).is_some()
        });
        server
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A way to a server that lets so many bytes through, and then nothing for a minute.
fn silent_after(url: &str, bytes: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, to) = (listener.local_addr().unwrap(), url.trim_start_matches("https://").to_owned());
    thread::spawn(move || {
        let mut left = bytes;
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&to).unwrap();
            let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || drop(io::copy(&mut answers, &mut back)));
            left -= io::copy(&mut (&client).take(left), &mut &server).unwrap_or(left).min(left);
            if left == 0 {
                thread::sleep(Duration::from_mins(1));
            }
        }
    });
    format!("https://{address}")
}

/// An image of busybox and noise, as `build` would have made it.
fn packed(builder: &Home) -> String {
    let root = builder.path().join("root");
    busybox(&root);
    let mut noise = File::open("/dev/urandom").unwrap().take(NOISE);
    io::copy(&mut noise, &mut File::create(root.join("etc/noise")).unwrap()).unwrap();
    let out = builder.path().join("image").to_str().unwrap().to_owned();
    builder.run(&["pack", root.to_str().unwrap(), "--out", &out]);
    out
}

fn came(root: &Path) -> Option<u64> {
    let find =
        shell("find \"$ROOT/.push\" -name rootfs.tar.xz -printf %s 2>/dev/null || true", &[("ROOT", root)]);
    find.trim().parse().ok()
}

#[test]
fn a_pushed_image_is_launched_whatever_was_killed_on_its_way() {
    let (operator, builder) = (Home::new(), Home::new());
    let root = operator.path().join("stream");
    operator.run(&["stream", "init", root.to_str().unwrap()]);
    let token = builder.path().join("token").to_str().unwrap().to_owned();
    let digest = builder.run(&["token", "create", "builder", "--out", &token]);
    let config = operator.path().join("server.toml");
    let text = format!(
        "[serve]\nroot = {root:?}\nlisten = \"127.0.0.1:0\"\n[[access]]\npath = \"/images/tiny\"\nright = \"push\"\n{digest}"
    );
    fs::write(&config, text).unwrap();
    let image = packed(&builder);
    let ca = operator.path().join("config/tls/ca.crt");
    let add = |url: &str| {
        let ca = ca.to_str().unwrap();
        builder.command(&["stream", "add", "--to", url, "--ca", ca, "--token-file", &token, &image])
    };

    // Both are killed in the middle.
    let mut first = Server::start(&operator, &config, 1);
    let mut pusher = add(&silent_after(&first.url, FIRST));
    let mut pusher = pusher.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let arrived = || came(&root).is_some_and(|bytes| bytes >= 1 << 20);
    let wait = crate::support::within(60, arrived);
    first.child.kill().unwrap();
    pusher.kill().unwrap();
    pusher.wait().unwrap();
    drop(first);
    assert!(wait, "nothing came");
    let kept = came(&root).unwrap();
    assert!(kept < NOISE, "{kept}");
    operator.run(&["stream", "verify", root.to_str().unwrap()]);

    let second = Server::start(&operator, &config, 2);
    let said = succeed(&mut add(&second.url));
    assert!(said.starts_with(&format!("{}/images/tiny/", second.url)), "{said}");
    let log = second.said();
    assert!(log.contains(&format!("offset={kept}")) && log.contains("pushed: tiny:"), "{kept}: {log}");
    assert_eq!(came(&root), None);
    operator.run(&["stream", "verify", root.to_str().unwrap()]);
    succeed(&mut add(&second.url));
    // curl gets what was built.
    let script = "curl -sS --fail --cacert \"$CA\" \"$URL/rootfs.tar.xz\" | cmp - \"$IMAGE/rootfs.tar.xz\"";
    shell(script, &[("CA", &ca), ("URL", Path::new(said.trim())), ("IMAGE", Path::new(&image))]);

    let reader = Home::new();
    let (key, ca) = (root.join("key.asc"), ca.to_str().unwrap());
    reader.run(&["remote", "add", "r", &second.url, "--key", key.to_str().unwrap(), "--ca", ca]);
    assert!(reader.run(&["image", "list", "r:"]).contains("tiny/"));
    let name = format!("p{}", std::process::id());
    reader.run(&["launch", "r:tiny/1", &name]);
    let inside = reader.command(&["exec", &name, "--", "/bin/busybox", "cat", "/etc/hostname"]).output();
    reader.run(&["delete", "--force", &name]);
    assert_eq!(String::from_utf8_lossy(&inside.unwrap().stdout).trim(), name);

    // Elsewhere, or without the token, nothing is taken; what does not fit together is wrong usage.
    let ca = ["--ca", ca];
    let stranger = |more: &[&str]| {
        builder.fail(&[&["stream", "add", "--to", &second.url, &image], &ca[..], more].concat())
    };
    assert!(stranger(&[]).contains("--token-file"));
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(stranger(&["--token-file", &token]).contains("chmod 600"));
    for more in [&["--unsigned"][..], &["--key", "k"], &["--deltas", "1"]] {
        let args = [&["stream", "add", "--to", &second.url, &image], more].concat();
        assert_eq!(builder.command(&args).output().unwrap().status.code(), Some(2), "{more:?}");
    }
    assert_eq!(builder.command(&["stream", "add", &image]).output().unwrap().status.code(), Some(2));
}
