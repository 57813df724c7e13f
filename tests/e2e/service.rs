//! The server as a service: sockets handed over, what it tells systemd, and what it takes over while
//! downloads are under way.

use std::fs::{self, File};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Home, PROGRAM, end, succeed, wait_for};

/// A stream without images, beside which there may be any file.
fn stream(home: &Home) -> PathBuf {
    let root = home.path().join("tree");
    home.run(&["stream", "init", root.to_str().unwrap()]);
    root
}

/// A child that does not outlive its test.
struct Ends(Child);

impl Ends {
    fn hang_up(&self) {
        signal(&self.0, "-HUP");
    }
}

fn signal(child: &Child, signal: &str) {
    succeed(Command::new("kill").args([signal, &child.id().to_string()]));
}

impl Drop for Ends {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn curl(url: &str, authority: &Path) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sSf", "--max-time", "60", url, "--cacert"]).arg(authority);
    command
}

/// What systemd is told.
struct Told {
    socket: UnixDatagram,
    all: String,
}

impl Told {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        Self { socket, all: String::new() }
    }

    /// The first message with this line.
    fn wait_for(&mut self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let size = self.socket.recv(&mut buffer);
            let size = size.unwrap_or_else(|error| panic!("no {line}: {error} after\n{}", self.all));
            let message = String::from_utf8_lossy(&buffer[..size]).into_owned();
            self.all.push_str(&message);
            if message.lines().any(|l| l == line) {
                return message;
            }
        }
    }
}

#[test]
fn sockets_are_taken_over_and_systemd_hears_how_the_server_is() {
    let home = Home::new();
    let root = stream(&home);
    let config = home.path().join("server.toml");
    let good = format!("[serve]\nroot = {:?}\nlisten = \"127.0.0.1:1\"\n", root.to_str().unwrap());
    fs::write(&config, &good).unwrap();
    let mut told = Told::listen(&home.path().join("notify"));
    // Both are held until their numbers are known.
    let free = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
    let addresses = free.map(|socket| socket.local_addr().unwrap());
    let messages = home.path().join("messages");
    let mut activate = Command::new("systemd-socket-activate");
    for address in &addresses {
        activate.args(["--listen", &address.to_string()]);
    }
    activate.args(["--fdname=one:two", "-E", &format!("MILLSTREAM_DIR={}", home.path().display())]);
    activate.args(["-E", &format!("NOTIFY_SOCKET={}/notify", home.path().display())]);
    activate.args(["-E", "WATCHDOG_USEC=1000000", PROGRAM, "serve", "--config"]).arg(&config);
    let mut server =
        Ends(activate.stdin(Stdio::null()).stderr(File::create(&messages).unwrap()).spawn().unwrap());
    // Who comes first starts it, and is served.
    wait_for("the first connection", 20, || TcpStream::connect(addresses[0]).is_ok());
    let ready = told.wait_for("READY=1");
    assert!(ready.contains(&format!("https://{} and https://{}", addresses[0], addresses[1])), "{ready}");
    let authority = home.path().join("config/tls/ca.crt");
    for address in addresses {
        let key = succeed(&mut curl(&format!("https://{address}/key.asc"), &authority));
        assert!(key.contains("PGP PUBLIC KEY"), "{key}");
    }
    told.wait_for("WATCHDOG=1");

    server.hang_up();
    told.wait_for("RELOADING=1");
    told.wait_for("READY=1");
    fs::write(&config, "[serve]\nport = 1\n").unwrap();
    server.hang_up();
    let refused = told.wait_for("READY=1");
    assert!(refused.contains("STATUS=not reloaded: ") && refused.contains("line 2"), "{refused}");
    fs::write(&config, good.replace("127.0.0.1:1", "127.0.0.1:2")).unwrap();
    server.hang_up();
    told.wait_for("READY=1");
    let said = fs::read_to_string(&messages).unwrap();
    for line in [
        "the sockets of systemd, not on 127.0.0.1:1",
        "stays as it was",
        "listen: the change needs a restart",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }

    signal(&server.0, "-TERM");
    told.wait_for("STOPPING=1");
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_socket_of_another_kind_is_refused_by_its_name() {
    let home = Home::new();
    let path = home.path().join("socket");
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg("--listen").arg(&path).args(["--fdname=mine", "-E"]);
    activate.arg(format!("MILLSTREAM_DIR={}", home.path().display())).args([PROGRAM, "serve"]);
    let mut child = activate.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let _child = Ends(child);
    wait_for("the connection", 20, || std::os::unix::net::UnixStream::connect(&path).is_ok());
    let mut said = String::new();
    pipe.read_to_string(&mut said).unwrap();
    assert!(said.contains("cannot listen on socket 1 (mine)"), "{said}");
}

/// A certificate for loopback that is its own authority, put in place as renewal tools do.
fn certificate(dir: &Path, name: &str) -> [PathBuf; 2] {
    let [cert, key] = ["crt", "key"].map(|end| dir.join(format!("{name}.{end}")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]);
    succeed(openssl.arg("-out").arg(&cert).arg("-keyout").arg(&key).stderr(Stdio::null()));
    [cert, key]
}

#[test]
fn certificates_and_areas_change_under_a_running_download() {
    let home = Home::new();
    let root = stream(&home);
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(root.join("large.bin"), &large).unwrap();
    let (old, new) = (certificate(home.path(), "old"), certificate(home.path(), "new"));
    let used = ["crt", "key"].map(|end| home.path().join(format!("used.{end}")));
    let put = |files: &[PathBuf; 2]| {
        for (from, to) in files.iter().zip(&used) {
            fs::copy(from, to.with_extension("next")).unwrap();
            fs::rename(to.with_extension("next"), to).unwrap();
        }
    };
    put(&old);
    let config = home.path().join("server.toml");
    let text = format!(
        "[serve]\nroot = {root:?}\nlisten = \"127.0.0.1:0\"\ntls_cert = {:?}\ntls_key = {:?}\n",
        used[0], used[1]
    );
    fs::write(&config, &text).unwrap();
    let messages = home.path().join("messages");
    let said = || fs::read_to_string(&messages).unwrap();
    let mut server = home.command(&["serve", "--config", config.to_str().unwrap()]);
    let server = Ends(server.stderr(File::create(&messages).unwrap()).spawn().unwrap());
    wait_for("the server", 60, || said().contains(" at https://"));
    let at = said().split_once(" at https://").unwrap().1.split_whitespace().next().unwrap().to_owned();
    let key = format!("https://{at}/key.asc");
    let trusted = |authority: &Path| curl(&key, authority).output().unwrap().status.success();

    let slow = home.path().join("slow.bin");
    let mut download = curl(&format!("https://{at}/large.bin"), &old[0]);
    let mut download = download.args(["--limit-rate", "4M", "-o"]).arg(&slow).spawn().unwrap();
    wait_for("the download", 20, || slow.metadata().is_ok_and(|meta| meta.len() > 0));
    // However long the rest takes, the download is not over before.
    signal(&download, "-STOP");

    // A key of another certificate.
    put(&[new[0].clone(), old[1].clone()]);
    server.hang_up();
    wait_for("the refusal", 20, || said().contains("everything stays as it was"));
    assert!(said().contains("used.crt"), "{}", said());
    assert!(trusted(&old[0]) && !trusted(&new[0]));

    put(&new);
    fs::write(&config, format!("{text}[[access]]\npath = \"/large.bin\"\nright = \"read\"\n")).unwrap();
    server.hang_up();
    wait_for("the reload", 20, || trusted(&new[0]));
    assert!(!trusted(&old[0]));
    let denied = curl(&format!("https://{at}/large.bin"), &new[0]).output().unwrap();
    assert!(String::from_utf8_lossy(&denied.stderr).contains("401"), "{denied:?}");

    // Without being asked.
    put(&old);
    wait_for("the change", 40, || trusted(&old[0]));
    assert!(said().contains("the certificate changed"), "{}", said());
    signal(&download, "-CONT");
    assert!(download.wait().unwrap().success());
    assert!(fs::read(&slow).unwrap() == large, "the download is not what was asked for");
}
