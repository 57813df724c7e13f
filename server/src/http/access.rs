//! Private areas: who asks, and what they may see and do.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use millstream_image::Sha256Digest;
use subtle::{Choice, ConstantTimeEq};

use super::answer::plain;
use crate::config::{Area, Right};

/// Longer ones are no tokens.
const LONGEST: usize = 4096;

/// The areas of a server.
#[derive(Debug, Default)]
pub(super) struct Areas(Vec<(Vec<String>, Area)>);

/// The areas there are now: an operator may change them under a running server.
pub(super) struct CurrentAreas(RwLock<Arc<Areas>>);

impl CurrentAreas {
    pub(super) fn new(areas: Vec<Area>) -> Self {
        Self(RwLock::new(Arc::new(Areas::new(areas))))
    }

    pub(super) fn now(&self) -> Arc<Areas> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, areas: Areas) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(areas);
    }
}

/// Who asks, as far as they said; secrets only as digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    token: Option<Sha256Digest>,
    certificate: Option<Sha256Digest>,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Nothing they said is known here.
    Unknown {
        /// Whether they showed a token.
        token: bool,
    },
    /// They are known, and have no right to this.
    Forbidden,
}

impl Areas {
    pub(super) fn new(areas: Vec<Area>) -> Self {
        let names = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self(areas.into_iter().map(|area| (names(&area.path), area)).collect())
    }

    /// Whether reading is restricted anywhere.
    pub(super) fn restrict(&self) -> bool {
        self.0.iter().any(|(_, area)| area.right == Right::Read)
    }

    /// Whether client certificates are of use.
    pub(super) fn want_certificates(&self) -> bool {
        self.0.iter().any(|(_, area)| !area.certificates.is_empty())
    }

    /// Whether reading `path`, decoded and from the root, needs a right.
    pub(super) fn private(&self, path: &str) -> bool {
        self.of(Right::Read, path).next().is_some()
    }

    /// Reading is free where no area is; in areas within each other, the innermost decides.
    pub(super) fn read(&self, caller: Caller, path: &str) -> Result<(), Denied> {
        let Some(depth) = self.of(Right::Read, path).map(|(names, _)| names.len()).max() else {
            return Ok(());
        };
        let innermost = self.of(Right::Read, path).filter(|(names, _)| names.len() == depth);
        self.decide(caller, innermost.map(|(_, area)| area))
    }

    /// Whether anybody may push.
    pub(super) fn take_pushes(&self) -> bool {
        self.0.iter().any(|(_, area)| area.right == Right::Push)
    }

    /// Who pushes: the token or certificate that lets them push somewhere.
    pub(super) fn pusher(&self, caller: Caller) -> Result<Sha256Digest, Denied> {
        let areas = || self.0.iter().map(|(_, area)| area).filter(|area| area.right == Right::Push);
        self.decide(caller, areas())?;
        let by_token = Caller { certificate: None, ..caller };
        let shown = caller.token.filter(|_| known(by_token, areas())).or(caller.certificate);
        shown.ok_or(Denied::Unknown { token: false })
    }

    /// Whether the caller may push what lies at `path`; of areas within each other the innermost decides.
    pub(super) fn push(&self, caller: Caller, path: &str) -> bool {
        let depth = self.of(Right::Push, path).map(|(names, _)| names.len()).max();
        let innermost = self.of(Right::Push, path).filter(|(names, _)| Some(names.len()) == depth);
        known(caller, innermost.map(|(_, area)| area))
    }

    fn of<'a>(&'a self, right: Right, path: &'a str) -> impl Iterator<Item = &'a (Vec<String>, Area)> {
        self.0.iter().filter(move |(names, area)| {
            let mut parts = path.split('/').filter(|part| !part.is_empty());
            area.right == right && names.iter().all(|name| parts.next() == Some(name))
        })
    }

    fn decide<'a>(&'a self, caller: Caller, areas: impl Iterator<Item = &'a Area>) -> Result<(), Denied> {
        if known(caller, areas) {
            return Ok(());
        }
        if known(caller, self.0.iter().map(|(_, area)| area)) {
            return Err(Denied::Forbidden);
        }
        Err(Denied::Unknown { token: caller.token.is_some() })
    }
}

/// Compares with everything, in a time that tells nothing of what is stored.
fn known<'a>(caller: Caller, areas: impl Iterator<Item = &'a Area>) -> bool {
    let mut found = Choice::from(0);
    for area in areas {
        for (said, stored) in [(caller.token, &area.tokens), (caller.certificate, &area.certificates)] {
            for digest in said.iter().flat_map(|_| stored) {
                found |= said.unwrap_or(*digest).as_bytes().ct_eq(digest.as_bytes());
            }
        }
    }
    found.into()
}

impl Caller {
    /// From a request's head and the certificate of its connection.
    pub(super) fn of(headers: &HeaderMap, certificate: Option<Sha256Digest>) -> Self {
        let token = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            let token = token.trim();
            let plausible = scheme.eq_ignore_ascii_case("bearer") && (1..=LONGEST).contains(&token.len());
            plausible.then(|| Sha256Digest::of(token.as_bytes()))
        });
        Self { token, certificate }
    }
}

/// The answer to somebody who may not.
pub(super) fn denied(why: Denied) -> Response {
    let (status, challenge) = match why {
        Denied::Unknown { token: false } => (StatusCode::UNAUTHORIZED, "Bearer realm=\"millstream\""),
        Denied::Unknown { token: true } => {
            (StatusCode::UNAUTHORIZED, "Bearer realm=\"millstream\", error=\"invalid_token\"")
        }
        Denied::Forbidden => {
            (StatusCode::FORBIDDEN, "Bearer realm=\"millstream\", error=\"insufficient_scope\"")
        }
    };
    let mut response = plain(status);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    keep_private(&mut response);
    response
}

/// What not everybody may see is in no shared cache.
pub(super) fn keep_private(response: &mut Response) {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Authorization"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(token: &str) -> Caller {
        let value = format!("Bearer {token}").parse().unwrap();
        Caller::of(&HeaderMap::from_iter([(AUTHORIZATION, value)]), None)
    }

    #[test]
    fn innermost_area_decides_and_names_are_whole() {
        let area = |path: &str, right, token: &str| Area {
            path: path.into(),
            right,
            tokens: vec![Sha256Digest::of(token.as_bytes())],
            certificates: Vec::new(),
        };
        let areas = Areas::new(vec![
            area("/images/debian", Right::Read, "a"),
            area("/images/debian/sid", Right::Read, "b"),
        ]);
        let read = |who: &str, path: &str| areas.read(caller(who), path);
        assert_eq!(read("x", "images/debianish/file"), Ok(()));
        assert_eq!(read("a", "images/debian/bookworm/file"), Ok(()));
        assert_eq!(read("a", "images/debian/sid/file"), Err(Denied::Forbidden));
        assert_eq!(read("b", "images/debian/sid/file"), Ok(()));
        assert_eq!(read("x", "images/debian/sid/file"), Err(Denied::Unknown { token: true }));
        let nobody = areas.read(Caller::default(), "images/debian");
        assert_eq!(nobody, Err(Denied::Unknown { token: false }));
    }

    #[test]
    fn pushing_needs_its_own_right_of_the_innermost_area() {
        let [owner, sid, reader, certificate] = [b"o", b"s", b"r", b"c"].map(|text| Sha256Digest::of(text));
        let area = |path: &str, right, tokens: &[Sha256Digest], certificates: &[Sha256Digest]| Area {
            path: path.into(),
            right,
            tokens: tokens.to_vec(),
            certificates: certificates.to_vec(),
        };
        let areas = Areas::new(vec![
            area("/", Right::Read, &[reader], &[]),
            area("/images/debian", Right::Push, &[owner], &[certificate]),
            area("/images/debian/sid", Right::Push, &[sid], &[]),
        ]);
        let by = |token, certificate| Caller { token, certificate };
        let push = |caller, path: &str| areas.push(caller, path);
        assert!(push(by(Some(owner), None), "images/debian/trixie/amd64/default"));
        assert!(push(by(None, Some(certificate)), "images/debian/trixie/amd64/default"));
        assert!(push(by(Some(sid), None), "images/debian/sid/amd64/default"));
        for (caller, path) in [
            (by(Some(owner), None), "images/debian/sid/amd64/default"),
            (by(Some(owner), None), "images"),
            (by(Some(owner), None), "images/debianish/1/amd64/default"),
            (by(Some(sid), None), "images/debian/trixie/amd64/default"),
            (by(Some(reader), None), "images/debian/trixie/amd64/default"),
            (by(None, Some(owner)), "images/debian"),
            (Caller::default(), "images/debian"),
        ] {
            assert!(!push(caller, path), "{caller:?} {path}");
        }
        // Known by what is of use here, whatever else they show.
        assert_eq!(areas.pusher(by(Some(owner), Some(certificate))), Ok(owner));
        assert_eq!(areas.pusher(by(Some(reader), Some(certificate))), Ok(certificate));
        assert_eq!(areas.pusher(by(Some(reader), None)), Err(Denied::Forbidden));
        assert_eq!(areas.pusher(Caller::default()), Err(Denied::Unknown { token: false }));
        assert!(areas.take_pushes() && areas.want_certificates());
    }
}
