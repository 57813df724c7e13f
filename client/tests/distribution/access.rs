//! Proxies, client certificates and tokens, with a real proxy and a real web server.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Fixture, NAME, Server, Tree, assert_same, config, only_image};
use millstream_client::{Access, Client, Remote, Result, Trust};

/// A server that ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let daemon = Self(child.unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display())));
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "{} does not listen", command.get_program().display());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // nginx' master ends its workers when asked to; killed, it leaves them.
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Proxy {
    dir: tempfile::TempDir,
    url: String,
    _daemon: Daemon,
}

impl Proxy {
    fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = dir.path().join("tinyproxy.conf");
        let log = dir.path().join("log");
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 20\nLogFile \"{}\"\nLogLevel Connect\nMaxClients 20\n",
            log.display()
        );
        fs::write(&file, text).unwrap();
        let daemon = Daemon::start(Command::new("/usr/bin/tinyproxy").arg("-d").arg("-c").arg(&file), port);
        Self { dir, url: format!("http://127.0.0.1:{port}"), _daemon: daemon }
    }

    /// How many requests went through it.
    fn requests(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("Request (")).count()
    }
}

async fn add(fixture: &Fixture, tree: &Tree, url: &str, ca: Option<String>, access: Access) -> Result<usize> {
    let remote = Remote::new(url, Trust::pin(&tree.key.keyring())?, ca)?.reached(access, &[])?;
    fixture.client.add_remote(&"r".parse()?, remote).await
}

#[tokio::test]
async fn a_remotes_own_proxy_is_used() {
    let tree = Tree::new();
    let (server, proxy) = (Server::start(tree.root()), Proxy::start());
    let fixture = Fixture::new();
    let access = Access { proxy: Some(proxy.url.clone()), ..Access::default() };
    add(&fixture, &tree, &server.url, None, access).await.unwrap();
    assert_same(&tree, &only_image(&tree), &fixture.fetch(NAME).await.unwrap());
    assert!(proxy.requests() >= 3, "{}", proxy.requests());
    let gone = Access { proxy: Some("http://127.0.0.1:9".into()), ..Access::default() };
    assert!(add(&Fixture::new(), &tree, &server.url, None, gone).await.is_err(), "it went past its proxy");
}

#[tokio::test]
async fn the_environments_proxy_is_used_unless_it_says_no() {
    let tree = Tree::new();
    let (server, proxy) = (Server::start(tree.root()), Proxy::start());
    for (no_proxy, direct, through) in [("", false, true), ("127.0.0.1", false, false), ("", true, false)] {
        let fixture = Fixture::new();
        let access = Access { proxy: direct.then(|| "direct".to_owned()), ..Access::default() };
        add(&fixture, &tree, &server.url, None, access).await.unwrap();
        let before = proxy.requests();
        let out = crate::killed::command(std::env::current_exe().unwrap(), fixture.dir.path())
            .args([crate::killed::CHILD, "--exact", "--ignored", "--nocapture"])
            .env("HTTP_PROXY", &proxy.url)
            .env("http_proxy", &proxy.url)
            .env("NO_PROXY", no_proxy)
            .env_remove("no_proxy")
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let stored = Client::new(config(fixture.dir.path())).store().unwrap().list().unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(proxy.requests() > before, through, "NO_PROXY={no_proxy:?}, direct: {direct}");
    }
}

/// nginx over a tree, with TLS; who has no certificate of `ca.pem`, or no token, is turned away.
struct Nginx {
    dir: tempfile::TempDir,
    url: String,
    _daemon: Daemon,
}

impl Nginx {
    fn start(root: &Path, rule: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let certificates = "
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem \
                -days 2 -subj /CN=authority -addext keyUsage=critical,keyCertSign
            for name in server client; do
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key \
                    -out $name.csr -subj /CN=$name
                echo 'subjectAltName=IP:127.0.0.1' > ext
                openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                    -extfile ext -out $name.pem
            done
            cat client.pem client.key > both.pem
            chmod 600 both.pem";
        let shell = Command::new("sh").args(["-euc", certificates]).current_dir(dir.path()).output().unwrap();
        assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
        let here = dir.path().display();
        let text = format!(
            "daemon off; pid {here}/pid; error_log {here}/error.log; user root;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path {here}/t1; proxy_temp_path {here}/t2; fastcgi_temp_path {here}/t3;
                 uwsgi_temp_path {here}/t4; scgi_temp_path {here}/t5;
                 server {{
                     listen 127.0.0.1:{port} ssl;
                     ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key;
                     ssl_protocols TLSv1.2 TLSv1.3;
                     {}
                     root {};
                 }}
             }}",
            rule.replace("CA", &format!("{here}/ca.pem")),
            root.display()
        );
        fs::write(dir.path().join("nginx.conf"), text).unwrap();
        let conf = dir.path().join("nginx.conf");
        let daemon = Daemon::start(Command::new("/usr/sbin/nginx").arg("-c").arg(conf), port);
        Self { dir, url: format!("https://127.0.0.1:{port}"), _daemon: daemon }
    }

    fn ca(&self) -> String {
        fs::read_to_string(self.path("ca.pem")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let tree = Tree::new();
    let nginx = Nginx::start(tree.root(), "ssl_client_certificate CA; ssl_verify_client on;");
    let certificate = |path| Access { client_certificate: path, ..Access::default() };
    assert!(add(&Fixture::new(), &tree, &nginx.url, Some(nginx.ca()), certificate(None)).await.is_err());
    let path = nginx.path("both.pem");
    let fixture = Fixture::new();
    add(&fixture, &tree, &nginx.url, Some(nginx.ca()), certificate(Some(path.clone()))).await.unwrap();
    assert_same(&tree, &only_image(&tree), &fixture.fetch(NAME).await.unwrap());
    // Readable by others, or not there: said before anything is asked.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = fixture.client.catalogue(&"r".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn a_token_is_shown_and_never_printed() {
    let tree = Tree::new();
    let rule = "if ($http_authorization != \"Bearer s3cret.token\") { return 401; }";
    let nginx = Nginx::start(tree.root(), rule);
    let path = nginx.path("token");
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let access = Access { token: Some(path.clone()), ..Access::default() };
    write("s3cret.wrong");
    let error = add(&Fixture::new(), &tree, &nginx.url, Some(nginx.ca()), access.clone()).await.unwrap_err();
    assert!(error.to_string().contains("401") && !error.to_string().contains("s3cret"), "{error}");
    write("s3cret.token\n");
    let fixture = Fixture::new();
    add(&fixture, &tree, &nginx.url, Some(nginx.ca()), access).await.unwrap();
    assert_same(&tree, &only_image(&tree), &fixture.fetch(NAME).await.unwrap());
    let remotes = fs::read_to_string(fixture.dir.path().join("config/remotes.json")).unwrap();
    assert!(!remotes.contains("s3cret"));
    assert!(!format!("{:?}", fixture.client.remotes().unwrap()).contains("s3cret"));
}
