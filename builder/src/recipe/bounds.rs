//! Refuses YAML that would grow when read: aliases of aliases, depth without end.

use saphyr_parser::{Event, Parser};

use super::Problem;

/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 32;
/// Most values, after every alias has been replaced by what it stands for.
const MAX_VALUES: usize = 50_000;
/// Most bytes of text, counted the same way.
const MAX_TEXT: usize = 4 << 20;

/// What a part of the document amounts to with its aliases replaced.
#[derive(Clone, Copy, Default)]
struct Size {
    values: usize,
    text: usize,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.values = self.values.saturating_add(other.values);
        self.text = self.text.saturating_add(other.text);
    }
}

/// Reads the document once without keeping it.
pub(super) fn check(text: &str) -> Result<(), Problem> {
    // One entry for the document and for each open list or mapping, with the anchor it has.
    let mut open = vec![(0, Size::default())];
    let mut anchors = std::collections::HashMap::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            Problem { line: marker.line(), column: marker.col() + 1, message: error.info().to_owned() }
        })?;
        let problem = |message: String| {
            let (line, column) = (span.start.line(), span.start.col() + 1);
            Err(Problem { line, column, message })
        };
        let (anchor, size) = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, Size { values: 1, text: 0 }));
                if open.len() > MAX_DEPTH {
                    return problem(format!("nested more than {MAX_DEPTH} levels deep"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().unwrap_or_default(),
            Event::Scalar(value, _, anchor, _) => (anchor, Size { values: 1, text: value.len() }),
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(size) => (0, *size),
                None => return problem("this alias stands for a value that holds it".into()),
            },
            _ => continue,
        };
        if anchor != 0 {
            anchors.insert(anchor, size);
        }
        if let Some((_, outer)) = open.last_mut() {
            outer.add(size);
            if outer.values > MAX_VALUES || outer.text > MAX_TEXT {
                return problem(format!(
                    "with its aliases replaced, the recipe has more than {MAX_VALUES} values or {MAX_TEXT} bytes"
                ));
            }
        }
    }
    Ok(())
}
