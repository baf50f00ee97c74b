//! The crate against the kernel, in namespaces of its own on virtual cables. Needs root.
//!
//! Each test builds its own network; nothing outside it is touched, and the kernel removes it with
//! the last descriptor.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::config::Vip;
use net::link::{Mac, Netlink};
use net::namespace::{NetNs, enter};
use net::ping::Pinger;
use net::route::Gateway;
use net::vip::{self, Holder};
use net::{Error, nft};

const NAMES: [&str; 3] = ["a", "b", "c"];
const QUIET: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// Three nodes `a`, `b`, `c` with `10.9.0.1` to `.3` and `fd09::1` to `::3`, each by one cable
/// (`eth0` there, `to-NAME` here) on a bridge.
struct Network {
    hub: OwnedFd,
    nodes: Vec<OwnedFd>,
    _turn: MutexGuard<'static, ()>,
}

/// One network at a time: the kernel takes its one lock for long when it clears namespaces away,
/// and what it does in the background to fresh addresses waits for that lock.
static TURN: Mutex<()> = Mutex::new(());

impl Network {
    fn build() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let hub = NetNs::create().expect("network namespaces need root");
        let nodes: Vec<_> = NAMES.iter().map(|_| NetNs::create().unwrap()).collect();
        enter(hub.as_fd(), || {
            let mut netlink = Netlink::open().unwrap();
            netlink.create_bridge("br0").unwrap();
            netlink.set_up("br0").unwrap();
            for (name, node) in NAMES.iter().zip(&nodes) {
                let port = format!("to-{name}");
                netlink.create_veth(&port, "eth0", node.as_fd()).unwrap();
                netlink.set_master(&port, "br0").unwrap();
                netlink.set_up(&port).unwrap();
            }
        })
        .unwrap();
        for (number, node) in (1..).zip(&nodes) {
            NetNs::set_loopback_up(node.as_fd()).unwrap();
            enter(node.as_fd(), || {
                let mut netlink = Netlink::open().unwrap();
                netlink.set_mac("eth0", mac(number)).unwrap();
                netlink.set_up("eth0").unwrap();
                netlink.add_address("eth0", ip(number), 24, None).unwrap();
                netlink.add_address("eth0", ip6(number), 64, None).unwrap();
            })
            .unwrap();
        }
        for namespace in nodes.iter().chain([&hub]) {
            enter(namespace.as_fd(), wait_for_carrier).unwrap();
        }
        Self { hub, nodes, _turn: turn }
    }

    fn on<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let node = NAMES.iter().position(|other| *other == name).unwrap();
        enter(self.nodes[node].as_fd(), work).unwrap()
    }

    fn cut(&self, cuts: &[(&str, &str)]) {
        let ports = cuts.iter().map(|(from, to)| (format!("to-{from}"), format!("to-{to}")));
        let cuts: Vec<_> = ports.collect();
        enter(self.hub.as_fd(), || nft::bridge_cuts(&cuts, &[])).unwrap().unwrap();
    }

    fn listen(&self, name: &str, ip: IpAddr) -> UdpSocket {
        self.on(name, || {
            let socket = UdpSocket::bind(SocketAddr::new(ip, 7)).unwrap();
            socket.set_read_timeout(Some(QUIET)).unwrap();
            socket
        })
    }
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

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 9, 0, number])
}

fn ip6(number: u8) -> IpAddr {
    format!("fd09::{number:x}").parse().unwrap()
}

fn mac(number: u8) -> Mac {
    [2, 0, 0, 0, 0, number]
}

fn vip(ip: IpAddr) -> Vip {
    let prefix = if ip.is_ipv4() { 24 } else { 64 };
    Vip { address: ip, prefix, interface: None }
}

/// Whether a datagram sent by one socket reaches the other.
fn reaches(from: &UdpSocket, to: &UdpSocket) -> bool {
    let text = format!("{:?}", Instant::now());
    from.send_to(text.as_bytes(), to.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 100];
    loop {
        match to.recv(&mut buffer) {
            Ok(length) if &buffer[..length] == text.as_bytes() => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The same, repeated for a while: the kernel finishes a fresh version 6 address in the background.
/// The time is far shorter than that after which a neighbour verifies its cache by itself.
fn comes_to_reach(from: &UdpSocket, to: &UdpSocket) -> bool {
    (0..10).any(|_| reaches(from, to))
}

fn lifetime_of(ip: IpAddr) -> Option<Option<Duration>> {
    let addresses = Netlink::open().unwrap().addresses().unwrap();
    addresses.iter().find(|address| address.ip == ip).map(|address| address.lifetime)
}

#[test]
fn a_cut_works_in_one_direction_only_and_can_be_undone() {
    let network = Network::build();
    let (a, b) = (network.listen("a", ip(1)), network.listen("b", ip(2)));
    assert!(reaches(&a, &b) && reaches(&b, &a));
    network.cut(&[("a", "b")]);
    assert!(!reaches(&a, &b), "a's frames must not reach b");
    assert!(reaches(&b, &a), "the other direction must stay");
    network.cut(&[("b", "a"), ("b", "c")]);
    assert!(reaches(&a, &b), "a new list replaces the former one");
    assert!(!reaches(&b, &a));
    let c = network.listen("c", ip(3));
    assert!(reaches(&a, &c), "others are not concerned");
    network.cut(&[]);
    assert!(reaches(&a, &b) && reaches(&b, &a));
    network.cut(&[]);
}

#[test]
fn many_cuts_fit_in_one_batch() {
    let network = Network::build();
    let (a, b) = (network.listen("a", ip(1)), network.listen("b", ip(2)));
    assert!(reaches(&a, &b) && reaches(&b, &a));
    let mut cuts: Vec<_> = (0..200).map(|n| (format!("x{n}"), format!("y{n}"))).collect();
    cuts.push(("to-a".into(), "to-b".into()));
    enter(network.hub.as_fd(), || nft::bridge_cuts(&cuts, &[])).unwrap().unwrap();
    assert!(!reaches(&a, &b) && reaches(&b, &a));
    let long = [("a".repeat(16), "b".to_owned())];
    let error = enter(network.hub.as_fd(), || nft::bridge_cuts(&long, &[])).unwrap().unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENAMETOOLONG));
    assert!(!reaches(&a, &b), "a refused list leaves the former one in force");
}

#[test]
fn neighbours_follow_a_moving_address_at_once() {
    for address in [ip(50), ip6(0x50)] {
        let network = Network::build();
        let vip = vip(address);
        let holder = network.on("a", || Holder::take(&vip)).unwrap();
        assert_eq!(holder.interface(), "eth0");
        let client = network.listen("c", if address.is_ipv4() { ip(3) } else { ip6(3) });
        let at_a = network.listen("a", address);
        assert!(comes_to_reach(&client, &at_a));
        // The client now has a's hardware address in its cache and would use it for a while.
        network.on("a", || holder.release()).unwrap();
        assert_eq!(network.on("a", || lifetime_of(address)), None);
        let _holder = network.on("b", || Holder::take(&vip)).unwrap();
        let at_b = network.listen("b", address);
        assert!(comes_to_reach(&client, &at_b), "{address}: the client still sends to a");
    }
}

/// That the test above would fail without the announcement.
#[test]
fn without_an_announcement_neighbours_do_not_follow() {
    for (address, prefix) in [(ip(50), 24), (ip6(0x50), 64)] {
        let network = Network::build();
        let add = || Netlink::open().unwrap().add_address("eth0", address, prefix, None).unwrap();
        let remove = || Netlink::open().unwrap().delete_address("eth0", address, prefix).unwrap();
        network.on("a", add);
        let client = network.listen("c", if address.is_ipv4() { ip(3) } else { ip6(3) });
        let at_a = network.listen("a", address);
        assert!(comes_to_reach(&client, &at_a));
        network.on("a", remove);
        network.on("b", add);
        let at_b = network.listen("b", address);
        assert!(!comes_to_reach(&client, &at_b), "{address}: followed without being told");
    }
}

#[test]
fn an_address_has_a_lifetime_that_is_renewed() {
    let network = Network::build();
    for address in [ip(50), ip6(0x50)] {
        let vip = vip(address);
        network.on("a", || {
            let mut holder = Holder::take(&vip).unwrap();
            let left = lifetime_of(address).unwrap().expect("a lifetime");
            assert!(left > Duration::from_secs(57) && left <= vip::LIFETIME, "{left:?}");
            let mut netlink = Netlink::open().unwrap();
            let short = Some(Duration::from_secs(10));
            netlink.add_address("eth0", address, vip.prefix, short).unwrap();
            assert!(lifetime_of(address).unwrap().unwrap() <= Duration::from_secs(10));
            holder.renew().unwrap();
            assert!(lifetime_of(address).unwrap().unwrap() > Duration::from_secs(57));
            Holder::take(&vip).unwrap();
            netlink.delete_address("eth0", address, vip.prefix).unwrap();
            assert!(matches!(holder.renew(), Err(Error::Lost { .. })));
            assert_eq!(lifetime_of(address), None, "a lost address is not added silently");
            holder.release().unwrap();
        });
    }
}

#[test]
fn the_kernel_removes_an_address_that_is_not_renewed() {
    let network = Network::build();
    network.on("a", || {
        let second = Some(Duration::from_secs(1));
        Netlink::open().unwrap().add_address("eth0", ip(50), 24, second).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while lifetime_of(ip(50)).is_some() {
            assert!(Instant::now() < end, "it is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn a_leftover_address_is_removed_wherever_it_is() {
    let network = Network::build();
    network.on("a", || {
        let mut netlink = Netlink::open().unwrap();
        netlink.add_address("lo", ip(50), 32, None).unwrap();
        vip::remove(&vip(ip(50))).unwrap();
        assert_eq!(lifetime_of(ip(50)), None);
        vip::remove(&vip(ip(50))).unwrap();
        assert!(lifetime_of(ip(1)).is_some());
    });
}

#[test]
fn a_probe_finds_who_has_the_address() {
    for address in [ip(50), ip6(0x50)] {
        let network = Network::build();
        let vip = vip(address);
        assert_eq!(network.on("b", || vip::probe(&vip, QUIET)).unwrap(), None);
        let holder = network.on("a", || Holder::take(&vip)).unwrap();
        assert_eq!(network.on("b", || vip::probe(&vip, QUIET)).unwrap(), Some(mac(1)));
        assert_eq!(network.on("a", || vip::probe(&vip, QUIET)).unwrap(), None, "not ourselves");
        network.on("a", || holder.release()).unwrap();
        assert_eq!(network.on("b", || vip::probe(&vip, QUIET)).unwrap(), None);
    }
}

#[test]
fn the_interface_is_found_by_subnet_or_by_name() {
    let network = Network::build();
    network.on("a", || {
        assert_eq!(vip::find_interface(&vip(ip(50))).unwrap().name, "eth0");
        assert_eq!(vip::find_interface(&vip(ip6(0x50))).unwrap().name, "eth0");
        let foreign = Vip { address: "192.168.7.50".parse().unwrap(), prefix: 24, interface: None };
        // The virtual address itself, left over from before, does not make an interface suitable.
        let mut netlink = Netlink::open().unwrap();
        netlink.add_address("lo", foreign.address, 24, None).unwrap();
        let text = vip::find_interface(&foreign).unwrap_err().to_string();
        assert!(
            text.starts_with(
                "no interface has an address in the subnet of 192.168.7.50/24; there are \
             lo (127.0.0.1/8 ::1/128), eth0 (10.9.0.1/24 fd09::1/64"
            ),
            "{text}"
        );
        assert!(text.contains("set `interface` of this [[vip]]"), "{text}");
        let named = Vip { interface: Some("eth0".into()), ..foreign.clone() };
        assert_eq!(vip::find_interface(&named).unwrap().name, "eth0");
        let wrong = Vip { interface: Some("eth7".into()), ..foreign };
        let text = vip::find_interface(&wrong).unwrap_err().to_string();
        assert!(text.starts_with("interface \"eth7\" of 192.168.7.50 does not exist"), "{text}");
    });
}

#[test]
fn a_farm_needs_an_address_of_its_own_beside_the_virtual_one() {
    let network = Network::build();
    network.on("a", || {
        let foreign = |address: &str, prefix| {
            let vip = Vip { address: ip_of(address), prefix, interface: Some("eth0".into()) };
            net::farm::address(&vip).map(|found| found.own.address)
        };
        assert_eq!(foreign("10.9.0.50", 24).unwrap(), ip_of("10.9.0.1"));
        for (address, prefix, routed) in [("192.168.7.50", 24, 32), ("fd77::50", 64, 128)] {
            let text = foreign(address, prefix).unwrap_err().to_string();
            assert!(text.contains("lacks an address of its own in the same subnet"), "{text}");
            // Clients that come through a router get their answers by it.
            foreign(address, routed).unwrap();
        }
        let mut netlink = Netlink::open().unwrap();
        netlink.add_address("eth0", ip_of("192.168.7.1"), 24, None).unwrap();
        assert_eq!(foreign("192.168.7.50", 24).unwrap(), ip_of("192.168.7.1"));
    });
}

fn ip_of(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn links_are_listed_changed_and_deleted() {
    let network = Network::build();
    enter(network.hub.as_fd(), || {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["lo", "br0", "to-a", "to-b", "to-c"]);
        assert!(links[2].up && links[2].carrier);
        assert_eq!(netlink.index_of("to-a").unwrap(), links[2].index);
        netlink.set_down("to-a").unwrap();
        assert!(!netlink.link("to-a").unwrap().up);
        netlink.delete("to-a").unwrap();
        let error = netlink.delete("to-a").unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENODEV));
        let text = error.to_string();
        assert!(text.starts_with("cannot find interface \"to-a\": No such device"), "{text}");
        let error = netlink.create_bridge("br0").unwrap_err();
        assert_eq!(error.errno(), Some(libc::EEXIST));
        netlink.delete_address("br0", ip(9), 24).unwrap();
        netlink.delete_address("to-a", ip(9), 24).unwrap();
        // An error in between does not upset the conversation.
        assert_eq!(netlink.links().unwrap().len(), 4);
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "on purpose")]
fn a_panic_inside_a_namespace_goes_on_in_the_caller() {
    let namespace = NetNs::create().expect("network namespaces need root");
    let _ = enter(namespace.as_fd(), || panic!("on purpose"));
}

#[test]
fn a_gateway_is_found_and_answers_until_it_is_cut_off() {
    let network = Network::build();
    for far in [ip(2), ip6(2)] {
        let found = network.on("a", || {
            let mut netlink = Netlink::open().unwrap();
            assert_eq!(netlink.gateways().unwrap(), []);
            netlink.set_gateway("eth0", far).unwrap();
            let found = netlink.gateways().unwrap();
            let index = netlink.index_of("eth0").unwrap();
            assert_eq!(found, [Gateway { address: far, index }]);
            found[0]
        });
        let pinger = network.on("a", || Pinger::open(0xfeed_0000_0000_0001).unwrap());
        let stranger = network.on("a", || Pinger::open(0xbeef_0000_0000_0001).unwrap());
        pinger.ask(found, 5).unwrap();
        let echo = pinger.hear(Instant::now() + LONG).unwrap().unwrap();
        assert_eq!((echo.from, echo.sequence), (far, 5));
        assert_eq!(stranger.hear(Instant::now()).unwrap(), None);
        network.cut(&[("a", "b")]);
        pinger.ask(found, 6).unwrap();
        assert_eq!(pinger.hear(Instant::now() + QUIET).unwrap(), None);
        network.cut(&[]);
        if far.is_ipv4() {
            // Else this route would be preferred to that of version 6.
            network.on("a", || {
                let mut netlink = Netlink::open().unwrap();
                netlink.set_down("eth0").unwrap();
                assert_eq!(netlink.gateways().unwrap(), []);
                netlink.set_up("eth0").unwrap();
                netlink.add_address("eth0", ip6(1), 64, None).unwrap();
                wait_for_carrier();
            });
        }
    }
}
