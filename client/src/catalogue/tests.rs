use millstream_image::Sha256Digest;

use super::*;

fn item(ftype: &str, path: &str) -> Item {
    let sha256 = Some(Sha256Digest::of(path.as_bytes()));
    let combined = ftype.starts_with("lxd").then_some(sha256).flatten();
    Item {
        ftype: ftype.into(),
        path: path.into(),
        size: 3,
        sha256,
        combined_rootxz_sha256: combined,
        ..Item::default()
    }
}

fn entry(dist: &str, release: &str, arch: &str, variant: &str, aliases: &str) -> ProductEntry {
    let versions = ["20260101_0000", "20260102_0000"].map(|serial| {
        let dir = format!("images/{dist}/{release}/{arch}/x{variant}/{serial}");
        let items = [("lxd.tar.xz", "lxd.tar.xz"), ("root.tar.xz", "rootfs.tar.xz")]
            .map(|(ftype, name)| (ftype.to_owned(), item(ftype, &format!("{dir}/{name}"))));
        (serial.to_owned(), Version { items: items.into() })
    });
    ProductEntry {
        aliases: aliases.into(),
        arch: arch.into(),
        os: dist.into(),
        release: release.into(),
        variant: variant.into(),
        versions: versions.into(),
        ..ProductEntry::default()
    }
}

fn catalogue(products: Vec<(&str, ProductEntry)>) -> Catalogue {
    let mut document = Products::empty("images".into());
    document.products = products.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
    Catalogue::new(vec![document])
}

fn field() -> Catalogue {
    catalogue(vec![
        (
            "debian:bookworm:amd64:default",
            entry(
                "Debian",
                "bookworm",
                "amd64",
                "default",
                "debian/bookworm/default,debian/bookworm,debian/12",
            ),
        ),
        ("debian:bookworm:amd64:minimal", entry("Debian", "bookworm", "amd64", "minimal", "")),
        (
            "debian:bookworm:arm64:default",
            entry("Debian", "bookworm", "arm64", "default", "debian/bookworm,debian/12"),
        ),
        ("alpine:3.20:arm64:default", entry("Alpine", "3.20", "arm64", "default", "alpine/3.20")),
        ("com.example:server:24.04:amd64", entry("ubuntu", "noble", "amd64", "", "24.04,noble,default")),
    ])
}

#[test]
fn images_are_in_order_whichever_documents_tell_of_them() {
    let document = |products: Vec<(&str, ProductEntry)>| {
        let mut document = Products::empty("images".into());
        document.products = products.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
        document
    };
    let other = |serial: &str| {
        let mut entry = entry("Alpine", "3.20", "amd64", "default", "");
        let version = entry.versions.pop_last().unwrap().1;
        entry.versions = [(serial.to_owned(), version)].into();
        entry
    };
    let catalogue = Catalogue::new(vec![
        document(vec![("alpine:3.20:amd64:default", other("20260104_0000"))]),
        document(vec![("debian:trixie:amd64:default", entry("Debian", "trixie", "amd64", "default", ""))]),
        document(vec![("alpine:3.20:amd64:default", other("20260105_0000"))]),
    ]);
    let told: Vec<_> =
        catalogue.images.iter().map(|image| format!("{} {}", image.product, image.serial)).collect();
    assert_eq!(
        told,
        [
            "alpine:3.20:amd64:default 20260105_0000",
            "alpine:3.20:amd64:default 20260104_0000",
            "debian:trixie:amd64:default 20260102_0000",
            "debian:trixie:amd64:default 20260101_0000",
        ]
    );
}

fn resolve(catalogue: &Catalogue, name: &str) -> Result<String, String> {
    let image = catalogue.resolve(&name.parse().unwrap(), "amd64".parse().unwrap());
    image.map(|image| format!("{} {}", image.product, image.serial)).map_err(|e| e.to_string())
}

#[test]
fn names_find_the_newest_for_the_host() {
    for (name, product) in [
        ("debian/bookworm", "debian:bookworm:amd64:default"),
        ("debian/12", "debian:bookworm:amd64:default"),
        ("debian/bookworm/minimal", "debian:bookworm:amd64:minimal"),
        ("debian/bookworm/arm64", "debian:bookworm:arm64:default"),
        ("debian/12/aarch64", "debian:bookworm:arm64:default"),
        ("debian/bookworm/minimal/amd64", "debian:bookworm:amd64:minimal"),
        ("noble", "ubuntu:noble:amd64:default"),
        ("ubuntu/noble", "ubuntu:noble:amd64:default"),
    ] {
        assert_eq!(resolve(&field(), name), Ok(format!("{product} 20260102_0000")), "{name}");
    }
}

#[test]
fn fingerprints_find_older_serials_when_unique() {
    let field = field();
    let old = field.images.iter().find(|image| !image.newest).unwrap();
    let found = field.resolve(&old.fingerprint.short().parse().unwrap(), "amd64".parse().unwrap());
    assert_eq!(found.unwrap(), old);
    let mut twice = field.clone();
    let mut digest = *old.fingerprint.digest().as_bytes();
    digest[31] ^= 1;
    twice.images[0].fingerprint = Fingerprint::new(Sha256Digest::from_bytes(digest));
    assert!(resolve(&twice, &old.fingerprint.short()).unwrap_err().contains("it can mean"));
}

#[test]
fn unknown_names_get_help() {
    let error = |name: &str| resolve(&field(), name).unwrap_err();
    assert!(
        error("debain/bookworm").contains("did you mean debian/bookworm"),
        "{}",
        error("debain/bookworm")
    );
    assert!(error("alpine/3.20").contains("alpine/3.20/arm64"), "{}", error("alpine/3.20"));
    assert!(error("debian/bookworm/riscv64").contains("none"), "{}", error("debian/bookworm/riscv64"));
}

#[test]
fn contradictions_are_refused_and_named() {
    let bookworm = || entry("Debian", "bookworm", "amd64", "default", "debian/bookworm");
    for (name, bad) in [
        // Fields that are not the name's.
        ("debian:bookworm:amd64:default", entry("Debian", "trixie", "amd64", "default", "")),
        ("debian:bookworm:amd64:default", entry("Debian", "bookworm", "arm64", "default", "")),
        ("com.example:server:arm64", entry("ubuntu", "noble", "amd64", "default", "")),
        // Aliases of others.
        ("alpine:edge:amd64:default", entry("Alpine", "edge", "amd64", "default", "debian/trixie")),
        ("debian:trixie:amd64:cloud", entry("Debian", "trixie", "amd64", "cloud", "debian/trixie")),
        ("debian:trixie:amd64:default", entry("Debian", "trixie", "amd64", "default", "debian/bookworm")),
    ] {
        let mut products = vec![(name, bad.clone())];
        if name != "debian:bookworm:amd64:default" {
            products.push(("debian:bookworm:amd64:default", bookworm()));
        }
        let catalogue = catalogue(products);
        assert_eq!(catalogue.refused.len(), 1, "{name} {bad:?}");
        assert_eq!(catalogue.refused[0].product, name);
    }
    let evil = entry("Alpine", "edge", "amd64", "default", "debian/trixie");
    let error = resolve(&catalogue(vec![("alpine:edge:amd64:default", evil)]), "debian/trixie").unwrap_err();
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn malformed_versions_refuse_their_product() {
    type Damage = fn(&mut Version);
    let damages: [Damage; 5] = [
        |v| v.items.get_mut("root.tar.xz").unwrap().path = "../../etc/shadow".into(),
        |v| v.items.get_mut("lxd.tar.xz").unwrap().path = "http://elsewhere/x".into(),
        |v| v.items.get_mut("root.tar.xz").unwrap().sha256 = None,
        |v| v.items.get_mut("root.tar.xz").unwrap().size = 0,
        |v| v.items.get_mut("lxd.tar.xz").unwrap().combined_sha256 = Some(Sha256Digest::of(b"other")),
    ];
    for damage in damages {
        let mut bad = entry("Debian", "bookworm", "amd64", "default", "debian/bookworm");
        damage(bad.versions.get_mut("20260102_0000").unwrap());
        let catalogue = catalogue(vec![("debian:bookworm:amd64:default", bad)]);
        assert!(catalogue.images.is_empty(), "no older image stands in");
        assert!(resolve(&catalogue, "debian/bookworm").unwrap_err().contains("version 20260102_0000"));
    }
}

#[test]
fn what_is_no_container_image_is_passed_over() {
    let mut other = entry("Debian", "bookworm", "amd64", "default", "");
    let newest = other.versions.get_mut("20260102_0000").unwrap();
    newest.items.remove("root.tar.xz");
    newest.items.insert("disk.qcow2".into(), item("disk-kvm.img", "images/x/disk.qcow2"));
    other.versions.insert("latest".into(), Version::default());
    let catalogue = catalogue(vec![("debian:bookworm:amd64:default", other)]);
    assert_eq!(catalogue.images.len(), 1);
    assert!(catalogue.images[0].newest);
    assert_eq!(catalogue.images[0].serial, "20260101_0000");
}

#[test]
fn filters_and_lists_agree() {
    let field = field();
    let count = |filter: &str| {
        let filters = [filter.parse().unwrap()];
        field.newest().filter(|image| image.matches(&filters)).count()
    };
    assert_eq!(count("os=debian"), 3);
    assert_eq!(count("variant=minimal"), 1);
    assert_eq!(count("arch=aarch64"), 2);
    assert_eq!(count("bookworm"), 2);
}
