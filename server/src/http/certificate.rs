//! The certificate in use, and its files: read again when they change. Connections keep the one they
//! began with.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::Result;
use crate::tls::{self, LocalAuthority};

/// How often a local authority is asked whether its certificate is near its end.
const RENEWAL: Duration = Duration::from_hours(12);

/// Encryption.
#[derive(Clone, Debug)]
pub enum Tls {
    /// None: for tests, and behind a proxy that has it.
    Off,
    /// By a certificate of one's own authority; further names the server is called.
    Local(LocalAuthority, Vec<String>),
    /// By a certificate chain and key in PEM files.
    Files(PathBuf, PathBuf),
}

pub(super) struct Certificate {
    tls: Tls,
    addresses: Vec<SocketAddr>,
    /// Clients are asked for theirs.
    ask: bool,
    /// Which files were read last, whether they were of use or not.
    seen: Vec<Option<State>>,
    read: Instant,
    config: Option<Arc<ServerConfig>>,
}

/// What tells one state of a file from another: device, inode, size, and when it changed.
type State = (u64, u64, u64, (i64, i64));

impl Certificate {
    /// Reads, or makes, the certificate of a server at these addresses.
    pub(super) fn new(tls: Tls, addresses: Vec<SocketAddr>, ask: bool) -> Result<Self> {
        let (seen, read) = (Vec::new(), Instant::now());
        let mut certificate = Self { tls, addresses, ask, seen, read, config: None };
        certificate.load()?;
        Ok(certificate)
    }

    /// For the next connection; `None` without encryption.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.config.clone().map(TlsAcceptor::from)
    }

    /// Reads the files again if they changed, or it is time; whether it did. What cannot be used is
    /// reported once, and the certificate from before stays.
    pub(super) fn check(&mut self) -> Result<bool> {
        if self.files() == self.seen && self.read.elapsed() < RENEWAL {
            return Ok(false);
        }
        let changed = self.files() != self.seen;
        self.load().map(|()| changed)
    }

    /// Takes another certificate; on an error the one from before stays.
    pub(super) fn replace(&mut self, tls: &Tls, ask: bool) -> Result<()> {
        *self = Self::new(tls.clone(), self.addresses.clone(), ask)?;
        Ok(())
    }

    fn load(&mut self) -> Result<()> {
        // Before reading: what is written meanwhile is another state, and read again.
        (self.seen, self.read) = (self.files(), Instant::now());
        self.config = match &self.tls {
            Tls::Off => None,
            Tls::Files(cert, key) => Some(self.settings(cert, key)?),
            Tls::Local(authority, extra) => {
                authority.server_config(&self.names(extra), SystemTime::now())?;
                // The authority may have made them just now.
                self.seen = self.files();
                let (cert, key) = authority.server_paths();
                Some(self.settings(&cert, &key)?)
            }
        };
        Ok(())
    }

    fn settings(&self, cert: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
        if self.ask { tls::from_files_asking(cert, key) } else { tls::from_files(cert, key) }
    }

    fn names(&self, extra: &[String]) -> Vec<String> {
        let Some((first, others)) = self.addresses.split_first() else { return extra.to_vec() };
        let others = others.iter().flat_map(|address| tls::names(*address, &[]));
        tls::names(*first, &others.chain(extra.iter().cloned()).collect::<Vec<_>>())
    }

    fn files(&self) -> Vec<Option<State>> {
        let (cert, key) = match &self.tls {
            Tls::Off => return Vec::new(),
            Tls::Local(authority, _) => authority.server_paths(),
            Tls::Files(cert, key) => (cert.clone(), key.clone()),
        };
        [cert, key].iter().map(|path| fs::metadata(path).ok().map(|meta| state(&meta))).collect()
    }
}

fn state(meta: &fs::Metadata) -> State {
    (meta.dev(), meta.ino(), meta.len(), (meta.ctime(), meta.ctime_nsec()))
}
