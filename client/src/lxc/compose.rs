//! A container's `config`: what `lxc-create` began, around what the image says.
//!
//! The result is that of LXC's own template byte for byte: users' tools read these files.

/// What placeholders stand for.
pub(super) struct Values<'a> {
    /// `LXC_NAME`.
    pub name: &'a str,
    /// `LXC_PATH`.
    pub path: &'a str,
    /// `LXC_ROOTFS`.
    pub rootfs: &'a str,
    /// `LXC_TEMPLATE_CONFIG`.
    pub template_config: &'a str,
    /// `LXC_HOOK_DIR`.
    pub hooks: &'a str,
}

impl Values<'_> {
    /// Replaces placeholders. What a value brings in is not looked at again.
    pub(super) fn fill(&self, text: &str) -> String {
        let placeholders = [
            ("LXC_NAME", self.name),
            ("LXC_PATH", self.path),
            ("LXC_ROOTFS", self.rootfs),
            ("LXC_TEMPLATE_CONFIG", self.template_config),
            ("LXC_HOOK_DIR", self.hooks),
        ];
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("LXC_") {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let found = placeholders.iter().find(|(name, _)| rest.starts_with(name));
            let (name, value) = found.copied().unwrap_or(("LXC_", "LXC_"));
            out.push_str(value);
            rest = &rest[name.len()..];
        }
        out + rest
    }
}

/// Puts a container's configuration together. `begun` is what `lxc-create` wrote: its lines about
/// the network go last, its other settings after the image's.
pub(super) fn config(begun: &str, image: &str, has_fstab: bool, values: &Values<'_>) -> String {
    // A dot of the template's patterns, `lxc.net.0` and `lxc.`, stands for any character.
    let after_lxc = |line: &str, fits: fn(&[char]) -> bool| {
        line.match_indices("lxc").any(|(at, key)| {
            let rest: Vec<char> = line[at + key.len()..].chars().take(6).collect();
            fits(&rest)
        })
    };
    let (mut head, mut settings, mut network) = (String::new(), String::new(), String::new());
    for line in begun.lines() {
        let part = if after_lxc(line, |rest| matches!(rest, [_, 'n', 'e', 't', _, '0'])) {
            &mut network
        } else if after_lxc(line, |rest| !rest.is_empty()) {
            &mut settings
        } else {
            &mut head
        };
        part.push_str(line);
        part.push('\n');
    }
    let fstab = if has_fstab { format!("lxc.mount.fstab = {}/fstab\n", values.path) } else { String::new() };
    let end = if image.is_empty() || image.ends_with('\n') { "" } else { "\n" };
    values.fill(&format!(
        "{head}\n# Distribution configuration\n{image}{end}\n# Container specific configuration\n\
         {settings}{fstab}lxc.uts.name = {}\n\n# Network configuration\n{network}",
        values.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values {
        name: "c1",
        path: "/var/lib/lxc/c1",
        rootfs: "/var/lib/lxc/c1/rootfs",
        template_config: "/usr/share/lxc/config",
        hooks: "/usr/share/lxc/hooks",
    };

    #[test]
    fn placeholders_are_filled_once() {
        assert_eq!(VALUES.fill("LXC_NAME LXC_OTHER LXC_HOOK_DIR/x"), "c1 LXC_OTHER /usr/share/lxc/hooks/x");
        let odd = Values { name: "LXC_PATH", ..VALUES };
        assert_eq!(odd.fill("LXC_NAME"), "LXC_PATH");
        assert_eq!(VALUES.fill("LXC_"), "LXC_");
    }

    #[test]
    fn parts_stand_in_the_templates_order() {
        let begun = "# For more, see lxc.container.conf(5)\n# Note\n\nlxc.net.0.type = empty\n#lxc.include = x\nlxc.idmap = u 0 1 2\n";
        let image = "lxc.include = LXC_TEMPLATE_CONFIG/common.conf\n";
        let expected = "# Note\n\n\n# Distribution configuration\nlxc.include = /usr/share/lxc/config/common.conf\n\n\
                        # Container specific configuration\n# For more, see lxc.container.conf(5)\n#lxc.include = x\nlxc.idmap = u 0 1 2\n\
                        lxc.mount.fstab = /var/lib/lxc/c1/fstab\nlxc.uts.name = c1\n\n# Network configuration\nlxc.net.0.type = empty\n";
        assert_eq!(config(begun, image, true, &VALUES), expected);
    }
}
