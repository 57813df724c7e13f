//! `millstream recipe`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use chrono::Utc;
use millstream_builder::apt::sources::HostSources;
use millstream_builder::recipe::{self, Fallback, Resolved};
use millstream_image::Serial;

use crate::cli::build::{Kind, Recipe, Resolve};

pub fn run(command: &Recipe) -> anyhow::Result<()> {
    match command {
        Recipe::Validate { files } => {
            let mut broken = 0;
            for file in files {
                match load(file) {
                    Ok(recipe) => {
                        if let Some(warnings) = recipe.warnings() {
                            eprintln!("{warnings}");
                        }
                        println!("{}: valid", file.display());
                    }
                    Err(error) => {
                        broken += 1;
                        eprintln!("{error}");
                    }
                }
            }
            if broken > 0 {
                bail!("{broken} of {} recipes cannot be built", files.len());
            }
        }
        Recipe::Show { file, resolve } => {
            let resolved = self::resolve(file, resolve, &HostSources::read())?;
            print!("{}", serde_yaml_ng::to_string(&resolved.definition)?);
        }
    }
    Ok(())
}

/// Reads a recipe and picks the image the options ask for.
pub fn resolve(file: &Path, options: &Resolve, host: &HostSources) -> anyhow::Result<Resolved> {
    let kind = match options.kind {
        Kind::Container => recipe::Kind::Container,
        Kind::Vm => recipe::Kind::Vm,
    };
    let now = Serial::at(Utc::now()).to_string();
    let fallback = Fallback { release: &host.codename, serial: &now };
    Ok(load(file)?.resolve(&options.options, kind, &fallback)?)
}

fn load(file: &Path) -> anyhow::Result<recipe::Recipe> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(recipe::Recipe::parse(&text, &file.display().to_string())?)
}
