//! Cron expressions, in UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Duration, Utc};
use serde::Deserialize;

/// Days of the week as cron counts them; 7 is Sunday too.
const DAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];

/// When something is due: `MINUTE HOUR DAY MONTH WEEKDAY`, with seconds before them where six are
/// given, or `@hourly`, `@daily`, `@weekly`, `@monthly`. Where day and weekday are both given, both
/// must fit.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Cron {
    text: String,
    schedule: ::cron::Schedule,
}

impl Cron {
    /// The first time after `time`.
    pub fn next(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.schedule.after(&time).next()
    }

    /// The last time up to `time`, that one included.
    pub fn last(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let just_after = time.checked_add_signed(Duration::seconds(1))?;
        self.schedule.after(&just_after).rev().find(|slot| *slot <= time)
    }
}

impl FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |reason: String| {
            let text = text.escape_debug();
            format!("{text}: {reason}; a schedule is MINUTE HOUR DAY MONTH WEEKDAY in UTC, as 30 3 * * *")
        };
        let schedule = ::cron::Schedule::from_str(&fields(text).map_err(wrong)?)
            .map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        if schedule.after(&DateTime::<Utc>::UNIX_EPOCH).next().is_none() {
            return Err(wrong("there is no such day".into()));
        }
        Ok(Self { text: text.to_owned(), schedule })
    }
}

impl TryFrom<String> for Cron {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// The expression as the crate takes it: seconds first, days of the week by name.
fn fields(text: &str) -> Result<String, String> {
    if text.starts_with('@') {
        return Ok(text.to_owned());
    }
    let mut fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match fields.len() {
        5 => fields.insert(0, "0".into()),
        6 => {}
        other => return Err(format!("{other} fields")),
    }
    if let Some(day) = fields.last_mut() {
        *day = weekdays(day)?;
    }
    Ok(fields.join(" "))
}

/// Numbers of weekdays as a list of names, since the crate counts from 1 and knows no range over
/// Sunday.
fn weekdays(field: &str) -> Result<String, String> {
    let named: Result<Vec<_>, _> = field.split(',').map(weekday).collect();
    Ok(named?.join(","))
}

fn weekday(item: &str) -> Result<String, String> {
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    let number = |text: &str| text.parse::<usize>().ok();
    let (from, to) = match range.split_once('-') {
        Some((from, to)) => (number(from), number(to)),
        None if step.is_some() => (number(range), number(range).map(|_| 6)),
        None => (number(range), number(range)),
    };
    let (Some(from), Some(to)) = (from, to) else { return Ok(item.to_owned()) };
    let step = step.map_or(Some(1), number).filter(|step| *step > 0);
    match (DAYS.get(from..=to).filter(|days| !days.is_empty()), step) {
        (Some(days), Some(step)) => Ok(days.iter().step_by(step).copied().collect::<Vec<_>>().join(",")),
        _ => Err(format!("no day of the week: {}", item.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next(expression: &str, time: &str) -> String {
        let cron: Cron = expression.parse().unwrap();
        cron.next(at(time)).unwrap().format("%a %Y-%m-%d %H:%M:%S").to_string()
    }

    #[test]
    fn expressions_mean_what_crontab_means() {
        // 2026-01-01 is a Thursday.
        let now = "2026-01-01T12:00:00Z";
        for (expression, expected) in [
            ("30 3 * * *", "Fri 2026-01-02 03:30:00"),
            ("*/15 * * * *", "Thu 2026-01-01 12:15:00"),
            ("0 3 * * 0", "Sun 2026-01-04 03:00:00"),
            ("0 3 * * 7", "Sun 2026-01-04 03:00:00"),
            ("0 3 * * 1", "Mon 2026-01-05 03:00:00"),
            ("0 3 * * 1-3", "Mon 2026-01-05 03:00:00"),
            ("0 3 * * 6-7", "Sat 2026-01-03 03:00:00"),
            ("0 3 * * 1,3", "Mon 2026-01-05 03:00:00"),
            ("0 3 * * 0-6/2", "Sat 2026-01-03 03:00:00"),
            ("0 3 * * WED", "Wed 2026-01-07 03:00:00"),
            ("0 3 29 2 *", "Tue 2028-02-29 03:00:00"),
            ("5 0 0 1 * *", "Sun 2026-02-01 00:00:05"),
            ("@daily", "Fri 2026-01-02 00:00:00"),
        ] {
            assert_eq!(next(expression, now), expected, "{expression}");
        }
    }

    #[test]
    fn the_last_slot_is_found_also_when_it_is_now() {
        let cron: Cron = "0 3 * * *".parse().unwrap();
        let slot = Some(at("2026-01-01T03:00:00Z"));
        for time in ["2026-01-01T03:00:00Z", "2026-01-01T03:00:00.5Z", "2026-01-02T02:59:59Z"] {
            assert_eq!(cron.last(at(time)), slot, "{time}");
        }
        assert_eq!(cron.last(at("2026-01-01T02:59:59.9Z")), Some(at("2025-12-31T03:00:00Z")));
    }

    #[test]
    fn mistakes_are_named() {
        for (expression, reason) in [
            ("30 3 * *", "4 fields"),
            ("", "0 fields"),
            ("61 3 * * *", "61"),
            ("0 3 * * 8", "day of the week: 8"),
            ("0 3 * * 5-2", "day of the week"),
            ("0 3 * * 1/0", "day of the week"),
            ("0 3 30 2 *", "no such day"),
            ("a b c d e", "a b c d e"),
            ("@never", "@never"),
        ] {
            let error = expression.parse::<Cron>().unwrap_err();
            assert!(error.contains(reason) && error.contains("30 3 * * *"), "{expression}: {error}");
        }
    }
}
