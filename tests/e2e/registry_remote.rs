//! A real registry as a remote: layers of a real tool become an image that starts.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::import::Forms;
use crate::support::user::User;
use crate::support::{end, shell, succeed, wait_for};

/// A registry with a certificate that nobody vouches for, and in it `team/tiny:1`, an image of three layers.
struct Registry {
    forms: Forms,
    daemon: Child,
    /// `127.0.0.1:PORT`.
    host: String,
    /// The certificate's fingerprint.
    certificate: String,
    /// `USER:PASSWORD`, where it lets nobody else in.
    login: Option<&'static str>,
}

impl Registry {
    fn start() -> Self {
        Self::start_for(None)
    }

    fn start_for(login: Option<&'static str>) -> Self {
        let forms = Forms::new("--format=oci");
        let certificate = shell(
            "cd \"$D\"; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
             -subj /CN=registry -keyout tls.key -out tls.crt 2>/dev/null
             openssl x509 -in tls.crt -outform der | sha256sum | cut -d' ' -f1",
            &[("D", forms.home.path())],
        );
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let mut config = json!({
            "version": "0.1", "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": forms.text("registry")}},
            "http": {"addr": host, "tls": {"certificate": forms.text("tls.crt"), "key": forms.text("tls.key")}},
        });
        if let Some((user, password)) = login.and_then(|login| login.split_once(':')) {
            let hash = shell(
                r#"perl -e 'print crypt($ENV{P}, "\$2y\$05\$abcdefghijklmnopqrstuu")'"#,
                &[("P", password.as_ref())],
            );
            fs::write(forms.path("htpasswd"), format!("{user}:{hash}\n")).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "team", "path": forms.text("htpasswd")}});
        }
        fs::write(forms.path("registry.yml"), config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.args(["serve", &forms.text("registry.yml")]).stdin(Stdio::null());
        let daemon = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let certificate = certificate.trim().to_owned();
        let registry = Self { forms, daemon, host, certificate, login };
        wait_for("the registry", 20, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry.push();
        registry
    }

    /// A third layer changes a file and takes one away; an index says which architecture it is for.
    fn push(&self) {
        shell(
            "cd \"$D\"
             umoci unpack --image image/oci:latest bundle >/dev/null 2>&1
             echo first >bundle/rootfs/etc/which; echo x >bundle/rootfs/etc/gone
             umoci repack --refresh-bundle --image image/oci:two bundle >/dev/null 2>&1
             echo second >bundle/rootfs/etc/which; rm bundle/rootfs/etc/gone; chown 7:9 bundle/rootfs/etc/which
             umoci repack --image image/oci:two bundle >/dev/null 2>&1
             umoci config --image image/oci:two --config.cmd /bin/sh --config.label org.opencontainers.image.title=Tiny
             skopeo copy -q ${LOGIN:+--dest-creds $LOGIN} --dest-tls-verify=false oci:image/oci:two docker://$HOST/team/tiny:one
             rm -rf bundle",
            &[
                ("D", self.forms.home.path()),
                ("HOST", self.host.as_ref()),
                ("LOGIN", self.login.unwrap_or_default().as_ref()),
            ],
        );
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let base = format!("https://{}/v2/team/tiny/manifests", self.host);
        let accept = format!("Accept: {kind}");
        let login = self.login.map(|login| ["-u", login]);
        let login = login.as_ref().map_or(&[][..], |login| &login[..]);
        let get = ["-sfk", "-H", &accept, &format!("{base}/one")];
        let manifest = succeed(Command::new("curl").args(login).args(get));
        let digest = millstream_image::oci::Digest::of(manifest.as_bytes());
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": kind, "digest": digest, "size": manifest.len(),
                "platform": {"os": "linux", "architecture": "amd64"},
            }],
        });
        fs::write(self.forms.path("index.json"), index.to_string()).unwrap();
        let (file, kind) = (
            format!("@{}", self.forms.text("index.json")),
            "Content-Type: application/vnd.oci.image.index.v1+json",
        );
        let put = ["-sfk", "-X", "PUT", "-H", kind, "--data-binary", &file, &format!("{base}/1")];
        succeed(Command::new("curl").args(login).args(put));
    }

    fn add(&self) {
        let url = format!("https://{}", self.host);
        self.forms.home.run(&["remote", "add", "reg", &url, "--accept-certificate", &self.certificate]);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        end(&mut self.daemon);
    }
}

#[test]
fn images_of_a_registry_are_shown_copied_and_launched() {
    let registry = Registry::start();
    let home = &registry.forms.home;
    let url = format!("https://{}", registry.host);
    let error = home.fail(&["remote", "add", "reg", &url]);
    assert!(error.contains(&format!("--accept-certificate {}", registry.certificate)), "{error}");
    registry.add();
    let list = home.run(&["remote", "list"]);
    assert!(list.contains("oci") && list.contains("NOT SIGNED"), "{list}");
    assert!(home.fail(&["image", "list", "reg:"]).contains("REMOTE:REPOSITORY"));
    assert!(home.fail(&["image", "copy", "reg:team/other:1"]).contains("no such image"));
    assert!(home.fail(&["image", "copy", "reg:../x:1"]).contains("lower-case letters"));

    let info: Value =
        serde_json::from_str(&home.run(&["image", "info", "reg:team/tiny:1", "--format", "json"])).unwrap();
    assert_eq!(info["layers"].as_array().unwrap().len(), 3);
    assert_eq!(info["properties"]["oci.title"], "Tiny");
    home.run(&["launch", "reg:team/tiny:1", "registry-1"]);
    let run = |script: &str| home.run(&["exec", "registry-1", "--", "/bin/busybox", "sh", "-c", script]);
    let says = run(
        "b=/bin/busybox; $b cat /etc/which; $b stat -c %u:%g /etc/which; $b test -e /etc/gone || echo away",
    );
    home.run(&["delete", "--force", "registry-1"]);
    assert_eq!(says, "second\n7:9\naway\n");

    // The same image by another name is here already, and proves itself.
    let digest = info["digest"].as_str().unwrap();
    let by_digest = format!("reg:team/tiny@{digest}");
    let fingerprint = home.run(&["image", "copy", &by_digest, "--alias", "tiny"]);
    let stored: Value =
        serde_json::from_str(&home.run(&["image", "info", "tiny", "--format", "json"])).unwrap();
    assert_eq!(stored["fingerprint"], fingerprint.trim());
    assert_eq!((&stored["properties"]["oci.digest"], &stored["cached"]), (&json!(digest), &json!(false)));
    assert_eq!(home.run(&["image", "verify"]).matches(" good").count(), 1);
    // Made again, it is the same image.
    home.run(&["image", "delete", "tiny"]);
    assert_eq!(home.run(&["image", "copy", "reg:team/tiny:1"]), fingerprint);
    home.run(&["image", "delete", fingerprint.trim()]);

    // A layer with other bytes than its digest says.
    let layer = info["layers"][2]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let blobs = "registry/docker/registry/v2/blobs/sha256";
    let blob = registry.forms.path(&format!("{blobs}/{}/{layer}/data", &layer[..2]));
    let mut bytes = fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&blob, bytes).unwrap();
    assert!(home.fail(&["image", "copy", "reg:team/tiny:1"]).contains("SHA-256"));
    assert_eq!(home.run(&["image", "list", "--format", "json"]).trim(), "[]");
}

#[test]
fn a_registry_that_wants_a_login_gets_it_and_nobody_else_does() {
    let registry = Registry::start_for(Some("reader:open-sesame"));
    let home = &registry.forms.home;
    registry.add();
    let error = home.fail(&["image", "copy", "reg:team/tiny:1"]);
    assert!(error.contains("wants a login") && error.contains("--login-file"), "{error}");
    home.run(&["remote", "remove", "reg"]);

    let url = format!("https://{}", registry.host);
    let file = registry.forms.text("login");
    let add = |name: &str, text: &str| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let known = ["--accept-certificate", &registry.certificate, "--login-file", &file];
        home.run(&[&["remote", "add", name, &url][..], &known].concat());
    };
    add("wrong", "reader:other");
    assert!(home.fail(&["image", "copy", "wrong:team/tiny:1"]).contains("401"));
    add("reg", "reader:open-sesame\n");
    home.run(&["image", "copy", "reg:team/tiny:1", "--alias", "tiny"]);
    assert!(home.run(&["image", "verify"]).contains(" good"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(home.fail(&["image", "copy", "reg:team/tiny:1"]).contains("chmod 600"));
}

#[test]
fn an_ordinary_user_copies_one_with_files_of_several_owners() {
    let registry = Registry::start();
    let user = User::add("oci");
    let run = |args: &[&str]| {
        let output = user.millstream(args);
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    };
    let url = format!("https://{}", registry.host);
    run(&["remote", "add", "reg", &url, "--accept-certificate", &registry.certificate]);
    run(&["image", "copy", "reg:team/tiny:1", "--alias", "tiny"]);
    assert!(run(&["image", "verify"]).contains(" good"));
    run(&["image", "export", "tiny", "."]);
    let list = shell("tar -tvf \"$H/rootfs.tar.xz\" --numeric-owner | grep which", &[("H", user.home())]);
    assert!(list.contains(" 7/9 "), "{list}");
    let cache = user.home().join(".cache/millstream/oci");
    assert_eq!(fs::read_dir(cache).unwrap().count(), 0, "layers go when the image is there");
}
