//! Paragraphs of `Field: value` lines, as in Release and Packages files (deb822(5)).

/// The fields of one paragraph; continuation lines stay in the value with their newline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paragraph {
    pub(crate) fields: Vec<(String, String)>,
}

impl Paragraph {
    /// A field's value without space at its end; names are compared without regard to case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim_end())
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// All paragraphs of a text; lines that are neither field nor continuation are passed over, and
/// so are comments.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut paragraph = Paragraph::default();
        for line in lines.by_ref() {
            if line.starts_with('#') {
                continue;
            }
            if line.trim().is_empty() {
                if paragraph.is_empty() {
                    continue;
                }
                return Some(paragraph);
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = paragraph.fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                paragraph.fields.push((name.to_owned(), value.trim_start().to_owned()));
            }
        }
        (!paragraph.is_empty()).then_some(paragraph)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_any_text_is_survived(
            fields in proptest::collection::vec(("[A-Z][a-z]{0,5}", "[!-~]{1,8}(\n [!-~]{1,8}){0,2}"), 1..6),
            noise in "(?s).{0,200}",
        ) {
            let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let text = lines.concat();
            let read: Vec<_> = paragraphs(&text).collect();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(&read[0].fields, &fields);
            for paragraph in paragraphs(&noise) {
                prop_assert!(!paragraph.is_empty());
            }
        }
    }

    #[test]
    fn fields_continuations_and_comments() {
        let text = "\n\nPackage: a\n# note\nDescription: x\n more\n .\n\nPackage: b\n";
        let all: Vec<_> = paragraphs(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("description"), Some("x\n more\n ."));
        assert_eq!(all[1].get("Package"), Some("b"));
    }
}
