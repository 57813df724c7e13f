//! Picks one image out of a recipe: overrides, defaults, filters, templates.

use millstream_image::{Architecture, Product};

use super::model::{Definition, Filter};
use super::overrides::set;
use super::template::Renderer;
use super::{Recipe, architectures, rules};
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

/// The release of a distribution that has none.
const ROLLING: &str = "current";
/// Downloaders of such distributions: this host's release would mean nothing to them.
const ROLLING_SOURCES: [&str; 4] = ["archlinux-http", "funtoo-http", "gentoo-http", "voidlinux-http"];

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
        let architecture = defaults(&mut definition, fallback).map_err(|(key, message)| {
            // What an override says stands on no line of the file.
            let path = if overridden(key) { String::from("-o") } else { key.to_owned() };
            self.problems(vec![(path, message)])
        })?;
        let wrong = rules::check(&definition);
        if !wrong.is_empty() {
            return Err(self.problems(wrong));
        }
        kind.name().clone_into(&mut definition.targets.r#type);
        filter(&mut definition, kind, architecture);
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

/// Fills in what the recipe leaves out and computes the architecture's names.
fn defaults(
    definition: &mut Definition,
    fallback: &Fallback<'_>,
) -> std::result::Result<Architecture, (&'static str, String)> {
    let native = natively(&definition.source.downloader);
    let rolling = ROLLING_SOURCES.contains(&definition.source.downloader.as_str());
    let image = &mut definition.image;
    let fill = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    fill(&mut image.release, if rolling { ROLLING } else { fallback.release });
    fill(&mut image.serial, fallback.serial);
    let host = Architecture::host();
    fill(&mut image.architecture, if native { host.debian() } else { host.kernel() });
    fill(&mut image.variant, "default");
    fill(&mut image.expiry, "30d");
    fill(
        &mut image.name,
        "{{ image.distribution }}-{{ image.release }}-{{ image.architecture_mapped }}-{{ image.variant }}-{{ image.serial }}",
    );
    fill(
        &mut image.description,
        "{{ image.distribution|capfirst }} {{ image.release }} {{ image.architecture_mapped }}\
         {% if image.variant != \"default\" %} ({{ image.variant }}){% endif %} ({{ image.serial }})",
    );
    if image.release.is_empty() {
        let message = "the recipe names no release; give one with -o image.release=RELEASE";
        return Err(("image", message.into()));
    }
    let architecture: Architecture = image
        .architecture
        .parse()
        .map_err(|e: millstream_image::Error| ("image.architecture", format!("image.architecture: {e}")))?;
    image.architecture_mapped =
        architectures::mapped(&definition.mappings, architecture, &image.architecture);
    architecture.kernel().clone_into(&mut image.architecture_kernel);
    architectures::personality(architecture).clone_into(&mut image.architecture_personality);
    // Elsewhere there is no early stage, and early sets are sets like others.
    if !native {
        definition.packages.sets.iter_mut().for_each(|set| set.early = false);
    }
    Ok(architecture)
}

/// Whether the root file system is made of packages from the start, so that some can be early.
fn natively(downloader: &str) -> bool {
    matches!(downloader, "debootstrap" | "rpmbootstrap")
}

fn filter(definition: &mut Definition, kind: Kind, architecture: Architecture) {
    let image = definition.image.clone();
    let mapped =
        !definition.mappings.architecture_map.is_empty() || !definition.mappings.architectures.is_empty();
    let has = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
    // Without a map every name of the architecture is meant; with one the distribution's.
    let same = |list: &[String]| {
        !mapped
            && list.iter().any(|item| item.parse::<Architecture>().is_ok_and(|named| named == architecture))
    };
    let wanted = |filter: &Filter| {
        has(&filter.releases, &image.release)
            && (has(&filter.architectures, &image.architecture_mapped) || same(&filter.architectures))
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
    let mut wrong = rules::check(definition);
    let fallback = Fallback { release: "release", serial: "20260101_0000" };
    if let Err((key, message)) = defaults(&mut trial, &fallback) {
        wrong.push((key.to_owned(), message));
    }
    wrong.extend(render(&mut trial));
    wrong
}

/// Renders every templated value; values refer to the definition as it was before, but for the
/// image's name and description, which come first.
fn render(definition: &mut Definition) -> Wrong {
    let mut wrong = Wrong::new();
    let mut renderer = match Renderer::new(definition) {
        Ok(renderer) => renderer,
        Err(message) => return vec![("image".into(), message)],
    };
    let mut one = |renderer: &mut Renderer, path: String, field: &mut String| match renderer.render(field) {
        Ok(text) => *field = text,
        Err(message) => wrong.push((path, message)),
    };
    one(&mut renderer, "image.name".into(), &mut definition.image.name);
    one(&mut renderer, "image.description".into(), &mut definition.image.description);
    renderer.update(&definition.image);
    for (path, field) in templated(definition) {
        one(&mut renderer, path, field);
    }
    wrong
}

/// Every value that may hold a template, besides the image's own: what distrobuilder renders.
fn templated(definition: &mut Definition) -> Vec<(String, &mut String)> {
    let mut fields = vec![
        ("source.url".to_owned(), &mut definition.source.url),
        ("source.suite".to_owned(), &mut definition.source.suite),
        ("targets.lxc.create_message".to_owned(), &mut definition.targets.lxc.create_message),
    ];
    let keys = definition.source.keys.iter_mut().enumerate();
    fields.extend(keys.map(|(at, key)| (format!("source.keys.{at}"), key)));
    let configs = definition.targets.lxc.config.iter_mut().enumerate();
    fields.extend(configs.map(|(at, c)| (format!("targets.lxc.config.{at}.content"), &mut c.content)));
    for (at, repository) in definition.packages.repositories.iter_mut().enumerate() {
        fields.push((format!("packages.repositories.{at}.url"), &mut repository.url));
        fields.push((format!("packages.repositories.{at}.key"), &mut repository.key));
    }
    if definition.source.downloader == "rpmbootstrap" {
        let early = definition.packages.sets.iter_mut().enumerate().filter(|(_, set)| set.early);
        fields.extend(early.flat_map(|(at, set)| {
            let names = set.packages.iter_mut().enumerate();
            names.map(move |(name, package)| (format!("packages.sets.{at}.packages.{name}"), package))
        }));
    }
    let actions = definition.actions.iter_mut().enumerate().filter(|(_, action)| action.pongo);
    fields.extend(actions.map(|(at, a)| (format!("actions.{at}.action"), &mut a.action)));
    for (at, file) in definition.files.iter_mut().enumerate().filter(|(_, file)| file.pongo) {
        fields.push((format!("files.{at}.path"), &mut file.path));
        fields.push((format!("files.{at}.source"), &mut file.source));
        fields.push((format!("files.{at}.content"), &mut file.content));
    }
    fields
}

/// Filters for architectures nobody knows: likely a slip of the pen, but distributions have names
/// of their own, so no error.
pub(super) fn unknown_architectures(definition: &Definition) -> Wrong {
    let known = architectures::known(&definition.mappings);
    let mut wrong = Wrong::new();
    let mut look = |section: String, filter: &Filter| {
        for (at, name) in filter.architectures.iter().enumerate() {
            if !known.contains(name) {
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
