//! Did you mean: the nearest of the names there are.

/// Names shown at most.
const SHOWN: usize = 3;

/// The names nearest to `wanted`, nearest first; none when all are far.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let limit = (wanted.len() / 3).max(2);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let inside = !wanted.is_empty() && name.to_lowercase().contains(&wanted);
            let distance = if inside { 1 } else { distance(&wanted, &name.to_lowercase()) };
            (distance <= limit).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}

/// `; did you mean A, B?`, or nothing.
pub(crate) fn hint<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(wanted, names)[..] {
        [] => String::new(),
        ref near => format!("; did you mean {}?", near.join(" or ")),
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_parts() {
        let names = ["debian/bookworm", "debian/trixie", "alpine/3.20"];
        assert_eq!(nearest("debain/bookworm", names), ["debian/bookworm"]);
        assert_eq!(nearest("trixie", names), ["debian/trixie"]);
        assert!(nearest("windows", names).is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
