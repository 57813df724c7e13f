//! `network`.

use clap::Subcommand;

use super::Output;

pub const KEYS: &str = "\
Keys:
  ipv4.address  the host's address and prefix, as in 10.20.30.1/24; auto or none
  ipv4.nat      true: containers reach what the host reaches
  ipv4.dhcp     true: containers are given addresses
  ipv6.address  as in fd42:1::1/64; auto or none
  ipv6.nat      true or false
  bridge.mtu    bytes
  dns.domain    containers are NAME.millstream, unless this says otherwise
  user.NAME     anything

Containers join with `millstream config device add CONTAINER eth0 nic network=NAME`.";

#[derive(Subcommand)]
pub enum Network {
    /// Make a network: a bridge with DHCP, names and address translation
    Create {
        /// Network, and name of its bridge; millbr0 is that of the default profile
        name: String,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
        /// Keys and their values
        #[arg(value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// List networks
    #[command(visible_alias = "ls")]
    List(Output),
    /// Print a network
    Show {
        /// Network
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Set keys
    Set {
        /// Network
        name: String,
        /// Keys and their values
        #[arg(required = true, value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Take keys away
    Unset {
        /// Network
        name: String,
        /// Keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Change a network in an editor, or to the YAML on standard input
    Edit {
        /// Network
        name: String,
    },
    /// Delete networks that no container and no profile names
    #[command(visible_alias = "rm")]
    Delete {
        /// Networks
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}
