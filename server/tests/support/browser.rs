//! Chromium without a screen, driven through WebDriver (W3C), which is JSON over HTTP.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What WebDriver calls an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Keys of WebDriver's own.
pub const CONTROL: &str = "\u{e009}";
pub const ENTER: &str = "\u{e007}";
pub const TAB: &str = "\u{e004}";

/// A browser with one window; both it and its driver end with the test.
pub struct Browser {
    driver: Child,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    session: String,
    _profile: TempDir,
}

/// An element of the page.
pub struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Browser {
    /// A window of 1200 by 900, with or without JavaScript, light or dark.
    pub fn open(javascript: bool, dark: bool) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs chromium-driver");
        let port = port(&mut driver);
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--window-size=1200,900".into(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        args.extend(dark.then(|| "--force-dark-mode".to_owned()));
        let scripts = if javascript { 1 } else { 2 };
        let options = json!({
            "args": args,
            "prefs": {"profile.managed_default_content_settings.javascript": scripts},
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let _ = rustls::crypto::ring::default_provider().install_default(); // By another test, else.
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(2)).build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let session = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, client, runtime, session, _profile: profile };
        let answer = browser.post("", &wanted);
        browser.session = format!("{}/{}", browser.session, answer["sessionId"].as_str().unwrap());
        browser
    }

    pub fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    pub fn url(&self) -> String {
        self.get("/url").as_str().unwrap().to_owned()
    }

    /// The one element that a CSS selector names first.
    pub fn find(&self, selector: &str) -> Element<'_> {
        self.all(selector).into_iter().next().unwrap_or_else(|| panic!("no {selector} on {}", self.url()))
    }

    pub fn all(&self, selector: &str) -> Vec<Element<'_>> {
        let found = self.post("/elements", &json!({"using": "css selector", "value": selector}));
        let ids = found.as_array().unwrap().iter().map(|one| one[ELEMENT].as_str().unwrap().to_owned());
        ids.map(|id| Element { browser: self, id }).collect()
    }

    /// Those of them that can be seen.
    pub fn visible(&self, selector: &str) -> Vec<String> {
        self.all(selector).iter().filter(|element| element.displayed()).map(Element::text).collect()
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Types into whatever has the focus.
    pub fn keys(&self, text: &str) {
        let focused = self.get("/element/active");
        let id = focused[ELEMENT].as_str().unwrap().to_owned();
        Element { browser: self, id }.keys(text);
    }

    /// What the page complained of. Text that is no page has no icon, which Chromium asks for.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let messages = log.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap());
        messages.filter(|message| !message.contains("/favicon.ico ")).map(str::to_owned).collect()
    }

    /// A picture of the window, a PNG in base64.
    pub fn screenshot(&self) -> String {
        self.get("/screenshot").as_str().unwrap().to_owned()
    }

    /// Polls until `done`, for at most ten seconds.
    pub fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !done(self) {
            assert!(Instant::now() < end, "{what}: not within ten seconds");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn get(&self, path: &str) -> Value {
        self.value(self.client.get(format!("{}{path}", self.session)))
    }

    fn value(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = self.runtime.block_on(async { request.send().await?.text().await }).unwrap();
        let mut value: Value = serde_json::from_str(&answer).unwrap();
        assert!(value["value"]["error"].is_null(), "{answer}");
        value["value"].take()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.session));
        self.value(request.header("content-type", "application/json").body(body.to_string()))
    }
}

impl Element<'_> {
    pub fn text(&self) -> String {
        self.browser.get(&format!("/element/{}/text", self.id)).as_str().unwrap().to_owned()
    }

    pub fn displayed(&self) -> bool {
        self.browser.get(&format!("/element/{}/displayed", self.id)).as_bool().unwrap()
    }

    pub fn click(&self) {
        self.browser.post(&format!("/element/{}/click", self.id), &json!({}));
    }

    pub fn keys(&self, text: &str) {
        self.browser.post(&format!("/element/{}/value", self.id), &json!({"text": text}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(async { self.client.delete(&self.session).send().await });
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that the driver says it listens on.
fn port(driver: &mut Child) -> u16 {
    let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let told = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_suffix('.')?.rsplit_once("on port ")?.1.parse().ok());
    told.expect("chromedriver says its port")
}

/// Writes a picture where `MILLSTREAM_SCREENSHOTS` says, for people.
pub fn keep(browser: &Browser, name: &str) -> Vec<u8> {
    use base64::Engine as _;
    let png = base64::engine::general_purpose::STANDARD.decode(browser.screenshot()).unwrap();
    if let Some(dir) = std::env::var_os("MILLSTREAM_SCREENSHOTS") {
        std::fs::write(Path::new(&dir).join(name), &png).unwrap();
    }
    png
}
