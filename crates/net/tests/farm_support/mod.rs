//! A farm of three servers on a bridge, a client beside them and one behind a router, all in
//! network namespaces; and what a farm's core would tell their engines.
//!
//! It has no heartbeats and decides nothing by itself: tests say who owns what.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

pub mod traffic;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use net::farm::{self, Address, Affinity, BUCKETS, Bucket, Delivery, Engine, Nft, Owner, Place};
use net::farm::{Installed, Plan, Protocol, Rule, Stray, Table};
use net::link::{Mac, Netlink};
use net::namespace::{NetNs, enter};

pub const SERVERS: usize = 3;
/// The port whose connections are spread by address and port, and the one by address alone.
pub const SPREAD: u16 = 80;
pub const STICKY: u16 = 81;
const NAMES: [&str; 5] = ["s0", "s1", "s2", "c", "r"];

/// One test at a time: all share two processors and the kernel's one lock for networks.
static TURN: Mutex<()> = Mutex::new(());

/// A version of IP, with the addresses of the test's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V6,
}

pub const VERSIONS: [Version; 2] = [Version::V4, Version::V6];

impl Version {
    pub fn vip(self) -> IpAddr {
        self.on_lan(100)
    }

    pub fn on_lan(self, number: u16) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 9, 0, u8::try_from(number).unwrap()]),
            Self::V6 => IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, number]),
        }
    }

    pub fn far(self, number: u16) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 10, 0, u8::try_from(number).unwrap()]),
            Self::V6 => IpAddr::from([0xfd10, 0, 0, 0, 0, 0, 0, number]),
        }
    }

    fn prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }
}

/// Number of the client and of the router on the network of the servers.
pub const CLIENT: u16 = 200;
const ROUTER: u16 = 254;

/// Namespaces, cables and engines.
pub struct Farm {
    hub: OwnedFd,
    hosts: Vec<OwnedFd>,
    far: OwnedFd,
    pub plans: Vec<Plan>,
    engines: Vec<Nft>,
    pub shares: Shares,
    _turn: MutexGuard<'static, ()>,
}

impl Farm {
    /// Builds the network and installs an engine on each server; nobody has a share yet.
    pub fn build(delivery: Delivery) -> Self {
        Self::build_with(|server| plan(server, delivery))
    }

    /// The same with plans of the test's own.
    pub fn build_with(plan: impl Fn(usize) -> Plan) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (hub, hosts) = local_network();
        let far = far_network(&hosts);
        let plans: Vec<_> = (0..SERVERS).map(plan).collect();
        let engines = (0..SERVERS).map(|_| Nft::new()).collect();
        let shares = Shares::new();
        let mut farm = Self { hub, hosts, far, plans, engines, shares, _turn: turn };
        for server in 0..SERVERS {
            let plan = farm.plans[server].clone();
            farm.engine(server, |engine| engine.install(&plan)).unwrap();
        }
        farm
    }

    /// Builds it with these servers as owners of everything.
    pub fn serving(delivery: Delivery, servers: &[usize]) -> Self {
        Self::build(delivery).with_shares(servers)
    }

    /// Makes these servers the owners of everything, the first of them the leader.
    pub fn with_shares(mut self, servers: &[usize]) -> Self {
        let farm = &mut self;
        farm.shares.share_out(servers);
        farm.shares.leader = servers[0];
        for server in 0..SERVERS {
            farm.apply(server);
        }
        farm.announce();
        self
    }

    pub fn on_server<T: Send>(&self, server: usize, work: impl FnOnce() -> T + Send) -> T {
        enter(self.hosts[server].as_fd(), work).unwrap()
    }

    pub fn on_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(self.hosts[SERVERS].as_fd(), work).unwrap()
    }

    /// On the client behind the router.
    pub fn far_away<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(self.far.as_fd(), work).unwrap()
    }

    pub fn engine<T: Send>(&mut self, server: usize, work: impl FnOnce(&mut Nft) -> T + Send) -> T {
        let engine = &mut self.engines[server];
        enter(self.hosts[server].as_fd(), || work(engine)).unwrap()
    }

    /// Brings the present shares into force on a server.
    pub fn apply(&mut self, server: usize) {
        let table = self.shares.table(server, &self.plans);
        self.engine(server, |engine| engine.apply(&table)).unwrap();
    }

    /// The leader tells the network where the addresses are.
    pub fn announce(&self) {
        let plan = &self.plans[self.shares.leader];
        self.on_server(self.shares.leader, || farm::announce(plan)).unwrap();
    }

    /// Changes the owners among the living as a core does: with directed delivery the others first
    /// and the leader last, with multicast those who lose before those who gain.
    pub fn share_out(&mut self, servers: &[usize]) {
        let before = self.shares.clone();
        self.shares.share_out(servers);
        let (leader, directed) = (self.shares.leader, self.plans[0].delivery == Delivery::Directed);
        let mut order: Vec<_> =
            (0..SERVERS).filter(|server| !self.shares.dead.contains(server)).collect();
        if directed {
            order.sort_by_key(|server| *server == leader);
        } else {
            order.sort_by_key(|server| self.shares.owned(*server) > before.owned(*server));
        }
        for server in order {
            self.apply(server);
        }
    }

    /// Cuts the cable of a server; the others take over what it had.
    pub fn kill(&mut self, server: usize, survivors: &[usize]) {
        enter(self.hub.as_fd(), || {
            Netlink::open().unwrap().set_down(&format!("to-s{server}")).unwrap();
        })
        .unwrap();
        self.shares.dead.push(server);
        if self.shares.leader == server {
            self.shares.leader = survivors[0];
        }
        self.share_out(survivors);
        self.announce();
    }

    /// Plugs the cable of a dead server in again, as after a boot: it knows nothing any more.
    pub fn revive(&mut self, server: usize) {
        let plan = self.plans[server].clone();
        self.engine(server, |engine| {
            engine.remove().unwrap();
            engine.install(&plan).unwrap();
        });
        enter(self.hub.as_fd(), || {
            Netlink::open().unwrap().set_up(&format!("to-s{server}")).unwrap();
        })
        .unwrap();
        self.on_server(server, wait_for_carrier);
        self.shares.dead.retain(|dead| *dead != server);
    }

    /// A server's device goes away and comes back, with another number.
    pub fn replace_device(&self, server: usize) {
        let port = format!("to-s{server}");
        enter(self.hub.as_fd(), || {
            let mut netlink = Netlink::open().unwrap();
            netlink.delete(&port).unwrap();
            // Numbers are given again, if nothing else takes them.
            netlink.create_bridge("between").unwrap();
            netlink.create_veth(&port, "eth0", self.hosts[server].as_fd()).unwrap();
            netlink.set_master(&port, "br0").unwrap();
            netlink.set_up(&port).unwrap();
        })
        .unwrap();
        self.on_server(server, || {
            let mut netlink = Netlink::open().unwrap();
            netlink.set_mac("eth0", mac(server)).unwrap();
            netlink.set_up("eth0").unwrap();
            for version in VERSIONS {
                let address = version.on_lan(number(server));
                netlink.add_address("eth0", address, version.prefix(), None).unwrap();
            }
            wait_for_carrier();
        });
    }

    /// A server's daemon begins anew while the kernel goes on.
    pub fn restart_engine(&mut self, server: usize) -> Installed {
        let plan = self.plans[server].clone();
        self.engines[server] = Nft::new();
        self.engine(server, |engine| engine.install(&plan)).unwrap()
    }

    /// Hands the leadership over: the new one is told first.
    pub fn lead(&mut self, server: usize) {
        let former = std::mem::replace(&mut self.shares.leader, server);
        self.apply(server);
        self.announce();
        if !self.shares.dead.contains(&former) {
            self.apply(former);
        }
    }

    /// Has the router cut what the client behind it sends, which does not object, into fragments.
    pub fn cut_into_fragments(&self) {
        enter(self.hosts[SERVERS + 1].as_fd(), || ip("link set eth0 mtu 600")).unwrap();
        let by = Version::V4.far(1);
        self.far_away(|| ip(&format!("route replace default via {by} mtu lock 1500")));
    }

    /// How many fragments the router has made.
    pub fn fragments(&self) -> u64 {
        enter(self.hosts[SERVERS + 1].as_fd(), || {
            let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
            let mut lines = text.lines().filter(|line| line.starts_with("Ip: "));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let mut columns = names.split(' ').zip(values.split(' '));
            columns.find(|(name, _)| *name == "FragCreates").unwrap().1.parse().unwrap()
        })
        .unwrap()
    }

    /// Limits what fits in a packet to the client behind the router.
    pub fn narrow(&self, mtu: u16) {
        enter(self.hosts[SERVERS + 1].as_fd(), || {
            ip(&format!("link set far mtu {mtu}"));
        })
        .unwrap();
    }
}

/// Who owns and owned which bucket, as a core knows it.
#[derive(Debug, Clone)]
pub struct Shares {
    pub leader: usize,
    /// Per bucket its owners, the present one first, each once.
    pub history: Vec<Vec<usize>>,
    pub died: Vec<bool>,
    pub dead: Vec<usize>,
}

impl Shares {
    fn new() -> Self {
        Self {
            leader: 0,
            history: vec![Vec::new(); BUCKETS],
            died: vec![false; BUCKETS],
            dead: Vec::new(),
        }
    }

    pub fn owner(&self, bucket: u8) -> usize {
        self.history[usize::from(bucket)][0]
    }

    pub fn owned(&self, server: usize) -> usize {
        self.history.iter().filter(|owners| owners.first() == Some(&server)).count()
    }

    /// Gives each server an equal share, and moves no more than that takes.
    fn share_out(&mut self, servers: &[usize]) {
        for (owners, died) in self.history.iter_mut().zip(&mut self.died) {
            *died |= owners.iter().any(|owner| self.dead.contains(owner));
            owners.retain(|owner| !self.dead.contains(owner));
        }
        for bucket in 0..BUCKETS {
            let stays = |owner| servers.contains(owner);
            let count = |server: usize, shares: &Self| shares.owned(server);
            let least = *servers.iter().min_by_key(|server| count(**server, self)).unwrap();
            let owners = &self.history[bucket];
            let present = owners.first().copied();
            let keep = present.as_ref().is_some_and(stays)
                && count(present.unwrap(), self) <= BUCKETS.div_ceil(servers.len());
            if !keep {
                let owners = &mut self.history[bucket];
                owners.retain(|owner| *owner != least);
                owners.insert(0, least);
            }
        }
    }

    fn table(&self, server: usize, plans: &[Plan]) -> Table {
        let others: Vec<_> = (0..SERVERS).filter(|other| *other != server).collect();
        let member = |other: usize| {
            u8::try_from(others.iter().position(|it| *it == other).unwrap()).unwrap()
        };
        let directed = plans[server].delivery == Delivery::Directed;
        let bucket = |(owners, died): (&Vec<usize>, &bool)| {
            let position = owners.iter().position(|owner| *owner == server);
            let next = position.and_then(|position| owners.get(position + 1));
            Bucket {
                owner: match owners.first() {
                    None => Owner::Nobody,
                    Some(owner) if *owner == server => Owner::Me,
                    Some(owner) => Owner::Member(member(*owner)),
                },
                stray: match next {
                    Some(next) if directed => Stray::Pass(member(*next)),
                    None if *died => Stray::Reset,
                    Some(_) | None => Stray::Silent,
                },
                former: position.is_some_and(|position| position > 0),
            }
        };
        let places = |other: &usize| plans[*other].addresses.iter().map(|it| it.own).collect();
        Table {
            leader: self.leader == server,
            members: others.iter().map(places).collect(),
            buckets: self.history.iter().zip(&self.died).map(bucket).collect(),
        }
    }
}

/// The plan of a server, with an address of each version.
pub fn plan(server: usize, delivery: Delivery) -> Plan {
    let address = |version: Version| Address {
        ip: version.vip(),
        device: "eth0".into(),
        own: Place { mac: mac(server), address: version.on_lan(number(server)) },
    };
    let rule = |protocol, port, affinity| Rule { protocol, port, affinity };
    Plan {
        module: "web".into(),
        addresses: VERSIONS.map(address).to_vec(),
        rules: vec![
            rule(Protocol::Tcp, SPREAD, Affinity::ClientIpPort),
            rule(Protocol::Tcp, STICKY, Affinity::ClientIp),
            rule(Protocol::Udp, SPREAD, Affinity::ClientIpPort),
            rule(Protocol::Udp, STICKY, Affinity::ClientIp),
        ],
        delivery,
        connections: true,
    }
}

pub fn mac(host: usize) -> Mac {
    [2, 0, 0, 0, 0, u8::try_from(host + 1).unwrap()]
}

fn number(host: usize) -> u16 {
    match NAMES[host] {
        "c" => CLIENT,
        "r" => ROUTER,
        _ => u16::try_from(host + 1).unwrap(),
    }
}

/// The bridge, and each host by one cable: `eth0` there, `to-NAME` here.
fn local_network() -> (OwnedFd, Vec<OwnedFd>) {
    let hub = NetNs::create().expect("network namespaces need root");
    let hosts: Vec<_> = NAMES.iter().map(|_| NetNs::create().unwrap()).collect();
    enter(hub.as_fd(), || {
        let mut netlink = Netlink::open().unwrap();
        netlink.create_bridge("br0").unwrap();
        netlink.set_up("br0").unwrap();
        for (name, host) in NAMES.iter().zip(&hosts) {
            let port = format!("to-{name}");
            netlink.create_veth(&port, "eth0", host.as_fd()).unwrap();
            netlink.set_master(&port, "br0").unwrap();
            netlink.set_up(&port).unwrap();
        }
    })
    .unwrap();
    for (host, namespace) in hosts.iter().enumerate() {
        NetNs::set_loopback_up(namespace.as_fd()).unwrap();
        enter(namespace.as_fd(), || {
            let mut netlink = Netlink::open().unwrap();
            netlink.set_mac("eth0", mac(host)).unwrap();
            netlink.set_up("eth0").unwrap();
            for version in VERSIONS {
                let address = version.on_lan(number(host));
                netlink.add_address("eth0", address, version.prefix(), None).unwrap();
            }
        })
        .unwrap();
    }
    for namespace in hosts.iter().chain([&hub]) {
        enter(namespace.as_fd(), wait_for_carrier).unwrap();
    }
    (hub, hosts)
}

/// A client behind the router, and the ways to it and back.
fn far_network(hosts: &[OwnedFd]) -> OwnedFd {
    let far = NetNs::create().unwrap();
    let router = hosts[SERVERS + 1].as_fd();
    enter(router, || {
        Netlink::open().unwrap().create_veth("far", "eth0", far.as_fd()).unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    })
    .unwrap();
    for (namespace, device, number) in [(router, "far", 1), (far.as_fd(), "eth0", 2)] {
        enter(namespace, || {
            let mut netlink = Netlink::open().unwrap();
            netlink.set_up(device).unwrap();
            for version in VERSIONS {
                let address = version.far(number);
                netlink.add_address(device, address, version.prefix(), None).unwrap();
            }
        })
        .unwrap();
    }
    for namespace in [router, far.as_fd()] {
        enter(namespace, wait_for_carrier).unwrap();
    }
    for version in VERSIONS {
        enter(far.as_fd(), || route(version.far(1))).unwrap();
        for server in &hosts[..SERVERS] {
            enter(server.as_fd(), || route(version.on_lan(ROUTER))).unwrap();
        }
    }
    far
}

fn route(by: IpAddr) {
    let version = if by.is_ipv4() { "-4" } else { "-6" };
    ip(&format!("{version} route add default via {by}"));
}

/// Runs the `ip` of iproute2 in the thread's namespace.
pub fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status();
    assert!(done.expect("iproute2 is needed").success(), "ip {arguments}");
}

/// The kernel drops frames until it has noticed that a fresh cable works.
fn wait_for_carrier() {
    let mut netlink = Netlink::open().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !netlink.links().unwrap().iter().all(|link| link.carrier || !link.up) {
        assert!(Instant::now() < end, "no carrier: {:?}", netlink.links());
        std::thread::sleep(Duration::from_millis(5));
    }
}
