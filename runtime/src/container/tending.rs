//! Snapshots taken and deleted by themselves, as a container's configuration says.

use std::fs;
use std::path::Path;

use chrono::DateTime;
use millstream_image::atomic;

use super::config::Settings;
use super::config::keys::is_true;
use super::name::ContainerName;
use super::record::{Config, now};
use super::runtime::{Runtime, Status};
use super::storage::{SNAPSHOTS, expire};
use crate::{Cron, Error, Result};

/// When one was last taken by schedule, beside the snapshots.
const SCHEDULED: &str = ".scheduled";
const PATTERN: &str = "snap%d";
/// The longest number in a name.
const DIGITS: &str = "000000";

/// What was done for a container.
#[derive(Debug)]
pub enum Tended {
    /// A snapshot was due and has been taken.
    Taken {
        /// The container.
        name: ContainerName,
        /// The snapshot.
        snapshot: ContainerName,
    },
    /// A snapshot's time was over; it was deleted.
    Expired {
        /// The container.
        name: ContainerName,
        /// The snapshot.
        snapshot: ContainerName,
    },
    /// Something failed. The next call tries again.
    Failed {
        /// The container.
        name: ContainerName,
        /// Why.
        error: Error,
    },
}

impl Runtime {
    /// Deletes the snapshots of all containers that have expired, and takes those that are due by
    /// `snapshots.schedule`. A time missed is made up for, once. To be called every few minutes.
    pub fn tend_snapshots(&self) -> Result<Vec<Tended>> {
        let mut done = Vec::new();
        let mut expired = false;
        for name in self.names()? {
            match self.expire_one(&name) {
                Ok(gone) => {
                    expired |= !gone.is_empty();
                    done.extend(
                        gone.into_iter().map(|snapshot| Tended::Expired { name: name.clone(), snapshot }),
                    );
                }
                Err(Error::NotFound { .. }) => continue,
                Err(error) => done.push(Tended::Failed { name: name.clone(), error }),
            }
            match self.take_due(&name) {
                Ok(None) | Err(Error::NotFound { .. }) => {}
                Ok(Some(snapshot)) => done.push(Tended::Taken { name, snapshot }),
                Err(error) => done.push(Tended::Failed { name, error }),
            }
        }
        if expired {
            self.collect_layers()?;
        }
        Ok(done)
    }

    fn expire_one(&self, name: &ContainerName) -> Result<Vec<ContainerName>> {
        let directory = self.existing(name)?;
        if !directory.join(SNAPSHOTS).exists() {
            return Ok(Vec::new());
        }
        let _lock = self.lock(name)?;
        expire(&directory)
    }

    fn take_due(&self, name: &ContainerName) -> Result<Option<ContainerName>> {
        let directory = self.existing(name)?;
        let config = Config::read(&directory)?;
        let settings = self.expand(&config)?;
        let Some(schedule) = settings.get("snapshots.schedule").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let refused = |reason| Error::Setting { key: "snapshots.schedule".into(), reason };
        let schedule = self::schedule(schedule).map_err(refused)?;
        let before = last(&directory).unwrap_or(config.created_at);
        let due = schedule.iter().filter_map(|cron| cron.last(DateTime::from_timestamp(now(), 0)?));
        if due.map(|time| time.timestamp()).max().is_none_or(|due| due <= before) {
            return Ok(None);
        }
        let stopped = self.info(name)?.status == Status::Stopped;
        if stopped && !is_true(&settings, "snapshots.schedule.stopped") {
            return Ok(None);
        }
        let time = now();
        let snapshot = self.snapshot(name, None, None)?;
        let path = directory.join(SNAPSHOTS).join(SCHEDULED);
        atomic::write_with_mode(&path, time.to_string().as_bytes(), 0o600)?;
        Ok(Some(snapshot))
    }
}

fn last(directory: &Path) -> Option<i64> {
    fs::read_to_string(directory.join(SNAPSHOTS).join(SCHEDULED)).ok()?.trim().parse().ok()
}

/// The times of `snapshots.schedule`: one cron expression, or several of `@hourly` and its like.
pub fn schedule(text: &str) -> std::result::Result<Vec<Cron>, String> {
    if text.trim_start().starts_with('@') {
        text.split(',').map(|one| one.trim().parse()).collect()
    } else {
        Ok(vec![text.parse()?])
    }
}

/// Seconds in `7d`, `2H`, `1m 12H`, as LXD counts them.
pub fn lifetime(text: &str) -> Option<i64> {
    const DAY: i64 = 86_400;
    let mut seconds = 0_i64;
    for part in text.split_whitespace() {
        let unit = match part.chars().last()? {
            'M' => 60,
            'H' => 3600,
            'd' => DAY,
            'w' => 7 * DAY,
            'm' => 30 * DAY,
            'y' => 365 * DAY,
            _ => return None,
        };
        let number: u32 = part[..part.len() - 1].parse().ok()?;
        seconds = seconds.checked_add(unit * i64::from(number))?;
    }
    (seconds > 0 && seconds <= 1000 * 365 * DAY).then_some(seconds)
}

/// What `snapshots.expiry` says.
pub fn configured_lifetime(settings: &Settings) -> Option<i64> {
    settings.get("snapshots.expiry").and_then(|text| lifetime(text))
}

/// Whether names can be made of it.
pub fn is_pattern(text: &str) -> bool {
    text.matches('%').count() <= 1
        && text.contains('%') == text.contains("%d")
        && [numbered(text, DIGITS), numbered(text, "0")]
            .iter()
            .all(|name| name.parse::<ContainerName>().is_ok())
}

/// Names by `snapshots.pattern`, so many.
pub fn names(settings: &Settings, count: usize) -> impl Iterator<Item = ContainerName> {
    let pattern = settings.get("snapshots.pattern").map_or(PATTERN, String::as_str).to_owned();
    let plain = (!pattern.contains("%d")).then(|| pattern.clone());
    let numbered = (0..count).map(move |number| numbered(&pattern, &number.to_string()));
    plain.into_iter().chain(numbered).filter_map(|name| name.parse().ok())
}

fn numbered(pattern: &str, number: &str) -> String {
    if pattern.contains("%d") { pattern.replacen("%d", number, 1) } else { format!("{pattern}-{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_counted_as_lxd_does() {
        assert_eq!(lifetime("2H"), Some(7200));
        assert_eq!(lifetime("1m 1d  1M"), Some(31 * 86_400 + 60));
        for bad in ["", "0d", "7", "d", "-1d", "7 d", "1s", "99999999y", "1\u{e9}"] {
            assert_eq!(lifetime(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_follow_the_pattern() {
        let of = |pattern: &str| {
            let settings = Settings::from([("snapshots.pattern".to_owned(), pattern.to_owned())]);
            names(&settings, 2).map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("day%d"), "day0 day1");
        assert_eq!(of("a-%d-b"), "a-0-b a-1-b");
        assert_eq!(of("daily"), "daily daily-0 daily-1");
        assert!(is_pattern("day%d") && is_pattern("daily"));
        for bad in ["", "%d", "%d%d", "a%", "a%s", "a/b", "..", &"a".repeat(60)] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn schedules_are_one_expression_or_several_words() {
        assert_eq!(schedule("30 3 * * 1,2").unwrap().len(), 1);
        assert_eq!(schedule("@hourly, @daily").unwrap().len(), 2);
        for bad in ["", "@often", "30 3 * *", "@daily,", "61 * * * *"] {
            assert!(schedule(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "\\PC{0,70}") {
            let _ = (lifetime(&text), schedule(&text));
            if is_pattern(&text) {
                let settings = Settings::from([("snapshots.pattern".to_owned(), text)]);
                prop_assert!(names(&settings, 1000).count() >= 1000);
            }
        }
    }
}
