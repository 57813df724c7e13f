//! `millstream remote`.

mod add;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use millstream_client::remotes::Protocol;
use millstream_client::{Access, Client, Remote as Server, RemoteName, Trust};
use millstream_image::openpgp::KeyFingerprint;
use serde::Serialize;

pub(super) use self::add::Add;

use crate::cli::client::{Reach, Remote};
use crate::commands::client;
use crate::output;

pub fn run(command: &Remote, quiet: bool) -> anyhow::Result<()> {
    let client = client::open();
    match command {
        Remote::Add { name, url, key, ca, reach, insecure_no_signature, protocol } => {
            let ca = ca.as_deref().map(read_text).transpose()?;
            let add = Add {
                url,
                key: key.as_deref(),
                ca: ca.as_ref(),
                insecure: *insecure_no_signature,
                reach,
                protocol: protocol.map(Into::into),
            };
            let name = name.parse()?;
            let remote = add.run(&client, &name, quiet)?;
            output::say(quiet, &next_step(&name, remote.protocol));
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
                login_file: access.login,
                accept_certificate: access.server_certificate,
                ..Reach::default()
            };
            let protocol = Some(remote.protocol);
            let add = Add { url, key: Some(key), ca, insecure: false, reach: &reach, protocol };
            let trust = add.trust(&client)?;
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

fn next_step(name: &RemoteName, protocol: Protocol) -> String {
    match protocol {
        Protocol::Oci => format!("type: millstream image copy {name}:REPOSITORY:TAG"),
        Protocol::Simplestreams | Protocol::Lxd => format!("type: millstream image list {name}:"),
        Protocol::Lxc => {
            format!("it has LXC's index only; type: lxc-create -t millstream -n NAME -- --server {name}")
        }
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
    let key = |item: &Shown<'_>| match (item.keys, item.access.server_certificate) {
        ([], Some(certificate)) => format!("NOT SIGNED, certificate {}", &certificate.to_string()[..12]),
        ([], None) => "NOT SIGNED".to_owned(),
        (keys, _) => keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    output::list(
        output.format,
        &items,
        &[
            ("NAME", &|item| item.name.to_string()),
            ("URL", &|item| item.url.to_owned()),
            ("PROTOCOL", &|item| item.protocol.name().to_owned()),
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
