//! `?filter=`: the small language of LXD's and Incus' lists, as in
//! `properties.os eq Debian and not architecture eq "x86_64"`.

use serde_json::Value;

/// So many comparisons at most.
const MAX_CLAUSES: usize = 32;

/// A filter: any of the alternatives, each of them all its comparisons.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter(Vec<Vec<Clause>>);

#[derive(Debug, PartialEq, Eq)]
struct Clause {
    field: String,
    value: String,
    /// Whether equality is wanted.
    equal: bool,
}

/// Reads a filter.
///
/// # Errors
/// With what is wrong.
pub(super) fn parse(text: &str) -> Result<Filter, String> {
    let words = words(text)?;
    let mut words = words.into_iter().peekable();
    let mut alternatives = vec![Vec::new()];
    let mut count = 0;
    while words.peek().is_some() {
        let negated = words.next_if(|word| word.eq_ignore_ascii_case("not")).is_some();
        let mut next = || words.next().ok_or("the filter ends too early; expected FIELD eq VALUE");
        let (field, operator, value) = (next()?, next()?, next()?);
        let equal = match operator.to_ascii_lowercase().as_str() {
            "eq" => !negated,
            "ne" => negated,
            other => return Err(format!("unknown operator {other:?} in the filter; there are eq and ne")),
        };
        count += 1;
        if count > MAX_CLAUSES {
            return Err(format!("the filter has more than {MAX_CLAUSES} comparisons"));
        }
        if let Some(last) = alternatives.last_mut() {
            last.push(Clause { field, value, equal });
        }
        match words.next().map(|word| word.to_ascii_lowercase()).as_deref() {
            None => break,
            Some("and") => {}
            Some("or") => alternatives.push(Vec::new()),
            Some(other) => return Err(format!("expected and or or in the filter, not {other:?}")),
        }
        if words.peek().is_none() {
            return Err("the filter ends too early; expected FIELD eq VALUE".into());
        }
    }
    if count == 0 { Err("the filter is empty".into()) } else { Ok(Filter(alternatives)) }
}

impl Filter {
    /// Whether an object, as the API shows it, passes.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let holds = |clause: &Clause| {
            let value = field(object, &clause.field);
            (value.as_deref() == Some(clause.value.as_str())) == clause.equal
        };
        self.0.iter().any(|clauses| clauses.iter().all(holds))
    }
}

/// The field as text; dots lead into objects, whose keys may hold dots themselves.
fn field(object: &Value, name: &str) -> Option<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    if let Some(value) = object.get(name) {
        return text(value);
    }
    let (first, rest) = name.split_once('.')?;
    field(object.get(first)?, rest)
}

/// Words; quotes keep blanks together.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err("a quotation mark of the filter is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn image() -> Value {
        json!({"architecture": "x86_64", "public": true, "size": 5, "properties": {"os": "Debian", "a.b": "c d"}})
    }

    #[test]
    fn comparisons_and_their_combinations() {
        for (text, expected) in [
            ("architecture eq x86_64", true),
            ("architecture eq aarch64", false),
            ("architecture ne aarch64", true),
            ("not architecture eq x86_64", false),
            ("properties.os eq Debian and size eq 5", true),
            ("properties.os eq Alpine or public eq true", true),
            ("properties.os eq Alpine or public eq true and size eq 6", false),
            ("properties.a.b eq \"c d\"", true),
            ("nothing eq x", false),
            ("nothing ne x", true),
        ] {
            assert_eq!(parse(text).unwrap().matches(&image()), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        for text in
            ["", "a", "a eq", "a like b", "a eq b c", "a eq b and", "a eq \"b", &"a eq b and ".repeat(40)]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_an_error(text in "(a|eq|ne|and|or|not|\"| |\\.|x){0,30}") {
            if let Ok(filter) = parse(&text) {
                let _ = filter.matches(&image());
            }
        }
    }
}
