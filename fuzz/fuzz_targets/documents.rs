//! Documents that describe images. What parses must survive being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_client::api::images;
use millstream_image::lxc_index;
use millstream_image::manifest::Manifest;
use millstream_image::metadata::Metadata;
use millstream_image::oci::{self, ImageConfig};
use millstream_image::simplestreams::{Index, Products, to_bytes};
use millstream_image::squashfs::Superblock;
use millstream_image::sums::Sums;

fuzz_target!(|data: &[u8]| {
    if let Ok(index) = Index::parse(data) {
        assert_eq!(Index::parse(&to_bytes(&index).unwrap()).unwrap(), index);
    }
    if let Ok(products) = Products::parse(data) {
        assert_eq!(Products::parse(&to_bytes(&products).unwrap()).unwrap(), products);
    }
    if let Ok(metadata) = Metadata::parse(data) {
        assert_eq!(Metadata::parse(metadata.to_yaml().unwrap().as_bytes()).unwrap(), metadata);
    }
    let _ = Manifest::parse(data);
    let _ = Superblock::read(data, data.len() as u64);
    if let Ok(index) = oci::Index::parse(data) {
        assert_eq!(oci::Index::parse(&index.to_bytes().unwrap()).unwrap(), index);
    }
    if let Ok(manifest) = oci::Manifest::parse(data) {
        assert_eq!(oci::Manifest::parse(&manifest.to_bytes().unwrap()).unwrap(), manifest);
    }
    if let Ok(config) = ImageConfig::parse(data) {
        assert_eq!(ImageConfig::parse(&config.to_bytes().unwrap()).unwrap(), config);
    }
    // LXD's list of images: what comes out has a place in the API and nowhere else.
    if let Ok(list) = serde_json::from_slice(data) {
        for image in images::catalogue(list).images {
            assert!(image.rootfs.path.as_str().starts_with("1.0/images/"));
            assert_eq!(image.size(), image.rootfs.size);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(entries) = lxc_index::parse(text) {
        assert_eq!(lxc_index::parse(&lxc_index::to_text(&entries)).unwrap(), entries);
    }
    if let Ok(sums) = Sums::parse(text) {
        assert_eq!(Sums::parse(&sums.to_text()).unwrap(), sums);
    }
});
