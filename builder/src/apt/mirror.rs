//! Where the packages of a recipe come from, and whom to believe.

use millstream_image::openpgp::{KeyFingerprint, Keyring};

use super::sources::{HostSources, Source};
use crate::recipe::{Resolved, SourceSection};
use crate::{Error, Result, minisign};

/// Debian's archive keys, so that nothing on the host is needed to verify its mirrors.
const DEBIAN_KEYS: &[u8] = include_bytes!("../../../keys/debian-archive.asc");

/// The mirror of a recipe's distribution: named by the recipe (or `-o source.url=`), else by the
/// configuration; without a slash at its end.
pub(crate) fn base_url(resolved: &Resolved, host: &HostSources) -> Result<String> {
    let source = &resolved.definition.source;
    let downloader = source.downloader.trim_end_matches("-http");
    let configured =
        [resolved.product.distribution(), downloader].iter().find_map(|name| host.mirrors.get(*name));
    let url = if source.url.is_empty() { configured.map_or("", String::as_str) } else { &source.url };
    if url.is_empty() {
        return Err(Error::Refused(format!(
            "no mirror for {}: name one with -o source.url=URL, or in mirrors.yaml of the configuration \
             (a line {0}: URL)",
            resolved.product.distribution()
        )));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The mirror named by the recipe (or `-o source.url=`), else by the configuration, else the host's
/// own; with the host's, also its updates and security suites.
pub(crate) fn sources(resolved: &Resolved, host: &HostSources) -> Result<Vec<Source>> {
    let source = &resolved.definition.source;
    let product = &resolved.product;
    let suite = if source.suite.is_empty() { product.release() } else { &source.suite };
    let components =
        if source.components.is_empty() { vec!["main".to_owned()] } else { source.components.clone() };
    if let Ok(url) = base_url(resolved, host) {
        return Ok(vec![Source { url, suites: vec![suite.to_owned()], components }]);
    }
    let find = |suffix| host.find(product.distribution(), suite, suffix);
    let main = find("").ok_or_else(|| {
        Error::Refused(format!(
            "no mirror for {0} {suite}: this host's apt configuration has none; name one with \
             -o source.url=URL, or in mirrors.yaml of the configuration (a line {0}: URL)",
            product.distribution()
        ))
    })?;
    let all = [Some(main), find("-updates"), find("-security")];
    Ok(all.into_iter().flatten().map(|s| Source { components: components.clone(), ..s }).collect())
}

/// The keys that an apt distribution's Release must be signed with, and where they are from: the
/// recipe's, else those known here for the distribution.
pub(crate) fn keyring(resolved: &Resolved, host: &HostSources) -> Result<(Keyring, String)> {
    let source = &resolved.definition.source;
    if source.skip_verification {
        return Err(Error::Refused(
            "source.skip_verification: unsigned packages are not installed; \
             remove the line and put the mirror's public key, armored, into source.keys"
                .into(),
        ));
    }
    let (known, origin) = known_keys(resolved, host)?;
    if source.keys.is_empty() {
        return Ok((known, origin));
    }
    Ok((recipe_keys(source, &known)?, "source.keys".to_owned()))
}

/// Keys of a distribution without the recipe's: the configuration's, else Debian's own for Debian,
/// else those of the host's keyring package, else Debian's.
pub(crate) fn known_keys(resolved: &Resolved, host: &HostSources) -> Result<(Keyring, String)> {
    let name = resolved.product.distribution().to_lowercase();
    let mut places = Vec::new();
    if let Some(directory) = &host.keyrings {
        places.extend(["asc", "gpg"].map(|ending| directory.join(format!("{name}.{ending}"))));
    }
    if name != "debian" {
        let packaged =
            ["gpg", "pgp"].map(|ending| format!("usr/share/keyrings/{name}-archive-keyring.{ending}"));
        places.extend(packaged.map(|path| host.root.join(path)));
    }
    for place in places {
        match std::fs::read(&place) {
            Ok(bytes) => {
                let bad = |e: millstream_image::Error| Error::Refused(format!("{}: {e}", place.display()));
                return Ok((Keyring::from_bytes(&bytes).map_err(bad)?, place.display().to_string()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&place)(error)),
        }
    }
    Ok((Keyring::from_bytes(DEBIAN_KEYS)?, "Debian's archive keys".to_owned()))
}

/// The keys a recipe lists: armored, or fingerprints of some that are known here.
pub(crate) fn recipe_keys(source: &SourceSection, known: &Keyring) -> Result<Keyring> {
    let mut keyring = Keyring::default();
    // Those of minisign are for what minisign signs.
    for key in source.keys.iter().filter(|key| !minisign::is_key(key)) {
        if key.contains("-----BEGIN") {
            keyring.merge(Keyring::from_bytes(key.as_bytes())?);
            continue;
        }
        let fingerprint: KeyFingerprint = key.trim().parse()?;
        let one = known.clone().restricted_to(std::slice::from_ref(&fingerprint));
        if one.fingerprints().is_empty() {
            return Err(Error::Refused(format!(
                "source.keys: {fingerprint} is none of the archive keys known here and no keyserver is asked; \
                 put the public key itself there, armored, or a keyring into keyrings/ of the configuration"
            )));
        }
        keyring.merge(one);
    }
    Ok(keyring)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::recipe::{Fallback, Kind, Recipe};

    fn resolved(distribution: &str, source: &str) -> Resolved {
        let text = format!(
            "image:\n  distribution: {distribution}\n  release: r\nsource:\n  downloader: debootstrap\n{source}"
        );
        let recipe = Recipe::parse(&text, "r.yaml").unwrap();
        let fallback = Fallback { release: "", serial: "20260101_0000" };
        recipe.resolve(&[], Kind::Container, &fallback).unwrap()
    }

    #[test]
    fn keys_are_debians_unless_the_recipe_says_otherwise() {
        let host = HostSources::default();
        let keys =
            |source: &str| keyring(&resolved("debian", source), &host).map(|found| found.0.fingerprints());
        let all = keys("").unwrap();
        assert_eq!(keys(&format!("  keys: [{}]\n", all[1])).unwrap(), &all[1..2]);
        assert!(keys(&format!("  keys: ['{}']\n", "0".repeat(40))).is_err(), "a key nobody knows");
        assert!(keys("  keys: [0E98404D386FA1D9]\n").is_err(), "a short id");
        assert!(keys("  skip_verification: true\n").is_err());
    }

    #[test]
    fn other_distributions_have_keys_and_mirrors_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let packaged = dir.path().join("usr/share/keyrings");
        fs::create_dir_all(&packaged).unwrap();
        fs::write(packaged.join("ubuntu-archive-keyring.gpg"), DEBIAN_KEYS).unwrap();
        fs::write(dir.path().join("mirrors.yaml"), "ubuntu: http://u.example/ubuntu/\n").unwrap();
        let mut host = HostSources { root: dir.path().into(), ..HostSources::default() };
        let ubuntu = resolved("ubuntu", "  components: [main, universe]\n");
        assert!(keyring(&ubuntu, &host).unwrap().1.ends_with("ubuntu-archive-keyring.gpg"));
        assert!(sources(&ubuntu, &host).unwrap_err().to_string().contains("mirrors.yaml"));
        host = host.with_settings(dir.path()).unwrap();
        fs::create_dir(dir.path().join("keyrings")).unwrap();
        fs::write(dir.path().join("keyrings/ubuntu.asc"), DEBIAN_KEYS).unwrap();
        assert!(keyring(&ubuntu, &host).unwrap().1.ends_with("keyrings/ubuntu.asc"));
        let found = sources(&ubuntu, &host).unwrap();
        assert_eq!((found[0].url.as_str(), found[0].components.len()), ("http://u.example/ubuntu", 2));
        assert!(keyring(&resolved("kali", ""), &host).unwrap().1.contains("Debian"));
        fs::write(dir.path().join("mirrors.yaml"), "ubuntu: [1]\n").unwrap();
        let text = HostSources::default().with_settings(dir.path()).unwrap_err().to_string();
        assert!(text.contains("mirrors.yaml"), "{text}");
    }
}
