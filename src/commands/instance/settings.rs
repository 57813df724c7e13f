//! `config` and `profile`.

use std::fs;
use std::io::{IsTerminal, Read};

use anyhow::{Context, anyhow, bail};
use millstream_runtime::container::{Configuration, Profile as Settings};
use millstream_runtime::{ContainerName, Runtime};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::settings::{Config, Profile};
use crate::commands::settings::missing;
use crate::output;

use super::devices;

pub fn config(runtime: &Runtime, command: &Config, quiet: bool) -> anyhow::Result<()> {
    match command {
        Config::Get { name, key } => {
            let Some(key) = key else { missing("the key") };
            let value = runtime.configuration(&name.parse()?)?.config.get(key).cloned();
            output::print(&(value.unwrap_or_default() + "\n"))
        }
        Config::Set { pairs, .. } if pairs.is_empty() => missing("KEY=VALUE"),
        Config::Unset { keys, .. } if keys.is_empty() => missing("the key"),
        Config::Set { name, pairs } => change(runtime, name, quiet, |new| set(&mut new.config, pairs)),
        Config::Unset { name, keys } => change(runtime, name, quiet, |new| {
            new.config.retain(|key, _| !keys.contains(key));
            Ok(())
        }),
        Config::Show { name, expanded, output } => {
            let Some(name) = name else { missing("the container") };
            let name = name.parse()?;
            let mut shown = runtime.configuration(&name)?;
            if *expanded {
                shown.config = runtime.expanded(&name)?;
                shown.devices = runtime.expanded_devices(&name)?;
            }
            output::object(output.format, &shown)
        }
        Config::Device(command) => devices::of_container(runtime, command, quiet),
        Config::Edit { name } => change(runtime, name, quiet, |new| {
            *new = edit(new)?;
            Ok(())
        }),
    }
}

pub fn change(
    runtime: &Runtime,
    name: &str,
    quiet: bool,
    act: impl FnOnce(&mut Configuration) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = name.parse()?;
    let mut new = runtime.configuration(&name)?;
    act(&mut new)?;
    say(&runtime.configure(&name, &new)?, quiet);
    Ok(())
}

pub fn profile(runtime: &Runtime, command: &Profile, quiet: bool) -> anyhow::Result<()> {
    match command {
        Profile::List(output) => list(runtime, *output),
        Profile::Show { name, output } => output::object(output.format, &runtime.profile(&name.parse()?)?),
        Profile::Create { name, description } => {
            let name = free(runtime, name)?;
            let profile = Settings { description: description.clone(), ..Settings::default() };
            runtime.save_profile(&name, &profile).map(drop).map_err(Into::into)
        }
        Profile::Set { name, pairs } => {
            change_profile(runtime, name, quiet, |profile| set(&mut profile.config, pairs))
        }
        Profile::Unset { name, keys } => change_profile(runtime, name, quiet, |profile| {
            profile.config.retain(|key, _| !keys.contains(key));
            Ok(())
        }),
        Profile::Device(command) => devices::of_profile(runtime, command, quiet),
        Profile::Edit { name } => change_profile(runtime, name, quiet, |profile| {
            *profile = edit(profile)?;
            Ok(())
        }),
        Profile::Copy { from, to } => {
            let profile = runtime.profile(&from.parse()?)?;
            runtime.save_profile(&free(runtime, to)?, &profile).map(drop).map_err(Into::into)
        }
        Profile::Delete { names } => super::each(names, |name| Ok(runtime.delete_profile(name)?)),
        Profile::Assign { name, profiles } => change(runtime, name, quiet, |new| {
            new.profiles = profiles.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
            Ok(())
        }),
    }
}

#[derive(Serialize)]
struct Line {
    name: String,
    description: String,
    used_by: usize,
}

fn list(runtime: &Runtime, output: crate::cli::Output) -> anyhow::Result<()> {
    let containers = runtime.list()?;
    let lines: Vec<_> = runtime
        .profiles()?
        .into_iter()
        .map(|(name, profile)| Line {
            used_by: containers.iter().filter(|info| info.profiles.contains(&name)).count(),
            name: name.to_string(),
            description: profile.description,
        })
        .collect();
    output::list(
        output.format,
        &lines,
        &[
            ("NAME", &|line| line.name.clone()),
            ("DESCRIPTION", &|line| line.description.clone()),
            ("USED BY", &|line| line.used_by.to_string()),
        ],
    )
}

pub fn change_profile(
    runtime: &Runtime,
    name: &str,
    quiet: bool,
    act: impl FnOnce(&mut Settings) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = name.parse()?;
    let mut profile = runtime.profile(&name)?;
    act(&mut profile)?;
    say(&runtime.save_profile(&name, &profile)?, quiet);
    Ok(())
}

/// A name that no profile has.
fn free(runtime: &Runtime, name: &str) -> anyhow::Result<ContainerName> {
    let name: ContainerName = name.parse()?;
    if runtime.profiles()?.contains_key(&name) {
        bail!("there already is a profile {name}");
    }
    Ok(name)
}

pub fn say(notes: &[String], quiet: bool) {
    for note in notes {
        output::say(quiet, note);
    }
}

fn set(settings: &mut millstream_runtime::container::Settings, pairs: &[String]) -> anyhow::Result<()> {
    for text in pairs {
        let (key, value) = pair(text)?;
        settings.insert(key, value);
    }
    Ok(())
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| anyhow!("{text:?} should be KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The YAML on standard input, or what an editor makes of `value`.
pub fn edit<T: Serialize + DeserializeOwned>(value: &T) -> anyhow::Result<T> {
    edit_checked(value, |_| Ok(()))
}

/// As [`edit`], of what passes `check`. An editor is opened again on what does not, if the user likes; else
/// the text is kept in a file.
pub fn edit_checked<T: Serialize + DeserializeOwned>(
    value: &T,
    check: impl Fn(&T) -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    let read = |text: &str| {
        let value = serde_yaml_ng::from_str(text).map_err(anyhow::Error::from);
        value.and_then(|value| check(&value).map(|()| value))
    };
    if !std::io::stdin().is_terminal() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return read(&text).context("nothing has changed, as this is not what it should be");
    }
    let file = tempfile::Builder::new().prefix("millstream-").suffix(".yaml").tempfile()?;
    fs::write(file.path(), serde_yaml_ng::to_string(value)?)?;
    loop {
        super::editor(file.path())?;
        let error = match read(&fs::read_to_string(file.path())?) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        eprint!("{error:#}\nPress Enter to edit it again, or type q to give up: ");
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer)? == 0 || !answer.trim().is_empty() {
            let (_, path) = file.keep()?;
            return Err(error.context(format!("nothing has changed; your text is in {}", path.display())));
        }
    }
}
