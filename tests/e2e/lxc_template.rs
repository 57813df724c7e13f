//! The program as LXC's template: containers made of verified images, for root and for an ordinary
//! user, equal to those of LXC's own `download` template.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Home, PROGRAM, Published, Server, shell, succeed, wait_for};

const IMAGE: &str = "-d debian -r bookworm -a amd64 --variant minimal";

/// Said when an image is unpacked after it has come, instead of meanwhile.
const AGAIN: &str = "Unpacking the rootfs";

/// The template in a directory of a test's own, and LXC told to use it.
pub struct Lxc {
    pub home: Home,
    template: PathBuf,
}

impl Lxc {
    pub fn new() -> Self {
        let home = Home::new();
        let template = home.path().join("lxc-millstream");
        symlink(PROGRAM, &template).unwrap();
        fs::write(home.path().join("default.conf"), "lxc.net.0.type = empty\n").unwrap();
        Self { home, template }
    }

    fn at(&self) -> &Path {
        self.home.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.at().join("lxc").join(name)
    }

    fn add(&self, published: &Published, server: &Server, url: &str) {
        let key = published.key();
        let ca = server.ca.to_str().unwrap();
        self.home.run(&["remote", "add", "home", url, "--key", key.to_str().unwrap(), "--ca", ca]);
    }

    fn create(&self, name: &str, template: &Path, arguments: &str) -> Output {
        let (at, template) = (self.at().display(), template.display());
        let script =
            format!("lxc-create -P {at}/lxc -n {name} -f {at}/default.conf -t {template} -- {arguments}");
        let mut command = Command::new("sh");
        command.args(["-ec", &script]).stdin(Stdio::null()).env("MILLSTREAM_DIR", self.at());
        command.env("WGETRC", self.at().join("wgetrc")).env("LXC_CACHE_PATH", self.at().join("cache-lxc"));
        command.output().unwrap()
    }

    /// Creates a container that must come to be; gives what was said.
    pub fn created(&self, name: &str, arguments: &str) -> String {
        let output = self.create(name, &self.template, arguments);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// Tries to create a container that must not come to be; gives what was said.
    fn refused(&self, name: &str, arguments: &str) -> String {
        let output = self.create(name, &self.template, arguments);
        assert!(!output.status.success(), "{}", text(&output));
        assert!(!self.path(name).exists(), "nothing of it stays");
        text(&output)
    }
}

impl Drop for Lxc {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.at().join("lxc")).into_iter().flatten().flatten() {
            for command in ["lxc-stop -k", "lxc-destroy"] {
                let script = format!("{command} -P \"$AT/lxc\" -n {}", entry.file_name().display());
                let _ = Command::new("sh").args(["-c", &script]).env("AT", self.at()).output();
            }
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Names, types, owners, modes, times and contents of all files below a directory, but for what
/// the template itself makes or fills in.
fn tree(dir: &Path) -> BTreeSet<String> {
    // GNU tar does not keep the times of directories whose files come later.
    let script = "cd \"$DIR\"; find . -type d -printf '%P %y %U:%G %m\\n'; \
                  find . ! -type d -printf '%P %y %U:%G %m %l %T@\\n'; \
                  find . -type f -print0 | xargs -0 sha256sum";
    let text = shell(script, &[("DIR", dir)]);
    text.lines().filter(|line| !line.contains("etc/host")).map(str::to_owned).collect()
}

#[test]
fn containers_equal_those_of_the_download_template_and_start() {
    let published = Published::new();
    let server = published.serve();
    let lxc = Lxc::new();
    lxc.add(&published, &server, &server.url);
    let message = lxc.created("ours", IMAGE);
    assert!(message.contains("You have just created a Debian bookworm container"), "{message}");
    assert!(!message.contains(AGAIN), "{message}");

    fs::write(lxc.at().join("wgetrc"), format!("ca_certificate = {}\n", server.ca.display())).unwrap();
    let theirs = lxc.create("theirs", Path::new("download"), &format!("{IMAGE} --server {}", server.host()));
    assert!(theirs.status.success(), "{}", text(&theirs));
    let config = |name: &str| {
        let text = fs::read_to_string(lxc.path(name).join("config")).unwrap();
        // The first two lines name the template and its arguments.
        text.lines().skip(2).map(|line| line.replace(name, "NAME") + "\n").collect::<String>()
    };
    assert_eq!(config("ours"), config("theirs"));
    let (ours, theirs) = (tree(&lxc.path("ours/rootfs")), tree(&lxc.path("theirs/rootfs")));
    let differing: Vec<_> = ours.symmetric_difference(&theirs).take(10).collect();
    assert!(differing.is_empty(), "the same files, owners, modes, times and contents: {differing:#?}");
    assert_eq!(fs::read_to_string(lxc.path("ours/rootfs/etc/hostname")).unwrap().trim(), "ours");

    let at = [("AT", lxc.at())];
    shell("lxc-start -P \"$AT/lxc\" -n ours && lxc-wait -P \"$AT/lxc\" -n ours -s RUNNING -t 30", &at);
    let state = shell(
        "lxc-attach -P \"$AT/lxc\" -n ours --clear-env -- sh -c \
         'until [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done; systemctl is-system-running --wait || systemctl --failed'",
        &at,
    );
    assert_eq!(state.trim(), "running");

    // The server is gone: what is here still serves, also by name of the host.
    let host = server.host().to_owned();
    drop(server);
    let message = lxc.created("later", &format!("{IMAGE} --server {host}"));
    assert!(message.contains("out of reach"), "{message}");
    lxc.created("forced", &format!("{IMAGE} --force-cache"));
    let message = lxc.refused("flushed", &format!("{IMAGE} --flush-cache"));
    assert!(message.contains(&host), "the server is asked when the copy is gone: {message}");
}

#[test]
fn changed_images_and_unknown_servers_are_refused() {
    let published = Published::new();
    let server = published.serve();
    let lxc = Lxc::new();
    let message = lxc.refused("c1", &format!("{IMAGE} --server {}", server.host()));
    assert!(message.contains("UnknownIssuer") || message.contains("--ca"), "{message}");
    lxc.add(&published, &server, &server.url);
    let list = lxc.refused("c1", "--list --variant minimal");
    assert!(list.contains("debian\tbookworm\tamd64\tminimal\t"), "{list}");
    let message = lxc.refused("c1", "-d debian -r bookwurm -a amd64 --variant minimal");
    assert!(message.contains("did you mean debian/bookworm/minimal"), "{message}");

    let dir = shell("echo \"$ROOT\"/images/debian/bookworm/amd64/minimal/*", &[("ROOT", &published.root)]);
    for (file, named) in [
        ("meta.tar.xz", "meta.tar.xz"),
        ("manifest.json", "manifest.json"),
        ("rootfs.tar.xz", "rootfs.tar.xz"),
    ] {
        let path = Path::new(dir.trim()).join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::remove_file(&path).unwrap(); // It may share its bytes with the build.
        fs::write(&path, bad).unwrap();
        let message = lxc.refused("c1", IMAGE);
        assert!(message.contains(named), "{file}: {message}");
        fs::write(&path, good).unwrap();
    }
    lxc.created("c1", IMAGE);
}

#[test]
fn servers_with_an_index_alone_serve_signed_or_once_confirmed() {
    let published = Published::new();
    let server = published.serve();
    fs::remove_file(published.root.join("streams")).unwrap();

    // Pinned: every file needs its signature.
    let signed = Lxc::new();
    signed.add(&published, &server, &server.url);
    let message = signed.created("c1", IMAGE);
    assert!(!message.contains(AGAIN), "{message}");
    let dir = shell("echo \"$ROOT\"/images/debian/bookworm/amd64/minimal/*", &[("ROOT", &published.root)]);
    let signature = Path::new(dir.trim()).join("rootfs.tar.xz.asc");
    let text = fs::read(&signature).unwrap();
    fs::remove_file(&signature).unwrap();
    let message = signed.refused("c2", &format!("{IMAGE} --flush-cache"));
    assert!(message.contains("there is no signature here"), "{message}");
    fs::write(&signature, text).unwrap();
    signed.created("c2", IMAGE);

    // Not signed: said once, then remembered. The system's authorities would vouch for the server.
    let unsigned = Lxc::new();
    let ca = server.ca.to_str().unwrap();
    let error = unsigned.home.fail(&["remote", "add", "plain", &server.url, "--ca", ca]);
    assert!(error.contains("--key"), "{error}");
    unsigned.home.run(&["remote", "add", "plain", &server.url, "--ca", ca, "--insecure-no-signature"]);
    let message = unsigned.created("c1", &format!("{IMAGE} --server {}", server.host()));
    assert!(!message.contains(AGAIN), "{message}");
    assert!(unsigned.home.run(&["remote", "list"]).contains("NOT SIGNED"));
    let mut by_url = unsigned.home.command(&["image", "list", "plain:"]);
    let output = by_url.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("lxc-create -t millstream"));
}

/// A user with subordinate ids, a home, and control groups to start containers in.
struct User {
    name: String,
    home: PathBuf,
}

impl User {
    fn add() -> Self {
        let name = format!("mslxc{}", std::process::id());
        let home = PathBuf::from(format!("/home/{name}"));
        succeed(Command::new("useradd").args(["--create-home", "--shell=/bin/sh", &name]));
        fs::set_permissions(&home, PermissionsExt::from_mode(0o755)).unwrap();
        Self { name, home }
    }

    /// The first of the user's subordinate ids.
    fn base(&self) -> u32 {
        let text = fs::read_to_string("/etc/subuid").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{}:", self.name)));
        line.unwrap().split(':').next().unwrap().parse().unwrap()
    }

    /// Runs a script as the user, in a control group of its own wherever there are any.
    fn run(&self, script: &str) -> String {
        let groups = "for d in $(awk '$3 == \"cgroup\" || $3 == \"cgroup2\" { print $2 }' /proc/mounts); do \
             mkdir -p $d/$NAME; \
             if [ -e $d/$NAME/cpuset.cpus ] && [ -e $d/cpuset.cpus ]; then cat $d/cpuset.cpus > $d/$NAME/cpuset.cpus; cat $d/cpuset.mems > $d/$NAME/cpuset.mems; fi; \
             chown -R $NAME $d/$NAME; echo $$ > $d/$NAME/cgroup.procs; done; cd \"$AT\"; \
             exec setpriv --init-groups --reuid $NAME --regid $NAME --inh-caps=-all \
             env -u MILLSTREAM_DIR -u XDG_RUNTIME_DIR HOME=\"$AT\" USER=$NAME sh -ec \"$SCRIPT\"";
        shell(groups, &[("NAME", Path::new(&self.name)), ("AT", &self.home), ("SCRIPT", Path::new(script))])
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let script = "for d in $(awk '$3 == \"cgroup\" || $3 == \"cgroup2\" { print $2 }' /proc/mounts); do \
             find $d/$NAME -depth -type d -exec rmdir {} + 2>/dev/null; done; userdel --remove $NAME 2>/dev/null; rm -rf \"$AT\"";
        let _ =
            Command::new("sh").args(["-c", script]).env("NAME", &self.name).env("AT", &self.home).output();
    }
}

#[test]
fn an_ordinary_users_container_has_the_users_ids_and_starts() {
    let published = Published::new();
    let server = published.serve();
    let user = User::add();
    let base = user.base();
    let template = user.home.join("lxc-millstream");
    symlink(PROGRAM, &template).unwrap();
    let config =
        format!("lxc.net.0.type = empty\nlxc.idmap = u 0 {base} 65536\nlxc.idmap = g 0 {base} 65536\n");
    for (from, name) in [(published.key(), "key.asc"), (server.ca.clone(), "ca.crt")] {
        fs::copy(from, user.home.join(name)).unwrap();
        fs::set_permissions(user.home.join(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    let setup = format!(
        "mkdir -p ~/.config/lxc; printf '{}' > ~/.config/lxc/default.conf; \
         {PROGRAM} remote add home {} --key ~/key.asc --ca ~/ca.crt; \
         lxc-create -n c1 -t {} -- {IMAGE} 2>&1",
        config.replace('\n', "\\n"),
        server.url,
        template.display()
    );
    let message = user.run(&setup);
    assert!(message.contains("You have just created") && !message.contains(AGAIN), "{message}");
    let at = user.home.join(".local/share/lxc/c1");
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    let me = owner(&user.home);
    assert_eq!(owner(&at.join("rootfs/etc/hostname")), base, "root's files are the first subordinate id's");
    assert_eq!(owner(&at.join("config")), me, "the configuration is the user's");
    for entry in walk(&user.home.join(".local/share/millstream")) {
        assert_eq!(owner(&entry), me, "the store is the user's: {}", entry.display());
    }
    let config = fs::read_to_string(at.join("config")).unwrap();
    assert!(
        config.contains("userns.conf") && config.contains(&format!("lxc.idmap = u 0 {base} 65536")),
        "{config}"
    );

    user.run("lxc-start -n c1; lxc-wait -n c1 -s RUNNING -t 30");
    let pid = user.run("lxc-info -n c1 -p -H").trim().to_owned();
    assert_eq!(owner(Path::new(&format!("/proc/{pid}"))), base, "init is nobody on the host");
    wait_for("systemd in the user's container", 60, || {
        let enter = ["-t", &pid, "-a", "systemctl", "is-system-running"];
        let state = Command::new("nsenter").args(enter).output().unwrap();
        matches!(String::from_utf8_lossy(&state.stdout).trim(), "running" | "degraded")
    });
    user.run("lxc-stop -k -n c1; lxc-destroy -n c1");
    assert!(!at.exists());
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let inside = fs::read_dir(&found[at]).into_iter().flatten().flatten();
        found.extend(inside.map(|entry| entry.path()));
        at += 1;
    }
    found
}
