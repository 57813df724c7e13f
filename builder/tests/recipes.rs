//! The recipe language: everything distrobuilder's definition has, and what is said of mistakes.

use millstream_builder::recipe::{Fallback, Kind, Recipe, Resolved};

const HEAD: &str =
    "image:\n  distribution: x\n  release: '1'\n  architecture: amd64\nsource:\n  downloader: debootstrap\n";

fn resolve(text: &str, overrides: &[&str], kind: Kind) -> Result<Resolved, String> {
    let overrides: Vec<_> = overrides.iter().map(|&text| text.to_owned()).collect();
    let fallback = Fallback { release: "", serial: "20260101_0000" };
    Recipe::parse(text, "r.yaml")
        .and_then(|recipe| recipe.resolve(&overrides, kind, &fallback))
        .map_err(|error| error.to_string())
}

fn works(text: &str, overrides: &[&str]) -> Resolved {
    resolve(text, overrides, Kind::Container).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn fails(text: &str) -> String {
    resolve(text, &[], Kind::Container).expect_err(text)
}

#[test]
fn every_downloader_manager_and_generator_is_known() {
    for downloader in [
        "almalinux-http",
        "alpaquita-http",
        "alpinelinux-http",
        "alt-http",
        "apertis-http",
        "archlinux-http",
        "busybox",
        "centos-http",
        "debootstrap",
        "docker-http",
        "fedora-http",
        "funtoo-http",
        "gentoo-http",
        "nixos-http",
        "openeuler-http",
        "opensuse-http",
        "openwrt-http",
        "oraclelinux-http",
        "plamolinux-http",
        "rockylinux-http",
        "rootfs-http",
        "rpmbootstrap",
        "sabayon-http",
        "slackware-http",
        "springdalelinux-http",
        "ubuntu-http",
        "voidlinux-http",
        "vyos-http",
    ] {
        works(&HEAD.replace("debootstrap", downloader), &[]);
    }
    for manager in [
        "anise",
        "apk",
        "apt",
        "dnf",
        "egoportage",
        "equo",
        "luet",
        "opkg",
        "pacman",
        "portage",
        "slackpkg",
        "xbps",
        "yum",
        "zypper",
    ] {
        works(&format!("{HEAD}packages:\n  manager: {manager}\n  update: yes\n"), &[]);
    }
    for entry in [
        "cloud-init, name: user-data",
        "copy, source: x",
        "dump, path: /x",
        "fstab",
        "hostname",
        "hosts",
        "incus-agent",
        "lxd-agent",
        "remove, path: /x",
        "template, path: /x, name: x",
    ] {
        works(&format!("{HEAD}files:\n- {{generator: {entry}}}\n"), &[]);
    }
}

#[test]
fn every_key_is_known() {
    let filter = "releases: ['1'], architectures: [amd64], variants: [default], types: [container]";
    let text = format!(
        "image: {{distribution: x, release: '1', architecture: amd64, expiry: 1d, variant: default, name: n,
  description: d, serial: '20260101_0000', architecture_mapped: i, architecture_kernel: i, architecture_personality: i}}
source: {{downloader: rootfs-http, url: u, keys: [k], keyserver: k, variant: v, suite: s, same_as: a, skip_verification: true, components: [c]}}
targets:
  type: container
  lxc: {{create_message: m, config: [{{type: all, before: 5, after: 1, content: c, {filter}}}]}}
  incus: {{vm: {{size: 4294967296, filesystem: ext4}}}}
  lxd: {{vm: {{size: 4GiB, filesystem: btrfs}}}}
files:
- {{generator: template, path: p, content: c, name: n, template: {{properties: {{a: b}}, when: [create, copy, rename, start]}},
   templated: true, mode: '0644', gid: '0', uid: '0', pongo: true, source: s, {filter}}}
packages:
  custom_manager: {{clean: {{cmd: c}}, install: {{cmd: c, flags: [f]}}, remove: {{cmd: c}}, refresh: {{cmd: c}}, update: {{cmd: c}}, flags: [f]}}
  update: true
  cleanup: true
  sets: [{{packages: [p], action: install, early: true, flags: [f], {filter}}}]
  repositories: [{{name: n, url: u, type: t, key: k, {filter}}}]
actions: [{{trigger: post-update, action: a, pongo: true, {filter}}}]
mappings: {{architectures: {{a: b}}, architecture_map: debian}}
environment: {{clear_defaults: true, variables: [{{key: k, value: v, {filter}}}]}}
simplestream: {{distro_name: n, release_aliases: {{a: b}}, requirements: [{{requirements: {{a: b}}, {filter}}}]}}
"
    );
    let definition = works(&text, &[]).definition;
    assert_eq!(definition.targets.lxd.vm.size, definition.targets.incus.vm.size);
    assert_eq!((definition.files.len(), definition.actions.len(), definition.packages.sets.len()), (1, 1, 1));
    assert!(!definition.packages.sets[0].early, "there is no early stage for an unpacked archive");
    assert_eq!(definition.image.architecture_kernel, "x86_64");
}

#[test]
fn entries_are_for_the_images_their_filters_name() {
    let text = format!(
        "{HEAD}mappings: {{architecture_map: archlinux}}
files:
- {{generator: dump, path: /all}}
- {{generator: dump, path: /vm, types: [vm]}}
- {{generator: dump, path: /both, types: [vm, container]}}
- {{generator: dump, path: /mapped, architectures: [x86_64]}}
- {{generator: dump, path: /debian, architectures: [amd64]}}
- {{generator: dump, path: /release, releases: [1, 2]}}
- {{generator: dump, path: /variant, variants: [cloud]}}
- {{generator: dump, path: /every, variants: [cloud], releases: [2]}}
"
    );
    let paths = |text: &str, overrides: &[&str], kind| -> Vec<String> {
        let files = resolve(text, overrides, kind).unwrap().definition.files;
        files.into_iter().map(|file| file.path).collect()
    };
    assert_eq!(paths(&text, &[], Kind::Container), ["/all", "/both", "/mapped", "/release"]);
    assert_eq!(
        paths(&text, &["image.variant=cloud"], Kind::Vm),
        ["/all", "/vm", "/both", "/mapped", "/release", "/variant"]
    );
    // Without a map every name of an architecture is its name.
    let plain = text.replace("mappings: {architecture_map: archlinux}\n", "");
    assert_eq!(paths(&plain, &[], Kind::Container), ["/all", "/both", "/mapped", "/debian", "/release"]);
}

#[test]
fn what_distrobuilder_renders_is_rendered_and_nothing_else() {
    let text = format!(
        "{HEAD}  url: http://m/{{{{ image.release }}}}
  keys: ['{{{{ image.release }}}}']
targets: {{lxc: {{create_message: '{{{{ image.description }}}}', config: [{{type: all, content: '{{{{ image.architecture_mapped }}}}'}}]}}}}
packages:
  manager: apt
  repositories: [{{name: a, url: '{{{{ image.release }}}}', key: '{{{{ image.release }}}}'}}]
files:
- {{generator: dump, path: '/{{{{ image.release }}}}', content: '{{{{ image.release }}}}', pongo: true}}
- {{generator: dump, path: '/{{{{ image.release }}}}', content: '{{{{ container.name }}}}'}}
actions:
- {{trigger: post-files, action: '{{{{ image.variant }}}}', pongo: true}}
- {{trigger: post-files, action: '{{{{ image.variant }}}}'}}
"
    );
    let definition = works(&text, &[]).definition;
    assert_eq!(definition.source.url, "http://m/1");
    assert_eq!(definition.source.keys, ["1"]);
    assert_eq!(definition.targets.lxc.create_message, "X 1 amd64 (20260101_0000)");
    assert_eq!(definition.targets.lxc.config[0].content, "amd64");
    let repository = &definition.packages.repositories[0];
    assert_eq!((repository.url.as_str(), repository.key.as_str()), ("1", "1"));
    assert_eq!((definition.files[0].path.as_str(), definition.files[0].content.as_str()), ("/1", "1"));
    assert_eq!(definition.files[1].path, "/{{ image.release }}");
    assert_eq!(definition.files[1].content, "{{ container.name }}");
    assert_eq!(definition.actions[0].action, "default");
    assert_eq!(definition.actions[1].action, "{{ image.variant }}");
}

#[test]
fn any_single_value_can_be_overridden() {
    let text = format!(
        "{HEAD}  components: [main, contrib]\nfiles:\n- {{generator: dump, path: /a}}\n- {{generator: dump, path: /b, pongo: false}}\n"
    );
    let definition = works(
        &text,
        &[
            "source.components.1=non-free",
            "files.1.content=a=b {{ image.release }}",
            "files.1.pongo=1",
            "targets.incus.vm.size=2GiB",
            "targets.lxc.create_message=hello",
            "mappings.architectures.amd64=k8",
            "packages.update=True",
            "environment.clear_defaults=t",
        ],
    )
    .definition;
    assert_eq!(definition.source.components, ["main", "non-free"]);
    assert_eq!(definition.files[1].content, "a=b 1");
    assert_eq!(definition.targets.incus.vm.size, 2 << 30);
    assert_eq!(definition.image.architecture_mapped, "k8");
    assert!(definition.packages.update && definition.environment.clear_defaults);
    for (option, message) in [
        ("source.components.2=x", "no entry 2; the recipe's list has the entries 0 to 1"),
        ("actions.0.action=x", "the recipe's list is empty"),
        ("files.first.path=x", "no entry first"),
        ("source.components=x", "name one entry by its number"),
        ("image=x", "only single values"),
        ("image.release.major=x", "leads nowhere"),
        ("packages.update=maybe", "expected true or false"),
        ("targets.incus.vm.size=-1", "expected bytes"),
        ("source.downloader=wget", "valid are almalinux-http"),
        ("files.0.mode=rwx", "is not permission bits"),
        ("=", "unknown key"),
    ] {
        let text = resolve(&text, &[option], Kind::Container).unwrap_err();
        assert!(text.contains(message), "{option}: {text}");
    }
}

#[test]
fn what_could_only_go_wrong_later_is_told_at_once() {
    for (more, place, message) in [
        ("actions:\n- action: x\n", ":8:3:", "no trigger"),
        ("files:\n- path: /x\n", ":8:3:", "no generator"),
        ("files:\n- generator: dump\n", ":8:3:", "dump needs a path"),
        ("files:\n- generator: copy\n", ":8:3:", "copy needs a source"),
        ("files:\n- {generator: cloud-init, name: users}\n", ":8:", "valid: meta-data"),
        ("files:\n- {generator: template, path: /x, name: ../x}\n", ":8:", "not a file name"),
        ("files:\n- {generator: dump, path: /x, mode: 0999}\n", ":8:", "not permission bits"),
        ("files:\n- {generator: dump, path: /x, uid: root}\n", ":8:", "not a number"),
        ("files:\n- {generator: dump, path: \"/x\\0\"}\n", ":8:", "zero byte"),
        ("packages:\n  sets:\n  - packages: [x]\n", ":9:5:", "no action"),
        ("packages:\n  repositories:\n  - url: x\n", ":9:5:", "no name"),
        ("packages:\n  repositories:\n  - {name: a/b, url: x}\n", ":9:", "not a file name"),
        ("packages:\n  manager: apt\n  custom_manager: {}\n", ":8:12:", "not both"),
        ("packages:\n  custom_manager: {clean: {cmd: x}}\n", ":8:19:", "needs install"),
        ("environment:\n  variables:\n  - {key: a=b, value: x}\n", ":9:5:", "cannot be the name"),
        ("targets: {lxd: {vm: {size: large}}}\n", ":7:", "expected bytes"),
        ("targets: {lxd: {vm: {filesystem: fat}}}\n", ":7:", "valid: ext4, btrfs"),
        ("targets: {lxc: {config: [{before: -1}]}}\n", ":7:", "a whole number, not negative"),
        ("files: [~]\n", ":7:9:", "entry 1 of files is empty"),
        ("files: []\nfiles: []\n", ":", "duplicate"),
    ] {
        let text = fails(&format!("{HEAD}{more}"));
        assert!(text.contains(message) && text.contains(&format!("r.yaml{place}")), "{more}\n{text}");
    }
    let text = fails(&format!("{}packages:\n  update: true\n", HEAD.replace("debootstrap", "busybox")));
    assert!(text.contains("needs a manager"), "{text}");
}

#[test]
fn anchors_and_merged_mappings_are_read() {
    let text = format!(
        "{HEAD}files:\n- &base {{generator: dump, path: /a, content: same, mode: 0600}}\n- {{<<: *base, path: /b}}\n- <<: [{{path: /c}}, *base]\n"
    );
    let files = works(&text, &[]).definition.files;
    let shown: Vec<_> =
        files.iter().map(|f| (f.path.as_str(), f.content.as_str(), f.mode.as_str())).collect();
    assert_eq!(shown, [("/a", "same", "0600"), ("/b", "same", "0600"), ("/c", "same", "0600")]);
}

#[test]
fn a_distribution_without_releases_is_current() {
    let recipe = |downloader: &str| {
        format!("image:\n  distribution: x\n  architecture: amd64\nsource:\n  downloader: {downloader}\n")
    };
    let fallback = Fallback { release: "bookworm", serial: "20260101_0000" };
    let release = |downloader: &str| {
        let recipe = Recipe::parse(&recipe(downloader), "r.yaml").unwrap();
        recipe.resolve(&[], Kind::Container, &fallback).unwrap().definition.image.release
    };
    assert_eq!(release("archlinux-http"), "current");
    assert_eq!(release("debootstrap"), "bookworm");
}
