//! `millstream pack`.

use chrono::Utc;
use millstream_builder::pack::{self, PackOptions};
use millstream_image::Serial;
use millstream_runtime::sandbox::userns;

use crate::cli::pack::Pack;
use crate::commands::build::{formats, source_date_epoch};
use crate::interrupt;
use crate::progress::Bar;

pub fn run(command: &Pack, quiet: bool) -> anyhow::Result<()> {
    let formats = formats(&command.formats)?;
    // An ordinary user's files are root's in the image.
    userns::become_root()?;
    let bar = Bar::new(quiet);
    let options = PackOptions {
        out: &command.out,
        metadata: command.metadata.as_deref(),
        overrides: &command.options,
        named: None,
        serial: Serial::at(Utc::now()),
        epoch: source_date_epoch()?,
        formats: &formats,
        threads: command
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        stage: &|name| bar.stage(name),
        cancel: &interrupt::token()?,
    };
    let packed = pack::pack(&command.source, &options);
    bar.finish();
    println!("{}", packed?.dir.display());
    Ok(())
}
