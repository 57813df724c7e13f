//! The shipped units under a real systemd, in a container of ours: what hardens them lets them work.

use std::path::Path;
use std::process::Stdio;

use crate::support::{Home, PROGRAM, image, wait_for};

/// A Debian with the program, the units, and what an operator sets up.
struct Machine {
    home: Home,
    name: String,
}

/// Our containers' root is no system's root, so its directories are named; below them is a tmpfs, since an
/// overlay cannot stand on the container's own.
const SET_UP: &str = "
mkdir -p /var/lib/millstream /etc/millstream /etc/sysusers.d
mount -t tmpfs tmpfs /var/lib/millstream
mkdir /var/lib/millstream/config
cp /root/systemd/sysusers.d/millstream.conf /etc/sysusers.d/
systemd-sysusers
cp /root/systemd/millstream-* /etc/systemd/system/
for unit in containers daily-once daily refresh sign@ snapshots; do
    mkdir /etc/systemd/system/millstream-$unit.service.d
    printf '[Service]\nEnvironment=MILLSTREAM_DIR=/var/lib/millstream\n' \
        >/etc/systemd/system/millstream-$unit.service.d/test.conf
done
systemctl daemon-reload
printf '[serve]\nroot = \"/srv/images\"\n' >/etc/millstream/server.toml
millstream --quiet stream init /srv/images
millstream --quiet stream add --unsigned /srv/images /root/image
";

/// An image whose script does what hardening could forbid.
const DAILY: &str = "
mkdir -p /root/tiny/bin /root/tiny/dev /root/tiny/etc /root/tiny/proc /root/tiny/sys /root/tiny/tmp
cp /root/busybox /root/tiny/bin/
ln -s busybox /root/tiny/bin/sh
cd /var/lib/millstream/config
tar -C /root/tiny -cf tiny.tar .
cat >tiny.yaml <<'END'
image:
  distribution: tiny
  release: one
  architecture: amd64
source:
  downloader: rootfs-http
  url: tiny.tar
packages:
  manager: apt
actions:
  - trigger: post-unpack
    action: |
      #!/bin/sh
      set -e
      busybox mount -t tmpfs tmpfs /tmp
      busybox umount /tmp
      busybox touch /etc/owned
      busybox chown 3:4 /etc/owned
      busybox chmod 4755 /etc/owned
targets:
  lxc:
    config:
      - type: all
        content: lxc.arch = linux64
END
printf '[[daily]]\nname = \"tiny\"\nschedule = \"* * * * * *\"\nrecipe = \"tiny.yaml\"\n' >server.toml
printf 'stream = \"/srv/images\"\ncompression = \"xz:0\"\n' >>server.toml
";

impl Machine {
    fn start() -> Self {
        let machine = Self { home: Home::new(), name: format!("u{}", std::process::id()) };
        let (name, image) = (machine.name.as_str(), image().to_str().unwrap());
        let units = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
        machine.home.run(&["launch", image, name, "-c", "security.nesting=true"]);
        for (from, to) in [
            (PROGRAM, "usr/local/bin/millstream"),
            (image, "root/image"),
            (units, "root/systemd"),
            ("/bin/busybox", "root/busybox"),
        ] {
            let (to, recursive) = (format!("{name}/{to}"), Path::new(from).is_dir().then_some("-r"));
            machine.home.run(&[&["file", "push"], recursive.as_slice(), &[from, &to]].concat());
        }
        wait_for("systemd", 120, || {
            let state =
                machine.home.command(&["exec", name, "--", "systemctl", "is-system-running"]).output();
            String::from_utf8_lossy(&state.unwrap().stdout).trim() == "running"
        });
        machine.sh(SET_UP);
        machine
    }

    /// Runs a script that must succeed; what it prints.
    fn sh(&self, script: &str) -> String {
        let args = [
            "exec",
            "--env=MILLSTREAM_DIR=/var/lib/millstream",
            &self.name,
            "--",
            "timeout",
            "120",
            "bash",
            "-ec",
            script,
        ];
        let output = self.home.command(&args).stdin(Stdio::null()).output().unwrap();
        let journal = || self.home.run(&["exec", &self.name, "--", "journalctl", "--no-pager", "-n", "60"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{text}\n{errors}\n{}", journal());
        text
    }

    fn property(&self, unit: &str, name: &str) -> String {
        self.sh(&format!("systemctl show --value --property={name} {unit}")).trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.home.command(&["delete", "--force", &self.name]).output();
    }
}

/// Whether a stream lists an image whose product begins so.
const LISTS: &str = "millstream stream list /srv/images --format csv | grep -q";

#[test]
fn shipped_units_work_under_systemd() {
    let machine = Machine::start();
    machine.sh(&format!("systemctl start millstream-sign@srv-images.service; {LISTS} ^debian:"));
    serves(&machine);
    containers_start_and_stop(&machine);
    builds(&machine);
    assert_eq!(machine.sh("systemctl --failed --no-legend --plain"), "");
}

/// Started by the first connection, as a user of its own.
fn serves(machine: &Machine) {
    const SERVICE: &str = "millstream-serve.service";
    machine.sh("systemctl start millstream-serve.socket");
    assert_eq!(machine.property(SERVICE, "ActiveState"), "inactive");
    machine.sh("exec 3<>/dev/tcp/127.0.0.1/8443; systemctl start millstream-serve.service");
    assert!(machine.property(SERVICE, "StatusText").contains("serving /srv/images"));
    let pid = machine.property(SERVICE, "MainPID");
    assert_eq!(machine.sh(&format!("stat -c %U /proc/{pid}")), "millstream\n");
    machine.sh("ca=/var/lib/millstream-serve/config/tls/ca.crt
        millstream remote add here https://127.0.0.1:8443 --key /srv/images/key.asc --ca $ca
        millstream image copy here:debian/bookworm/minimal local: --alias base
        systemctl start millstream-refresh.service");
    machine.sh("systemctl reload millstream-serve.service");
    machine.sh("until journalctl -u millstream-serve | grep -q 'are read again'; do sleep 0.1; done");
    machine.sh("millstream image list here:");
    assert_eq!(machine.property(SERVICE, "MainPID"), pid, "it is the same process");
    machine.sh("systemctl stop millstream-serve.service");
    assert_eq!(machine.property(SERVICE, "Result"), "success");
    // The socket is still there, and starts it again.
    machine.sh("millstream image list here:");
    assert_eq!(machine.property(SERVICE, "ActiveState"), "active");
    machine.sh("systemctl stop millstream-serve.socket millstream-serve.service");
}

fn containers_start_and_stop(machine: &Machine) {
    machine.sh("millstream create base inner -c boot.autostart=true
        systemctl start millstream-containers
        until millstream exec inner -- systemctl is-system-running --wait; do sleep 0.5; done");
    takes_snapshots(machine);
    machine.sh("systemctl stop millstream-containers
        millstream list --format csv | grep inner,STOPPED");
}

/// Of a container that runs, by its schedule, when the timer says so; which is every three seconds here.
fn takes_snapshots(machine: &Machine) {
    machine.sh("millstream exec inner -- sh -c 'echo kept >/root/file'
        millstream config set inner snapshots.schedule=@hourly snapshots.pattern=hourly-%d
        mkdir -p /etc/systemd/system/millstream-snapshots.timer.d $MILLSTREAM_DIR/data/containers/inner/snapshots
        printf '[Timer]\\nOnCalendar=\\nOnCalendar=*:*:0/3\\nAccuracySec=1ms\\n' \\
            >/etc/systemd/system/millstream-snapshots.timer.d/test.conf
        echo 0 >$MILLSTREAM_DIR/data/containers/inner/snapshots/.scheduled
        systemctl daemon-reload
        systemctl start millstream-snapshots.timer
        until [ -e $MILLSTREAM_DIR/data/containers/inner/snapshots/hourly-0.json ]; do sleep 0.2; done
        systemctl stop millstream-snapshots.timer
        while systemctl is-active -q millstream-snapshots.service; do sleep 0.2; done
        millstream exec inner -- true
        millstream copy inner/hourly-0 other
        millstream file pull other/root/file - | grep kept
        millstream delete other");
    assert_eq!(machine.property("millstream-snapshots.service", "Result"), "success");
    assert_eq!(
        machine.sh("ls $MILLSTREAM_DIR/data/containers/inner/snapshots"),
        "hourly-0.json\n",
        "once an hour"
    );
}

fn builds(machine: &Machine) {
    machine.sh(DAILY);
    machine.sh(&format!("systemctl start millstream-daily-once; {LISTS} ^tiny:"));
    machine.sh("systemctl start millstream-daily
        until millstream daily status --last 9 --format csv | grep unchanged; do sleep 0.5; done
        systemctl stop millstream-daily");
    assert_eq!(machine.property("millstream-daily.service", "Result"), "success");
}
