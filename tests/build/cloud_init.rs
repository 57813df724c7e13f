//! What cloud-init is told in a container: templates that the builder makes and the runtime renders.

use crate::bench::{Bench, works};
use crate::boot::{INITTAB, bootable};
use crate::mirror::Mirror;

const SEED: &str = "/var/lib/cloud/seed/nocloud-net";

/// As recipes have them; one default is the recipe's own.
const FILES: &str = "files:
  - {generator: cloud-init, name: meta-data}
  - {generator: cloud-init, name: network-config}
  - {generator: cloud-init, name: user-data}
  - generator: cloud-init
    name: vendor-data
    content: |-
      #cloud-config
      packages: [vim]
";

const DEFAULT_NETWORK: &str = "version: 1\nconfig:\n  - type: physical\n    name: eth0\n    subnets:\n      - type: dhcp\n        control: auto\n";

#[test]
fn seeds_are_rendered_from_the_containers_keys() {
    let (bench, mirror) = (Bench::new(), Mirror::with(&bootable(INITTAB)));
    works(&mut bench.build(&mirror.recipe(FILES), "image", &["--compression=xz:0"]));
    let image = bench.path("image").to_str().unwrap().to_owned();
    let millstream = |args: &[&str]| works(bench.command().args(args));
    let seeds = |name: &str| {
        ["meta-data", "network-config", "user-data", "vendor-data"]
            .map(|file| millstream(&["exec", name, "--", "cat", &format!("{SEED}/{file}")]))
    };
    let names = ["none", "older", "newer", "copy"].map(|what| format!("ci{}-{what}", std::process::id()));
    let [none, older, newer, copy] = names.each_ref().map(String::as_str);
    let meta = |name: &str, more: &str| format!("instance-id: {name}\nlocal-hostname: {name}\n{more}\n");

    millstream(&["launch", &image, none]);
    let [data, network, user, vendor] = seeds(none);
    assert_eq!(data, meta(none, ""));
    assert_eq!(network, DEFAULT_NETWORK);
    assert_eq!((user.as_str(), vendor.as_str()), ("#cloud-config\n{}\n", "#cloud-config\npackages: [vim]\n"));

    // Several lines, and what a template's language would take for its own.
    let user_data = "#cloud-config\nruncmd:\n  - echo '{{ not.rendered }}' \"<&>\" {% no %}";
    let set = |args: &[&str], pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pairs = pairs.iter().flat_map(|pair| ["-c", pair.as_str()]);
        millstream(&args.iter().copied().chain(pairs).collect::<Vec<_>>())
    };
    let keys = [
        ("user.meta-data", "public-keys: [x]"),
        ("user.network-config", "version: 2"),
        ("user.user-data", user_data),
        ("user.vendor-data", "#!/bin/sh"),
    ];
    set(&["launch", &image, older], &keys);
    let expected = |name: &str| {
        [
            meta(name, "public-keys: [x]"),
            "version: 2\n".into(),
            format!("{user_data}\n"),
            "#!/bin/sh\n".into(),
        ]
    };
    assert_eq!(seeds(older), expected(older));

    // The newer keys come before the older ones.
    let both = [
        ("user.user-data", "old"),
        ("cloud-init.user-data", "new"),
        ("cloud-init.vendor-data", "theirs"),
        ("cloud-init.network-config", "version: 2"),
    ];
    set(&["launch", &image, newer], &both);
    let [_, network, user, vendor] = seeds(newer);
    assert_eq!([network, user, vendor], ["version: 2\n", "new\n", "theirs\n"]);

    // A copy is another instance; a restart is none.
    millstream(&[
        "exec",
        older,
        "--",
        "/usr/bin/busybox",
        "touch",
        "-d",
        "2001-01-01",
        &format!("{SEED}/meta-data"),
    ]);
    millstream(&["restart", older]);
    let stamp = ["exec", older, "--", "/usr/bin/busybox", "stat", "-c", "%y", &format!("{SEED}/meta-data")];
    assert!(millstream(&stamp).starts_with("2001"), "not rendered again");
    millstream(&["stop", older]);
    millstream(&["copy", older, copy]);
    millstream(&["start", copy]);
    assert_eq!(seeds(copy), expected(copy));
    for name in [none, older, newer, copy] {
        millstream(&["delete", "--force", name]);
    }
    bench.assert_clean("nothing");
}
