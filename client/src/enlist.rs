//! Remotes that come, change and go.

use millstream_image::Sha256Digest;
use millstream_image::openpgp::Keyring;

use crate::access::Access;
use crate::client::Client;
use crate::http::{HttpOptions, offered_certificate};
use crate::lxc;
use crate::remotes::{self, Protocol, Remote, RemoteName, Remotes, Trust};
use crate::{Result, detect, documents};

impl Client {
    /// The public key a server offers at `key.asc`. It proves nothing: show its fingerprint, or
    /// compare it with one from elsewhere, before pinning it.
    pub async fn offered_key(&self, url: &str, ca: Option<&String>, access: &Access) -> Result<Keyring> {
        let tree = remotes::open_tree(&remotes::parse_url(url)?, ca, access, &self.config.http)?;
        documents::offered_key(&tree).await
    }

    /// SHA-256 of the certificate that a server shows. It proves nothing: show it, or compare it with one
    /// from elsewhere, before it is accepted.
    pub async fn offered_certificate(&self, url: &str, access: &Access) -> Result<Sha256Digest> {
        let options = HttpOptions { access: access.clone(), ..self.config.http.clone() };
        offered_certificate(remotes::parse_url(url)?.as_str(), &options).await
    }

    /// What a server speaks, before it is decided whom to trust. Nothing it says is believed.
    ///
    /// # Errors
    /// [`Error::Certificate`](crate::Error::Certificate) when nobody vouches for the server.
    pub async fn probe(&self, url: &str, ca: Option<&String>, access: &Access) -> Result<Protocol> {
        let tree = remotes::open_tree(&remotes::parse_url(url)?, ca, access, &self.config.http)?;
        detect::protocol(&tree, true).await
    }

    /// Adds a remote after finding out how it is read, as [`Client::add_remote_as`] does.
    pub async fn add_remote(&self, name: &RemoteName, remote: Remote) -> Result<usize> {
        self.remotes()?.expect_free(name)?;
        let protocol = match detect::protocol(&self.tree(&remote)?, remote.is_signed()).await {
            // Its mirrors will say: nothing that one server does may keep the others from being asked.
            Err(_) if !remote.mirrors.is_empty() => Protocol::Simplestreams,
            other => other?,
        };
        self.add_remote_as(name, remote, protocol).await
    }

    /// Adds a remote that is read in this way, after reading its catalogue, so that a wrong URL or key
    /// fails here and now. The first remote becomes the default. Returns how many products it offers.
    pub async fn add_remote_as(
        &self,
        name: &RemoteName,
        mut remote: Remote,
        protocol: Protocol,
    ) -> Result<usize> {
        self.remotes()?.expect_free(name)?;
        remote.protocol = protocol;
        remote.check_protocol()?;
        // What an earlier remote of this name has shown must not be held against this one.
        self.trust_file(name).remove()?;
        let products = match protocol {
            Protocol::Simplestreams | Protocol::Lxd => {
                let (catalogue, trust) = self.read(name, &remote).await?;
                remote.trust = trust;
                catalogue.newest().count()
            }
            Protocol::Oci => 0,
            Protocol::Lxc => {
                let (tree, trust) = (self.tree(&remote)?, self.trust_file(name));
                lxc::index(&self.reader(&remote, &tree, &trust), lxc::Mode::here()).await?.len()
            }
        };
        Remotes::update(&self.config.remotes, |remotes| remotes.insert(name.clone(), remote))?;
        Ok(products)
    }

    /// The remote that a user means who types its name, its host (with a port, if it has one) or its
    /// URL.
    pub fn find_remote(&self, text: &str) -> Result<Option<RemoteName>> {
        let remotes = self.remotes()?;
        if let Ok(name) = text.parse::<RemoteName>()
            && remotes.remotes.contains_key(&name)
        {
            return Ok(Some(name));
        }
        let url = if text.contains("://") || text.starts_with('/') {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let url = remotes::parse_url(&url)?;
        let same = |name: &&RemoteName| remotes.remotes[*name].url == url;
        let preferred = remotes.default.as_ref().filter(same);
        Ok(preferred.or_else(|| remotes.remotes.keys().find(same)).cloned())
    }

    /// Removes a remote and what was seen of it. Images that came from it stay.
    pub fn remove_remote(&self, name: &RemoteName) -> Result<()> {
        Remotes::update(&self.config.remotes, |remotes| remotes.remove(name))?;
        self.trust_file(name).remove()
    }

    /// Believes others than before, after reading the remote's catalogue with them. What was seen under
    /// keys that are no longer pinned is forgotten, so that a thief's absurd dates and numbers go too.
    pub async fn set_trust(&self, name: &RemoteName, trust: Trust) -> Result<()> {
        let before = self.remotes()?.get(name)?.clone();
        let mut remote = Remote { trust, ..before };
        if remote.protocol == Protocol::Simplestreams {
            remote.trust = self.read(name, &remote).await?.1;
        }
        Remotes::update(&self.config.remotes, |remotes| {
            remotes.get(name)?;
            remotes.remotes.insert(name.clone(), remote);
            Ok(())
        })
    }

    /// Makes a remote the one that names without a remote mean.
    pub fn set_default_remote(&self, name: &RemoteName) -> Result<()> {
        Remotes::update(&self.config.remotes, |remotes| {
            remotes.get(name)?;
            remotes.default = Some(name.clone());
            Ok(())
        })
    }
}
