//! How fast a container may read from and write to block devices of the host: what its disks ask for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::{Cgroups, Hierarchy};
use crate::container::config::devices::disk::{ROOT, Rate, rate};
use crate::container::config::devices::{Device, Devices, of_type};

/// Files of v1 and words of v2, in the order of [`Rates`].
const V1: [&str; 4] = ["read_bps", "write_bps", "read_iops", "write_iops"];
const V2: [&str; 4] = ["rbps", "wbps", "riops", "wiops"];

/// Bytes a second read and written, operations a second read and written.
type Rates = [Option<u64>; 4];
/// By a block device's numbers, as in `254:0`.
type Limits = BTreeMap<String, Rates>;

impl Cgroups {
    /// Keeps what a container's disks ask for, and no more what they asked for `before`. `directory` is
    /// the container's, where its root file system is. Returns what is not kept, and why.
    pub fn limit_io(&self, directory: &Path, devices: &Devices, before: &Devices) -> Vec<String> {
        let mut notes = Vec::new();
        let wanted = collect(directory, devices, &mut notes);
        let mut all: Limits = collect(directory, before, &mut Vec::new())
            .into_keys()
            .map(|device| (device, [None; 4]))
            .collect();
        all.extend(wanted);
        for (device, rates) in all {
            let written = self.write_io(&device, &rates);
            let limited = rates.iter().any(Option::is_some);
            let reason = written.err().filter(|_| limited);
            notes.extend(reason.map(|reason| format!("limits.read and limits.write are not kept: {reason}")));
        }
        notes
    }

    fn write_io(&self, device: &str, rates: &Rates) -> Result<(), String> {
        let v1 = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|c| c == "blkio");
        let put = |file: PathBuf, text: String| {
            fs::write(&file, &text).map_err(|e| format!("{}: {text}: {e}", file.display()))
        };
        if let Some(hierarchy) = self.host.hierarchies.iter().find(v1) {
            let dir = self.dir(hierarchy);
            return V1.iter().zip(rates).try_for_each(|(name, rate)| {
                let file = dir.join(format!("blkio.throttle.{name}_device"));
                put(file, format!("{device} {}", rate.unwrap_or(0)))
            });
        }
        let v2 = self.host.hierarchies.iter().find(|hierarchy| hierarchy.v2);
        let dir = self.dir(v2.ok_or("no control group was delegated to you; see millstream check")?);
        let file = dir.join("io.max");
        if !file.exists() {
            return Err("the controller io is not on this host, or not delegated to you".into());
        }
        let words = V2
            .iter()
            .zip(rates)
            .map(|(word, rate)| rate.map_or_else(|| format!("{word}=max"), |rate| format!("{word}={rate}")));
        put(file, format!("{device} {}", words.collect::<Vec<_>>().join(" ")))
    }
}

/// Of several disks on one device, the lowest counts.
fn collect(directory: &Path, devices: &Devices, notes: &mut Vec<String>) -> Limits {
    let mut all = Limits::new();
    for (name, device) in of_type(devices, "disk") {
        let rates = rates(device);
        if rates == [None; 4] {
            continue;
        }
        let root = device.get("path").is_some_and(|path| path == ROOT);
        let place = device.get("source").filter(|_| !root).map_or(directory, |source| Path::new(source));
        match block_device(place) {
            Ok(numbers) => {
                let known = all.entry(numbers).or_insert([None; 4]);
                for (known, new) in known.iter_mut().zip(rates) {
                    *known = known.iter().chain(&new).min().copied();
                }
            }
            Err(reason) => {
                notes.push(format!("device {name}: limits.read and limits.write are not kept: {reason}"));
            }
        }
    }
    all
}

fn rates(device: &Device) -> Rates {
    let get = |key: &str| device.get(key).or_else(|| device.get("limits.max")).and_then(|text| rate(text));
    let [read, write] = ["limits.read", "limits.write"].map(get);
    let bytes = |rate| if let Some(Rate::Bytes(bytes)) = rate { Some(bytes) } else { None };
    let operations = |rate| if let Some(Rate::Operations(number)) = rate { Some(number) } else { None };
    [bytes(read), bytes(write), operations(read), operations(write)]
}

/// The whole device a file system is on, as limits are not kept for parts of one.
fn block_device(place: &Path) -> Result<String, String> {
    let found = fs::metadata(place).map_err(|e| format!("{}: {e}", place.display()))?;
    let numbers = format!("{}:{}", major(found.dev()), minor(found.dev()));
    let sys = Path::new("/sys/dev/block").join(&numbers);
    if !sys.exists() {
        return Err(format!("the file system of {} is on no block device of its own", place.display()));
    }
    if !sys.join("partition").exists() {
        return Ok(numbers);
    }
    // Through the link, to what the part is of.
    let whole = fs::canonicalize(&sys).ok().and_then(|part| part.parent().map(|whole| whole.join("dev")));
    let text = whole.and_then(|file| fs::read_to_string(file).ok());
    Ok(text.map_or(numbers, |text| text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_a_device_counts() {
        let device = |pairs: &[(&str, &str)]| -> Device {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(rates(&device(&[("limits.max", "1MB")])), [Some(1_000_000), Some(1_000_000), None, None]);
        assert_eq!(
            rates(&device(&[("limits.max", "1MB"), ("limits.read", "50iops")])),
            [None, Some(1_000_000), Some(50), None]
        );
        let place = tempfile::tempdir().unwrap();
        let disk = |rate: &str| device(&[("type", "disk"), ("path", "/"), ("limits.write", rate)]);
        let both = Devices::from([("a".into(), disk("2MB")), ("b".into(), disk("1MB"))]);
        let mut notes = Vec::new();
        let found = collect(place.path(), &both, &mut notes);
        // Where tests run in memory, nothing is on a block device.
        let expected = [None, Some(1_000_000), None, None];
        assert!(
            found.values().all(|rates| *rates == expected) && found.len() + notes.len() / 2 == 1,
            "{found:?}"
        );
    }
}
