//! `store`.

use clap::Subcommand;

use super::Output;

const KINDS: &str = "\
Every byte of every image is read. What other commands are at work on is left alone.

With --repair, images that are not whole are moved to lost+found in the store, each with a note of what
was wrong; fetch them again as the last column says. Images that are whole are never touched: what is
said of them is corrected. Downloads that may be resumed are no problem.

Exit status: 0 when nothing is wrong (any more), else 1.";

#[derive(Subcommand)]
pub enum Store {
    /// Look for everything that may be wrong with images kept here
    #[command(after_help = KINDS)]
    Check {
        /// Heal what can be healed
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        output: Output,
    },
}
