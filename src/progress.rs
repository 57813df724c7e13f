//! Stages and downloads shown on a terminal as they go; elsewhere a line for each stage.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use millstream_client::Progress;

/// How often the stage's line moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows the stage a command is in, and all its downloads together.
pub struct Bar {
    all: MultiProgress,
    stage: ProgressBar,
    downloads: ProgressBar,
    terminal: bool,
    quiet: bool,
}

impl Bar {
    /// A bar, invisible when standard error is no terminal or nothing is to be shown.
    pub fn new(quiet: bool) -> Self {
        let terminal = !quiet && std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let style = |template| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let stage = ProgressBar::no_length().with_style(style("{spinner} {prefix} {elapsed}"));
        let downloads =
            ProgressBar::new(0).with_style(style("  {bytes} of {total_bytes} at {bytes_per_sec} {wide_msg}"));
        Self { all, stage, downloads, terminal, quiet }
    }

    /// Says which stage begins.
    pub fn stage(&self, name: &str) {
        if self.terminal {
            if self.stage.is_hidden() {
                self.all.insert(0, self.stage.clone());
                self.stage.enable_steady_tick(TICK);
            }
            self.stage.set_prefix(name.to_owned());
            self.stage.reset_elapsed();
        } else {
            self.say(&format!("{name} ..."));
        }
    }

    /// Says something above what moves.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.all.suspend(|| eprintln!("{line}"));
        }
    }

    /// Takes all of it away.
    pub fn finish(&self) {
        self.stage.finish_and_clear();
        self.downloads.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, name: &str, total: Option<u64>) {
        if self.terminal && self.downloads.is_hidden() {
            self.all.add(self.downloads.clone());
        }
        self.downloads.inc_length(total.unwrap_or_default());
        self.downloads.set_message(name.to_owned());
    }

    fn advance(&self, _: &str, bytes: u64) {
        self.downloads.inc(bytes);
    }

    fn end(&self, _: &str) {}
}
