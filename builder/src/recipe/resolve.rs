//! Picks one image out of a recipe: overrides, defaults, filters, templates.

use millstream_image::{Architecture, Product};
use serde_json::Value;

use super::model::{Definition, Filter, Image};
use super::schema::{DEFINITION, Shape};
use super::{Recipe, template};
use crate::Result;

/// Kind of image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// System container.
    #[default]
    Container,
    /// Virtual machine.
    Vm,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }
}

/// What holds where neither the recipe nor an override says it.
#[derive(Clone, Copy, Debug)]
pub struct Fallback<'a> {
    /// The host's release; may be empty.
    pub release: &'a str,
    /// `YYYYMMDD_HHMM`.
    pub serial: &'a str,
}

/// A recipe bound to one image: nothing in it depends on filters or templates any more.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What is left of the definition.
    pub definition: Definition,
    /// The image's product.
    pub product: Product,
    /// Its architecture.
    pub architecture: Architecture,
    /// Releases the recipe itself mentions.
    pub releases: Vec<String>,
}

impl Recipe {
    /// Applies overrides (`key=value`), fills in defaults, drops what is for other images and
    /// renders templates.
    pub fn resolve(&self, overrides: &[String], kind: Kind, fallback: &Fallback<'_>) -> Result<Resolved> {
        let mut value = self.value.clone();
        let wrong: Vec<_> = overrides
            .iter()
            .filter_map(|text| set(&mut value, text).err().map(|message| (text.clone(), message)))
            .collect();
        if !wrong.is_empty() {
            return Err(self.problems(wrong));
        }
        let mut definition = self.definition(&value)?;
        let overridden = |key: &str| overrides.iter().any(|text| text.starts_with(&format!("{key}=")));
        let architecture = defaults(&mut definition.image, fallback).map_err(|(key, message)| {
            // What an override says stands on no line of the file.
            let path = if overridden(key) { String::from("-o") } else { key.to_owned() };
            self.problems(vec![(path, message)])
        })?;
        let image = &mut definition.image;
        let map = &definition.mappings;
        let mapped = map.architectures.get(architecture.debian()).map(String::as_str);
        mapped
            .or_else(|| known_name(&map.architecture_map, architecture))
            .unwrap_or(architecture.debian())
            .clone_into(&mut image.architecture_mapped);
        filter(&mut definition, kind);
        let wrong = render(&mut definition);
        if !wrong.is_empty() {
            return Err(self.problems(wrong));
        }
        let image = &definition.image;
        let product = Product::new(&image.distribution, &image.release, architecture, &image.variant)
            .map_err(|e| self.problem(e.to_string()))?;
        Ok(Resolved { definition, product, architecture, releases: self.releases() })
    }
}

fn set(value: &mut Value, text: &str) -> std::result::Result<(), String> {
    let (key, new) = text.split_once('=').ok_or_else(|| format!("-o {text}: expected KEY=VALUE"))?;
    let mut shape = &DEFINITION;
    let mut at = value;
    for part in key.split('.') {
        let Shape::Object(keys) = shape else { return Err(format!("-o {key}: {part} has no keys")) };
        let found = keys.iter().find(|(known, _)| *known == part);
        let Some((_, inner)) = found else {
            let known: Vec<_> = keys.iter().map(|(known, _)| *known).collect();
            return Err(format!("-o {key}: unknown key {part:?} (valid: {})", known.join(", ")));
        };
        shape = inner;
        if !at.is_object() {
            *at = Value::Object(serde_json::Map::new());
        }
        at = &mut at[part];
    }
    *at = match shape {
        Shape::Text => Value::from(new),
        Shape::Bool => {
            Value::from(new.parse::<bool>().map_err(|_| format!("-o {key}: expected true or false"))?)
        }
        Shape::Number => Value::from(new.parse::<i64>().map_err(|_| format!("-o {key}: expected a number"))?),
        Shape::Choice(choices) if choices.contains(&new) => Value::from(new),
        Shape::Choice(choices) => return Err(format!("-o {key}: valid are {}", choices.join(", "))),
        _ => return Err(format!("-o {key}: only single values can be overridden")),
    };
    Ok(())
}

fn defaults(
    image: &mut Image,
    fallback: &Fallback<'_>,
) -> std::result::Result<Architecture, (&'static str, String)> {
    let fill = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    fill(&mut image.release, fallback.release);
    fill(&mut image.serial, fallback.serial);
    fill(&mut image.architecture, Architecture::host().debian());
    fill(&mut image.variant, "default");
    fill(&mut image.expiry, "30d");
    fill(
        &mut image.name,
        "{{ image.distribution }}-{{ image.release }}-{{ image.architecture_mapped }}-{{ image.variant }}-{{ image.serial }}",
    );
    fill(
        &mut image.description,
        "{{ image.distribution|capfirst }} {{ image.release }} {{ image.architecture_mapped }} ({{ image.variant }})",
    );
    if image.release.is_empty() {
        let message = "the recipe names no release; give one with -o image.release=RELEASE";
        return Err(("image", message.into()));
    }
    let architecture: Architecture = image
        .architecture
        .parse()
        .map_err(|e: millstream_image::Error| ("image.architecture", format!("image.architecture: {e}")))?;
    architecture.kernel().clone_into(&mut image.architecture_kernel);
    let personality =
        if matches!(architecture.debian(), "i386" | "armhf" | "armel") { "linux32" } else { "linux64" };
    personality.clone_into(&mut image.architecture_personality);
    Ok(architecture)
}

/// What distributions call an architecture, where that is not Debian's name.
fn known_name(map: &str, architecture: Architecture) -> Option<&'static str> {
    Some(match (map, architecture.debian()) {
        ("alpinelinux", "i386") => "x86",
        ("alpinelinux", "armhf") => "armv7",
        ("debian" | "gentoo" | "funtoo" | "", _) | ("plamolinux", "i386") => return None,
        (_, "amd64") => "x86_64",
        (_, "arm64") => "aarch64",
        (_, "i386") => "i686",
        (_, "armhf") => "armv7l",
        (_, "ppc64el") => "ppc64le",
        _ => return None,
    })
}

fn filter(definition: &mut Definition, kind: Kind) {
    let image = definition.image.clone();
    let has = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
    let wanted = |filter: &Filter| {
        has(&filter.releases, &image.release)
            && has(&filter.architectures, &image.architecture_mapped)
            && has(&filter.variants, &image.variant)
            && has(&filter.types, kind.name())
    };
    definition.targets.lxc.config.retain(|entry| wanted(&entry.filter));
    definition.files.retain(|entry| wanted(&entry.filter));
    definition.packages.sets.retain(|entry| wanted(&entry.filter));
    definition.packages.repositories.retain(|entry| wanted(&entry.filter));
    definition.actions.retain(|entry| wanted(&entry.filter));
    definition.environment.variables.retain(|entry| wanted(&entry.filter));
    definition.simplestream.requirements.retain(|entry| wanted(&entry.filter));
}

/// Problems by the path of the value they are in.
type Wrong = Vec<(String, String)>;

/// What can be told wrong before an image is picked.
pub(super) fn check(definition: &Definition) -> Wrong {
    let mut trial = definition.clone();
    let mut wrong = Wrong::new();
    let fallback = Fallback { release: "release", serial: "20260101_0000" };
    if let Err((key, message)) = defaults(&mut trial.image, &fallback) {
        wrong.push((key.to_owned(), message));
    }
    wrong.extend(render(&mut trial));
    wrong
}

/// Renders every templated value; values refer to the definition as it was before.
fn render(definition: &mut Definition) -> Wrong {
    let mut wrong = Wrong::new();
    let mut image = definition.image.clone();
    for (key, field) in [("image.name", &mut image.name), ("image.description", &mut image.description)] {
        match template::render(field, definition) {
            Ok(text) => *field = text,
            Err(message) => wrong.push((key.to_owned(), message)),
        }
    }
    definition.image = image;
    let values = definition.clone();
    for (path, field) in templated(definition) {
        match template::render(field, &values) {
            Ok(text) => *field = text,
            Err(message) => wrong.push((path, message)),
        }
    }
    wrong
}

/// Every value that may hold a template, besides the image's own.
fn templated(definition: &mut Definition) -> Vec<(String, &mut String)> {
    let mut fields = vec![
        ("source.url".to_owned(), &mut definition.source.url),
        ("source.suite".to_owned(), &mut definition.source.suite),
        ("targets.lxc.create_message".to_owned(), &mut definition.targets.lxc.create_message),
    ];
    let configs = definition.targets.lxc.config.iter_mut().enumerate();
    fields.extend(configs.map(|(at, c)| (format!("targets.lxc.config.{at}.content"), &mut c.content)));
    let repositories = definition.packages.repositories.iter_mut().enumerate();
    fields.extend(repositories.map(|(at, r)| (format!("packages.repositories.{at}.url"), &mut r.url)));
    let actions = definition.actions.iter_mut().enumerate().filter(|(_, action)| action.pongo);
    fields.extend(actions.map(|(at, a)| (format!("actions.{at}.action"), &mut a.action)));
    for (at, file) in definition.files.iter_mut().enumerate() {
        fields.push((format!("files.{at}.path"), &mut file.path));
        fields.push((format!("files.{at}.source"), &mut file.source));
        if file.pongo {
            fields.push((format!("files.{at}.content"), &mut file.content));
        }
    }
    fields
}

/// Filters for architectures nobody knows: likely a slip of the pen, but distributions have names
/// of their own, so no error.
pub(super) fn unknown_architectures(definition: &Definition) -> Wrong {
    let mappings = &definition.mappings;
    let mut known: Vec<&str> = Architecture::all().map(|arch| arch.debian()).collect();
    known.extend(Architecture::all().map(|arch| arch.kernel()));
    known.extend(Architecture::all().filter_map(|arch| known_name(&mappings.architecture_map, arch)));
    known.extend(["armhfp", "armv7", "powerpc64", "x86", "x86-64"]);
    known.extend(mappings.architectures.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
    known.sort_unstable();
    known.dedup();
    let mut wrong = Wrong::new();
    let mut look = |section: String, filter: &Filter| {
        for (at, name) in filter.architectures.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let message = format!("unknown architecture {name:?} (valid: {})", known.join(", "));
                wrong.push((format!("{section}.architectures.{at}"), message));
            }
        }
    };
    for (at, entry) in definition.files.iter().enumerate() {
        look(format!("files.{at}"), &entry.filter);
    }
    for (at, entry) in definition.actions.iter().enumerate() {
        look(format!("actions.{at}"), &entry.filter);
    }
    for (at, entry) in definition.packages.sets.iter().enumerate() {
        look(format!("packages.sets.{at}"), &entry.filter);
    }
    for (at, entry) in definition.packages.repositories.iter().enumerate() {
        look(format!("packages.repositories.{at}"), &entry.filter);
    }
    for (at, entry) in definition.targets.lxc.config.iter().enumerate() {
        look(format!("targets.lxc.config.{at}"), &entry.filter);
    }
    wrong
}
