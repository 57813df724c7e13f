//! What must hold between the values of a recipe, beyond each being of the right kind.

use super::model::{Definition, FileEntry, Packages};

/// Problems by the path of the value they are in.
type Wrong = Vec<(String, String)>;

/// Names the generator `cloud-init` knows.
pub(crate) const CLOUD_INIT_NAMES: &[&str] = &["meta-data", "network-config", "user-data", "vendor-data"];

pub(super) fn check(definition: &Definition) -> Wrong {
    let mut wrong = Wrong::new();
    packages(definition, &mut wrong);
    for (at, file) in definition.files.iter().enumerate() {
        let path = format!("files.{at}");
        wrong.extend(self::file(file).into_iter().map(|(key, message)| match key {
            "" => (path.clone(), message),
            key => (format!("{path}.{key}"), message),
        }));
    }
    for (at, action) in definition.actions.iter().enumerate() {
        if action.trigger.is_empty() {
            wrong.push((format!("actions.{at}"), "this action has no trigger, so it would never run".into()));
        }
        if action.action.contains('\0') {
            wrong.push((format!("actions.{at}.action"), "a script cannot hold a zero byte".into()));
        }
    }
    for (at, variable) in definition.environment.variables.iter().enumerate() {
        let key = &variable.key;
        if key.is_empty() || key.contains(['=', '\0']) || variable.value.contains('\0') {
            let message = format!("{key:?} cannot be the name of a variable with this value");
            wrong.push((format!("environment.variables.{at}"), message));
        }
    }
    wrong
}

fn packages(definition: &Definition, wrong: &mut Wrong) {
    let packages = &definition.packages;
    let mut add = |path: String, message: &str| wrong.push((path, message.to_owned()));
    match &packages.custom_manager {
        Some(_) if !packages.manager.is_empty() => {
            add("packages.manager".into(), "either manager or custom_manager, not both");
        }
        Some(manager) => {
            let commands = [
                ("clean", &manager.clean),
                ("install", &manager.install),
                ("refresh", &manager.refresh),
                ("remove", &manager.remove),
                ("update", &manager.update),
            ];
            for (name, _) in commands.iter().filter(|(_, command)| command.cmd.is_empty()) {
                let message = format!("custom_manager needs {name} with a cmd (`true` does nothing)");
                add("packages.custom_manager".into(), &message);
            }
        }
        // What is bootstrapped from packages of apt is managed with apt.
        None if packages.manager.is_empty()
            && definition.source.downloader != "debootstrap"
            && !idle(packages) =>
        {
            add("packages".into(), "packages needs a manager or a custom_manager");
        }
        None => {}
    }
    for (at, set) in packages.sets.iter().enumerate() {
        if set.action.is_empty() {
            add(format!("packages.sets.{at}"), "this set has no action: install or remove");
        }
    }
    for (at, repository) in packages.repositories.iter().enumerate() {
        let path = |key: &str| format!("packages.repositories.{at}{key}");
        let name = repository.name.as_str();
        if repository.name.is_empty() && packages.manager != "apk" && repository.r#type != "enman" {
            add(path(""), "this repository has no name");
        } else if name.contains(['/', '\0', '\n']) || name.starts_with('.') || name.starts_with('-') {
            add(path(".name"), &format!("{name:?} is not a file name"));
        }
        if repository.url.contains('\0') {
            add(path(".url"), "a repository cannot hold a zero byte");
        }
    }
}

fn idle(packages: &Packages) -> bool {
    packages.sets.is_empty() && packages.repositories.is_empty() && !packages.update && !packages.cleanup
}

fn file(file: &FileEntry) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let mut need = |key: &str, value: &str| {
        if value.is_empty() {
            wrong.push(("", format!("the generator {} needs a {key}", file.generator)));
        }
    };
    match file.generator.as_str() {
        "" => wrong.push(("", "this file has no generator".into())),
        "dump" | "remove" | "template" => need("path", &file.path),
        "copy" => need("source", &file.source),
        "cloud-init" if !CLOUD_INIT_NAMES.contains(&file.name.as_str()) => {
            let message = format!("unknown name {:?} (valid: {})", file.name, CLOUD_INIT_NAMES.join(", "));
            wrong.push((if file.name.is_empty() { "" } else { "name" }, message));
        }
        _ => {}
    }
    if file.name.contains(['/', '\0']) || file.name.starts_with('.') {
        wrong.push(("name", format!("{:?} is not a file name", file.name)));
    }
    for (key, value) in [("path", &file.path), ("source", &file.source)] {
        if value.contains('\0') {
            wrong.push((key, "a path cannot hold a zero byte".into()));
        }
    }
    for (key, value, radix) in [("mode", &file.mode, 8), ("uid", &file.uid, 10), ("gid", &file.gid, 10)] {
        let digits = value.trim_start_matches("0o");
        let most = if radix == 8 { 0o7777 } else { u32::MAX - 1 };
        if !value.is_empty() && !u32::from_str_radix(digits, radix).is_ok_and(|number| number <= most) {
            let expected = if radix == 8 { "permission bits in octal, such as 0644" } else { "a number" };
            wrong.push((key, format!("{value:?} is not {expected}")));
        }
    }
    wrong
}
