//! `docker-http`: a registry in miniature, OCI layouts, and skopeo as the judge of what a layout is.

use std::collections::BTreeMap;
use std::fs;

use millstream_image::archive::Compression;
use millstream_image::oci::{Descriptor, Digest, Index};

use super::images::{Layer, image, layer, layout_files, write};
use super::server::{Fault, Server};
use crate::bench::{Bench, fails, works};

fn recipe(url: &str) -> String {
    format!(
        "image:\n  distribution: d\n  release: r\n  architecture: amd64\nsource:\n  downloader: docker-http\n  url: '{url}'\n"
    )
}

fn layers(which: &str) -> Vec<Layer> {
    vec![
        layer(&[("etc/which", "lower"), ("etc/gone", "x"), ("opt/a/one", "1")], Compression::Gzip),
        layer(&[("etc/which", which), ("etc/.wh.gone", "")], Compression::Zstd),
        layer(&[("opt/a/.wh..wh..opq", ""), ("opt/a/two", "2")], Compression::None),
    ]
}

/// A registry with `team/image:1`, an index for two architectures.
fn registry() -> (Server, Digest) {
    let server = Server::start();
    let mut list = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let (blobs, descriptor) = image(&layers(architecture), architecture);
        publish(&server, &blobs);
        list.push(descriptor);
    }
    let index = Index::new(list).to_bytes().unwrap();
    server.put("v2/team/image/manifests/1", index.clone());
    server.put(&format!("v2/team/image/manifests/{}", Digest::of(&index)), index.clone());
    (server, Digest::of(&index))
}

fn publish(server: &Server, blobs: &BTreeMap<Digest, Vec<u8>>) {
    for (digest, data) in blobs {
        server.put(&format!("v2/team/image/blobs/{digest}"), data.clone());
        server.put(&format!("v2/team/image/manifests/{digest}"), data.clone());
    }
}

fn name(server: &Server, rest: &str) -> String {
    format!("{}/team/image{rest}", server.url.trim_start_matches("http://"))
}

fn good(bench: &Bench, url: &str, which: &str) {
    works(&mut bench.build(&recipe(url), "out", &["--format=dir"]));
    let root = bench.path("out/rootfs");
    assert_eq!(fs::read_to_string(root.join("etc/which")).unwrap(), which);
    assert!(!root.join("etc/gone").exists() && !root.join("opt/a/one").exists());
    assert_eq!(fs::read_to_string(root.join("opt/a/two")).unwrap(), "2");
    fs::remove_dir_all(bench.path("out")).unwrap();
}

fn bad(bench: &Bench, url: &str, word: &str) {
    let text = fails(&mut bench.build(&recipe(url), "out", &["--format=dir"]));
    assert!(text.contains(word), "{word:?} is not in:\n{text}");
    bench.assert_clean("out");
}

#[test]
fn images_by_tag_and_digest_with_and_without_a_token() {
    let bench = Bench::new();
    let (server, digest) = registry();
    good(&bench, &name(&server, ":1"), "amd64");
    server.want_token("secret");
    good(&bench, &name(&server, &format!(":1@{digest}")), "amd64");
    bad(&bench, &name(&server, ":2"), "no such image");
    bad(&bench, &name(&server, &format!("@{}", Digest::of(b"x"))), "no such image");
    let text = fails(&mut bench.build(
        &recipe(&name(&server, ":1")),
        "out",
        &["--format=dir", "-o", "image.architecture=s390x"],
    ));
    assert!(text.contains("no image for s390x (there: amd64, arm64v8)"), "{text}");
}

#[test]
fn registries_that_lie_are_refused() {
    let bench = Bench::new();
    let (server, digest) = registry();
    // Another index under the digest that was asked for.
    server
        .put(&format!("v2/team/image/manifests/{digest}"), server.get("v2/team/image/manifests/1").repeat(1));
    let (blobs, descriptor) = image(&layers("x"), "amd64");
    publish(&server, &blobs);
    let forged = Index::new(vec![descriptor]).to_bytes().unwrap();
    server.put(&format!("v2/team/image/manifests/{digest}"), forged);
    bad(&bench, &name(&server, &format!("@{digest}")), "its digest is");
    // A layer with other bytes, of other sizes, without end, elsewhere.
    let of_amd64 = &layers("amd64")[1].data;
    let path = format!("v2/team/image/blobs/{}", Digest::of(of_amd64));
    let mut other = of_amd64.clone();
    *other.last_mut().unwrap() ^= 1;
    server.put(&path, other);
    bad(&bench, &name(&server, ":1"), "SHA-256");
    server.put(&path, vec![0; of_amd64.len() + 1]);
    bad(&bench, &name(&server, ":1"), "bytes, stated are");
    server.misbehave(&path, Fault::Endless);
    bad(&bench, &name(&server, ":1"), "stated");
    server.misbehave(&path, Fault::Redirect("file:///etc/passwd".into()));
    bad(&bench, &name(&server, ":1"), "unsafe address");
    bad(&bench, "m.example/a/b:1:2", "source.url");
    bad(&bench, "http://m.example/a", "not a URL");
}

#[test]
fn images_that_contradict_themselves_are_refused() {
    let (bench, server) = (Bench::new(), Server::start());
    let put = |layers: &[Layer], architecture: &str| {
        let (blobs, descriptor) = image(layers, architecture);
        publish(&server, &blobs);
        server.put("v2/team/image/manifests/1", blobs[&descriptor.digest].clone());
    };
    put(&layers("arm64"), "arm64");
    bad(&bench, &name(&server, ":1"), "not for amd64");
    let mut wrong = layers("amd64");
    wrong[1].plain = Digest::of(b"else");
    put(&wrong, "amd64");
    bad(&bench, &name(&server, ":1"), "a layer unpacks to");
    put(&[layer(&[(".wh.", "x")], Compression::Gzip)], "amd64");
    bad(&bench, &name(&server, ":1"), "whiteout of nothing");
}

#[test]
fn layouts_by_directory_and_name() {
    let bench = Bench::new();
    let (blobs, descriptor) = image(&layers("layout"), "amd64");
    let files = layout_files(blobs.clone(), descriptor.clone(), "one");
    write(&files, &bench.path("layout"));
    good(&bench, "oci:layout:one", "layout");
    good(&bench, &format!("oci:{}", bench.path("layout").display()), "layout");
    bad(&bench, "oci:layout:two", "no image of this name (there: one)");
    bad(&bench, "oci:nowhere", "nowhere");
    // A blob with a byte changed.
    let first = layers("layout").remove(0).data;
    let place = bench.path("layout").join(Descriptor::of("x", &first).digest.blob_path());
    let mut data = fs::read(&place).unwrap();
    data[9] ^= 1;
    fs::write(&place, data).unwrap();
    bad(&bench, "oci:layout:one", "its manifest says");
    // A blob that leads outside.
    fs::write(bench.path("outside"), &first).unwrap();
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(bench.path("outside"), &place).unwrap();
    bad(&bench, "oci:layout:one", "blobs/sha256");
}
