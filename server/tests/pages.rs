//! The pages, in Chromium: with and without JavaScript, by mouse and by keyboard.

mod support;

use std::fs;
use std::sync::Arc;

use millstream_server::daily::history::Details;
use millstream_server::daily::{History, Outcome};
use millstream_server::http::{Limits, Tls};

use support::Image;
use support::browser::{Browser, CONTROL, TAB, keep};
use support::serving::Running;

const FIRST: &str = "20260102_0000";
const SECOND: &str = "20260103_0000";

/// A server with several distributions, and three images of one product.
fn running() -> Running {
    let running = Running::start();
    let packages = |bash: &str, other: &str| {
        [("bash", bash), ("libc6", "2.36-9"), (other, "1")]
            .map(|(name, version)| (name.into(), version.into()))
            .to_vec()
    };
    let mut image = Image::new("debian:bookworm:amd64:default", FIRST);
    image.packages = packages("5.2.15-2", "nano");
    running.tree.add(&image).unwrap();
    image = Image::new("debian:bookworm:amd64:default", SECOND);
    image.packages = packages("5.2.15-3", "vim");
    image.data = vec![7; 100_000];
    image.unified = "unified.tar.xz";
    running.tree.add(&image).unwrap();
    for product in ["alpine:3.22:arm64:default", "alpine:3.22:amd64:cloud", "debian:trixie:amd64:default"] {
        running.tree.add(&Image::new(product, FIRST)).unwrap();
    }
    running
}

fn url(running: &Running, path: &str) -> String {
    format!("http://{}/{path}", running.address)
}

fn page(serial: &str) -> String {
    format!("images/debian/bookworm/amd64/default/{serial}/index.html")
}

#[test]
fn the_catalogue_is_searched_by_typing_and_choosing() {
    let running = running();
    let browser = Browser::open(true, false);
    browser.go(&url(&running, ""));
    let rows = "#catalogue tbody tr";
    assert_eq!(browser.visible(rows).len(), 4);
    // By keyboard alone: the slash leads to the field, what is typed narrows at once.
    browser.keys("/");
    browser.keys("alpine");
    browser.wait("two rows", |browser| browser.visible(rows).len() == 2);
    assert_eq!(browser.find("output[name=found]").text(), "2 of 4");
    browser.find("select[name=arch]").keys("arm64");
    browser.wait("one row", |browser| browser.visible(rows).len() == 1);
    assert!(browser.visible(rows)[0].contains("alpine/3.22"));
    keep(&browser, "search.png");
    // The address says what was asked, and asks it again.
    let address = browser.url();
    assert!(address.ends_with("?q=alpine&arch=arm64"), "{address}");
    browser.go(&url(&running, "healthz"));
    browser.go(&address);
    browser.wait("one row", |browser| browser.visible(rows).len() == 1);
    browser.find("input[name=q]").keys(" nothing");
    browser.wait("no row", |browser| browser.visible(rows).is_empty());
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn an_image_has_a_page_that_tells_and_gives_everything() {
    let running = running();
    let browser = Browser::open(true, false);
    browser.go(&url(&running, ""));
    browser.find("#catalogue a[href*='bookworm']").click();
    assert!(browser.url().ends_with(&page(SECOND)), "the newest: {}", browser.url());
    let text = browser.find("main").text();
    for told in [
        "5.2.15-2",
        "5.2.15-3",
        "nano",
        "vim",
        "removed",
        "added",
        "updated",
        "Since 20260102_0000: 3 packages",
    ] {
        assert!(text.contains(told), "{told} in {text}");
    }
    assert!(!text.contains("libc6"), "what did not change is not listed");
    let sums =
        fs::read_to_string(running.tree.root().join(page(SECOND)).with_file_name("SHA256SUMS")).unwrap();
    for digest in sums.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(text.contains(digest), "{digest} in {text}");
    }
    // Three images so far, drawn and as a table.
    assert_eq!(browser.all("svg.plot circle").len(), 3);
    assert!(browser.find("svg.plot").displayed());
    keep(&browser, "image.png");

    // Commands are copied as they stand, with this server's name in them.
    browser.run(
        "const field = document.createElement('textarea'); field.id = 'paste'; document.body.append(field);",
    );
    let buttons = browser.all(".command button");
    let copied = |number: usize| {
        buttons[number].click();
        browser.wait("copied", |_| buttons[number].text() == "Copied");
        browser.run("document.getElementById('paste').value = ''");
        browser.find("#paste").keys(&format!("{CONTROL}v"));
        browser.run("return document.getElementById('paste').value").as_str().unwrap().to_owned()
    };
    let host = running.address.to_string();
    let wanted =
        format!("millstream remote add images https://{host}\nmillstream launch images:debian/bookworm c1");
    assert_eq!(copied(0), wanted);
    for (number, client) in [(3, "lxc"), (4, "incus")] {
        let wanted =
            format!("{client} image import https://{host}/direct/debian/bookworm --alias debian/bookworm");
        assert_eq!(copied(number), wanted);
    }

    // A download is counted.
    assert_eq!(browser.find("[data-downloads] + dd").text(), "0");
    let rootfs = format!("/{}", page(SECOND).replace("index.html", "rootfs.tar.xz"));
    assert_eq!(running.get(&rootfs, "").status, 200);
    browser.go(&browser.url());
    browser.wait("one download", |browser| browser.find("[data-downloads] + dd").text() == "1");
    browser.find("a[href='build.log']").click();
    assert!(browser.find("body").text().contains("built"));
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Without JavaScript everything is there but for what needs it, and that is hidden.
#[test]
fn pages_say_the_same_without_javascript() {
    let running = running();
    let browser = Browser::open(false, true);
    browser.go(&url(&running, ""));
    assert_eq!(browser.visible("#catalogue tbody tr").len(), 4);
    assert!(browser.visible("form.search, .command button").is_empty());
    assert!(browser.find("[data-placeholder]").displayed());
    browser.keys(TAB);
    assert_eq!(browser.find(":focus").text(), "Skip to the content", "the first stop of the keyboard");
    keep(&browser, "dark.png");
    browser.find(&format!("#catalogue .builds a[href$='{}']", page(SECOND))).click();
    browser.find("a[href='SHA256SUMS']").click();
    assert!(browser.find("body").text().contains("rootfs.tar.xz"));
    browser.go(&url(&running, &page(FIRST)));
    let text = browser.find("main").text();
    assert!(text.contains("What changed") && !text.contains("/direct/"), "it has no unified archive: {text}");
}

/// Too many for one page: distributions are listed, and the search reads LXC's index.
#[test]
fn a_large_catalogue_is_searched_through_its_index() {
    let running = Running::start();
    for number in 0..105 {
        running.tree.add(&Image::new(&format!("many:r{number:03}:amd64:default"), FIRST)).unwrap();
    }
    let browser = Browser::open(true, false);
    browser.go(&url(&running, ""));
    assert_eq!(browser.visible("#groups li"), ["debian, 1 product", "many, 105 products"]);
    browser.find("input[name=q]").keys("r07");
    browser.wait("ten found", |browser| browser.visible("#found li").len() == 10);
    assert!(browser.visible("#groups").is_empty());
    browser.find("input[name=q]").keys("3");
    browser.wait("one found", |browser| browser.visible("#found li").len() == 1);
    browser.find("#found a").click();
    assert_eq!(browser.find("h1").text(), "Debian many/r073");
    browser.find("nav a[href$='pages/many.html']").click();
    assert_eq!(browser.visible("#catalogue tbody tr").len(), 105);
    assert_eq!(browser.complaints(), [""; 0]);
}

/// What is being built is followed without a reload; failures say why; everybody else's stays away.
#[test]
fn daily_builds_are_followed_as_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let history = Arc::new(History::open(dir.path()).unwrap());
    let running = Running::with_history(Tls::Off, Limits::default(), Some(Arc::clone(&history)));
    let stream = running.tree.root().to_path_buf();
    let details = || Details { stream: stream.clone(), ..Details::default() };
    let mut failed = history.begin("all", "debian:trixie:amd64:default", details()).unwrap();
    failed.details.reason = Some("the mirror <b>is</b> gone".into());
    failed.details.log = Some("logs/all/1.log".into());
    failed.stage = Some("bootstrap".into());
    history.end(&mut failed, Outcome::Failed).unwrap();
    let mut build = history.begin("all", "debian:bookworm:amd64:default", details()).unwrap();
    let elsewhere = Details { stream: "/srv/other".into(), ..Details::default() };
    history.begin("all", "alpine:3.22:amd64:secret", elsewhere).unwrap();

    let browser = Browser::open(true, false);
    browser.go(&url(&running, ""));
    browser.wait("the link", |browser| !browser.visible("nav a[href='daily']").is_empty());
    browser.find("nav a[href='daily']").click();
    // At once, as rows are replaced.
    let lines = || {
        let rows = browser
            .run("return [...document.querySelectorAll('#builds tbody tr')].map(row => row.innerText)");
        serde_json::from_value::<Vec<String>>(rows).unwrap()
    };
    assert_eq!(lines().len(), 2);
    assert!(lines()[0].contains("running") && lines()[1].contains("the mirror <b>is</b> gone"));
    browser.wait("one being built", |browser| browser.find("#now").text() == "1 being built");
    build.stage = Some("packages".into());
    history.update(&build).unwrap();
    browser.wait("its stage", |_| lines()[0].contains("packages"));
    keep(&browser, "daily.png");
    build.details.serial = Some("20260101_0000".parse().unwrap());
    history.end(&mut build, Outcome::Built).unwrap();
    browser.wait("its end", |_| lines().iter().any(|line| line.contains("built")));
    assert!(lines().concat().contains("the mirror <b>is</b> gone"));
    browser.run("document.querySelector(\"#builds a[href$='index.html']\").click()");
    assert!(browser.find("h1").text().contains("debian/bookworm"));
    assert_eq!(browser.complaints(), [""; 0]);

    let plain = Browser::open(false, false);
    plain.go(&url(&running, "daily"));
    assert_eq!(plain.visible("#builds tbody tr").len(), 2);
    assert_eq!(Running::start().get("/daily", "").status, 404, "a server that builds nothing");
}

/// What an image says of itself is shown and never run.
#[test]
fn names_with_markup_are_text() {
    let running = Running::start();
    let mut image = Image::new("debian:bookworm:amd64:evil", FIRST);
    image.packages =
        vec![("<img src=x onerror=alert(1)>".into(), "<script>document.title='run'</script>".into())];
    running.tree.add(&image).unwrap();
    image.serial = SECOND.into();
    image.content = "other".into();
    image.packages[0].1 = "\"><script>document.title='run'</script>\u{202e}\u{7}".into();
    running.tree.add(&image).unwrap();
    let browser = Browser::open(true, false);
    browser.go(&url(&running, &page(SECOND).replace("default", "evil")));
    assert!(browser.find("main").text().contains("<img src=x onerror=alert(1)>"));
    assert!(browser.find("header").text().contains("<b>test</b>"));
    assert_eq!(browser.run("return document.querySelectorAll('main img, main script').length"), 0);
    assert!(!browser.run("return document.title").as_str().unwrap().contains("run"));
    assert_eq!(browser.complaints(), [""; 0]);
}

/// History outlives the images it tells of, and nonsense in its place does no harm.
#[test]
fn sizes_are_remembered_beyond_the_images() {
    let running = running();
    let first = ("debian:bookworm:amd64:default".parse().unwrap(), FIRST.parse().unwrap());
    let key = support::signing(&running.tree.key);
    running.tree.stream.remove(&[first], std::time::Duration::ZERO, &key).unwrap();
    let add = |serial: &str| {
        running.tree.add(&Image::new("debian:bookworm:amd64:default", serial)).unwrap();
        fs::read_to_string(running.tree.root().join(page(serial))).unwrap()
    };
    assert_eq!(add("20260104_0000").matches("<circle").count(), 4);
    let history = running.tree.root().join(page("20260104_0000")).with_file_name("history.json");
    fs::write(history, "[{\"serial\": 5}]").unwrap();
    assert_eq!(add("20260105_0000").matches("<circle").count(), 0, "begins anew");
    assert_eq!(running.tree.problems(), "");
}
