//! Stages and downloads shown on a terminal as they go; elsewhere a line for each stage.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use millstream_client::Progress;

/// How often the stage's line moves.
const TICK: Duration = Duration::from_millis(120);
/// Files that have a line of their own at a time.
const LINES: usize = 4;
const TOTAL: &str = "  {bytes} of {total_bytes} at {bytes_per_sec}, {eta} left";
const FILE: &str = "    {msg}: {bytes} of {total_bytes} at {bytes_per_sec}, {eta} left";
const FILE_OF_ANY_SIZE: &str = "    {msg}: {bytes} at {bytes_per_sec}";

/// Shows the stage a command is in, all its downloads together, and each of them.
pub struct Bar {
    all: MultiProgress,
    stage: ProgressBar,
    downloads: ProgressBar,
    files: Mutex<HashMap<String, ProgressBar>>,
    terminal: bool,
    quiet: bool,
}

impl Bar {
    /// A bar, invisible when standard error is no terminal or nothing is to be shown.
    pub fn new(quiet: bool) -> Self {
        let terminal = !quiet && std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self::on(target, terminal, quiet)
    }

    fn on(target: ProgressDrawTarget, terminal: bool, quiet: bool) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let stage = ProgressBar::no_length().with_style(style("{spinner} {prefix} {elapsed}"));
        let downloads = ProgressBar::new(0).with_style(style(TOTAL));
        Self { all, stage, downloads, files: Mutex::default(), terminal, quiet }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<String, ProgressBar>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
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
        for (_, file) in self.files().drain() {
            file.finish_and_clear();
        }
        self.downloads.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Bar {
    fn begin(&self, name: &str, total: Option<u64>) {
        if self.terminal && self.downloads.is_hidden() {
            self.all.add(self.downloads.clone());
            // The time before the first download is none of its.
            self.downloads.reset();
        }
        self.downloads.inc_length(total.unwrap_or_default());
        let mut files = self.files();
        if self.terminal && files.len() < LINES {
            let file = match total {
                Some(total) => ProgressBar::new(total).with_style(style(FILE)),
                None => ProgressBar::no_length().with_style(style(FILE_OF_ANY_SIZE)),
            };
            let file = self.all.add(file.with_message(name.to_owned()));
            if let Some(before) = files.insert(name.to_owned(), file) {
                before.finish_and_clear();
            }
        }
    }

    fn advance(&self, name: &str, bytes: u64) {
        self.downloads.inc(bytes);
        if let Some(file) = self.files().get(name) {
            file.inc(bytes);
        }
    }

    fn end(&self, name: &str) {
        if let Some(file) = self.files().remove(name) {
            file.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::*;

    /// A terminal that remembers all that was written.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn write(&self, text: &str) {
            self.0.lock().unwrap().push_str(text);
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write(text);
            self.write("\n");
            Ok(())
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.write(text);
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_and_each_are_shown_with_speed_and_time_left() {
        let screen = Screen::default();
        let bar = Bar::on(ProgressDrawTarget::term_like(Box::new(screen.clone())), true, false);
        bar.begin("rootfs.tar.xz", Some(3 << 20));
        bar.begin("metadata.tar.xz", Some(1 << 20));
        bar.begin("unknown", None);
        bar.advance("rootfs.tar.xz", 1 << 20);
        bar.advance("unknown", 1 << 10);
        // What is drawn too soon after the line before waits for its turn.
        for file in bar.files().values() {
            file.force_draw();
        }
        bar.downloads.force_draw();
        let seen = std::mem::take(&mut *screen.0.lock().unwrap());
        for line in [
            "rootfs.tar.xz: 1.00 MiB of 3.00 MiB at",
            "metadata.tar.xz: 0 B of 1.00 MiB at",
            "of 4.00 MiB at",
            "unknown: 1.00 KiB at",
        ] {
            assert!(seen.contains(line), "{line}: {seen}");
        }
        assert!(seen.contains("B/s, ") && seen.contains(" left"), "{seen}");
        bar.end("rootfs.tar.xz");
        bar.downloads.force_draw();
        let after = screen.0.lock().unwrap().clone();
        assert!(!after.split("4.00 MiB").last().unwrap().contains("rootfs"), "what has ended goes: {after}");
        bar.finish();
    }

    #[test]
    fn the_stage_is_shown_with_its_time_and_the_next_takes_its_place() {
        let screen = Screen::default();
        let bar = Bar::on(ProgressDrawTarget::term_like(Box::new(screen.clone())), true, false);
        let shown = || {
            bar.stage.force_draw();
            std::mem::take(&mut *screen.0.lock().unwrap())
        };
        bar.stage("bootstrap");
        let first = shown();
        assert!(first.contains("bootstrap 0s"), "{first}");
        bar.stage("packages");
        let second = shown();
        let last = second.rsplit("packages").next().unwrap();
        assert!(second.contains("packages 0s") && !last.contains("bootstrap"), "{second}");
        bar.begin("hello.deb", Some(1 << 20));
        bar.downloads.force_draw();
        let below = shown();
        assert!(below.contains("packages") && below.contains("of 1.00 MiB at"), "{below}");
        bar.finish();
        assert!(bar.stage.is_finished(), "nothing stays");
    }
}
