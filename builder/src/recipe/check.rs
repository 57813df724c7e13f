//! Holds a recipe's YAML against the schema and collects every problem.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Value};

use super::schema::{DEFINITION, REQUIRED, Shape};
use super::{Problem, size};

/// Mappings that merge mappings that merge mappings: how far that goes.
const MAX_MERGES: usize = 8;

/// Line and column of every value, by its path: `image.release`, `files.3.path`.
pub(super) type Positions = BTreeMap<String, (usize, usize)>;

/// The recipe as plain values, text where text is expected, or all problems.
pub(super) fn check(text: &str) -> Result<(Value, Positions), Vec<Problem>> {
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        let marker = error.marker();
        vec![Problem { line: marker.line(), column: marker.col() + 1, message: error.info().to_owned() }]
    })?;
    let [document] = documents.as_slice() else {
        let message = format!("expected one YAML document, found {}", documents.len());
        return Err(vec![Problem { line: 1, column: 1, message }]);
    };
    let text = text.chars().collect();
    let mut checker = Checker { text, problems: Vec::new(), positions: Positions::new() };
    let value = checker.value(document, &DEFINITION, "the recipe", "");
    for (section, key) in REQUIRED {
        if value.get(section).and_then(|s| s.get(key)).is_none() {
            checker.problem(document, format!("{section}.{key} is missing"));
        }
    }
    if checker.problems.is_empty() { Ok((value, checker.positions)) } else { Err(checker.problems) }
}

struct Checker {
    text: Vec<char>,
    problems: Vec<Problem>,
    positions: Positions,
}

/// The path of what `key` names in `path`.
fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Checker {
    fn problem(&mut self, node: &MarkedYaml<'_>, message: String) {
        let start = node.span.start;
        self.problems.push(Problem { line: start.line(), column: start.col() + 1, message });
    }

    /// A scalar as text. What YAML takes for a number stands as written: release 3.20 is not 3.2.
    fn scalar(&self, node: &MarkedYaml<'_>) -> Option<String> {
        match &node.data {
            YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
            YamlData::Value(Scalar::Null) | YamlData::Mapping(_) | YamlData::Sequence(_) => None,
            YamlData::Value(_) => {
                let written = self.text.get(node.span.start.index()..node.span.end.index())?;
                Some(written.iter().collect::<String>().trim().to_owned())
            }
            _ => None,
        }
    }

    /// The keys of a mapping with what `<<` adds to them.
    fn entries<'n>(
        &mut self,
        node: &'n MarkedYaml<'n>,
        depth: usize,
    ) -> Vec<(&'n MarkedYaml<'n>, &'n MarkedYaml<'n>)> {
        let YamlData::Mapping(mapping) = &node.data else {
            self.problem(node, "only a mapping, or a list of them, can be merged with <<".into());
            return Vec::new();
        };
        let is_merge =
            |key: &MarkedYaml<'_>| matches!(&key.data, YamlData::Value(Scalar::String(k)) if k == "<<");
        let (merges, mut entries): (Vec<_>, Vec<_>) = mapping.iter().partition(|(key, _)| is_merge(key));
        for (_, merged) in merges {
            let sources = match &merged.data {
                YamlData::Sequence(items) => items.iter().collect(),
                _ => vec![merged],
            };
            for source in sources.into_iter().filter(|_| depth < MAX_MERGES) {
                let more = self.entries(source, depth + 1);
                let new = |key: &MarkedYaml<'_>, entries: &[(&MarkedYaml<'_>, _)]| {
                    entries.iter().all(|(known, _)| known.data != key.data)
                };
                for (key, value) in more {
                    if new(key, &entries) {
                        entries.push((key, value));
                    }
                }
            }
        }
        entries
    }

    fn value(&mut self, node: &MarkedYaml<'_>, shape: &Shape, name: &str, path: &str) -> Value {
        let start = node.span.start;
        self.positions.insert(path.to_owned(), (start.line(), start.col() + 1));
        if matches!(node.data, YamlData::Value(Scalar::Null)) {
            return Value::Null; // An empty section is an absent one.
        }
        match (shape, &node.data) {
            (Shape::Object(keys), YamlData::Mapping(_)) => {
                let mut object = Map::new();
                for (key, value) in self.entries(node, 0) {
                    let Some(key_text) = self.scalar(key) else {
                        self.problem(key, format!("a key of {name} must be text"));
                        continue;
                    };
                    let Some((known, shape)) = keys.iter().find(|(known, _)| *known == key_text) else {
                        let known: Vec<_> = keys.iter().map(|(known, _)| *known).collect();
                        self.problem(key, unknown(&key_text, &format!("key in {name}"), &known));
                        continue;
                    };
                    let value = self.value(value, shape, known, &below(path, known));
                    if !value.is_null() {
                        object.insert(key_text, value);
                    }
                }
                Value::Object(object)
            }
            (Shape::Map(shape), YamlData::Mapping(_)) => {
                let mut object = Map::new();
                for (key, value) in self.entries(node, 0) {
                    let Some(key_text) = self.scalar(key) else {
                        self.problem(key, format!("a key of {name} must be text"));
                        continue;
                    };
                    let value = self.value(value, shape, name, &below(path, &key_text));
                    if !value.is_null() {
                        object.insert(key_text, value);
                    }
                }
                Value::Object(object)
            }
            (Shape::List(shape), YamlData::Sequence(items)) => {
                let mut list = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    let value = self.value(item, shape, name, &below(path, &at.to_string()));
                    if value.is_null() && matches!(item.data, YamlData::Value(Scalar::Null)) {
                        self.problem(item, format!("entry {} of {name} is empty", at + 1));
                    }
                    list.push(value);
                }
                Value::Array(list)
            }
            (Shape::Text, YamlData::Value(_)) => self.scalar(node).map_or(Value::Null, Value::String),
            (Shape::Bool, YamlData::Value(Scalar::Boolean(value))) => Value::Bool(*value),
            // What YAML 1.1, and so distrobuilder, takes for a truth value.
            (Shape::Bool, YamlData::Value(Scalar::String(text))) if truth(text).is_some() => {
                truth(text).map_or(Value::Null, Value::Bool)
            }
            (Shape::Number, YamlData::Value(Scalar::Integer(value))) if u32::try_from(*value).is_ok() => {
                Value::from(*value)
            }
            (Shape::Size, YamlData::Value(_)) => {
                let text = self.scalar(node).unwrap_or_default();
                let bytes = size::parse(&text);
                if bytes.is_none() {
                    self.problem(node, format!("{name}: {}, found {text:?}", size::EXPECTED));
                }
                bytes.map_or(Value::Null, Value::from)
            }
            (Shape::Choice(choices), YamlData::Value(_)) => {
                let text = self.scalar(node).unwrap_or_default();
                if !choices.contains(&text.as_str()) {
                    self.problem(node, unknown(&text, name, choices));
                }
                Value::String(text)
            }
            _ => {
                let found = describe(&node.data);
                self.problem(node, format!("{name} must be {}, not {found}", expected(shape)));
                Value::Null
            }
        }
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "TRUE" | "True" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::Bool => "true or false".into(),
        Shape::Number => "a whole number, not negative".into(),
        Shape::Size => "a size".into(),
        Shape::Choice(choices) => format!("one of {}", choices.join(", ")),
        Shape::List(_) => "a list".into(),
        Shape::Map(_) | Shape::Object(_) => "a mapping".into(),
    }
}

fn describe<'a>(data: &YamlData<'a, MarkedYaml<'a>>) -> &'static str {
    match data {
        YamlData::Mapping(_) => "a mapping",
        YamlData::Sequence(_) => "a list",
        YamlData::Value(Scalar::Boolean(_)) => "true or false",
        YamlData::Value(Scalar::Integer(_) | Scalar::FloatingPoint(_)) => "a number",
        _ => "text",
    }
}

/// `unknown X "..."`, with the nearest valid word when one is near, and all of them.
fn unknown(found: &str, what: &str, choices: &[&str]) -> String {
    let near = choices
        .iter()
        .map(|choice| (distance(found, choice), choice))
        .min()
        .filter(|(distance, _)| *distance <= 2 && *distance < found.len());
    let hint = near.map(|(_, choice)| format!("; did you mean {choice}?")).unwrap_or_default();
    format!("unknown {what}: {found:?}{hint} (valid: {})", choices.join(", "))
}

/// Edits that turn one word into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
