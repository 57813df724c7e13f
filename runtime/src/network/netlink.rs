//! Interfaces by netlink(7): running `ip` for one takes longer than all else that a start does.
//!
//! Only what each start needs; whatever is made once per network is left to `ip`.

use std::io;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// Of `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h` and `linux/veth.h`.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// All there is to say about one interface takes a few kilobytes.
const ANSWER: usize = 32 << 10;
const UP: u32 = libc::IFF_UP as u32;

/// A pair of virtual Ethernet interfaces, one of them in a container.
pub struct Veth<'a> {
    /// The host's end, and the bridge it is a port of.
    pub host: &'a str,
    pub bridge: &'a str,
    /// The container's end.
    pub inside: &'a str,
    /// A process in the container's network namespace.
    pub pid: i32,
    pub hwaddr: Option<[u8; 6]>,
    pub mtu: Option<u32>,
}

impl Veth<'_> {
    /// Makes both ends, the host's being up. Nothing is left when that fails.
    pub fn make(&self) -> io::Result<()> {
        let mtu = self.mtu.map(u32::to_ne_bytes);
        let mut peer = Message::link(0);
        peer.attribute(IFLA_IFNAME, &text(self.inside));
        peer.attribute(IFLA_NET_NS_PID, &self.pid.to_ne_bytes());
        let address = self.hwaddr.iter().map(|address| (IFLA_ADDRESS, &address[..]));
        let mtu = mtu.iter().map(|mtu| (IFLA_MTU, &mtu[..]));
        address.chain(mtu.clone()).for_each(|(kind, value)| peer.attribute(kind, value));
        let mut host = Message::link(UP);
        host.attribute(IFLA_IFNAME, &text(self.host));
        host.attribute(IFLA_MASTER, &index(self.bridge)?.to_ne_bytes());
        mtu.for_each(|(kind, value)| host.attribute(kind, value));
        let mut data = Message::default();
        data.attribute(VETH_INFO_PEER, &peer.0);
        let mut info = Message::default();
        info.attribute(IFLA_INFO_KIND, b"veth\0");
        info.attribute(IFLA_INFO_DATA, &data.0);
        host.attribute(IFLA_LINKINFO, &info.0);
        verdict(&host.send(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK)?)
    }
}

/// Deletes an interface of this network namespace.
pub fn delete(interface: &str) -> io::Result<()> {
    let mut message = Message::link(0);
    message.attribute(IFLA_IFNAME, &text(interface));
    verdict(&message.send(RTM_DELLINK, NLM_F_ACK)?)
}

/// An interface's alias; empty where it has none.
pub fn alias(interface: &str) -> io::Result<String> {
    let mut message = Message::link(0);
    message.attribute(IFLA_IFNAME, &text(interface));
    alias_in(&message.send(RTM_GETLINK, 0)?)
}

fn alias_in(answer: &[u8]) -> io::Result<String> {
    if answer.get(4..6) != Some(&RTM_NEWLINK.to_ne_bytes()) {
        return Err(verdict(answer).err().unwrap_or_else(unknown));
    }
    let mut rest = answer.get(32..).unwrap_or_default();
    while let [a, b, c, d, ..] = *rest {
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let Some(value) = rest.get(4..length) else { break };
        if kind == IFLA_IFALIAS {
            return Ok(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(String::new())
}

/// The number of an interface of this network namespace.
pub fn index(interface: &str) -> io::Result<u32> {
    Ok(name_to_index(
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?,
        interface,
    )?)
}

/// A hardware address as people write it.
pub fn hwaddr(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut address {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()) && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(address)
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// What is under way, without the head that says how long it is.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Begins with `struct ifinfomsg`.
    fn link(flags: u32) -> Self {
        let mut message = vec![0; 8];
        message.extend(flags.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        Self(message)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        // None comes near the 64 KiB that the field can tell.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Sends it to the kernel and waits for its first answer.
    fn send(&self, kind: u16, flags: u16) -> io::Result<Vec<u8>> {
        let length = u32::try_from(16 + self.0.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(&self.0);
        // No protocol means routes and interfaces.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        send(&socket, &message, SendFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// An acknowledgement is an error with the number 0.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).ok_or_else(unknown)?;
    let code = answer.get(16..20).ok_or_else(unknown)?;
    if kind != NLMSG_ERROR.to_ne_bytes() {
        return Err(unknown());
    }
    match code.try_into().map_or(0, i32::from_ne_bytes) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

fn unknown() -> io::Error {
    io::Error::other("the kernel's answer has an unknown form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_padded() {
        let mut message = Message::default();
        message.attribute(IFLA_IFNAME, b"a\0");
        message.attribute(IFLA_MTU, &9_u32.to_ne_bytes());
        assert_eq!(message.0.len(), 16);
        assert_eq!(message.0[..8], [&6_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), b"a\0\0\0"].concat());
    }

    #[test]
    fn the_kernels_word_is_heard() {
        let answer = |kind: u16, code: i32| {
            [&[36, 0, 0, 0], &kind.to_ne_bytes()[..], &[0; 10], &code.to_ne_bytes(), &[0; 16]].concat()
        };
        verdict(&answer(NLMSG_ERROR, 0)).unwrap();
        assert_eq!(
            verdict(&answer(NLMSG_ERROR, -libc::EEXIST)).unwrap_err().raw_os_error(),
            Some(libc::EEXIST)
        );
        assert!(verdict(&answer(RTM_NEWLINK, 0)).is_err() && verdict(&[0; 7]).is_err());
        let missing = Some(libc::ENODEV);
        assert_eq!(delete("no-such-one").unwrap_err().raw_os_error(), missing);
        assert_eq!(alias("no-such-one").unwrap_err().raw_os_error(), missing);
        assert!(index("lo").unwrap() > 0 && alias("lo").unwrap().is_empty());
    }

    #[test]
    fn hardware_addresses_are_read() {
        assert_eq!(hwaddr("00:16:3e:a:0B:ff"), Some([0, 0x16, 0x3e, 0xa, 0xb, 0xff]));
        for bad in [
            "",
            "00:16:3e:0a:0b",
            "00:16:3e:0a:0b:ff:00",
            "00:16:3e:0a:0b:fff",
            "00:16:3e:0a:0b:+f",
            "::::::",
        ] {
            assert_eq!(hwaddr(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_judged(answer: Vec<u8>, text: String) {
            let _ = (verdict(&answer), hwaddr(&text));
            let _ = alias_in(&[&answer[..answer.len().min(4)], &RTM_NEWLINK.to_ne_bytes(), &answer].concat());
        }
    }
}
