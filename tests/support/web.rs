//! Web servers that are not ours, with the configurations that `stream export-config` prints.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Home, end, wait_for};

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Apache,
    Caddy,
}

/// One that serves a tree on a port of loopback; gone with its test.
pub struct Web {
    kind: Kind,
    dir: TempDir,
    child: Child,
    pub url: String,
}

impl Web {
    /// Serves `root` with the certificate and key in `tls`.
    pub fn start(kind: Kind, home: &Home, root: &Path, tls: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("ms-web-").tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // None of them takes a port of the system's choice: ask for a free one and pass it on.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let name = format!("{kind:?}").to_lowercase();
        let (certificate, key) = (tls.join("server.crt"), tls.join("server.key"));
        let listen = format!("127.0.0.1:{port}");
        let mut args = vec!["stream", "export-config", &name, root.to_str().unwrap(), "--listen", &listen];
        args.extend(["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
        if kind == Kind::Caddy {
            args.extend(["--host", &listen]);
        }
        let site = home.run(&args);
        let (file, mut command) = command(kind, dir.path(), &site, &listen);
        let log = File::create(dir.path().join("log")).unwrap();
        let child = command.arg(file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = child.spawn().unwrap();
        let mut web = Self { kind, dir, child, url: format!("https://{listen}") };
        wait_for(&name, 60, || {
            let ended = web.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", fs::read_to_string(web.dir.path().join("log")).unwrap());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        web
    }

    /// Has it read its configuration again, and waits until nobody answers by the old one.
    pub fn reload(&self) {
        let before = self.workers();
        let signal = match self.kind {
            Kind::Nginx => "-HUP",
            Kind::Apache => "-USR1",
            Kind::Caddy => unreachable!("it reloads by an interface that no test opens"),
        };
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
        wait_for("the end of the workers of before", 60, || {
            let now = self.workers();
            !now.is_empty() && before.iter().all(|worker| !now.contains(worker))
        });
    }

    /// Processes it has started.
    fn workers(&self) -> Vec<String> {
        let parent = self.child.id().to_string();
        let is_ours = |process: &String| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // After the name, which may hold anything: state, parent.
            let mut rest = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
            rest.nth(1) == Some(parent.as_str())
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_ours).collect()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The file that brings the site's configuration in, and the command that takes its name.
fn command(kind: Kind, dir: &Path, site: &str, listen: &str) -> (PathBuf, Command) {
    let at = dir.display();
    let (text, mut command) = match kind {
        Kind::Nginx => {
            let text = format!(
                "user root; worker_processes 1; daemon off; pid {at}/pid; error_log {at}/error.log;\n\
                 events {{ worker_connections 64; }}\n\
                 http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
                 fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
                 include {at}/site; }}\n"
            );
            let mut command = Command::new("nginx");
            command.args(["-e", "stderr", "-c"]);
            (text, command)
        }
        Kind::Apache => {
            let modules = "mpm_event authz_core ssl rewrite headers deflate filter setenvif mime dir \
                           socache_shmcb env";
            let load =
                |name: &str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
            let text = modules.split_whitespace().map(load).collect::<String>()
                + &format!(
                    "ServerName localhost\nServerRoot {at}\nPidFile {at}/pid\nDefaultRuntimeDir {at}\n\
                     ErrorLog {at}/error.log\nListen {listen}\nTypesConfig /etc/mime.types\n\
                     StartServers 1\nThreadsPerChild 16\nMinSpareThreads 16\nMaxSpareThreads 32\n\
                     Include {at}/site\n"
                );
            let mut command = Command::new("apache2");
            command.args(["-D", "FOREGROUND", "-f"]);
            (text, command)
        }
        Kind::Caddy => {
            let text = format!("{{\n  admin off\n  auto_https disable_redirects\n}}\nimport {at}/site\n");
            let mut command = Command::new("caddy");
            command.args(["run", "--adapter", "caddyfile", "--config"]);
            (text, command)
        }
    };
    command.env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir);
    fs::write(dir.join("site"), site).unwrap();
    let file = dir.join("main.conf");
    fs::write(&file, text).unwrap();
    (file, command)
}
