//! `server.toml`: what a server does without being told on the command line. One module a section;
//! unknown keys are errors, with the line.

mod access;
mod daily;
mod limits;
mod mirror;
mod push;
mod service;
mod upstream;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

pub use access::{Area, Right};
pub use daily::{Daily, Matrix, Test};
pub use limits::PerAddress;
pub use mirror::Mirror;
pub use push::{Push, PushTo};
pub use service::Service;
pub use upstream::Upstream;

use crate::{Error, Result};

/// A configuration is a page or two; anything larger is no configuration.
const LARGEST: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[serve]`: the HTTPS service.
    pub serve: Service,
    /// `[[daily]]`: images built at set times.
    pub daily: Vec<Daily>,
    /// `[[access]]`: private areas.
    pub access: Vec<Area>,
    /// `[[mirror]]`: other servers' images brought at set times.
    pub mirror: Vec<Mirror>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is larger than 1 MiB, is no TOML, or has a key or value that is not
    /// known; the message has the line.
    pub fn read(path: &Path) -> Result<Self> {
        let size = fs::metadata(path).map_err(Error::io(path))?.len();
        if size > LARGEST {
            return Err(refused(path, format!("{size} bytes are too many for a configuration")));
        }
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        let mut config = Self::parse(&text).map_err(|reason| refused(path, reason))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        config.daily.iter_mut().for_each(|daily| daily.below(dir));
        config.mirror.iter_mut().for_each(|mirror| mirror.below(dir));
        config.serve.below(dir);
        Ok(config)
    }

    /// What differs in `new` that a running server does not take over; it does take over
    /// certificates, `[[access]]` and `[serve.limits]`.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let (old_serve, serve) = (&self.serve, &new.serve);
        let differs = [
            ("root", old_serve.root != serve.root),
            ("delivery", old_serve.delivery != serve.delivery),
            ("listen", old_serve.listen != serve.listen),
            ("resign", old_serve.resign != serve.resign),
            ("[serve.upstream]", old_serve.upstream != serve.upstream),
            ("[[daily]]", self.daily != new.daily),
            ("[[mirror]]", self.mirror != new.mirror),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Reads a configuration's text.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let mut names = BTreeSet::new();
        for daily in &config.daily {
            daily.check()?;
            if !names.insert(&daily.name) {
                return Err(format!("[[daily]] {}: there are two of this name", daily.name));
            }
        }
        let mut names = BTreeSet::new();
        for mirror in &config.mirror {
            mirror.check()?;
            if !names.insert(&mirror.name) {
                return Err(format!("[[mirror]] {}: there are two of this name", mirror.name));
            }
        }
        Ok(config)
    }
}

fn refused(path: &Path, reason: String) -> Error {
    Error::Config { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_read_and_mistakes_named_with_their_line() {
        let text =
            "[serve]\nroot = \"/srv/stream\"\nlisten = \"127.0.0.1:9443\"\nnames = [\"images.local\"]\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.serve.root.as_deref(), Some(Path::new("/srv/stream")));
        assert_eq!(config.serve.names, ["images.local"]);
        assert_eq!(Config::parse("").unwrap(), Config::default());

        let unknown = Config::parse("[serve]\nlisten = \"a:1\"\nport = 1\n").unwrap_err();
        assert!(unknown.contains("line 3") && unknown.contains("`port`"), "{unknown}");
        let wrong = Config::parse("[serve]\nroot = 5\n").unwrap_err();
        assert!(wrong.contains("line 2"), "{wrong}");
    }

    #[test]
    fn paths_begin_at_the_configurations_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.toml");
        let read = |root: &str| {
            let text =
                format!("[serve]\nroot = {root:?}\ntls_cert = \"tls/cert.pem\"\ntls_key = \"/k.pem\"\n");
            fs::write(&file, text).unwrap();
            Config::read(&file).unwrap().serve
        };
        let service = read("stream");
        assert_eq!(service.root, Some(dir.path().join("stream")));
        assert_eq!(service.tls_cert, Some(dir.path().join("tls/cert.pem")));
        assert_eq!(service.tls_key.as_deref(), Some(Path::new("/k.pem")));
        for other in ["/srv/stream", "s3://bucket/stream"] {
            assert_eq!(read(other).root.as_deref(), Some(Path::new(other)));
        }
    }

    #[test]
    fn what_a_running_server_does_not_take_over_is_named() {
        let config = |text: &str| Config::parse(text).unwrap();
        let old = config("[serve]\nroot = \"/a\"\n");
        let taken = "names = [\"n\"]\ntls_cert = \"c\"\ntls_key = \"k\"\n[serve.limits]\nburst = 1\n\
            [[access]]\npath = \"/\"\nright = \"read\"\n";
        assert!(old.needs_restart(&config(&format!("[serve]\nroot = \"/a\"\n{taken}"))).is_empty());
        let new = config("[serve]\nlisten = \"[::1]:1\"\n[serve.upstream]\nurl = \"https://a.example\"\n");
        assert_eq!(old.needs_restart(&new), ["root", "listen", "[serve.upstream]"]);
    }

    #[test]
    fn a_daily_build_stands_for_all_of_its_matrix() {
        let text = "[[daily]]\nname = \"d\"\nschedule = \"30 3 * * *\"\nrecipe = \"d.yaml\"\noptions = [\"a.b=c\"]\n\
            [daily.matrix]\nrelease = [\"x\", \"y\"]\nvariant = [\"default\", \"cloud\"]\n";
        let config = Config::parse(text).unwrap();
        let cells: Vec<_> = config.daily[0].cells().iter().map(|cell| cell.join(" ")).collect();
        assert_eq!(
            cells,
            ["x default", "x cloud", "y default", "y cloud"].map(|cell| {
                let (release, variant) = cell.split_once(' ').unwrap();
                format!("a.b=c image.release={release} image.variant={variant}")
            })
        );
        let one = text.split("[daily.matrix]").next().unwrap();
        assert_eq!(Config::parse(one).unwrap().daily[0].cells(), [["a.b=c"]]);
        for (more, test) in [
            ("", Test::No),
            ("test = false", Test::No),
            ("test = true", Test::Boot),
            ("test = \"network\"", Test::Network),
        ] {
            assert_eq!(Config::parse(&format!("{one}{more}\n")).unwrap().daily[0].test, test, "{more}");
        }
        for (more, reason) in [
            ("keep = 0", "keep"),
            ("parallel = 0", "parallel"),
            ("options = [\"x\"]", "duplicate"),
            ("webhook = \"ftp://a\"", "webhook"),
            ("retention = 3", "`retention`"),
            ("test = \"yes\"", "\"network\", not \"yes\""),
        ] {
            let error = Config::parse(&format!("{one}{more}\n")).unwrap_err();
            assert!(error.contains(reason), "{more}: {error}");
        }
        assert!(Config::parse(&format!("{one}{one}")).unwrap_err().contains("two of this name"));
        assert!(Config::parse(&one.replace("\"d\"", "\"../d\"")).unwrap_err().contains("line 2"));
        assert!(Config::parse(&one.replace("30 3", "99 3")).unwrap_err().contains("line 3"));
    }

    #[test]
    fn pushes_are_bounded_unless_said_otherwise() {
        let push = |text: &str| Config::parse(text).map(|config| config.serve.push);
        assert_eq!(push("").unwrap(), Push::default());
        let text = "[serve.push]\nmax_size = \"1GiB\"\nunsigned = true\n";
        let expected = Push { max_size: 1 << 30, unsigned: true, ..Push::default() };
        assert_eq!(push(text).unwrap(), expected);
        assert!(
            push(&text.replace("1GiB", "much")).is_err() && push(&text.replace("\"1GiB\"", "0")).is_err()
        );
        assert!(push("[serve.push]\nlimit = 1\n").unwrap_err().contains("line 2"));
        let area = "[[access]]\npath = \"/images/debian\"\nright = \"push\"\n";
        assert_eq!(Config::parse(area).unwrap().access[0].right, Right::Push);
    }

    #[test]
    fn a_mirror_is_what_the_command_line_says() {
        let text = "[[mirror]]\nname = \"m\"\nschedule = \"0 4 * * *\"\nurl = \"https://a.example\"\n\
            root = \"/srv/m\"\ninclude = [\"debian\", \"-x\"]\nlatest = 2\nlimit_rate = \"1MB\"\nunified = true\n";
        let config = Config::parse(text).unwrap();
        let expected = "mirror --include=debian --include=-x --latest=2 --limit-rate=1000000 --unified -- https://a.example /srv/m";
        assert_eq!(config.mirror[0].arguments().join(" "), expected);
        for (more, reason) in [
            ("types = [\"vm\"]", "root file system"),
            ("exclude = [\"[\"]", "pattern"),
            ("jobs = 0", "jobs"),
            ("latestt = 1", "latestt"),
            ("key = \"k\"\ninsecure_no_signature = true", "exclude each other"),
        ] {
            let error = Config::parse(&format!("{text}{more}\n")).unwrap_err();
            assert!(error.contains(reason), "{more}: {error}");
        }
        assert!(Config::parse(&format!("{text}{text}")).unwrap_err().contains("two of this name"));
        let upstream = "[serve.upstream]\nurl = \"https://a.example\"\ncache_size = ";
        let size = |text: &str| {
            Config::parse(&format!("{upstream}{text}")).map(|c| c.serve.upstream.unwrap().cache_size)
        };
        assert_eq!(size("\"5GB\"").unwrap(), Some(5_000_000_000));
        assert!(size("0").is_err() && size("\"lots\"").is_err());
    }
}
