//! Debian's kin, from miniature mirrors in their layouts: each has a key of its own, and more than
//! one component. (Ubuntu's suites bear their codename, Kali's only suite has another codename,
//! Devuan's archive is below `/merged` and its suite is named by the recipe.)

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use millstream_image::Sha256Digest;
use millstream_image::archive::Member;

use crate::bench::{Bench, fails, works};
use crate::mirror::{Mirror, package};

struct Kin {
    distribution: &'static str,
    release: &'static str,
    /// Where the archive begins.
    root: &'static str,
    /// The directory in `dists`.
    suite: &'static str,
    /// What its Release says of itself: suite and codename.
    says: (&'static str, &'static str),
    components: [&'static str; 2],
    /// What its recipe says more of its source.
    source: &'static str,
}

const KIN: [Kin; 3] = [
    Kin {
        distribution: "ubuntu",
        release: "noble",
        root: "/ubuntu",
        suite: "noble",
        says: ("noble", "noble"),
        components: ["main", "universe"],
        source: "  same_as: gutsy\n",
    },
    Kin {
        distribution: "kali",
        release: "kali-rolling",
        root: "/kali",
        suite: "kali-rolling",
        says: ("kali-rolling", "kali-rolling"),
        components: ["main", "non-free-firmware"],
        source: "  same_as: sid\n",
    },
    Kin {
        distribution: "devuan",
        release: "daedalus",
        root: "/merged",
        suite: "stable",
        says: ("stable", "daedalus"),
        components: ["main", "non-free"],
        source: "  suite: stable\n  same_as: bookworm\n",
    },
];

impl Kin {
    /// The usual packages in the first component, another in the second.
    fn publish(&self, mirror: &Mirror) {
        let other = BTreeMap::from([(PathBuf::from("usr/share/second"), Member::file(self.distribution))]);
        let mut second = package("second", &other);
        second.control = second.control.replace("Essential: yes\nPriority: required", "Priority: optional");
        let sums = [Mirror::standard(), vec![second]].into_iter().zip(self.components).map(
            |(packages, component)| {
                let pool = format!("pool/{component}");
                let (packed, files) = Mirror::index(&packages, &pool);
                for (path, data) in files {
                    mirror.put(&format!("{}/{path}", self.root), data);
                }
                let name = format!("{component}/binary-amd64/Packages.gz");
                let line = format!(" {} {} {name}\n", Sha256Digest::of(&packed), packed.len());
                mirror.put(&format!("{}/dists/{}/{name}", self.root, self.suite), packed);
                line
            },
        );
        let sums: String = sums.collect();
        let text = format!(
            "Origin: {}\nSuite: {}\nCodename: {}\nDate: Wed, 01 Jul 2026 00:00:00 UTC\nArchitectures: amd64 i386\nComponents: {}\nSHA256:\n{sums}",
            self.distribution,
            self.says.0,
            self.says.1,
            self.components.join(" ")
        );
        let signed = mirror.key.sign_cleartext(&text, SystemTime::now()).unwrap();
        mirror.put(&format!("{}/dists/{}/InRelease", self.root, self.suite), signed.into_bytes());
    }

    /// Without keys: they are the configuration's.
    fn recipe(&self, mirror: &Mirror) -> String {
        format!(
            "image:\n  distribution: {}\n  release: {}\n  architecture: amd64\nsource:\n  downloader: debootstrap\n  variant: minbase\n  url: {}{}\n  components: [{}]\n{}packages:\n  manager: apt\n  sets:\n  - {{packages: [second], action: install, early: true}}\n",
            self.distribution,
            self.release,
            mirror.url,
            self.root,
            self.components.join(", "),
            self.source
        )
    }
}

#[test]
fn debians_kin_are_built_from_their_own_layouts_and_keys() {
    let bench = Bench::new();
    for kin in &KIN {
        let mirror = Mirror::start();
        kin.publish(&mirror);
        let (name, recipe) = (kin.distribution, kin.recipe(&mirror));
        let keyrings = bench.path("state/config/keyrings");
        fs::create_dir_all(&keyrings).unwrap();
        let build = |out: &str, recipe: &str| bench.build(recipe, out, &["--format=dir"]);
        let stranger = fails(&mut build("stranger", &recipe));
        assert!(stranger.contains("source.keys"), "{name}: {stranger}");
        bench.assert_clean("stranger");
        fs::write(keyrings.join(format!("{name}.asc")), mirror.key.to_armored_public().unwrap()).unwrap();
        works(&mut build(name, &recipe));
        let root = bench.path(name).join("rootfs");
        assert_eq!(fs::read_to_string(root.join("usr/share/second")).unwrap(), name);
        let sources = fs::read_to_string(root.join("etc/apt/sources.list")).unwrap();
        let expected = format!("deb {}{} {} {}\n", mirror.url, kin.root, kin.suite, kin.components.join(" "));
        assert_eq!(sources, expected);
        let missing = recipe.replace(kin.components[1], "nonsense");
        let text = fails(&mut build("missing", &missing));
        let known = format!("components there: {}", kin.components.join(", "));
        assert!(text.contains(&known), "{name}: {text}");
    }
}
