//! Debian package versions: `[EPOCH:]UPSTREAM[-REVISION]`, compared as dpkg does (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| compare_part(a.1, b.1)).then_with(|| compare_part(a.2, b.2))
}

/// Whether `version` stands in `relation` (`<<`, `<=`, `=`, `>=`, `>>`) to `to`.
pub fn satisfies(version: &str, relation: &str, to: &str) -> bool {
    let order = compare(version, to);
    match relation {
        "<<" => order.is_lt(),
        "<=" | "<" => order.is_le(),
        "=" => order.is_eq(),
        ">=" | ">" => order.is_ge(),
        ">>" => order.is_gt(),
        _ => false,
    }
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (text_a, text_b) = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        let order = compare_text(text_a, text_b);
        if order.is_ne() {
            return order;
        }
        let (digits_a, digits_b) =
            (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let (digits_a, digits_b) = (digits_a.trim_start_matches('0'), digits_b.trim_start_matches('0'));
        let order = digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b));
        if order.is_ne() || (a.is_empty() && b.is_empty()) {
            return order;
        }
    }
}

fn take<'a>(text: &mut &'a str, wanted: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    *text = rest;
    taken
}

/// Tilde before the end, the end before letters, letters before everything else.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    };
    (0..=a.len().max(b.len()))
        .map(|i| weight(a.as_bytes().get(i).copied()).cmp(&weight(b.as_bytes().get(i).copied())))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn dpkg(a: &str, relation: &str, b: &str) -> bool {
        let status = Command::new("dpkg").args(["--compare-versions", a, relation, b]).status();
        status.expect("these tests run on Debian").success()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn agrees_with_dpkg_itself(
            a in "([0-2]:)?[0-9][0-9a-c.+~]{0,5}(-[0-9a-c.+~]{1,4})?",
            change in "[0-9a-c.+~]{0,2}",
            at in 0_usize..8,
        ) {
            // Versions that differ little are where orders differ.
            let mut b = a.clone();
            let place = at.clamp(a.find(':').map_or(1, |colon| colon + 2), a.len());
            b.insert_str(place, &change);
            for (relation, word) in [("<<", "lt"), ("=", "eq"), (">>", "gt")] {
                prop_assert_eq!(satisfies(&a, relation, &b), dpkg(&a, word, &b), "{} {} {}", a, relation, b);
            }
        }

        #[test]
        fn any_two_texts_have_an_order(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }

    #[test]
    fn orders_as_dpkg_does() {
        let rising = [
            "1.0~rc1",
            "1.0",
            "1.0-1~deb12u1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u2",
            "1.0a",
            "1.0+x",
            "1.1",
            "1.9",
            "1.10",
            "1:0.1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("1.00", "1.0"), Ordering::Equal);
        assert!(satisfies("2.36-9", ">=", "2.34") && !satisfies("2.36", ">>", "2.36"));
    }
}
