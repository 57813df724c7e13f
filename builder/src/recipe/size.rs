//! Sizes as recipes write them: bytes, or a number with a unit.

pub(super) const EXPECTED: &str = "expected bytes, or a number with a unit such as GiB or GB";

/// Bytes; units are powers of 1024 with an `i` and powers of 1000 without.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units() {
        assert_eq!(parse("4294967296"), Some(4 << 30));
        assert_eq!(parse("4GiB"), Some(4 << 30));
        assert_eq!(parse("4 GB"), Some(4_000_000_000));
        for wrong in ["", "GiB", "-1", "4 parsecs", "99999999999999TiB", "1.5GiB"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
