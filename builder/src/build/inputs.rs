//! What an image is made from, to tell whether building again would make the same.
//!
//! An image is unchanged when recipe, settings and copied files are, and either the signed Release
//! documents of its sources are the very ones, or what they offer now for the recipe is what they
//! offered then: a mirror signs its documents anew every few hours without a new package in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use millstream_image::manifest::{self, Inputs, Manifest};
use millstream_image::{Product, Serial, Sha256Digest};

use crate::apt::bootstrap::Plan;
use crate::recipe::{Definition, Resolved};
use crate::{Error, Result, output};

/// Version of the rules by which recipes become images. Raise it when the same inputs give other
/// bytes than before.
const RULES: &str = "3";

/// Stands for the serial in a recipe's text, which is not what makes an image another one.
const SERIAL: &str = "SERIAL";

/// The inputs of a build that is about to be made.
pub(crate) struct Current {
    product: Product,
    recipe: String,
    /// Set when no other serial will do.
    serial: Option<Serial>,
    pub(crate) inputs: Inputs,
    /// The signed documents of the sources.
    pub(crate) sources: Vec<manifest::Source>,
}

impl Current {
    /// Looks at everything but the sources.
    pub(crate) fn read(
        resolved: &Resolved,
        base: &Path,
        settings: BTreeMap<String, String>,
        serial: Serial,
        given: bool,
    ) -> Result<Self> {
        let definition = &resolved.definition;
        let mut inputs = Inputs { settings, ..Inputs::default() };
        let version = format!("{RULES} of {}", env!("CARGO_PKG_VERSION"));
        inputs.settings.insert("builder".into(), version);
        for file in definition.files.iter().filter(|file| file.generator == "copy") {
            match copied(&base.join(&file.source)) {
                Ok(digest) => drop(inputs.files.insert(file.source.clone(), digest)),
                Err(error) => inputs.unknown.push(error.to_string()),
            }
        }
        inputs.unknown.extend(unknown(definition));
        Ok(Self {
            product: resolved.product.clone(),
            recipe: output::recipe_text(definition)?.replace(&serial.to_string(), SERIAL),
            serial: given.then_some(serial),
            inputs,
            sources: Vec::new(),
        })
    }

    /// Short name of what is the same from day to day: product, recipe and settings.
    pub(crate) fn name(&self) -> String {
        let text = format!("{}\n{}\n{:?}", self.product, self.recipe, self.inputs.settings);
        let digest = Sha256Digest::of(text.as_bytes()).to_string();
        format!("{}-{}", self.product.to_string().replace(':', "-"), &digest[..12])
    }

    pub(crate) fn product(&self) -> &Product {
        &self.product
    }

    /// Notes what the sources offer for the recipe.
    pub(crate) fn offer(&mut self, offered: &[manifest::Package]) {
        self.inputs.offered = Some(digest(offered));
    }

    /// What differs from an image's inputs, its packages left out. None: it need only be looked at
    /// whether its sources still say the same.
    pub(crate) fn differences(&self, image: &Manifest) -> Vec<String> {
        let mut found = self.inputs.unknown.clone();
        let Some(then) = &image.inputs else {
            found.push("its manifest does not say what it was made from".into());
            return found;
        };
        if let Some(serial) = self.serial.filter(|serial| *serial != image.serial) {
            found.push(format!("serial {} is asked for, it has {}", serial, image.serial));
        }
        let recipe = image.recipe.replace(&image.serial.to_string(), SERIAL);
        if recipe != self.recipe {
            found.push(format!("the recipe changed: {}", changed_line(&recipe, &self.recipe)));
        }
        maps(&then.settings, &self.inputs.settings, "setting", &mut found);
        let text = |map: &BTreeMap<String, Sha256Digest>| -> BTreeMap<String, String> {
            map.iter().map(|(key, digest)| (key.clone(), short(*digest))).collect()
        };
        maps(&text(&then.files), &text(&self.inputs.files), "copied file", &mut found);
        maps(&text(&then.repositories), &text(&self.inputs.repositories), "repository", &mut found);
        found
    }

    /// Whether the sources' signed documents are the very ones the image was made from.
    pub(crate) fn same_documents(&self, image: &Manifest) -> bool {
        self.sources == image.sources
    }

    /// What differs in packages from the image: those it has and the sources have in another version
    /// now. [`offer`](Self::offer) must have been told.
    pub(crate) fn package_differences(&self, image: &Manifest, plan: &Plan) -> Vec<String> {
        let names = |sources: &[manifest::Source]| -> Vec<(String, String)> {
            sources.iter().map(|source| (source.url.clone(), source.name.clone())).collect()
        };
        let mut found = Vec::new();
        if names(&self.sources) != names(&image.sources) {
            found.push("its packages come from other sources".into());
        }
        for package in &image.packages {
            match plan.version(&package.name) {
                Some(version) if version != package.version => {
                    found.push(format!("package {} {} → {version}", package.name, package.version));
                }
                _ => {}
            }
        }
        let offered = image.inputs.as_ref().and_then(|inputs| inputs.offered);
        if found.is_empty() && offered != self.inputs.offered {
            found.push("other packages are needed now".into());
        }
        found
    }
}

/// A digest as people compare it.
pub(crate) fn short(digest: Sha256Digest) -> String {
    digest.to_string()[..12].to_owned()
}

/// A digest of packages in the order of their names.
pub(crate) fn digest(packages: &[manifest::Package]) -> Sha256Digest {
    let mut lines: Vec<_> = packages
        .iter()
        .map(|package| {
            let sha256 = package.sha256.map(|digest| digest.to_string()).unwrap_or_default();
            format!("{} {} {sha256}\n", package.name, package.version)
        })
        .collect();
    lines.sort();
    Sha256Digest::of(lines.concat().as_bytes())
}

/// Inputs nobody can ask about, so that an image with them is never taken for unchanged.
fn unknown(definition: &Definition) -> Vec<String> {
    let packages = &definition.packages;
    let mut found = Vec::new();
    if packages.custom_manager.is_some() || !matches!(packages.manager.as_str(), "apt" | "") {
        found.push("what the recipe's package manager would install cannot be told beforehand".into());
    }
    found
}

/// A digest of a file or directory, with names, modes and contents, as `copy` takes it.
fn copied(path: &Path) -> Result<Sha256Digest> {
    let mut text = String::new();
    collect(path, "", &mut text)?;
    Ok(Sha256Digest::of(text.as_bytes()))
}

fn collect(path: &Path, name: &str, text: &mut String) -> Result<()> {
    use std::fmt::Write as _;
    let meta = fs::metadata(path).map_err(Error::io(path))?;
    if meta.is_dir() {
        let _ = writeln!(text, "{name}/");
        let mut items: Vec<_> = fs::read_dir(path)
            .map_err(Error::io(path))?
            .map(|item| item.map(|item| item.file_name()))
            .collect::<std::io::Result<_>>()
            .map_err(Error::io(path))?;
        items.sort();
        return items
            .iter()
            .try_for_each(|item| collect(&path.join(item), &format!("{name}/{}", item.display()), text));
    }
    let file = fs::File::open(path).map_err(Error::io(path))?;
    let (digest, _) = Sha256Digest::of_reader(file).map_err(Error::io(path))?;
    let _ = writeln!(text, "{name} {:o} {digest}", meta.permissions().mode());
    Ok(())
}

/// The first line two texts differ in.
fn changed_line(then: &str, now: &str) -> String {
    let mut lines = then.lines().zip(now.lines());
    match lines.find(|(then, now)| then != now) {
        Some((then, now)) => format!("{:?} → {:?}", then.trim(), now.trim()),
        None => "it is longer or shorter".into(),
    }
}

fn maps(
    then: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    what: &str,
    found: &mut Vec<String>,
) {
    let keys: std::collections::BTreeSet<_> = then.keys().chain(now.keys()).collect();
    for key in keys {
        let value = |map: &BTreeMap<String, String>| map.get(key).map_or("none", String::as_str).to_owned();
        if then.get(key) != now.get(key) {
            found.push(format!("{what} {key}: {} → {}", value(then), value(now)));
        }
    }
}
