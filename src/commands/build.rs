//! `millstream build`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use millstream_builder::apt::sources::HostSources;
use millstream_builder::{BuildOptions, Built};
use millstream_image::Serial;
use millstream_runtime::sandbox::userns;

use crate::cli::build::{Build, BuildFormat, Kind};
use crate::commands::recipe;
use crate::interrupt;
use crate::paths::Paths;
use crate::progress::Bar;

pub fn run(command: &Build, quiet: bool) -> anyhow::Result<()> {
    if command.resolve.kind == Kind::Vm {
        bail!("virtual-machine images cannot be built yet; leave --type out");
    }
    // An ordinary user's build starts again here, as root of a user namespace.
    userns::become_root()?;
    let host = HostSources::read();
    let mut resolve = command.resolve.clone();
    resolve.options.extend(command.serial.iter().map(|serial| format!("image.serial={serial}")));
    let resolved = recipe::resolve(&command.file, &resolve, &host)?;
    let serial: Serial = resolved.definition.image.serial.parse()?;
    let name = format!("{}-{serial}", resolved.product.to_string().replace(':', "-"));
    let out = command.out.clone().unwrap_or_else(|| PathBuf::from(name));
    let bar = Bar::new(quiet);
    let cache = Paths::from_env().cache;
    let options = BuildOptions {
        out: &out,
        cache: &cache.join("packages"),
        block_cache: Some(&cache.join("blocks")),
        recipe_dir: command.file.parent().unwrap_or(Path::new(".")),
        serial,
        dir_only: command.format == BuildFormat::Dir,
        threads: command
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        script_timeout: command.script_timeout,
        host: &host,
        progress: &bar,
        stage: &|name| bar.stage(name, quiet),
        cancel: &interrupt::token()?,
    };
    let built = millstream_builder::build(&resolved, &options);
    bar.finish();
    let built = built?;
    report(&built);
    Ok(())
}

fn report(built: &Built) {
    if let Some(manifest) = &built.manifest {
        for (stage, seconds) in &manifest.durations {
            eprintln!("{stage:12} {seconds:7.1} s");
        }
    }
    println!("{}", built.dir.display());
}
