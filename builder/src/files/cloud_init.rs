//! `cloud-init`: templates that seed cloud-init from an instance's configuration.
//!
//! One root file system serves LXC as well as Incus and LXD. distrobuilder disables cloud-init in
//! LXC's; here it stays enabled, and finds no seed in a container of LXC.

use super::Generated;
use crate::recipe::FileEntry;
use crate::{Error, Result};

/// Where cloud-init looks for a seed that needs no network.
const SEED: &str = "/var/lib/cloud/seed/nocloud-net";

const META_DATA: &str = "instance-id: {{ container.name }}\nlocal-hostname: {{ container.name }}\n{{ config_get(\"user.meta-data\", \"\") }}\n";

/// Network by DHCP on the one interface instances have.
const NETWORK: &str = "version: 1\nconfig:\n  - type: physical\n    name: {% if instance.type == \"virtual-machine\" %}enp5s0{% else %}eth0{% endif %}\n    subnets:\n      - type: dhcp\n        control: auto";

pub(super) fn run(file: &FileEntry, generated: &mut Generated) -> Result<()> {
    let mut file = file.clone();
    let name = file.name.as_str();
    let text = match name {
        "meta-data" => META_DATA.to_owned(),
        "network-config" => configured(name, if file.content.is_empty() { NETWORK } else { &file.content }),
        "user-data" | "vendor-data" => {
            if file.template.properties.is_empty() {
                let default = if file.content.is_empty() { "#cloud-config\n{}" } else { &file.content };
                file.template.properties = [("default".to_owned(), default.to_owned())].into();
            }
            configured(name, "{{ properties.default }}")
        }
        other => return Err(Error::Refused(format!("files: cloud-init has no {other:?}"))),
    };
    let path = if file.path.is_empty() { format!("{SEED}/{name}") } else { file.path.clone() };
    let template = format!("cloud-init-{name}.tpl");
    // At the start of an instance they have done their work.
    file.template.when = Vec::new();
    generated.template(&file, &path, &template, text.into_bytes());
    Ok(())
}

/// What the instance's configuration has, under the newer key or the older one, else a default.
fn configured(name: &str, default: &str) -> String {
    let get = |place: &str| format!("config_get(\"{place}.{name}\", \"\")");
    let (new, old) = (get("cloud-init"), get("user"));
    format!(
        "{{% if {new} != \"\" -%}}\n{{{{ {new} }}}}\n{{%- elif {old} != \"\" -%}}\n{{{{ {old} }}}}\n{{%- else -%}}\n{default}\n{{%- endif %}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate(file: FileEntry) -> Generated {
        let mut generated = Generated::default();
        run(&FileEntry { generator: "cloud-init".into(), ..file }, &mut generated).unwrap();
        generated
    }

    #[test]
    fn each_name_has_its_place_and_default() {
        for name in crate::recipe::CLOUD_INIT_NAMES {
            let generated = generate(FileEntry { name: (*name).into(), ..FileEntry::default() });
            let template = &generated.templates[&format!("{SEED}/{name}")];
            assert_eq!(template.template, format!("cloud-init-{name}.tpl"));
            assert_eq!(template.when, ["create", "copy"]);
            let data = matches!(*name, "user-data" | "vendor-data");
            assert_eq!(template.properties.contains_key("default"), data, "{name}");
            assert!(generated.texts[&template.template].ends_with(b"\n"));
        }
    }

    #[test]
    fn recipes_may_say_otherwise() {
        let file = |name: &str| FileEntry {
            name: name.into(),
            content: "mine".into(),
            path: "/x".into(),
            ..FileEntry::default()
        };
        assert_eq!(generate(file("user-data")).templates["/x"].properties["default"], "mine");
        let network = generate(file("network-config"));
        let text = String::from_utf8_lossy(&network.texts["cloud-init-network-config.tpl"]).into_owned();
        assert!(
            text.contains("\nmine\n") && text.contains("config_get(\"cloud-init.network-config\", \"\")")
        );
    }
}
