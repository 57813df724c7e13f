//! Private areas, as clients meet them.

mod support;

use std::fs;

use millstream_image::Sha256Digest;
use millstream_server::config::{Area, Right};
use millstream_server::http::{Gate, Limits, Tls};
use millstream_server::tls::LocalAuthority;
use millstream_server::token;
use serde_json::Value;
use support::Image;
use support::serving::{ROOTFS, Running};

fn area(path: &str, token: &str) -> Area {
    let tokens = vec![Sha256Digest::of(token.as_bytes())];
    Area { path: path.into(), right: Right::Read, tokens, certificates: Vec::new() }
}

fn start(areas: Vec<Area>) -> Running {
    let gate = |_: &support::Fixture| Gate { areas, ..Gate::default() };
    Running::guarded(Tls::Off, Limits::default(), gate)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn private_stream_is_for_those_with_its_token() {
    let (token, _) = token::create();
    let server = start(vec![area("/", &token)]);
    for path in [
        "/",
        "/streams/v1/index.json",
        ROOTFS,
        "/1.0",
        "/1.0/images",
        "/1.0/images/aliases/a%2fb",
        "/metrics",
    ] {
        let nobody = server.get(path, "");
        assert_eq!(nobody.status, 401, "{path}");
        assert_eq!(nobody.header("www-authenticate"), Some("Bearer realm=\"millstream\""), "{path}");
        let wrong = server.get(path, &bearer("mst_guess"));
        assert_eq!(wrong.status, 401, "{path}");
        assert!(wrong.header("www-authenticate").unwrap().contains("invalid_token"), "{path}");
    }
    for path in ["/", "/streams/v1/index.json", ROOTFS, "/1.0/images"] {
        let answer = server.get(path, &bearer(&token));
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("cache-control").unwrap().contains("private"), "{path}");
    }
    assert_eq!(server.get("/healthz", "").status, 200, "always open");
    let _ = server.get(&format!("/?access_token={token}&a=b"), &bearer(&token));
    let log = server.log.lock().unwrap().join("\n");
    assert!(log.contains("a=b") && !log.contains(&token) && !log.contains("Bearer"), "{log}");
}

#[test]
fn part_of_a_stream_is_private_in_every_spelling() {
    let server = start(vec![area("/images/debian", "one"), area("/images/alpine", "two")]);
    let image = Image::new("alpine:3:amd64:default", "20260102_0000");
    server.tree.add(&image).unwrap();
    let doubled = ROOTFS.replace("/images", "//images//");
    for path in
        [ROOTFS, &doubled, &ROOTFS.replace("debian", "%64ebian"), &ROOTFS.replace("images", "%69mages")]
    {
        assert_eq!(server.get(path, "").status, 401, "{path}");
        assert_eq!(server.get(path, &bearer("two")).status, 403, "{path}");
        assert_eq!(server.get(path, &bearer("one")).status, 200, "{path}");
    }
    assert_eq!(server.get("/key.asc", "").status, 200, "the rest is open");
    let images = |headers: &str| {
        let answer = server.get("/1.0/images", headers);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        body["metadata"].as_array().unwrap().clone()
    };
    assert!(images("").is_empty(), "the API names what the caller may see");
    let (debian, alpine) = (images(&bearer("one")), images(&bearer("two")));
    assert_eq!((debian.len(), alpine.len()), (1, 1));
    assert_ne!(debian, alpine);
    let export = format!("{}/export", debian[0].as_str().unwrap());
    assert_eq!(server.get(&export, "").status, 404);
    assert_eq!(server.get(&export, &bearer("two")).status, 404);
    assert_eq!(server.get(&export, &bearer("one")).status, 200);
}

#[test]
fn client_certificate_opens_what_its_fingerprint_may() {
    let dir = tempfile::tempdir().unwrap();
    let authority = LocalAuthority::new(dir.path());
    let identity = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        (Sha256Digest::of(cert.der()), cert.pem() + &key.serialize_pem())
    };
    let ((known, pem), (_, stranger)) = (identity(), identity());
    let areas =
        vec![Area { path: "/".into(), right: Right::Read, tokens: Vec::new(), certificates: vec![known] }];
    let tls = Tls::Local(authority.clone(), Vec::new());
    let server = Running::guarded(tls, Limits::default(), |_| Gate { areas, ..Gate::default() });
    let ca = reqwest::Certificate::from_pem(&fs::read(authority.ca_path()).unwrap()).unwrap();
    let status = |identity: Option<&str>| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder().tls_certs_only([ca.clone()]);
        if let Some(pem) = identity {
            client = client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        let url = format!("https://{}{ROOTFS}", server.address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { client.build().unwrap().get(url).send().await.unwrap().status().as_u16() })
    };
    assert_eq!(status(None), 401);
    assert_eq!(status(Some(&stranger)), 401);
    assert_eq!(status(Some(&pem)), 200);
}
