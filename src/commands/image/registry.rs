//! Images of registries: `image copy` and `image info`, and what `launch` does with them.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use chrono::Utc;
use millstream_builder::registry::{Bring, bring};
use millstream_client::{Client, Keep, RemoteName, StoredImage};
use millstream_image::{Alias, Architecture};
use millstream_runtime::sandbox::userns;
use serde_json::json;

use crate::cli::client::CopyImage;
use crate::commands::client;
use crate::interrupt;
use crate::output::{self, Format};
use crate::progress::Bar;

/// Whether a name is one of an image in a registry.
pub fn is_in(client: &Client, name: &str) -> anyhow::Result<bool> {
    Ok(client.registry_of(name)?.is_some())
}

fn parts<'a>(client: &Client, name: &'a str) -> anyhow::Result<(RemoteName, &'a str)> {
    client.registry_of(name)?.with_context(|| format!("{name}: this is in no registry"))
}

/// `image copy`. An ordinary user becomes root of a namespace for it, as files in layers have several owners.
pub fn copy(client: &Client, command: &CopyImage, quiet: bool) -> anyhow::Result<()> {
    if command.auto_update || command.copy_aliases {
        bail!("images of registries have no aliases and are not followed; copy them again for newer ones");
    }
    let aliases: Vec<Alias> = command.alias.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let (remote, name) = parts(client, &command.source)?;
    userns::become_root()?;
    let bar = Bar::new(quiet);
    let options = Bring {
        architecture: Architecture::host(),
        keep: Keep { cached: command.cached, auto_update: false },
        stage: &|name| bar.stage(name),
        progress: &bar,
        cancel: &interrupt::token()?,
    };
    let image = client::block_on(bring(client, &remote, name, &options));
    bar.finish();
    let image = image??;
    client.add_aliases(&image, &aliases, true)?;
    output::print(&format!("{}\n", image.fingerprint))
}

/// Copies an image in a process of its own, so that this one stays who it is.
pub fn copy_apart(client: &Client, name: &str, quiet: bool) -> anyhow::Result<StoredImage> {
    let mut command = Command::new("/proc/self/exe");
    if quiet {
        command.arg("--quiet");
    }
    command.args(["image", "copy", name, "--cached"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("cannot start this program again")?;
    if !output.status.success() {
        // It has said why.
        std::process::exit(output.status.code().unwrap_or(1));
    }
    let store = client.store()?;
    let image = store.resolve(&String::from_utf8_lossy(&output.stdout).trim().parse()?)?;
    store.touch(image.fingerprint, Utc::now())?;
    Ok(image)
}

/// `image info`.
pub fn info(client: &Client, name: &str, format: Format) -> anyhow::Result<()> {
    let (remote, name) = parts(client, name)?;
    let (offered, stored) = client::block_on(async {
        let offered = client.registry_image(&remote, name, Architecture::host()).await?;
        let stored = client.stored_of(&offered)?;
        anyhow::Ok((offered, stored))
    })??;
    let layer = |layer: &millstream_image::oci::Descriptor| json!({"digest": layer.digest.to_string(), "size": layer.size, "type": layer.media_type});
    let object = json!({
        "remote": remote.as_str(),
        "signed": false,
        "digest": offered.resolved.digest.to_string(),
        "architecture": offered.config.architecture,
        "created": offered.config.created,
        "properties": offered.properties(),
        "size": offered.size(),
        "layers": offered.resolved.manifest.layers.iter().map(layer).collect::<Vec<_>>(),
        "in_local_store": stored.map(|image| image.fingerprint.to_string()),
    });
    output::object(format, &object)
}
