//! `{{ image.release }}` in recipes: pongo2 as recipes use it, on tera, within bounds.
//!
//! A recipe may come from a stranger. What all its templates may do together is bounded: their
//! tags, the iterations of their loops, the time they take and the bytes they make.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tera::{Context, Tera, Value};

use super::model::{Definition, Image};
use super::{filters, pongo};

/// Most bytes all templates of a recipe may make.
const MAX_OUTPUT: usize = 8 << 20;
/// Most tags in all templates of a recipe.
const MAX_TAGS: usize = 4096;
/// Most variables set in all templates of a recipe: each may hold a copy of a large value.
const MAX_SET: usize = 16;
/// Most iterations of all loops.
const MAX_ITERATIONS: usize = 100_000;
/// Longest time, all templates together. No recipe in use takes a thousandth of it.
const MAX_TIME: Duration = Duration::from_secs(5);
/// How often a result that is a template itself is rendered again, as distrobuilder does.
const MAX_ROUNDS: usize = 8;

/// Renders the templates of one recipe.
pub(super) struct Renderer {
    context: Context,
    iterations: Arc<AtomicUsize>,
    deadline: Instant,
    tags: usize,
    set: usize,
    output: usize,
}

impl Renderer {
    /// Templates see the whole definition, as it is now.
    pub(super) fn new(definition: &Definition) -> Result<Self, String> {
        let mut context = Context::from_serialize(definition).map_err(|e| explain(&e))?;
        // Templates of the generator `template` see their target by its own name as well.
        context.insert("incus", &definition.targets.incus);
        context.insert("lxd", &definition.targets.lxd);
        Ok(Self {
            context,
            iterations: Arc::default(),
            deadline: Instant::now() + MAX_TIME,
            tags: 0,
            set: 0,
            output: 0,
        })
    }

    /// From now on templates see this image.
    pub(super) fn update(&mut self, image: &Image) {
        self.context.insert("image", image);
    }

    /// Renders `text`, again while the result is a template.
    pub(super) fn render(&mut self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for _ in 0..MAX_ROUNDS {
            if !text.contains("{{") && !text.contains("{%") {
                return Ok(text);
            }
            text = self.once(&text).map_err(|message| format!("template: {message}"))?;
        }
        Err(format!("template: still a template after {MAX_ROUNDS} rounds; does a value name itself?"))
    }

    fn once(&mut self, text: &str) -> Result<String, String> {
        let translated = pongo::translate(text)?;
        self.tags += translated.tags;
        self.set += translated.text.matches("{% set ").count() + translated.text.matches("{%- set ").count();
        if self.tags > MAX_TAGS {
            return Err(format!("more than {MAX_TAGS} tags in one recipe"));
        }
        if self.set > MAX_SET {
            return Err(format!("more than {MAX_SET} variables set in one recipe"));
        }
        let mut tera = Tera::default();
        tera.autoescape_on(Vec::new());
        filters::register(&mut tera);
        tera.register_function(pongo::TICK, self.tick());
        tera.add_raw_template("recipe", &translated.text).map_err(|e| explain(&e))?;
        let mut out = Bounded { data: Vec::new(), left: MAX_OUTPUT - self.output };
        tera.render_to("recipe", &self.context, &mut out).map_err(|e| explain(&e))?;
        if Instant::now() > self.deadline {
            return Err(too_long());
        }
        self.output += out.data.len();
        String::from_utf8(out.data).map_err(|e| e.to_string())
    }

    /// Called once in every iteration.
    fn tick(&self) -> impl tera::Function + use<> {
        let (iterations, deadline) = (Arc::clone(&self.iterations), self.deadline);
        move |_: &std::collections::HashMap<String, Value>| {
            if iterations.fetch_add(1, Ordering::Relaxed) >= MAX_ITERATIONS {
                return Err(tera::Error::msg(format!("loops run more than {MAX_ITERATIONS} times")));
            }
            if Instant::now() > deadline { Err(tera::Error::msg(too_long())) } else { Ok(Value::from("")) }
        }
    }
}

fn too_long() -> String {
    format!("templates take more than {} seconds", MAX_TIME.as_secs())
}

/// Takes so many bytes and no more.
struct Bounded {
    data: Vec<u8>,
    left: usize,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(data.len());
        self.left = left.ok_or_else(|| io::Error::other(format!("grows to more than {MAX_OUTPUT} bytes")))?;
        self.data.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain(error: &tera::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    // tera draws its parse errors over several lines.
    cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        let mut definition = Definition::default();
        definition.image.distribution = "debian".into();
        definition.image.release = "3.17".into();
        definition.image.variant = "cloud".into();
        definition.image.description = "about {{ image.release }}".into();
        definition.source.components = vec!["main".into(), "contrib".into()];
        definition.targets.incus.vm.filesystem = "ext4".into();
        definition.mappings.architectures = [("a".to_owned(), "b".to_owned())].into();
        definition
    }

    fn render(text: &str) -> Result<String, String> {
        Renderer::new(&definition()).unwrap().render(text)
    }

    #[test]
    fn pongo2_as_recipes_use_it() {
        for (text, expected) in [
            ("{{ image.distribution|capfirst }} {{image.release}}", "Debian 3.17"),
            ("{{ image.release | upper | lower }}", "3.17"),
            (
                "{% if image.variant == \"cloud\" %}c{% elif image.variant == \"x\" %}x{% else %}d{% endif %}",
                "c",
            ),
            ("{% if image.variant == 'x' || image.variant == \"cloud\" %}y{% endif %}", "y"),
            ("{% if image.variant != \"x\" && !image.serial %}y{% endif %}", "y"),
            ("{% if !(image.variant == \"x\") and not image.serial %}y{% endif %}", "y"),
            ("{% if not (image.variant == \"x\" or image.release >= 4) %}y{% endif %}", "y"),
            // In pongo2 this is `false and (false or true)`.
            ("{% if image.serial && image.serial || image.variant %}y{% else %}n{% endif %}", "n"),
            ("{% if image.variant <> \"x\" %}y{% endif %}", "y"),
            ("{% if \"main\" in source.components %}y{% endif %}", "y"),
            ("{% if not \"x\" in source.components %}y{% endif %}", "y"),
            ("{% if image.release < 3.9 %}y{% else %}n{% endif %}", "y"),
            ("{% if image.release >= \"4\" %}y{% else %}n{% endif %}", "n"),
            ("{% if image.release|float > 3.1 and image.variant %}y{% endif %}", "y"),
            ("{% if source.components|length > 1 %}y{% endif %}", "y"),
            ("{{ image.serial|default:\"none\" }} {{ image.nothing|default:\"no\" }}", "none no"),
            ("{{ source.components|join:\", \" }} {{ source.components|first }}", "main, contrib main"),
            ("{{ source.components.1 }}", "contrib"),
            (
                "{% for c in source.components %}{{ forloop.Counter }}{{ c }}{% if !forloop.Last %},{% endif %}{% endfor %}",
                "1main,2contrib",
            ),
            ("{% for k, v in mappings.architectures %}{{ k }}={{ v }}{% endfor %}", "a=b"),
            ("{% for x in packages.sets %}x{% empty %}none{% endfor %}", "none"),
            ("a  {%- if true -%}  b  {%- endif -%}  c", "abc"),
            ("a {% if true %} b {% endif %} c", "a  b  c"),
            ("{% for c in source.components -%}\n {{ c }}\n{%- endfor %}", "maincontrib"),
            ("{% set x = \"it's \\\"so\\\"\" %}{{ x|upper }}", "IT'S \"SO\""),
            ("{% with a=image.release b=\"2\" %}{{ a }}{{ b }}{% endwith %}", "3.172"),
            ("{# a #}{% comment %}{{ b }}{% endcomment %}c", "c"),
            ("{% ifequal image.variant \"cloud\" %}y{% endifequal %}", "y"),
            ("{% autoescape off %}<{{ image.release }}>{% endautoescape %}", "<3.17>"),
            ("{{ image.distribution|title|slice:\":3\" }} {{ \"a-b\"|cut:\"-\" }} {{ 2|add:3 }}", "Deb ab 5"),
            ("{{ image.distribution|truncatechars:5 }} {{ image.serial|yesno:\"y,n\" }}", "de... n"),
            ("{{ \"%}\" }}{{ '}}'|lower }}", "%}}}"),
            ("{{ targets.incus.vm.filesystem }} {{ incus.vm.filesystem }}", "ext4 ext4"),
            ("{{ image.description }}", "about 3.17"),
            ("a $HOME <b> ${X#{} { } {", "a $HOME <b> ${X#{} { } {"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("{{ image.nonsense }}", "image.nonsense"),
            ("{% include \"/etc/passwd\" %}", "unexpected tag {% include %}"),
            ("{% macro a() %}{% endmacro %}", "unexpected tag {% macro %}"),
            ("{{ range(end=9) }}", "no functions"),
            ("{{ __tick() }}", "no functions"),
            ("{{ get_env(name=\"HOME\") }}", "no functions"),
            ("{{ image.release|replace:\"x\" }}", "unknown filter \"replace\""),
            ("{{ image.release|default }}", "takes a value"),
            ("{{ image.release", "never closed"),
            ("{{ \"a }}", "never closed"),
            ("{% if image.release %}", "{% if %} is never closed"),
            ("{% endif %}", "unexpected tag {% endif %}"),
            ("{% for x in source.components %}{% endif %}", "unexpected tag {% endif %}"),
            ("{{ image.release ~ image.release }}", "unexpected '~'"),
            ("{{ }}", "without a value"),
            ("{{ (image.release }}", "( without its )"),
        ] {
            let message = render(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
