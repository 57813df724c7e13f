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

/// A recipe bound to one image: nothing in it depends on filters or templates any more.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What is left of the definition.
    pub definition: Definition,
    /// The image's product.
    pub product: Product,
    /// Its architecture.
    pub architecture: Architecture,
}

impl Recipe {
    /// Applies overrides (`key=value`), fills in defaults, drops what is for other images and
    /// renders templates. `release` is used when the recipe names none.
    pub fn resolve(&self, overrides: &[String], kind: Kind, release: &str) -> Result<Resolved> {
        let mut value = self.value.clone();
        for text in overrides {
            set(&mut value, text).map_err(|message| self.problem(message))?;
        }
        let mut definition = self.definition(&value)?;
        let architecture = defaults(&mut definition.image, release).map_err(|m| self.problem(m))?;
        let image = &mut definition.image;
        let map = &definition.mappings;
        let mapped = map.architectures.get(architecture.debian()).map(String::as_str);
        mapped
            .or_else(|| known_name(&map.architecture_map, architecture))
            .unwrap_or(architecture.debian())
            .clone_into(&mut image.architecture_mapped);
        filter(&mut definition, kind);
        render(&mut definition).map_err(|message| self.problem(message))?;
        let image = &definition.image;
        let product = Product::new(&image.distribution, &image.release, architecture, &image.variant)
            .map_err(|e| self.problem(e.to_string()))?;
        Ok(Resolved { definition, product, architecture })
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

fn defaults(image: &mut Image, release: &str) -> std::result::Result<Architecture, String> {
    let fill = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    fill(&mut image.release, release);
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
        return Err("the recipe names no release; give one with -o image.release=RELEASE".into());
    }
    let architecture: Architecture =
        image.architecture.parse().map_err(|e| format!("image.architecture: {e}"))?;
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
        ("debian", _) => return None,
        ("openwrt", "amd64") => "x86_64",
        ("gentoo" | "funtoo", _) | ("plamolinux", "i386") | ("", _) => return None,
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

fn render(definition: &mut Definition) -> std::result::Result<(), String> {
    let mut image = definition.image.clone();
    for field in [&mut image.name, &mut image.description] {
        *field = template::render(field, &definition.image)?;
    }
    definition.image = image;
    let image = &definition.image;
    let apply = |field: &mut String| -> std::result::Result<(), String> {
        *field = template::render(field, image)?;
        Ok(())
    };
    apply(&mut definition.source.url)?;
    apply(&mut definition.source.suite)?;
    apply(&mut definition.targets.lxc.create_message)?;
    for config in &mut definition.targets.lxc.config {
        apply(&mut config.content)?;
    }
    for repository in &mut definition.packages.repositories {
        apply(&mut repository.url)?;
    }
    for action in definition.actions.iter_mut().filter(|action| action.pongo) {
        apply(&mut action.action)?;
    }
    for file in &mut definition.files {
        apply(&mut file.path)?;
        apply(&mut file.source)?;
        if file.pongo {
            apply(&mut file.content)?;
        }
    }
    Ok(())
}
