//! `Range` requests (RFC 9110, section 14): one range of bytes; several are answered in whole,
//! which the standard allows and every client understands.

use std::ops::Range;

/// What part of a file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes; never empty and never beyond the end.
    Bytes(Range<u64>),
    /// Something the file does not have.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes. One that is malformed counts as absent.
pub(super) fn parse(header: &str, size: u64) -> Part {
    one_range(header, size).unwrap_or(Part::Whole)
}

fn one_range(header: &str, size: u64) -> Option<Part> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // More digits than fit are beyond every file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let range = if first.is_empty() {
        size.saturating_sub(number(last)?)..size
    } else {
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if first > last {
            return None;
        }
        first..last.saturating_add(1).min(size)
    };
    Some(if range.is_empty() { Part::Unsatisfiable } else { Part::Bytes(range) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_of_a_file_of_ten_bytes() {
        for (header, expected) in [
            ("bytes=0-0", Part::Bytes(0..1)),
            ("bytes=2-4", Part::Bytes(2..5)),
            ("bytes=2-", Part::Bytes(2..10)),
            ("bytes=2-99999999999999999999", Part::Bytes(2..10)),
            ("bytes=-3", Part::Bytes(7..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("Bytes = 1-1", Part::Bytes(1..2)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=99999999999999999999-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
        ] {
            assert_eq!(parse(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn malformed_or_several_ranges_mean_the_whole() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "lines=0-1",
            "bytes=0-1,3-4",
            "bytes=+1-2",
        ] {
            assert_eq!(parse(header, 10), Part::Whole, "{header}");
        }
    }

    #[test]
    fn empty_file_has_no_range() {
        assert_eq!(parse("bytes=0-", 0), Part::Unsatisfiable);
        assert_eq!(parse("bytes=-1", 0), Part::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_range_lies_in_its_file(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0u64..100) {
            if let Part::Bytes(range) = parse(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
