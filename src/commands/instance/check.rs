//! `check`.

use std::path::Path;
use std::process::ExitCode;

use millstream_runtime::check;

use crate::cli::Output;
use crate::output;

pub fn run(containers: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let found = check::host(containers);
    output::list(
        output.format,
        &found,
        &[
            ("FEATURE", &|finding| finding.name.clone()),
            ("", &|finding| if finding.present { "ok".into() } else { "missing".into() }),
            ("WITHOUT IT", &|finding| if finding.present { String::new() } else { finding.cost.into() }),
            ("DETAIL", &|finding| finding.detail.clone()),
        ],
    )?;
    let usable = found.iter().all(|finding| finding.present || !finding.required);
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
