//! The index of LXC's `download` template: one line an image,
//! `dist;release;arch;variant;build;/images/dist/release/arch/variant/build/`.
//!
//! Source of the format: `templates/lxc-download.in` of LXC.

use crate::{Architecture, Error, Product, Result, Serial};

/// Highest compatibility level of a present template; it asks for `index-system.7` first.
pub const COMPAT_LEVEL: u32 = 7;

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which product.
    pub product: Product,
    /// The build's name, a serial on our servers, `YYYYMMDD_HH:MM` on others.
    pub build: String,
    /// Directory of the files, from the root of the server, with slashes at both ends.
    pub path: String,
}

impl Entry {
    /// The line for one of our images.
    pub fn new(product: Product, serial: Serial) -> Self {
        let path = format!("/{}/", product.image_path(serial).display());
        Self { product, build: serial.to_string(), path }
    }

    /// The line, without its newline.
    pub fn to_line(&self) -> String {
        let p = &self.product;
        format!(
            "{};{};{};{};{};{}",
            p.distribution(),
            p.release(),
            p.architecture(),
            p.variant(),
            self.build,
            self.path
        )
    }

    /// Reads a line.
    pub fn parse(line: &str) -> Result<Self> {
        let bad = |reason: &str| {
            Error::document(
                "LXC index",
                format!("{reason} in line {:?}", line.chars().take(200).collect::<String>()),
            )
        };
        let fields: Vec<_> = line.split(';').collect();
        let [distribution, release, arch, variant, build, path] = fields[..] else {
            return Err(bad("expected six fields separated by \";\""));
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-:/".contains(&b);
        if build.is_empty() || build.contains('/') || !build.bytes().all(plain) {
            return Err(bad("bad build name"));
        }
        if !path.starts_with('/') || !path.bytes().all(plain) || path.split('/').any(|part| part == "..") {
            return Err(bad("bad path"));
        }
        let architecture: Architecture = arch.parse()?;
        Ok(Self {
            product: Product::new(distribution, release, architecture, variant)?,
            build: build.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// Reads a whole index; blank lines are passed over.
pub fn parse(text: &str) -> Result<Vec<Entry>> {
    text.lines().filter(|line| !line.trim().is_empty()).map(Entry::parse).collect()
}

/// Writes a whole index.
pub fn to_text(entries: &[Entry]) -> String {
    entries.iter().map(|entry| entry.to_line() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let line = "debian;bookworm;amd64;default;20260101_0512;/images/debian/bookworm/amd64/default/20260101_0512/";
        let entries = parse(&format!("{line}\n\n")).unwrap();
        assert_eq!(entries[0].to_line(), line);
        assert_eq!(
            entries[0],
            Entry::new("debian:bookworm:amd64:default".parse().unwrap(), "20260101_0512".parse().unwrap())
        );
        assert!(Entry::parse(&line.replace("0_0", "0_05:1")).is_ok(), "upstream's build names");
    }

    #[test]
    fn refuses_lines_that_lead_elsewhere() {
        for bad in [
            "a;b;amd64;d;1",
            "a;b;amd64;d;1;/../x/",
            "a;b;amd64;d;../1;/x/",
            "a;b;amd64;d;1;x",
            "a;b;amd64;d;1;/x$(id)/",
            "a;..;amd64;d;1;/x/",
        ] {
            assert!(Entry::parse(bad).is_err(), "{bad}");
        }
    }
}
