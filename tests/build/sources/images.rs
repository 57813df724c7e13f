//! Images of registries and layouts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millstream_image::archive::{Compression, Member, PackOptions, pack_members};
use millstream_image::oci::{
    Descriptor, Digest, ImageConfig, Index, Manifest, Platform, RootFs, layout, media_type,
};

/// One layer: its bytes, and the digest of what they unpack to.
pub struct Layer {
    pub data: Vec<u8>,
    pub plain: Digest,
    pub kind: &'static str,
}

pub fn layer(files: &[(&str, &str)], compression: Compression) -> Layer {
    let members: BTreeMap<_, _> =
        files.iter().map(|(path, text)| (PathBuf::from(path), Member::file(*text))).collect();
    let options = PackOptions { compression, epoch: 1_700_000_000, ..PackOptions::default() };
    let (data, packed) = pack_members(&members, Vec::new(), &options).unwrap();
    let kind = match compression {
        Compression::Zstd => media_type::LAYER_ZSTD,
        Compression::Gzip => media_type::LAYER_GZIP,
        _ => media_type::LAYER,
    };
    Layer { data, plain: Digest(packed.sha256_uncompressed), kind }
}

/// The blobs of an image by digest, and its manifest's descriptor.
pub fn image(layers: &[Layer], architecture: &str) -> (BTreeMap<Digest, Vec<u8>>, Descriptor) {
    let mut blobs = BTreeMap::new();
    let platform = Platform::linux(architecture.parse().unwrap());
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: "linux".into(),
        rootfs: RootFs {
            r#type: "layers".into(),
            diff_ids: layers.iter().map(|layer| layer.plain).collect(),
        },
        ..ImageConfig::default()
    };
    let config = config.to_bytes().unwrap();
    let described = Descriptor::of(media_type::CONFIG, &config);
    blobs.insert(described.digest, config);
    let mut list = Vec::new();
    for layer in layers {
        let descriptor = Descriptor::of(layer.kind, &layer.data);
        blobs.insert(descriptor.digest, layer.data.clone());
        list.push(descriptor);
    }
    let manifest = Manifest::new(described, list).to_bytes().unwrap();
    let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
    descriptor.platform = Some(platform);
    blobs.insert(descriptor.digest, manifest);
    (blobs, descriptor)
}

/// The files of a layout that names one image.
pub fn layout_files(
    blobs: BTreeMap<Digest, Vec<u8>>,
    mut descriptor: Descriptor,
    name: &str,
) -> BTreeMap<PathBuf, Member> {
    descriptor.annotations.insert(layout::REF_NAME.to_owned(), name.to_owned());
    let mut files: BTreeMap<_, _> =
        blobs.into_iter().map(|(digest, data)| (digest.blob_path(), Member::file(data))).collect();
    files.insert(layout::MARKER.into(), Member::file(layout::marker().unwrap()));
    let index = Index::new(vec![descriptor]).to_bytes().unwrap();
    files.insert(layout::INDEX.into(), Member::file(index));
    files
}

/// An archive of a layout whose only image has `which` in `etc/which`.
pub fn oci_archive(which: &str, name: &str) -> Vec<u8> {
    let layers = [
        layer(&[("bin/sh", "#!"), ("etc/which", "lower"), ("etc/gone", "x")], Compression::Gzip),
        layer(&[("etc/which", which), ("etc/.wh.gone", "")], Compression::Gzip),
    ];
    let (blobs, descriptor) = image(&layers, "amd64");
    let files = layout_files(blobs, descriptor, name);
    pack_members(&files, Vec::new(), &PackOptions::default()).unwrap().0
}

/// What `docker save` writes of the same image.
pub fn docker_archive(which: &str) -> Vec<u8> {
    let layers = [
        layer(&[("bin/sh", "#!"), ("etc/which", "lower")], Compression::None),
        layer(&[("etc/which", which)], Compression::None),
    ];
    let (blobs, descriptor) = image(&layers, "amd64");
    let manifest = Manifest::parse(&blobs[&descriptor.digest]).unwrap();
    let mut files = BTreeMap::from([(
        PathBuf::from("config.json"),
        Member::file(blobs[&manifest.config.digest].clone()),
    )]);
    for (at, layer) in layers.into_iter().enumerate() {
        files.insert(format!("{at}/layer.tar").into(), Member::file(layer.data));
    }
    let list = r#"[{"Config":"config.json","RepoTags":["d:latest"],"Layers":["0/layer.tar","1/layer.tar"]}]"#;
    files.insert("manifest.json".into(), Member::file(list));
    pack_members(&files, Vec::new(), &PackOptions::default()).unwrap().0
}

/// Writes files below a directory.
pub fn write(files: &BTreeMap<PathBuf, Member>, directory: &Path) {
    for (path, member) in files {
        let place = directory.join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, &member.data).unwrap();
    }
}
