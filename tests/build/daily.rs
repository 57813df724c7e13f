//! `millstream daily`: images built at set times, and what happens when that goes wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_image::archive::Member;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::bench::{Bench, failed, fails, says, start, wait_until, works};
use crate::boot::{INITTAB, bootable};
use crate::mirror::{Fault, Mirror, Release, package, pool};

/// Goes on until it is stopped.
const ENDLESS: &str =
    "actions:\n  - trigger: post-unpack\n    action: |\n      #!/bin/sh\n      sleep 10003\n";

/// What LXC cannot start an image without.
const LXC: &str = "targets:\n  lxc:\n    config:\n      - type: all\n        content: lxc.arch = linux64\n";

/// A machine with a stream, a recipe and a configuration.
struct Site {
    bench: Bench,
    mirror: Mirror,
}

impl Site {
    fn new(recipe: &str) -> Self {
        let site = Self::with(Mirror::start());
        site.recipe(recipe);
        site
    }

    fn with(mirror: Mirror) -> Self {
        let site = Self { bench: Bench::new(), mirror };
        site.recipe("");
        works(site.bench.command().args(["stream", "init"]).arg(site.root()));
        site
    }

    fn recipe(&self, more: &str) {
        self.bench.write("recipe.yaml", &self.mirror.recipe(&format!("{LXC}{more}")));
    }

    fn root(&self) -> PathBuf {
        self.bench.path("stream")
    }

    fn configure(&self, serial: &str, more: &str) -> PathBuf {
        let text = format!(
            "[[daily]]\nname = \"mini\"\nschedule = \"0 3 1 1 *\"\nrecipe = \"recipe.yaml\"\n\
             stream = \"stream\"\noptions = [\"image.serial={serial}\"]\ncompression = \"xz:0\"\n{more}\n"
        );
        self.bench.write("server.toml", &text)
    }

    fn daily(&self, words: &[&str]) -> Command {
        let mut command = self.bench.command();
        command.arg("daily").args(words).arg("--config").arg(self.bench.path("server.toml"));
        command
    }

    fn once(&self) -> Command {
        self.daily(&["run", "--once"])
    }

    fn runs(&self, words: &[&str]) -> Vec<Value> {
        let mut command = self.bench.command();
        let text = works(command.args(["daily", "status", "--format=json"]).args(words));
        serde_json::from_str(&text).unwrap()
    }

    /// What became of each product, by its variant.
    fn outcomes(&self) -> BTreeMap<String, String> {
        let word = |value: &Value| value.as_str().unwrap_or("running").to_owned();
        let runs = self.runs(&[]).into_iter();
        runs.map(|run| (word(&run["product"]).rsplit(':').next().unwrap().to_owned(), word(&run["outcome"])))
            .collect()
    }

    /// Serials of images the stream lists, of one variant.
    fn serials(&self, variant: &str) -> Vec<String> {
        let text = works(self.bench.command().args(["stream", "list", "--format=json"]).arg(self.root()));
        let images: Vec<Value> = serde_json::from_str(&text).unwrap();
        let of = |image: &&Value| image["product"].as_str().unwrap().ends_with(variant);
        images.iter().filter(of).map(|image| image["serial"].as_str().unwrap().to_owned()).collect()
    }

    /// Other packages, so that there is something to build.
    fn news(&self, text: &str) {
        let mut packages = Mirror::standard();
        packages.retain(|package| package.name != "apt");
        let note = [(PathBuf::from("usr/share/doc/apt/note"), Member::file(text))];
        packages.push(crate::mirror::version("apt", "1.1", &note.into()));
        packages.push(package("news", &[(PathBuf::from("etc/news"), Member::file(text))].into()));
        self.mirror.publish(&packages, &Release::default());
    }

    fn wait_for_script(&self) {
        wait_until("the script", || self.bench.processes().iter().any(|line| line.contains("sleep 10003")));
    }

    /// No process, mount or half image is left.
    fn assert_clean(&self) {
        wait_until("the end of all processes", || self.bench.processes().is_empty());
        self.bench.assert_clean("no such image");
        let work = self.bench.path("state/cache/work");
        let left: Vec<_> =
            fs::read_dir(work).into_iter().flatten().flatten().map(|item| item.path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "half an image is left");
    }
}

/// Takes what is sent to it.
fn webhook() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let got: Arc<Mutex<Vec<String>>> = Arc::default();
    let bodies = Arc::clone(&got);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
            let body = loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
                    });
                    if body.len() >= length.unwrap_or(0) {
                        break body.to_owned();
                    }
                }
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
                    _ => break String::new(),
                }
            };
            bodies.lock().unwrap().push(body);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
    (url, got)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn get(url: &str) -> String {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_matrix_is_built_and_a_failure_keeps_the_image_before_and_is_told() {
    let site = Site::new("");
    let (url, got) = webhook();
    let told = site.bench.path("told");
    let matrix =
        "keep = 1\nparallel = 2\ngrace_hours = 0\n[daily.matrix]\nvariant = [\"default\", \"other\"]\n";
    site.configure("20260701_0000", matrix);
    works(&mut site.once());
    let built = |variant: &str, outcome: &str| (variant.to_owned(), outcome.to_owned());
    assert_eq!(site.outcomes(), [built("default", "built"), built("other", "built")].into());
    let run = site.runs(&[]).remove(0);
    let log = site.root().join(run["log"].as_str().unwrap());
    assert!(fs::read_to_string(log).unwrap().contains("the build's own log"), "{run}");
    assert!(
        run["fingerprint"].as_str().unwrap().len() == 64 && run["sizes"]["rootfs.tar.xz"].is_u64(),
        "{run}"
    );
    assert!(run["stages"].as_array().unwrap().iter().any(|stage| stage[0] == "bootstrap"), "{run}");

    // The same again, without a serial that must be: nothing to do.
    let text = fs::read_to_string(site.bench.path("server.toml")).unwrap();
    site.bench.write("server.toml", &text.replace("options = [\"image.serial=20260701_0000\"]", ""));
    works(&mut site.once());
    assert_eq!(site.outcomes(), [built("default", "unchanged"), built("other", "unchanged")].into());

    // One of both fails.
    site.news("today");
    let mut more = format!("webhook = \"{url}\"\n");
    let _ = writeln!(more, "on_failure = 'cat > {}; echo $MILLSTREAM_PRODUCT >> {0}.names'", told.display());
    site.configure("20260702_0000", &(more.clone() + matrix));
    let script = "actions:\n  - trigger: post-files\n    variants:\n      - other\n    action: |\n      #!/bin/sh\n      echo not today\n      exit 3\n";
    site.recipe(script);
    let text = fails(&mut site.once());
    assert!(text.contains("1 of 2 builds failed"), "{text}");
    assert_eq!(site.outcomes(), [built("default", "built"), built("other", "failed")].into());
    assert_eq!(
        (site.serials("default"), site.serials("other")),
        (vec!["20260702_0000".into()], vec!["20260701_0000".into()])
    );
    let run = site.runs(&[]).remove(0);
    let names: Vec<_> =
        run["packages"].as_array().unwrap().iter().map(|p| (&p["name"], &p["change"])).collect();
    assert!(names.iter().any(|(name, change)| *name == "apt" && *change == "updated"), "{names:?}");
    assert!(names.iter().any(|(name, change)| *name == "news" && *change == "added"), "{names:?}");

    let failure = site.runs(&[]).remove(1);
    assert!(failure["reason"].as_str().unwrap().contains("not today"), "{failure}");
    let log = fs::read_to_string(site.root().join(failure["log"].as_str().unwrap())).unwrap();
    assert!(log.contains("not today"), "{log}");
    let command: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert_eq!((&command["id"], &command["outcome"]), (&failure["id"], &"failed".into()));
    assert_eq!(fs::read_to_string(told.with_extension("names")).unwrap(), "mini:test:amd64:other\n");
    let bodies = got.lock().unwrap().clone();
    assert_eq!(bodies.len(), 1);
    assert_eq!(serde_json::from_str::<Value>(&bodies[0]).unwrap(), command);
    works(site.bench.command().args(["stream", "verify"]).arg(site.root()));
    site.assert_clean();
}

#[test]
fn a_build_that_is_killed_is_recorded_told_and_made_up_for() {
    let site = Site::new(ENDLESS);
    let told = site.bench.path("told");
    site.configure("20260701_0000", &format!("on_failure = 'cat > {}'", told.display()));
    let mut runner = start(&mut site.once());
    site.wait_for_script();
    assert_eq!(site.outcomes()["default"], "running");
    assert!(site.runs(&[])[0]["stage"].is_string(), "{:?}", site.runs(&[]));
    // Another one leaves it alone.
    works(&mut site.once());
    assert_eq!(site.outcomes()["default"], "busy");
    signal(&runner, Signal::KILL);
    runner.wait().unwrap();
    site.assert_clean();
    assert_eq!(site.runs(&["--last=2"])[1]["outcome"], "interrupted");
    assert!(!told.exists());
    site.recipe("");
    works(&mut site.once());
    assert_eq!(site.outcomes()["default"], "built");
    let lost: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert_eq!(lost["outcome"], "interrupted");
    assert_eq!(site.serials("default"), ["20260701_0000"]);
}

#[test]
fn a_build_whose_own_process_is_killed_or_that_is_stopped_leaves_nothing() {
    let site = Site::new(ENDLESS);
    site.configure("20260701_0000", "");
    for end in [Signal::INT, Signal::TERM] {
        let runner = start(&mut site.once());
        site.wait_for_script();
        signal(&runner, end);
        let text = failed(&runner.wait_with_output().unwrap());
        assert!(text.contains("interrupted"), "{text}");
        assert_eq!(site.outcomes()["default"], "cancelled");
        site.assert_clean();
    }
    let runner = start(&mut site.once());
    site.wait_for_script();
    let build = child_of(runner.id(), "build");
    kill_process(Pid::from_raw(build).unwrap(), Signal::KILL).unwrap();
    let text = failed(&runner.wait_with_output().unwrap());
    assert!(text.contains("killed by signal 9"), "{text}");
    assert_eq!(site.outcomes()["default"], "failed");
    wait_until("the end of all processes", || site.bench.processes().is_empty());
}

#[test]
fn an_image_that_fails_its_boot_test_is_not_published() {
    let site = Site::with(Mirror::with(&bootable(INITTAB)));
    site.configure("20260701_0000", "test = true");
    works(&mut site.once());
    assert_eq!(site.runs(&[])[0]["boot_test"], true);
    site.bench.write("recipe.test.sh", "echo this is missing; exit 3");
    site.configure("20260702_0000", "test = true");
    fails(&mut site.once());
    let run = site.runs(&[]).remove(0);
    assert_eq!(
        (&run["outcome"], &run["boot_test"], &run["stage"]),
        (&"failed".into(), &false.into(), &"test".into())
    );
    let log = fs::read_to_string(site.root().join(run["log"].as_str().unwrap())).unwrap();
    assert!(log.contains("this is missing"), "{log}");
    assert_eq!(site.serials("default"), ["20260701_0000"]);
    site.assert_clean();
}

/// The child of a process whose arguments have this word.
fn child_of(parent: u32, word: &str) -> i32 {
    let of = |path: &Path| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
        let words = fs::read_to_string(path.join("cmdline")).ok()?;
        (line == parent.to_string() && words.split('\0').any(|w| w == word))
            .then(|| path.file_name()?.to_str()?.parse().ok())?
    };
    let found = fs::read_dir("/proc").unwrap().flatten().find_map(|item| of(&item.path()));
    found.expect("the build runs")
}

#[test]
fn a_missed_time_is_made_up_for_once_by_the_server_which_shows_the_log() {
    let site = Site::new("");
    let config = site.configure("20260701_0000", "");
    // The machine was down over several New Years.
    let slots = site.bench.path("state/data/schedule");
    fs::create_dir_all(&slots).unwrap();
    fs::write(slots.join("daily-mini.slot"), "2020-06-01T00:00:00Z\n").unwrap();
    let serve = || {
        let mut command = site.bench.command();
        command
            .args(["serve", "--plain-http", "--listen=127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--root")
            .arg(site.root());
        let messages = fs::File::create(site.bench.path("messages")).unwrap();
        command.stdout(Stdio::null()).stderr(messages).spawn().unwrap()
    };
    let server = serve();
    wait_until("the image", || site.outcomes().get("default").is_some_and(|outcome| outcome == "built"));
    wait_until("the slot", || {
        !fs::read_to_string(slots.join("daily-mini.slot")).unwrap().starts_with("2020")
    });
    let messages = fs::read_to_string(site.bench.path("messages")).unwrap();
    let url = messages.lines().find_map(|line| line.split_once(" at ")).unwrap().1.to_owned();
    let run = site.runs(&[]).remove(0);
    let log = get(&format!("{url}/{}", run["log"].as_str().unwrap()));
    assert!(log.starts_with("HTTP/1.1 200") && log.contains("text/plain"), "{log}");
    stop(server);
    // Once is enough.
    let server = serve();
    wait_until("the server", || fs::read_to_string(site.bench.path("messages")).unwrap().contains("serving"));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(site.runs(&["--last=9"]).len(), 1);
    stop(server);
    site.assert_clean();
}

fn stop(mut server: Child) {
    signal(&server, Signal::TERM);
    assert!(server.wait().unwrap().success());
}

#[test]
fn the_schedule_runs_by_itself_and_mistakes_are_told() {
    let site = Site::new("");
    site.configure("20260701_0000", "");
    let text = fs::read_to_string(site.bench.path("server.toml")).unwrap();
    site.bench.write("server.toml", &text.replace("0 3 1 1 *", "* * * * * *"));
    let runner = start(&mut site.daily(&["run"]));
    wait_until("two runs", || {
        site.runs(&["--last=9"]).iter().filter(|run| run["ended"].is_string()).count() >= 2
    });
    signal(&runner, Signal::INT);
    let output = runner.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(site.serials("default"), ["20260701_0000"]);

    let list = says(&mut site.daily(&["list"]));
    assert!(list.contains("mini") && list.contains("* * * * * *"), "{list}");
    let unknown = fails(&mut site.daily(&["run", "--once", "other"]));
    assert!(unknown.contains("no daily job other; there are: mini"), "{unknown}");
    site.bench.write("server.toml", &text.replace("recipe.yaml", "missing.yaml"));
    let missing = fails(&mut site.once());
    assert!(missing.contains("missing.yaml"), "{missing}");
    site.bench.write("server.toml", &text.replace("stream = \"stream\"", "stream = \"none\""));
    fs::create_dir(site.bench.path("none")).unwrap();
    let none = fails(&mut site.once());
    assert!(none.contains("not a stream"), "{none}");
    assert_eq!(fs::read_dir(site.bench.path("none")).unwrap().count(), 0, "nothing is written there");
    site.bench.write("server.toml", "");
    assert!(fails(&mut site.once()).contains("no [[daily]]"));
    // A mirror that hangs up.
    site.bench.write("server.toml", &text.replace("20260701_0000", "20260703_0000"));
    site.news("cut");
    site.mirror.break_path(&pool("news"), Fault::Cut);
    let cut = fails(&mut site.once());
    assert!(cut.contains("pool/news.deb"), "{cut}");
    site.assert_clean();
}

/// The builder has a stream of its own, and a token; the other machine the key that clients know.
#[test]
fn images_are_pushed_to_another_server() {
    let (site, other) = (Site::new(""), Bench::new());
    let (root, token) = (other.path("stream"), site.bench.path("token"));
    works(other.command().args(["stream", "init"]).arg(&root));
    let tokens = works(site.bench.command().args(["token", "create", "b", "--out"]).arg(&token));
    let area = format!("[[access]]\npath = \"/images/mini\"\nright = \"push\"\n{tokens}");
    let config =
        other.write("server.toml", &format!("[serve]\nroot = {root:?}\nlisten = \"127.0.0.1:0\"\n{area}"));
    let log = other.path("log");
    let mut serve = other.command();
    let serve = serve.args(["serve", "--config"]).arg(&config).stderr(fs::File::create(&log).unwrap());
    let mut serving = serve.stdout(Stdio::null()).spawn().unwrap();
    let mut url = None;
    wait_until("the server", || {
        let said = fs::read_to_string(&log).unwrap();
        url = said.split_whitespace().find(|word| word.starts_with("https://")).map(str::to_owned);
        url.is_some()
    });
    let ca = other.path("state/config/tls/ca.crt");
    let push = |token: &str| {
        format!("[daily.push]\nurl = {:?}\nca = {ca:?}\ntoken_file = {token:?}", url.as_ref().unwrap())
    };
    let listed = || works(other.command().args(["stream", "list", "--format=json"]).arg(&root));
    // Not with another token; the image is built all the same, and pushed by the next run.
    let stranger = site.bench.path("stranger");
    works(site.bench.command().args(["token", "create", "s", "--out"]).arg(&stranger));
    site.configure("20260701_0000", &push("stranger"));
    fails(&mut site.once());
    let run = site.runs(&[]).remove(0);
    let reason = run["reason"].as_str().unwrap();
    assert!(run["outcome"] == "failed" && reason.contains("not pushed"), "{run}");
    assert_eq!((site.serials("default"), listed().trim()), (vec!["20260701_0000".to_owned()], "[]"));
    site.configure("20260701_0000", &push("token"));
    works(&mut site.once());
    let pushed = listed();
    signal(&serving, Signal::TERM);
    serving.wait().unwrap();
    assert_eq!(site.outcomes()["default"], "unchanged");
    assert!(pushed.contains("20260701_0000"), "{pushed}");
    works(other.command().args(["stream", "verify"]).arg(&root));
    let log = site.root().join(site.runs(&[])[0]["log"].as_str().unwrap());
    assert!(fs::read_to_string(&log).unwrap().contains("==> pushed: https://"), "{}", log.display());
    site.assert_clean();
}
