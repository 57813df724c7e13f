//! `-o key=value`: single values of a recipe, checked like the recipe itself.

use serde_json::Value;

use super::schema::{DEFINITION, Shape};
use super::size;

/// Sets one value: `image.release=trixie`, `files.0.content=x`, `source.components.1=contrib`.
pub(super) fn set(value: &mut Value, text: &str) -> Result<(), String> {
    let (key, new) = text.split_once('=').ok_or_else(|| format!("-o {text}: expected KEY=VALUE"))?;
    let mut shape = &DEFINITION;
    let mut at = value;
    for part in key.split('.') {
        (shape, at) = step(shape, at, part).map_err(|message| format!("-o {key}: {message}"))?;
    }
    *at = single(shape, new).map_err(|message| format!("-o {key}: {message}"))?;
    Ok(())
}

/// Goes to what `part` names, making sections that are not there.
fn step<'v>(
    shape: &'static Shape,
    at: &'v mut Value,
    part: &str,
) -> Result<(&'static Shape, &'v mut Value), String> {
    let inner = match shape {
        Shape::Object(keys) => {
            let known = keys.iter().find(|(known, _)| *known == part);
            let Some((_, inner)) = known else {
                let known: Vec<_> = keys.iter().map(|(known, _)| *known).collect();
                return Err(format!("unknown key {part:?} (valid: {})", known.join(", ")));
            };
            inner
        }
        Shape::Map(inner) => inner,
        Shape::List(inner) => {
            let items = at.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
            let count = items.len();
            let index = part.parse::<usize>().ok().filter(|index| *index < count);
            let item = index.and_then(|index| items.get_mut(index));
            let range = match count {
                0 => "the recipe's list is empty".to_owned(),
                _ => format!("the recipe's list has the entries 0 to {}", count - 1),
            };
            return item
                .map(|item| (*inner, item))
                .ok_or_else(|| format!("there is no entry {part}; {range}"));
        }
        _ => return Err(format!("{part:?} leads nowhere, as what stands before it is a single value")),
    };
    if !at.is_object() {
        *at = Value::Object(serde_json::Map::new());
    }
    Ok((inner, &mut at[part]))
}

fn single(shape: &Shape, new: &str) -> Result<Value, String> {
    Ok(match shape {
        Shape::Text => Value::from(new),
        Shape::Bool => match new {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Value::from(true),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Value::from(false),
            _ => return Err("expected true or false".into()),
        },
        Shape::Number => {
            Value::from(new.parse::<u32>().map_err(|_| "expected a whole number, not negative")?)
        }
        Shape::Size => Value::from(size::parse(new).ok_or(size::EXPECTED)?),
        Shape::Choice(choices) if choices.contains(&new) => Value::from(new),
        Shape::Choice(choices) => return Err(format!("valid are {}", choices.join(", "))),
        Shape::List(_) => {
            return Err("a list; name one entry by its number, as in source.components.0".into());
        }
        Shape::Map(_) | Shape::Object(_) => return Err("only single values can be overridden".into()),
    })
}
