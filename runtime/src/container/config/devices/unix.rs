//! `unix-char` and `unix-block`: a device node.

use super::{Device, Key, Kind, is_bool, is_path};

pub const CHAR: Kind = Kind { name: "unix-char", keys: KEYS, check };
pub const BLOCK: Kind = Kind { name: "unix-block", keys: KEYS, check };

/// As the kernel has them.
const LARGEST_MAJOR: u32 = (1 << 12) - 1;
const LARGEST_MINOR: u32 = (1 << 20) - 1;

const KEYS: &[Key] = &[
    Key { name: "source", takes: "the whole path of a device node of the host", allows: is_path },
    Key { name: "path", takes: "a whole path in the container", allows: is_path },
    Key { name: "major", takes: "a device's major number", allows: |text| number(text, LARGEST_MAJOR) },
    Key { name: "minor", takes: "a device's minor number", allows: |text| number(text, LARGEST_MINOR) },
    Key { name: "mode", takes: "rights as in 0660", allows: |text| mode(text).is_some() },
    Key { name: "uid", takes: "a user id of the container", allows: |text| number(text, u32::MAX - 1) },
    Key { name: "gid", takes: "a group id of the container", allows: |text| number(text, u32::MAX - 1) },
    Key { name: "required", takes: "true or false", allows: is_bool },
];

fn check(device: &Device) -> Result<(), String> {
    let has = |key: &str| device.contains_key(key);
    if has("major") != has("minor") {
        return Err("major and minor are given together".into());
    }
    if device.get("path").or(device.get("source")).is_none_or(|path| path == "/") {
        return Err("it needs a path in the container, or a source on the host, or both".into());
    }
    Ok(())
}

/// Rights in octal.
pub fn mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'))
}

fn number(text: &str, largest: u32) -> bool {
    text.parse::<u32>().is_ok_and(|number| number <= largest)
}
