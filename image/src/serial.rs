//! Serials: when an image was built, to the minute, in UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike, Utc};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A serial `YYYYMMDD_HHMM` (UTC): the version name of an image in simplestreams and its build
/// name in LXC's index. Orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(NaiveDateTime);

impl Serial {
    /// The serial of a moment; seconds are dropped.
    pub fn at(time: DateTime<Utc>) -> Self {
        let time = time.naive_utc();
        Self(time.with_second(0).and_then(|time| time.with_nanosecond(0)).unwrap_or(time))
    }

    /// The moment it names.
    pub fn time(&self) -> DateTime<Utc> {
        self.0.and_utc()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written out, and read so below: chrono reads its format each time, for each of thousands.
        let (date, time) = (self.0.date(), self.0.time());
        write!(f, "{:04}{:02}{:02}", date.year(), date.month(), date.day())?;
        write!(f, "_{:02}{:02}", time.hour(), time.minute())
    }
}

impl FromStr for Serial {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shape = text.len() == 13
            && text.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'_' } else { b.is_ascii_digit() });
        let bad = || Error::name("serial", text, "expected YYYYMMDD_HHMM");
        if !shape {
            return Err(bad());
        }
        let number = |from: usize, to: usize| text[from..to].parse::<u32>().map_err(|_| bad());
        let year = text[..4].parse().map_err(|_| bad())?;
        let date = NaiveDate::from_ymd_opt(year, number(4, 6)?, number(6, 8)?);
        let (hour, minute) = (number(9, 11)?, number(11, 13)?);
        date.and_then(|date| date.and_hms_opt(hour, minute, 0)).map(Self).ok_or_else(bad)
    }
}

impl TryFrom<String> for Serial {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_order() {
        let a: Serial = "20260130_0512".parse().unwrap();
        let b: Serial = "20260130_1512".parse().unwrap();
        assert!(a < b);
        assert_eq!(a.to_string(), "20260130_0512");
        assert_eq!(Serial::at(a.time()), a);
        let late = a.time() + chrono::Duration::milliseconds(59_999);
        assert_eq!(Serial::at(late), a);
    }

    #[test]
    fn refuses_anything_else() {
        for bad in [
            "",
            "20260130",
            "20260130_05:12",
            "20261330_0512",
            "20260230_0512",
            "20260130_2400",
            "20260130_0560",
            "20260130_0512/..",
            "２0260130_051",
        ] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }
}
