//! Images pushed by builders elsewhere: published whole or not at all, whatever is cut off.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use millstream_client::Access;
use millstream_image::{Sha256Digest, atomic};
use millstream_server::config::{Area, Push as Settings, Right};
use millstream_server::http::{Gate, Tls};
use millstream_server::push;
use millstream_server::push::client::Pusher;
use millstream_server::stream::{Deltas, Stream};
use millstream_server::tls::LocalAuthority;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use support::pushing::{
    OWNER, QUICK, Relay, announce, announcement, build, open_server, pushed, pushed_by, send, send_all,
    server, uploads,
};
use support::serving::Running;
use support::{Fixture, signing};

const PRODUCT: &str = "debian:trixie";
const SERIAL: &str = "20260102_0000";
const ROOTFS: &str = "/images/debian/trixie/amd64/default/20260102_0000/rootfs.tar.xz";

fn listed(server: &Running) -> usize {
    server.tree.stream.list(SystemTime::now()).unwrap().len()
}

#[test]
fn pushed_image_is_published_when_all_of_it_is_there() {
    let server = open_server();
    let dir = build(&server.tree, PRODUCT, SERIAL, 100_000);
    let upload = announce(&server, OWNER, &announcement(&dir, PRODUCT, SERIAL));
    let rootfs = fs::read(dir.join("rootfs.tar.xz")).unwrap();
    assert_eq!(send(&server, OWNER, "PATCH", &format!("{upload}/rootfs.tar.xz?offset=0"), &rootfs).0, 200);
    let (status, said) = send(&server, OWNER, "POST", &format!("{upload}/finish"), b"");
    assert!(status == 409 && said["error"].as_str().unwrap().contains("not all"), "{said}");
    assert_eq!((listed(&server), server.get(ROOTFS, "").status), (1, 404), "nobody sees it");
    let inside = uploads(server.tree.root()).pop().unwrap();
    let inside = inside.strip_prefix(server.tree.root()).unwrap().join("image/rootfs.tar.xz");
    assert!(server.tree.root().join(&inside).exists());
    assert_eq!(server.get(&format!("/{}", inside.display()), "").status, 404);
    assert_eq!(server.tree.problems(), "", "an upload is no stray file");

    let done = pushed(server.address, OWNER, &dir, QUICK).unwrap();
    assert!(done.new && done.published && done.url.ends_with(SERIAL), "{done:?}");
    assert_eq!((listed(&server), server.get(ROOTFS, "").body), (2, rootfs));
    let known = server.tree.stream.list(SystemTime::now()).unwrap();
    assert!(known.iter().any(|image| image.fingerprint == Some(done.fingerprint)));
    assert_eq!(server.tree.problems(), "");
    assert!(uploads(server.tree.root()).is_empty());
    // Again it is there already; another one of its name is refused before a byte of it is sent.
    assert!(!pushed(server.address, OWNER, &dir, QUICK).unwrap().new);
    let other = build(&server.tree, PRODUCT, SERIAL, 10);
    let error = pushed(server.address, OWNER, &other, QUICK).unwrap_err().to_string();
    assert!(error.contains("another image") && error.contains("--serial"), "{error}");
    assert!(uploads(server.tree.root()).is_empty());
}

#[test]
fn push_goes_on_over_connections_that_are_cut() {
    let server = open_server();
    let dir = build(&server.tree, PRODUCT, SERIAL, 1_200_000);
    let relay = Relay::cutting(server.address, 200_000);
    assert!(pushed(relay.address, OWNER, &dir, QUICK).unwrap().new);
    assert!(relay.connections.load(Ordering::Relaxed) >= 6);
    let sent: Vec<_> =
        server.log.lock().unwrap().iter().filter(|line| line.contains("PATCH")).cloned().collect();
    let again = sent.iter().filter(|line| line.contains("rootfs.tar.xz?offset=0 ")).count();
    assert_eq!(again, 1, "what has come is not sent again: {sent:#?}");
    assert_eq!(server.tree.problems(), "");
    // A way that lets nothing through ends with an error, and what came is kept.
    let dir = build(&server.tree, PRODUCT, "20260103_0000", 1000);
    let relay = Relay::cutting(server.address, 100);
    let error = pushed(relay.address, OWNER, &dir, QUICK).unwrap_err().to_string();
    assert!(error.contains("/push/v1"), "{error}");
}

/// Half of a piece, then silence: the bytes that came count, also for a server that was started anew.
#[test]
fn push_goes_on_with_another_run_and_another_server() {
    let mut server = open_server();
    let dir = build(&server.tree, PRODUCT, SERIAL, 400_000);
    let upload = announce(&server, OWNER, &announcement(&dir, PRODUCT, SERIAL));
    let rootfs = fs::read(dir.join("rootfs.tar.xz")).unwrap();
    let mut half = server.connect();
    let head = format!(
        "PATCH {upload}/rootfs.tar.xz?offset=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OWNER}\r\n\
         Content-Length: {}\r\n\r\n",
        rootfs.len()
    );
    half.write_all(head.as_bytes()).unwrap();
    half.write_all(&rootfs[..300_000]).unwrap();
    half.shutdown(Shutdown::Both).unwrap();
    let part = uploads(server.tree.root())[0].join("image/rootfs.tar.xz");
    let came = || fs::metadata(&part).map_or(0, |meta| meta.len());
    for _ in 0..100 {
        if came() == 300_000 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(came(), 300_000);
    // The part of a pusher that was killed may be anything: it is found out, and sent again.
    File::options().write(true).open(&part).unwrap().write_all(b"not what was sent").unwrap();
    server.again();
    assert!(pushed(server.address, OWNER, &dir, QUICK).unwrap().new);
    let log = server.log.lock().unwrap().join("\n");
    assert!(log.contains("rootfs.tar.xz?offset=300000") && log.contains("finish HTTP/1.1\" 409"), "{log}");
    assert_eq!(server.tree.problems(), "");
}

#[test]
fn pushers_at_once_do_not_disturb_each_other() {
    let server = open_server();
    let same = build(&server.tree, PRODUCT, SERIAL, 1_200_000);
    let others: Vec<_> =
        (0..2).map(|n| build(&server.tree, &format!("alpine:{n}"), SERIAL, 100_000)).collect();
    let push = |dir: &Path| pushed(server.address, OWNER, dir, QUICK).unwrap();
    let done: Vec<_> = thread::scope(|scope| {
        let dirs = [&same, &same, &others[0], &others[1]];
        let pushes: Vec<_> = dirs.into_iter().map(|dir| scope.spawn(move || push(dir))).collect();
        pushes.into_iter().map(|push| push.join().unwrap()).collect()
    });
    assert_eq!(done[0].fingerprint, done[1].fingerprint);
    assert_eq!(listed(&server), 4);
    assert_eq!(server.tree.problems(), "");
    assert!(uploads(server.tree.root()).is_empty());
    // Of two different images of one serial one is published, the other refused.
    let (one, two) = ("20260105_0000", "20260105_0000");
    let first = build(&server.tree, PRODUCT, one, 10);
    let upload = announce(&server, OWNER, &announcement(&first, PRODUCT, one));
    let kept = server.tree.dir.path().join("first");
    fs::rename(&first, &kept).unwrap();
    let second = build(&server.tree, PRODUCT, two, 20);
    assert!(pushed(server.address, OWNER, &second, QUICK).unwrap().new);
    let (status, said) = send_all(&server, OWNER, &upload, &kept);
    assert!(status == 409 && said["error"].as_str().unwrap().contains("another image"), "{said}");
    assert_eq!(server.tree.problems(), "");
}

/// Over TLS, known by a certificate alone.
#[test]
fn a_client_certificate_is_as_good_as_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let authority = LocalAuthority::new(dir.path());
    let identity = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let path = dir.path().join(name);
        atomic::write_with_mode(&path, (cert.pem() + &key.serialize_pem()).as_bytes(), 0o600).unwrap();
        (path, Sha256Digest::of(cert.der()))
    };
    let ((mine, known), (stranger, _)) = (identity("mine"), identity("stranger"));
    let area = Area { path: "/".into(), right: Right::Push, tokens: Vec::new(), certificates: vec![known] };
    let gate = Gate { areas: vec![area], ..Gate::default() };
    let tls = Tls::Local(authority.clone(), Vec::new());
    let server = Running::pushed_to(tls, |_| gate, |tree| support::pushing::push(tree, Settings::default()));
    let (ca, url) = (fs::read_to_string(authority.ca_path()).unwrap(), format!("https://{}", server.address));
    let image = build(&server.tree, PRODUCT, SERIAL, 10);
    let push = |certificate: &Path| {
        let access = Access { client_certificate: Some(certificate.to_owned()), ..Access::default() };
        pushed_by(&Pusher::new(&url, Some(&ca), &access, QUICK).unwrap(), &image)
    };
    let error = push(&stranger).unwrap_err().to_string();
    assert!(error.contains("--client-certificate"), "{error}");
    assert!(push(&mine).unwrap().new);
    assert_eq!(listed(&server), 2);
}

#[test]
fn images_wait_where_the_server_has_no_key() {
    let server = server(
        vec![support::pushing::area("/", OWNER), support::pushing::area("/images/debian/trixie", "mst_t")],
        Settings { unsigned: true, ..Settings::default() },
    );
    let dir = build(&server.tree, "alpine:3", SERIAL, 10);
    let done = pushed(server.address, OWNER, &dir, QUICK).unwrap();
    assert!(done.new && !done.published);
    assert!(!pushed(server.address, OWNER, &dir, QUICK).unwrap().new);
    // Other names of a release could be those of others, and whoever signs cannot tell.
    let mut image = support::Image::new("debian:trixie:amd64:default", SERIAL);
    image.release_aliases = vec!["bookworm".into()];
    let error = pushed(server.address, "mst_t", &server.tree.build(&image), QUICK).unwrap_err().to_string();
    assert!(error.contains("whole distribution"), "{error}");
    assert_eq!(listed(&server), 1);
    let stream: &Stream = &server.tree.stream;
    let [waiting] = &stream.unsigned().unwrap()[..] else { panic!("one waits") };
    let key = signing(&server.tree.key);
    assert!(stream.publish_unsigned(waiting, &key, &Deltas::NONE).unwrap().new);
    assert_eq!((listed(&server), server.tree.problems()), (2, String::new()));
}

#[test]
fn uploads_that_nobody_goes_on_with_expire() {
    let server = open_server();
    let dir = build(&server.tree, PRODUCT, SERIAL, 10);
    announce(&server, OWNER, &announcement(&dir, PRODUCT, SERIAL));
    push::expire(server.tree.root(), SystemTime::now() + Duration::from_hours(23)).unwrap();
    assert_eq!(uploads(server.tree.root()).len(), 1);
    push::expire(server.tree.root(), SystemTime::now() + Duration::from_hours(25)).unwrap();
    assert!(uploads(server.tree.root()).is_empty());
    assert!(pushed(server.address, OWNER, &dir, QUICK).unwrap().new, "and may begin anew");
}

/// In a mount namespace of this thread's and the server's own.
#[test]
fn full_disk_is_said_and_what_came_is_kept() {
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let tree = Fixture::new();
    let small = tree.root().join(".push");
    fs::create_dir(&small).unwrap();
    let size = |flags, size: &str| mount(Some("none"), &small, Some("tmpfs"), flags, Some(size)).unwrap();
    size(MsFlags::empty(), "size=400k,mode=700");
    let server = Running::pushed_to_tree(tree);
    let dir = build(&server.tree, PRODUCT, SERIAL, 250_000);
    let large = build(&server.tree, "alpine:3", SERIAL, 500_000);
    let error = pushed(server.address, OWNER, &large, QUICK).unwrap_err().to_string();
    assert!(error.contains("has no room"), "{error}");
    assert!(uploads(server.tree.root()).is_empty());
    // It fills up only later.
    announce(&server, OWNER, &announcement(&dir, PRODUCT, SERIAL));
    fs::write(small.join("ballast"), vec![1; 200_000]).unwrap();
    let error = pushed(server.address, OWNER, &dir, QUICK).unwrap_err().to_string();
    assert!(error.contains("disk is full"), "{error}");
    let came = fs::metadata(uploads(server.tree.root())[0].join("image/rootfs.tar.xz")).unwrap().len();
    assert!(came > 50_000, "{came} bytes are kept");
    size(MsFlags::MS_REMOUNT, "size=4m");
    assert!(pushed(server.address, OWNER, &dir, QUICK).unwrap().new);
    let log = server.log.lock().unwrap().join("\n");
    assert!(log.contains(&format!("offset={came}")) && log.contains("error: "), "{log}");
    assert_eq!(server.tree.problems(), "");
    let digest = Sha256Digest::of(&fs::read(dir.join("rootfs.tar.xz")).unwrap());
    assert_eq!(Sha256Digest::of(&server.get(ROOTFS, "").body), digest);
}
