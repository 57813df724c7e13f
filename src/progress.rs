//! Downloads shown as one bar on a terminal; elsewhere nothing but the stages' lines.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use millstream_client::Progress;

/// Shows all downloads of a command together.
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar, invisible when standard error is no terminal or nothing is to be shown.
    pub fn new(quiet: bool) -> Self {
        let bar = if quiet || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let style = ProgressStyle::with_template(
                "{spinner} {bytes} of {total_bytes} at {bytes_per_sec} {wide_msg}",
            );
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        };
        Self { bar }
    }

    /// Says which stage begins.
    pub fn stage(&self, name: &str, quiet: bool) {
        if !quiet {
            self.bar.suspend(|| eprintln!("{name} ..."));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, name: &str, total: Option<u64>) {
        self.bar.inc_length(total.unwrap_or_default());
        self.bar.set_message(name.to_owned());
    }

    fn advance(&self, _: &str, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn end(&self, _: &str) {}
}
