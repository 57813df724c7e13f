//! Networks: bridges with DHCP, names and address translation, containers' interfaces, and
//! forwarded ports.
//!
//! `ip`, `tc`, `nft` and `dnsmasq` do the work, as for LXD: they are on every host that routes, and a
//! netlink library would only replace the first. What each start needs is said to the kernel itself. Ordinary users, who may make no interface on the host,
//! get one of `pasta`.
//!
//! A network is a record and, from its first use after a boot on, a bridge of its name, a chain
//! `nat-NAME` in the table `millstream`, a `dnsmasq`, and `/run/millstream/networks/NAME-ID`.

mod bridge;
mod guard;
mod live;
mod manage;
mod netlink;
mod nic;
mod plan;
mod present;
mod proxy;
mod run;
mod settings;
pub(crate) mod tools;
mod usage;

pub(crate) use guard::forget as forget_guards;
pub(crate) use live::{change as change_live, is_live};
pub(crate) use manage::of_container;
pub use manage::{DEFAULT, Network, programs};
pub(crate) use plan::{Plan, Who};
pub(crate) use present::Present;
pub(crate) use proxy::{ARGUMENT, main};
pub(crate) use run::Attached;
pub use usage::{Counters, Interfaces};
