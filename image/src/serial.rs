//! Serials: when an image was built, to the minute, in UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const FORMAT: &str = "%Y%m%d_%H%M";

/// A serial `YYYYMMDD_HHMM` (UTC): the version name of an image in simplestreams and its build
/// name in LXC's index. Orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(NaiveDateTime);

impl Serial {
    /// The serial of a moment; seconds are dropped.
    pub fn at(time: DateTime<Utc>) -> Self {
        let text = time.format(FORMAT).to_string();
        Self(NaiveDateTime::parse_from_str(&text, FORMAT).unwrap_or(time.naive_utc()))
    }

    /// The moment it names.
    pub fn time(&self) -> DateTime<Utc> {
        self.0.and_utc()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.format(FORMAT).fmt(f)
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
        NaiveDateTime::parse_from_str(text, FORMAT).map(Self).map_err(|_| bad())
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
    }

    #[test]
    fn refuses_anything_else() {
        for bad in ["", "20260130", "20260130_05:12", "20261330_0512", "20260130_0512/..", "２0260130_051"] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }
}
