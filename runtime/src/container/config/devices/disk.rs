//! `disk`: a directory or file of the host, seen in the container.

use super::{Device, Key, Kind, is_bool, is_path};

/// Where the root file system is.
pub const ROOT: &str = "/";

pub const KIND: Kind = Kind {
    name: "disk",
    keys: &[
        Key { name: "source", takes: SOURCE, allows: is_path },
        Key { name: "path", takes: PATH, allows: is_path },
        Key { name: "readonly", takes: BOOL, allows: is_bool },
        Key { name: "optional", takes: BOOL, allows: is_bool },
        Key { name: "recursive", takes: BOOL, allows: is_bool },
        Key { name: "shift", takes: BOOL, allows: is_bool },
        Key { name: "limits.max", takes: RATE, allows: |text| rate(text).is_some() },
        Key { name: "limits.read", takes: RATE, allows: |text| rate(text).is_some() },
        Key { name: "limits.write", takes: RATE, allows: |text| rate(text).is_some() },
        Key {
            name: "size",
            takes: "a size as in 10GiB",
            allows: |text| millstream_image::size::parse(text).is_some_and(|size| size > 0),
        },
    ],
    check,
};

const RATE: &str = "bytes a second as in 10MiB, or operations a second as in 100iops";

/// How much of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Bytes a second.
    Bytes(u64),
    /// Operations a second.
    Operations(u64),
}

/// `10MiB` or `100iops`.
pub fn rate(text: &str) -> Option<Rate> {
    let rate = match text.strip_suffix("iops") {
        Some(number) => Rate::Operations(number.trim().parse().ok()?),
        None => Rate::Bytes(millstream_image::size::parse(text)?),
    };
    matches!(rate, Rate::Bytes(number) | Rate::Operations(number) if (1..1 << 62).contains(&number))
        .then_some(rate)
}

const BOOL: &str = "true or false";
const SOURCE: &str = "the whole path of a directory or file of the host, without . and ..";
const PATH: &str = "a whole path in the container, without . and ..";

fn check(device: &Device) -> Result<(), String> {
    let has = |key: &str| device.contains_key(key);
    match device.get("path").map(String::as_str) {
        None => Err(format!("it needs a path, {PATH}")),
        Some(ROOT) => {
            let other = device
                .keys()
                .find(|key| !matches!(key.as_str(), "type" | "path" | "size") && !key.starts_with("limits."));
            other.map_or(Ok(()), |key| {
                Err(format!(
                    "{key} is not for the root file system, which comes from the image; size and limits are"
                ))
            })
        }
        Some(_) if has("size") => Err("size is for path=/ alone".into()),
        Some(_) if !has("source") => Err(format!("it needs a source, {SOURCE}")),
        Some(_) => Ok(()),
    }
}
