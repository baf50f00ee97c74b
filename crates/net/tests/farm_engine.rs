//! The farm's engine as its callers see it: what it finds, adopts, refuses and leaves alone. Needs
//! root, iproute2 and nftables (for tables of others).
//!
//! What becomes of traffic is in `farm`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the test's failure")]

mod farm_support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use farm_support::traffic::{Client, Failure, any, serve};
use farm_support::{CLIENT, Farm, SERVERS, SPREAD, VERSIONS, Version, mac, plan};
use model::config::Vip;
use net::farm::{self, Bucket, Delivery, Engine, Installed, Nft, Owner, Place, Table};
use net::{Error, vip};

const QUIET: Duration = Duration::from_millis(300);
const FOREIGN: &str = "table inet other { chain c { type filter hook input priority 0; \
                       ip saddr 192.0.2.1 counter drop; }; }";

fn configured(version: Version) -> Vip {
    let prefix = if version == Version::V4 { 24 } else { 64 };
    Vip { address: version.vip(), prefix, interface: None }
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().expect("nftables is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ask(farm: &Farm, version: Version) -> Result<usize, Failure> {
    let (from, to) = (any(version.on_lan(CLIENT)), SocketAddr::new(version.vip(), SPREAD));
    farm.on_client(|| Client::connect(from, to).and_then(|mut client| client.ask()))
}

#[test]
fn a_node_without_a_share_is_silent() {
    for delivery in [Delivery::Directed, Delivery::Multicast] {
        let farm = Farm::build(delivery);
        for version in VERSIONS {
            let vip = configured(version);
            let found = farm.on_client(|| vip::probe(&vip, QUIET)).unwrap();
            assert_eq!(found, None, "{delivery:?}");
        }
    }
}

#[test]
fn only_the_leader_answers_for_the_address() {
    let mut farm = Farm::serving(Delivery::Directed, &[0, 1, 2]);
    for server in 0..SERVERS {
        farm.on_server(server, || serve(server, SPREAD));
    }
    for leader in [0, 1, 2] {
        farm.shares.leader = leader;
        (0..SERVERS).for_each(|server| farm.apply(server));
        farm.announce();
        for version in VERSIONS {
            let vip = configured(version);
            let found = farm.on_client(|| vip::probe(&vip, QUIET)).unwrap();
            assert_eq!(found, Some(mac(leader)));
            // Answers to the client make each server ask for it; that must not advertise anybody.
            for _ in 0..20 {
                ask(&farm, version).unwrap();
            }
            let known = farm.on_client(|| {
                let show = ["neigh", "show", "to", &version.vip().to_string()].map(str::to_owned);
                let output = Command::new("ip").args(show).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            });
            let expected = mac(leader).map(|byte| format!("{byte:02x}")).join(":");
            assert!(known.contains(&expected), "{known} but {expected} leads");
        }
    }
}

#[test]
fn an_equal_filter_that_stands_is_adopted() {
    let mut farm = Farm::serving(Delivery::Directed, &[0, 1, 2]);
    for server in 0..SERVERS {
        farm.on_server(server, || serve(server, SPREAD));
    }
    let same = farm.plans[0].clone();
    let again = farm.on_server(0, || Nft::new().install(&same));
    assert_eq!(again.unwrap(), Installed::Adopted);
    for _ in 0..20 {
        for version in VERSIONS {
            ask(&farm, version).expect("the leader's filter goes on as it was");
        }
    }
    let mut other = same;
    other.rules.pop();
    let again = farm.engine(0, |engine| engine.install(&other));
    assert_eq!(again.unwrap(), Installed::Fresh);
    let vip = configured(Version::V4);
    assert_eq!(farm.on_client(|| vip::probe(&vip, QUIET)).unwrap(), None, "its share is empty");
    farm.plans[0] = other;
    farm.apply(0);
    assert!(ask(&farm, Version::V4).is_ok());
}

#[test]
fn a_device_that_comes_back_is_part_of_the_farm_again() {
    for delivery in [Delivery::Directed, Delivery::Multicast] {
        let mut farm = Farm::serving(delivery, &[0, 1, 2]);
        for server in 0..SERVERS {
            farm.on_server(server, || serve(server, SPREAD));
        }
        farm.replace_device(0);
        farm.engine(0, Engine::renew).unwrap();
        farm.announce();
        let mut served = [0; SERVERS];
        for number in 0..60 {
            served[ask(&farm, VERSIONS[number % 2]).unwrap()] += 1;
        }
        assert!(served.iter().all(|count| *count > 0), "{delivery:?}: {served:?}");
    }
}

#[test]
fn what_others_filter_is_left_alone() {
    let mut farm = Farm::build(Delivery::Directed);
    let list = |farm: &Farm| farm.on_server(0, || nft(&["list", "table", "inet", "other"]));
    farm.on_server(0, || nft(&[FOREIGN]));
    let before = list(&farm);
    farm.shares.leader = 0;
    farm.apply(0);
    assert_eq!(list(&farm), before);
    let tables = farm.on_server(0, || nft(&["list", "tables"]));
    assert!(tables.contains("table netdev evenkeel-web"), "{tables}");
    farm.engine(0, Engine::remove).unwrap();
    assert_eq!(farm.on_server(0, || nft(&["list", "tables"])), "table inet other\n");
    assert_eq!(list(&farm), before);
    let addresses = farm.on_server(0, || net::link::Netlink::open().unwrap().addresses()).unwrap();
    assert!(addresses.iter().all(|address| address.ip != Version::V4.vip()), "{addresses:?}");
    farm.engine(0, Engine::remove).unwrap();
    farm.on_server(0, || farm::remove("web")).unwrap();
}

#[test]
fn a_place_is_found_for_an_address() {
    let mut farm = Farm::build(Delivery::Directed);
    farm.engine(0, Engine::remove).unwrap();
    for version in VERSIONS {
        let found = farm.on_server(0, || farm::address(&configured(version))).unwrap();
        let own = Place { mac: mac(0), address: version.on_lan(1) };
        assert_eq!((found.ip, found.device.as_str(), found.own), (version.vip(), "eth0", own));
    }
    let on_loopback =
        Vip { address: "127.0.0.9".parse().unwrap(), prefix: 8, interface: Some("lo".into()) };
    let text = farm.on_server(0, || farm::address(&on_loopback)).unwrap_err().to_string();
    assert!(text.contains("lacks a hardware address"), "{text}");
}

#[test]
fn what_does_not_fit_together_is_refused_and_changes_nothing() {
    let mut farm = Farm::serving(Delivery::Directed, &[0]);
    farm.on_server(0, || serve(0, SPREAD));
    let mut tables = [Table::empty(), Table::empty(), Table::empty()];
    tables[0].buckets.pop();
    tables[1].buckets[7] = Bucket { owner: Owner::Member(0), ..Bucket::EMPTY };
    tables[2].members.push(Vec::new());
    for table in tables {
        let result = farm.engine(0, |engine| engine.apply(&table));
        assert!(matches!(result, Err(Error::Farm { .. })), "{result:?}");
    }
    let mut unusable = plan(0, Delivery::Directed);
    unusable.addresses.clear();
    assert!(farm.engine(0, |engine| engine.install(&unusable)).is_err());
    let mut elsewhere = plan(0, Delivery::Directed);
    elsewhere.module = "other".into();
    elsewhere.addresses[0].device = "eth7".into();
    let error = farm.on_server(0, || Nft::new().install(&elsewhere)).unwrap_err();
    assert!(error.to_string().contains("eth7"), "{error}");
    assert_eq!(ask(&farm, Version::V4), Ok(0));
}
