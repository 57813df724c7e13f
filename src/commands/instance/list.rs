//! `list` and `info`.

use millstream_runtime::Runtime;
use millstream_runtime::container::{self, Status};
use serde::Serialize;

use super::columns::{self, Line};
use super::filter::Filter;
use crate::cli::instance::{Info, List};
use crate::output::{self, Column};

/// The columns of `--fast`: what needs no look into the container.
const FAST: &str = "nsacPt";

pub fn list(runtime: &Runtime, args: &List) -> anyhow::Result<()> {
    let columns = columns::parse(if args.fast { FAST } else { &args.columns })?;
    let filter = Filter::parse(&args.filters)?;
    let containers = if args.fast { runtime.list_fast()? } else { runtime.list()? };
    let mut lines = Vec::new();
    for info in containers {
        let line = Line { disk: None, settings: runtime.expanded(&info.name).unwrap_or_default(), info };
        if filter.fits(&line) {
            lines.push(line);
        }
    }
    if columns.iter().any(|column| column.needs_disk) {
        for line in &mut lines {
            line.disk = runtime.disk_usage(&line.info.name).ok();
        }
    }
    let columns: Vec<Column<'_, Line>> =
        columns.iter().map(|column| (column.heading.as_str(), &*column.cell as _)).collect();
    output::list(args.output.format, &lines, &columns)
}

/// With what takes a walk through its files.
#[derive(Serialize)]
struct Full {
    #[serde(flatten)]
    info: container::Info,
    /// Bytes.
    disk: u64,
}

pub fn info(runtime: &Runtime, args: &Info) -> anyhow::Result<()> {
    super::each(&args.names.names, |name| {
        let full = Full { info: runtime.info(name)?, disk: runtime.disk_usage(name)? };
        output::object(args.output.format, &full)
    })
}

pub fn status(info: &container::Info) -> &'static str {
    match info.status {
        Status::Running => "RUNNING",
        Status::Paused => "PAUSED",
        Status::Stopped => "STOPPED",
    }
}
