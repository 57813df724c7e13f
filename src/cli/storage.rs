//! `snapshot`, `restore`, `copy`, `rename`, `publish`.

use clap::Args;

#[derive(Args)]
pub struct TakeSnapshot {
    /// Container; one that runs stands still while what it has changed is copied
    #[arg(required_unless_present = "scheduled")]
    pub name: Option<String>,
    /// Name of the snapshot [default: as snapshots.pattern says; snap0, snap1, …]
    pub snapshot: Option<String>,
    /// Delete it by itself after this time: a number and m, h, d or w [default: snapshots.expiry]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub expiry: Option<u32>,
    /// Of all containers: delete snapshots that have expired, take those due by snapshots.schedule
    ///
    /// For a timer; systemd/millstream-snapshots.timer does it every five minutes.
    #[arg(long, conflicts_with_all = ["name", "snapshot", "expiry"])]
    pub scheduled: bool,
}

#[derive(Args)]
pub struct Restore {
    /// Container, stopped
    pub name: String,
    /// Snapshot
    pub snapshot: String,
}

#[derive(Args)]
pub struct Copy {
    /// Stopped container, or CONTAINER/SNAPSHOT
    pub from: String,
    /// The new container
    pub to: String,
}

#[derive(Args)]
pub struct Rename {
    /// Container, stopped
    pub from: String,
    /// Its new name
    pub to: String,
}

#[derive(Args)]
pub struct Publish {
    /// Stopped container, or CONTAINER/SNAPSHOT
    pub name: String,
    /// Give the image a name in the local store; may be repeated
    #[arg(long, conflicts_with = "out")]
    pub alias: Vec<String>,
    /// Set a property, as in description="Web server"; the others are those of the container's image
    #[arg(long, value_name = "KEY=VALUE")]
    pub property: Vec<String>,
    /// Write the image into this new directory instead, as `millstream build` leaves one
    #[arg(long, value_name = "DIR")]
    pub out: Option<std::path::PathBuf>,
}

/// Seconds in `90m`, `12h`, `7d`, `4w`.
fn lifetime(text: &str) -> Result<u32, String> {
    let wrong = || "should be a number and m, h, d or w, as in 7d".to_owned();
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some('w') => 604_800,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(|| "is too long".to_owned())
}
