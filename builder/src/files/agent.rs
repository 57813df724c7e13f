//! `incus-agent`, `lxd-agent`: lets a virtual machine start the agent its host offers it.
//!
//! The host shows the agent's files on a share named `config` (9p or virtiofs) or, for Incus, on a
//! CD; they are copied into memory and started from there.

use std::path::Path;

use crate::Result;
use crate::rootfs::{Attributes, Rootfs};

pub(super) fn run(product: &str, rootfs: &Rootfs) -> Result<()> {
    let agent = Agent { product, rootfs };
    if rootfs.exists("/usr/lib/systemd/systemd")? || rootfs.exists("/lib/systemd/systemd")? {
        return agent.systemd();
    }
    if rootfs.exists("/sbin/openrc-run")? || rootfs.exists("/usr/sbin/openrc-run")? {
        return agent.openrc();
    }
    Err(crate::Error::Refused(format!(
        "files: {product}-agent: this root file system has neither systemd nor OpenRC to start it with"
    )))
}

struct Agent<'a> {
    product: &'a str,
    rootfs: &'a Rootfs,
}

impl Agent<'_> {
    fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let text = text.replace("PRODUCT", self.product);
        self.rootfs.write(path, text.as_bytes(), Attributes { mode: Some(mode), ..Attributes::default() })
    }

    fn systemd(&self) -> Result<()> {
        let product = self.product;
        let (library, udev) = ("/usr/lib/systemd", "/usr/lib/udev/rules.d");
        // Where /usr is not merged these lie in /lib.
        let below = |path: &str| -> Result<String> {
            let old = path.trim_start_matches("/usr");
            Ok(if self.rootfs.exists(path)? { path.to_owned() } else { old.to_owned() })
        };
        let (library, udev) = (below(library)?, below(udev)?);
        self.write(&format!("{library}/{product}-agent-setup"), SETUP, 0o755)?;
        let unit = UNIT.replace("LIBRARY", &library);
        self.write(&format!("{library}/system/{product}-agent.service"), &unit, 0o644)?;
        self.write(&format!("{udev}/99-{product}-agent.rules"), RULE, 0o644)
    }

    fn openrc(&self) -> Result<()> {
        let product = self.product;
        self.write(&format!("/usr/local/bin/{product}-agent-setup"), SETUP, 0o755)?;
        for (name, text) in
            [(format!("{product}-agent"), SERVICE), (format!("{product}-agent-setup"), SETUP_SERVICE)]
        {
            self.write(&format!("/etc/init.d/{name}"), text, 0o755)?;
            let link = format!("/etc/runlevels/default/{name}");
            self.rootfs.symlink(&link, Path::new(&format!("/etc/init.d/{name}")))?;
        }
        Ok(())
    }
}

const SETUP: &str = r#"#!/bin/sh
# Copies the agent from the share its host offers into memory.
set -eu
place=/run/PRODUCT_agent
share=$place.mnt
disc=/dev/disk/by-id/scsi-0QEMU_QEMU_CD-ROM_PRODUCT_agent

mkdir -p "$share"
modprobe 9pnet_virtio 2>/dev/null || true
mount -t 9p config "$share" -o access=0,trans=virtio,size=1048576 2>/dev/null ||
    mount -t virtiofs config "$share" 2>/dev/null ||
    mount "$disc" "$share" 2>/dev/null || {
    rmdir "$share"
    # After a restart the disc is gone and the agent still there.
    [ -x "$place/PRODUCT-agent" ] && exit 0
    echo "no share with the agent" >&2
    exit 1
}
umount -l "$place" 2>/dev/null || true
mkdir -p "$place"
mount -t tmpfs tmpfs "$place" -o mode=0700,size=50M
cp -R "$share/." "$place"
umount "$share"
rmdir "$share"
chown -R 0:0 "$place"
restorecon -R "$place" 2>/dev/null || true
"#;

const UNIT: &str = "[Unit]
Description=Agent of the PRODUCT host
DefaultDependencies=no
Before=multi-user.target cloud-init.target cloud-init.service cloud-init-local.service

[Service]
Type=notify
WorkingDirectory=-/run/PRODUCT_agent
ExecStartPre=LIBRARY/PRODUCT-agent-setup
ExecStart=/run/PRODUCT_agent/PRODUCT-agent
Restart=on-failure
RestartSec=5s
StartLimitInterval=60
StartLimitBurst=10
";

const RULE: &str = "SYMLINK==\"virtio-ports/org.linuxcontainers.PRODUCT\", TAG+=\"systemd\", ENV{SYSTEMD_WANTS}+=\"PRODUCT-agent.service\"\n";

const SERVICE: &str = "#!/sbin/openrc-run
description=\"Agent of the PRODUCT host\"
command=/run/PRODUCT_agent/PRODUCT-agent
command_background=true
pidfile=/run/PRODUCT-agent.pid
start_stop_daemon_args=\"--chdir /run/PRODUCT_agent\"
required_dirs=/run/PRODUCT_agent

depend() {
\tneed PRODUCT-agent-setup
\tbefore cloud-init cloud-init-local
}
";

const SETUP_SERVICE: &str = "#!/sbin/openrc-run
description=\"Fetches the agent of the PRODUCT host\"
command=/usr/local/bin/PRODUCT-agent-setup
required_dirs=/dev/virtio-ports/
";

#[cfg(test)]
mod tests {
    use super::*;

    fn root(program: &str) -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        rootfs.write(program, b"", Attributes::default()).unwrap();
        (dir, rootfs)
    }

    #[test]
    fn the_init_system_there_is_starts_it() {
        let (dir, rootfs) = root("/usr/lib/systemd/systemd");
        rootfs.make_directories("/usr/lib/udev/rules.d").unwrap();
        run("incus", &rootfs).unwrap();
        let unit =
            std::fs::read_to_string(dir.path().join("usr/lib/systemd/system/incus-agent.service")).unwrap();
        assert!(unit.contains("ExecStartPre=/usr/lib/systemd/incus-agent-setup\n"), "{unit}");
        let rule =
            std::fs::read_to_string(dir.path().join("usr/lib/udev/rules.d/99-incus-agent.rules")).unwrap();
        assert!(rule.contains("org.linuxcontainers.incus"), "{rule}");
        let setup = dir.path().join("usr/lib/systemd/incus-agent-setup");
        assert!(std::process::Command::new("sh").arg("-n").arg(setup).status().unwrap().success());
        let (dir, rootfs) = root("/sbin/openrc-run");
        run("lxd", &rootfs).unwrap();
        let link = std::fs::read_link(dir.path().join("etc/runlevels/default/lxd-agent")).unwrap();
        assert_eq!(link, Path::new("/etc/init.d/lxd-agent"));
        let (_dir, rootfs) = root("/sbin/init");
        assert!(run("incus", &rootfs).unwrap_err().to_string().contains("neither systemd nor OpenRC"));
    }
}
