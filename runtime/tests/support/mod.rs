//! What the runtime's tests share: a small image made of busybox, and a look at what a container
//! leaves on the machine. Needs root and the Debian package busybox-static.
#![allow(unsafe_code, dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millstream_image::archive::{Compression, Member, PackOptions, pack, pack_members};
use millstream_runtime::container::{ExecOptions, ImageUse, Info, PushOptions};
use millstream_runtime::{ContainerName, ImageFiles, Runtime};
use tempfile::TempDir;

/// The runtime starts this very program again as supervisor and inside containers, before any
/// test harness runs.
// SAFETY: the loader calls it once, before main, in the only thread.
#[used]
#[unsafe(link_section = ".init_array")]
static TAKE_OVER: extern "C" fn() = {
    extern "C" fn take_over() {
        millstream_runtime::init();
        if let Some(dir) = std::env::var_os(AS_USER) {
            millstream_runtime::container::become_root(Path::new(&dir)).unwrap();
        }
    }
    take_over
};

/// Set for a test that an ordinary user runs, to a directory of the user's.
pub const AS_USER: &str = "MILLSTREAM_TEST_USER";

/// Waits for a quiet end, and shuts down when asked to.
pub const INITTAB: &str = "::sysinit:/bin/true\n::once:/bin/sleep 100000\n::shutdown:/bin/true\n";

/// A runtime in a directory of its own.
pub struct World {
    pub runtime: Runtime,
    pub dir: TempDir,
}

/// Changes to the plain image.
#[derive(Default)]
pub struct Recipe<'a> {
    /// Replaces busybox's init by a script.
    pub init: Option<&'a str>,
    /// More files of mode 0755.
    pub files: &'a [(&'a str, &'a str)],
    /// Links, `(path, target)`.
    pub links: &'a [(&'a str, &'a str)],
    /// A second busybox with file capabilities, and their `security.capability`.
    pub capable: Option<(&'a str, &'a [u8])>,
    /// Target path, occasion, text.
    pub templates: &'a [(&'a str, &'a str, &'a str)],
    /// A property of the image, key and value.
    pub property: Option<(&'a str, &'a str)>,
}

impl World {
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::open(&dir.path().join("containers")).unwrap();
        Self { runtime, dir }
    }

    /// Builds an image: busybox and what the recipe says.
    pub fn image(&self, recipe: &Recipe) -> ImageFiles {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        let root = dir.join("root");
        for sub in ["bin", "sbin", "etc", "tmp", "root", "proc", "sys", "dev", "run"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("install busybox-static"), root.join("bin/busybox")).unwrap();
        for name in APPLETS {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        symlink("../bin/busybox", root.join("sbin/init")).unwrap();
        let put = |path: &str, text: &str| {
            let path = root.join(path.trim_start_matches('/'));
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        put("etc/inittab", INITTAB);
        put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n");
        if let Some(init) = recipe.init {
            put("sbin/init", init);
        }
        recipe.files.iter().for_each(|(path, text)| put(path, text));
        for (path, target) in recipe.links {
            let path = root.join(path.trim_start_matches('/'));
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir(&path);
            symlink(target, path).unwrap();
        }
        if let Some((path, capabilities)) = recipe.capable {
            let path = root.join(path.trim_start_matches('/'));
            fs::copy(root.join("bin/busybox"), &path).unwrap();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(path, "security.capability", capabilities, flags).unwrap();
        }
        let options = PackOptions { compression: Compression::Gzip, ..PackOptions::default() };
        let out = fs::File::create(dir.join("rootfs.tar.xz")).unwrap();
        pack(&root, out, &options).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let out = fs::File::create(dir.join("lxd.tar.xz")).unwrap();
        pack_members(&metadata(recipe), out, &PackOptions { epoch: 0, ..options }).unwrap();
        ImageFiles::in_directory(&dir).unwrap()
    }

    /// Creates and starts a container of the plain image.
    pub fn launch(&self, what: &str) -> Container<'_> {
        self.launch_from(what, &self.image(&Recipe::default()))
    }

    pub fn launch_from(&self, what: &str, image: &ImageFiles) -> Container<'_> {
        let container = self.create(what, image);
        self.runtime.start(&container.name).unwrap();
        container
    }

    pub fn create(&self, what: &str, image: &ImageFiles) -> Container<'_> {
        let name = name(what);
        self.runtime.create(&name, image, ImageUse::Automatic).unwrap();
        Container { world: self, name }
    }
}

fn metadata(recipe: &Recipe) -> BTreeMap<PathBuf, Member> {
    let mut text = format!("architecture: {}\ncreation_date: 1\n", std::env::consts::ARCH);
    text += "properties:\n  description: busybox\n";
    if let Some((key, value)) = recipe.property {
        text.extend(["  ", key, ": ", value, "\n"]);
    }
    let mut members = BTreeMap::new();
    if !recipe.templates.is_empty() {
        text += "templates:\n";
    }
    for (number, (path, when, template)) in recipe.templates.iter().enumerate() {
        let uses = format!("{{when: [{when}], template: t{number}.tpl, properties: {{k: v}}}}");
        text.extend(["  ", path, ": ", &uses, "\n"]);
        members.insert(format!("templates/t{number}.tpl").into(), Member::file(*template));
    }
    members.insert("metadata.yaml".into(), Member::file(text));
    members
}

/// A name no other test on this machine has.
pub fn name(what: &str) -> ContainerName {
    format!("t{}-{what}", std::process::id()).parse().unwrap()
}

/// A container that is deleted when dropped.
pub struct Container<'a> {
    pub world: &'a World,
    pub name: ContainerName,
}

impl Container<'_> {
    pub fn info(&self) -> Info {
        self.world.runtime.info(&self.name).unwrap()
    }

    pub fn dir(&self) -> PathBuf {
        self.world.runtime.images().parent().unwrap().join(self.name.as_str())
    }

    /// Runs a shell command inside; its exit code.
    pub fn sh(&self, script: &str) -> i32 {
        self.exec(&["sh", "-c", script])
    }

    pub fn exec(&self, argv: &[&str]) -> i32 {
        let argv = argv.iter().map(ToString::to_string).collect();
        self.world.runtime.exec(&self.name, &ExecOptions { argv, ..ExecOptions::default() }).unwrap()
    }

    /// Compiles a program of `tests/probe` and puts it into the container as `/bin/probe`. Needs the
    /// Debian packages gcc and libc6-dev.
    pub fn push_probe(&self, name: &str) {
        let program = self.world.dir.path().join(name);
        let source = match name {
            "bomb" => include_str!("../probe/bomb.c"),
            "calls" => include_str!("../probe/calls.c"),
            "neighbours" => include_str!("../probe/neighbours.c"),
            "type" => include_str!("../probe/type.c"),
            other => panic!("{other}"),
        };
        let file = program.with_extension("c");
        fs::write(&file, source).unwrap();
        let compiled = std::process::Command::new("gcc")
            .args(["-static", "-o"])
            .args([&program, &file])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let options = PushOptions::default();
        self.world.runtime.push(&self.name, &program, Path::new("/bin/probe"), &options).unwrap();
    }

    /// What a shell command prints, on both streams.
    pub fn output(&self, script: &str) -> String {
        self.sh(&format!("( {script} ) > /tmp/output 2>&1 < /dev/null"));
        fs::read_to_string(self.dir().join("changes/upper/tmp/output")).unwrap().trim_end().to_owned()
    }

    pub fn console(&self) -> String {
        fs::read_to_string(self.dir().join("console.log")).unwrap_or_default()
    }

    /// Sets keys of its configuration; what the runtime says to that.
    pub fn set(&self, pairs: &[(&str, &str)]) -> Vec<String> {
        let mut new = self.world.runtime.configuration(&self.name).unwrap();
        new.config.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.world.runtime.configure(&self.name, &new).unwrap()
    }

    /// Takes one away.
    pub fn unset(&self, key: &str) -> Vec<String> {
        let mut new = self.world.runtime.configuration(&self.name).unwrap();
        new.config.remove(key);
        self.world.runtime.configure(&self.name, &new).unwrap()
    }

    /// Gives it a device in place of what had that name; what the runtime says to that.
    pub fn device(&self, device: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let mut new = self.world.runtime.configuration(&self.name).unwrap();
        let keys = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        new.devices.insert(device.to_owned(), keys);
        self.world.runtime.configure(&self.name, &new).unwrap()
    }

    /// Takes one away.
    pub fn no_device(&self, device: &str) -> Vec<String> {
        let mut new = self.world.runtime.configuration(&self.name).unwrap();
        new.devices.remove(device);
        self.world.runtime.configure(&self.name, &new).unwrap()
    }

    /// A file of its control groups, in whichever hierarchy has one of these.
    pub fn group_file(&self, names: &[&str]) -> String {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let roots = mountinfo.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4));
        let groups: Vec<_> =
            roots.filter_map(|root| fs::read_dir(Path::new(root).join("millstream")).ok()).collect();
        let entries = groups.into_iter().flatten().flatten();
        let ours =
            entries.filter(|e| e.file_name().to_string_lossy().starts_with(&format!("{}-", self.name)));
        let files: Vec<_> = ours.flat_map(|e| names.iter().map(move |name| e.path().join(name))).collect();
        let found = files.iter().find_map(|file| fs::read_to_string(file).ok());
        found.unwrap_or_else(|| panic!("none of {names:?}")).trim().to_owned()
    }

    /// Process id of the supervisor.
    pub fn supervisor(&self) -> i32 {
        let text = fs::read(self.dir().join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap();
        i32::try_from(state["running"]["supervisor"]["pid"].as_i64().unwrap()).unwrap()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.world.runtime.delete(&self.name, true);
    }
}

/// Control groups, mounts and processes on this machine that belong to a container.
pub fn traces(name: &ContainerName, world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let group = format!("/millstream/{name}-");
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = world.dir.path().to_str().unwrap();
    found.extend(mountinfo.lines().filter(|line| line.contains(dir)).map(|line| format!("mount {line}")));
    let cgroups = mountinfo.lines().filter(|line| line.contains(" - cgroup"));
    for root in cgroups.filter_map(|line| line.split(' ').nth(4)) {
        for entry in fs::read_dir(Path::new(root).join("millstream")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{name}-")) {
                found.push(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    let title: String = format!("ms:{name}").chars().take(15).collect();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(process.path().join(file)).unwrap_or_default();
        // What the host's init has not collected yet has ended all the same.
        let ended = read("status").contains("State:\tZ");
        if !ended && (read("cgroup").contains(&group) || read("comm").trim() == title) {
            found.push(format!("process {} {}", process.file_name().to_string_lossy(), read("comm").trim()));
        }
    }
    found
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_mins(3), "not within three minutes: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const APPLETS: &[&str] = &[
    "awk", "basename", "cat", "chmod", "chown", "cp", "cut", "dd", "df", "dmesg", "echo", "env", "false",
    "find", "grep", "halt", "head", "hostname", "id", "ip", "kill", "ls", "ln", "mkdir", "mkfifo", "mknod",
    "mount", "mv", "ps", "poweroff", "readlink", "reboot", "rm", "rmdir", "sed", "sh", "sleep", "sort",
    "stat", "stty", "sync", "sysctl", "tail", "test", "touch", "tr", "true", "tty", "umount", "uname", "wc",
    "yes", "printf", "seq", "unshare", "httpd", "nslookup", "ping", "udhcpc", "wget",
];
