//! pongo2's filters, as far as recipes have a use for them.

use std::collections::HashMap;

use tera::{Result, Tera, Value};

/// Most bytes a filter returns.
const MAX_TEXT: usize = 1 << 20;
/// Most parts text is split into.
const MAX_PARTS: usize = 4096;

type Filter = fn(&str, &str) -> std::result::Result<Value, String>;

/// Name, whether it takes a value, and what it does to text; `None` where tera's own is the
/// same or the filter asks for more than text.
pub(super) const FILTERS: &[(&str, bool, Option<Filter>)] = &[
    ("add", true, None),
    ("capfirst", false, Some(|text, _| Ok(Value::String(capfirst(text))))),
    ("cut", true, Some(|text, value| Ok(text.replace(value, "").into()))),
    ("default", true, None),
    ("first", false, None),
    ("float", false, Some(|text, _| Ok(float(text).into()))),
    ("integer", false, Some(|text, _| Ok(Value::from(float(text) as i64)))),
    ("join", true, None),
    ("last", false, None),
    ("length", false, None),
    ("lower", false, Some(|text, _| Ok(text.to_lowercase().into()))),
    ("safe", false, Some(|text, _| Ok(text.into()))),
    ("slice", true, Some(|text, value| slice(text, value).map(Value::from))),
    ("split", true, Some(split)),
    ("title", false, Some(|text, _| Ok(Value::String(title(text))))),
    ("truncatechars", true, Some(|text, value| truncate(text, value).map(Value::from))),
    ("upper", false, Some(|text, _| Ok(text.to_uppercase().into()))),
    ("wordcount", false, Some(|text, _| Ok(text.split_whitespace().count().into()))),
    ("yesno", true, Some(|text, value| Ok(yesno(text, value).into()))),
];

/// The filter that puts a value in the place of an empty one.
pub(super) const OR: &str = "__or";

pub(super) fn register(tera: &mut Tera) {
    for (name, _, filter) in FILTERS {
        let Some(filter) = *filter else { continue };
        tera.register_filter(name, move |value: &Value, arguments: &HashMap<String, Value>| {
            let argument = arguments.get("value").map(plain).unwrap_or_default();
            bounded(filter(&plain(value), &argument).map_err(|e| tera::Error::msg(format!("{name}: {e}")))?)
        });
    }
    tera.register_filter("add", add);
    tera.register_filter("join", join);
    tera.register_filter(OR, or);
}

/// A value as pongo2 prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn bounded(value: Value) -> Result<Value> {
    match value.as_str() {
        Some(text) if text.len() > MAX_TEXT => {
            Err(tera::Error::msg(format!("text grows to more than {MAX_TEXT} bytes")))
        }
        _ => Ok(value),
    }
}

#[allow(clippy::unnecessary_wraps)] // tera's signature
fn or(value: &Value, arguments: &HashMap<String, Value>) -> Result<Value> {
    let empty = match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    Ok(if empty { arguments.get("value").cloned().unwrap_or_default() } else { value.clone() })
}

fn join(value: &Value, arguments: &HashMap<String, Value>) -> Result<Value> {
    let between = arguments.get("value").map(plain).unwrap_or_default();
    let mut out = String::new();
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        if at > 0 {
            out.push_str(&between);
        }
        out.push_str(&plain(item));
        if out.len() > MAX_TEXT {
            break;
        }
    }
    bounded(Value::String(out))
}

fn split(text: &str, value: &str) -> std::result::Result<Value, String> {
    let parts: Vec<_> = text.split(value).take(MAX_PARTS + 1).collect();
    if parts.len() > MAX_PARTS { Err(format!("more than {MAX_PARTS} parts")) } else { Ok(parts.into()) }
}

fn float(text: &str) -> f64 {
    text.trim().parse().unwrap_or(0.0)
}

/// Numbers are added, everything else is put together.
fn add(value: &Value, arguments: &HashMap<String, Value>) -> Result<Value> {
    let other = arguments.get("value").cloned().unwrap_or_default();
    match (value.as_i64(), other.as_i64()) {
        (Some(a), Some(b)) => Ok(a.saturating_add(b).into()),
        _ => bounded(Value::String(plain(value) + &plain(&other))),
    }
}

fn capfirst(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + chars.as_str()
}

fn title(text: &str) -> String {
    let words = text.to_lowercase();
    words.split_inclusive(char::is_whitespace).map(capfirst).collect()
}

fn truncate(text: &str, value: &str) -> std::result::Result<String, String> {
    let most: usize = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    if text.chars().count() <= most {
        return Ok(text.to_owned());
    }
    let kept: String = text.chars().take(most.saturating_sub(3)).collect();
    Ok(kept + "...")
}

/// `1:3`, either end may be missing; characters.
fn slice(text: &str, value: &str) -> std::result::Result<String, String> {
    let bad = || format!("{value:?} is not of the form FROM:TO");
    let (from, to) = value.split_once(':').ok_or_else(bad)?;
    let count = text.chars().count();
    let number = |text: &str, missing: usize| match text.trim() {
        "" => Ok(missing),
        text => text.parse::<usize>().map_err(|_| bad()),
    };
    let (from, to) = (number(from, 0)?, number(to, count)?.min(count));
    Ok(text.chars().skip(from).take(to.saturating_sub(from)).collect())
}

fn yesno<'a>(text: &str, value: &'a str) -> &'a str {
    let truth = !matches!(text, "" | "false" | "0");
    let (yes, no) = value.split_once(',').unwrap_or((value, ""));
    if truth { yes } else { no.split(',').next().unwrap_or_default() }
}
