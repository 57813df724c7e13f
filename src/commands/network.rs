//! `network`.

use millstream_runtime::Runtime;
use millstream_runtime::network::Network as Settings;
use serde::Serialize;

use super::instance::each_text;
use super::instance::settings::{edit, pair, say};
use crate::cli::Output;
use crate::cli::network::Network;
use crate::output;

pub fn run(runtime: &Runtime, command: &Network, quiet: bool) -> anyhow::Result<()> {
    match command {
        Network::Create { name, description, pairs } => {
            let config = pairs.iter().map(|text| pair(text)).collect::<anyhow::Result<_>>()?;
            let network = Settings { description: description.clone(), config, container: None };
            say(&runtime.create_network(name, &network)?, quiet);
            Ok(())
        }
        Network::List(output) => list(runtime, *output),
        Network::Show { name, output } => output::object(output.format, &runtime.network(name)?),
        Network::Set { name, pairs } => change(runtime, name, quiet, |network| {
            for text in pairs {
                network.config.extend([pair(text)?]);
            }
            Ok(())
        }),
        Network::Unset { name, keys } => change(runtime, name, quiet, |network| {
            network.config.retain(|key, _| !keys.contains(key));
            Ok(())
        }),
        Network::Edit { name } => change(runtime, name, quiet, |network| {
            *network = edit(network)?;
            Ok(())
        }),
        Network::Delete { names } => each_text(names, |name| Ok(runtime.delete_network(name)?)),
    }
}

fn change(
    runtime: &Runtime,
    name: &str,
    quiet: bool,
    act: impl FnOnce(&mut Settings) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut network = runtime.network(name)?;
    act(&mut network)?;
    say(&runtime.save_network(name, &network)?, quiet);
    Ok(())
}

#[derive(Serialize)]
struct Line {
    name: String,
    ipv4: String,
    ipv6: String,
    description: String,
    used_by: usize,
}

fn list(runtime: &Runtime, output: Output) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for (name, network) in runtime.networks()? {
        let get = |key: &str| network.config.get(key).cloned().unwrap_or_default();
        lines.push(Line {
            ipv4: get("ipv4.address"),
            ipv6: get("ipv6.address"),
            used_by: runtime.network_users(&name)?.len(),
            description: network.description,
            name,
        });
    }
    output::list(
        output.format,
        &lines,
        &[
            ("NAME", &|line| line.name.clone()),
            ("IPV4", &|line| line.ipv4.clone()),
            ("IPV6", &|line| line.ipv6.clone()),
            ("DESCRIPTION", &|line| line.description.clone()),
            ("USED BY", &|line| line.used_by.to_string()),
        ],
    )
}
