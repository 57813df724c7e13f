//! `metadata.yaml` of an image from a stranger: what parses leads nowhere but to plain files, and survives
//! being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream_image::metadata::Metadata;

fuzz_target!(|data: &[u8]| {
    // Most of what is random lacks what must be there.
    let prefixed = [&b"architecture: x86_64\ncreation_date: 1\n"[..], data].concat();
    for text in [data, &prefixed] {
        let Ok(metadata) = Metadata::parse(text) else { continue };
        for (path, template) in &metadata.templates {
            assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."));
            assert!(!template.template.contains('/') && !template.template.starts_with('.'));
        }
        let again = metadata.to_yaml().expect("it can be written");
        assert_eq!(Metadata::parse(again.as_bytes()).expect("it can be read"), metadata);
    }
});
