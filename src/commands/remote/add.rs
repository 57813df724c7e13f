//! Adding a remote: whom to trust is said once.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use millstream_client::remotes::Protocol;
use millstream_client::{Access, Client, Error, Remote as Server, RemoteName, Trust};
use millstream_image::openpgp::{KeyFingerprint, Keyring};

use super::absolute;
use crate::cli::client::Reach;
use crate::commands::client;
use crate::output;

/// A remote to add.
pub(in crate::commands) struct Add<'a> {
    pub url: &'a str,
    /// A file or a fingerprint; without it the key offered is shown and confirmed.
    pub key: Option<&'a str>,
    pub ca: Option<&'a String>,
    /// Signatures are waived.
    pub insecure: bool,
    pub reach: &'a Reach,
    /// What it speaks, where that was said.
    pub protocol: Option<Protocol>,
}

impl Add<'_> {
    pub(in crate::commands) fn run(
        &self,
        client: &Client,
        name: &RemoteName,
        quiet: bool,
    ) -> anyhow::Result<Server> {
        client.remotes()?.expect_free(name)?;
        let (remote, protocol) = self.decide(client)?;
        let how = match (remote.is_signed(), remote.access.server_certificate) {
            (true, _) => "verified",
            (false, Some(_)) => "NOT SIGNED; the server is known by its certificate",
            (false, None) => "NOT SIGNED, as you allowed",
        };
        let products = client::block_on(async {
            match protocol {
                Some(protocol) => client.add_remote_as(name, remote, protocol).await,
                None => client.add_remote(name, remote).await,
            }
        })??;
        let what = match client.remotes()?.get(name)?.protocol {
            Protocol::Oci => "a registry".to_owned(),
            _ => format!("{products} products"),
        };
        output::say(quiet, &format!("{name}: {what}, {how}"));
        Ok(client.remotes()?.get(name)?.clone())
    }

    fn access(&self) -> anyhow::Result<Access> {
        let file = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
        Ok(Access {
            proxy: self.reach.proxy.clone(),
            client_certificate: file(&self.reach.client_certificate)?,
            token: file(&self.reach.token_file)?,
            login: file(&self.reach.login_file)?,
            server_certificate: self.reach.accept_certificate,
        })
    }

    /// The server, trusted as was said.
    pub(in crate::commands) fn server(&self, client: &Client) -> anyhow::Result<Server> {
        Ok(self.decide(client)?.0)
    }

    /// The server, trusted as was said or is said now, and what it speaks if that was found out.
    fn decide(&self, client: &Client) -> anyhow::Result<(Server, Option<Protocol>)> {
        let mut access = self.access()?;
        let mut protocol = self.protocol;
        let trust = if self.insecure {
            Trust::InsecureNoSignature
        } else if self.key.is_some() || protocol.is_some_and(Protocol::has_signatures) {
            self.trust(client)?
        } else {
            let found = self.probe(client, &mut access);
            // A mirror may say more than the server itself.
            if protocol.is_none() && self.reach.mirror.is_empty() {
                protocol = Some(found?);
            }
            match protocol {
                Some(protocol) if !protocol.has_signatures() => waived(&access)?,
                _ => self.trust(client)?,
            }
        };
        let server = Server::new(self.url, trust, self.ca.cloned())?.reached(access, &self.reach.mirror)?;
        Ok((server, protocol))
    }

    /// What the server speaks. One that nobody vouches for is let pass by a person who has seen the
    /// fingerprint of its certificate.
    fn probe(&self, client: &Client, access: &mut Access) -> anyhow::Result<Protocol> {
        let probe = |access: &Access| client::block_on(client.probe(self.url, self.ca, access));
        match probe(access)? {
            Err(Error::Certificate { .. }) if self.ca.is_none() && access.server_certificate.is_none() => {}
            other => return Ok(other?),
        }
        let shown = client::block_on(client.offered_certificate(self.url, access))??;
        confirm(
            &format!(
                "Nobody trusted signed the certificate of {}; its fingerprint (SHA-256) is {shown}\n\
                 Is this the fingerprint you expect?",
                self.url
            ),
            &format!(
                "nobody trusted signed the certificate of {}; its fingerprint is {shown}. If you know this to be \
                 right, type the same again with --accept-certificate {shown}; if an authority of yours signed \
                 it, with --ca FILE",
                self.url
            ),
        )?;
        access.server_certificate = Some(shown);
        Ok(probe(access)??)
    }

    pub(super) fn trust(&self, client: &Client) -> anyhow::Result<Trust> {
        match self.key {
            Some(key) => match key.parse::<KeyFingerprint>() {
                Ok(fingerprint) => Ok(Trust::pin_one(self.offered(client)?, &fingerprint)?),
                Err(not_a_fingerprint) => {
                    let path = Path::new(key);
                    if !path.exists() {
                        bail!("--key {key}: there is no such file, and {not_a_fingerprint}");
                    }
                    let bytes = fs::read(path).with_context(|| format!("cannot read {key}"))?;
                    Ok(Trust::pin(&Keyring::from_bytes(&bytes).with_context(|| key.to_owned())?)?)
                }
            },
            None => self.confirmed(client),
        }
    }

    fn offered(&self, client: &Client) -> anyhow::Result<Keyring> {
        let offered = client::block_on(client.offered_key(self.url, self.ca, &self.access()?))?;
        offered.context("the server's public key, key.asc, cannot be read; give its file with --key FILE")
    }

    /// Trust on first use, by a person who has seen the fingerprint.
    fn confirmed(&self, client: &Client) -> anyhow::Result<Trust> {
        let keyring = self.offered(client)?;
        let fingerprints: Vec<_> = keyring.fingerprints().iter().map(ToString::to_string).collect();
        let fingerprints = fingerprints.join(" ");
        confirm(
            &format!("The server signs with {fingerprints}\nIs this the fingerprint you expect?"),
            &format!(
                "whose signatures to trust must be said; the server offers {fingerprints}. \
                 If you know this to be right, type the same again with --key {fingerprints}"
            ),
        )?;
        Ok(Trust::pin(&keyring)?)
    }
}

/// Nothing is signed there: the way there must count for enough.
fn waived(access: &Access) -> anyhow::Result<Trust> {
    if access.server_certificate.is_none() {
        confirm(
            "Nothing is signed there: whoever controls the server, or its TLS certificate, chooses your \
             images.\nDo you allow that?",
            "nothing is signed there, so whoever controls the server, or its TLS certificate, would choose \
             your images. To allow that, type the same again with --insecure-no-signature",
        )?;
    }
    Ok(Trust::InsecureNoSignature)
}

/// Asks a person; where there is none, says what to type.
fn confirm(question: &str, otherwise: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        bail!("{otherwise}");
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        bail!("not confirmed; nothing was added");
    }
    Ok(())
}
