//! Links and their addresses, over one rtnetlink socket.
//!
//! No neighbours, no monitoring of changes; routes are in `route`. The socket belongs to the
//! network namespace of the thread that opened it, for ever.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::{Error, kernel};

/// Lifetime that the kernel takes for "for ever", in seconds.
const FOREVER: u32 = u32::MAX;

/// A dump that collided with a change is repeated this many times.
const DUMP_ATTEMPTS: u32 = 10;

/// A hardware address.
pub type Mac = [u8; 6];

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is set up.
    pub up: bool,
    /// Whether it can carry frames: cable plugged in or peer up, and the kernel has noticed.
    pub carrier: bool,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Number of the interface.
    pub index: u32,
    /// The address itself.
    pub ip: IpAddr,
    /// Length of the subnet's prefix, in bits.
    pub prefix: u8,
    /// What is left of its lifetime, in whole seconds; `None` is for ever.
    pub lifetime: Option<Duration>,
}

/// A conversation with the kernel about links and addresses.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(kernel("open", "an rtnetlink socket"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Creates a bridge.
    ///
    /// # Errors
    /// When the kernel refuses, for example because the name is taken.
    pub fn create_bridge(&mut self, name: &str) -> Result<(), Error> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            "create",
            &format!("bridge \"{name}\""),
        )
    }

    /// Creates a pair of connected interfaces: `name` here, `peer` in another namespace.
    ///
    /// # Errors
    /// When the kernel refuses, for example because a name is taken.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_namespace: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let mut peer_message = named(peer);
        peer_message.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()));
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer_message))),
        ]));
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            "create",
            &format!("veth pair \"{name}\"/\"{peer}\""),
        )
    }

    /// The number of an interface.
    ///
    /// # Errors
    /// When there is none of that name (errno `ENODEV`).
    pub fn index_of(&mut self, name: &str) -> Result<u32, Error> {
        Ok(self.link(name)?.index)
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// When there is none of that name (errno `ENODEV`).
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let object = interface(name);
        let failed = || kernel("find", object.clone());
        let request = RouteNetlinkMessage::GetLink(named(name));
        let sequence = self.send(request, NLM_F_REQUEST).map_err(failed())?;
        let mut found = None;
        self.receive(sequence, |answer| found = found.take().or(answer)).map_err(failed())?;
        match found {
            Some(RouteNetlinkMessage::NewLink(message)) => Ok(link_of(&message)),
            other => Err(Error::Answer { operation: "find", object, answer: format!("{other:?}") }),
        }
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses.
    pub fn set_up(&mut self, name: &str) -> Result<(), Error> {
        self.set_flags(name, LinkFlags::Up, "set up")
    }

    /// Sets an interface down.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses.
    pub fn set_down(&mut self, name: &str) -> Result<(), Error> {
        self.set_flags(name, LinkFlags::empty(), "set down")
    }

    /// Makes an interface a port of a bridge.
    ///
    /// # Errors
    /// When one of them does not exist or the kernel refuses.
    pub fn set_master(&mut self, name: &str, bridge: &str) -> Result<(), Error> {
        let mut message = self.indexed(name)?;
        message.attributes.push(LinkAttribute::Controller(self.index_of(bridge)?));
        let object = format!("{} as a port of bridge \"{bridge}\"", interface(name));
        self.change(RouteNetlinkMessage::SetLink(message), 0, "set", &object)
    }

    /// Gives an interface a hardware address.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses.
    pub fn set_mac(&mut self, name: &str, mac: Mac) -> Result<(), Error> {
        let mut message = self.indexed(name)?;
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        let operation = "set the hardware address of";
        self.change(RouteNetlinkMessage::SetLink(message), 0, operation, &interface(name))
    }

    /// Deletes an interface; of a veth pair both ends.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses.
    pub fn delete(&mut self, name: &str) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelLink(self.indexed(name)?);
        self.change(message, 0, "delete", &interface(name))
    }

    /// All interfaces, in the kernel's order.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let answers =
            self.dump(|| RouteNetlinkMessage::GetLink(LinkMessage::default()), "the interfaces")?;
        let links = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(link_of(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// All addresses of all interfaces, in the kernel's order.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let answers = self
            .dump(|| RouteNetlinkMessage::GetAddress(AddressMessage::default()), "the addresses")?;
        let addresses = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => address_of(message),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Adds an address to an interface, or gives it a new lifetime if it is there already.
    ///
    /// The lifetime is rounded up to whole seconds; when it ends the kernel removes the address by
    /// itself. A version 6 address is usable at once (no duplicate detection by the kernel), and
    /// with a lifetime it is never chosen as the source of outgoing connections.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses.
    pub fn add_address(
        &mut self,
        name: &str,
        ip: IpAddr,
        prefix: u8,
        lifetime: Option<Duration>,
    ) -> Result<(), Error> {
        let mut message = self.address_message(name, ip, prefix)?;
        if ip.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let valid = lifetime.map_or(FOREVER, seconds_rounded_up);
        let mut cache = CacheInfo::default();
        cache.ifa_valid = valid;
        cache.ifa_preferred = if ip.is_ipv6() && lifetime.is_some() { 0 } else { valid };
        message.attributes.push(AddressAttribute::CacheInfo(cache));
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            "add",
            &format!("{ip}/{prefix} to {}", interface(name)),
        )
    }

    /// Removes an address from an interface. That it is not there, for whatever reason, is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_address(&mut self, name: &str, ip: IpAddr, prefix: u8) -> Result<(), Error> {
        let object = format!("{ip}/{prefix} from {}", interface(name));
        let result = self.address_message(name, ip, prefix).and_then(|message| {
            self.change(RouteNetlinkMessage::DelAddress(message), 0, "remove", &object)
        });
        match result {
            Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    fn set_flags(
        &mut self,
        name: &str,
        flags: LinkFlags,
        operation: &'static str,
    ) -> Result<(), Error> {
        let mut message = self.indexed(name)?;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0, operation, &interface(name))
    }

    fn indexed(&mut self, name: &str) -> Result<LinkMessage, Error> {
        let mut message = LinkMessage::default();
        message.header.index = self.index_of(name)?;
        Ok(message)
    }

    fn address_message(
        &mut self,
        name: &str,
        ip: IpAddr,
        prefix: u8,
    ) -> Result<AddressMessage, Error> {
        let mut message = AddressMessage::default();
        message.header.family =
            if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.prefix_len = prefix;
        message.header.index = self.index_of(name)?;
        message.attributes.push(AddressAttribute::Local(ip));
        message.attributes.push(AddressAttribute::Address(ip));
        Ok(message)
    }

    pub(crate) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: &'static str,
        object: &str,
    ) -> Result<(), Error> {
        let sequence = self
            .send(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map_err(kernel(operation, object))?;
        self.receive(sequence, drop).map(drop).map_err(kernel(operation, object))
    }

    pub(crate) fn dump(
        &mut self,
        request: impl Fn() -> RouteNetlinkMessage,
        object: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let failed = || kernel("list", object);
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.send(request(), NLM_F_REQUEST | NLM_F_DUMP).map_err(failed())?;
            let mut answers = Vec::new();
            let consistent =
                self.receive(sequence, |answer| answers.extend(answer)).map_err(failed())?;
            if consistent {
                return Ok(answers);
            }
        }
        Err(failed()(io::Error::from_raw_os_error(libc::EAGAIN)))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(self.sequence)
    }

    /// Hands the answers to request `sequence` to `accept` until the last one; `None` stands for an
    /// answer that cannot be decoded. Returns whether the answers belong to one state.
    fn receive(
        &mut self,
        sequence: u32,
        mut accept: impl FnMut(Option<RouteNetlinkMessage>),
    ) -> io::Result<bool> {
        let mut consistent = true;
        let mut datagram = Vec::with_capacity(1 << 16);
        loop {
            datagram.clear();
            match self.socket.recv(&mut datagram, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            let mut rest = datagram.as_slice();
            while let Some((message, flags, number)) = split_first(&mut rest) {
                if number != sequence {
                    // Left over from an earlier request that ended with an error.
                    continue;
                }
                consistent &= flags & NLM_F_DUMP_INTR == 0;
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                    Ok(message) => match message.payload {
                        NetlinkPayload::Done(_) => return Ok(consistent),
                        NetlinkPayload::Error(error) => {
                            return if error.code.is_none() {
                                Ok(consistent)
                            } else {
                                Err(error.to_io())
                            };
                        }
                        NetlinkPayload::InnerMessage(inner) => accept(Some(inner)),
                        _ => {}
                    },
                    // An attribute of a newer kernel on some foreign interface must not stand in
                    // the way of working with the others.
                    Err(_) => accept(None),
                }
                if flags & libc::NLM_F_MULTI as u16 == 0 {
                    return Ok(consistent);
                }
            }
        }
    }
}

/// Takes the first message off a datagram: its bytes, flags and sequence number.
fn split_first<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], u16, u32)> {
    let buffer = NetlinkBuffer::new_checked(*rest).ok()?;
    let length = buffer.length() as usize;
    let message = rest.get(..length)?;
    let (flags, sequence) = (buffer.flags(), buffer.sequence_number());
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, flags, sequence))
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::Running),
        mac: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            _ => {}
        }
    }
    link
}

fn address_of(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address, mut lifetime) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end; our own is `Local`.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::CacheInfo(cache) if cache.ifa_valid != FOREVER => {
                lifetime = Some(Duration::from_secs(u64::from(cache.ifa_valid)));
            }
            _ => {}
        }
    }
    Some(Address {
        index: message.header.index,
        ip: local.or(address)?,
        prefix: message.header.prefix_len,
        lifetime,
    })
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn interface(name: &str) -> String {
    format!("interface \"{name}\"")
}

fn seconds_rounded_up(duration: Duration) -> u32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(FOREVER).clamp(1, FOREVER - 1)
}
