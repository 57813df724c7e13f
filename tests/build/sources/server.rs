//! A mirror of any distribution: files, directory listings, and ways to misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// How paths that end in a given text are answered.
#[derive(Clone)]
pub enum Fault {
    /// One byte more than there is, and the head says so.
    LongHead,
    /// A head that states nothing, and a body without end.
    Endless,
    /// A redirect to this address.
    Redirect(String),
}

#[derive(Clone, Default)]
pub struct Server {
    pub url: String,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    fault: Arc<Mutex<Option<(String, Fault)>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// When set, paths below `/v2/` want this bearer token, which `/token` gives to anybody.
    token: Arc<Mutex<Option<String>>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { url: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                std::thread::spawn(move || server.serve(&stream));
            }
        });
        server
    }

    /// `path` without a slash before it.
    pub fn put(&self, path: &str, data: impl Into<Vec<u8>>) {
        self.files.lock().unwrap().insert(format!("/{path}"), data.into());
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.files.lock().unwrap()[&format!("/{path}")].clone()
    }

    /// Every path there is, with a slash before it.
    pub fn paths(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    pub fn remove(&self, path: &str) {
        assert!(self.files.lock().unwrap().remove(&format!("/{path}")).is_some(), "{path}");
    }

    pub fn misbehave(&self, ending: &str, fault: Fault) {
        *self.fault.lock().unwrap() = Some((ending.to_owned(), fault));
    }

    pub fn want_token(&self, token: &str) {
        *self.token.lock().unwrap() = Some(token.to_owned());
        self.put("token", format!(r#"{{"token":"{token}"}}"#));
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() {
            return;
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut head = String::new();
        while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
        self.asked.lock().unwrap().push(path.clone());
        let path = path.replace("%3A", ":").replace("%2B", "+");
        let path = if path.starts_with("/token?") { "/token".to_owned() } else { path };
        let token = self.token.lock().unwrap().clone().filter(|_| path.starts_with("/v2/"));
        if token.is_some_and(|token| !head.to_lowercase().contains(&format!("authorization: bearer {token}")))
        {
            let url = &self.url;
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\
                 WWW-Authenticate: Bearer realm=\"{url}/token\",service=\"r\"\r\n\r\n"
            );
            let mut out = stream;
            let _ = out.write_all(answer.as_bytes());
            return;
        }
        let file = self.files.lock().unwrap().get(&path).cloned();
        let body = file.or_else(|| self.listing(&path));
        let fault = self.fault.lock().unwrap().clone().filter(|(ending, _)| path.ends_with(ending.as_str()));
        let mut out = stream;
        let mut head = |text: &str| {
            let _ = out.write_all(format!("HTTP/1.1 {text}\r\nConnection: close\r\n\r\n").as_bytes());
        };
        let Some(body) = body else { return head("404 Not Found\r\nContent-Length: 0") };
        match fault.map(|(_, fault)| fault) {
            None => {
                head(&format!("200 OK\r\nContent-Length: {}", body.len()));
                let _ = out.write_all(&body);
            }
            Some(Fault::LongHead) => {
                head(&format!("200 OK\r\nContent-Length: {}", body.len() + 1));
                let _ = out.write_all(&body);
            }
            Some(Fault::Endless) => {
                head("200 OK");
                let chunk = vec![b'a'; 1 << 20];
                while out.write_all(&chunk).is_ok() {}
            }
            Some(Fault::Redirect(to)) => head(&format!("302 Found\r\nContent-Length: 0\r\nLocation: {to}")),
        }
    }

    /// As web servers write it.
    fn listing(&self, path: &str) -> Option<Vec<u8>> {
        if !path.ends_with('/') {
            return None;
        }
        let files = self.files.lock().unwrap();
        let names: BTreeSet<String> = files
            .keys()
            .filter_map(|file| file.strip_prefix(path))
            .map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(name, _)| format!("{name}/")))
            .collect();
        let mut text = String::from("<html><a href=\"../\">../</a>\n");
        for name in &names {
            let _ = writeln!(text, "<a href=\"{name}\">{name}</a>   2026-07-01 10:00   1.2M");
        }
        (!names.is_empty()).then(|| text.into_bytes())
    }
}
