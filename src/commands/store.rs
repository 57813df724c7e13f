//! `store`.

use std::process::ExitCode;

use millstream_client::Mender;
use millstream_runtime::ImageFiles;

use crate::cli::Output;
use crate::cli::store::Store;
use crate::commands::client;
use crate::output;

pub fn run(command: &Store, quiet: bool) -> anyhow::Result<ExitCode> {
    match command {
        Store::Check { repair, output } => check(*repair, *output, quiet),
    }
}

fn check(repair: bool, output: Output, quiet: bool) -> anyhow::Result<ExitCode> {
    let containers = client::containers()?;
    let client = client::open();
    let mut mender = Mender::new(repair);
    client.check(&mut mender)?;
    if let Some(runtime) = containers {
        let store = client.store().ok();
        let stored = |fingerprint| {
            let image = store.as_ref()?.get(fingerprint).ok().flatten()?;
            Some(ImageFiles { fingerprint, metadata: image.metadata, rootfs: image.rootfs })
        };
        runtime.check_images(stored, &mut mender)?;
    }
    let found = mender.report;
    if !found.problems.is_empty() || output.format != output::Format::Table {
        output::list(
            output.format,
            &found.problems,
            &[
                ("PROBLEM", &|problem| problem.kind.to_string()),
                ("WHERE", &|problem| problem.path.display().to_string()),
                ("WHAT", &|problem| problem.reason.clone()),
                ("REPAIRED", &|problem| problem.repaired.clone().unwrap_or_default()),
                ("TO DO", &|problem| problem.advice.clone().unwrap_or_default()),
            ],
        )?;
    }
    let left = found.problems.iter().filter(|problem| problem.repaired.is_none()).count();
    let many = found.problems.len();
    output::say(quiet, &format!("{} images read, {many} problems, {} repaired", found.images, many - left));
    if left > 0 && !repair {
        output::say(quiet, "to heal what can be healed, type: millstream store check --repair");
    }
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
