//! Lists and objects on standard output: tables for people, the rest for programs.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print a list or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Comma-separated values with a header line
    Csv,
}

/// A heading, and what stands under it for an item.
pub type Column<'a, T> = (&'a str, &'a dyn Fn(&T) -> String);

/// Prints `items` in the given format. Tables and CSV show `columns`.
pub fn list<T: Serialize>(format: Format, items: &[T], columns: &[Column<'_, T>]) -> anyhow::Result<()> {
    let headings = columns.iter().map(|(heading, _)| (*heading).to_owned());
    let text = match format {
        Format::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(headings);
            for item in items {
                table.add_row(columns.iter().map(|(_, cell)| printable(&cell(item))));
            }
            table.column_iter_mut().for_each(|column| {
                column.set_padding((0, 2));
            });
            let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
            lines.concat()
        }
        Format::Csv => {
            let mut rows = vec![headings.collect::<Vec<_>>()];
            rows.extend(items.iter().map(|item| columns.iter().map(|(_, cell)| cell(item)).collect()));
            rows.iter().map(|row| row.iter().map(|c| csv(c)).collect::<Vec<_>>().join(",") + "\n").collect()
        }
        Format::Json | Format::Yaml => return object(format, &items),
    };
    print(&text)
}

/// Prints one object; a table of it is YAML, which people read as well.
pub fn object<T: Serialize + ?Sized>(format: Format, value: &T) -> anyhow::Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        _ => serde_yaml_ng::to_string(value)?,
    };
    print(&text)
}

/// Writes to standard output; a reader that has gone (`| head`) is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes to standard output; false when nobody reads there any more.
pub fn delivered(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Says something to the user on standard error, unless all is to be quiet. Nobody listening is no
/// reason to fail.
pub fn say(quiet: bool, line: &str) {
    if !quiet {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Lines of text from outside, for a terminal that they must not steer.
pub fn text(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(printable).collect::<Vec<_>>().join("\t") + "\n";
    text.lines().map(line).collect()
}

/// Text from outside must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn csv(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_break_out() {
        assert_eq!(csv("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(printable("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
