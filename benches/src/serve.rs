//! Our server against nginx, each on one processor with the clients on another; and images that come
//! through it from another server.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;

use crate::builds::repository;
use crate::compare::{Bench, Comparison, Sides};

pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "serve-documents",
            about: "seconds for 10,000 documents of some kilobytes over TLS to 64 connections, against nginx",
            target: 1.25,
            setup: |bench| requests(bench, "streams/v1/images-tiny.json", ""),
            check: work,
        },
        Comparison {
            name: "serve-files",
            about: "seconds for 10,000 files of 80 KB over TLS to 64 connections, against nginx",
            target: 1.25,
            setup: |bench| requests(bench, "images/80K", ""),
            check: work,
        },
        Comparison {
            name: "serve-gzip",
            about: "the same documents of 80 KB for clients that take gzip, as most do, against nginx",
            target: 1.25,
            setup: |bench| requests(bench, "streams/v1/80K.json", "-H 'Accept-Encoding: gzip'"),
            check: work,
        },
        Comparison {
            name: "serve-large",
            about: "seconds for a file of 100 MB over TLS, against nginx",
            target: 1.11,
            setup: large,
            check: |_| Ok(String::new()),
        },
        Comparison {
            name: "serve-slow",
            about: "memory that 1,000 clients need who read 100 MB slowly over TLS, against nginx",
            target: 1.0,
            setup: slow,
            check: |bench| bench.run("cat ours.memory"),
        },
        Comparison {
            name: "pull-first-byte",
            about: "the first byte of an image that comes from another server, against that server's own and 50 ms",
            target: 1.0,
            setup: pull,
            check: one_download,
        },
    ]
}

/// Where both listen.
struct Servers {
    ours: u16,
    theirs: u16,
}

/// Serves one tree by both, on the first processor; their process ids come into `ours.pid` and
/// `theirs.pid`.
fn servers(bench: &Bench) -> anyhow::Result<Servers> {
    servers_with(bench, "")
}

/// The same, with more to be known of nginx's listener.
fn servers_with(bench: &Bench, more: &str) -> anyhow::Result<Servers> {
    tree(bench)?;
    let (ours, theirs) = (free_port()?, free_port()?);
    bench.keep(&format!(
        "echo $$ > ours.pid; exec taskset -c 0 $MILLSTREAM -q serve --root tree --listen 127.0.0.1:{ours}"
    ))?;
    wait(ours)?;
    fs::write(bench.path("nginx.conf"), nginx(bench, theirs, more))?;
    bench.keep("echo $$ > theirs.pid; exec taskset -c 0 nginx -e stderr -c $PWD/nginx.conf")?;
    wait(theirs)?;
    Ok(Servers { ours, theirs })
}

/// A stream with one image, and files of the sizes to be served.
fn tree(bench: &Bench) -> anyhow::Result<()> {
    bench
        .run(
            "mkdir -p rootfs/etc rootfs/sbin; cp /bin/busybox rootfs/sbin/init
             printf 'ID=tiny\\nVERSION_ID=1\\nNAME=Tiny\\n' > rootfs/etc/os-release
             $MILLSTREAM -q pack rootfs --out image
             $MILLSTREAM -q stream init tree; $MILLSTREAM -q stream add tree image
             head -c 80K /dev/urandom > tree/images/80K; head -c 100M /dev/urandom > tree/images/100M
             for n in $(seq 400); do sha256sum image/manifest.json; cat image/meta*; done \
                 | base64 | head -c 80K > tree/streams/v1/80K.json",
        )
        .map(drop)
}

/// One worker, settings as one would choose them for files; `more` is to be known of its listener.
fn nginx(bench: &Bench, port: u16, more: &str) -> String {
    let (at, tls) = (bench.path(""), bench.path("state/config/tls"));
    let (at, tls) = (at.display(), tls.display());
    format!(
        "user root; worker_processes 1; daemon off; master_process off; pid {at}/nginx.pid;
         error_log {at}/nginx.log; worker_rlimit_nofile 8192;
         events {{ worker_connections 4096; }}
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
         gzip on; gzip_types application/json; types {{ application/json json; }}
         client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
         uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
         server {{ listen 127.0.0.1:{port} ssl backlog=4096{more}; root {at}/tree;
         ssl_certificate {tls}/server.crt; ssl_certificate_key {tls}/server.key;
         ssl_protocols TLSv1.2 TLSv1.3; }} }}"
    )
}

fn requests(bench: &Bench, path: &str, header: &str) -> anyhow::Result<Sides> {
    let Servers { ours, theirs } = servers(bench)?;
    // wrk says how many it got in a second; a comparison is one of times.
    let ask = |port: u16, side: &str| {
        format!(
            "taskset -c 1 wrk -t1 -c64 -d5 {header} https://127.0.0.1:{port}/{path} > {side}.wrk
             ! grep -q 'Non-2xx\\|Socket errors' {side}.wrk
             awk '/^Requests.sec/ {{ print \"=\", 10000 / $2, \"s\" }}' {side}.wrk"
        )
    };
    Ok(sides(ask(ours, "ours"), ask(theirs, "theirs")))
}

/// What of the first processor each took meanwhile: who waits for the client says so.
fn work(bench: &Bench) -> anyhow::Result<String> {
    let of = |side: &str| bench.run(&format!("grep -h 'Requests/sec\\|requests in' {side}.wrk"));
    let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(format!("ours: {}; theirs: {}", one_line(of("ours")?), one_line(of("theirs")?)))
}

fn large(bench: &Bench) -> anyhow::Result<Sides> {
    let Servers { ours, theirs } = servers(bench)?;
    // Ten times by one connection.
    let get = |port: u16| {
        let url = format!("https://127.0.0.1:{port}/images/100M");
        format!(
            "taskset -c 1 curl -sSf --cacert state/config/tls/ca.crt {} -w '= %{{time_total}} s\\n'",
            format!("-o /dev/null {url} ").repeat(10)
        ) + " | awk '{ total += $2 } END { print \"=\", total / NR, \"s\" }'"
    };
    Ok(sides(get(ours), get(theirs)))
}

fn slow(bench: &Bench) -> anyhow::Result<Sides> {
    // What waits for a thousand slow clients would use up the kernel's memory for TCP; ours keeps it small itself.
    let Servers { ours, theirs } = servers_with(bench, " sndbuf=256k")?;
    let script = repository("benches/slow.py");
    let read = |port: u16, side: &str| {
        format!("python3 {} {port} $(cat {side}.pid) > {side}.memory; cat {side}.memory", script.display())
    };
    Ok(sides(read(ours, "ours"), read(theirs, "theirs")))
}

fn sides(ours: String, theirs: String) -> Sides {
    Sides { ours, theirs, before_ours: "sleep 1".into(), before_theirs: "sleep 1".into() }
}

/// Ours pulls, theirs is ours as well: the server it pulls from.
fn pull(bench: &Bench) -> anyhow::Result<Sides> {
    bench.run(
        "mkdir -p rootfs/etc rootfs/sbin; cp /bin/busybox rootfs/sbin/init
         printf 'ID=tiny\\nVERSION_ID=1\\nNAME=Tiny\\n' > rootfs/etc/os-release
         head -c 90M /dev/urandom > rootfs/data
         $MILLSTREAM -q pack rootfs --out image -o image.serial=20260101_0000
         $MILLSTREAM -q stream init tree; $MILLSTREAM -q stream add tree image
         export MILLSTREAM_DIR=$PWD/mirror
         $MILLSTREAM -q stream init pulled",
    )?;
    let (upstream, port) = (free_port()?, free_port()?);
    bench.keep(&format!("exec $MILLSTREAM -q serve --root tree --listen 127.0.0.1:{upstream}"))?;
    wait(upstream)?;
    bench.keep(&format!(
        "export MILLSTREAM_DIR=$PWD/mirror
         exec $MILLSTREAM -q serve --root pulled --listen 127.0.0.1:{port} \
         --upstream https://127.0.0.1:{upstream} --upstream-key tree/key.asc \
         --upstream-ca state/config/tls/ca.crt"
    ))?;
    wait(port)?;
    let rootfs = bench.run("cd tree; echo images/*/*/*/*/*/rootfs.tar.xz")?;
    let rootfs = rootfs.trim();
    let get = |port: u16, ca: &str| {
        format!(
            "curl -sSf --cacert {ca}/config/tls/ca.crt -o got -w '= %{{time_starttransfer}} s\\n' \
             https://127.0.0.1:{port}/{rootfs}; cmp got tree/{rootfs}"
        )
    };
    fs::write(bench.path("ports"), format!("{upstream} {port} {rootfs}\n"))?;
    Ok(Sides {
        ours: get(port, "mirror"),
        theirs: format!("{{ {}; }} | awk '{{ print \"=\", $2 + 0.05, \"s\" }}'", get(upstream, "state")),
        before_ours: format!("rm -f pulled/{rootfs}"),
        before_theirs: "true".into(),
    })
}

/// A hundred clients want the image at once.
fn one_download(bench: &Bench) -> anyhow::Result<String> {
    let sent = "curl -sSf --cacert state/config/tls/ca.crt https://127.0.0.1:$upstream/metrics \
                | sed -n 's/^millstream_image_downloads_total.* //p'";
    let count = bench.run(&format!(
        "read upstream port rootfs < ports
         rm -f pulled/$rootfs
         before=$({sent})
         seq 100 | xargs -P 100 -I@ curl -sSf --cacert mirror/config/tls/ca.crt -o /dev/null \
             https://127.0.0.1:$port/$rootfs
         echo $(($({sent}) - ${{before:-0}}))"
    ))?;
    match count.trim() {
        "1" => Ok("100 clients at once cost one download from upstream".into()),
        count => bail!("100 clients at once cost {count} downloads from upstream"),
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait(port: u16) -> anyhow::Result<()> {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    bail!("no server came up on port {port}")
}
