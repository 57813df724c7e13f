//! `config device` and `profile device`.

use std::collections::btree_map::Entry;

use anyhow::{anyhow, bail};
use millstream_runtime::Runtime;
use millstream_runtime::container::{Device as Keys, Devices};

use super::settings::{change, change_profile, pair};
use crate::cli::settings::Device;
use crate::output;

pub fn of_container(runtime: &Runtime, command: &Device, quiet: bool) -> anyhow::Result<()> {
    let name = owner(command);
    if changes(command) {
        return change(runtime, name, quiet, |new| apply(&mut new.devices, command));
    }
    let name = name.parse()?;
    let devices = match command {
        Device::Show { expanded: true, .. } => runtime.expanded_devices(&name)?,
        _ => runtime.configuration(&name)?.devices,
    };
    print(&devices, command)
}

pub fn of_profile(runtime: &Runtime, command: &Device, quiet: bool) -> anyhow::Result<()> {
    let name = owner(command);
    if changes(command) {
        return change_profile(runtime, name, quiet, |profile| apply(&mut profile.devices, command));
    }
    print(&runtime.profile(&name.parse()?)?.devices, command)
}

fn owner(command: &Device) -> &str {
    match command {
        Device::Add { name, .. }
        | Device::List { name }
        | Device::Show { name, .. }
        | Device::Get { name, .. }
        | Device::Set { name, .. }
        | Device::Unset { name, .. }
        | Device::Remove { name, .. } => name,
    }
}

fn changes(command: &Device) -> bool {
    !matches!(command, Device::List { .. } | Device::Show { .. } | Device::Get { .. })
}

fn apply(devices: &mut Devices, command: &Device) -> anyhow::Result<()> {
    match command {
        Device::Add { device, kind, pairs, .. } => {
            let Entry::Vacant(place) = devices.entry(device.clone()) else {
                bail!("there already is a device {device}; `device set` changes it");
            };
            let mut keys = pairs.iter().map(|text| pair(text)).collect::<anyhow::Result<Keys>>()?;
            keys.insert("type".into(), kind.clone());
            place.insert(keys);
        }
        Device::Set { device, pairs, .. } => {
            let keys = existing(devices, device)?;
            for text in pairs {
                keys.extend([pair(text)?]);
            }
        }
        Device::Unset { device, keys, .. } => {
            existing(devices, device)?.retain(|key, _| !keys.contains(key));
        }
        Device::Remove { devices: names, .. } => {
            for name in names {
                devices.remove(name).ok_or_else(|| missing(name))?;
            }
        }
        Device::List { .. } | Device::Show { .. } | Device::Get { .. } => {}
    }
    Ok(())
}

fn print(devices: &Devices, command: &Device) -> anyhow::Result<()> {
    match command {
        Device::Show { output, .. } => output::object(output.format, devices),
        Device::Get { device, key, .. } => {
            let keys = devices.get(device).ok_or_else(|| missing(device))?;
            output::print(&(keys.get(key).cloned().unwrap_or_default() + "\n"))
        }
        _ => devices.keys().try_for_each(|name| output::print(&format!("{name}\n"))),
    }
}

fn existing<'a>(devices: &'a mut Devices, name: &str) -> anyhow::Result<&'a mut Keys> {
    devices.get_mut(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> anyhow::Error {
    anyhow!(
        "there is no device {name} here; one that a profile gives is changed by adding one of the same name"
    )
}
