//! `config` and `profile`.

use clap::Subcommand;

use super::Output;

pub const KEYS: &str = "\
Keys:
  limits.cpu                   2, or a set as in 0-1,3
  limits.cpu.allowance         a share as in 50%, or time as in 25ms/100ms
  limits.cpu.priority          0 to 10
  limits.memory                a size as in 512MiB, or a share as in 50%
  limits.memory.enforce        hard or soft
  limits.memory.swap           true or false
  limits.memory.swap.priority  0 to 10
  limits.processes             a number
  limits.disk.priority         0 to 10
  boot.autostart               true: `millstream start --all-autostart` starts it
  boot.autostart.priority      higher starts earlier
  boot.autostart.delay         seconds to wait after it
  security.nesting             true: containers can run inside
  security.apparmor.profile    a loaded profile instead of our own, or unconfined
  security.selinux.context     the context of its programs; no other is set
  snapshots.expiry             a time as in 2H, 7d, 4w, 1m: deletes snapshots that are older
  snapshots.pattern            a name, as in nightly-%d
  snapshots.schedule           30 3 * * * in UTC, or @hourly, @daily, @weekly, @monthly
  snapshots.schedule.stopped   true: also while it is stopped
  environment.NAME             a variable of its init and of commands
  user.NAME                    anything; image templates can read it

Limits apply to running containers at once.

Keys of this machine's images, without a container:
  images.remote_cache_expiry   days after which an unused image goes that only came because
                               something was started from it [10; 0: never]
  images.auto_update_interval  hours between two looks for newer images [6; 0: never]
  images.auto_update_cached    whether images that only came because something was started from
                               them follow newer ones [true]
  images.shared                root's only: other users of this machine read root's images instead
                               of fetching their own [false]

Examples:
  millstream config set c1 limits.memory=512MiB
  millstream config set images.remote_cache_expiry 5
  millstream config get images.auto_update_interval
  millstream config show";

#[derive(Subcommand)]
pub enum Config {
    /// Print the value of a key
    Get {
        /// Container; left out for a key of images
        name: String,
        /// Key
        key: Option<String>,
    },
    /// Set keys
    Set {
        /// Container; left out for keys of images
        name: String,
        /// Keys and their values; of images also KEY VALUE
        #[arg(value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Take keys away
    Unset {
        /// Container; left out for keys of images
        name: String,
        /// Keys
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Print all of it
    Show {
        /// Container; left out, what is set for images
        name: Option<String>,
        /// With what its profiles give it
        #[arg(long, requires = "name")]
        expanded: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Change all of it in an editor, or to the YAML on standard input
    Edit {
        /// Container
        name: String,
    },
    /// Interfaces, forwarded ports and other devices of a container
    #[command(subcommand)]
    Device(Device),
}

#[derive(Subcommand)]
pub enum Device {
    /// Add a device
    Add {
        /// Container or profile
        name: String,
        /// The device's name, as in eth0
        device: String,
        /// What it is: nic, proxy, none
        kind: String,
        /// Its keys and their values
        #[arg(value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Print the devices' names
    #[command(visible_alias = "ls")]
    List {
        /// Container or profile
        name: String,
    },
    /// Print all devices
    Show {
        /// Container or profile
        name: String,
        /// With those its profiles give it
        #[arg(long)]
        expanded: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Print the value of a device's key
    Get {
        /// Container or profile
        name: String,
        /// Device
        device: String,
        /// Key
        key: String,
    },
    /// Set keys of a device
    Set {
        /// Container or profile
        name: String,
        /// Device
        device: String,
        /// Keys and their values
        #[arg(required = true, value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Take keys of a device away
    Unset {
        /// Container or profile
        name: String,
        /// Device
        device: String,
        /// Keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Take devices away
    #[command(visible_alias = "rm")]
    Remove {
        /// Container or profile
        name: String,
        /// Devices
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
    },
}

#[derive(Subcommand)]
pub enum Profile {
    /// List profiles
    #[command(visible_alias = "ls")]
    List(Output),
    /// Print a profile
    Show {
        /// Profile
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make an empty profile
    Create {
        /// Profile
        name: String,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Set keys; containers that have the profile follow
    Set {
        /// Profile
        name: String,
        /// Keys and their values
        #[arg(required = true, value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Take keys away
    Unset {
        /// Profile
        name: String,
        /// Keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Interfaces, forwarded ports and other devices of a profile
    #[command(subcommand)]
    Device(Device),
    /// Change a profile in an editor, or to the YAML on standard input
    Edit {
        /// Profile
        name: String,
    },
    /// Make a profile like another one
    Copy {
        /// Profile
        from: String,
        /// The new one
        to: String,
    },
    /// Delete profiles that no container has
    #[command(visible_alias = "rm")]
    Delete {
        /// Profiles
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Give a container other profiles; the later ones count more
    Assign {
        /// Container
        name: String,
        /// Profiles in their order; none: it has only its own settings
        #[arg(value_name = "PROFILE")]
        profiles: Vec<String>,
    },
}
