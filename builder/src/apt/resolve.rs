//! Which packages a set needs: dependencies, alternatives, virtual packages.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::index::{Package, Packages};
use super::version;
use crate::{Error, Result};

/// One alternative of a dependency: `libc6 (>= 2.34)`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Atom<'a> {
    name: &'a str,
    relation: Option<(&'a str, &'a str)>,
}

/// The packages named by `wanted` and everything they need, by name.
///
/// With `recommends`, what they recommend comes along where a source has it. Where a dependency
/// leaves a choice, nothing of `avoid` is taken.
pub(super) fn closure<'a>(
    packages: &'a Packages,
    wanted: impl IntoIterator<Item = &'a str>,
    recommends: bool,
    avoid: &[&str],
) -> Result<BTreeMap<String, Arc<Package>>> {
    let providers = providers(packages);
    let mut chosen: BTreeMap<String, Arc<Package>> = BTreeMap::new();
    let mut queue: VecDeque<Arc<Package>> = VecDeque::new();
    for name in wanted {
        let package = packages.get(name).ok_or_else(|| {
            Error::Refused(format!(
                "package {name} is in none of the sources; check its name and the release"
            ))
        })?;
        if chosen.insert(name.to_owned(), Arc::clone(package)).is_none() {
            queue.push_back(Arc::clone(package));
        }
    }
    while let Some(package) = queue.pop_front() {
        let optional = recommends.then_some("Recommends");
        for field in ["Pre-Depends", "Depends"].into_iter().chain(optional) {
            for dependency in package.field(field).split(',').filter(|d| !d.trim().is_empty()) {
                let atoms: Vec<_> = dependency.split('|').filter_map(parse).collect();
                if atoms.iter().any(|atom| is_chosen(atom, &chosen, &providers)) {
                    continue;
                }
                let mut choices = atoms.iter().filter_map(|atom| pick(atom, packages, &providers));
                let first = choices.next();
                let liked = |package: &Arc<Package>| !avoid.contains(&package.name.as_str());
                let other = first.as_ref().filter(|first| !liked(first)).and_then(|_| choices.find(liked));
                let Some(needed) = other.or(first) else {
                    if field == "Recommends" {
                        continue;
                    }
                    let need = dependency.trim();
                    let reason = format!("package {} needs {need}, which no source has", package.name);
                    return Err(Error::Refused(reason));
                };
                chosen.insert(needed.name.clone(), Arc::clone(&needed));
                queue.push_back(needed);
            }
        }
    }
    Ok(chosen)
}

type Providers<'a> = HashMap<&'a str, Vec<(&'a Arc<Package>, Option<&'a str>)>>;

fn providers(packages: &Packages) -> Providers<'_> {
    let mut providers = Providers::new();
    for package in packages.values() {
        for atom in package.field("Provides").split(',').filter_map(parse) {
            let version = atom.relation.map(|(_, version)| version);
            providers.entry(atom.name).or_default().push((package, version));
        }
    }
    // The most important provider first, then by name, so that the choice is always the same.
    let rank = |package: &Package| {
        let order = ["required", "important", "standard"];
        order.iter().position(|p| *p == package.field("Priority")).unwrap_or(order.len())
    };
    for list in providers.values_mut() {
        list.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name)));
    }
    providers
}

fn fits(atom: &Atom<'_>, version: &str) -> bool {
    atom.relation.is_none_or(|(relation, to)| version::satisfies(version, relation, to))
}

/// A provider counts for a versioned dependency only if it states a version itself.
fn provides(atom: &Atom<'_>, version: Option<&str>) -> bool {
    atom.relation.is_none() || version.is_some_and(|version| fits(atom, version))
}

fn is_chosen(atom: &Atom<'_>, chosen: &BTreeMap<String, Arc<Package>>, providers: &Providers<'_>) -> bool {
    chosen.get(atom.name).is_some_and(|package| fits(atom, &package.version))
        || providers.get(atom.name).is_some_and(|list| {
            list.iter()
                .any(|(package, version)| chosen.contains_key(&package.name) && provides(atom, *version))
        })
}

fn pick(atom: &Atom<'_>, packages: &Packages, providers: &Providers<'_>) -> Option<Arc<Package>> {
    if let Some(package) = packages.get(atom.name)
        && fits(atom, &package.version)
    {
        return Some(Arc::clone(package));
    }
    let list = providers.get(atom.name)?;
    list.iter().find(|(_, version)| provides(atom, *version)).map(|(package, _)| Arc::clone(package))
}

/// `name[:arch] [(RELATION VERSION)] [[ARCHITECTURES]]`.
fn parse(text: &str) -> Option<Atom<'_>> {
    let text = text.trim();
    let end = text.find([' ', '(', '[']).unwrap_or(text.len());
    let name = text[..end].split(':').next().filter(|name| !name.is_empty())?;
    let relation = text.split_once('(').and_then(|(_, rest)| {
        let inner = rest.split_once(')')?.0.trim();
        let split = inner.find(|c: char| !"<>=".contains(c))?;
        Some((&inner[..split], inner[split..].trim()))
    });
    Some(Atom { name, relation })
}

#[cfg(test)]
mod tests {
    use super::super::index::places;
    use super::*;

    fn packages(text: &str) -> Packages {
        let text = text.replace("Package: ", "Version: 1\nPackage: ");
        let (index, base): (Arc<str>, Arc<str>) = (text.as_str().into(), "".into());
        places(&text)
            .filter_map(|place| Package::new(&index, place, &base))
            .map(|package| (package.name.clone(), Arc::new(package)))
            .collect()
    }

    fn names(text: &str, wanted: &[&str]) -> String {
        let packages = packages(text);
        match closure(&packages, wanted.iter().copied(), false, &["c"]) {
            Ok(chosen) => chosen.into_keys().collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn follows_dependencies_alternatives_and_providers() {
        assert_eq!(
            names("Package: a\nDepends: c | d\n\nPackage: c\n\nPackage: d\n", &["a"]),
            "a d",
            "avoided"
        );
        let text = "Package: a\nDepends: b (>= 2) | c, v, w (= 3)\n\nPackage: b\n\nPackage: c\nPre-Depends: a:any\n\n\
                    Package: p2\nProvides: v\n\nPackage: p1\nProvides: v, w (= 3)\n\nPackage: imp\nPriority: required\nProvides: v\n";
        assert_eq!(names(text, &["a"]), "a c imp p1");
        assert_eq!(names(text, &["p2", "a"]), "a c p1 p2", "what is chosen already is enough");
    }

    #[test]
    fn says_what_is_missing() {
        assert!(names("Package: a\nDepends: gone\n", &["a"]).contains("needs gone"));
        assert!(names("Package: a\n", &["b"]).contains("package b"));
    }
}
