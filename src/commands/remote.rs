//! `millstream remote`.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use millstream_client::remotes::Protocol;
use millstream_client::{Access, Client, Remote as Server, RemoteName, Trust};
use millstream_image::openpgp::{KeyFingerprint, Keyring};
use serde::Serialize;

use crate::cli::client::{Reach, Remote};
use crate::commands::client;
use crate::output;

pub fn run(command: &Remote, quiet: bool) -> anyhow::Result<()> {
    let client = client::open();
    match command {
        Remote::Add { name, url, key, ca, reach, insecure_no_signature } => {
            let ca = ca.as_deref().map(read_text).transpose()?;
            let add =
                Add { url, key: key.as_deref(), ca: ca.as_ref(), insecure: *insecure_no_signature, reach };
            let name = name.parse()?;
            let remote = add.run(&client, &name, quiet)?;
            if !quiet && remote.protocol == Protocol::Simplestreams {
                eprintln!("type: millstream image list {name}:");
            } else if !quiet {
                eprintln!(
                    "it has LXC's index only; type: lxc-create -t millstream -n NAME -- --server {name}"
                );
            }
            Ok(())
        }
        Remote::List { output } => list(&client, *output),
        Remote::Show { name, output } => {
            let (remotes, name) = (client.remotes()?, name.parse()?);
            output::object(output.format, &shown(&name, remotes.get(&name)?, remotes.default.as_ref()))
        }
        Remote::SetKey { name, key } => {
            let name = name.parse()?;
            let remote = client.remotes()?.get(&name)?.clone();
            let (url, ca) = (remote.url.as_str(), remote.ca.as_ref());
            let access = remote.access.clone();
            let reach = Reach {
                proxy: access.proxy,
                client_certificate: access.client_certificate,
                token_file: access.token,
                ..Reach::default()
            };
            let trust = Add { url, key: Some(key), ca, insecure: false, reach: &reach }.trust(&client)?;
            Ok(client::block_on(client.set_trust(&name, trust))??)
        }
        Remote::SetDefault { name } => Ok(client.set_default_remote(&name.parse()?)?),
        Remote::Remove { names } => {
            for name in names {
                client.remove_remote(&name.parse()?)?;
            }
            Ok(())
        }
    }
}

/// A remote to add.
pub(super) struct Add<'a> {
    pub url: &'a str,
    /// A file or a fingerprint; without it the key offered is shown and confirmed.
    pub key: Option<&'a str>,
    pub ca: Option<&'a String>,
    /// Signatures are waived.
    pub insecure: bool,
    pub reach: &'a Reach,
}

impl Add<'_> {
    pub(super) fn run(&self, client: &Client, name: &RemoteName, quiet: bool) -> anyhow::Result<Server> {
        let remote = self.server(client)?;
        let signed = remote.is_signed();
        let products = client::block_on(client.add_remote(name, remote))??;
        if !quiet {
            let how = if signed { "verified" } else { "NOT SIGNED, as you allowed" };
            eprintln!("{name}: {products} products, {how}");
        }
        Ok(client.remotes()?.get(name)?.clone())
    }

    fn access(&self) -> anyhow::Result<Access> {
        let file = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
        Ok(Access {
            proxy: self.reach.proxy.clone(),
            client_certificate: file(&self.reach.client_certificate)?,
            token: file(&self.reach.token_file)?,
        })
    }

    /// The server, trusted as was said.
    pub(super) fn server(&self, client: &Client) -> anyhow::Result<Server> {
        let trust = if self.insecure { Trust::InsecureNoSignature } else { self.trust(client)? };
        Ok(Server::new(self.url, trust, self.ca.cloned())?.reached(self.access()?, &self.reach.mirror)?)
    }

    fn trust(&self, client: &Client) -> anyhow::Result<Trust> {
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
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            bail!(
                "whose signatures to trust must be said; the server offers {fingerprints}. \
                 If you know this to be right, type the same again with --key {fingerprints}"
            );
        }
        eprint!("The server signs with {fingerprints}\nIs this the fingerprint you expect? [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            bail!("not confirmed; nothing was added");
        }
        Ok(Trust::pin(&keyring)?)
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a RemoteName,
    url: &'a str,
    protocol: Protocol,
    default: bool,
    signed: bool,
    keys: &'a [KeyFingerprint],
    private_ca: bool,
    mirrors: Vec<String>,
    #[serde(flatten)]
    access: &'a Access,
}

fn shown<'a>(name: &'a RemoteName, remote: &'a Server, default: Option<&RemoteName>) -> Shown<'a> {
    let keys = match &remote.trust {
        Trust::Keys { fingerprints, .. } => fingerprints.as_slice(),
        Trust::InsecureNoSignature => &[],
    };
    Shown {
        name,
        url: remote.url.as_str(),
        protocol: remote.protocol,
        default: default == Some(name),
        signed: remote.is_signed(),
        keys,
        private_ca: remote.ca.is_some(),
        mirrors: remote.mirrors.iter().map(ToString::to_string).collect(),
        access: &remote.access,
    }
}

fn list(client: &Client, output: crate::cli::Output) -> anyhow::Result<()> {
    let remotes = client.remotes()?;
    let default = remotes.default.as_ref();
    let items: Vec<_> = remotes.remotes.iter().map(|(name, remote)| shown(name, remote, default)).collect();
    let key = |item: &Shown<'_>| match item.keys {
        [] => "NOT SIGNED".to_owned(),
        keys => keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    output::list(
        output.format,
        &items,
        &[
            ("NAME", &|item| item.name.to_string()),
            ("URL", &|item| item.url.to_owned()),
            ("DEFAULT", &|item| if item.default { "yes" } else { "" }.to_owned()),
            ("KEY", &key),
        ],
    )
}

/// A path that means the same wherever the next command is typed.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
