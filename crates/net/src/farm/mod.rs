//! The data path of a farm: which node serves which client, done by the kernel's packet filter.
//!
//! An [`Engine`] is told a [`Plan`] once and a [`Table`] for each change; the kernel does the rest,
//! also while nobody is there to tell it anything. Nothing here decides who owns which bucket, who
//! leads, or when to announce: callers do.

mod dispatch;
mod engine;
mod features;
mod group;
mod hash;
mod ingress;
mod neighbours;
mod whole;

use std::net::IpAddr;

use model::config::Vip;

pub use engine::{Nft, remove};
pub use hash::bucket;

use crate::error::Error;
use crate::link::{Mac, Netlink};
use crate::{announce as announcement, vip};

/// How many buckets share out the clients.
pub const BUCKETS: usize = 256;
/// The most other members that a table can have.
pub const MEMBERS_MAX: usize = 128;
/// The most virtual addresses that a plan can have.
pub const ADDRESSES_MAX: usize = 16;

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What of a client chooses its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Its address: one client is always served by the same node.
    ClientIp,
    /// Its address and port: each connection chooses anew.
    ClientIpPort,
}

/// How packets for a virtual address come to the node that serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To the leader, which forwards each frame to the owner of its bucket.
    Directed,
    /// To all nodes, by a multicast hardware address; each drops what is not its own.
    Multicast,
}

/// How the clients of one port are shared out. Traffic that no rule names goes by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the service.
    pub port: u16,
    /// What chooses the bucket.
    pub affinity: Affinity,
}

/// Where a node is reached on the device of a virtual address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its hardware address.
    pub mac: Mac,
    /// An address of its own there, of the virtual address's version.
    pub address: IpAddr,
}

/// A virtual address on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The device that has it.
    pub device: String,
    /// This node on that device.
    pub own: Place,
}

/// What does not change while a farm runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the module; the kernel's tables are called `evenkeel-MODULE`.
    pub module: String,
    /// Its virtual addresses.
    pub addresses: Vec<Address>,
    /// How ports are balanced.
    pub rules: Vec<Rule>,
    /// How packets come to their node.
    pub delivery: Delivery,
    /// Whether connections stay where they are when their bucket moves. It costs connection
    /// tracking; without it they break.
    pub connections: bool,
}

/// Who serves new connections of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: they are dropped.
    Nobody,
    /// This node.
    Me,
    /// The member of that place in [`Table::members`].
    Member(u8),
}

/// What becomes of a packet of a connection that this node does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    /// It is handed to that member, who may know it. With directed delivery only.
    Pass(u8),
    /// It is answered by a reset, so that the client connects anew at once.
    Reset,
    /// It is dropped.
    Silent,
}

/// A bucket, as this node is to treat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Who serves its new connections.
    pub owner: Owner,
    /// What becomes of its unknown connections here.
    pub stray: Stray,
    /// Not this node's any more, but connections of it may live on here.
    pub former: bool,
}

impl Bucket {
    /// A bucket that nobody serves.
    pub const EMPTY: Self = Self { owner: Owner::Nobody, stray: Stray::Silent, former: false };
}

/// Who serves what, as this node is to treat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Whether this node answers when the network asks who has the virtual addresses.
    pub leader: bool,
    /// The others: for each its places, in the order of [`Plan::addresses`].
    pub members: Vec<Vec<Place>>,
    /// All [`BUCKETS`] of them.
    pub buckets: Vec<Bucket>,
}

impl Table {
    /// The table of a node that has no share yet.
    #[must_use]
    pub fn empty() -> Self {
        Self { leader: false, members: Vec::new(), buckets: vec![Bucket::EMPTY; BUCKETS] }
    }
}

/// What an installation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// The filter is new and its share empty.
    Fresh,
    /// A filter for the same plan stood already; it goes on by its last table.
    Adopted,
}

/// Something that makes the kernel share out clients.
pub trait Engine: Send {
    /// Puts up the filter with an empty share, and then the virtual addresses. A filter for an
    /// equal plan that stands already is adopted instead, whoever put it up.
    ///
    /// # Errors
    /// When the plan is unusable or the kernel refuses; a kernel's missing features are named.
    fn install(&mut self, plan: &Plan) -> Result<Installed, Error>;

    /// Brings a table into force, at once and as a whole.
    ///
    /// # Errors
    /// When the kernel refuses; the former table is in force then.
    fn apply(&mut self, table: &Table) -> Result<(), Error>;

    /// Starts the lifetime of the virtual addresses anew, each [`vip::RENEW_EVERY`], and brings the
    /// last table into force again if a device went away and came back meanwhile.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn renew(&mut self) -> Result<(), Error>;

    /// Takes away the virtual addresses, and then the filter.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove(&mut self) -> Result<(), Error>;
}

/// What each node needs beside the virtual address.
const OWN_ADDRESS: &str = "an address of its own in the same subnet, from which clients there get \
     their answers; give it one, or if all clients come through a router write the virtual \
     address with /32 or /128";

/// Finds the device for a virtual address and this node's place on it.
///
/// # Errors
/// When there is no device for it, or one without a hardware address or an address of its own in
/// the subnet that is written with the virtual one: nobody there would get an answer.
pub fn address(vip: &Vip) -> Result<Address, Error> {
    let link = vip::find_interface(vip)?;
    let unsuitable =
        |lack| Error::Unsuitable { address: vip.address, interface: link.name.clone(), lack };
    let mac = link.mac.filter(|mac| *mac != [0; 6]);
    let mac = mac.ok_or_else(|| unsuitable("a hardware address, as Ethernet has it"))?;
    let mut own = Netlink::open()?.addresses()?.into_iter().filter(|other| {
        other.index == link.index
            && other.ip != vip.address
            && other.ip.is_ipv4() == vip.address.is_ipv4()
            // A virtual address of another module has a short lifetime and comes and goes.
            && other.lifetime.is_none_or(|left| left > vip::LIFETIME)
    });
    // One that is written alone, as /32 or /128, is reached through a router, and only so.
    let alone = vip.prefix == if vip.address.is_ipv4() { 32 } else { 128 };
    let address = own.find(|other| alone || vip::same_subnet(other.ip, vip.address, vip.prefix));
    let address = address.ok_or_else(|| unsuitable(OWN_ADDRESS))?.ip;
    let device = link.name.clone();
    Ok(Address { ip: vip.address, device, own: Place { mac, address } })
}

/// Tells the neighbours that the virtual addresses are at this node: for a node that leads, after
/// the table that says so has been applied. With multicast delivery there is nothing to tell.
///
/// # Errors
/// When a packet cannot be sent.
pub fn announce(plan: &Plan) -> Result<(), Error> {
    if plan.delivery == Delivery::Multicast {
        return Ok(());
    }
    let mut netlink = Netlink::open()?;
    for address in &plan.addresses {
        let index = netlink.index_of(&address.device)?;
        announcement::announce(index, address.own.mac, address.ip)?;
    }
    Ok(())
}
