//! One package: a tar archive, and in its directory `install` a script and a description.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use millstream_image::archive::{Entry, Kind, Limits, Reader, decoder};

use crate::{Error, Result};

const SCRIPT: &str = "install/doinst.sh";
const DESCRIPTION: &str = "install/slack-desc";
/// The largest script.
const MAX_SCRIPT: u64 = 4 << 20;

/// A package's file name: `NAME-VERSION-ARCHITECTURE-BUILD.ENDING`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// All of it.
    pub(super) file: String,
    /// Without the ending.
    pub(super) full: String,
    /// The first part, which may have hyphens.
    pub(super) bare: String,
}

impl Name {
    /// `None` when it is no name of a package with one of these endings.
    pub(super) fn parse(file: &str, endings: &[&str]) -> Option<Self> {
        let full = endings.iter().find_map(|ending| file.strip_suffix(ending))?;
        let good = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        let bare = full.rsplitn(4, '-').nth(3)?;
        let plain = full.chars().all(good) && bare.starts_with(|c: char| c.is_ascii_alphanumeric());
        plain.then(|| Self { file: file.to_owned(), full: full.to_owned(), bare: bare.to_owned() })
    }
}

/// What is in a package.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Paths in their order, those of directories with a slash at the end.
    paths: Vec<String>,
    /// Bytes of all files.
    size: u64,
    /// When the newest file was changed, seconds since 1970.
    pub(super) newest: i64,
    /// What is to be run when it is unpacked.
    pub(super) script: Option<String>,
    description: String,
}

impl Contents {
    /// Looks into a package.
    ///
    /// # Errors
    /// When it is no sound archive, or has a name with control characters, which could pose as
    /// several in the database.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let limits = Limits::default();
        let opened = File::open(file).map_err(Error::io(file))?;
        let mut reader = Reader::new(decoder(opened, &limits)?, &limits);
        let mut contents = Self::default();
        while let Some(entry) = reader.next_entry()? {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            if path.chars().any(char::is_control) {
                return Err(Error::Refused(format!(
                    "{}: it has a file with control characters in its name: {path:?}",
                    file.display()
                )));
            }
            contents.size = contents.size.saturating_add(entry.size);
            contents.newest = contents.newest.max(entry.mtime);
            match path.as_str() {
                SCRIPT => contents.script = Some(text(&mut reader, &entry)?),
                DESCRIPTION => contents.description = text(&mut reader, &entry)?,
                _ => {}
            }
            contents.paths.push(match (entry.kind, path.as_str()) {
                (Kind::Directory, "") => "./".to_owned(),
                (Kind::Directory, path) => format!("{path}/"),
                _ => path,
            });
        }
        Ok(contents)
    }

    /// The package's entry in the database.
    pub(super) fn record(&self, name: &Name, packed: u64) -> String {
        let kib = |bytes: u64| bytes.div_ceil(1024);
        let mut text = format!(
            "PACKAGE NAME:     {}\nCOMPRESSED PACKAGE SIZE:     {}K\nUNCOMPRESSED PACKAGE SIZE:     {}K\n\
             PACKAGE LOCATION: {}\nPACKAGE DESCRIPTION:\n",
            name.full,
            kib(packed),
            kib(self.size),
            name.file
        );
        let own = format!("{}:", name.bare);
        for line in self.description.lines().filter(|line| line.starts_with(&own)) {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("FILE LIST:\n");
        for path in &self.paths {
            let _ = writeln!(text, "{path}");
        }
        text
    }
}

fn text<R: std::io::Read>(reader: &mut Reader<R>, entry: &Entry) -> Result<String> {
    if entry.size > MAX_SCRIPT || entry.kind != Kind::File {
        let path = entry.path.escape_ascii();
        return Err(Error::Refused(format!(
            "a package has a {path} of {} bytes or another kind",
            entry.size
        )));
    }
    let mut data = vec![0; entry.size as usize];
    let mut at = 0;
    while at < data.len() {
        match reader.data(&mut data[at..])? {
            0 => break,
            count => at += count,
        }
    }
    Ok(String::from_utf8_lossy(&data).into_owned())
}

/// What of a script is run now, and what at the first start.
pub(super) fn divide(script: &str) -> (String, String) {
    let (mut now, mut later) = (String::new(), String::new());
    let mut inside = false;
    for line in script.lines() {
        inside |= line.starts_with("#%% begin");
        let part = if inside { &mut later } else { &mut now };
        part.push_str(line);
        part.push('\n');
        inside &= !line.starts_with("#%% end");
    }
    (now, later)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_four_parts() {
        let parse = |file: &str| Name::parse(file, &[".txz", ".tgz"]).map(|name| name.bare);
        assert_eq!(parse("aaa_base-15.0-x86_64-3.txz").as_deref(), Some("aaa_base"));
        assert_eq!(parse("ca-certificates-20220225-noarch-1.tgz").as_deref(), Some("ca-certificates"));
        for bad in
            ["a-1-x86_64-3.tar", "a-1-3.txz", "../a-1-x-3.txz", "-a-1-x-3.txz", "a b-1-x-3.txz", ".txz"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_for_the_first_start_is_left_for_it() {
        let script = "a\n#%% begin\nb\n#%% end\nc\n";
        assert_eq!(divide(script), ("a\nc\n".into(), "#%% begin\nb\n#%% end\n".into()));
    }

    proptest! {
        #[test]
        fn no_line_is_lost(lines in prop::collection::vec("(#%% begin|#%% end|[a-c]{0,3})", 1..20)) {
            let script = lines.join("\n") + "\n";
            let (now, later) = divide(&script);
            prop_assert_eq!(now.len() + later.len(), script.len());
        }

        #[test]
        fn any_name_is_one_or_not(file in ".{0,40}") {
            if let Some(name) = Name::parse(&file, &[".txz"]) {
                prop_assert!(!name.full.contains('/') && !name.bare.is_empty());
            }
        }
    }
}
