//! nginx over a tree, with a certificate that somebody else made.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{end, wait_for};

pub struct Nginx {
    _dir: TempDir,
    child: Child,
    pub url: String,
}

impl Nginx {
    /// Serves `root` over TLS with the given certificate and key.
    pub fn start(root: &Path, certificate: &Path, key: &Path) -> Self {
        Self::with(root, certificate, key, "")
    }

    /// The same with further directives of the server.
    pub fn with(root: &Path, certificate: &Path, key: &Path, more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ms-nginx-").tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // nginx takes no port of the system's choice: ask for a free one and pass it on.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = dir.path().display();
        let config = format!(
            "user root; worker_processes 1; daemon off; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
             server {{ listen 127.0.0.1:{port} ssl; root {root};\n\
             ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; {more} }} }}\n",
            root = root.display(),
            certificate = certificate.display(),
            key = key.display(),
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { _dir: dir, child, url: format!("https://127.0.0.1:{port}") };
        wait_for("nginx", 20, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
