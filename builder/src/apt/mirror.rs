//! Where the packages of a recipe come from, and whom to believe.

use millstream_image::openpgp::{KeyFingerprint, Keyring};

use super::sources::{HostSources, Source};
use crate::recipe::{Resolved, SourceSection};
use crate::{Error, Result};

/// Debian's archive keys, so that nothing on the host is needed to verify its mirrors.
const DEBIAN_KEYS: &[u8] = include_bytes!("../../../keys/debian-archive.asc");

/// The mirror named by the recipe (or `-o source.url=`), else the host's own; with the host's,
/// also its updates and security suites.
pub(crate) fn sources(resolved: &Resolved, host: &HostSources) -> Result<Vec<Source>> {
    let source = &resolved.definition.source;
    let product = &resolved.product;
    let suite = if source.suite.is_empty() { product.release() } else { &source.suite };
    let components =
        if source.components.is_empty() { vec!["main".to_owned()] } else { source.components.clone() };
    if !source.url.is_empty() {
        let url = source.url.trim_end_matches('/').to_owned();
        return Ok(vec![Source { url, suites: vec![suite.to_owned()], components }]);
    }
    let find = |suffix| host.find(product.distribution(), suite, suffix);
    let main = find("").ok_or_else(|| {
        Error::Refused(format!(
            "no mirror for {} {suite}: this host's apt configuration has none; name one with -o source.url=URL",
            product.distribution()
        ))
    })?;
    let all = [Some(main), find("-updates"), find("-security")];
    Ok(all.into_iter().flatten().map(|s| Source { components: components.clone(), ..s }).collect())
}

/// The keys of the recipe, or Debian's archive keys when it has none. A fingerprint picks one of
/// Debian's.
pub(crate) fn keyring(source: &SourceSection) -> Result<Keyring> {
    if source.skip_verification {
        return Err(Error::Refused(
            "source.skip_verification: unsigned packages are not installed; \
             remove the line and put the mirror's public key, armored, into source.keys"
                .into(),
        ));
    }
    let known = Keyring::from_bytes(DEBIAN_KEYS)?;
    if source.keys.is_empty() {
        return Ok(known);
    }
    let mut keyring = Keyring::default();
    for key in &source.keys {
        if key.contains("-----BEGIN") {
            keyring.merge(Keyring::from_bytes(key.as_bytes())?);
            continue;
        }
        let fingerprint: KeyFingerprint = key.trim().parse()?;
        let one = known.clone().restricted_to(std::slice::from_ref(&fingerprint));
        if one.fingerprints().is_empty() {
            return Err(Error::Refused(format!(
                "source.keys: {fingerprint} is none of Debian's archive keys and no keyserver is asked; \
                 put the public key itself there, armored"
            )));
        }
        keyring.merge(one);
    }
    Ok(keyring)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_debians_unless_the_recipe_says_otherwise() {
        let with = |keys: &[&str]| SourceSection {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..SourceSection::default()
        };
        let all = keyring(&with(&[])).unwrap().fingerprints();
        let one = keyring(&with(&[all[1].as_str()])).unwrap().fingerprints();
        assert_eq!(one, &all[1..2]);
        assert!(keyring(&with(&[&"0".repeat(40)])).is_err(), "a key nobody knows");
        assert!(keyring(&with(&["0E98404D386FA1D9"])).is_err(), "a short id");
        assert!(keyring(&SourceSection { skip_verification: true, ..with(&[]) }).is_err());
    }
}
