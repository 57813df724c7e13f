//! LXD's API with answers that are not what the list says, and servers that are not the one accepted.

use std::io::Read;
use std::sync::mpsc::channel;

use millstream_client::remotes::Protocol;
use millstream_client::{
    Access, Arriving, Error, Keep, NoProgress, Remote, Result, Sink, StoredImage, Trust,
};
use millstream_image::{Fingerprint, Sha256Digest};
use serde_json::json;
use tempfile::TempDir;

use crate::support::tls::Front;
use crate::support::{Fault, Fixture, Server, assert_refused, metadata_archive, noise, write};

const BOUNDARY: &str = "x-boundary-x";

/// A server that offers one image, `mine`.
struct Lxd {
    dir: TempDir,
    server: Server,
    front: Front,
    files: [Vec<u8>; 2],
    fingerprint: Fingerprint,
}

impl Lxd {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Of a kind that nobody unpacks: only the hash counts here.
        let files = [metadata_archive("x86_64"), noise("rootfs", 300_000)];
        let fingerprint = Fingerprint::new(Sha256Digest::of(&files.concat()));
        let server = Server::start(dir.path());
        let front = Front::start(&server);
        let lxd = Self { dir, server, front, files, fingerprint };
        write(&lxd.dir.path().join("1.0/index"), b"");
        lxd.list(lxd.files.concat().len());
        lxd.export(&lxd.body(&[("metadata", 0), ("rootfs", 1)], true));
        lxd
    }

    /// What the list says of the image's size.
    fn list(&self, size: usize) {
        let list = json!({"type": "sync", "metadata": [{
            "fingerprint": self.fingerprint, "size": size, "architecture": "x86_64", "type": "container",
            "aliases": [{"name": "mine"}], "properties": null,
        }]});
        self.server.fault("/1.0/images?recursion=1", Fault::Replace(list.to_string().into_bytes()));
    }

    fn export(&self, body: &[u8]) {
        let name = format!("1.0/images/{}/export", self.fingerprint);
        write(&self.dir.path().join(&name), body);
        self.server.fault(&name, Fault::Typed(format!("multipart/form-data; boundary={BOUNDARY}")));
    }

    /// An answer of these parts.
    fn body(&self, parts: &[(&str, usize)], complete: bool) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, file) in parts {
            let head = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(&self.files[*file]);
            body.extend_from_slice(b"\r\n");
        }
        if complete {
            body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        }
        body
    }

    async fn add(&self, certificate: Option<Sha256Digest>) -> Result<Fixture> {
        let fixture = Fixture::new();
        let access = Access { server_certificate: certificate, ..Access::default() };
        let remote = Remote::new(&self.front.url, Trust::InsecureNoSignature, None)?.reached(access, &[])?;
        fixture.client.add_remote_as(&"r".parse()?, remote, Protocol::Lxd).await?;
        Ok(fixture)
    }

    async fn fixture(&self) -> Fixture {
        self.add(Some(self.front.certificate)).await.unwrap()
    }
}

async fn fetch(fixture: &Fixture) -> Result<StoredImage> {
    fixture.fetch("r:mine").await
}

#[tokio::test]
async fn a_split_image_is_read_while_it_comes() {
    let lxd = Lxd::new();
    let fixture = lxd.fixture().await;
    let (sender, receiver) = channel();
    let sink: Sink = Box::new(move |_, mut rootfs: Arriving| {
        let mut bytes = Vec::new();
        sender.send(rootfs.read_to_end(&mut bytes).map(|_| bytes)).unwrap();
    });
    let name = "r:mine".parse().unwrap();
    let image = fixture.client.fetch_into(&name, Keep::default(), Some(sink), &NoProgress).await.unwrap();
    assert_eq!(image.fingerprint, lxd.fingerprint);
    assert!(receiver.recv().unwrap().unwrap() == lxd.files[1]);
    fixture.client.store().unwrap().verify(&image).unwrap();
}

#[tokio::test]
async fn answers_that_are_no_image_or_another_are_refused() {
    let lxd = Lxd::new();
    let fixture = lxd.fixture().await;
    let good = lxd.body(&[("metadata", 0), ("rootfs", 1)], true);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let bodies = [
        flipped,
        lxd.body(&[("rootfs", 1), ("metadata", 0)], true),
        lxd.body(&[("metadata", 0)], true),
        lxd.body(&[("metadata", 0), ("rootfs.img", 1)], true),
        lxd.body(&[("metadata", 0), ("rootfs", 1), ("rootfs", 1)], true),
        lxd.files.concat(),
        Vec::new(),
    ];
    for (at, body) in bodies.iter().enumerate() {
        lxd.export(body);
        let result = fetch(&fixture).await;
        assert!(matches!(result, Err(Error::Mismatch { .. } | Error::Network { .. })), "{at}: {result:?}");
        if matches!(result, Err(Error::Mismatch { .. })) {
            fixture.assert_store_empty();
        }
    }
    // One byte more than the list states.
    lxd.export(&good);
    lxd.list(lxd.files.concat().len() - 1);
    assert_refused!(fetch(&fixture).await, Error::Mismatch { .. });
    lxd.list(lxd.files.concat().len());
    fetch(&fixture).await.unwrap();
}

#[tokio::test]
async fn endless_and_broken_answers_end() {
    let lxd = Lxd::new();
    let fixture = lxd.fixture().await;
    let path = format!("{}/export", lxd.fingerprint);
    lxd.server.heal();
    lxd.list(lxd.files.concat().len());
    lxd.server.fault(&path, Fault::Endless);
    assert_refused!(fetch(&fixture).await, Error::Mismatch { .. });
    lxd.server.heal();
    lxd.list(lxd.files.concat().len());
    // Cut off in the middle, and just before its last line.
    let whole = lxd.body(&[("metadata", 0), ("rootfs", 1)], true);
    for cut in [&whole[..200_000], &lxd.body(&[("metadata", 0), ("rootfs", 1)], false)[..]] {
        lxd.export(cut);
        assert_refused!(fetch(&fixture).await, Error::Network { .. });
        assert!(fixture.client.store().unwrap().list().unwrap().is_empty());
    }
    lxd.export(&lxd.body(&[("metadata", 0), ("rootfs", 1)], true));
    fetch(&fixture).await.unwrap();
}

#[tokio::test]
async fn another_certificate_than_the_accepted_one_is_refused() {
    let lxd = Lxd::new();
    assert_refused!(lxd.add(None).await, Error::Certificate { .. });
    assert_refused!(lxd.add(Some(Sha256Digest::of(b"x"))).await, Error::Certificate { .. });
    let shown = Fixture::new().client.offered_certificate(&lxd.front.url, &Access::default()).await.unwrap();
    assert_eq!(shown, lxd.front.certificate);
    // The same server after somebody took its place.
    let fixture = lxd.fixture().await;
    let other = Front::start(&lxd.server);
    let table = fixture.dir.path().join("config/remotes.json");
    let text = std::fs::read_to_string(&table).unwrap().replace(&lxd.front.url, &other.url);
    std::fs::write(&table, text).unwrap();
    assert_refused!(fetch(&fixture).await, Error::Certificate { .. });
}
