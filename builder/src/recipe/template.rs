//! `{{ image.release }}` in recipes: pongo2 as recipes use it, on tera.

use std::collections::HashMap;

use tera::{Context, Tera, Value};

use super::model::Definition;

/// Most bytes a template may grow to.
const MAX_OUTPUT: usize = 8 << 20;

/// Renders `text` with the definition's values.
pub(super) fn render(text: &str, definition: &Definition) -> Result<String, String> {
    if !text.contains("{{") && !text.contains("{%") {
        return Ok(text.to_owned());
    }
    if text.contains("{% include") || text.contains("{% import") || text.contains("{% extends") {
        return Err("templates may not include other files".into());
    }
    let mut tera = Tera::default();
    tera.register_filter("capfirst", capfirst);
    tera.autoescape_on(Vec::new());
    tera.add_raw_template("recipe", text).map_err(|e| explain(&e))?;
    let context = Context::from_serialize(definition).map_err(|e| explain(&e))?;
    let out = tera.render("recipe", &context).map_err(|e| explain(&e))?;
    if out.len() > MAX_OUTPUT {
        return Err(format!("the template grows to more than {MAX_OUTPUT} bytes"));
    }
    Ok(out)
}

#[allow(clippy::unnecessary_wraps)] // tera's signature
fn capfirst(value: &Value, _: &HashMap<String, Value>) -> tera::Result<Value> {
    let text = value.as_str().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    Ok(Value::String(first + chars.as_str()))
}

fn explain(error: &tera::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    // tera draws its parse errors over several lines.
    let text = cause.to_string();
    format!("template: {}", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recipes_use() {
        let mut definition = Definition::default();
        definition.image.distribution = "debian".into();
        definition.image.release = "bookworm".into();
        definition.image.variant = "cloud".into();
        definition.targets.incus.vm.filesystem = "ext4".into();
        let text = "{{ image.distribution|capfirst }} {{image.release}} {% if image.variant == \"cloud\" %}c{% elif image.variant == \"x\" %}x{% else %}d{% endif %}{{ image.release | upper | lower }}";
        assert_eq!(render(text, &definition).unwrap(), "Debian bookworm cbookworm");
        assert_eq!(render("{{ targets.incus.vm.filesystem }}", &definition).unwrap(), "ext4");
        assert!(render("{{ image.nonsense }}", &definition).is_err());
        assert!(render("{% include \"/etc/passwd\" %}", &definition).is_err());
        assert_eq!(render("a $HOME <b>", &definition).unwrap(), "a $HOME <b>");
    }
}
